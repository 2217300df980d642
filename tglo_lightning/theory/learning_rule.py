"""How a loss moves the logits of one sample.

One step of gradient descent is ``w <- w + lr * sum_k gamma_k * dh_k/dw`` with ``gamma_k = df(y_k, h_k)/dh_k``: all
that is specific to a loss. Source: Gonzalez and Miikkulainen, *Effective Regularization Through Loss-Function
Metalearning* (arXiv 2010.00788), carried through the softmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tglo_lightning.arguments import tensor_of
from tglo_lightning.losses.functional import inspectable
from tglo_lightning.theory.subject import LossLike, Subject, floating, subject

Labels = Tensor | Sequence[int] | int
Numbers = Tensor | Sequence[float]


def gamma(loss: LossLike, h: Numbers | float, y: Numbers | float) -> Tensor:
    """``df(y, h)/dh``, elementwise, for labels that no smoothing is applied to, of the broadcast shape ``(..., n)``.

    ``2 (y - h)`` for the squared error, ``y / h`` for cross-entropy, ``1/h + y/h^2`` for Baikal.

    Args:
        loss: a loss, its name, or ``theta`` of shape ``(..., P)``, which broadcasts against ``h``.
        h: predictions, shape ``(..., n)``, or one number.
        y: labels, shape ``(..., n)``, or one number.
    """
    seen = subject(loss)
    prediction, label = torch.broadcast_tensors(*_with_theta(seen, h=h, y=y))
    if seen.theta is None or prediction.dim():
        return seen.gamma(label, prediction)
    return seen.gamma(label[None], prediction[None])[..., 0]


def logit_velocity(loss: LossLike, logits: Numbers, target: Labels) -> Tensor:
    """Velocity of the logits under gradient flow: the negative gradient of a sample's loss, before any reduction.

    ``v_k = h_k (gamma_k - sum_j gamma_j h_j)``, and ``sum_k v_k = 0``. For cross-entropy ``v = y - h``.
    Label smoothing and class weights count as in the loss; a sample whose target is ``ignore_index`` does not move.

    Args:
        loss: a loss, its name, or ``theta`` of shape ``(..., P)``, which broadcasts against ``logits``.
        logits: shape ``(..., n)``, the classes last.
        target: class indices of shape ``(...)`` if of an integer type, class probabilities of shape ``(..., n)`` if
            floating.

    Returns:
        Tensor of the broadcast shape ``(..., n)``.

    Raises:
        ValueError: a class index outside ``0 .. n - 1``, or probabilities of another shape than the logits.
    """
    return flow(loss, logits, target).velocity


def attraction(loss: LossLike, logits: Numbers, target: Labels) -> Tensor:
    """Velocity of the true class's logit: above 0 it pulls the sample to zero training error, below it pushes away.

    ``v_T = h_T sum_j h_j (gamma_T - gamma_j)``. For cross-entropy ``1 - h_T``, always a pull. With soft targets the
    true class is the most probable one.

    The arguments are those of :func:`logit_velocity`; the result has shape ``(...)``.
    """
    return flow(loss, logits, target).attraction


def entropy_rate(loss: LossLike, logits: Numbers, target: Labels) -> Tensor:
    """Rate of the output's entropy ``H = -sum_k h_k log h_k`` (nats) on the logit flow ``dz/dt = v``.

    ``dH/dt = -sum_k h_k (v_k - sum_j h_j v_j) log h_k``. Negative: the output grows more confident. Classes that are
    masked, by a logit of minus infinity, have no part.

    The arguments are those of :func:`logit_velocity`; the result has shape ``(...)``.
    """
    return flow(loss, logits, target).entropy_rate


class Flow(NamedTuple):
    """What a loss does to the logits of samples, with ``...`` for their dimensions.

    Attributes:
        slopes: ``gamma`` of every class, shape ``(..., n)``, without class weights.
        gamma: the same as it moves the logits: with class weights, 0 for a sample that the loss ignores.
        h, log_h: the outputs, shape ``(..., n)``; the logarithm is 0 for a class that is masked.
        label: the true class, shape ``(...)``.
        ignored: samples that the loss ignores, bool of shape ``(...)``, or ``None``.
    """

    slopes: Tensor
    gamma: Tensor
    h: Tensor
    log_h: Tensor
    label: Tensor
    ignored: Tensor | None

    @property
    def velocity(self) -> Tensor:
        """See :func:`logit_velocity`."""
        return self.h * (self.gamma - (self.gamma * self.h).sum(-1, keepdim=True))

    @property
    def attraction(self) -> Tensor:
        """See :func:`attraction`."""
        index = self.label.expand(self.gamma.shape[:-1])[..., None]
        # Pairwise, so that the sign survives where h_T rounds to 1 and the difference of two sums would be noise
        pull = self.h * (self.gamma.gather(-1, index) - self.gamma)
        return (self.h.expand(self.gamma.shape).gather(-1, index) * pull.sum(-1, keepdim=True))[..., 0]

    @property
    def entropy_rate(self) -> Tensor:
        """See :func:`entropy_rate`."""
        change = self.h * (self.velocity - (self.h * self.velocity).sum(-1, keepdim=True))
        return -(change * self.log_h).sum(-1)


def _with_theta(seen: Subject, **values: Numbers | float) -> list[Tensor]:
    """The values in one floating type that is no narrower than that of ``theta``."""
    return floating(**values) if seen.theta is None else floating(**values, theta=seen.theta[..., :1].detach())[:-1]


def flow(loss: LossLike, logits: Numbers, target: Labels) -> Flow:
    """Return what a loss does to the logits of samples; arguments and errors are those of :func:`logit_velocity`."""
    logits = logits if isinstance(logits, Tensor) else tensor_of("logits", logits, torch.float64)
    seen = subject(loss, logits.shape[-1] if logits.dim() else 0)
    (z,) = _with_theta(seen, logits=logits)
    if z.dim() == 0 or z.shape[-1] < 2:
        raise ValueError(f"`logits` must have shape (..., n) with n >= 2 classes last, got {tuple(z.shape)}.")
    target = tensor_of("target", target, device=z.device)
    if target.is_complex():
        raise TypeError(f"`target` must hold class indices or probabilities, got a tensor of {target.dtype}.")
    n = z.shape[-1]
    ignored = None
    if target.is_floating_point():
        if target.dim() == 0 or target.shape[-1] != n:
            raise ValueError(
                f"`target` of a floating type holds class probabilities of shape (..., {n}), got shape "
                f"{tuple(target.shape)}; class indices must be of an integer type."
            )
        y, index = target.to(z), target.argmax(-1)
    else:
        if seen.ignore_index is not None:
            ignored = target == seen.ignore_index
        index = target.long() if ignored is None else torch.where(ignored, 0, target.long())
        if inspectable(index) and index.numel() and not 0 <= int(index.min()) <= int(index.max()) < n:
            got = f"{int(index.min())} to {int(index.max())}"
            raise ValueError(f"`target` must hold class indices in 0 .. {n - 1}, as `logits` have {n}, got {got}.")
        # F.one_hot looks at values, which vmap does not allow
        y = (index[..., None] == torch.arange(n, device=z.device)).to(z)
    try:
        torch.broadcast_shapes(target.shape, z.shape if target.is_floating_point() else z.shape[:-1])
    except RuntimeError as error:
        raise ValueError(f"`target` of shape {tuple(target.shape)} does not fit `logits` {tuple(z.shape)}.") from error
    masked = (z == -torch.inf) & (y == 0)
    y = (1 - seen.label_smoothing) * y + seen.label_smoothing / n
    log_h = z.log_softmax(-1)
    # h = 0 would make cross-entropy's h * gamma 0 * infinity; nor must h^2 vanish, for Baikal
    h = log_h.exp().clamp(min=2 * torch.finfo(z.dtype).tiny ** 0.5)
    slopes = gamma = seen.gamma(y, h)
    if seen.weight is not None:
        # As the loss weighs: what the label brings by class, the rest by the sample
        weight, unlabelled = seen.weight.to(z), seen.gamma(torch.zeros_like(y), h)
        gamma = weight * (gamma - unlabelled) + (weight * y).sum(-1, keepdim=True) * unlabelled
    gamma, h = torch.where(masked, 0.0, gamma), torch.where(masked, 0.0, h)
    if ignored is not None:
        gamma = torch.where(ignored[..., None], 0.0, gamma)
    return Flow(slopes, gamma, h, log_h.masked_fill(log_h == -torch.inf, 0.0), index, ignored)
