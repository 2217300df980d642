"""Search losses for accuracy and for robust accuracy, train with them, attack what comes out.

    python recipes/adversarial/run.py results task.source=../mnist

The first argument is the folder of the results, those without dashes are overrides of the config as `tglo-train` takes
them. What the folder already holds is not done again.
"""

import argparse
import json
import statistics
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from torch import nn

from tglo_lightning.attacks import RobustnessReport, evaluate_robustness
from tglo_lightning.cli.commands import CONFIG_DIR
from tglo_lightning.cli.recipe import Recipe, quiet_lightning
from tglo_lightning.cli.trained import images
from tglo_lightning.evaluation.inner import set_step
from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.landscape import Landscape, measure_landscape
from tglo_lightning.search import Criterion, SearchResult

# The name in the tables and the fitness of each search
PGD = "fitness.attack={_target_: tglo_lightning.attacks.PGD, steps: 10}"
SEARCHES = {
    "accuracy": ("metalearned for accuracy", ["search.monitor=val/acc"]),
    "robust": ("metalearned for robust accuracy", ["search.monitor=val/robust_acc"]),
    "own": (
        "metalearned for own-loss robust accuracy",
        ["search.monitor=val/robust_acc_own", "fitness.losses=[own]"],
    ),
    "pgd": ("metalearned for robust accuracy, PGD", ["search.monitor=val/robust_acc", PGD]),
}
BASELINES = {
    "cross-entropy": lambda: nn.CrossEntropyLoss(),
    "cross-entropy, smoothing 0.1": lambda: nn.CrossEntropyLoss(label_smoothing=0.1),
}
OWN = "fgsm-own"
# Far smaller than the standard AutoAttack, so that it runs on a CPU. It is then weaker than PGD
DEFAULTS = ["experiment=robust_mnist", "logger=none", "search.evaluator=vectorized", "attack.samples=200"]
DEFAULTS += ["attack.attacks.pgd.steps=20", "attack.attacks.square.queries=200"]
DEFAULTS += ["attack.attacks.autoattack.steps=10", "attack.attacks.autoattack.queries=200"]


def config(folder: Path, *overrides: str) -> DictConfig:
    """The config of `tglo-attack`, which holds that of `tglo-train` as well."""
    given = [*DEFAULTS, "search=full", "ckpt=null", f"paths.output_dir={folder}", *overrides]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("attack", overrides=given)


def searched(folder: Path, key: str, overrides: list[str]) -> SearchResult:
    """The result of one search."""
    name, fitness = SEARCHES[key]
    path = folder / "searches" / f"{slug(name)}.json"
    if not path.exists():
        # A journal each; the result is written beside it
        cfg = config(folder, f"search.journal={path.with_suffix('.jsonl')}", *overrides, *fitness)
        recipe = Recipe(cfg)
        pl.seed_everything(cfg.seed, verbose=False)
        search = recipe.search()
        assert search is not None
        recipe.quiet_trainer(callbacks=[search], max_steps=1).fit(recipe.module(), datamodule=recipe.datamodule)
    return SearchResult.load(path)


def evaluated(
    folder: Path, recipe: Recipe, name: str, loss: nn.Module, step: float, seed: int, *, landscape: bool
) -> RobustnessReport:
    """Train at ``step`` times the learning rate, attack the network on test images, measure the landscape if asked."""
    path = folder / "reports" / f"{slug(name)}-{seed}.json"
    cfg = recipe.cfg
    if not path.exists():
        pl.seed_everything(seed, verbose=False)
        module = recipe.module()
        module.criterion = loss
        set_step(module, step)
        recipe.quiet_trainer().fit(module, datamodule=recipe.datamodule)
        module.eval()
        options = OmegaConf.to_container(cfg.attack, resolve=True)
        assert isinstance(options, dict)
        attacks = [instantiate(attack) for attack in options.pop("attacks").values()]
        data = images(recipe, "test", options.pop("samples"), cfg.attack.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = evaluate_robustness(module, data, attacks, **options)
        if landscape:
            data = images(recipe, "test", 500, 0)
            measured = measure_landscape(module, data, directions=10, points=21, surface=True, surface_points=11)
            measured.save(folder / "landscapes" / f"{slug(name)}.npz")
        report.save(path)
    return RobustnessReport.load(path)


def main() -> None:
    """Do what is not done yet, then print and draw."""
    options = parser().parse_args()
    folder, overrides = options.folder, options.overrides
    quiet_lightning()
    torch.set_num_threads(1)
    losses = dict(BASELINES)
    given = {} if options.losses is None else json.loads(options.losses.read_text())["criteria"]
    criteria = {name: Criterion.from_dict(values) for name, values in given.items()}
    for key in options.searches if options.losses is None else ():
        name, result = SEARCHES[key][0], searched(folder, key, overrides)
        print(f"{name}: kept {result.kept}, {result.original.mean:.3f} -> {result.best.mean:.3f}", flush=True)
        assert result.best is not None
        criteria[name] = result.best.criterion
    losses |= {name: criterion.build for name, criterion in criteria.items()}
    recipe = Recipe(config(folder, *overrides))
    reports: dict[str, list[RobustnessReport]] = {name: [] for name in losses}
    for seed in range(1, recipe.cfg.evaluation.seeds + 1):
        for name, loss in losses.items():
            # Searches that found the same loss need not train it twice
            twin = next((other for other in criteria if criteria[other] == criteria.get(name)), name)
            step = criteria[name].step if name in criteria else 1.0
            landscape = options.landscapes and seed == 1
            report = evaluated(folder, recipe, twin, loss(), step, seed, landscape=landscape)
            reports[name].append(report)
            print(f"{name}, seed {seed}: {report.clean_accuracy:.3f}, {report.worst_case}", flush=True)
    show(folder, reports, criteria)


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("folder", type=Path, help="of the results")
    found.add_argument("overrides", nargs="*", help="of the config, such as experiment=robust_cifar10")
    found.add_argument(
        "--searches", nargs="+", choices=SEARCHES, default=["accuracy", "robust", "own"], help="searches to make"
    )
    found.add_argument("--losses", type=Path, metavar="SUMMARY", help="a summary.json: take its losses, do not search")
    found.add_argument("--no-landscapes", dest="landscapes", action="store_false", help="leave out the landscapes")
    return found


def show(folder: Path, reports: dict[str, list[RobustnessReport]], criteria: dict[str, Criterion]) -> None:
    """The tables, the pictures and the summary."""
    radii = next(iter(reports.values()))[0].epsilons
    console = Console(width=150)
    plain = {name: criterion.to_dict() for name, criterion in criteria.items()}
    summary: dict = {"epsilons": radii, "criteria": plain, "losses": {}}
    for title, rows in (
        ("Own-loss FGSM", lambda report: report[OWN].accuracy),
        ("Worst case of the standard set", lambda report: report.worst_case),
    ):
        table = Table("loss", *(f"{radius:g}" for radius in radii), title=f"{title}: mean ± sd")
        for name, found in reports.items():
            columns = list(zip(*(rows(report) for report in found), strict=True))
            table.add_row(name, *(cell(column) for column in columns))
            summary["losses"].setdefault(name, {})[title] = [list(column) for column in columns]
        console.print(table)
    for name, found in reports.items():
        kinds = sorted({finding.kind for report in found for finding in report.findings})
        summary["losses"][name]["warnings"] = kinds
        summary["losses"][name]["huge_epsilon"] = [report.huge_epsilon for report in found]
        console.print(f"{name}: {', '.join(kinds) or 'no warnings'}")
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    distinct = [name for name in reports if criteria.get(name) not in [criteria[n] for n in earlier(criteria, name)]]
    own = {name: (radii, [report[OWN].accuracy for report in reports[name]]) for name in distinct}
    worst = {name: (radii, [report.worst_case for report in reports[name]]) for name in distinct}
    fgsm = pictures.worst_cases(own, norm="linf", title="FGSM through the own loss")
    pictures.save(fgsm, folder / "own_loss_fgsm.png")
    standard = pictures.worst_cases(worst, norm="linf", title="Worst case of the standard set")
    pictures.save(standard, folder / "worst_case.png")
    paths = {name: folder / "landscapes" / f"{slug(name)}.npz" for name in distinct}
    landscapes = {name: Landscape.load(path) for name, path in paths.items() if path.exists()}
    if landscapes:
        pictures.save(pictures.basins(landscapes), folder / "basins.png")
        pictures.save(pictures.surfaces(landscapes), folder / "surfaces.png")
    for name, landscape in landscapes.items():
        console.print(f"{name}: accuracy falls to 90 % at a step of {landscape.width(0.9)[0]:.3f}")


def earlier(criteria: dict[str, Criterion], name: str) -> list[str]:
    """The searches before `name`."""
    names = list(criteria)
    return names[: names.index(name)] if name in names else []


def cell(values: tuple[float, ...]) -> str:
    """Mean and deviation."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"


def slug(name: str) -> str:
    """A name for files."""
    return name.replace(",", "").replace(" ", "_")


if __name__ == "__main__":
    main()
