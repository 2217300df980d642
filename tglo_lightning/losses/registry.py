"""From names, vectors and torch's own modules to losses of the package, and back into a user's module."""

from collections.abc import Iterable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tglo_lightning.losses.cross_entropy import CrossEntropyLoss
from tglo_lightning.losses.family import FAMILIES
from tglo_lightning.losses.family import family as find_family
from tglo_lightning.losses.functional import order_of, theta_tensor
from tglo_lightning.losses.loss import FamilyLoss
from tglo_lightning.losses.published import PUBLISHED_NAMES, published_theta
from tglo_lightning.losses.taylorglo import TaylorGLOLoss

# Where losses of one's own keep class weights
CLASS_WEIGHTS = ("weights", "class_weights", "class_weight", "alpha")
# Of torch's losses and ours
DEFAULTS = {"weight": None, "pos_weight": None, "ignore_index": -100, "reduction": "mean", "label_smoothing": 0.0}
# Losses of torch that can be replaced, by the kind of their target
REPLACEABLE: dict[str, tuple[type[nn.Module], ...]] = {
    "classes": (nn.CrossEntropyLoss, nn.NLLLoss),
    "binary": (nn.BCEWithLogitsLoss, nn.BCELoss),
    "regression": (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss),
}
KINDS = {
    "classes": ("cross_entropy", "nll_loss"),
    "binary": ("binary_cross_entropy_with_logits", "binary_cross_entropy"),
    "regression": ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"),
}
FUNCTIONS: dict[str, Any] = {name: getattr(F, name) for names in KINDS.values() for name in names}
"""Functions of :mod:`torch.nn.functional` that can be replaced where they are called, by name."""
OTHER_FUNCTIONS = [value for name, value in vars(F).items() if name.endswith(("loss", "cross_entropy", "with_logits"))]


def as_loss(loss: nn.Module | Tensor | Sequence[float] | str) -> FamilyLoss:
    """Return the loss of the package that ``loss`` stands for.

    It may be one already, a :class:`torch.nn.CrossEntropyLoss`, a ``theta`` of a TaylorGLO loss, of shape ``(P,)``, the
    name of a family for its default parameters, or a name of :func:`~tglo_lightning.losses.published_theta`.

    Raises:
        TypeError: a module that is neither.
        ValueError: an unknown name, or a ``theta`` of a wrong length.
    """
    if isinstance(loss, FamilyLoss):
        return loss
    if isinstance(loss, nn.CrossEntropyLoss):
        options = {name: getattr(loss, name) for name in CrossEntropyLoss.inherited}
        return CrossEntropyLoss(label_smoothing=loss.label_smoothing, **options)
    if isinstance(loss, str):
        if loss in FAMILIES:
            return FAMILIES[loss]()
        if loss not in PUBLISHED_NAMES:
            raise ValueError(f"Unknown loss {loss!r}; known: {', '.join([*sorted(FAMILIES), *PUBLISHED_NAMES])}.")
        loss = published_theta(loss)
    if isinstance(loss, nn.Module):
        raise TypeError(
            f"{type(loss).__name__} is not a loss of a known family; expected a FamilyLoss, "
            "torch.nn.CrossEntropyLoss, a theta or a name."
        )
    theta = theta_tensor(loss)
    return TaylorGLOLoss(theta, order=order_of(theta))


def loss_like(original: object, family: str | type[FamilyLoss], theta: Sequence[float], **options: Any) -> FamilyLoss:
    """Build the loss of ``family`` with parameters ``theta`` that takes the place of ``original``.

    It has the weights, ``ignore_index``, reduction and device of ``original``: a module, a function or a partial.
    Label smoothing is not taken over: the criterion alone says what the loss does. ``options`` are what the family
    needs besides, such as ``priors``.

    Raises:
        ValueError: an unknown family, or parameters that it rejects.
    """
    kind = find_family(family) if isinstance(family, str) else family
    options = {**_given(original, kind.inherited), **options}
    for name, value in options.items():
        options[name] = value.detach().clone() if isinstance(value, Tensor) else value
    if kind.kind == "binary" and _function_of(original) in ("binary_cross_entropy", "BCELoss"):
        options["probabilities"] = True
    try:
        loss = kind.of(theta, **options)
    except (TypeError, ValueError) as error:
        inherited = ", ".join(name for name in kind.inherited if name in options)
        if not inherited:
            raise
        raise ValueError(f"{kind.__name__} in place of {loss_name(original)}, with its {inherited}: {error}") from None
    device = next((value.device for value in options.values() if isinstance(value, Tensor)), None)
    return loss if device is None else loss.to(device)


def kind_of(loss: object) -> str | None:
    """The kind of target of a loss, ``None`` for one of the user's own.

    >>> kind_of(nn.BCEWithLogitsLoss()), kind_of(F.l1_loss)
    ('binary', 'regression')
    """
    if isinstance(loss, FamilyLoss):
        return loss.kind
    function = _function_of(loss)
    return next((k for k, modules in REPLACEABLE.items() if isinstance(loss, modules) or function in KINDS[k]), None)


def one_hot(labels: Tensor, like: Tensor) -> Tensor:
    """Class indices ``(N,)`` as labels 0 and 1 of the shape ``(N, n)`` and type of ``like``, also under ``vmap``."""
    return (labels.unsqueeze(1) == torch.arange(like.shape[1], device=labels.device)).to(like.dtype)


def _function_of(loss: object) -> str:
    """Name of the function, or of the class, that a loss is."""
    function = loss.func if isinstance(loss, partial) else loss
    name = next((name for name, known in FUNCTIONS.items() if known is function), None)
    return name or str(getattr(loss, "function", type(loss).__name__))


def loss_name(loss: Any) -> str:
    """What a loss, a module or a function or a partial of one, is called."""
    function = loss.func if isinstance(loss, partial) else loss
    if isinstance(getattr(loss, "function", None), str):  # a call of a function, see `module.inline`
        return str(loss.function)
    return type(loss).__name__ if isinstance(loss, nn.Module) else getattr(function, "__name__", repr(loss))


def loss_options(loss: object) -> dict[str, Any]:
    """The options of a loss that are not the defaults, as plain values: what its parameters do not tell.

    Those that :func:`loss_like` takes over, and ``label_smoothing``, which it leaves.

    >>> loss_options(nn.CrossEntropyLoss(ignore_index=255))
    {'ignore_index': 255}
    """
    given = _given(loss, DEFAULTS).items()
    plain = {name: value.tolist() if isinstance(value, Tensor) else value for name, value in given}
    return {n: v for n, v in plain.items() if v != DEFAULTS[n] and isinstance(v, int | float | str | list)}


def check_replaceable(loss: Any, where: str) -> None:
    """Check that a loss of the package can take the place of ``loss``, as far as can be told without calling it.

    Raises:
        ValueError: it cannot be called, or is another loss of torch; ``where`` says where it was found.
    """
    if not callable(loss):
        what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        raise ValueError(f"{where} is {what}, not a loss.")
    function = loss.func if isinstance(loss, partial) else loss
    # Losses of one's own derive from torch's base classes, too
    torchs = isinstance(loss, nn.modules.loss._Loss) and type(loss).__module__.startswith("torch.")
    known = torchs or function in OTHER_FUNCTIONS
    if known and kind_of(loss) is None:
        names = ", ".join(module.__name__ for modules in REPLACEABLE.values() for module in modules)
        raise ValueError(f"{where} is {loss_name(loss)}. TaylorGLO replaces {names}, and losses of your own.")


def _given(loss: object, names: Iterable[str]) -> dict[str, Any]:
    """Those of the options called ``names`` that a loss has; a partial has them as keywords.

    ``None`` is left out for the default. A parameter is no option: what is trained are the weights of a layer, not of
    classes. Losses of one's own have class weights under other names, too.
    """
    owner = SimpleNamespace(**loss.keywords) if isinstance(loss, partial) else loss
    found = {name: getattr(owner, name, None) for name in names}
    if "ignore_index" in found and found["weight"] is None:
        others = (getattr(owner, name, None) for name in CLASS_WEIGHTS)
        found["weight"] = next((value for value in others if _is_vector(value)), None)
    if not isinstance(found.get("weight"), Tensor) and _is_vector(found.get("weight")):
        found["weight"] = torch.as_tensor(found["weight"], dtype=torch.float32)
    return {name: value for name, value in found.items() if value is not None and not isinstance(value, nn.Parameter)}


def _is_vector(value: Any) -> bool:
    """Whether these are several numbers in a row."""
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim == 1 and len(value) > 1 and not isinstance(value, nn.Parameter)
    return isinstance(value, list | tuple) and len(value) > 1 and all(isinstance(entry, int | float) for entry in value)
