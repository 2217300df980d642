"""Parts of one's own, as CONTRIBUTING.md shows them: one class each, of less than 40 lines, outside of the package."""

import json
import re
import sys
from dataclasses import dataclass
from importlib import import_module

import pytest
import torch
from helpers.command import ROOT, in_process
from helpers.data import blobs, loaders
from helpers.modules import classifier, mlp, quiet_trainer, seeded
from hydra.utils import instantiate
from torch import nn

from tglo_lightning import TaylorGLO
from tglo_lightning.attacks import Attack, evaluate_robustness
from tglo_lightning.search import Budget, Finals, minimize

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
NAMES = [re.search(r"^class (\w+)", block, re.MULTILINE)[1] for block in BLOCKS]
TINY = {"generations": 2, "population": 4, "finals": Finals(finalists=1, seeds=1, confirm=2)}
# A class of CONTRIBUTING.md as an argument of a search
ARGUMENTS = {
    "Poly1Loss": lambda kind: {"space": kind, "strategy": "random"},
    "LearningRate": lambda kind: {"space": kind()},
    "Uniform": lambda kind: {"strategy": kind(reach=1.0), "space": "smoothing"},
    "Halving": lambda kind: {"strategy": kind()},
}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The classes, in modules that lie somewhere else."""
    folder = tmp_path_factory.mktemp("own")
    for name, block in zip(NAMES, BLOCKS, strict=True):
        (folder / f"own_{name.lower()}.py").write_text(block)
    sys.path.insert(0, str(folder))
    yield {name: getattr(import_module(f"own_{name.lower()}"), name) for name in NAMES}
    sys.path.remove(str(folder))


def test_each_is_short():
    assert set(NAMES) == {*ARGUMENTS, "Counting"}
    assert max(len(block.splitlines()) for block in BLOCKS) < 40


def fit(tmp_path, **arguments):
    import pytorch_lightning as api

    search = TaylorGLO(**{"evaluator": "trainer", "budget": Budget(steps=4), "report": False} | TINY | arguments)
    module = seeded(classifier(api))
    quiet_trainer(api, tmp_path, callbacks=[search], max_epochs=1).fit(module, **loaders())
    return search.result


@pytest.mark.parametrize("name", ARGUMENTS)
def test_in_the_callback(own, tmp_path, name):
    arguments = ARGUMENTS[name](own[name])
    result = fit(tmp_path, **arguments)
    assert (result.failed, len(result.history)) == (0, 8)
    assert len({c.criterion for c in result.history}) == 8
    assert own[name].__name__ in json.dumps(result.settings) or name == "Poly1Loss"
    # the same once more goes on from the journal, and trains nothing
    again = fit(tmp_path, **ARGUMENTS[name](own[name]))
    assert [c.seconds for c in again.history] == [c.seconds for c in result.history]


def test_from_a_config_of_hydra(own):
    config = {
        "_target_": "tglo_lightning.TaylorGLO",
        "space": {"_target_": "own_learningrate.LearningRate"},
        "strategy": {"_target_": "own_uniform.Uniform", "reach": 0.5},
        "evaluator": {"_target_": "own_counting.Counting"},
        "budget": {"_target_": "tglo_lightning.search.Budget", "steps": 4, "min_fitness_after": [2, 0.1]},
        "finals": {"_target_": "tglo_lightning.search.Finals", "confirm": 3},
    }
    search = instantiate(config)
    settings = search.settings
    assert [type(settings.space), type(settings.strategy), type(search.evaluator)] == [
        own["LearningRate"], own["Uniform"], own["Counting"],
    ]  # fmt: skip
    assert (settings.strategy.reach, settings.budget.min_fitness_after, settings.finals.confirm) == (0.5, (2, 0.1), 3)
    assert instantiate(config | {"budget": 3, "finals": 4, "space": "poly1"}).settings.finals == Finals(confirm=4)


def curve(loss):
    """A loop that yields its error after every step."""
    x, y = blobs().tensors
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()
        yield (net(x).argmax(1) != y).float().mean()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_in_minimize(own, name):
    result = minimize(curve, 3, budget=4, progress=False, **TINY | ARGUMENTS[name](own[name]))
    assert (result.failed, len(result.history)) == (0, 8)
    if name == "Poly1Loss":
        assert re.match(r"y \(log\(h\) \+ \S+ h\), learning rate x \S+$", result.best.formula)


def test_an_evaluator(own, tmp_path):
    evaluator = own["Counting"]()
    result = fit(tmp_path, evaluator=evaluator)
    assert evaluator.trainings == result.trainings == 2 * 4 + 1 + 2 * 2
    assert result.settings["evaluator"] == "counting"


PARTS = """
import torch
from torch.utils.data import TensorDataset

from tglo_lightning.data import Task


class Blobs(Task):
    num_classes = 3
    input_shape = (1, 4, 4)

    def _load(self, generator):
        x = torch.rand(120, 1, 4, 4, generator=generator)
        y = x[:, 0, 0, :3].argmax(1)
        return tuple(TensorDataset(x[i : i + 40], self._noisy(y[i : i + 40], generator)) for i in (0, 40, 80))
"""
CONFIGS = {
    "task/blobs.yaml": "_target_: parts.Blobs\nbatch_size: 20\nseed: 0\nlabel_noise: 0.0\n",
    "loss/poly1.yaml": "_target_: own_poly1loss.Poly1Loss\nepsilon: 1.0\nlabel_smoothing: 0.0\n",
    "experiment/mine.yaml": """# @package _global_
defaults:
  - override /task: blobs
  - override /loss: poly1
  - override /logger: none

name: mine
search:
  generations: 1
  population: 4
  budget: 1
  finals: 2
  strategy:
    _target_: own_halving.Halving
  evaluator:
    _target_: own_counting.Counting
trainer:
  max_epochs: 1
  enable_progress_bar: false
evaluation:
  seeds: 1
  report: false
""",
}


@dataclass(frozen=True)
class Noise(Attack):
    """Random corners of the ball."""

    knowledge = "decisions"
    iterated = False

    def run(self, model, x, labels, epsilon, norm):
        return x + epsilon * torch.rand_like(x).round().mul(2).sub(1)


def test_an_attack_is_one_class():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    x = torch.rand(40, 1, 4, 4)
    config = {"_target_": f"{Noise.__module__}.Noise"}
    report = evaluate_robustness(net, (x, net(x).argmax(1)), [instantiate(config)], epsilons=[0.0, 0.5], bounds=(0, 1))
    assert report.worst_case[0] == 1.0 > report.worst_case[1]


def test_one_file_and_one_config_each(tmp_path):
    for name, block in zip(NAMES, BLOCKS, strict=True):
        (tmp_path / f"own_{name.lower()}.py").write_text(block)
    (tmp_path / "parts.py").write_text(PARTS)
    for name, text in CONFIGS.items():
        path = tmp_path / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    in_process(tmp_path, "train", "--config-dir", "conf", "experiment=mine")
    [path] = tmp_path.rglob("result.json")
    result = json.loads(path.read_text())
    assert result["losses"]["original"]["name"] == "Poly1Loss"
    assert result["search"]["candidates"] == 4
