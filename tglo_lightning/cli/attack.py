"""`tglo-attack`: what is left of a trained network's accuracy under adversarial attacks."""

import warnings
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.seed import isolate_rng
from rich.console import Console

from tglo_lightning.arguments import integer, optional
from tglo_lightning.attacks import GradientMaskingWarning, RobustnessReport, evaluate_robustness
from tglo_lightning.cli.checks import check, naming, writable
from tglo_lightning.cli.recipe import Recipe
from tglo_lightning.cli.train import _quiet
from tglo_lightning.cli.trained import checkpoint, images, of_run, trained
from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.tables import robustness_table

FILES = ("robustness.json", "robustness.png")
# A table of seven epsilons needs this many columns
WIDTH = 120


def run(cfg: DictConfig) -> float:
    """Attack the network of `cfg.ckpt` as `cfg.attack` says; write the report and its picture, print its table.

    Returns:
        The worst-case accuracy at the largest epsilon.

    Raises:
        ConfigError: the config cannot run.
        ImportError: an attack's library is not installed.
    """
    _quiet()
    check(cfg)
    writable(cfg, "paths.output_dir")
    ckpt = checkpoint(cfg.ckpt, "ckpt")
    cfg = of_run(cfg, ckpt)
    with isolate_rng():
        recipe = Recipe(cfg)
        module = trained(recipe, ckpt, "ckpt")
    if cfg.num_threads is not None:
        torch.set_num_threads(cfg.num_threads)
    options = OmegaConf.to_container(cfg.attack, resolve=True)
    assert isinstance(options, dict)
    with naming(cfg, "attack"):
        attacks = [instantiate(attack) for attack in options.pop("attacks").values() if attack]
        samples = optional(integer, "samples", options.pop("samples"), 1)
    data = images(recipe, cfg.split, samples, cfg.attack.seed)
    with naming(cfg, "attack"), warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientMaskingWarning)  # printed below the table
        report = evaluate_robustness(module, data, attacks, **{str(k): v for k, v in options.items()})
    folder = Path(cfg.paths.output_dir)
    path = report.save(folder / FILES[0])
    _print(report, ckpt)
    print(path)
    try:
        print(pictures.save(pictures.robustness(report), folder / FILES[1]))
    except ImportError as error:
        print(error)
    return report.worst_case[-1]


def _print(report: RobustnessReport, ckpt: Path) -> None:
    console = Console(highlight=False, width=max(WIDTH, Console().width))
    own = f", own loss {report.own_loss}" if report.own_loss else ""
    console.print(f"{ckpt}{own}", soft_wrap=True)
    console.print(robustness_table(report))
    for message in report.warnings:
        console.print(f"Warning: {message}", soft_wrap=True)


if __name__ == "__main__":
    from tglo_lightning.cli.commands import attack

    attack()
