"""Where a search's files are."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.searches import run

from tglo_lightning.search.files import (
    default_journal,
    free_journal,
    interrupted_neighbour,
    is_finished,
    journal_path,
    result_path,
)
from tglo_lightning.search.journal import Journal


def test_names(tmp_path):
    journal = default_journal(tmp_path, "abc")
    assert journal == tmp_path / "tglo" / "abc" / "search.jsonl"
    assert result_path(journal) == tmp_path / "tglo" / "abc" / "search.json"
    assert free_journal(journal) == journal
    for name in ("abc-2", "abc-3"):
        Journal(free_journal(journal), {}).close()
        assert free_journal(journal) == tmp_path / "tglo" / name / "search.jsonl"


def test_a_finished_search_has_its_result_beside_the_journal(tmp_path):
    journal = tmp_path / "search.jsonl"
    assert not is_finished(journal)
    result_path(journal).write_text("{")
    assert not is_finished(journal)
    result = run()
    replace(result, finished=False).save(result_path(journal))
    assert not is_finished(journal)
    result.save(result_path(journal))
    assert is_finished(journal)


def test_the_latest_unfinished_search_beside_a_new_one(tmp_path):
    header = {"module": "M", "loss": ["criterion"], "seed": 1}
    new = default_journal(tmp_path, "new")
    assert interrupted_neighbour(new, header) is None
    for age, (name, changes) in enumerate(
        {"other": {"module": "N"}, "first": {"seed": 2}, "last": {"seed": 3}, "done": {"seed": 4}}.items()
    ):
        path = default_journal(tmp_path, name)
        Journal(path, header | changes).close()
        os.utime(path, (age, age))
    run().save(result_path(path))
    path, difference = interrupted_neighbour(new, header)
    assert (Path(path).parent.name, difference) == ("last", "seed is 3 there and 1 here")


def test_the_path_of_a_journal(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert journal_path("~/x") == tmp_path / "x"
    assert journal_path(None) is None
    for wrong in ("~nobody.of.this.name/x", "a.json", tmp_path):
        with pytest.raises(ValueError, match="`journal`"):
            journal_path(wrong)


def test_names_that_are_too_long(tmp_path):
    journal = default_journal(tmp_path / ("a" * 300), "abc")
    assert free_journal(journal) == journal
    assert not is_finished(journal)
    assert interrupted_neighbour(journal, {"module": "M", "loss": []}) is None
