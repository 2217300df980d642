"""What a search depends on, as plain values: equal for the same script started again, different for another one.

A killed search goes on only where these agree. Noticed are the bytecode of everything that the module's own code can
reach, and constants, attributes, hyper-parameters, weights, buffers and data, by hashes. Not noticed are comments,
docstrings, names of local variables, the order of imports; times, temporary directories and ``version_3`` within
strings; the state of random generators, which a search seeds itself; numbers of worker processes. Of installed packages
the code that is referred to counts, of torch, Lightning and other large ones the version.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sized
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from tglo_lightning.module.reading import read_samples
from tglo_lightning.search.code import INSTALLED, LIBRARY, digest, name_of, owner
from tglo_lightning.search.walker import CHANGING, SHOWN, Walker
from tglo_lightning.wording import counted

# A longer list of plain values is hashed in one go
LONG = 50
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


class Fingerprint(Walker):
    """Describes also what modules, data, lists, dicts and other objects hold."""

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
            "module": name_of(type(module)),
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
        samples = [read_samples(loader, generators, most, partial(Fingerprint, exact=True)) for loader in leaves]
        lengths = [len(leaf.dataset) for leaf in leaves if isinstance(getattr(leaf, "dataset", None), Sized)]
        return {
            "lengths": lengths,
            "settings": digest(settings),
            "contents": digest([held, [entry.hashed for entry in samples]]),
            "read": [entry.words for entry in samples],
        }

    def _sequence(self, values: Any) -> str:
        if len(values) > LONG and (plain := _plain(list(values))) is not None:
            return self._hashed(["list"], plain)
        return super()._sequence(values)

    def _object(self, value: Any) -> str:
        kind: Any = type(value)
        if isinstance(value, Mapping):
            if len(value) > LONG and (plain := _plain(value)) is not None:
                return self._hashed([kind.__name__], plain)
            return f"{kind.__name__} {digest(sorted((self.value(k), self.value(v)) for k, v in value.items()))}"
        if isinstance(value, list | deque):
            return self._sequence(value)
        if isinstance(value, set | frozenset):
            return f"set {digest(sorted(map(self.value, value)))}"
        name, root = self._kind(kind), kind.__module__.partition(".")[0]
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


def compared(identity: Mapping[str, Any]) -> str:
    """What a fingerprint holds, in words."""
    data = identity["data"]
    parts = [
        f"{len(identity['code'].keys() - {INSTALLED})} functions, classes and constants",
        counted(len(identity["attributes"]) + len(identity["hparams"]) - 1, "attribute"),
        f"{identity['parameters']} weights, buffers, optimizers, Trainer",
        *(f"{stage} data ({', '.join(data[stage]['read'])})" for stage in data if stage in ("train", "val")),
    ]
    left = f"; left out: {', '.join(identity['left_out'])}" if identity["left_out"] else ""
    return f"{', '.join(parts)}{left}"


def _plain(values: Any) -> Any:
    """Lists and dicts of plain values as bytes; ``None`` if there is anything else in them."""
    try:
        return np.frombuffer(json.dumps(values, sort_keys=isinstance(values, dict)).encode(), np.uint8)
    except (TypeError, ValueError, RecursionError):
        return None


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    return [slots] if isinstance(slots, str) else [name for name in slots if name not in ("__dict__", "__weakref__")]
