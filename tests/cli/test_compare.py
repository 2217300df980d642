"""`tglo-compare`, and the multirun that ends with it."""

import json
import re

import pytest
from helpers.command import TINY, in_process

from tglo_lightning.cli.compare import main


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A multirun of two methods, one of them with a search."""
    cwd = tmp_path_factory.mktemp("sweep")
    sweep = ("task.label_noise=0.4", "loss=brier,metalearned", f"hydra.sweep.dir={cwd / 'runs'}")
    return cwd / "runs", in_process(cwd, "train", "-m", "experiment=noise_levels", *sweep, *TINY)


def test_an_experiment_ends_with_its_comparison(swept):
    folder, printed = swept
    comparison = json.loads((folder / "comparison.json").read_text())
    assert comparison["runs"] == 2
    assert comparison["reference"] == "CrossEntropyLoss"
    assert {row["condition"] for row in comparison["rows"]} == {""}
    assert {row["metric"] for row in comparison["rows"]} == {"acc", "brier", "ece", "nll"}
    assert {row["kind"] for row in comparison["rows"]} == {"original", "tuned_original", "known", "metalearned"}
    assert {row["n"] for row in comparison["rows"]} == {2}
    for text in ("test/acc (higher is better)", "BrierLoss", "95 % interval", "Holm"):
        assert text in printed


def test_the_directory_of_a_multirun_is_enough(swept, capsys, tmp_path):
    folder, _ = swept
    before = (folder / "comparison.json").read_text()
    assert main([str(folder)]) == 0
    assert (folder / "comparison.json").read_text() == before
    assert main([str(folder / "0"), str(folder / "1"), "--output", str(tmp_path / "new"), "--metric", "all"]) == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} >= {"comparison.json"}
    assert "test/nll (lower is better)" in capsys.readouterr().out


def test_markdown(swept, capsys, tmp_path):
    arguments = ["--markdown", "--reference", "tuned_original", "--output", str(tmp_path)]
    assert main([str(swept[0]), *arguments]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^\| original, tuned rate .* reference ", out, re.MULTILINE)
    assert "|---" in out.replace(" ", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such file or folder: nowhere"),
        (["."], "no result.json"),
        (["{runs}", "--metric", "f1"], "--metric must be all or one of acc"),
        (["{runs}", "--reference", "focal"], "reference must be one of"),
        (["{runs}", "--pool", "task.label_nose"], "task.label_nose"),
    ],
)
def test_one_line_says_what_is_wrong(swept, arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([word.format(runs=swept[0]) for word in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tglo-compare: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
