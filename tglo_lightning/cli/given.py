"""A given TaylorGLO loss, however the config or the command line names it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tglo_lightning.arguments import number
from tglo_lightning.losses import SeparableLoss, SmoothedCrossEntropyLoss, TaylorGLOLoss, published_theta
from tglo_lightning.losses.functional import num_parameters, order_of
from tglo_lightning.wording import counted

__all__ = ["given_loss", "read_json", "theta_of_result"]


def given_loss(theta: str | Sequence[float], *, order: int | None = None, **options: Any) -> SeparableLoss:
    """The loss that `theta` stands for; the target of `conf/loss/taylorglo.yaml`.

    Args:
        theta: numbers; a name of `published_theta`, such as `"mnist_published"`; or the `result.json` of a search, in
            which the best metalearned loss is meant. Two numbers make a `SmoothedCrossEntropyLoss`.
        order: of the polynomial; that which `theta` has, unless given.
        options: of the loss, such as `label_smoothing`.

    Raises:
        TypeError: `theta` is not made of numbers.
        ValueError: no such name or file, or a `theta` of a wrong length or with numbers that are not finite.
    """
    if isinstance(theta, str):
        theta = theta_of_result(Path(theta)) if theta.endswith(".json") else published_theta(theta)
    if not isinstance(theta, Sequence):
        raise TypeError(f"`theta` must be numbers, a name or a result.json, got {theta!r}.")
    theta = [number(f"theta[{i}]", value) for i, value in enumerate(theta)]
    _check_length(theta)
    if len(theta) == 2:
        if options.pop("label_smoothing", 0.0):
            raise ValueError("label_smoothing must be 0 where `theta` is a factor and a smoothing of its own")
        return SmoothedCrossEntropyLoss(theta, **options)
    return TaylorGLOLoss(theta, order=order_of(theta) if order is None else order, **options)


def _check_length(theta: Sequence[float]) -> None:
    known = {num_parameters(n): n for n in range(2, 7)}
    if len(theta) in known or len(theta) > max(known):
        return
    lengths = ", ".join(f"{length} (order {n})" for length, n in known.items())
    taylor = f"a TaylorGLO loss has {lengths}, ... numbers: 2 centres, then order * (order + 1) / 2 coefficients"
    if len(theta) != 2:
        raise ValueError(f"`theta` has {counted(len(theta), 'number')}; {taylor}")
    factor, smoothing = theta
    if not (factor > 0 and 0 <= smoothing <= 1):
        raise ValueError(
            f"`theta` has 2 numbers, which make a cross-entropy with a factor above 0 and a label smoothing from 0 to "
            f"1, and {list(theta)} is no such pair; {taylor}"
        )


def theta_of_result(path: Path) -> list[float]:
    """The parameters of the best metalearned loss in the `result.json` of a run, or the `search.json` of a search.

    Raises:
        ValueError: no such file, not JSON, or without such a loss.
    """
    if not path.is_file():
        raise ValueError(f"`theta` names a file that is not there: {path}")
    result = read_json(path)
    try:
        found = result["best"] if "best" in result else result["losses"]["metalearned"]
        return [float(value) for value in found["theta"]]
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{path} tells of no metalearned loss: it has neither losses.metalearned.theta nor best.theta."
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        ValueError: it holds none.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no JSON object.")
    return values
