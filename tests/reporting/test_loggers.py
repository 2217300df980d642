"""The adapter of the loggers; real runs are read back in tests/callbacks/test_taylorglo_logging.py."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl

from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.loggers import board, boards, draw
from tglo_lightning.theory import explain


class Recorder:
    """A logger whose experiment notes its calls; ``methods`` are all that it has."""

    def __init__(self, folder, *methods):
        self.log_dir, self.run_id, self.calls = folder, "run", []
        self.experiment = SimpleNamespace(**{name: self.noting(name) for name in methods})

    def noting(self, name):
        def note(*values, **named):
            kept = [value.read_bytes() if hasattr(value, "read_bytes") else value for value in values]
            self.calls.append((name, kept, named))

        return note

    def __getattr__(self, name):
        return self.noting(name)


def baikal():
    return pictures.explanation(explain("baikal", 10))


def test_tensorboard_gets_images_texts_and_histograms(tmp_path):
    pytest.importorskip("matplotlib")
    writer = Recorder(tmp_path, "add_histogram", "add_image", "add_text")
    shown = board(writer)
    shown.histogram("h", np.arange(3.0), "search/generation", 1, 7)
    shown.outcome({"search/kept": "original", "search/gain": 0.5}, 3)
    draw([shown], "search/curve", baikal)
    calls = {name: (values, named) for name, values, named in writer.calls}
    assert (calls["add_histogram"][0][0], calls["add_histogram"][0][2]) == ("h", 7)
    assert calls["add_text"][0] == ["search/outcome", "search/kept: original"]
    tag, image = calls["add_image"][0]
    assert (tag, image.dtype, image.shape[2], calls["add_image"][1]) == (
        "search/curve",
        np.uint8,
        3,
        {"dataformats": "HWC"},
    )


def test_mlflow_gets_files_as_artifacts(tmp_path):
    pytest.importorskip("matplotlib")
    client = Recorder(tmp_path, "log_artifact")
    shown = board(client)
    draw([shown], "search/curve", baikal)
    shown.table("search/candidates", ["a", "b"], [[1, None]], scatter="b")
    shown.files("search", "search", [tmp_path / "search.json"])
    artifacts = [values for name, values, _ in client.calls if name == "log_artifact"]
    assert [(run, path.split("/")[-1], folder) for run, path, folder in artifacts] == [
        ("run", "curve.png", "search"),
        ("run", "candidates.csv", "search"),
        ("run", "search.json", "search"),
    ]


def test_others_get_files_in_their_directory(tmp_path):
    shown = board(pl.loggers.CSVLogger(tmp_path, name="", version=""))
    shown.table("search/candidates", ["a", "b"], [[1, None], [2, 0.5]])
    shown.outcome({"search/kept": "original", "search/formula": "f"})
    assert (tmp_path / "search" / "candidates.csv").read_text().split() == ["a,b", "1,", "2,0.5"]
    assert (tmp_path / "search" / "outcome.txt").read_text() == "search/kept: original\nsearch/formula: f\n"


def test_a_remote_directory_and_other_ranks_get_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    board(Recorder("s3://bucket/logs")).text("search/outcome", "words")
    assert list(tmp_path.iterdir()) == []
    assert boards(SimpleNamespace(is_global_zero=False, fast_dev_run=0, loggers=[1])) == []


def test_without_matplotlib_the_rest_is_logged(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.warns(UserWarning, match=r"No pictures in the loggers.*pip install 'tglo-lightning\[plots\]'"):
        assert draw([], "search/curve", baikal) is None
