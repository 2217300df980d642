"""What is known of losses of binary targets and of numbers: their slopes beside those of cross-entropy and MSE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tglo_lightning.losses import BinaryLoss, PointwiseLoss

RIGHT = (0.01, 0.1, 0.5, 0.9, 0.99)
SIZES = (0.01, 0.1, 1.0, 10.0, 100.0)
LOGITS = torch.linspace(-15, 15, 6001, dtype=torch.float64)


def relative_slope(loss: PointwiseLoss, output: Tensor, target: Tensor) -> Tensor:
    r"""How strongly a loss pulls an output to its target, relative to a common loss; weights are left out.

    For a logit the other loss is cross-entropy, whose slope is :math:`h - y`, for a number MSE, whose slope is
    :math:`2 x` at the residual ``x``. 1 is as strong; a negative value pushes away.

    Args:
        loss: a loss of binary targets or a regression loss.
        output: logits, or numbers, of any shape; not equal to the target.
        target: labels 0 and 1, or numbers, of the same shape.

    Returns:
        Tensor of the same shape.
    """
    slope = torch.func.grad(lambda values: loss.values(values, target).sum())(output)
    return slope / (output.sigmoid() - target if isinstance(loss, BinaryLoss) else 2 * (output - target))


def explain_pointwise(loss: PointwiseLoss) -> str:
    """Explain a loss of binary targets or a regression loss, as plain text.

    For binary targets: can an undecided output be trained, how strongly are targets pulled, where do outputs settle?
    For numbers: how much does a residual count? What the theory of classes says besides has no counterpart.
    """
    lines = _of_labels(loss) if isinstance(loss, BinaryLoss) else _of_numbers(loss)
    return "\n".join([f"{loss.name}, {loss.kind} targets", f"  loss = {loss.formula}", "", *lines])


def _of_labels(loss: BinaryLoss) -> list[str]:
    lines = ["Pull relative to cross-entropy's, at the probability p of the target, p = sigmoid(logit) or 1 less it"]
    lines.append(_row("p", RIGHT))
    right, trainable, settled = torch.logit(torch.tensor(RIGHT, dtype=torch.float64)), True, []
    for name, sign in (("positive", 1), ("negative", -1)):
        label = torch.full_like(LOGITS, (1 + sign) / 2)
        row = relative_slope(loss, sign * right, label[: len(right)]).tolist()
        lines.append(_row(name, row))
        trainable = trainable and row[RIGHT.index(0.5)] > 0
        pull = relative_slope(loss, sign * LOGITS, label)
        falls = LOGITS[1:][(pull[:-1] > 0) & (pull[1:] < 0)]
        settled += [f"  A {name} target settles at p = {p:.4g}" for p in falls.sigmoid().tolist()]
    return [
        *lines,
        f"  Trainable: {'yes' if trainable else 'no'}, by the pull on an undecided output, p = 1/2",
        *(settled or ["  No equilibrium: outputs settle nowhere between 0 and 1"]),
        "",
        "Not available for binary targets: what averages over classes (S, the shape), a picture.",
    ]


def _of_numbers(loss: PointwiseLoss) -> list[str]:
    x = torch.tensor(SIZES, dtype=torch.float64)
    return [
        "Weight of a residual x relative to MSE's, L'(x) / (2 x)",
        _row("x", SIZES),
        _row("weight", relative_slope(loss, x, torch.zeros_like(x)).tolist()),
        "",
        "Not available for numbers: whether it is trainable, equilibria, the shape, a picture.",
    ]


def _row(name: str, values: Sequence[float]) -> str:
    return f"  {name:<9}" + "".join(f"{value:>10.4g}" for value in values)
