"""The code that functions and classes lead to: equal for the same script started again, different for another one."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import sys
import tempfile
from argparse import Namespace
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import Enum
from pathlib import PurePath
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tglo_lightning.search.code import (
    INSTALLED,
    LIBRARY,
    OWN,
    assigned,
    bytecode,
    digest,
    members,
    name_of,
    owner,
    referred,
    version_of,
)

MEGABYTE = 2**20
# Bytes of a tensor that are hashed, the same when many have been, and how many are many
LARGEST, LATER, MANY = 64 * MEGABYTE, MEGABYTE, 1024 * MEGABYTE
BLOCK = 64 * 1024
# Objects, and functions and classes, that are looked at
OBJECTS, CODE = 100_000, 3000
# A longer list is looked at only in part once there are too many objects
PART = 1000
SHOWN = 60
CHANGING = re.compile(
    rf"{re.escape(tempfile.gettempdir())}\S*|20\d\d[-_.]?[01]\d[-_.]?[0-3]\d|[0-2]\d[-_:.][0-5]\d[-_:.][0-5]\d"
    r"|version_\d+|0x[0-9a-f]{6,}"
)


def code_of(*roots: Any) -> dict[str, str]:
    """Return what some functions, classes or objects of such classes lead to, as hashes by name.

    Followed are functions and classes that are not of a library: what they call, their defaults, and the numbers,
    strings, tuples, tensors and arrays that they read from outside. What lists, dicts and other objects hold does not
    count, for a function may fill them, nor does a name that the function itself assigns.
    """
    walker = Walker()
    for root in roots:
        walker.value(root)
    return walker.code()


class Walker:
    """Describes values by short strings, and follows them to the code that they lead to.

    Args:
        exact: whether times and temporary directories within strings count too.

    Attributes:
        left_out: what was too much to be looked at, in words.
        bytes: how many were hashed.
        contents: hashes of the tensors, arrays and long lists that were met.
    """

    def __init__(self, exact: bool = False) -> None:
        self._exact = exact
        self.left_out: list[str] = []
        self.contents: list[str] = []
        self._code: dict[str, set[str]] = {}
        self._waiting: deque[Any] = deque()
        # Kept alive, so that no other object gets the same id
        self._known: dict[int, tuple[Any, str]] = {}
        self.bytes = self._objects = self._skipped = 0

    def code(self) -> dict[str, str]:
        """Hashes of the functions, classes and constants that the values so far lead to, by name."""
        looked = 0
        while self._waiting and looked < CODE:
            item = self._waiting.popleft()
            looked += 1
            (self._class if isinstance(item, type) else self._references)(item)
        if self._waiting:
            self.left_out.append(f"functions and classes after {CODE}")
        found = {name: " ".join(sorted(values)) for name, values in sorted(self._code.items())}
        installed = {name: value for name, value in found.items() if name.startswith(f"{INSTALLED}:")}
        own = {name: value for name, value in found.items() if name not in installed}
        return own | ({INSTALLED: digest(list(installed.items()))} if installed else {})

    def value(self, value: Any) -> str:
        """A short text that tells ``value`` from another one."""
        if value is None or type(value) in (bool, int, float, complex):
            return repr(value)
        if isinstance(value, str | PurePath):
            text = str(value) if self._exact else CHANGING.sub("*", str(value))
            return repr(text) if len(text) <= SHOWN else digest(text)
        if (known := self._known.get(id(value))) is not None:
            if isinstance(value, Tensor | np.ndarray):
                self.contents.append(known[1])
            return known[1]
        self._known[id(value)] = (value, "itself")
        self._objects += 1
        try:
            text = self._composite(value)
        except Exception as error:  # code of the user's, such as a property or a mapping that fails
            text = f"{name_of(type(value))}, {type(error).__name__}"
        self._known[id(value)] = (value, text)
        return text

    def _composite(self, value: Any) -> str:
        kind = type(value)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray | np.generic):
            if value.dtype.hasobject:
                return self._sequence(value.tolist()) if value.ndim else self.value(value.item())
            flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
            return self._hashed([str(value.dtype), value.shape], flat)
        if isinstance(value, bytes | bytearray):
            return self._hashed(["bytes"], np.frombuffer(value, np.uint8))
        if isinstance(value, type):
            return self._kind(value)
        if isinstance(value, ModuleType):
            return f"module {value.__name__}"
        if isinstance(value, Enum):
            return f"{name_of(kind)}.{value.name} {self.value(value.value)}"
        if isinstance(value, torch.device):  # which one does not matter
            return value.type
        if (parts := _parts(value)) is not None:
            return digest([kind.__name__, *map(self.value, parts)])
        if inspect.isfunction(value):
            return self._function(value)
        if inspect.isroutine(value) or hasattr(value, "__wrapped__"):
            inner = getattr(value, "__wrapped__", None)
            return name_of(value) if inner is None else f"{name_of(kind)} {self.value(inner)}"
        return self._sequence(value) if isinstance(value, tuple) else self._object(value)

    def _object(self, value: Any) -> str:
        """Describe anything else by its class alone: a function may fill a list, a dict or an object."""
        return self._kind(type(value))

    def _sequence(self, values: Any) -> str:
        entries: Iterable[Any] = values
        if self._objects + len(values) > OBJECTS and len(values) > PART:
            self.left_out.append(f"{len(values) - PART} of {len(values)} entries of a list")
            entries = [values[i] for i in np.linspace(0, len(values) - 1, PART).round().astype(int)]
        return f"{type(values).__name__} {digest([len(values), *map(self.value, entries)])}"

    def summary(self) -> list[str]:
        """What was left out, in words."""
        skipped = [f"{self._skipped / MEGABYTE:.0f} MB of large tensors"] if self._skipped else []
        return [*skipped, *self.left_out]

    def _tensor(self, tensor: Tensor) -> str:
        if isinstance(tensor, nn.UninitializedParameter | nn.UninitializedBuffer):
            return type(tensor).__name__
        about = [str(tensor.dtype), list(tensor.shape)]
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or not tensor.numel():
            return f"{tensor.layout} {about}"
        whole = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
        return self._hashed(about, whole)

    def _hashed(self, about: list[Any], content: Any) -> str:
        """A hash of bytes: a tensor or an array of them, all or evenly spaced blocks."""
        size, limit = len(content), LARGEST if self.bytes < MANY else LATER
        parts = [content]
        if size > limit:
            starts = np.linspace(0, size - BLOCK, limit // BLOCK).round().astype(int).tolist()
            parts = [content[start : start + BLOCK] for start in starts]
            self._skipped += size - limit
        hashed = hashlib.sha256(repr([*about, size]).encode())
        for part in parts:
            hashed.update((part.cpu().numpy() if isinstance(part, Tensor) else part).data)
        self.bytes += min(size, limit)
        text = f"{about[0]} {hashed.hexdigest()[:12]}"
        self.contents.append(text)
        return text

    def _kind(self, kind: type) -> str:
        """The name of a class; its code is looked at later."""
        if id(kind) not in self._known or self._known[id(kind)][1] == "itself":
            self._known[id(kind)] = (kind, name_of(kind))
            if any(owner(base.__module__) != LIBRARY for base in kind.__mro__):
                self._waiting.append(kind)
        return name_of(kind)

    def _function(self, function: Any) -> str:
        # A decorator of a library gives its function the name of the user's
        whose = _owner(function)
        parts = [
            name_of(function),
            self.value(function.__defaults__),
            self.value(function.__kwdefaults__),
            [self.value(value) for value in _enclosed(function)],
            self.value(dict(vars(function))),
        ]
        if whose == LIBRARY:
            return digest(parts) if function.__closure__ or vars(function) else name_of(function)
        text = digest([bytecode(function.__code__, function.__doc__), *parts])
        self._note(whose, name_of(function), text)
        self._waiting.append(function)
        return text

    def _class(self, kind: type) -> None:
        for base in kind.__mro__:
            whose = owner(base.__module__)
            if whose == LIBRARY:
                self._note(OWN, f"{name_of(kind)}(...)", version_of(base.__module__))
                continue
            entries = [(n, self.value(v)) for n, v in members(base) if whose == OWN or _is_telling(v)]
            self._note(whose, name_of(base), digest([name_of(base), entries]))

    def _references(self, function: Any) -> None:
        """Note what a function looks up in its module, and in the modules that it uses."""
        names = sorted(set(referred(function.__code__)))
        written = assigned(function.__code__, "STORE_GLOBAL")
        own = {name: value for name, value in function.__globals__.items() if name not in written}
        scopes = [(_owner(function), function.__module__, own)]
        scopes += _imported(names, function.__globals__.get("__package__"))
        for whose, scope, values in scopes:
            for name in filter(values.__contains__, names):
                value = values[name]
                if isinstance(value, ModuleType):
                    if whose != LIBRARY:
                        self._note(whose, f"{scope}.{name}", f"module {value.__name__}")
                        if all(known != value.__name__ for _, known, _ in scopes):
                            scopes.append((owner(value.__name__), value.__name__, vars(value)))
                elif whose == LIBRARY:
                    if inspect.isfunction(value) and _owner(value) == OWN:  # somebody has put it there
                        self._note(OWN, f"{scope}.{name}", self.value(value))
                elif isinstance(value, Namespace | SimpleNamespace):
                    read = {n: v for n, v in vars(value).items() if n in names}
                    self._note(whose, f"{scope}.{name}", self.value(read))
                elif whose == OWN or _is_telling(value):
                    self._note(whose, f"{scope}.{name}", self.value(value))

    def _note(self, whose: str, name: str, text: str) -> None:
        self._code.setdefault(name if whose == OWN else f"{whose}:{name}", set()).add(text)


def _parts(value: Any) -> list[Any] | None:
    """What a method, property or partial function is made of; ``None`` for anything else."""
    if isinstance(value, property):
        return [value.fget, value.fset, value.fdel]
    if isinstance(value, functools.cached_property):
        return [value.func]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if inspect.ismethod(value) or isinstance(value, staticmethod | classmethod):
        return [value.__func__, getattr(value, "__self__", None)]
    return None


def _owner(function: Any) -> str:
    return owner(function.__globals__.get("__name__"))


def _enclosed(function: Any) -> Iterator[Any]:
    """Variables of enclosing functions that a function reads and does not assign."""
    written = assigned(function.__code__, "STORE_DEREF")
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # not assigned yet
            if name not in written:
                yield cell.cell_contents


def _is_telling(value: Any) -> bool:
    """Code or a constant, which count of installed packages."""
    entries = value if isinstance(value, tuple) else [value]
    code = inspect.isroutine(value) or isinstance(value, type) or _parts(value) is not None
    return code or all(isinstance(entry, int | float | str) for entry in entries)


def _imported(names: Iterable[str], package: str | None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Modules of the user's that imports of some names within a function give: owners, names and what they hold."""
    for name in names:
        for path in (name, f"{package}.{name}"):
            if isinstance(found := sys.modules.get(path), ModuleType) and owner(path) != LIBRARY:
                yield owner(path), found.__name__, vars(found)
                break
