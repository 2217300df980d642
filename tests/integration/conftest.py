"""Fixtures of the tests beside it."""

from helpers.modules import api

__all__ = ["api"]
