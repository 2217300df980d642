"""The command as a user runs it: in a process of its own, from another directory."""

import json
import math
import subprocess
import sys

import pytest
from helpers.command import TINY, tglo_train
from hydra import compose, initialize_config_dir

from tglo_lightning.cli.commands import CONFIG_DIR
from tglo_lightning.cli.train import run
from tglo_lightning.search import Criterion

# A callback that fails in the job of one seed
BOOM = """
import pytorch_lightning as pl

class Boom(pl.Callback):
    def __init__(self, seed):
        self.seed = seed

    def on_train_start(self, trainer, module):
        if self.seed == 2:
            raise RuntimeError("boom")
"""


def only(paths):
    [path] = paths
    return path


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A run with a search, in a directory of its own."""
    cwd = tmp_path_factory.mktemp("run")
    ran = tglo_train(cwd, "experiment=digits_noisy", "search/space=minimal", "logger=csv", "seed=3", *TINY)
    assert ran.returncode == 0, ran.stderr
    return cwd, ran


def test_result_has_the_documented_schema(searched):
    cwd, _ = searched
    result = json.loads(only(cwd.rglob("result.json")).read_text(), parse_constant=pytest.fail)
    keys = {"monitor", "logged", "num_classes", "kept", "losses", "tests", "search", "seconds", "versions"}
    assert set(result) == keys
    assert result["monitor"] == "val/acc"
    assert result["kept"] in ("metalearned", "original")
    losses = result["losses"]
    assert set(losses) == {"original", "tuned_original", "known", "metalearned"}
    original, tuned = losses["original"], losses["tuned_original"]
    assert (original["name"], original["options"], original["criterion"]) == ("CrossEntropyLoss", {}, None)
    assert (tuned["name"], tuned["criterion"]["losses"]) == ("CrossEntropyLoss", [])
    assert tuned["criterion"]["step"] != 1
    found = Criterion.from_dict(losses["metalearned"]["criterion"])
    assert (found.shape, found.formula) == ((("taylorglo", 8),), losses["metalearned"]["formula"])
    for loss in losses.values():
        assert set(loss["test"]) == {"acc", "nll", "brier", "ece"}
        for metric in loss["test"].values():
            assert len(metric["values"]) == 2
            assert metric["mean"] == pytest.approx(sum(metric["values"]) / 2)
            assert metric["std"] == pytest.approx(abs(metric["values"][0] - metric["values"][1]) / math.sqrt(2))
    assert set(result["tests"]) == set(losses) - {"metalearned"}
    for tests in result["tests"].values():
        assert all(set(p_values) == {"p_one_sided", "p_two_sided"} for p_values in tests.values())
    assert set(result["search"]) == {"candidates", "failed", "trainings", "seconds", "rejected"}
    assert result["search"]["candidates"] == 3
    assert result["seconds"] > result["search"]["seconds"] > 0


def test_prints_the_table(searched):
    _, ran = searched
    for text in ("original", "metalearned", "test/acc", "test/nll", "Kept the", "tuned_original"):
        assert text in ran.stdout


def test_all_output_lies_in_the_run_directory(searched):
    cwd, _ = searched
    assert [path.name for path in cwd.iterdir()] == ["outputs"]
    run = only(cwd.rglob("result.json")).parent
    assert (run / "checkpoints" / "last.ckpt").is_file()
    header = (run / "csv" / "metrics.csv").read_text().splitlines()[0]
    assert {"search/generation", "val/acc", "test/original/acc_mean"} <= set(header.split(","))
    assert all(run in path.parents for path in cwd.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A multirun of three jobs, logged to W&B, of which the second fails."""
    cwd = tmp_path_factory.mktemp("sweep")
    (cwd / "boom.py").write_text(BOOM)
    boom = ("+callbacks.boom._target_=boom.Boom", "+callbacks.boom.seed=${seed}")
    ran = tglo_train(cwd, "-m", "seed=1,2,3", "search=none", *TINY, *boom)
    return cwd, ran


def wandb_runs(directory):
    for path in sorted(directory.rglob("*.wandb")):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True)
        yield [json.loads(line) for line in shown.stdout.splitlines()]


def test_each_job_is_a_finished_wandb_run_of_its_own(swept):
    cwd, _ = swept
    runs = list(wandb_runs(cwd))
    ids = {only(r["run"]["run_id"] for r in records if r["type"] == "run") for records in runs}
    assert len(ids) == 3
    exits = [only(r["exit"]["exit_code"] for r in records if r["type"] == "exit") for records in runs]
    assert sorted(exits) == [0, 0, 1]


def test_wandb_summary_holds_the_test_results(swept):
    cwd, _ = swept
    for records in wandb_runs(cwd):
        summary: dict = {}
        for record in records:
            if record["type"] == "summary":
                summary |= record["summary"].get("update", {})
        failed = only(r["exit"]["exit_code"] for r in records if r["type"] == "exit") != 0
        assert ("test/original/acc_mean" in summary) == (not failed)


def test_a_failing_job_fails_the_command_but_not_the_others(swept):
    cwd, ran = swept
    assert ran.returncode != 0
    assert "boom" in ran.stderr
    results = [json.loads(path.read_text()) for path in cwd.rglob("result.json")]
    assert len(results) == 2
    for result in results:
        assert result["kept"] == "original"
        assert set(result["losses"]) == {"original"}
        assert result["tests"] == {}


def test_jobs_do_not_collide(swept):
    cwd, _ = swept
    assert len({path.parent for path in cwd.rglob("train.log")}) == 3


def test_several_losses_are_found_and_compared(tmp_path):
    overrides = [
        f"paths.output_dir={tmp_path}", "logger=none", "arch=preresnet20", "arch.depth=8", "arch.width=0.1",
        "arch.aux=1", *TINY, "search/space=minimal", "search.loss=[criterion,aux_criteria.0]",
        "search.evaluator=sequential",
    ]  # fmt: skip
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        run(compose("train", overrides=overrides))
    found = json.loads((tmp_path / "result.json").read_text())["losses"]["metalearned"]
    assert len(found["criterion"]["losses"]) == 2
    assert found["name"] == "TaylorGLOLoss, TaylorGLOLoss"
    assert len(found["test"]["acc"]["values"]) == 2


@pytest.mark.slow
def test_a_race(tmp_path):
    """The network that it keeps is tested too, beside fresh trainings with its loss."""
    race = ["search=race", "search.strategy.members=3", "search.evaluator=sequential", "trainer.max_epochs=2"]
    ran = tglo_train(
        tmp_path, "experiment=digits", "logger=csv", "evaluation.seeds=1", "evaluation.report=false", *race
    )
    assert ran.returncode == 0, ran.stderr
    result = json.loads(only(tmp_path.rglob("result.json")).read_text(), parse_constant=pytest.fail)
    assert set(result["network"]) == {"acc", "nll", "brier", "ece"}
    assert f"the network of the race: acc {result['network']['acc']:.4f}" in ran.stdout
    assert result["search"]["candidates"] == 3
    logged = only(tmp_path.rglob("metrics.csv")).read_text().splitlines()[0]
    assert "test/network/acc" in logged.split(",")
