"""What the theory says of one loss, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from tglo_lightning.arguments import integer
from tglo_lightning.losses import ClassificationLoss, TaylorGLOLoss, as_loss
from tglo_lightning.losses.functional import order_of, terms
from tglo_lightning.theory.attraction_law import Equilibrium, equilibria, implied, zero_error
from tglo_lightning.theory.null_epoch import trainability
from tglo_lightning.theory.parameters import coefficients
from tglo_lightning.theory.shape import pull_of
from tglo_lightning.theory.subject import LossLike, theta_of

# What happens to samples that are learned by heart
VERDICTS = {
    "attracts": "held there",
    "repels": "pushed away: the loss regularises",
    "neutral": "neither held nor pushed",
}


@dataclass(frozen=True)
class Explanation:
    """Why a loss works, or does not; made by :func:`explain`.

    Attributes:
        formula: ``f(y, h)``; the loss is ``-sum_k f(y_k, h_k)``.
        num_classes: ``n``.
        label_smoothing: ``alpha`` that the loss applies to its labels.
        theta: parameters of a TaylorGLO loss, else ``None``.
        coefficients: coefficients of ``gamma = df/dh`` of a TaylorGLO loss, else ``None``.
        A, B, S, published, trainable, stable: at the null epoch, see :class:`Trainability`.
        null_pull: velocity of the true class's logit there, ``B (n - 1) / n^2``; cross-entropy: ``(n - 1) / n``.
        zero_error: ``D(0)``; may be infinite.
        verdict: ``"attracts"``, ``"repels"`` or ``"neutral"``: what zero training error does.
        equilibria: where samples settle.
        mean_pull, largest_pull, shape: relative to cross-entropy, see :class:`Pull`.
    """

    loss: ClassificationLoss
    name: str
    formula: str
    num_classes: int
    label_smoothing: float
    theta: list[float] | None
    coefficients: dict[str, float] | None
    A: float
    B: float
    S: float
    published: bool
    trainable: bool
    stable: bool
    null_pull: float
    zero_error: float
    verdict: str
    equilibria: list[Equilibrium]
    mean_pull: float
    largest_pull: float
    shape: tuple[float, float, float] | None

    @property
    def trains(self) -> str:
        """``"yes"`` (``stable``), ``"doubtful"`` (``trainable`` alone) or ``"no"``."""
        return "yes" if self.stable else "doubtful" if self.trainable else "no"

    @property
    def text(self) -> str:
        """The explanation as plain text, no line wider than 100 characters but that of a long formula."""
        parts = (self._loss_lines(), self._null_lines(), self._pull_lines(), self._attraction_lines())
        return "\n\n".join(map("\n".join, parts))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the loss itself, ready for JSON; an infinite number becomes ``"inf"`` or ``"-inf"``."""
        values: dict[str, Any] = {key: _plain(value) for key, value in vars(self).items() if key != "loss"}
        values["equilibria"] = [equilibrium._asdict() for equilibrium in self.equilibria]
        values["trains"] = self.trains
        return values

    def _loss_lines(self) -> list[str]:
        lines = [f"{self.name}, {self.num_classes} classes"]
        lines += [f"  f(y, h) = {self.formula}", "  loss = -sum_k f(y_k, h_k), h = softmax(logits)"]
        if self.label_smoothing:
            lines += [f"  labels smoothed by alpha = {self.label_smoothing:g}"]
        if self.theta is None or self.coefficients is None:
            return lines
        meaning = parameter_meanings(self.theta)
        lines += ["", "Parameters                             Coefficients of gamma = df/dh"]
        left = [f"{t:<4}{value:>12.5g}  {meaning[t]}" for t, value in zip(meaning, self.theta, strict=True)]
        right = [f"{name:<8}{value:>12.5g}" for name, value in self.coefficients.items()]
        rows = zip_longest(left, right, fillvalue="")
        return lines + [f"  {parameter:<37}{coefficient}".rstrip() for parameter, coefficient in rows]

    def _null_lines(self) -> list[str]:
        n = self.num_classes
        over, raises, useless = ">", "raises", ""
        if not self.trainable:
            over, raises, useless = "<=", "does not raise", ", so nothing can be learned"
        sign, drift = ("<=", "dies out") if self.S <= 0 else (">", "grows; the network may collapse")
        holds = "holds" if self.published else "fails"
        return [
            f"Null epoch (every output 1/{n})",
            f"  Trainable: {self.trains}",
            f"    B = {self.B:.4g} {over} 0: the first step {raises} the true class{useless}",
            f"    S = {self.S:.4g} {sign} 0: a drift of the output that all samples share {drift}",
            f"    A = {self.A:.4g}: the published invariant B >= (n - 2) A {holds}",
            f"  Pull on the true class's logit: {self.null_pull:.4g} (cross-entropy: {(n - 1) / n:.4g})",
        ]

    def _pull_lines(self) -> list[str]:
        n = self.num_classes
        normalised = "divided by it, the loss trains at cross-entropy's rate"
        if not 0 < self.mean_pull < math.inf:
            normalised = "the loss cannot be scaled to cross-entropy's rate"
        lines = [
            "Pull relative to cross-entropy's, r(h) = h D(1 - h), for h_T from 1/n to 1",
            f"  Mean {self.mean_pull:.4g}: {normalised}",
            f"  Largest {self.largest_pull:.4g}",
        ]
        if self.shape is not None:
            own, other = (", ".join(f"{t:.4g}" for t in shape) for shape in (self.shape, (2 / (n + 1), 1 / n, 1)))
            lines += [f"  Shape (D(eps_mid)/B, D(0)/B, -S/B) = ({own})", f"    (cross-entropy: ({other}))"]
        return lines

    def _attraction_lines(self) -> list[str]:
        lines = [
            "Zero training error (eps = 1 - h_T = 0)",
            f"  {self.verdict.capitalize()}: D(0) = {self.zero_error:.4g}, samples learned by heart are "
            f"{VERDICTS[self.verdict]}",
        ]
        if not self.equilibria:
            lines.append("  No stable equilibrium: confidence settles nowhere between 0 and 1")
        for eps, confidence, smoothing in self.equilibria:
            lines.append(
                f"  Equilibrium eps* = {eps:.4g}: confidence {confidence:.4g}, implied label smoothing {smoothing:.4g}"
            )
            if smoothing > 1:
                lines.append(f"    (below chance, 1/{self.num_classes}: there the true class is not the most likely)")
        return lines


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def parameter_meanings(theta: Sequence[float]) -> dict[str, str]:
    """What the parameters of a TaylorGLO loss stand for, by their names ``t0``, ``t1``, ...

    >>> parameter_meanings([0.0] * 5)
    {'t0': 'centre of y', 't1': 'centre of h', 't2': '(h-t1)', 't3': '(h-t1)^2', 't4': '(y-t0) (h-t1)'}
    """
    meaning = {"t0": "centre of y", "t1": "centre of h"}
    for i, powers in enumerate(terms(order_of(theta)), start=2):
        factors = zip(("(y-t0)", "(h-t1)"), powers, strict=True)
        meaning[f"t{i}"] = " ".join(base if power == 1 else f"{base}^{power}" for base, power in factors if power)
    return meaning


def explain(loss: LossLike, num_classes: int) -> Explanation:
    """Explain one loss: can it be trained, what does it do at zero training error, where do samples settle?

    :func:`tglo_lightning.reporting.pictures.explanation` draws it.

    Raises:
        TypeError: not a loss of the package, or one that is not separable.
        ValueError: a wrong number of parameters, more than one loss, or ``num_classes < 2``.

    >>> explanation = explain("baikal", 10)
    >>> explanation.trains, explanation.verdict, round(explanation.equilibria[0].confidence, 3)
    ('yes', 'repels', 0.316)
    """
    num_classes = integer("num_classes", num_classes, 2)
    module = as_loss(loss)
    theta = theta_of(module) if isinstance(module, TaylorGLOLoss) else None
    told, memorised = trainability(module, num_classes), zero_error(module, num_classes)
    null: dict[str, Any] = {k: v if isinstance(v, bool) else float(v) for k, v in told._asdict().items()}
    pull = pull_of(module, num_classes)
    assert isinstance(memorised.verdict, str)
    assert isinstance(module, ClassificationLoss)
    return Explanation(
        loss=module,
        name=module.name or type(module).__name__,
        formula=module.formula,
        num_classes=num_classes,
        label_smoothing=module.label_smoothing,
        theta=None if theta is None else theta.tolist(),
        coefficients=None if theta is None else {name: float(c) for name, c in coefficients(theta).items()},
        **null,
        null_pull=float(told.B) * (num_classes - 1) / num_classes**2,
        zero_error=float(memorised.value),
        verdict=memorised.verdict,
        equilibria=[implied(eps, num_classes) for eps in equilibria(module, num_classes)],
        mean_pull=pull.mean,
        largest_pull=pull.largest,
        shape=pull.shape,
    )
