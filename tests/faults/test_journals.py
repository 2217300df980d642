"""Journals torn and corrupted at random: refused, or continued to the same result."""

import math
import warnings

import pytest
from helpers.searches import FREE, OBJECTIVE, Scored, plain, sphere, theta
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tglo_lightning.search import CMAES, Evaluation, Finals, SearchResult, SearchSettings, search
from tglo_lightning.search.journal import Journal, JournalError

SETTINGS = SearchSettings(2, 3, FREE, CMAES(3.0), Finals(finalists=1, seeds=1, confirm=2), seed=5)
HEADER = {"settings": SETTINGS.to_dict(), "original": "original", "monitor": "fitness", "mode": "max"}
HEADER |= {"evaluator": "scored", "classes": 10, "original_options": []}


def rough(criterion, seed, trained):
    """Fails so often that the first generation has to be drawn again."""
    far = not criterion.is_original and abs(theta(criterion)[3]) > 0.6
    return Evaluation(math.nan, "timeout", 0.1, "far") if far else sphere(criterion, seed)


def run(path=None):
    journal = None if path is None else Journal(path, HEADER)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No candidate of generation")
            return plain(search(Scored(rough), SETTINGS, OBJECTIVE, journal=journal))
    finally:
        if journal is not None:
            journal.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A journal's content, another search's journal's content, the result, and where to put damaged ones."""
    folder = tmp_path_factory.mktemp("journals")
    expected = run(folder / "whole.jsonl")
    assert expected == run()
    assert len(expected["history"]) > 2 * 3
    return (folder / "whole.jsonl").read_bytes(), expected, folder / "damaged.jsonl"


positions = st.integers(0, 10**6)
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), positions, st.integers(0, 7)),
        st.tuples(st.just("cut"), positions, st.integers(1, 400)),
        st.tuples(st.just("insert"), positions, st.binary(min_size=1, max_size=20)),
        st.tuples(st.just("zero"), positions, st.integers(1, 200)),
        st.tuples(st.just("truncate"), positions, st.none()),
        st.tuples(st.just("append"), st.just(0), st.binary(min_size=1, max_size=40)),
        st.tuples(st.just("swap"), positions, positions),
        st.tuples(st.just("repeat"), positions, positions),
        st.tuples(st.just("drop"), positions, st.none()),
    ),
    min_size=1,
    max_size=3,
)


def edited(content, edits):
    for kind, at, what in edits:
        lines = content.splitlines(keepends=True)
        if not content:
            return content
        at = at % len(lines) if kind in ("swap", "repeat", "drop") else at % len(content)
        if kind == "flip":
            content = content[:at] + bytes([content[at] ^ 1 << what]) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at] + content[at + what :]
        elif kind == "insert":
            content = content[:at] + what + content[at:]
        elif kind == "zero":
            content = content[:at] + bytes(min(what, len(content) - at)) + content[at + what :]
        elif kind == "truncate":
            content = content[:at]
        elif kind == "append":
            content += what
        elif kind == "swap":
            other = what % len(lines)
            lines[at], lines[other] = lines[other], lines[at]
            content = b"".join(lines)
        elif kind == "repeat":
            content = b"".join([*lines[: what % len(lines)], lines[at], *lines[what % len(lines) :]])
        elif kind == "drop":
            content = b"".join(lines[:at] + lines[at + 1 :])
    return content


def check(whole, edits):
    content, expected, path = whole
    damaged = edited(content, edits)
    path.write_bytes(damaged)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = run(path)
        except JournalError:
            # Left as it was; a torn end alone may have been cut off
            assert damaged.startswith(path.read_bytes())
            return
    assert found == expected
    if damaged and not damaged.endswith(b"\n"):
        assert any("dropped the last line" in str(warning.message) for warning in caught)
    # and it is whole now
    assert run(path) == expected
    assert len(SearchResult.load(path).history) == len(expected["history"])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(edits=EDITS)
def test_damaged_journals(whole, edits):
    check(whole, edits)


@pytest.mark.faults
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(edits=EDITS)
def test_damaged_journals_at_length(whole, edits):
    check(whole, edits)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(content=st.binary(max_size=300))
def test_files_that_are_no_journals(whole, content):
    path = whole[2]
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert run(path) == whole[1]
            assert b"\n" not in content
        except JournalError:
            assert content.startswith(path.read_bytes())
