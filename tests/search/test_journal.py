"""A killed search goes on from its journal, bit for bit, and draws only what is left."""

import json
import math
import os
import random
import resource
import signal
import time
from dataclasses import replace

import pytest
from helpers.searches import FULL, OBJECTIVE, Halving, Scored, plain, settings, sphere, theta

from tglo_lightning.search import (
    CMAES,
    Budget,
    Evaluation,
    RandomSearch,
    SearchResult,
    TaylorSpace,
    WarmCMAES,
    search,
)
from tglo_lightning.search.files import is_finished, result_path
from tglo_lightning.search.journal import Journal, JournalError, Unwritable

TRAININGS = 3 * 6 + 2 * 2 + 2 * 3
SETTINGS = settings(seed=3)
HEADER = {
    "settings": SETTINGS.to_dict(),
    "evaluator": "scored",
    "original": "original",
    "original_options": [],
    "monitor": "fitness",
    "mode": "max",
    "classes": 10,
}


def score(criterion, seed, trained):
    """Far candidates fail."""
    far = sum(theta(criterion)) > 4
    return Evaluation(math.nan, "diverged", 0.1, "far") if far else sphere(criterion, seed, trained)


def go(path=None, evaluator=None, header=HEADER, given=SETTINGS):
    evaluator = evaluator or Scored(score)
    if path is None:
        return plain(search(evaluator, given, OBJECTIVE))
    journal = Journal(path, header)
    try:
        return plain(search(evaluator, given, OBJECTIVE, journal=journal))
    finally:
        journal.close()


@pytest.fixture(scope="module")
def uninterrupted():
    return go()


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "journal.jsonl"
    go(path)
    return path


def test_recording_changes_nothing(tmp_path, uninterrupted):
    evaluator = Scored(score)
    assert go(tmp_path / "folder" / "journal.jsonl", evaluator) == uninterrupted
    assert len(evaluator.seen) == TRAININGS


def test_a_finished_search_is_not_trained_again(journal, uninterrupted):
    before = journal.read_bytes()
    evaluator = Scored(score)
    assert go(journal, evaluator) == uninterrupted
    assert evaluator.seen == []
    assert journal.read_bytes() == before


def counting(kind):
    class Counting(kind):
        asked = 0

        def ask(self):
            self.asked += 1
            return super().ask()

    return Counting()


@pytest.mark.parametrize(
    ("kind", "space", "shares_passes"),
    [
        (CMAES, TaylorSpace(constraint="stable"), False),
        (CMAES, FULL, True),
        (RandomSearch, TaylorSpace(), False),
        (Halving, FULL, False),
    ],
)
def test_it_goes_on_where_it_was_killed(tmp_path, kind, space, shares_passes):
    """After any number of trainings, with the strategy's state restored: ``ask`` is called for what is left only."""

    def evaluator(**options):
        return Scored(score, length=2, shares_passes=shares_passes, **options)

    def given():
        return settings(seed=5, space=space, strategy=counting(kind))

    header = HEADER | {"settings": given().to_dict()}
    counted = evaluator()
    whole = go(None, counted, given=given())
    calls = len(counted.seen)
    for last in range(0, calls, 4):
        path = tmp_path / f"{last}.jsonl"
        with pytest.raises(KeyboardInterrupt):
            go(path, evaluator(last=last), header, given())
        done = sum(record["key"][0] == "state" for record in Journal.read(path)[1])
        rest, resumed = evaluator(), given()
        assert go(path, rest, header, resumed) == whole
        assert resumed.strategy.asked == 3 - done
        if kind is not Halving and not shares_passes:
            assert len(rest.seen) == calls - last


@pytest.mark.filterwarnings("ignore:No candidate of generation")
def test_a_generation_drawn_again_is_restored_as_a_whole(tmp_path):
    def given():
        return settings(space=FULL, strategy=CMAES(8.0), seed=2)

    def near(criterion, seed, trained):
        lost = sum(t**2 for t in theta(criterion)) > 50
        return Evaluation(math.nan, "diverged") if lost else sphere(criterion, seed)

    header = HEADER | {"settings": given().to_dict()}
    whole = go(None, Scored(near), given=given())
    drawn = sum(c["generation"] == 0 for c in whole["history"])
    assert drawn > 6
    for last in (5, 6, 9, drawn + 1):
        path = tmp_path / f"{last}.jsonl"
        with pytest.raises(KeyboardInterrupt):
            go(path, Scored(near, last=last), header, given())
        rest = Scored(near)
        assert go(path, rest, header, given()) == whole
        assert len(rest.seen) == len(whole["history"]) + 2 * 2 + 2 * 3 - last


def test_kills_at_random_moments(tmp_path, uninterrupted):
    def slow(criterion, seed, trained):
        time.sleep(0.002)
        return score(criterion, seed, trained)

    moments = random.Random(0)
    for number in range(5):
        path = tmp_path / f"{number}.jsonl"
        for _ in range(4):
            child = os.fork()
            if child == 0:
                go(path, Scored(slow))
                os._exit(0)
            time.sleep(moments.uniform(0, 0.08))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        assert go(path) == uninterrupted


def test_a_torn_last_line_is_dropped(journal, uninterrupted, tmp_path):
    content = journal.read_bytes()
    start = content.rstrip(b"\n").rfind(b"\n") + 1
    for length in range(start + 1, len(content), 40):
        torn = tmp_path / "torn.jsonl"
        torn.write_bytes(content[:length])
        with pytest.warns(UserWarning, match="dropped the last line"):
            assert go(torn) == uninterrupted
        assert torn.read_bytes().startswith(content[:start])
        assert len(torn.read_bytes().splitlines()) == len(content.splitlines())


def test_a_torn_line_behind_damage_stays(journal):
    damaged = journal.read_bytes().replace(b'"ok"', b'"OK"', 1)[:-9]
    journal.write_bytes(damaged)
    with pytest.raises(JournalError, match="is not as it was written"):
        go(journal)
    assert journal.read_bytes() == damaged


def test_a_line_that_is_missing_from_a_whole_generation_is_told(journal):
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:4] + lines[5:]))
    with pytest.raises(JournalError, match="lacks candidate 2 of generation 0"):
        go(journal)


def test_another_search_is_refused_by_what_differs(journal):
    before = journal.read_bytes()
    with pytest.raises(JournalError, match="another search: evaluator is 'scored' there and 'cubic' here"):
        go(journal, header={**HEADER, "evaluator": "cubic"})
    assert journal.read_bytes() == before


def test_other_candidates_are_refused(tmp_path):
    """As other versions of what the strategy depends on would draw them."""
    path = tmp_path / "journal.jsonl"
    with pytest.raises(KeyboardInterrupt):
        go(path, Scored(score, last=3))
    with pytest.raises(JournalError, match=r"another candidate under \['generation', 0, 0\]"):
        go(path, given=settings(seed=4))


def test_a_state_that_json_cannot_hold_is_told(tmp_path):
    class Holds(RandomSearch):
        held = math.nan

        def state_dict(self):
            return {"held": self.held}

    for Holds.held in (math.nan, {1, 2}):
        with pytest.raises(TypeError, match=r"Holds.state_dict\(\) must hold lists, dicts"):
            go(tmp_path / f"{type(Holds.held).__name__}.jsonl", given=settings(strategy=Holds()))


def test_a_record_of_the_same_key_takes_the_place_of_the_first(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl", {})
    journal.append(("a", 1), {"value": 0.1})
    journal.append(("a", 1), {"value": 1 / 3})
    assert journal.recall(("a", 2)) is None
    journal.close()
    again = Journal(tmp_path / "journal.jsonl", {})
    assert (again.recall(["a", 1])["value"], again.recorded) == (1 / 3, 1)
    again.close()


def test_a_child_does_not_keep_the_lock(journal):
    held = Journal(journal, HEADER)
    begun, begin = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begin, b"x")
        time.sleep(60)
        os._exit(0)
    os.read(begun, 1)
    held.close()
    try:
        Journal(journal, HEADER).close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_second_process_is_refused(journal):
    held = Journal(journal, HEADER)
    with pytest.raises(JournalError, match="in use by another process"):
        Journal(journal, HEADER)
    held.close()
    Journal(journal, HEADER).close()


def test_an_unwritable_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be written"):
        Journal(tmp_path / "file" / "journal.jsonl", HEADER)


def test_a_full_disk_is_said_and_costs_nothing(tmp_path, uninterrupted):
    path = tmp_path / "journal.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(JournalError, match=r"cannot be written: .*What it holds is whole"):
            go(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes().endswith(b"\n")
    rest = Scored(score)
    assert go(path, rest) == uninterrupted
    assert 0 < len(rest.seen) < TRAININGS


def test_an_unfinished_search_is_loaded_as_far_as_it_came(tmp_path, uninterrupted):
    for last in range(TRAININGS + 1):
        path = tmp_path / f"{last}.jsonl"
        if last < TRAININGS:
            with pytest.raises(KeyboardInterrupt):
                go(path, Scored(score, last=last))
        else:
            go(path)
        found = SearchResult.load(path)
        assert (found.finished, found.kept, found.trainings) == (False, "original", last)
        values = plain(found)
        assert values["history"] == uninterrupted["history"][: min(last, 18)]
        assert values["settings"] == uninterrupted["settings"]
        assert json.loads(json.dumps(values)) == values
    assert [values["best"], values["original"]] == [uninterrupted["best"], uninterrupted["original"]]
    assert sorted(values["finalists"], key=str) == sorted(uninterrupted["finalists"], key=str)
    (tmp_path / "other.jsonl").write_text("{}\n")
    with pytest.raises(JournalError):
        SearchResult.load(tmp_path / "other.jsonl")
    Journal(tmp_path / "empty.jsonl", {}).close()
    with pytest.raises(ValueError, match="holds no result of a search"):
        SearchResult.load(tmp_path / "empty.jsonl")


@pytest.mark.parametrize("kind", [CMAES, WarmCMAES, RandomSearch])
def test_a_finished_search_goes_on_with_more_generations(tmp_path, kind):
    """With the result that it would have had if all had been asked for at once; nothing is trained twice."""

    def asked(generations):
        return replace(settings(seed=3, space=TaylorSpace(step=True), strategy=kind()), generations=generations)

    header = HEADER | {"settings": asked(2).identity}
    assert header["settings"] == asked(4).identity
    whole = go(None, given=asked(4))
    path = tmp_path / "journal.jsonl"
    go(path, header=header, given=asked(2))
    trained = {tuple(record["key"]) for record in Journal.read(path)[1]}
    rest = Scored(score)
    assert go(path, rest, header, asked(4)) == whole
    records = Journal.read(path)[1]
    new = [record for record in records if tuple(record["key"]) not in trained and "fitness" in record]
    assert len(rest.seen) == len(new) < len(whole["history"]) + 2 * 2 + 2 * 3
    # And back: what was asked for decides, nothing is trained again
    fewer = Scored(score)
    assert go(path, fewer, header, asked(2))["settings"]["generations"] == 2
    assert fewer.seen == []


def test_a_search_ends_when_its_time_is_over(tmp_path):
    def given(seconds):
        return settings(seed=3, budget=Budget(epochs=1, max_time=seconds))

    assert len(go(None, given=given(100.0))["history"]) == 3 * 6
    path = tmp_path / "journal.jsonl"
    header = HEADER | {"settings": given(1e-9).identity}
    short = go(path, header=header, given=given(1e-9))
    assert len(short["history"]) == 6
    assert len(short["original"]["fitness"]) == 3
    again = Scored(score)
    assert go(path, again, header, given(1e-9)) == short
    assert again.seen == []
    assert len(go(path, Scored(score), header, given(100.0))["history"]) == 3 * 6


@pytest.mark.parametrize("place", ["/dev/full", "/dev/zero", "pipe", "a" * 300, "nul\0"])
def test_what_is_no_place_for_a_journal(tmp_path, place):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unwritable, match="cannot be written"):
        Journal(tmp_path / place, {})
    assert Journal.header(tmp_path / "pipe") == {}


@pytest.mark.parametrize("damage", [b"", bytes(range(256)), b"[" * 100_000, b"[1]", b'{"kept": "original"}'])
def test_a_damaged_result_beside_a_good_journal(tmp_path, damage):
    path = tmp_path / "search.jsonl"
    expected = go(path)
    result_path(path).write_bytes(damage)
    assert not is_finished(path)
    assert plain(SearchResult.load(path))["history"] == expected["history"]
    assert go(path) == expected
    with pytest.raises(ValueError, match=r"search\.json holds no result of a search"):
        SearchResult.load(result_path(path))
