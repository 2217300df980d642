"""Fixtures of the tests beside it."""

from helpers.modules import api, either_api

__all__ = ["api", "either_api"]
