"""Loggers of Lightning: the same numbers, histograms, pictures, tables, texts and files in each, as far as it has them.

W&B and TensorBoard group panels by what stands before the ``/`` of a name: ``search/``, ``attraction/``, ``train/``.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_warn

from tglo_lightning.reporting import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 64


class Board:
    """A logger that has no more than numbers, such as Lightning's CSV logger: the rest become files in its directory.

    Args:
        logger: a logger of either Lightning namespace.
    """

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def log(self, metrics: Mapping[str, float], axis: str, value: int, step: int) -> None:
        """Log numbers by name at ``value`` of their own ``axis``, at ``step`` where a logger has but one axis."""
        self.logger.log_metrics({**metrics, axis: value}, step=step)

    def histogram(self, name: str, values: NDArray[Any], axis: str, value: int, step: int) -> None:
        """Log the distribution of finite values, where a logger shows such a thing; see :meth:`log`."""

    def outcome(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log what is known once: numbers as numbers, the rest as text."""
        self.logger.log_metrics({k: v for k, v in values.items() if isinstance(v, int | float)}, step=step)
        words = {name: value for name, value in values.items() if isinstance(value, str)}
        if words:
            prefix = next(iter(words)).partition("/")[0]
            self.text(f"{prefix}/outcome", "\n".join(f"{name}: {value}" for name, value in words.items()))
        self.logger.save()

    def arguments(self, values: Mapping[str, Any]) -> None:
        """Log the arguments of a callback, beside those of the module."""
        self.logger.log_hyperparams({"tglo": dict(values)})

    def picture(self, name: str, figure: Figure) -> None:
        """Show a picture."""
        self._file(f"{name}.png", lambda path: pictures.save(figure, path))

    def text(self, name: str, words: str) -> None:
        """Show a text."""
        self._file(f"{name}.txt", lambda path: path.write_text(f"{words}\n", encoding="utf-8"))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], scatter: str = "") -> None:
        """Show a table; ``scatter``: and a picture of this column over the first, if the logger draws it itself."""

        def write(path: Path) -> None:
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([columns, *rows])

        self._file(f"{name}.csv", write)

    def files(self, name: str, kind: str, paths: Iterable[Path]) -> None:
        """Keep files of the run; a logger on this disk needs no copy."""

    def _file(self, name: str, write: Callable[[Path], Any]) -> None:
        folder = getattr(self.logger, "log_dir", None) or self.logger.save_dir
        if folder is not None and "://" not in str(folder):
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)


class WandbBoard(Board):
    """A W&B run."""

    def __init__(self, logger: Any) -> None:
        super().__init__(logger)
        self.run = logger.experiment
        self._defined: set[str] = set()

    def log(self, metrics: Mapping[str, Any], axis: str, value: int, step: int) -> None:
        """See :meth:`Board.log`; each metric has ``axis`` as its x axis."""
        self._define(axis, "", fleeting=True)
        for name in metrics:
            self._define(name, axis, fleeting="/theta_" in name or name.endswith("/step"))
        self.run.log({**metrics, axis: value})

    def histogram(self, name: str, values: NDArray[Any], axis: str, value: int, step: int) -> None:
        """See :meth:`Board.histogram`; its bins stay out of the summary."""
        import wandb

        for part in ("", "._type", ".bins", ".values"):
            self._define(name + part, axis, fleeting=True)
        self.run.log({name: wandb.Histogram(values.tolist(), num_bins=BINS), axis: value})

    def _define(self, name: str, axis: str, *, fleeting: bool) -> None:
        """Give a metric its axis, by its plain name: a glob would compete with Lightning's own."""
        if name not in self._defined:
            own: dict[str, Any] = {"step_metric": axis} if axis else {"hidden": True}
            self.run.define_metric(name, **own, **({"summary": "none"} if fleeting else {}))
            self._defined.add(name)

    def outcome(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """See :meth:`Board.outcome`; all of it goes into the summary, where runs are compared."""
        self.run.summary.update(dict(values))

    def picture(self, name: str, figure: Figure) -> None:
        """See :meth:`Board.picture`."""
        import wandb

        self.run.log({name: wandb.Image(pictures.pixels(figure), caption=str(figure.get_label()))})

    def text(self, name: str, words: str) -> None:
        """See :meth:`Board.text`."""
        self.run.summary[name] = words

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], scatter: str = "") -> None:
        """See :meth:`Board.table`."""
        import wandb

        table: Any = wandb.Table(columns=[*columns], data=[[*row] for row in rows])
        if scatter:  # logs the table too, as NAME_table
            table = wandb.plot.scatter(table, columns[0], scatter, title=f"{scatter} by {columns[0]}")
        self.run.log({name: table})

    def files(self, name: str, kind: str, paths: Iterable[Path]) -> None:
        """See :meth:`Board.files`; an artifact of the run."""
        import wandb

        artifact = wandb.Artifact(f"{name}-{self.run.id}", type=kind)
        for path in paths:
            artifact.add_file(str(path))
        self.run.log_artifact(artifact)


class TensorBoardBoard(Board):
    """A TensorBoard writer; tables become files beside its events."""

    def histogram(self, name: str, values: NDArray[Any], axis: str, value: int, step: int) -> None:
        """See :meth:`Board.histogram`."""
        self.logger.experiment.add_histogram(name, values, step)

    def picture(self, name: str, figure: Figure) -> None:
        """See :meth:`Board.picture`."""
        self.logger.experiment.add_image(name, pictures.pixels(figure)[..., :3], dataformats="HWC")

    def text(self, name: str, words: str) -> None:
        """See :meth:`Board.text`."""
        self.logger.experiment.add_text(name, words)


class MLflowBoard(Board):
    """An MLflow run: what is no number becomes an artifact."""

    def files(self, name: str, kind: str, paths: Iterable[Path]) -> None:
        """See :meth:`Board.files`."""
        for path in paths:
            self.logger.experiment.log_artifact(self.logger.run_id, str(path), name)

    def _file(self, name: str, write: Callable[[Path], Any]) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            write(path)
            self.logger.experiment.log_artifact(self.logger.run_id, str(path), str(Path(name).parent))


KINDS = {"define_metric": WandbBoard, "add_histogram": TensorBoardBoard, "log_artifact": MLflowBoard}


def boards(trainer: Any) -> list[Board]:
    """Return a board for each logger of a Trainer; none on other ranks than the first, or with ``fast_dev_run``."""
    return [board(logger) for logger in trainer.loggers] if trainer.is_global_zero and not trainer.fast_dev_run else []


def board(logger: Any) -> Board:
    """Return the board of a logger, known by what its ``experiment`` can do."""
    experiment = getattr(logger, "experiment", None)
    kind = next((kind for method, kind in KINDS.items() if hasattr(experiment, method)), Board)
    return kind(logger)


def draw(shown: Sequence[Board], name: str, picture: Callable[[], Figure]) -> Figure | None:
    """Draw a picture for boards and return it; without matplotlib a warning says what to install."""
    try:
        figure = picture()
    except ImportError as error:
        rank_zero_warn(f"No pictures in the loggers. {error}")
        return None
    for each in shown:
        each.picture(name, figure)
    return figure
