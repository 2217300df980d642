"""A loss given by numbers, by name, or by the run that found it."""

import json

import pytest

from tglo_lightning.cli.explain import main
from tglo_lightning.cli.given import given_loss
from tglo_lightning.losses import TaylorGLOLoss, published_theta
from tglo_lightning.search import Criterion

THETA = [0.5, 0.6, 1.0, -1.0, 2.0]
FOUND = Criterion.of("taylorglo", THETA, step=0.5)


@pytest.fixture
def result(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"losses": {"original": {}, "metalearned": {"criterion": FOUND.to_dict()}}}))
    return path


def test_numbers_names_and_results(result):
    assert given_loss(THETA).theta.tolist() == THETA
    assert given_loss("cross_entropy_4", label_smoothing=0.1).theta.tolist() == published_theta("cross_entropy_4")
    found = given_loss(str(result), order=2)
    assert isinstance(found, TaylorGLOLoss)
    assert (found.theta.tolist(), found.order) == (THETA, 2)


@pytest.mark.parametrize(
    ("theta", "options", "message"),
    [
        ("mnist", {}, "mnist_published"),
        ("nowhere.json", {}, "nowhere.json cannot be read"),
        (3, {}, "single number"),
        ([1.0, 2.0, 3.0], {}, "5, 8, 12, 17"),
        (THETA, {"order": 3}, "8 values at order 3"),
    ],
)
def test_what_is_no_loss_is_rejected(theta, options, message):
    with pytest.raises(ValueError, match=message):
        given_loss(theta, **options)


@pytest.mark.parametrize("theta", [[1.0, None], ["a", "b"]])
def test_what_is_no_number_is_rejected(theta):
    with pytest.raises(TypeError, match="`theta"):
        given_loss(theta)


@pytest.mark.parametrize("content", ["not json", "{}", '{"best": {"theta": ["one"]}}'])
def test_a_file_without_a_loss_is_rejected(result, content):
    result.write_text(content)
    with pytest.raises(ValueError, match=r"result\.json"):
        given_loss(str(result))


def test_a_found_loss_of_another_family_is_named(result):
    criterion = Criterion.of("smoothing", [0.1]).to_dict()
    result.write_text(json.dumps({"losses": {"metalearned": {"criterion": criterion}}}))
    with pytest.raises(ValueError, match="loss=smoothing"):
        given_loss(str(result))


def test_explained_by_name(capsys):
    assert main(["mnist_published"]) == 0
    assert "Repels: D(0) = -143" in capsys.readouterr().out
    assert main(["cross_entropy_11"]) == 2
    assert "mnist_published" in capsys.readouterr().err
