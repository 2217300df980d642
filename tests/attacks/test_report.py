"""The report: round trip, figures, table and picture; and what it needs to be told."""

import builtins
import json
import sys

import pytest
import torch

from tglo_lightning.attacks import FGSM, PGD, RobustnessReport, evaluate_robustness


@pytest.fixture
def report(net, data):
    return evaluate_robustness(net, data, [FGSM("own"), FGSM(), PGD("margin", steps=5)], [0, 0.05, 0.1])


def test_json_round_trip(report, tmp_path):
    path = report.save(tmp_path / "new" / "report.json")
    read = RobustnessReport.load(path)
    assert read.to_dict() == report.to_dict()
    assert torch.equal(read.clean, report.clean)
    assert all(torch.equal(a.robust, b.robust) for a, b in zip(read.attacks, report.attacks, strict=True))
    assert (read.bounds, read.epsilons, read.findings) == (report.bounds, report.epsilons, report.findings)
    assert read.save(tmp_path / "again.json").read_text() == path.read_text()


def test_json_holds_what_readers_need(report):
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (data["samples"], data["seed"], data["num_classes"]) == (48, 0, 4)
    assert data["own_loss"] == "CrossEntropyLoss"
    assert set(data["versions"]) >= {"torch", "foolbox"}
    for attack in data["attacks"]:
        assert set(attack) >= {"name", "settings", "accuracy", "forward", "backward", "zero_gradients", "robust"}
        assert [row.count("1") / 48 for row in attack["robust"]] == attack["accuracy"]


def test_worst_case_is_taken_image_by_image(report):
    for row, epsilon in enumerate(report.epsilons):
        standing = report.clean.clone()
        for attack in report.attacks:
            standing &= attack.robust[row]
        assert report.worst_case[row] == report.worst(epsilon) == standing.double().mean()
    assert torch.equal(report.robust(["fgsm-own"]), report["fgsm-own"].robust)
    assert report.accuracy("fgsm-own", 0.05) == report["fgsm-own"].accuracy[1]


def test_unknown_names_and_radii_are_told(report):
    with pytest.raises(KeyError, match="there are: fgsm-own"):
        report["deepfool"]
    with pytest.raises(KeyError, match=r"No epsilon 0\.2"):
        report.worst(0.2)


@pytest.mark.parametrize("content", ["{}", "[]", "nonsense", '{"attacks": [1]}'])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="is no robustness report"):
        RobustnessReport.load(path)


@pytest.mark.parametrize(
    ("module", "attack", "hint"),
    [
        ("foolbox", "PGD()", r"pip install 'tglo-lightning\[attacks\]'"),
        ("foolbox", "HopSkipJump()", r"pip install 'tglo-lightning\[attacks\]'"),
        ("pyautoattack", "Square()", r"pip install 'tglo-lightning\[autoattack\]'"),
        ("pyautoattack", "AutoAttack()", r"pip install 'tglo-lightning\[autoattack\]'"),
    ],
)
def test_a_missing_extra_says_what_to_type(net, data, monkeypatch, module, attack, hint):
    from tglo_lightning import attacks
    from tglo_lightning.attacks.gradient import _foolbox_attacks

    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    find = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.split(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {module!r}")
        return find(name, *args, **kwargs)

    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(builtins, "__import__", missing)
    _foolbox_attacks.cache_clear()
    chosen = eval(attack, vars(attacks))
    with pytest.raises(ImportError, match=hint):
        evaluate_robustness(net, data, chosen, 0.1, checks=False)
    _foolbox_attacks.cache_clear()
