"""No test of workers leaves one behind."""

import pytest
from helpers.workers import workers


@pytest.fixture(autouse=True)
def no_worker_left():
    yield
    assert workers() == []
