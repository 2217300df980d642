"""Hydra callbacks: what is drawn or compared when jobs of `tglo-train` end."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from tglo_lightning.cli.compare import report
from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.attraction import AttractionRecord
from tglo_lightning.reporting.comparison import compare

log = logging.getLogger(__name__)


class AttractionFigure(Callback):
    """Draws what `AttractionMonitor` recorded in the first fresh training of each loss, same seed and budget.

    Args:
        filename: of the picture, in the run's directory; its suffix chooses the format.
    """

    def __init__(self, filename: str = "attraction.png") -> None:
        self.filename = filename

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Draw the picture of a completed run."""
        if job_return.status is not JobStatus.COMPLETED:
            return
        directory = Path(config.paths.output_dir)
        losses = json.loads((directory / "result.json").read_text())["losses"]
        records = {
            f"{kind}: {loss['name']}": AttractionRecord.load(file)
            for kind, loss in losses.items()
            for file in sorted((directory / "seeds" / f"{kind}-0").glob("*.npz"))[:1]
        }
        try:
            if records:
                print(pictures.save(pictures.attraction(records), directory / self.filename))
        except ImportError as error:
            log.warning("No picture of the attraction. %s", error)


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
