"""What a Weights & Biases run shows of a search and a training, without anything arranged by hand.

W&B puts the panels of one run into sections by what stands before the ``/`` of a metric's name: ``search/``,
``attraction/``, ``train/``, ``val/``. The axes are set where the metrics are logged. A workspace saved for a project
arranges the panels further; see :func:`workspace`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn

from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.attraction import AttractionRecord

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

__all__ = ["AttractionPanels", "is_wandb", "workspace"]

HISTOGRAM_BINS = 64


def is_wandb(logger: Any) -> bool:
    """Whether ``logger`` writes to a W&B run, of whichever Lightning namespace it is."""
    return hasattr(getattr(logger, "experiment", None), "define_metric")


class AttractionPanels:
    """Writes a :class:`~tglo_lightning.reporting.attraction.AttractionRecord` to a W&B run.

    Series and histograms have the epoch as axis. The picture needs matplotlib: without it a warning names what to
    install, and the rest is written.

    Args:
        run: the W&B run.
    """

    def __init__(self, run: Any) -> None:
        self.run = run
        # The axis is Lightning's global step unless told otherwise
        run.define_metric("attraction/epoch", hidden=True)
        run.define_metric("attraction/*", step_metric="attraction/epoch")

    def log(self, metrics: Mapping[str, float], record: AttractionRecord) -> None:
        """Write ``metrics``, named ``attraction/...``, and the histogram of the last measurement's attraction."""
        import wandb

        pulls = record.values[-1][0].numpy()
        pulls = pulls[np.isfinite(pulls)]
        entries: dict[str, Any] = dict(metrics)
        if pulls.size:
            entries["attraction/histogram"] = wandb.Histogram(pulls.tolist(), num_bins=HISTOGRAM_BINS)
        self.run.log(entries | {"attraction/epoch": record.epochs[-1]})

    def finish(self, record: AttractionRecord) -> None:
        """Write the table of the last measurement and the picture over the epochs."""
        import wandb

        columns, rows = record.rows()
        entries: dict[str, Any] = {"attraction/samples": wandb.Table(columns=[*columns], data=rows)}
        try:
            figure = pictures.attraction({"this training": record})
            entries[PICTURE] = wandb.Image(pictures.pixels(figure), caption=str(figure.get_label()))
        except ImportError as error:
            rank_zero_warn(f"AttractionMonitor: no picture in W&B. {error}")
        self.run.log(entries | {"attraction/epoch": record.epochs[-1]})


# Sections of the saved workspace: title, axis, {title of a panel: metrics}
SECTIONS: tuple[tuple[str, str, dict[str, tuple[str, ...]]], ...] = (
    (
        "Search",
        "search/generation",
        {
            "Fitness": ("search/fitness_best_so_far", "search/fitness_best", "search/fitness_mean"),
            "Step size": ("search/sigma",),
        },
    ),
    (
        "Attraction",
        "attraction/epoch",
        {
            "Attraction, quantiles over samples": tuple(f"attraction/q{q}" for q in ("05", "25", "50", "75", "95")),
            "Share of repelled samples": ("attraction/repelled",),
            "Distance from zero training error, median": ("attraction/eps",),
            "Entropy, median (nats)": ("attraction/entropy",),
            "gamma, medians": ("attraction/gamma_T", "attraction/gamma_notT"),
        },
    ),
    ("Training", "epoch", {"Training loss": ("train/loss",)}),
    ("Validation", "epoch", {"Accuracy": ("val/acc",), "Negative log-likelihood (nats)": ("val/nll",)}),
)
PICTURE = "attraction/scatter"


def workspace(entity: str, project: str, name: str = "tglo-lightning") -> Workspace:
    """A W&B workspace with a section for the search, the attraction, training and validation, not saved yet.

    ``workspace(...).save()`` needs a login and returns the workspace's address with the view in it.

    Args:
        entity: user or team that owns the project.
        project: the project.
        name: of the saved view.

    Raises:
        ImportError: ``wandb-workspaces`` is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise ImportError("A saved workspace needs: pip install 'tglo-lightning[workspaces]'") from error
    sections = []
    for title, axis, plots in SECTIONS:
        found: list[Any] = [panels.LinePlot(title=label, x=axis, y=[*metrics]) for label, metrics in plots.items()]
        if title == "Attraction":
            found.append(panels.MediaBrowser(title="Samples over epochs", media_keys=[PICTURE]))
        sections.append(workspaces.Section(name=title, panels=found, is_open=True))
    return workspaces.Workspace(entity=entity, project=project, name=name, sections=sections)
