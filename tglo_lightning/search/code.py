"""Code as values: what a function does, what it refers to, and whose it is."""

from __future__ import annotations

import dis
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from types import CodeType
from typing import Any

# Of the standard library and of large packages the version tells enough
LIBRARY, INSTALLED, OWN = "library", "installed", "own"
LIBRARIES = (
    "torch torchmetrics lightning_fabric pytorch_lightning lightning lightning_utilities tglo_lightning numpy "
    "scipy sklearn pandas pyarrow datasets transformers PIL matplotlib wandb ray hydra omegaconf jsonargparse "
    "cma rich tqdm IPython ipykernel pytest _pytest pydantic"
)
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


def assigned(code: CodeType, operation: str) -> set[str]:
    """Names outside a function that it assigns itself by ``STORE_GLOBAL`` or ``STORE_DEREF``, such as counters."""
    own = {i.argval for i in dis.get_instructions(code) if i.opname == operation}
    return own.union(*(assigned(entry, operation) for entry in code.co_consts if isinstance(entry, CodeType)))


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """Methods and constants that a class defines itself, by name; of Python's own names the methods alone."""
    for name, value in sorted(vars(kind).items()):
        special = name.startswith("__") and name.endswith("__")
        if name != "_abc_impl" and (not special or (inspect.isroutine(value) and not name.startswith("__annotate"))):
            yield name, value


def digest(value: Any) -> str:
    """A short hash of plain values."""
    return sha256(repr(value).encode(errors="replace")).hexdigest()[:12]


def name_of(item: Any) -> str:
    """Return the name of a class or function with its module, or that of the class of an object."""
    return f"{getattr(item, '__module__', None)}.{getattr(item, '__qualname__', type(item).__qualname__)}"
