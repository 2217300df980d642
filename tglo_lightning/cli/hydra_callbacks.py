"""Hydra callbacks: what is compared when jobs of `tglo-train` end."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from tglo_lightning.cli.compare import report
from tglo_lightning.reporting.comparison import compare

log = logging.getLogger(__name__)


class CompareRuns(Callback):
    """Compares the jobs of a multirun when the last one is done: `callbacks=compare`, or an experiment that has it.

    Args:
        metrics: of :func:`tglo_lightning.cli.compare.report`.
        options: of :func:`tglo_lightning.reporting.comparison.compare`.
    """

    def __init__(self, metrics: Sequence[str] | None = None, **options: Any) -> None:
        self.metrics = metrics
        self.options = options

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the comparison into the directory of the multirun, and print it."""
        folder = Path(config.hydra.sweep.dir)
        try:
            report(compare([folder], **self.options), folder, self.metrics)
        except (ValueError, OSError) as error:
            log.warning("The runs of %s could not be compared: %s", folder, error)
