"""Refuse arguments of a wrong kind, by their names. What is out of range is for the caller to say."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_ints", "check_numbers", "check_sizes", "tensor_of"]


def check_ints(**values: Any) -> None:
    """Raise a ``TypeError`` unless all are integers."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(f"`{name}` must be an int, got {value!r}.")


def check_numbers(**values: Any) -> None:
    """Raise a ``TypeError`` unless all are real numbers."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"`{name}` must be a number, got {value!r}.")


def check_sizes(**values: Any) -> None:
    """Raise an error unless all are sequences of integers of at least 1."""
    for name, value in values.items():
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise TypeError(f"`{name}` must be a sequence of ints, got {value!r}.")
        for size in value:
            if isinstance(size, bool) or not isinstance(size, Integral):
                raise TypeError(f"`{name}` must hold ints, got {value!r}.")
            if size < 1:
                raise ValueError(f"{name} must hold sizes of at least 1, got {list(value)}")


def tensor_of(name: str, value: Any, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
    """``value`` as a tensor; a ``TypeError`` if it is not made of numbers."""
    try:
        return torch.as_tensor(value, dtype=dtype, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"`{name}` must be a tensor or numbers, got {value!r}.") from error
