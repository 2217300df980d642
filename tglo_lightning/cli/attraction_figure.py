"""The figure that sets the attraction of both losses side by side when `tglo-train` is done."""

import json
import logging
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.attraction import AttractionRecord

log = logging.getLogger(__name__)


class AttractionFigure(Callback):
    """Draws what `AttractionMonitor` saw in the first fresh training of each loss, same seed and budget.

    Args:
        filename: of the picture, in the run's directory; its suffix chooses the format.
    """

    def __init__(self, filename: str = "attraction.png") -> None:
        self.filename = filename

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Draw the picture of a run that came to its end."""
        if job_return.status is not JobStatus.COMPLETED:
            return
        directory = Path(config.paths.output_dir)
        losses = json.loads((directory / "result.json").read_text())["losses"]
        records = {}
        for kind, loss in losses.items():
            files = sorted((directory / "seeds" / f"{kind}-0").glob("*.npz"))
            if files:
                records[f"{kind}: {loss['name']}"] = AttractionRecord.load(files[0])
        if not records:
            return
        try:
            path = pictures.save(pictures.attraction(records), directory / self.filename)
        except ImportError as error:
            log.warning("No picture of the attraction. %s", error)
        else:
            print(path)
