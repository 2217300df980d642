"""`tglo-attack`: what is left of a trained network's accuracy under adversarial attacks."""

import warnings
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from tglo_lightning.arguments import integer, optional
from tglo_lightning.attacks import GradientMaskingWarning, evaluate_robustness
from tglo_lightning.cli.recipe import naming, prepare
from tglo_lightning.cli.trained import images, load
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
        ConfigError: the config cannot run, or an attack's library is not installed.
    """
    folder = prepare(cfg)
    recipe, module = load(cfg, cfg.ckpt, "ckpt")
    options: Any = OmegaConf.to_container(cfg.attack, resolve=True)
    with naming("attack"), warnings.catch_warnings():
        attacks = [instantiate(attack) for attack in options.pop("attacks").values() if attack]
        samples = optional(integer, "samples", options.pop("samples"), 1)
        data = images(recipe, cfg.split, samples, cfg.attack.seed)
        warnings.simplefilter("ignore", GradientMaskingWarning)  # printed below the table
        report = evaluate_robustness(module, data, attacks, **options)
    path = report.save(folder / FILES[0])
    console = Console(highlight=False, width=max(WIDTH, Console().width))
    own = f", own loss {report.own_loss}" if report.own_loss else ""
    console.print(f"{cfg.ckpt}{own}", soft_wrap=True)
    console.print(robustness_table(report))
    for message in report.warnings:
        console.print(f"Warning: {message}", soft_wrap=True)
    print(path)
    try:
        print(pictures.save(pictures.robustness(report), folder / FILES[1]))
    except ImportError as error:
        print(error)
    return report.worst_case[-1]
