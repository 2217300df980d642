"""A killed search goes on from its journal, bit for bit."""

import math
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest

from tglo_lightning.search import Evaluation, SearchResult, SearchSettings, search
from tglo_lightning.search.journal import Journal, JournaledEvaluator, JournalError

SETTINGS = SearchSettings(generations=3, population=5, finalists=2, repeats=2, constraint=None, seed=3)
HEADER = {
    "settings": SETTINGS.to_dict(),
    "evaluator": "quadratic",
    "original": "original",
    "monitor": "fitness",
    "mode": "max",
}
TRAININGS = 3 * 5 + 2 * 3


class Quadratic:
    """A fitness that depends on theta and seed; far candidates fail. It may take its time, or fail after a while."""

    def __init__(self, seconds: float = 0.0, last: int | None = None) -> None:
        self.seconds = seconds
        self.last = last
        self.count = 0

    def evaluate(self, thetas, seed):
        for theta in thetas:
            if self.count == self.last:
                raise KeyboardInterrupt
            self.count += 1
            time.sleep(self.seconds)
            if theta is not None and theta[0] > 1.5:
                yield Evaluation(math.nan, "diverged", 0.1, "far")
            else:
                yield Evaluation(-sum((x - 0.1) ** 2 for x in theta or [1.0]) + seed / 2**32, "ok", 0.1)


def run(path: Path | None, evaluator: Quadratic | None = None, together: bool = False, header=HEADER):
    evaluator = evaluator or Quadratic()
    journal = None
    try:
        if path is not None:
            journal = Journal(path, header)
            evaluator = JournaledEvaluator(evaluator, journal, SETTINGS, together=together)
        values = search(evaluator, SETTINGS, num_classes=10).to_dict()
    finally:
        if journal is not None:
            journal.close()
    return {key: value for key, value in values.items() if key != "seconds"}


@pytest.fixture(scope="module")
def uninterrupted():
    return run(None)


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "journal.jsonl"
    run(path)
    return path


def test_recording_changes_nothing(tmp_path, uninterrupted):
    evaluator = Quadratic()
    assert run(tmp_path / "folder" / "journal.jsonl", evaluator) == uninterrupted
    assert evaluator.count == TRAININGS


def test_finished_search_is_not_trained_again(journal, uninterrupted):
    evaluator = Quadratic()
    assert run(journal, evaluator) == uninterrupted
    assert evaluator.count == 0


@pytest.mark.parametrize("last", [0, 1, 4, 5, 7, 14, 15, 16, 18, 20])
def test_interrupted_search_trains_the_rest_only(tmp_path, uninterrupted, last):
    path = tmp_path / "journal.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(path, Quadratic(last=last))
    rest = Quadratic()
    assert run(path, rest) == uninterrupted
    assert rest.count == TRAININGS - last


def test_population_trained_together_is_trained_again_whole(tmp_path, uninterrupted):
    path = tmp_path / "journal.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(path, Quadratic(last=7))
    rest = Quadratic()
    assert run(path, rest, together=True) == uninterrupted
    assert rest.count == TRAININGS - 5
    assert len(path.read_text().splitlines()) == 1 + TRAININGS


def test_kill_at_any_of_fifty_moments(tmp_path, uninterrupted):
    moments = random.Random(0)
    for number in range(10):
        path = tmp_path / f"{number}.jsonl"
        for _ in range(5):
            child = os.fork()
            if child == 0:
                run(path, Quadratic(seconds=0.002))
                os._exit(0)
            time.sleep(moments.uniform(0, 0.06))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        assert run(path) == uninterrupted


def test_torn_last_line_is_dropped(journal, uninterrupted, tmp_path):
    content = journal.read_bytes()
    start = content.rstrip(b"\n").rfind(b"\n") + 1
    for length in range(start + 1, len(content), 7):
        torn = tmp_path / "torn.jsonl"
        torn.write_bytes(content[:length])
        with pytest.warns(UserWarning, match="dropped the last line"):
            assert run(torn) == uninterrupted
        assert torn.read_bytes().startswith(content[:start])
        assert len(torn.read_bytes().splitlines()) == len(content.splitlines())


def test_damage_is_refused_or_harmless(journal, uninterrupted, tmp_path):
    content = journal.read_bytes()
    draw = random.Random(1)
    refused = 0
    for _ in range(300):
        position = draw.randrange(len(content))
        damaged = bytearray(content)
        damaged[position] ^= 1 << draw.randrange(8)
        path = tmp_path / "damaged.jsonl"
        path.write_bytes(damaged)
        if position == len(content) - 1:  # no newline: a torn line
            continue
        try:
            # harmless where the line says the same, as 1E-5 does for 1e-5
            assert run(path) == uninterrupted
        except JournalError:
            refused += 1
        assert path.read_bytes() == bytes(damaged)
    assert refused > 250


def test_lines_lost_in_the_middle_are_trained_again(journal, uninterrupted):
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:4] + lines[6:]))
    evaluator = Quadratic()
    assert run(journal, evaluator) == uninterrupted
    assert evaluator.count == 2


def test_another_search_is_refused_by_what_differs(journal):
    before = journal.read_bytes()
    with pytest.raises(JournalError, match="another search: evaluator is 'quadratic' there and 'cubic' here"):
        run(journal, header={**HEADER, "evaluator": "cubic"})
    assert journal.read_bytes() == before


def test_other_candidates_are_refused(journal):
    held = Journal(journal, HEADER)
    evaluator = JournaledEvaluator(Quadratic(), held, SETTINGS)
    with pytest.raises(JournalError, match="another candidate 0 of round 0"):
        list(evaluator.evaluate([[0.0] * 8], 0))
    held.close()


def test_a_torn_line_behind_damage_stays(journal):
    damaged = journal.read_bytes().replace(b'"ok"', b'"OK"', 1)[:-9]
    journal.write_bytes(damaged)
    with pytest.raises(JournalError, match="is not as it was written"):
        run(journal)
    assert journal.read_bytes() == damaged


def test_results_and_journals_are_loaded(journal, tmp_path, uninterrupted):
    """What a search left, finished or not, as plain data."""
    known = SearchResult.load(journal)
    assert known.finished
    assert known.kept == uninterrupted["kept"]
    part = tmp_path / "part.jsonl"
    part.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
    assert not SearchResult.load(part).finished
    assert [c.fitness for c in known.history if c.status == "ok"] == [
        c["fitness"] for c in uninterrupted["history"] if c["status"] == "ok"
    ]
    assert [(c.generation, c.index) for c in known.history] == [(g, i) for g in range(3) for i in range(5)]
    assert known.original.fitness == uninterrupted["original"]["fitness"]
    by_theta = {tuple(f["theta"]): f for f in uninterrupted["finalists"]}
    for finalist in known.finalists:
        assert finalist.fitness == by_theta[tuple(finalist.theta)]["fitness"]
        assert finalist.found == by_theta[tuple(finalist.theta)]["found"]
    result = SearchResult.from_dict({**uninterrupted, "seconds": 1.0})
    result.save(tmp_path / "search.json")
    assert SearchResult.load(tmp_path / "search.json").to_dict() == result.to_dict()
    assert [path.name for path in tmp_path.glob("*.tmp")] == []
    for text in ("", "[]", "{}", '{"kept": 1}', "nan"):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match="holds no result of a search"):
            SearchResult.load(tmp_path / "other.json")
    (tmp_path / "other.jsonl").write_text("{}\n")
    with pytest.raises(JournalError):
        SearchResult.load(tmp_path / "other.jsonl")


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


def test_second_process_is_refused(journal):
    held = Journal(journal, HEADER)
    with pytest.raises(JournalError, match="in use by another process"):
        Journal(journal, HEADER)
    held.close()
    Journal(journal, HEADER).close()


def test_unwritable_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be written"):
        Journal(tmp_path / "file" / "journal.jsonl", HEADER)


def test_full_disk_is_said_and_costs_nothing(tmp_path, uninterrupted):
    path = tmp_path / "journal.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(JournalError, match=r"cannot be written: .*What it holds is whole"):
            run(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes().endswith(b"\n")
    rest = Quadratic()
    assert run(path, rest) == uninterrupted
    assert 0 < rest.count < TRAININGS


def test_a_journal_from_before_the_options_were_noted_goes_on(tmp_path):
    path = tmp_path / "search.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(path, Quadratic(last=7))
    noting = HEADER | {"original_options": [{"ignore_index": 255}]}
    assert run(path, header=noting) == run(None)
    assert "original_options" not in SearchResult.load(path).settings
    run(tmp_path / "new.jsonl", header=noting)
    assert SearchResult.load(tmp_path / "new.jsonl").settings["original_options"] == [{"ignore_index": 255}]
    with pytest.raises(JournalError, match="original_options"):
        Journal(tmp_path / "new.jsonl", HEADER | {"original_options": [{}]})
