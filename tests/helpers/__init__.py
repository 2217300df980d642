"""Tiny modules and data for the tests."""
