"""The loss that a search found as a few lines of PyTorch."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tglo_lightning.losses import BinaryLoss, ClassificationLoss, FamilyLoss, as_loss, family, loss_like
from tglo_lightning.search.result import SearchResult
from tglo_lightning.untrusted import write_whole

HEAD = '''"""{about}"""

import math

import torch
import torch.nn.functional as F
'''
FUNCTION = '''

def {name}({output}, target):
    """{formula}

    {shapes}
    """
    z = {output} if {output}.dtype == torch.float64 else {output}.float()
{body}'''
# What the function takes, and what precedes the formula, by the kind of the target
KINDS = {
    "classes": (
        "logits",
        "Logits (N, n, ...); target: class indices (N, ...) or probabilities (N, n, ...).",
        [
            "n, hard = z.shape[1], not target.is_floating_point()",
            "y = F.one_hot(target.clamp(0, n - 1), n).movedim(-1, 1).to(z) if hard else target.to(z)",
            "masked = (z == -torch.inf) & (y == 0)",
            "log_h = z.log_softmax(1)",
            "h = log_h.exp()",
        ],
    ),
    "binary": (
        "logits",
        "Logits of any shape; target: labels in [0, 1], of the same shape.",
        [
            "y, h, m = target.to(z), torch.sigmoid(z), torch.sigmoid(-z)",
            "log_h, log_m = F.logsigmoid(z), F.logsigmoid(-z)",
        ],
    ),
    "regression": ("output", "Output and target of one shape, or of shapes that broadcast.", ["x = z - target.to(z)"]),
}


def export_loss(
    result: SearchResult | FamilyLoss, path: str | PathLike[str] | None = None, name: str = "metalearned_loss"
) -> str:
    """Write the loss that a search kept as a function of PyTorch, which needs nothing of this package.

    The function takes outputs and targets and computes what the loss does, to rounding. It has the weights,
    ``ignore_index`` and reduction of the loss that was replaced. The factor on the learning rate stands in its comment.

    Args:
        result: the result of a search, or a loss.
        path: file to write the source code to, which is also returned.
        name: name of the function; of further losses with ``_2``, ``_3``, ... behind it.

    Raises:
        OSError: the file cannot be written.
        ValueError: the original loss was kept and is none that is known; a family that has no ``expression``; a name
            that is none of Python.

    >>> from tglo_lightning.losses import MAELoss
    >>> "f = y * (h - 1)" in export_loss(MAELoss())
    True
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"`name` must be the name of a function, got {name!r}.")
    step: float = 1.0
    if isinstance(result, SearchResult):
        step, losses = result.criterion.step, _losses(result)
    elif isinstance(result, FamilyLoss):
        losses = [result]
    else:
        raise TypeError(f"`result` must be the result of a search or a loss, got {type(result).__name__}.")
    about = "A loss that tglo-lightning found." if step == 1 else f"Train with {step:.4g} times the learning rate."
    code = HEAD.format(about=about)
    for number, loss in enumerate(losses, start=1):
        try:
            expression = loss.expression
        except NotImplementedError:
            raise ValueError(f"{type(loss).__name__} has no `python`, its formula as a Python expression.") from None
        output, shapes, lines = KINDS[loss.kind]
        if isinstance(loss, BinaryLoss) and loss.probabilities:
            shapes = shapes.replace("Logits", "Probabilities")
            lines = ["z = torch.logit(z, eps=torch.finfo(z.dtype).eps)", *lines]
        lines = lines + ["tiny = torch.finfo(z.dtype).tiny"] * ("tiny" in expression)
        lines += _classes(loss, expression) if isinstance(loss, ClassificationLoss) else _outputs(loss, expression)
        body = "".join(f"    {line}\n" if line else "\n" for line in lines)
        own = name if number == 1 else f"{name}_{number}"
        code += FUNCTION.format(name=own, output=output, shapes=shapes, formula=loss.formula, body=body)
    for module, line in (("math.", "import math\n\n"), ("F.", "import torch.nn.functional as F\n")):
        if module not in code:
            code = code.replace(line, "")
    if path is not None:
        write_whole(Path(path), code)
    return code


def _losses(result: SearchResult) -> list[FamilyLoss]:
    """What a search kept, with the options of the losses that were replaced."""
    options: list[dict[str, Any]] = result.settings.get("original_options") or [{}]
    tensors: list[dict[str, Any]] = [
        {k: torch.tensor(v) if k in ("weight", "pos_weight") else v for k, v in given.items()} for given in options
    ]
    specs = result.criterion.losses
    if specs:
        tensors += [{} for _ in specs[len(tensors) :]]
        names = result.original.name.split(", ")
        for place, (spec, given) in enumerate(zip(specs, tensors, strict=False)):
            given.pop("label_smoothing", None)  # the criterion alone says what the loss does
            name = names[min(place, len(names) - 1)]
            if family(spec.family).kind == "binary" and name in ("BCELoss", "binary_cross_entropy"):
                given["probabilities"] = True
        return [loss_like(None, s.family, s.theta, **o) for s, o in zip(specs, tensors, strict=False)]
    if result.original.name not in ("CrossEntropyLoss", "cross_entropy"):
        raise ValueError(f"The search kept the original loss, {result.original.name}, which is yours already.")
    return [as_loss(nn.CrossEntropyLoss(**given)) for given in tensors]


def _classes(loss: ClassificationLoss, expression: str) -> list[str]:
    lines = []
    if loss.smooths:
        alpha = float(loss.alpha(torch.float64))
        lines.append(f"y = {1 - alpha} * y + {alpha} / n")
    weights = loss.class_weights
    if weights is None:
        lines += [f"f = {expression}", "terms = torch.where(masked & ~f.isfinite(), 0.0, -f)"]
        counts = "kept.sum()"
    else:
        # As in the loss: what the label brings counts by the weight of its class, the rest by that of the sample
        lines += [
            f"weight = torch.tensor({weights.tolist()}, dtype=torch.float64).to(z)",
            "w = weight.view(-1, *[1] * (z.dim() - 2))",
            "",
            "def f(y):",
            f"    values = {expression}",
            "    return torch.where(masked & ~values.isfinite(), 0.0, -values)",
            "",
            "rest = f(torch.zeros_like(y))",
            "terms = w * (f(y) - rest) + (w * y).sum(1, keepdim=True) * rest",
        ]
        counts = "weight[target[kept]].sum()"
    lines.append("losses = terms.sum(1)")
    if loss.reduction == "mean":
        lines += [
            "if hard:",
            f"    kept = target != {loss.ignore_index}",
            f"    return losses[kept].sum() / {counts}",
            "return losses.mean()",
        ]
    else:
        end = ".sum()" if loss.reduction == "sum" else ""
        lines.append(f"return (torch.where(target != {loss.ignore_index}, losses, 0.0) if hard else losses){end}")
    return lines


def _outputs(loss: FamilyLoss, expression: str) -> list[str]:
    lines, mean = [f"values = {expression}"], "values.mean()"
    for name, buffer in loss.named_buffers():
        if name == "theta":
            continue
        lines.append(f"{name} = torch.tensor({buffer.tolist()}, dtype=torch.float64).to(z)")
        lines.append(f"values = values * {name if name == 'weight' else '(1 + (pos_weight - 1) * y)'}")
        if loss.kind == "regression":
            mean = "values.sum() / weight.expand_as(values).sum()"
    ends = {"mean": mean, "sum": "values.sum()", "none": "values"}
    return [*lines, f"return {ends[loss.reduction]}"]
