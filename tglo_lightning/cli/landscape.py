"""`tglo-landscape`: how flat are the minima that networks were trained to."""

from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from tglo_lightning.cli.recipe import ConfigError, naming, prepare
from tglo_lightning.cli.shell import print_picture
from tglo_lightning.cli.trained import images, load
from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.landscape import Landscape, measure_landscape


def run(cfg: DictConfig) -> dict[str, Landscape]:
    """Measure the landscape around each of `cfg.ckpts`; write them and their pictures, print a table.

    Raises:
        ConfigError: the config cannot run.
    """
    folder = prepare(cfg)
    if not isinstance(cfg.ckpts, DictConfig) or not cfg.ckpts:
        raise ConfigError("ckpts: must name checkpoints, as in 'ckpts={cross-entropy: RUN1, metalearned: RUN2}'")
    options: Any = OmegaConf.to_container(cfg.landscape, resolve=True)
    options["batch_size"] = cfg.batch_size
    found: dict[str, Landscape] = {}
    for name, path in ((str(name), str(path)) for name, path in cfg.ckpts.items()):
        recipe, module = load(cfg, path, f"ckpts.{name}")
        data = images(recipe, cfg.split, cfg.samples, cfg.landscape.seed)
        with naming("landscape"):
            found[name] = measure_landscape(module, data, **options)
        found[name].save(folder / f"{name}.npz")
    _print(found)
    print_picture(lambda: pictures.basins(found), folder / "basins.png")
    if cfg.landscape.surface:
        print_picture(lambda: pictures.surfaces(found), folder / "surfaces.png")
    return found


def _print(landscapes: dict[str, Landscape]) -> None:
    first = next(iter(landscapes.values()))
    title = f"Step at which accuracy falls to a share of its own, mean ± sd over {2 * len(first.accuracy)} ways"
    table = Table("network", "accuracy", "width at 90 %", "width at 50 %", title=title)
    for name, landscape in landscapes.items():
        middle = landscape.accuracy[0, len(landscape.steps) // 2]
        widths = (landscape.width(share) for share in (0.9, 0.5))
        table.add_row(name, f"{middle:.4f}", *(f"{mean:.3f} ± {std:.3f}" for mean, std in widths))
    Console(highlight=False).print(table)
