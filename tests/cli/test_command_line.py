"""A wrong command line is refused in one line, before anything runs and without a directory."""

import os

import pytest

from tglo_lightning.cli import commands


@pytest.fixture
def refusal(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def refused(command, *arguments):
        monkeypatch.setattr("sys.argv", [f"tglo-{command}", *arguments])
        with pytest.raises(SystemExit) as caught:
            getattr(commands, command)()
        assert not os.listdir(tmp_path)
        message = str(caught.value)
        assert message.startswith(f"tglo-{command}: ")
        assert "\n" not in message
        return message

    return refused


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("search.popluation=3",), ("search.popluation: ", "nearest is search.population ")),
        (("experimnt=digits",), ("experimnt: ", "nearest is experiment ")),
        (("qqqqq=1",), ("qqqqq: there is no such key (",)),
        (("trainer.precision=64",), ("pytorch_lightning.Trainer has this argument, so write +trainer.precision=",)),
        (("experiment=nope",), ("experiment=nope: ", "digits_noisy", "paper/mnist_cnn")),
        (("arch=resnet99",), ("arch=resnet99: ", "resnet32")),
        (("search/space=x",), ("search/space=x: ", "minimal")),
        (("search.min_fitness_after=[1",), ("search.min_fitness_after=[1: ", "\"search.min_fitness_after='TEXT'\"")),
        (("seed",), ("seed: must be key=value",)),
        (("seed=1,2",), ("seed=1,2", "--multirun")),
        (("hydra.run.dir=/proc/x",), ("hydra.run.dir: /proc/x cannot be written: ",)),
        (("-m", "seed=1,abc"), ("seed: must be an int, got 'abc'", "no job was started")),
        (("-m", "arch=mlp,nope", "search=none"), ("arch=nope: ",)),
    ],
)
def test_refused_before_anything_runs(refusal, arguments, told):
    message = refusal("train", *arguments)
    assert all(part in message for part in told), message


@pytest.mark.parametrize(("key", "place"), [("search.journal", "/proc/x"), ("paths.output_dir", "/proc/x")])
def test_places_that_cannot_be_written_are_told_by_their_key(refusal, key, place):
    assert refusal("train", f"{key}={place}").startswith(f"tglo-train: {key}: {place} cannot be written: ")


def test_values_are_quoted_where_only_quotes_are_missing(refusal):
    name = "runs/epoch=11-step=288.ckpt"
    assert refusal("attack", f"ckpt={name}", "arch=cnn") == f"tglo-attack: ckpt: there is no checkpoint {name}"
    assert "ckpt=a=1,b=2: " in refusal("attack", "-m", "ckpt=a=1,b=2")


def test_a_folder_of_ones_own_configs_is_searched_too(refusal, tmp_path_factory):
    folder = tmp_path_factory.mktemp("conf")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: nonsense\n")
    assert "seed: must be an int" in refusal("train", "--config-dir", str(folder), "experiment=mine")
    assert " mine," in refusal("train", "--config-dir", str(folder), "experiment=nope")
