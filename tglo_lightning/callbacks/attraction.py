"""The callback that watches what the loss does to training samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from tglo_lightning.arguments import choice, integer
from tglo_lightning.callbacks.samples import random_batches
from tglo_lightning.evaluation.isolation import isolated
from tglo_lightning.losses import SeparableLoss, as_loss
from tglo_lightning.module import LossSlot, LossSlots
from tglo_lightning.module.bases import Callback
from tglo_lightning.module.capture import loss_inputs
from tglo_lightning.module.inline import OriginalCall
from tglo_lightning.module.loaders import generators
from tglo_lightning.module.preserving import preserved_module
from tglo_lightning.module.slot import InlineSlot
from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.attraction import AttractionRecord, measure
from tglo_lightning.reporting.loggers import Board, boards, draw
from tglo_lightning.search.seeding import seed_all


class AttractionMonitor(Callback):
    r"""Watches whether the loss pulls training samples to zero training error or pushes them away from it.

    Before the first epoch and after every ``every_n_epochs``-th the same random training samples are shown to the
    module in evaluation mode. For each sample its attraction, the velocity of the true class's logit under the loss
    in use (:math:`h_T \sum_j h_j (\gamma_T - \gamma_j)` with :math:`\gamma = df/dh`, positive: pulled in), and what
    goes with it, are kept in :attr:`record`, logged to every logger as ``attraction/*``, in numbers and, where it has
    them, histograms, and written to a compressed ``.npz`` file in the run's directory when the training ends, also when
    it ends early. At the end loggers get a picture of the samples over the epochs, and a table of them.
    A fit that resumes from a checkpoint goes on with the record of the checkpoint. A loss that
    :class:`~tglo_lightning.TaylorGLO` puts in is followed.

    The samples are drawn once, with ``seed``, from the data set of the training loader; from an iterable data set or
    several loaders come the first batches. They are read once and kept on the device, so random augmentation in the
    data set is drawn once and then stays fixed; batch-transfer hooks run once too, with ``trainer.training`` off. For
    samples without any augmentation give the datamodule or the module a method ``attraction_dataloader()`` that
    returns a loader of the training samples as they are, in batches of the form that ``training_step`` takes.

    The logits are those with which ``training_step`` calls the loss first; the step is left there. Model mode, random
    generators, gradients, buffers and metrics are put back, nothing is logged by the module meanwhile.

    A measurement is one pass over the samples without gradients: about ``samples / (3 N)`` of an epoch of ``N``
    training samples, and some two milliseconds. Where epochs are that short, raise ``every_n_epochs`` or lower
    ``samples``.

    Args:
        every_n_epochs: epochs between measurements, at least 1.
        samples: number of training samples, at least 1.
        loss: path of the module's attribute that holds the loss, such as ``"criterion"`` or ``"head.criterion"``; by
            default that of the ``TaylorGLO`` beside it (the first of several), else ``"criterion"``.
        through: how to get the logits: ``"training_step"`` runs it up to the loss; ``"forward"`` calls the module on
            the first element of a batch, the second being the target. The second is for a ``training_step`` that
            alters its inputs, as mixup does, or keeps something before it calls the loss.
        seed: of the draw of the samples.
        filename: name of the file in the run's directory, which is ``trainer.log_dir`` or else
            ``trainer.default_root_dir``.

    Attributes:
        record: the :class:`~tglo_lightning.reporting.attraction.AttractionRecord`, ``None`` before a training.
        path: the file that the training has written; ``None`` before its end.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range; at ``setup``, or after the search that
            finds it, a loss that is not of the family :math:`-\sum_k f(y_k, h_k)`.

    Source: arXiv 2010.00788 (attraction to zero training error), carried through the softmax.

    >>> AttractionMonitor(samples=200).state_key
    "AttractionMonitor{'loss': None, 'filename': 'attraction.npz'}"
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        samples: int = 500,
        *,
        loss: str | None = None,
        through: str = "training_step",
        seed: int = 0,
        filename: str = "attraction.npz",
    ) -> None:
        super().__init__()
        if not isinstance(filename, str) or Path(filename).name != filename or not filename.endswith(".npz"):
            raise ValueError(f"`filename` must be the name of an .npz file without a folder, got {filename!r}.")
        self.loss = loss
        self.slot = LossSlot("criterion" if loss is None else loss)
        self.every_n_epochs = integer("every_n_epochs", every_n_epochs, 1)
        self.samples = integer("samples", samples, 1)
        self.through = choice("through", through, ("training_step", "forward"))
        self.seed = integer("seed", seed, 0)
        self.filename = filename
        self.record: AttractionRecord | None = None
        self.path: Path | None = None
        self._idle = False
        self._batches: list[Any] = []
        self._boards: list[Board] = []

    # Lightning's hooks

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse a loss whose attraction cannot be told, unless a search is still to find which one it is."""
        if not self._follow(trainer) and stage == "fit":
            self._loss(pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Draw the samples and measure them, unless the record of a checkpoint has this epoch already."""
        self._follow(trainer)
        if trainer.global_step == 0:
            self.record = None
        self.path = None
        self._idle = self._unmeasurable(trainer, pl_module)
        if self._idle:
            return
        self._boards = boards(trainer)
        batches, values, index, target, num_classes = self._draw(trainer, pl_module)
        self._batches = batches
        before = self.record
        if before is not None and not (torch.equal(before.index, index) and torch.equal(before.target, target)):
            rank_zero_warn("AttractionMonitor: the training data differ from the checkpoint's; its record is left.")
            before = None
        self.record = before or AttractionRecord(index, target, num_classes)
        if trainer.current_epoch not in self.record.epochs:
            self._note(trainer, pl_module, trainer.current_epoch, values)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure, if it is time."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs == 0 and not self._idle:
            self._note(trainer, pl_module, epoch, self._measure(trainer, pl_module))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure a last time, write the file, draw the pictures."""
        if self._idle:
            return
        assert self.record is not None
        if trainer.current_epoch not in self.record.epochs:
            self._note(trainer, pl_module, trainer.current_epoch, self._measure(trainer, pl_module))
        self._save(trainer)
        columns, rows = self.record.rows()
        for board in self._boards:
            board.table("attraction/samples", columns, rows)
        record = self.record
        if self._boards:
            draw(self._boards, "attraction/scatter", lambda: pictures.attraction({"this training": record}))

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Write what there is."""
        if self.record is not None and self.record.epochs:
            self._save(trainer)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let go of the samples and the loggers."""
        self._batches, self._boards = [], []

    @property
    def state_key(self) -> str:
        """One state for each file."""
        return self._generate_state_key(loss=self.loss, filename=self.filename)

    def state_dict(self) -> dict[str, Any]:
        """The record, as tensors and plain values."""
        return {"record": None if self.record is None else self.record.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the record of a checkpoint."""
        if state_dict["record"] is not None:
            self.record = AttractionRecord.from_state_dict(state_dict["record"])

    # Measuring

    def _follow(self, trainer: Any) -> bool:
        """Watch the loss of the search beside this; return whether there is one that has not yet found its loss."""
        searches = [c for c in trainer.callbacks if isinstance(getattr(c, "slots", None), LossSlots)]
        if self.loss is not None or not searches:
            return False
        search: Any = searches[0]
        if search.loss and not search.loss[0].startswith("F."):
            self.slot = LossSlot(search.loss[0])
            return False
        self.slot = next(iter(search.slots), self.slot)
        return not len(search.slots)

    def _unmeasurable(self, trainer: Any, pl_module: Any) -> bool:
        """Whether a search beside this kept a loss whose attraction cannot be told; its fit goes on all the same."""
        if not any(isinstance(getattr(callback, "slots", None), LossSlots) for callback in trainer.callbacks):
            return False
        try:
            self._loss(pl_module)
        except ValueError as error:
            rank_zero_warn(f"AttractionMonitor measures nothing in this fit. {error}")
            return True
        return False

    def _loss(self, pl_module: Any) -> SeparableLoss:
        try:
            present = self.slot.get(pl_module)
        except ValueError as error:
            raise ValueError(f"AttractionMonitor: {error}") from None
        try:
            return separable(present)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`loss={self.slot.path!r}`: AttractionMonitor cannot tell the attraction of "
                f"{type(pl_module).__name__}.{self.slot.path}, a {self.slot.name(pl_module)}: it is no loss of the "
                "family -sum_k f(y_k, h_k). Use torch.nn.CrossEntropyLoss or a loss of tglo_lightning.losses, or write "
                "yours as a SeparableLoss."
            ) from error

    def _draw(self, trainer: Any, pl_module: Any) -> tuple[list[Any], Tensor, Tensor, Tensor, int]:
        """The batches, what they measure now, and index and true class of their samples."""
        owners = [owner for owner in (trainer.datamodule, pl_module) if hasattr(owner, "attraction_dataloader")]
        loaders = owners[0].attraction_dataloader() if owners else trainer.train_dataloader
        batches, values, indices, targets, count, num_classes = [], [], [], [], 0, 0
        with _apart(trainer, pl_module, generators(loaders)):
            seed_all(self.seed)
            for raw, index in random_batches(loaders, self.samples, self.seed):
                batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(raw))
                logits, target = self._logits(trainer, pl_module, batch)
                batches.append(batch)
                values.append(measure(self._loss(pl_module), logits, target))
                size, num_classes = logits.shape[:2]
                indices.append(torch.full((size,), -1) if index is None else index)
                targets.append(true_classes(logits, target).cpu())
                count += size
                if count >= self.samples:
                    break
        if not batches:
            raise ValueError("AttractionMonitor found no training samples: the training loader is empty.")
        kept = slice(self.samples)
        return batches, torch.cat(values, 1)[:, kept], torch.cat(indices)[kept], torch.cat(targets)[kept], num_classes

    def _measure(self, trainer: Any, pl_module: Any) -> Tensor:
        loss = self._loss(pl_module)
        with _apart(trainer, pl_module):
            values = [measure(loss, *self._logits(trainer, pl_module, batch)) for batch in self._batches]
        return torch.cat(values, 1)[:, : self.samples]

    def _logits(self, trainer: Any, pl_module: Any, batch: Any) -> tuple[Tensor, Tensor]:
        with trainer.precision_plugin.forward_context():
            if self.through == "forward":
                return pl_module(batch[0]), batch[1]
            loss = self.slot.get(pl_module)
            # A function that no loss has replaced
            place = self.slot.attribute if isinstance(self.slot, InlineSlot) else ""
            bare = place and place not in pl_module._modules
            if bare:
                self.slot.set(pl_module, loss)
            try:
                return loss_inputs(pl_module, loss, batch)
            finally:
                if bare:
                    del pl_module._modules[place]

    def _note(self, trainer: Any, pl_module: Any, epoch: int, values: Tensor) -> None:
        assert self.record is not None
        self.record.append(epoch, trainer.global_step, self._loss(pl_module), values)
        metrics = {f"attraction/{name}": value for name, value in self.record.scalars().items()}
        pulls = self.record.values[-1][0].numpy()
        pulls = pulls[np.isfinite(pulls)]
        for board in self._boards:
            board.log(metrics, "attraction/epoch", epoch, trainer.global_step)
            if pulls.size:
                board.histogram("attraction/histogram", pulls, "attraction/epoch", epoch, trainer.global_step)

    def _save(self, trainer: Any) -> None:
        # Asked for on every rank: the ranks agree on it together
        directory = trainer.log_dir or trainer.default_root_dir
        if self.record is not None and trainer.is_global_zero and not trainer.fast_dev_run:
            self.path = Path(directory) / self.filename
            self.record.save(self.path)


@contextmanager
def _apart(trainer: Any, pl_module: Any, own: Sequence[Any] = ()) -> Iterator[None]:
    """Run the module aside from its training, and leave nothing of it behind."""
    stage = trainer.state.stage
    with isolated(own, quiet=False), preserved_module(pl_module), torch.no_grad():
        # Where a module or a transfer hook asks, this is no training
        trainer.validating = True
        try:
            yield
        finally:
            trainer.state.stage = stage


def separable(loss: Any) -> SeparableLoss:
    """A loss of a module, or the function that it calls, as one of the family.

    Raises:
        TypeError, ValueError: it is none.
    """
    if isinstance(loss, OriginalCall) and loss.function == "cross_entropy":
        loss = nn.CrossEntropyLoss(**loss.options)
    loss = as_loss(loss)
    if not isinstance(loss, SeparableLoss):
        raise TypeError(loss)
    return loss


def true_classes(logits: Tensor, target: Tensor) -> Tensor:
    """True class of each sample, int64 of shape ``(N,)``; of its first position where it has several."""
    classes = target.argmax(1) if target.is_floating_point() else target
    return classes.reshape(len(logits), -1)[:, 0].long()
