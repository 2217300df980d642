"""A loss, a task, an attack and an evaluator of one's own: one file and one config each, as CONTRIBUTING.md says."""

import json
import re
from dataclasses import dataclass

import torch
from helpers.command import ROOT, tglo_train
from hydra.utils import instantiate
from torch import nn

from tglo_lightning.attacks import Attack, evaluate_robustness

PARTS = """
import torch
from torch.utils.data import TensorDataset

from tglo_lightning.data import Task
from tglo_lightning.evaluation import TrainerEvaluator


class Blobs(Task):
    num_classes = 3
    input_shape = (1, 4, 4)

    def _load(self, generator):
        x = torch.rand(120, 1, 4, 4, generator=generator)
        y = x[:, 0, 0, :3].argmax(1)
        return tuple(TensorDataset(x[i : i + 40], self._noisy(y[i : i + 40], generator)) for i in (0, 40, 80))


class Own(TrainerEvaluator):
    name = "own"
"""
CONFIGS = {
    "task/blobs.yaml": "_target_: parts.Blobs\nbatch_size: 20\nseed: 0\nlabel_noise: 0.0\n",
    "loss/poly1.yaml": "_target_: poly1.Poly1Loss\nlabel_smoothing: 0.0\n",
    "experiment/mine.yaml": """# @package _global_
defaults:
  - override /task: blobs
  - override /loss: poly1
  - override /logger: none

name: mine
search:
  generations: 1
  population: 2
  candidate_epochs: 1
  finalists: 1
  repeats: 1
  evaluator:
    _target_: parts.Own
trainer:
  max_epochs: 1
  enable_progress_bar: false
evaluation:
  seeds: 1
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
    [loss] = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "poly1.py").write_text(loss)
    (tmp_path / "parts.py").write_text(PARTS)
    for name, text in CONFIGS.items():
        path = tmp_path / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    ran = tglo_train(tmp_path, "--config-dir", "conf", "experiment=mine")
    assert ran.returncode == 0, ran.stderr
    [path] = tmp_path.rglob("result.json")
    result = json.loads(path.read_text())
    assert result["losses"]["original"]["name"] == "Poly1Loss"
    assert result["search"]["candidates"] == 2
