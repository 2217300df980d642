"""`tglo-attack`: what is left of a trained network's accuracy under adversarial attacks."""

import warnings
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from tglo_lightning.arguments import integer, optional
from tglo_lightning.attacks import GradientMaskingWarning, evaluate_robustness
from tglo_lightning.cli.recipe import naming, prepare
from tglo_lightning.cli.shell import console, print_picture
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
    out = console(WIDTH)
    out.width = max(WIDTH, out.width)
    own = f", own loss {report.own_loss}" if report.own_loss else ""
    out.print(f"{cfg.ckpt}{own}")
    out.print(robustness_table(report))
    for message in report.warnings:
        out.print(f"Warning: {message}")
    print(path)
    print_picture(lambda: pictures.robustness(report), folder / FILES[1])
    return report.worst_case[-1]
