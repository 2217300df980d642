"""The directory of a run as `tglo-train` leaves it: searched, recorded and measured, but trained on nothing."""

import json
import math
from pathlib import Path

import torch

from helpers.searches import Scored, theta
from tglo_lightning.losses import CrossEntropyLoss
from tglo_lightning.reporting import summarize
from tglo_lightning.reporting.attraction import AttractionRecord, measure
from tglo_lightning.reporting.robustness import AttackResult, Finding, RobustnessReport
from tglo_lightning.reporting.stats import verdict
from tglo_lightning.search import Criterion, Evaluation, Finals, Objective, SearchResult, SearchSettings, search
from tglo_lightning.search.journal import Journal

SETTINGS = SearchSettings(
    space="taylorglo", generations=4, population=6, finals=Finals(finalists=3, seeds=2, confirm=3)
)
OBJECTIVE = Objective(10, "val/acc", "max", "CrossEntropyLoss", ({},))
HEADER = {
    "module": "somewhere.Net",
    "loss": ["criterion"],
    "original": "CrossEntropyLoss",
    "monitor": "val/acc",
    "mode": "max",
    "init": "reset",
    "classes": 10,
    "evaluator": "scored",
    "data": {"train": {"lengths": [600]}, "val": {"lengths": [400]}},
    "original_options": [{}],
    "versions": {"torch": "2.13.0"},
}
# Mean accuracy on test data
MEANS = {"original": 0.7, "tuned_original": 0.78, "known": 0.88, "metalearned": 0.9}
NAMES = {"tuned_original": "CrossEntropyLoss", "known": "GCELoss", "metalearned": "TaylorGLOLoss"}


def score(criterion, seed, trained):
    """Score a candidate by its distance from a point; every fifth one diverges."""
    draws = torch.Generator().manual_seed((seed + round(1000 * sum(theta(criterion)))) % 2**31)
    noise, fails = torch.rand(2, generator=draws).tolist()
    distance = 30.0 if criterion.is_original else sum((t - 1) ** 2 for t in theta(criterion))
    if fails < 0.3 and distance > 8 and not criterion.is_original:
        return Evaluation(math.nan, "diverged", 0.1, "the loss is nan")
    return Evaluation(0.4 + 0.5 * math.exp(-distance / 20) + noise / 20, "ok", 0.1)


def searched(folder: Path, settings: SearchSettings = SETTINGS) -> SearchResult:
    """Write `search.jsonl` and `search.json`."""
    journal = Journal(folder / "search.jsonl", HEADER | {"settings": settings.identity})
    result = search(Scored(score), settings, OBJECTIVE, journal=journal)
    journal.close()
    result.save(folder / "search.json")
    return result


def interrupt(folder: Path, trainings: int) -> None:
    """Leave of a search what a kill in the middle of writing a line leaves."""
    (folder / "search.json").unlink()
    header, *lines = (folder / "search.jsonl").read_text().splitlines()
    kept = []
    for line in lines:
        trainings -= json.loads(line)["key"][0] not in ("settings", "state")
        if trainings < 0:
            break
        kept.append(line)
    (folder / "search.jsonl").write_text("\n".join([header, *kept]) + '\n{"key": ["gen')


def finished(folder: Path, *, name: str = "CrossEntropyLoss", baselines: bool = False) -> SearchResult:
    """Write all that a run with attraction and an attack leaves; `name` is that of the original loss."""
    result = searched(folder)
    found = {"original": None, "metalearned": result.best.criterion}
    if baselines:
        found = {"original": None, "tuned_original": Criterion.original(0.3), "known": Criterion.of("gce", [0.6], 2.0)}
        found["metalearned"] = result.best.criterion
    draws = torch.Generator().manual_seed(0)
    curves, losses = {}, {}
    for kind, criterion in found.items():
        middles = {"acc": MEANS[kind], "nll": 2.4 - 2 * MEANS[kind]}
        test = {m: summarize((mean + 0.02 * torch.randn(5, generator=draws)).tolist()) for m, mean in middles.items()}
        losses[kind] = {
            "name": NAMES.get(kind, name),
            "criterion": None if criterion is None else criterion.to_dict(),
            "formula": "" if criterion is None else criterion.formula,
            "test": test,
        }
        rates = [0.1 + 0.01 * torch.rand((), generator=draws).item() for _ in range(5)]
        curves[kind] = [
            {"train/loss": [3 * math.exp(-rate * e) for e in range(20)]}
            | {"val/acc": [MEANS[kind] - 0.6 * math.exp(-3 * rate * e) for e in range(20)]}
            for rate in rates
        ]
        record(folder / "seeds" / f"{kind}-0", criterion)
    losses["original"]["options"] = {}
    (folder / "result.json").write_text(json.dumps(told(result, losses), allow_nan=False))
    (folder / "curves.json").write_text(json.dumps(curves))
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text("seed: 0\nname: a <b> & c\n")
    (folder / ".hydra" / "overrides.yaml").write_text("- experiment=digits_noisy\n- 'loss.theta=[0,0,1]'\n")
    attacked(folder / "attack")
    return result


def told(result, losses):
    """What `result.json` holds."""
    tests = {}
    for kind in losses:
        for metric, values in losses[kind]["test"].items() if kind != "metalearned" else ():
            ours = losses["metalearned"]["test"][metric]["values"]
            p = verdict(ours, values["values"], less=metric == "nll")
            tests.setdefault(kind, {})[metric] = {"p_one_sided": p.p, "p_two_sided": p.p_two_sided}
    counts = ("candidates", "failed", "trainings", "seconds")
    return {
        "monitor": "val/acc",
        "num_classes": 10,
        "kept": "metalearned",
        "losses": losses,
        "logged": {metric: f"test/{metric}" for metric in losses["original"]["test"]},
        "tests": tests,
        "search": {name: getattr(result, name) for name in counts} | {"rejected": sum(result.rejected)},
        "seconds": 12.5,
        "versions": {"torch": "2.13.0"},
    }


def record(folder: Path, criterion: Criterion | None) -> None:
    """Write `attraction.npz` of a network that grows sure of its labels."""
    loss = CrossEntropyLoss() if criterion is None or not criterion.losses else criterion.build()
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
