"""Code as values: what a function does, what it refers to, and whose it is."""

from __future__ import annotations

import dis
import inspect
import sys
import sysconfig
from collections import deque
from collections.abc import Iterator
from functools import cache, partial
from hashlib import sha256
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch

# Of the standard library and of large packages the version tells enough
LIBRARY, INSTALLED, OWN = "library", "installed", "own"
LIBRARIES = (
    "torch torchmetrics lightning_fabric pytorch_lightning lightning lightning_utilities tglo_lightning numpy "
    "scipy sklearn pandas pyarrow datasets transformers PIL matplotlib wandb ray hydra omegaconf jsonargparse "
    "cma rich tqdm IPython ipykernel pytest _pytest pydantic"
)
# Functions and classes that are followed, and bytes of a tensor that are hashed
MOST, LARGEST = 3000, 64 * 2**20
STANDARD = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib"))


@cache
def owner(module: str | None) -> str:
    """Whose code a module of this name is: ``LIBRARY``, ``INSTALLED`` or ``OWN``."""
    root = (module or "builtins").partition(".")[0]
    if root in LIBRARIES.split() or root in sys.builtin_module_names or root in ("builtins", "torchgen"):
        return LIBRARY
    found = sys.modules.get(root)
    path = getattr(found, "__file__", None) or next(iter(getattr(found, "__path__", [])), "")
    if "site-packages" in path or "dist-packages" in path:
        return INSTALLED
    return LIBRARY if root != "__main__" and path.startswith(STANDARD) else OWN


def version_of(module: str | None) -> str:
    """The package of a module, with its version if it tells one."""
    root = (module or "builtins").partition(".")[0]
    version = getattr(sys.modules.get(root), "__version__", None)
    return f"{root} {version}" if isinstance(version, str) else root


def bytecode(code: CodeType, text: str | None = None) -> Any:
    """What a code object does, as plain values: without comments, the docstring ``text``, line numbers and names of
    local variables.
    """
    constants = [
        bytecode(entry)
        if isinstance(entry, CodeType)
        else sorted(map(repr, entry))
        if isinstance(entry, frozenset)
        else repr(None if number == 0 and entry == text else entry)
        for number, entry in enumerate(code.co_consts)
    ]
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    flags = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    return [code.co_code.hex(), constants, code.co_names, arguments, code.co_freevars, flags]


def referred(code: CodeType) -> Iterator[str]:
    """Names that a code object, or one within it, looks up or imports."""
    yield from code.co_names
    for entry in code.co_consts:
        if isinstance(entry, CodeType):
            yield from referred(entry)


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """Methods and constants that a class defines itself, by name; of Python's own names the methods alone."""
    for name, value in sorted(vars(kind).items()):
        special = name.startswith("__") and name.endswith("__")
        if name != "_abc_impl" and (not special or (inspect.isroutine(value) and not name.startswith("__annotate"))):
            yield name, value


def code_of(*roots: Any) -> dict[str, str]:
    """Return what some functions and classes lead to, as hashes by name.

    Followed are functions and classes of the user's own: what they call, their defaults, and the numbers, strings,
    tuples, tensors and arrays that they read from outside. Lists, dicts and other objects are not looked at, for a
    function may fill them, nor is a name that the function itself assigns.
    """
    found: dict[str, str] = {}
    known = (FunctionType, MethodType, partial, staticmethod, classmethod, property, type)
    waiting: deque[Any] = deque(root if isinstance(root, known) else type(root) for root in roots)
    seen: set[int] = set()
    while waiting and len(found) < MOST:
        thing = waiting.popleft()
        if isinstance(thing, staticmethod | classmethod | MethodType):
            thing = thing.__func__
        elif isinstance(thing, partial):
            waiting += [thing.func, *thing.args, *thing.keywords.values()]
            continue
        elif isinstance(thing, property):
            waiting += filter(None, (thing.fget, thing.fset))
            continue
        if id(thing) in seen or not isinstance(thing, FunctionType | type) or owner(thing.__module__) != OWN:
            continue
        seen.add(id(thing))
        name = f"{thing.__module__}.{thing.__qualname__}"
        pairs = members(thing) if isinstance(thing, type) else _read(thing)
        if isinstance(thing, type):
            waiting += thing.__bases__
        else:
            found[name] = _hash(repr(bytecode(thing.__code__, thing.__doc__)))
        for key, value in pairs:
            if (text := _plain(value)) is not None:
                found[f"{name}:{key}"] = _hash(text)
            else:
                waiting.append(value)
    return found


def _read(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Names and values that a function finds outside: globals, variables of enclosing functions, defaults."""
    code, written = function.__code__, _written(function.__code__)
    for name in sorted(set(referred(code)) & function.__globals__.keys() - written):
        yield name, function.__globals__[name]
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if name not in written:
            try:
                yield name, cell.cell_contents
            except ValueError:  # not assigned yet
                continue
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    yield from ((f"default {place}", value) for place, value in enumerate(defaults))


def _written(code: CodeType) -> set[str]:
    """Names outside a function that it assigns itself, such as counters."""
    own = {i.argval for i in dis.get_instructions(code) if i.opname in ("STORE_GLOBAL", "STORE_DEREF")}
    return own.union(*(_written(entry) for entry in code.co_consts if isinstance(entry, CodeType)))


def _plain(value: Any) -> str | None:
    """A value as text; ``None`` if it is none of those that are compared."""
    if isinstance(value, torch.Tensor) and value.layout == torch.strided and value.nbytes <= LARGEST:
        value = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    if isinstance(value, np.ndarray) and value.dtype != object and value.nbytes <= LARGEST:
        return f"{value.dtype} {value.shape} {sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}"
    if isinstance(value, tuple):
        parts = [_plain(entry) for entry in value]
        return None if None in parts else repr(parts)
    return repr(value) if value is None or isinstance(value, bool | int | float | complex | str | bytes) else None


def _hash(text: str) -> str:
    return sha256(text.encode(errors="replace")).hexdigest()[:12]
