"""A factor on learning rates, as if the user had written the scaled rate."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch.optim import Optimizer, lr_scheduler
from torch.optim.swa_utils import SWALR

from tglo_lightning.search.code import referred

# Arguments of schedules that are rates, not factors
RATES: dict[type, tuple[str, ...]] = {
    lr_scheduler.LRScheduler: (),
    lr_scheduler.OneCycleLR: ("max_lr",),
    lr_scheduler.CyclicLR: ("base_lr", "max_lr"),
    lr_scheduler.CosineAnnealingLR: ("eta_min",),
    lr_scheduler.CosineAnnealingWarmRestarts: ("eta_min",),
    lr_scheduler.ReduceLROnPlateau: ("min_lr",),
    SWALR: ("swa_lr",),
}
GROUP_RATES = ("lr", "initial_lr", "max_lr", "min_lr", "swa_lr")
SCHEDULE_RATES = ("base_lrs", "max_lrs", "eta_min", "min_lrs", "_last_lr")
# By which a schedule of the user's looks at the rates that it was given
GIVEN = {"base_lrs", "param_groups", "_last_lr", "get_last_lr", "super", "lr_lambdas"}
# Noted on an optimizer that was built within `scaled_rates`
MARK = "_tglo_step"


@contextmanager
def scaled_rates(factor: float) -> Iterator[list[Optimizer]]:
    """Within, every torch optimizer and schedule that is built runs at ``factor`` times the rates it is given.

    Not only the rate itself is scaled but every rate of a schedule, such as the ``eta_min`` of cosine annealing: at
    each step the rate in force is ``factor`` times what it would have been.

    Yields:
        The optimizers that were built, in order.
    """
    built: list[Optimizer] = []
    if factor == 1:
        yield built
        return
    with ExitStack() as stack:
        add_group = Optimizer.add_param_group

        def add_scaled(self: Optimizer, param_group: dict[str, Any]) -> None:
            add_group(self, param_group)
            self.param_groups[-1]["lr"] = self.param_groups[-1]["lr"] * factor
            if getattr(self, MARK, None) is None:
                setattr(self, MARK, factor)
                built.append(self)

        stack.callback(setattr, Optimizer, "add_param_group", add_group)
        Optimizer.add_param_group = add_scaled  # type: ignore[method-assign]
        for kind, names in RATES.items():
            stack.callback(setattr, kind, "__init__", kind.__init__)  # type: ignore[misc]
            kind.__init__ = _scaling(kind.__init__, names, factor)  # type: ignore[misc]
        yield built


def scale_built(optimizers: Iterable[Optimizer], schedules: Iterable[Any], factor: float) -> None:
    """Scale the rates of optimizers that were built before :func:`scaled_rates`, and of their schedules.

    Optimizers that were built within it, and their schedules, stay as they are.
    """
    late = [optimizer for optimizer in optimizers if getattr(optimizer, MARK, 1.0) != factor]
    for optimizer in late:
        setattr(optimizer, MARK, factor)
        for group in optimizer.param_groups:
            group.update({name: _times(group[name], factor) for name in GROUP_RATES if name in group})
    waiting = list(schedules)
    while waiting:
        schedule = waiting.pop()
        waiting += getattr(schedule, "_schedulers", [])
        if getattr(schedule, "optimizer", None) in late:
            values = vars(schedule)
            values.update({name: _times(values[name], factor) for name in SCHEDULE_RATES if name in values})


def fixed_schedules(schedules: Iterable[Any]) -> list[str]:
    """Return the user's classes of schedules that look at no rate they were given, so that no factor reaches them.

    Rates that are written into ``param_groups`` elsewhere, such as in ``training_step``, are not noticed.
    """
    found = []
    for schedule in schedules:
        own = [k for k in type(schedule).__mro__ if k.__module__.partition(".")[0] not in ("torch", "builtins")]
        codes = [value.__code__ for kind in own for value in vars(kind).values() if inspect.isfunction(value)]
        sets = any("get_lr" in vars(kind) for kind in own)
        if sets and not GIVEN.intersection(name for code in codes for name in referred(code)):
            found.append(type(schedule).__name__)
        found += fixed_schedules(getattr(schedule, "_schedulers", []))
    return found


def _scaling(build: Callable[..., None], names: tuple[str, ...], factor: float) -> Callable[..., None]:
    signature = inspect.signature(build)  # of (self, optimizer, ...)

    @functools.wraps(build)
    def init(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        # Built before, such as in the module's `__init__`; its schedule begins with the scaled rate
        scale_built([bound.arguments["optimizer"]], [], factor)
        for name in names:
            if name in bound.arguments:
                bound.arguments[name] = _times(bound.arguments[name], factor)
        build(*bound.args, **bound.kwargs)

    return init


def _times(value: Any, factor: float) -> Any:
    return type(value)(_times(entry, factor) for entry in value) if isinstance(value, list | tuple) else value * factor
