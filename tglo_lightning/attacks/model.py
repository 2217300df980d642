"""The network as an attack meets it: pixels in, logits out, every pass counted."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tglo_lightning.evaluation.isolation import isolated
from tglo_lightning.losses.registry import kind_of, one_hot
from tglo_lightning.module.preserving import preserved_module
from tglo_lightning.module.slot import LossSlot

LOSSES = ("own", "cross_entropy", "margin")


@dataclass
class Passes:
    """Passes through a network, in single images.

    Attributes:
        forward: images that went forward.
        backward: images whose gradient was computed.
        zero_gradients: of these, images whose gradient is exactly zero, or not finite, in all pixels.
    """

    forward: int = 0
    backward: int = 0
    zero_gradients: int = 0


class AttackedModel(nn.Module):
    """Wraps a network for attacks, in units of pixels.

    Args:
        module: its ``forward(x)`` returns logits of shape ``(N, n)`` for images ``(N, C, H, W)``. A warning is issued
            if it is in training mode: Dropout and BatchNorm act then, and an attack meets another network each time.
        bounds: least and greatest value of a pixel.
        normalize: mean and standard deviation, a number or one a channel, in units of pixels. They are applied here,
            behind the attack, so that its epsilon stays in units of pixels.
        loss: path of the attribute of ``module`` that holds its own loss; looked up when the loss ``"own"`` is asked
            for, and called with ``(logits, labels)``.

    Attributes:
        passes: what the network has had to compute so far.
    """

    passes: Passes

    def __init__(
        self,
        module: nn.Module,
        *,
        bounds: tuple[float, float] = (0.0, 1.0),
        normalize: tuple[Any, Any] | None = None,
        loss: str = "criterion",
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise TypeError(f"`module` must be a torch.nn.Module, got {type(module).__name__}.")
        if module.training:
            warnings.warn(
                f"{type(module).__name__} is in training mode: call .eval() before it is attacked.", stacklevel=2
            )
        self.module = module
        self.training = module.training
        self.bounds = check_bounds(bounds)
        self.slot = LossSlot(loss)
        self.passes = Passes()
        # A module without parameters stays on the device of its images
        like = next(module.parameters(), torch.empty(0))
        self.device, self.dtype = like.device, like.dtype
        self._normalize = None if normalize is None else self._constants(normalize)

    def _constants(self, normalize: Any) -> tuple[Tensor, Tensor]:
        try:
            mean, std = (torch.as_tensor(v, dtype=self.dtype, device=self.device).reshape(-1, 1, 1) for v in normalize)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"`normalize` must be (mean, std), each a number or one a channel: {error}") from error
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise ValueError(f"`normalize` must be a finite mean and a std above 0, got {normalize!r}.")
        return mean, std

    def pixels(self, x: Tensor) -> Tensor:
        """Undo the normalisation: images as the network takes them, to pixels."""
        if self._normalize is None:
            return x
        # Rounding must not push a black pixel out of the bounds
        (mean, std), (low, high) = self._normalize, self.bounds
        pixels = x * std + mean
        near = 1e-5 * (high - low)
        pixels = torch.where((pixels < low) & (pixels > low - near), low, pixels)
        return torch.where((pixels > high) & (pixels < high + near), high, pixels)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape ``(N, n)`` for images ``(N, C, H, W)`` in pixels."""
        self.passes.forward += len(x)
        graded = torch.is_grad_enabled() and x.requires_grad
        if graded:
            # A node of its own: its hook sees the gradient of these images, whoever asks for it
            x = x.view_as(x)
            x.register_hook(self._count)
        logits = self.module(x if self._normalize is None else (x - self._normalize[0]) / self._normalize[1])
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] < 2:
            got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(
                f"{type(self.module).__name__}.forward must return logits of shape (N, n), n at least 2, for images "
                f"{tuple(x.shape)}; got {got}."
            )
        if graded and not logits.requires_grad:
            # Cut off from its input, as by an integer in between: the gradient is zero, not an error
            logits = logits + 0.0 * x.flatten(1).sum(1, keepdim=True)
        return logits

    def _count(self, gradient: Tensor) -> Tensor:
        # Not a number has no direction: an attack would leave the images with it
        gradient = torch.nan_to_num(gradient, 0.0, 0.0, 0.0)
        self.passes.backward += len(gradient)
        self.passes.zero_gradients += int((gradient.flatten(1) == 0).all(1).sum())
        return gradient

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Classes, int64 of shape ``(N,)``; -1 where a logit is not a number."""
        logits = self(x)
        return logits.argmax(1).masked_fill(torch.isnan(logits).any(1), -1)

    def loss(self, name: str, logits: Tensor, labels: Tensor) -> Tensor:
        r"""What a gradient attack increases: a scalar, the sum over images.

        Args:
            name: ``"own"``: the module's own loss; where that takes a mean, times ``N``; of binary targets or numbers,
                against one-hot labels. ``"cross_entropy"``.
                ``"margin"``: :math:`\max_{k \ne y} z_k - z_y` (arXiv 1608.04644), which no softmax saturates.
            logits: shape ``(N, n)``.
            labels: true classes, int64 of shape ``(N,)``.
        """
        if name == "own":
            loss = self.slot.get(self.module)
            values = loss(logits, one_hot(labels, logits) if kind_of(loss) in ("binary", "regression") else labels)
            return values.sum() if values.dim() else values * len(labels)
        if name == "cross_entropy":
            return F.cross_entropy(logits, labels, reduction="sum")
        if name == "margin":
            true = logits.gather(1, labels[:, None]).squeeze(1)
            others = logits.scatter(1, labels[:, None], -torch.inf)
            return (others.amax(1) - true).sum()
        raise ValueError(f"`name` must be one of {LOSSES}, got {name!r}.")

    def check(self, x: Tensor, labels: Tensor, classes: int | None = None) -> None:
        """Reject what are no floating images ``(N, C, H, W)`` within the bounds, with class indices ``(N,)``."""
        if not isinstance(x, Tensor) or not isinstance(labels, Tensor):
            raise TypeError(f"Images and labels must be tensors, got {type(x).__name__} and {type(labels).__name__}.")
        if x.dim() != 4 or not x.is_floating_point():
            raise ValueError(
                f"Attacks need floating images of shape (N, C, H, W), got {x.dtype} of shape {tuple(x.shape)}."
            )
        if labels.shape != x.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(
                f"Labels must be class indices of shape ({len(x)},), got {labels.dtype} of shape {tuple(labels.shape)}."
            )
        if not len(x):
            return
        low, high = (float(v) for v in x.aminmax())
        if not self.bounds[0] <= low <= high <= self.bounds[1]:
            raise ValueError(
                f"Pixels must lie in bounds={self.bounds}, got values from {low:.4g} to {high:.4g}. Epsilon is in "
                "units of pixels: give images before normalisation and normalize=(mean, std); or, where the data come "
                "normalised, normalized_data=True as well."
            )
        least, greatest = (int(v) for v in labels.aminmax())
        if least < 0 or (classes is not None and greatest >= classes):
            up_to = "" if classes is None else f" to {classes - 1}"
            raise ValueError(f"Labels must be class indices from 0{up_to}, got values from {least} to {greatest}.")


def check_bounds(bounds: Sequence[float]) -> tuple[float, float]:
    """``(low, high)`` as floats; a ``ValueError`` if these are not two finite numbers in ascending order."""
    try:
        low, high = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        raise ValueError(f"`bounds` must be (low, high), got {bounds!r}.") from None
    if not -float("inf") < low < high < float("inf"):
        raise ValueError(f"`bounds` must be (low, high) with low < high, got {bounds!r}.")
    return low, high


@contextmanager
def attackable(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, gradients for inputs only; ``module`` and the random states come back as they were."""
    # Validation of Lightning runs in inference mode, which records nothing to differentiate
    with isolated(quiet=False), torch.inference_mode(False), torch.enable_grad(), preserved_module(module):
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        yield
