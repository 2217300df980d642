"""What a search depends on, as plain values: equal for the same script started again, different for another one.

A killed search goes on only where these agree. Noticed are the bytecode of everything that the module's own code can
reach, and constants, attributes, hyper-parameters, weights, buffers and data, by hashes. Not noticed are comments,
docstrings, names of local variables, the order of imports; times, temporary directories and ``version_3`` within
strings; the state of random generators, which a search seeds itself; numbers of worker processes. Of installed packages
the code that is referred to counts, of torch, Lightning and other large ones the version.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import re
import sys
import tempfile
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sized
from enum import Enum
from pathlib import PurePath
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from tglo_lightning.module.reading import read_samples
from tglo_lightning.search.code import INSTALLED, LIBRARY, OWN, bytecode, members, owner, referred, version_of
from tglo_lightning.wording import counted

__all__ = ["Fingerprint", "compared", "digest"]

MEGABYTE = 2**20
# Bytes of a tensor that are hashed, the same when many have been, and how many are many
LARGEST, LATER, MANY = 64 * MEGABYTE, MEGABYTE, 1024 * MEGABYTE
BLOCK = 64 * 1024
# Objects, and functions and classes, that are looked at
OBJECTS, CODE = 100_000, 3000
# A longer list of plain values is hashed in one go, a longer one of objects only in part once there are too many
LONG, PART = 50, 1000
SHOWN = 60
CHANGING = re.compile(
    rf"{re.escape(tempfile.gettempdir())}\S*|20\d\d[-_.]?[01]\d[-_.]?[0-3]\d|[0-2]\d[-_:.][0-5]\d[-_:.][0-5]\d"
    r"|version_\d+|0x[0-9a-f]{6,}"
)
# What modules and datamodules keep for themselves
INTERNAL = (
    frozenset(vars(pl.LightningModule()))
    | frozenset(vars(pl.LightningDataModule()))
    # Replaced in a copy, or looked at apart
    | {"trainer", "_hparams", "setup", "teardown", "prepare_data", "configure_callbacks"}
)
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks")
# How a loader works, not what it gives
WORKING = {
    *("num_workers", "prefetch_factor", "pin_memory", "pin_memory_device", "timeout", "persistent_workers"),
    *("in_order", "_iterator"),
}
# Packages whose objects hold the state of a process
PROCESS = "logging threading multiprocessing socket subprocess concurrent asyncio weakref _thread _io"
SERVICES = "wandb ray tqdm rich matplotlib pytorch_lightning lightning lightning_fabric"


def digest(value: Any) -> str:
    """A short hash of plain values."""
    return hashlib.sha256(repr(value).encode(errors="replace")).hexdigest()[:12]


class Fingerprint:
    """Describes values by short strings, and collects the code that they lead to.

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

    def module(self, module: nn.Module) -> dict[str, Any]:
        """Class, attributes, hyper-parameters, structure, weights and buffers of ``module``."""
        for name, child in module.named_modules():
            self._known[id(child)] = (child, f"module {name}")
        named = module.named_parameters(remove_duplicate=False)
        parameters = [(name, p.requires_grad, self.value(p)) for name, p in named]
        buffers = [(name, self.value(b)) for name, b in module.named_buffers(remove_duplicate=False)]
        self.contents.clear()
        inner = {name: self._attributes(child) for name, child in module.named_modules() if name}
        hooks = [self.value(vars(child).get(name)) for child in module.modules() for name in HOOKS]
        kinds = [(name, self.value(type(child))) for name, child in module.named_modules()]
        return {
            "module": _name(type(module)),
            "attributes": self._attributes(module),
            "hparams": {str(k): self.value(v) for k, v in dict(getattr(module, "hparams", {})).items()},
            "structure": digest([kinds, [name for name, _ in module.named_parameters()], hooks]),
            "submodules": digest(inner),
            "parameters": sum(p.numel() for p in module.parameters() if not isinstance(p, nn.UninitializedParameter)),
            "weights": digest(parameters),
            "buffers": digest(buffers),
        }

    def optimizers(self, trainer: Any) -> list[str]:
        """Classes and settings of the optimizers and schedulers of ``trainer``."""
        groups = [
            [type(o), [{k: v for k, v in group.items() if k != "params"} for group in o.param_groups]]
            for o in trainer.optimizers
        ]
        schedules = []
        for config in trainer.lr_scheduler_configs:
            values = {k: v for k, v in vars(config.scheduler).items() if k != "optimizer"}
            schedules.append([type(config.scheduler), config.interval, config.frequency, values])
        return [self.value(groups), self.value(schedules)]

    def data(self, loaders: Any, generators: Iterable[Any], *, most: int) -> dict[str, Any]:
        """What the loaders of training or validation give: their settings, what their data sets hold in memory, and up
        to ``most`` samples.
        """
        leaves = tree_leaves(loaders)
        self.contents = []
        settings = [self.value(loader) for loader in leaves]
        held = sorted(set(self.contents))
        samples = [read_samples(loader, generators, most, _describer) for loader in leaves]
        lengths = [len(leaf.dataset) for leaf in leaves if isinstance(getattr(leaf, "dataset", None), Sized)]
        return {
            "lengths": lengths,
            "settings": digest(settings),
            "contents": digest([held, [entry.hashed for entry in samples]]),
            "read": [entry.words for entry in samples],
        }

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
        own = {name: value for name, value in found.items() if not name.startswith(f"{INSTALLED}:")}
        return own | {INSTALLED: digest([entry for entry in found.items() if entry[0] not in own])}

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
            text = f"{_name(type(value))}, {type(error).__name__}"
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
            return f"{_name(kind)}.{value.name} {self.value(value.value)}"
        if isinstance(value, torch.device):  # which one does not matter
            return value.type
        if (parts := _parts(value)) is not None:
            return digest([kind.__name__, *map(self.value, parts)])
        if inspect.isfunction(value):
            return self._function(value)
        if inspect.isroutine(value) or hasattr(value, "__wrapped__"):
            inner = getattr(value, "__wrapped__", None)
            return _name(value) if inner is None else f"{_name(kind)} {self.value(inner)}"
        if isinstance(value, Mapping):
            if len(value) > LONG and (plain := _plain(value)) is not None:
                return self._hashed([kind.__name__], plain)
            return f"{kind.__name__} {digest(sorted((self.value(k), self.value(v)) for k, v in value.items()))}"
        if isinstance(value, list | tuple | deque):
            return self._sequence(value)
        if isinstance(value, set | frozenset):
            return f"set {digest(sorted(map(self.value, value)))}"
        return self._object(value)

    def _sequence(self, values: Any) -> str:
        if len(values) > LONG and (plain := _plain(list(values))) is not None:
            return self._hashed(["list"], plain)
        entries: Iterable[Any] = values
        if self._objects + len(values) > OBJECTS and len(values) > PART:
            self.left_out.append(f"{len(values) - PART} of {len(values)} entries of a list")
            entries = [values[i] for i in np.linspace(0, len(values) - 1, PART).round().astype(int)]
        return f"{type(values).__name__} {digest([len(values), *map(self.value, entries)])}"

    def _object(self, value: Any) -> str:
        name, root = _name(type(value)), type(value).__module__.partition(".")[0]
        self._kind(type(value))
        if root in PROCESS.split() or isinstance(value, torch.Generator | np.random.Generator | np.random.RandomState):
            return name
        framework = isinstance(value, nn.Module) or hasattr(value, "setup")  # of a datamodule or a callback
        if root in SERVICES.split() and not framework:
            return name
        if isinstance(value, nn.Module):
            tensors = [*value.named_parameters(), *value.named_buffers()]
            kinds = [(n, self.value(type(child)), self._attributes(child)) for n, child in value.named_modules()]
            return f"{name} {digest([kinds, [(n, self.value(t)) for n, t in tensors]])}"
        if owner(root) == LIBRARY and hasattr(value, "__array__"):  # tables of pandas, images
            return f"{name} {self.value(np.asarray(value))}"
        if attributes := self._attributes(value):
            return f"{name} {digest(attributes)}"
        kind: Any = type(value)
        if kind.__repr__ is not object.__repr__ and " at 0x" not in (text := repr(value)):
            return f"{name} {CHANGING.sub('*', text)}" if len(text) <= SHOWN else f"{name} {digest(text)}"
        return name

    def _attributes(self, value: Any) -> dict[str, str]:
        """What an object remembers; of a library's class what is public."""
        values = {n: getattr(value, n) for kind in type(value).__mro__ for n in _slots(kind) if hasattr(value, n)}
        values |= getattr(value, "__dict__", {})
        own = owner(type(value).__module__) != LIBRARY
        holder = isinstance(value, nn.Module) or hasattr(value, "prepare_data_per_node")
        hidden = INTERNAL if holder else WORKING if isinstance(value, DataLoader) else frozenset()
        found = {
            name: self.value(entry)
            for name, entry in sorted(values.items())
            if name not in hidden and (own or not name.startswith("_"))
        }
        if isinstance(value, nn.Module):
            found["training"] = str(value.training)
        elif holder and hasattr(value, "hparams"):
            found["hparams"] = self.value(dict(value.hparams))
        return found

    # Tensors, arrays and long lists

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

    # Code

    def _kind(self, kind: type) -> str:
        """The name of a class; its code is looked at later."""
        if id(kind) not in self._known or self._known[id(kind)][1] == "itself":
            self._known[id(kind)] = (kind, _name(kind))
            if any(owner(base.__module__) != LIBRARY for base in kind.__mro__):
                self._waiting.append(kind)
        return _name(kind)

    def _function(self, function: Any) -> str:
        # A decorator of a library gives its function the name of the user's
        whose = _owner(function)
        parts = [
            _name(function),
            self.value(function.__defaults__),
            self.value(function.__kwdefaults__),
            [self.value(_cell(cell)) for cell in function.__closure__ or ()],
            self.value(dict(vars(function))),
        ]
        if whose == LIBRARY:
            return digest(parts) if function.__closure__ or vars(function) else _name(function)
        text = digest([bytecode(function.__code__, function.__doc__), *parts])
        self._note(whose, _name(function), text)
        self._waiting.append(function)
        return text

    def _class(self, kind: type) -> None:
        for base in kind.__mro__:
            whose = owner(base.__module__)
            if whose == LIBRARY:
                self._note(OWN, f"{_name(kind)}(...)", version_of(base.__module__))
                continue
            entries = [(n, self.value(v)) for n, v in members(base) if whose == OWN or _coded(v) or _is_constant(v)]
            self._note(whose, _name(base), digest([_name(base), entries]))

    def _references(self, function: Any) -> None:
        """Note what a function looks up in its module, and in the modules that it uses."""
        names = sorted(set(referred(function.__code__)))
        own, whose = function.__globals__, _owner(function)
        package = str(own.get("__package__") or "")
        modules = [m for n in names for m in (_module(n, package),) if m is not None]
        for name in names:
            if isinstance(value := own.get(name), ModuleType):
                self._note(whose, f"{function.__module__}.{name}", f"module {value.__name__}")
                modules.append(value)
            elif name in own:
                self._reference(whose, f"{function.__module__}.{name}", value, names)
        for module in modules:
            its = owner(module.__name__)
            for name in names:
                value = vars(module).get(name)
                if isinstance(value, ModuleType):
                    if owner(value.__name__) != LIBRARY and value not in modules:
                        modules.append(value)
                # Of a library what somebody has put there
                elif value is not None and (its != LIBRARY or (inspect.isfunction(value) and _owner(value) == OWN)):
                    self._reference(OWN if its == LIBRARY else its, f"{module.__name__}.{name}", value, names)

    def _reference(self, whose: str, name: str, value: Any, names: list[str]) -> None:
        if isinstance(value, Namespace | SimpleNamespace):
            self._note(whose, name, self.value({n: v for n, v in vars(value).items() if n in names}))
        elif whose == OWN or _coded(value) or _is_constant(value):
            self._note(whose, name, self.value(value))

    def _note(self, whose: str, name: str, text: str) -> None:
        self._code.setdefault(name if whose == OWN else f"{whose}:{name}", set()).add(text)

    def summary(self) -> list[str]:
        """What was left out, in words."""
        skipped = [f"{self._skipped / MEGABYTE:.0f} MB of large tensors"] if self._skipped else []
        return [*skipped, *self.left_out]


def compared(identity: Mapping[str, Any]) -> str:
    """What a fingerprint holds, in words."""
    data = identity["data"]
    parts = [
        f"{len(identity['code']) - 1} functions, classes and constants",
        counted(len(identity["attributes"]) + len(identity["hparams"]) - 1, "attribute"),
        f"{identity['parameters']} weights, buffers, optimizers, Trainer",
        *(f"{stage} data ({', '.join(data[stage]['read'])})" for stage in data if stage in ("train", "val")),
    ]
    left = f"; left out: {', '.join(identity['left_out'])}" if identity["left_out"] else ""
    return f"{', '.join(parts)}{left}"


def _describer() -> Callable[[Any], tuple[str, int]]:
    fingerprint = Fingerprint(exact=True)
    return lambda sample: (fingerprint.value(sample), fingerprint.bytes)


def _plain(values: Any) -> Any:
    """Lists and dicts of plain values as bytes; ``None`` if there is anything else in them."""
    try:
        return np.frombuffer(json.dumps(values, sort_keys=isinstance(values, dict)).encode(), np.uint8)
    except (TypeError, ValueError, RecursionError):
        return None


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


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    return [slots] if isinstance(slots, str) else [name for name in slots if name not in ("__dict__", "__weakref__")]


def _coded(value: Any) -> bool:
    return inspect.isroutine(value) or isinstance(value, type) or _parts(value) is not None


def _is_constant(value: Any) -> bool:
    return all(isinstance(entry, int | float | str) for entry in (value if isinstance(value, tuple) else [value]))


def _module(name: str, package: str) -> ModuleType | None:
    """The module of the user's that an import of this name within a function gives."""
    for path in (name, f"{package}.{name}"):
        found = sys.modules.get(path)
        if isinstance(found, ModuleType) and owner(path) != LIBRARY:
            return found
    return None


def _name(item: Any) -> str:
    return f"{getattr(item, '__module__', None)}.{getattr(item, '__qualname__', type(item).__qualname__)}"
