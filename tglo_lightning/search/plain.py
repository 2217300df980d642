"""Dataclasses as plain values, for JSON and checkpoints, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from typing_extensions import Self

from tglo_lightning.untrusted import check_shape

hints_of = cache(get_type_hints)


class Plain:
    """A dataclass that can be written down as plain values."""

    def to_dict(self) -> dict[str, Any]:
        """Return lists, dicts, strings and numbers; ``None`` in place of a number that is not finite."""
        return {name: to_plain(value) for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the object that :meth:`to_dict` described; other keys are left out.

        Raises:
            ValueError: it is none.
        """
        found: Self = from_plain(cls, values)
        return found


def to_plain(value: Any) -> Any:
    """Return lists, dicts, strings and numbers; ``None`` in place of a number that is not finite."""
    if isinstance(value, Plain):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: to_plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    # numpy's numbers would not survive `torch.load(weights_only=True)`
    number = int(value) if isinstance(value, Integral) else float(value)
    return number if math.isfinite(number) else None


def from_plain(kind: Any, value: Any, name: str = "it") -> Any:
    """Build what is annotated as ``kind``; a ``float`` that is ``None`` becomes NaN, a list a tuple."""
    if kind is float:
        if not isinstance(value, float):
            check_shape(value, (int, None), name)
        elif not math.isfinite(value):
            raise ValueError(f"{name} is {value}")
        return math.nan if value is None else value
    if isinstance(kind, UnionType):
        return None if value is None else from_plain(get_args(kind)[0], value, name)
    if get_origin(kind) is tuple:
        check_shape(value, list, name)
        return tuple(from_plain(get_args(kind)[0], entry, f"{name}[{i}]"[:80]) for i, entry in enumerate(value))
    if not is_dataclass(kind):
        check_shape(value, get_origin(kind) or kind, name)
        return value
    build: Any = kind
    hints, own = hints_of(build), [field.name for field in fields(kind)]
    check_shape(value, dict, name)
    for key in own:
        if key not in value:
            raise ValueError(f"{name} has no {key!r}")
    return build(**{key: from_plain(hints[key], value[key], f"{name}.{key}"[:80]) for key in own})
