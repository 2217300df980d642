r"""Losses that are a sum over classes of a scalar function of label and prediction."""

import torch
from torch import Tensor
from typing_extensions import Self

from tglo_lightning.losses.classification import ClassificationLoss, labelled, without_masked


class SeparableLoss(ClassificationLoss, abstract=True):
    r"""Base of the losses :math:`L = -\sum_k f(y_k, h_k)` with :math:`h = \mathrm{softmax}(z)`.

    A subclass says what ``f`` is, by :meth:`elementwise`. :mod:`tglo_lightning.theory` explains it from its derivative
    :meth:`gamma`. Arguments, shapes and errors are those of :class:`ClassificationLoss`.
    """

    def elementwise(self, y: Tensor | float, h: Tensor, log_h: Tensor) -> Tensor:
        """``f(y, h)`` where the logarithm of ``h`` is already known, which stays exact where ``h`` underflows."""
        raise NotImplementedError

    def f(self, y: Tensor | float, h: Tensor) -> Tensor:
        """The scalar function behind the loss, elementwise, for labels that broadcast with predictions in [0, 1]."""
        return self.elementwise(y, h, torch.log(h))

    def gamma(self, y: Tensor | float, h: Tensor) -> Tensor:
        """``df/dh``, elementwise: all that is specific to the loss in the learning rule (arXiv 2010.00788)."""
        y, h = torch.broadcast_tensors(torch.as_tensor(y, dtype=h.dtype, device=h.device), h)
        return torch.func.grad(lambda prediction: self.f(y, prediction).sum())(h)

    def for_classes(self, num_classes: int) -> Self:
        """The loss for ``num_classes`` classes: itself, unless its ``f`` depends on their number."""
        return self

    def terms(self, logits: Tensor, y: Tensor) -> Tensor:
        """``-f(y, h)``."""
        log_h = logits.log_softmax(dim=1)
        return -self.elementwise(y, log_h.exp(), log_h)

    def indexed(self, logits: Tensor, target: Tensor) -> Tensor:
        """Losses of shape ``(N, ...)`` for logits ``(N, n, ...)`` and class indices, unweighted, without one-hot."""
        on, off = self.label_values(logits.shape[1], logits.dtype)
        log_h = logits.log_softmax(dim=1)
        others = without_masked(self.elementwise(off, log_h.exp(), log_h), logits == -torch.inf)
        index = target.unsqueeze(1)
        log_hit = log_h.gather(1, index)
        hit = self.elementwise(on, log_hit.exp(), log_hit) - others.gather(1, index)
        return -(others.sum(dim=1) + hit.squeeze(1))

    def extra_repr(self) -> str:
        """``f(y, h)`` and the arguments that are not the defaults."""
        return f"f(y, h) = {super().extra_repr()}"


class LinearLoss(SeparableLoss, abstract=True):
    """Base of the separable losses that are linear in the label, ``f(y, h) = y g(h)``.

    With a hard label such a loss looks at the output of the true class alone. A subclass says what ``g`` is.
    """

    def g(self, h: Tensor, log_h: Tensor) -> Tensor:
        """``g(h)`` where the logarithm of ``h`` is already known."""
        raise NotImplementedError

    def elementwise(self, y: Tensor | float, h: Tensor, log_h: Tensor) -> Tensor:
        """``y g(h)``, zero where the label is zero however small ``h`` is."""
        return labelled(y, self.g(h, log_h))

    def indexed(self, logits: Tensor, target: Tensor) -> Tensor:
        """Losses of shape ``(N, ...)`` for logits ``(N, n, ...)`` and class indices, unweighted."""
        log_h = logits.log_softmax(dim=1)
        log_hit = log_h.gather(1, target.unsqueeze(1)).squeeze(1)
        hit = self.g(log_hit.exp(), log_hit)
        if not self.smooths:
            return -hit
        on, off = self.label_values(logits.shape[1], logits.dtype)
        every = without_masked(self.g(log_h.exp(), log_h), logits == -torch.inf)
        return -((on - off) * hit + off * every.sum(dim=1))
