"""Command lines: what `--help` shows, and that a wrong one is rejected before anything is trained."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.runs import finished

from tglo_lightning.cli import commands

try:
    import tomllib
except ImportError:  # Python 3.10
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
AVERAGING = (
    "+callbacks.a._target_=pytorch_lightning.callbacks.StochasticWeightAveraging",
    "+callbacks.a.swa_lrs=0.1",
)
COMMANDS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]


def code(command: str, *arguments: str, after: str = "") -> str:
    module, function = COMMANDS[command].split(":")
    lines = f"import sys; sys.argv = {[command, *arguments]!r}\nfrom {module} import {function}\ntry:\n {function}()\n"
    return lines + f"finally:\n {after or 'pass'}"


def run(command: str, *arguments: str, after: str = "") -> str:
    call = [sys.executable, "-c", code(command, *arguments, after=after)]
    ran = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples(command, monkeypatch, capsys):
    module, function = COMMANDS[command].split(":")
    monkeypatch.setattr("sys.argv", [command, "--help"])
    # It would end the tests when their reader has gone
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with suppress(SystemExit):
        getattr(import_module(module), function)()
    shown = capsys.readouterr().out
    assert "examples" in shown.lower()
    assert shown.count(f"  {command} ") >= 2


def test_help_of_hydras_commands_shows_groups_and_keys_and_imports_no_torch():
    shown = run("tglo-train", "--help", after="assert 'torch' not in sys.modules")
    assert "experiment: " in shown
    assert "monitor: val/acc" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--help"],
        *(
            pytest.param(["train", "--cfg", "job"], marks=pytest.mark.slow),
            pytest.param(["explain", "baikal"], marks=pytest.mark.slow),
        ),
        pytest.param(["report", "RUN", "--text"], marks=pytest.mark.slow),
    ],
)
def test_printing_ends_quietly_when_its_reader_has_gone(arguments, tmp_path):
    command, *words = arguments
    if "RUN" in words:
        finished(tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    words = [str(tmp_path) if word == "RUN" else word for word in words]
    call = [sys.executable, "-c", code(f"tglo-{command}", *words)]
    ran = subprocess.run(call, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert ran.returncode == -signal.SIGPIPE
    assert ran.stderr == ""


def test_completed_words(monkeypatch):
    monkeypatch.setenv("COMP_LINE", "tglo-train experiment=digits_n")
    monkeypatch.setenv("COMP_POINT", "30")
    assert run("tglo-train", "--shell-completion", "query=bash").split() == ["experiment=digits_noisy"]


@pytest.fixture
def rejection(monkeypatch, tmp_path, capsys):
    """Run a command that is to end with an error, and return its message."""
    monkeypatch.chdir(tmp_path)

    def rejected(command, *arguments):
        monkeypatch.setattr("sys.argv", [f"tglo-{command}", *arguments])
        with pytest.raises(SystemExit) as caught:
            getattr(commands, command)()
        message = capsys.readouterr().err + str(caught.value)
        assert "Traceback" not in message
        assert not [path for name in ("*.ckpt", "wandb") for path in tmp_path.rglob(name)]
        return message

    return rejected


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("search.popluation=3",), ["search.popluation"]),
        (("experimnt=digits",), ["experimnt"]),
        (("experiment=nope",), ["experiment/nope", "digits_noisy"]),
        (("data=mnist",), ["task=digits"]),
        (("model.lr=1", "seed=1"), ["arch=cnn", "group module"]),
        (("-m", "arch=mlp,nope", "search=none"), ["arch/nope", "resnet32"]),
        (("seed=1,2",), ["--multirun"]),
        (("+search.genrations=3",), ["tglo-train: search: ", "genrations"]),
        (("search.population=1",), ["tglo-train: search: ", "`population` must be at least 2"]),
        (("search=race", "search.budget.epochs=3"), ["tglo-train: search: A race is as long as the fit"]),
        (("search=race", "search.budget.min_fitness_after=[1,0.5]"), ["tglo-train: search: ", "no effect: Race"]),
        (("search=race", *AVERAGING), ["tglo-train: callbacks: ", "StochasticWeightAveraging would change nothing"]),
        (("experiment=multi_task", "search/strategy=race"), ["tglo-train: search: several tasks need a search"]),
        (("loss=taylorglo",), ["tglo-train: loss: ", "loss.theta"]),
        (("paths.output_dir=/proc/x",), ["tglo-train: paths.output_dir: ", "/proc/x"]),
        (("search.journal=/proc/x/y.jsonl", "logger=none"), ["tglo-train: ", "/proc/x"]),
    ],
)
def test_rejected_by_its_key_before_anything_is_trained(rejection, arguments, parts):
    message = rejection("train", *arguments)
    assert all(part in message for part in parts), message


@pytest.mark.skipif(find_spec("optuna") is not None, reason="optuna is installed")
def test_a_missing_plugin_says_what_to_install(rejection):
    arguments = ("hparams_search=optuna", "optimizer.lr=interval(0.001, 0.1)")
    assert "pip install 'tglo-lightning[optuna]'" in rejection("train", *arguments)


def test_a_missing_value_is_asked_for(rejection):
    assert "ckpt" in rejection("attack")


def test_a_folder_of_ones_own_configs_is_searched_too(rejection, tmp_path_factory):
    folder = tmp_path_factory.mktemp("conf")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: nonsense\n")
    assert "tglo-train: seed: " in rejection("train", "--config-dir", str(folder), "experiment=mine")
