"""The directory of a run as `tglo-train` leaves it: searched, recorded and measured, but trained on nothing."""

import json
import math
from pathlib import Path

import torch

from helpers.searches import Scored, theta
from tglo_lightning.cli.fresh_seeds import Scores, welch_tests
from tglo_lightning.losses import CrossEntropyLoss, loss_like
from tglo_lightning.reporting.attraction import AttractionRecord, measure
from tglo_lightning.reporting.robustness import AttackResult, Finding, RobustnessReport
from tglo_lightning.search import Criterion, Evaluation, Finals, Objective, SearchResult, SearchSettings, search
from tglo_lightning.search.journal import Journal

SETTINGS = SearchSettings(4, 6, finals=Finals(finalists=3, seeds=2, confirm=5), budget=3)
OBJECTIVE = Objective(10, "val/acc", "max", "CrossEntropyLoss", ({},))
HEADER = {
    "settings": SETTINGS.to_dict(),
    "loss": ["criterion"],
    "original": "CrossEntropyLoss",
    "monitor": "val/acc",
    "mode": "max",
    "classes": 10,
    "evaluator": "vectorized",
    "original_options": [{}],
    "versions": {"torch": "2.13.0"},
}
LOSSES = ("original", "metalearned")


def score(criterion: Criterion, seed: int, trained: int) -> Evaluation:
    """Score a candidate by its distance from a point; some diverge."""
    found = theta(criterion)
    if len(found) > 3 and found[3] > 0.55:
        return Evaluation(math.nan, "diverged", 0.1, "the loss is nan")
    distance = sum((t - 1) ** 2 for t in found) if found else 30.0
    draws = torch.Generator().manual_seed(seed + round(1000 * distance))
    return Evaluation(0.4 + 0.5 * math.exp(-distance / 20) + torch.rand((), generator=draws).item() / 20, "ok", 0.1)


def searched(folder: Path) -> SearchResult:
    """Write `search.jsonl` and `search.json`."""
    journal = Journal(folder / "search.jsonl", HEADER)
    evaluator = Scored(score)
    evaluator.name = "vectorized"
    result = search(evaluator, SETTINGS, OBJECTIVE, journal=journal)
    journal.close()
    result.save(folder / "search.json")
    return result


def interrupt(folder: Path, trainings: int) -> None:
    """Leave of a search what a kill in the middle of writing a line leaves."""
    (folder / "search.json").unlink()
    lines = (folder / "search.jsonl").read_text().splitlines(keepends=True)
    done = [number for number, line in enumerate(lines) if '"seed":' in line and '"key":' in line]
    (folder / "search.jsonl").write_text("".join(lines[: done[trainings - 1] + 1]) + '{"key": ["gen')


def finished(folder: Path, *, name: str = "CrossEntropyLoss") -> SearchResult:
    """Write all that a run with attraction and an attack leaves; `name` is that of the original loss."""
    result = searched(folder)
    draws = torch.Generator().manual_seed(0)
    scores = {kind: Scores() for kind in LOSSES}
    curves = {}
    for place, (kind, each) in enumerate(scores.items()):
        for metric, middle in (("acc", 0.7 + 0.2 * place), ("nll", 1.0 - 0.4 * place)):
            each.test[metric] = (middle + 0.02 * torch.randn(5, generator=draws)).tolist()
        rates = [0.1 + 0.01 * torch.rand((), generator=draws).item() for _ in range(5)]
        curves[kind] = [
            {"train/loss": [3 * math.exp(-rate * e) for e in range(20)]}
            | {"val/acc": [0.7 + 0.2 * place - 0.6 * math.exp(-3 * rate * e) for e in range(20)]}
            for rate in rates
        ]
        record(folder / "seeds" / f"{kind}-0", None if place == 0 else theta(result.best.criterion))
    losses = {kind: {"name": name, "test": each.summary()} for kind, each in scores.items()}
    losses["metalearned"] |= {
        "name": "TaylorGLOLoss",
        "theta": theta(result.best.criterion),
        "formula": result.best.formula,
    }
    told = {"monitor": "val/acc", "num_classes": 10, "kept": "metalearned", "losses": losses}
    told |= {"welch": welch_tests(scores), "seconds": 12.5, "versions": {"torch": "2.13.0"}}
    told["search"] = {"candidates": result.candidates, "rejected": sum(result.rejected), "failed": result.failed}
    (folder / "result.json").write_text(json.dumps(told, allow_nan=False))
    (folder / "curves.json").write_text(json.dumps(curves))
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text("seed: 0\nname: a <b> & c\n")
    (folder / ".hydra" / "overrides.yaml").write_text("- experiment=digits_noisy\n- 'loss.theta=[0,0,1]'\n")
    attacked(folder / "attack")
    return result


def record(folder: Path, parameters: list[float] | None) -> None:
    """Write `attraction.npz` of a network that grows sure of its labels."""
    own = CrossEntropyLoss()
    loss = own if parameters is None else loss_like(own, "taylorglo", parameters)
    draws = torch.Generator().manual_seed(1)
    target = torch.randint(10, (60,), generator=draws)
    kept = AttractionRecord(torch.arange(60), target, 10)
    for epoch in range(8):
        logits = torch.randn(60, 10, generator=draws)
        logits[torch.arange(60), target] += epoch
        kept.append(epoch, 10 * epoch, loss, measure(loss, logits, target))
    kept.save(folder / "attraction.npz")


def attacked(folder: Path) -> None:
    """Write `robustness.json`."""
    draws = torch.Generator().manual_seed(2)
    clean = torch.rand(50, generator=draws) < 0.9
    epsilons = [0.0, 0.05, 0.1]
    attacks = []
    for name, iterated in (("fgsm-own", False), ("pgd", True)):
        robust = torch.stack([clean & (torch.rand(50, generator=draws) > 8 * eps) for eps in epsilons])
        attacks.append(AttackResult(name, "gradient", iterated, {"loss": "own"}, robust, 150, 150, 0.0, 1.0))
    doubt = [Finding("zero_gradients", "Many gradients are zero.")]
    RobustnessReport("linf", epsilons, (0.0, 1.0), 0, 10, "own", clean, attacks, findings=doubt).save(
        folder / "robustness.json"
    )
