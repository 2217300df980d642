"""Find the loss that ``training_step`` calls: a submodule, or a function called inline."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from tglo_lightning.losses import FamilyLoss
from tglo_lightning.losses.registry import FUNCTIONS, OTHER_FUNCTIONS
from tglo_lightning.module.inline import Intercepting, bound
from tglo_lightning.module.slot import InlineSlot, LossSlot, LossSlots

LIBRARIES = tuple(str(Path(sys.modules[name].__file__ or "").parent) for name in ("torch", "tglo_lightning"))


@dataclass
class _Line:
    """Calls of one function from one line."""

    calls: list[int]
    options: dict[str, Any]
    counts: bool = False
    owners: tuple[str, ...] = ()


@dataclass
class LossWatch:
    """Notes which losses the first ``training_step`` of a module calls.

    Submodules without parameters, and functions in attributes, are losses if they are called with an output and a
    target, and call a loss function of torch or return a number with a gradient. The module is changed. ``check`` is
    called with name, arguments and options of a call before it is made, and raises if it must fail.
    """

    module: Any
    check: Callable[[str, Any, dict[str, Any]], None]
    _owners: list[tuple[str, int]] = field(default_factory=list)  # with the number of losses found before
    _lines: dict[tuple[str, str], _Line] = field(default_factory=dict)
    _modules: dict[str, str] = field(default_factory=dict)
    _others: list[str] = field(default_factory=list)
    _done: bool = False

    def __post_init__(self) -> None:
        for path, child in self.module.named_modules():
            known = isinstance(child, nn.modules.loss._Loss | FamilyLoss)
            plain = not any(True for _ in child.parameters()) and not isinstance(child, Metric | MetricCollection)
            if path and (known or plain):
                child.register_forward_pre_hook(lambda *_, path=path: self._enter(path))
                child.register_forward_hook(partial(self._leave, path), with_kwargs=True)
            for name, value in list(vars(child).items()):
                if isinstance(value, FunctionType | partial) and not hasattr(type(child), name):
                    vars(child)[name] = self._watched(f"{path}.{name}" if path else name, value)
        step = self.module.training_step

        def watched(*args: Any, **kwargs: Any) -> Any:
            if self._done:
                return step(*args, **kwargs)
            self._done = True
            with Intercepting(self._called):
                return step(*args, **kwargs)

        watched.__wrapped__ = getattr(step, "__wrapped__", step)  # type: ignore[attr-defined]
        vars(self.module)["training_step"] = watched

    def slots(self, asked: Sequence[str] | None = None) -> LossSlots:
        """Where the losses of these names are, such as ``"criterion"`` or ``"F.cross_entropy#2"``, or the only one.

        Raises:
            ValueError: there is none, there are several, or none of a name; it lists those that there are.
        """
        found = self._found()
        listed = "\n".join(f"  {name!r} ({source})" for name, (source, _) in found.items())
        kind = type(self.module).__name__
        if asked is not None:
            for name in asked:
                if name.startswith("F.") and name not in found:
                    raise ValueError(f"`loss={name!r}`: training_step of {kind} does not call it. It calls\n{listed}")
            return LossSlots.of([found[name][1] if name.startswith("F.") else LossSlot(name) for name in asked])
        if len(found) == 1:
            return LossSlots.of([slot for _, slot in found.values()])
        if found:
            raise ValueError(
                f"training_step of {kind} calls {len(found)} losses; name the one to replace by `loss=`, or several "
                f"by a list:\n{listed}"
            )
        others = ", ".join(dict.fromkeys(self._others))
        known = ", ".join(f"F.{name}" for name in FUNCTIONS)
        raise ValueError(
            f"training_step of {kind} calls no loss that TaylorGLO can replace{f' (but {others})' * bool(others)}. It "
            f"replaces {known}, and losses in attributes that are called as self.criterion(output, target)."
        )

    def _found(self) -> dict[str, tuple[str, LossSlot]]:
        """File and line of the call, and the slot, of each loss that was called, by the name that ``loss=`` takes."""
        found = {path: (source, LossSlot(path)) for path, source in self._modules.items()}
        numbers: Counter[str] = Counter()
        for (function, source), line in self._lines.items():
            numbers[function] += 1
            if line.counts and self._modules.keys().isdisjoint(line.owners):
                name = f"F.{function}" + (f"#{numbers[function]}" if numbers[function] > 1 else "")
                found[name] = (source, InlineSlot(name, line.calls, line.options))
        return found

    def _watched(self, path: str, function: Any) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._enter(path)
            output = function(*args, **kwargs)
            self._leave(path, function, args, kwargs, output)
            return output

        return watched

    def _enter(self, path: str) -> None:
        self._owners.append((path, len(self._modules)))

    def _leave(self, path: str, loss: Any, args: Sequence[Any], kwargs: dict[str, Any], output: Any) -> None:
        _, before = self._owners.pop()
        given: list[Any] = [*args, *kwargs.values(), None, None]
        input, target = given[:2]
        if not self._done or not isinstance(input, Tensor) or not isinstance(target, Tensor):
            return
        calls_one = any(path in line.owners and line.counts for line in self._lines.values())
        is_number = isinstance(output, Tensor) and output.dim() == 0 and output.requires_grad
        if input.requires_grad and not target.requires_grad and torch.is_grad_enabled() and (calls_one or is_number):
            # It stands for the losses within it
            for inner in list(self._modules)[before:]:
                del self._modules[inner]
            self._modules.setdefault(path, _source())

    def _called(self, func: Any, name: str | None, index: int, args: Any, kwargs: dict[str, Any]) -> Any:
        if name is not None:
            input, _, options = bound(args, kwargs)
            line = self._lines.setdefault((name, _source()), _Line([], options))
            line.calls.append(index)
            line.counts |= torch.is_grad_enabled() and input.requires_grad
            line.owners = tuple(path for path, _ in self._owners)
            self.check(next(iter(line.owners), f"F.{name}"), args, options)
        elif func in OTHER_FUNCTIONS:
            self._others.append(f"F.{func.__name__} ({_source()})")
        return func(*args, **kwargs)


def _source() -> str:
    """File and line of the user's code that is running."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(LIBRARIES):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
