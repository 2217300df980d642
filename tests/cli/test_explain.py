import json
import subprocess
import sys

import pytest
import torch
from helpers.runs import interrupt, searched

from tglo_lightning.cli.explain import main
from tglo_lightning.losses import SmoothedCrossEntropyLoss, TaylorGLOLoss
from tglo_lightning.search import Criterion, LossSpec

THETA = [-10.9408, 7.5216, 8.2896, 0.2415, 7.8726, 8.9666, 2.0184, 7.0513]


def told(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        [", ".join(map(str, THETA))],
        [",".join(map(str, THETA))],
        [str(THETA)],
        [str(value) for value in THETA],
    ],
)
def test_theta_however_it_is_typed(words, capsys):
    text = told(capsys, "--theta", *words, "--num-classes", 10)
    assert "Repels: D(0) = -143" in text


def test_named_losses(capsys):
    assert "y log(h)" in told(capsys, "cross_entropy")
    assert "BaikalLoss, 3 classes" in told(capsys, "--num-classes", 3, "baikal")
    assert told(capsys, "asymmetric").startswith("AsymmetricLoss, binary targets")
    assert told(capsys, "huber").startswith("HuberLoss, regression targets")


def test_checkpoint_of_a_module_that_holds_the_loss(tmp_path, capsys):
    module = torch.nn.ModuleDict({"criterion": TaylorGLOLoss(THETA), "net": torch.nn.Linear(2, 10)})
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": module.state_dict(), "epoch": 3}, path)
    text = told(capsys, path)
    assert "eps* = 0.4692" in text
    assert "Number of classes: 10, from the width of the last layer, net." in text
    both = torch.nn.ModuleDict({"first": TaylorGLOLoss(THETA), "second": TaylorGLOLoss(order=2)})
    torch.save({"state_dict": both.state_dict()}, path)
    assert main([str(path)]) == 2
    assert "choose one with --buffer: first, second" in capsys.readouterr().err
    assert "Trainable: no" in told(capsys, path, "--buffer", "second")


def test_result_of_a_run(tmp_path, capsys):
    path = tmp_path / "result.json"
    losses = {"original": {}, "metalearned": {"criterion": Criterion.of("taylorglo", THETA, step=0.5).to_dict()}}
    path.write_text(json.dumps({"kept": "metalearned", "losses": losses}))
    text = told(capsys, path)
    assert "eps* = 0.4692" in text
    assert "Learning rate x 0.5." in text


def test_the_directory_of_a_run_and_what_it_knows_of_its_classes(tmp_path, capsys):
    result = searched(tmp_path / "tglo" / "1a2b3c")
    values = result.to_dict()
    values["settings"]["num_classes"] = 7
    path = tmp_path / "tglo" / "1a2b3c" / "search.json"
    path.write_text(json.dumps(values))
    for given in (tmp_path, path.parent, path):
        text = told(capsys, given)
        assert f"Number of classes: 7, from {path}." in text
        assert result.best.formula in text
    text = told(capsys, path, "--num-classes", 5)
    assert f"Number of classes: 5, as --num-classes says; but 7 by {path}." in text
    assert "TaylorGLOLoss, 5 classes" in text
    assert "from" not in told(capsys, path, "--num-classes", 7).splitlines()[0]
    (tmp_path / "tglo" / "other").mkdir()
    (tmp_path / "tglo" / "other" / "search.json").write_text(json.dumps(values))
    assert main([str(tmp_path)]) == 2
    assert f"give one of {path.parent}, " in capsys.readouterr().err
    interrupt(path.parent, trainings=8)
    assert main([str(path.parent)]) == 2
    assert "has not finished" in capsys.readouterr().err


def test_a_search_that_kept_the_original_loss(tmp_path, capsys):
    values = searched(tmp_path).to_dict() | {"kept": "original"}
    values["settings"] |= {"num_classes": 3, "original_options": [{"label_smoothing": 0.2}]}
    (tmp_path / "search.json").write_text(json.dumps(values))
    said = "The original loss was kept, CrossEntropyLoss."
    text = told(capsys, tmp_path)
    assert said in text
    assert "labels smoothed by alpha = 0.2" in text
    assert "CrossEntropyLoss, 3 classes" in text
    torch.save(
        {"state_dict": {}, "callbacks": {"TaylorGLO{'loss': 'criterion'}": {"result": values}}}, tmp_path / "a.ckpt"
    )
    assert (
        told(capsys, tmp_path / "a.ckpt").replace("the search in this checkpoint", f"{tmp_path / 'search.json'}")
        == text
    )
    values["original"]["name"] = "LossOfSomebody"
    (tmp_path / "search.json").write_text(json.dumps(values))
    assert main([str(tmp_path)]) == 2
    assert "the original loss was kept, LossOfSomebody, and no file says" in capsys.readouterr().err
    original = {"name": "BaikalLoss", "criterion": None}
    (tmp_path / "result.json").write_text(
        json.dumps({"kept": "original", "num_classes": 10, "losses": {"original": original}})
    )
    assert "BaikalLoss, 10 classes" in told(capsys, tmp_path / "result.json")


def test_classes_of_a_checkpoint(tmp_path, capsys):
    path = tmp_path / "last.ckpt"
    state = torch.nn.ModuleDict({"criterion": TaylorGLOLoss(THETA)}).state_dict()
    result = searched(tmp_path).to_dict()
    callbacks = {"TaylorGLO{'loss': 'criterion'}": {"result": result}}
    for more, source in (
        ({"callbacks": callbacks, "hyper_parameters": {"num_classes": 4}}, "10, from the search in this checkpoint"),
        ({"hyper_parameters": {"num_classes": 4}}, "4, from hyper_parameters.num_classes of this checkpoint"),
        ({}, "10, assumed"),
    ):
        torch.save({"state_dict": state, **more}, path)
        assert f"Number of classes: {source}" in told(capsys, path)


def test_several_losses_of_a_search(tmp_path, capsys):
    values = searched(tmp_path).to_dict()
    specs = (LossSpec("taylorglo", THETA), LossSpec("taylorglo", THETA[::-1]))
    values["kept"], values["best"]["criterion"] = "metalearned", Criterion(specs).to_dict()
    (tmp_path / "two.json").write_text(json.dumps(values))
    assert main([str(tmp_path / "two.json")]) == 2
    assert "choose one with --buffer: 0, 1" in capsys.readouterr().err
    assert "eps* = 0.4692" in told(capsys, tmp_path / "two.json", "--buffer", 0)


def test_a_loss_of_another_family(tmp_path, capsys):
    values = searched(tmp_path).to_dict()
    values["kept"], values["best"]["criterion"] = "metalearned", Criterion.of("smoothing", [0.1]).to_dict()
    (tmp_path / "search.json").write_text(json.dumps(values))
    state = torch.nn.ModuleDict({"criterion": SmoothedCrossEntropyLoss(0.1)}).state_dict()
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    for path in (tmp_path / "search.json", tmp_path / "last.ckpt"):
        text = told(capsys, path)
        assert "y log(h), labels smoothed by 0.1" in text
        assert "eps* = 0.09" in text


def test_picture_in_a_file_or_a_folder(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    told(capsys, "baikal", "--output", tmp_path)
    told(capsys, "baikal", "--output", tmp_path / "deep" / "baikal.svg")
    assert (tmp_path / "explanation.png").stat().st_size > 10_000
    assert (tmp_path / "deep" / "baikal.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--theta", "1", "2", "3"], "5, 8, 12, 17, ... values"),
        (["--theta", "1,nan,3,4,5"], "finite"),
        (["--theta", "one"], "numbers"),
        (["baikal", "--num-classes", "1"], "at least 2"),
        (["nonsense"], "unknown loss"),
        (["missing.ckpt"], "no file"),
        (["missing/result.json"], "no file"),
        ([], "give one loss"),
        (["baikal", "--theta", "1,2,3,4,5"], "give one loss"),
        (["baikal", "--output", "picture.nonsense"], "nonsense"),
        (["huber", "--output", "picture.png"], "--output draws losses of classes, and HuberLoss is one of regression"),
    ],
)
def test_one_line_says_what_is_wrong(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("content", ["not json", "{}", '{"kept": "original", "losses": {"original": {}}}'])
def test_files_without_a_loss(content, tmp_path, capsys):
    for name in ("result.json", "last.ckpt"):
        (tmp_path / name).write_text(content)
        assert main([str(tmp_path / name)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, tmp_path / "last.ckpt")
    assert main([str(tmp_path / "last.ckpt")]) == 2
    assert "no loss of a family" in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_is_all_that_is_told(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["baikal", "--output", str(tmp_path / "x.docx")]) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert "docx" in shown.err


def test_exit_status_of_the_command():
    command = [sys.executable, "-m", "tglo_lightning.cli.explain", "nonsense"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
