"""A given TaylorGLO loss, however the config or the command line names it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tglo_lightning.arguments import tensor_of
from tglo_lightning.losses import TaylorGLOLoss, published_theta
from tglo_lightning.losses.functional import order_of, theta_tensor
from tglo_lightning.search import Criterion
from tglo_lightning.untrusted import load_json

__all__ = ["given_loss", "read_json", "theta_of_result"]


def given_loss(theta: str | Sequence[float], *, order: int | None = None, **options: Any) -> TaylorGLOLoss:
    """Return the loss that `theta` stands for; the target of `conf/loss/taylorglo.yaml`.

    Args:
        theta: numbers; a name of `published_theta`, such as `"mnist_published"`; or the path of a `result.json`, for
            the best metalearned loss in it.
        order: of the polynomial; by default that which `theta` has.
        options: of the loss, such as `label_smoothing`.

    Raises:
        TypeError: `theta` is not made of numbers.
        ValueError: no such name or file, or a `theta` of a wrong length or with numbers that are not finite.
    """
    if isinstance(theta, str):
        theta = theta_of_result(Path(theta)) if theta.endswith(".json") else published_theta(theta)
    numbers = tensor_of("theta", theta, torch.float64)
    return TaylorGLOLoss(numbers, order=order_of(theta_tensor(numbers)) if order is None else order, **options)


def theta_of_result(path: Path) -> list[float]:
    """Return the parameters of the best metalearned loss in a `result.json` or `search.json`.

    Raises:
        ValueError: no such file, not JSON, or without such a loss.
    """
    result = read_json(path)
    try:
        found = result["best"] if "best" in result else result["losses"]["metalearned"]
        [loss] = Criterion.from_dict(found["criterion"]).losses
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} has no metalearned loss, or several.") from None
    if (family := loss.family) != TaylorGLOLoss.family:
        raise ValueError(f"{path} has a loss of the family {family!r}; pass loss={family} and its parameters.")
    return list(loss.theta)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        ValueError: there is no such file, or it holds none.
    """
    try:
        return dict(load_json(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}.") from None
