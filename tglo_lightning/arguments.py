"""Check arguments, by their names: one of a wrong kind is a ``TypeError``, one out of range a ``ValueError``."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def integer(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """``value`` as an int, from ``least`` to ``most`` where these are given; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"`{name}` must be an int, got {value!r}.")
    value = int(value)
    if (least is not None and value < least) or (most is not None and value > most):
        wanted = f"from {least} to {most}" if most is not None else f"at least {least}"
        raise ValueError(f"`{name}` must be {wanted}, got {value}.")
    return value


def number(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> float:
    """``value`` as a finite float, within the bounds that are given; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"`{name}` must be a number, got {value!r}.")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not (least <= found <= most and above < found < below):
        low, high = max(least, above), min(most, below)
        wanted = f"{'above' if above >= least else 'at least'} {low:g} and finite" if math.isfinite(low) else "finite"
        if math.isfinite(high):
            wanted = f"in {'(' if above >= least else '['}{low:g}, {high:g}{')' if below <= most else ']'}"
        raise ValueError(f"`{name}` must be {wanted}, got {value}.")
    return found


def choice(name: str, value: Any, among: Sequence[str], otherwise: str = "") -> str:
    """``value``, one of the words ``among``; ``otherwise`` says in the message what else could have been given.

    Whatever is none of them is a ``ValueError``, as of torch's own losses.
    """
    if not isinstance(value, str) or value not in among:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, among))}{otherwise}, got {value!r}.")
    return value


def flag(name: str, value: Any) -> bool:
    """``value``, which is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False, got {value!r}.")
    return value


def optional(check: Callable[..., T], name: str, value: Any, *args: Any, **kwargs: Any) -> T | None:
    """``None``, or what ``check`` returns for ``value``."""
    return None if value is None else check(name, value, *args, **kwargs)


def entries(name: str, value: Any, wanted: str, kind: Any = object, least: int = 0) -> list[Any]:
    """``value`` as a list of at least ``least`` entries of a kind; a ``TypeError`` says what is ``wanted`` instead."""
    if type(value).__module__.startswith("omegaconf."):
        from omegaconf import OmegaConf

        # A ListConfig holds dataclasses taken apart; this puts them together
        value = OmegaConf.to_object(value)
    listed = isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) >= least
    if not listed or not all(isinstance(entry, kind) for entry in value):
        raise TypeError(f"`{name}` must be {wanted}, got {value!r}.")
    return list(value)


def sizes(name: str, value: Any) -> tuple[int, ...]:
    """``value`` as a tuple of ints, of at least 1 each."""
    listed = entries(name, value, "a sequence of ints")
    return tuple(integer(f"{name}[{i}]", size, 1) for i, size in enumerate(listed))


def tensor_of(name: str, value: Any, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
    """``value`` as a tensor; a ``TypeError`` if it is not made of numbers."""
    try:
        return torch.as_tensor(value, dtype=dtype, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"`{name}` must be a tensor or numbers, got {value!r}.") from error
