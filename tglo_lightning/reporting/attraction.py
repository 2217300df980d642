"""What samples feel of a loss, epoch by epoch: measured, kept, saved and read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tglo_lightning.losses import SeparableLoss, TaylorGLOLoss
from tglo_lightning.theory import equilibria
from tglo_lightning.theory.learning_rule import flow
from tglo_lightning.untrusted import load_arrays, save_arrays

QUANTITIES = ("attraction", "gamma_T", "gamma_notT", "eps", "entropy", "entropy_rate")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def measure(loss: SeparableLoss, logits: Tensor, target: Tensor) -> Tensor:
    r"""What ``loss`` does to each sample, in float64 (float32 where the device has no float64).

    With :math:`h = \mathrm{softmax}(z)`, true class ``T`` and :math:`\gamma = df/dh` at the labels as the loss smooths
    them: the attraction :math:`h_T \sum_j h_j (\gamma_T - \gamma_j)`, :math:`\gamma_T`, the mean of
    :math:`\gamma_k` over the wrong classes, :math:`\epsilon = 1 - h_T`, the entropy :math:`-\sum_k h_k \log h_k` in
    nats and its rate on the logit flow. Class weights count in attraction and entropy rate, not in ``gamma``. Source:
    arXiv 2010.00788.

    Args:
        loss: a loss of the family.
        logits: shape ``(N, n)`` or ``(N, n, d1, ...)``; over the positions of a sample the mean is taken.
        target: class indices of shape ``(N,)`` or ``(N, d1, ...)``, or probabilities of the shape of the logits, whose
            true class is the most probable one.

    Returns:
        Tensor of shape ``(6, N)``, rows in the order of ``QUANTITIES``; NaN for a sample that the loss ignores.
    """
    z = logits.detach().movedim(1, -1).to(torch.float32 if logits.device.type == "mps" else torch.float64)
    found = flow(loss, z, target.movedim(1, -1) if target.is_floating_point() else target)
    index = found.label.unsqueeze(-1)
    rows = torch.stack(
        (
            found.attraction,
            found.slopes.gather(-1, index).squeeze(-1),
            found.slopes.scatter(-1, index, 0.0).sum(-1) / (z.shape[-1] - 1),
            -torch.expm1(found.log_h.gather(-1, index)).squeeze(-1),
            -(found.h * found.log_h).sum(-1),
            found.entropy_rate,
        )
    )
    if found.ignored is not None:
        rows = rows.masked_fill(found.ignored, torch.nan)
    return rows if rows.dim() == 2 else rows.flatten(2).nanmean(-1)


@dataclass
class AttractionRecord:
    """What ``N`` samples felt of the loss in use, measured ``E`` times.

    Attributes:
        index: position of each sample in the data set, int64 of shape ``(N,)``; -1 where it has none.
        target: true class of each sample, int64 of shape ``(N,)``; that of its first position where it has several.
        epochs, steps: epochs and optimizer steps before each measurement; 0 is the untrained network.
        losses: the loss in use at each measurement, as text.
        equilibria: stable equilibria ``eps*`` of that loss, in ascending order.
        values: for each measurement a float32 tensor of shape ``(6, N)``, rows in the order of ``QUANTITIES``.
    """

    index: Tensor
    target: Tensor
    num_classes: int
    epochs: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    equilibria: list[list[float]] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def append(self, epoch: int, step: int, loss: SeparableLoss, values: Tensor) -> None:
        """Add a measurement, ``values`` of :func:`measure`, in place of any of this epoch or a later one."""
        kept = sum(earlier < epoch for earlier in self.epochs)
        text = describe(loss)
        # Finding roots takes longer than measuring, and a loss seldom changes
        if text in self.losses:
            settles = self.equilibria[self.losses.index(text)]
        else:
            settles = equilibria(loss, self.num_classes)
        measured = values.detach().to("cpu", torch.float32)
        rows: tuple[list[Any], ...] = (self.epochs, self.steps, self.losses, self.equilibria, self.values)
        for row, entry in zip(rows, (epoch, step, text, settles, measured), strict=True):
            row[kept:] = [entry]

    def quantity(self, name: str) -> NDArray[np.float32]:
        """One of ``QUANTITIES``, float32 of shape ``(E, N)``."""
        if name not in QUANTITIES:
            raise ValueError(f"`name` must be one of {QUANTITIES}, got {name!r}.")
        row = QUANTITIES.index(name)
        if not self.values:
            return np.empty((0, len(self.index)), np.float32)
        return np.stack([values[row].numpy() for values in self.values])

    def scalars(self) -> dict[str, float]:
        """The last measurement in numbers.

        They are ``q05``, ``q25``, ``q50``, ``q75``, ``q95`` and ``mean`` of the attraction; ``repelled``, the share of
        samples with a negative one; and the medians of the other quantities, under their names.
        """
        last = self.values[-1].numpy()
        last = last[:, ~np.isnan(last[0])]
        if not last.size:
            return {}
        quantiles = np.quantile(last, QUANTILES, axis=1)
        scalars = {f"q{100 * q:02.0f}": value for q, value in zip(QUANTILES, quantiles[:, 0], strict=True)}
        scalars |= {"mean": last[0].mean(), "repelled": np.count_nonzero(last[0] < 0) / last.shape[1]}
        scalars |= dict(zip(QUANTITIES[1:], quantiles[QUANTILES.index(0.5), 1:], strict=True))
        return {name: float(value) for name, value in scalars.items()}

    def rows(self) -> tuple[list[str], list[list[float]]]:
        """The last measurement as names of columns and one row a sample.

        ``first_repelled`` is the first measured epoch at which the sample was pushed away from zero training error, or
        -1.
        """
        repelled = self.quantity("attraction") < 0
        first = np.where(repelled.any(0), np.asarray(self.epochs)[repelled.argmax(0)], -1)
        columns = [self.index.numpy(), self.target.numpy(), *self.values[-1].numpy(), first]
        rows = [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)]
        return ["sample", "target", *QUANTITIES, "first_repelled"], rows

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of the file that :meth:`save` writes.

        ``QUANTITIES``: float32 of shape ``(E, N)``. ``epoch``, ``step``, ``loss``: shape ``(E,)``. ``equilibria``:
        float64 of shape ``(E, M)``, rows filled up with NaN. ``index``, ``target``: shape ``(N,)``. ``num_classes``.
        """
        width = max(map(len, self.equilibria), default=0)
        padded = [roots + [np.nan] * (width - len(roots)) for roots in self.equilibria]
        return {name: self.quantity(name) for name in QUANTITIES} | {
            "epoch": np.asarray(self.epochs, np.int64),
            "step": np.asarray(self.steps, np.int64),
            "loss": np.asarray(self.losses, np.str_),
            "equilibria": np.asarray(padded, np.float64).reshape(len(padded), width),
            "index": self.index.numpy(),
            "target": self.target.numpy(),
            "num_classes": np.asarray(self.num_classes, np.int64),
        }

    def save(self, path: str | Path) -> Path:
        """Write the compressed ``.npz`` file of :meth:`arrays`; its folder is made if need be."""
        return save_arrays(path, self.arrays())

    @classmethod
    def load(cls, path: str | Path) -> AttractionRecord:
        """Read a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds something else.
        """
        try:
            return cls._from_arrays(load_arrays(path))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} is no file of AttractionMonitor: {error}") from error

    def state_dict(self) -> dict[str, Any]:
        """The arrays as tensors, and texts as lists, which a checkpoint keeps with ``weights_only=True``."""
        return {k: v.tolist() if v.dtype.kind == "U" else torch.from_numpy(v) for k, v in self.arrays().items()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> AttractionRecord:
        """The record of a :meth:`state_dict`."""
        return cls._from_arrays({name: np.asarray(value) for name, value in state.items()})

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> AttractionRecord:
        count, samples = len(arrays["epoch"]), len(arrays["index"])
        sizes = dict.fromkeys(QUANTITIES, (count, samples)) | {"target": (samples,), "step": (count,), "loss": (count,)}
        if any(arrays[name].shape != size for name, size in sizes.items()) or len(arrays["equilibria"]) != count:
            raise ValueError("the sizes of its arrays do not fit")
        return cls(
            index=torch.from_numpy(arrays["index"]),
            target=torch.from_numpy(arrays["target"]),
            num_classes=int(arrays["num_classes"]),
            epochs=arrays["epoch"].tolist(),
            steps=arrays["step"].tolist(),
            losses=arrays["loss"].tolist(),
            equilibria=[row[~np.isnan(row)].tolist() for row in arrays["equilibria"]],
            values=list(torch.from_numpy(np.stack([arrays[name] for name in QUANTITIES], axis=1))),
        )


def describe(loss: SeparableLoss) -> str:
    """A loss as text: its name, its ``f`` and what of its arguments changes where samples settle."""
    smoothing = f", label_smoothing={loss.label_smoothing:g}" if loss.label_smoothing else ""
    what = f"theta={loss.theta.tolist()}" if isinstance(loss, TaylorGLOLoss) else loss.formula
    return f"{loss.name}({what}{smoothing})"
