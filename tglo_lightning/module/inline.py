"""Replace loss functions that ``training_step`` calls inline, such as ``F.cross_entropy(logits, target)``."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import _reduction
from torch.overrides import TorchFunctionMode

from tglo_lightning.losses.registry import FUNCTIONS

STATE = "inline loss"
NAMES = {function: name for name, function in FUNCTIONS.items()}


class OriginalCall(nn.Module):
    """Stands for a function of :mod:`torch.nn.functional` that is called inline, with the options of that call."""

    def __init__(self, function: str, options: dict[str, Any]) -> None:
        super().__init__()
        self.function = function
        self.options = options
        # Read like those of a loss that is a module
        vars(self).update(options)

    def forward(self, input: Tensor, target: Tensor) -> Any:
        """Call the function."""
        return FUNCTIONS[self.function](input, target, **self.options)


class InlineLoss(nn.Module):
    """A place in a module for a loss that replaces certain calls of a function in its ``training_step``.

    Being a submodule it travels in ``state_dict``. ``calls`` are counted from 0 over all calls of the function.
    """

    def __init__(self, function: str, calls: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.calls = calls
        self.criterion: Any = OriginalCall(function, {})

    def replace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The value of the loss in place of ``function(*args, **kwargs)``, with the options of this call."""
        input, target, options = bound(args, kwargs)
        criterion = self.criterion
        inner = getattr(criterion, "loss", criterion)
        if isinstance(inner, OriginalCall):
            # As it was called: the weights must come out as without us
            inner.options = options
            return criterion(input, target)
        # A call without weights has none, though another one had some
        twin = _with_options(inner, {"weight": None, "pos_weight": None, **options})
        if inner is criterion:
            return twin(input, target)
        try:
            criterion._modules["loss"] = twin
            return criterion(input, target)
        finally:
            criterion._modules["loss"] = inner

    def get_extra_state(self) -> Tensor:
        """Return function and calls as bytes."""
        text = f"{STATE}:{self.function}:{','.join(map(str, self.calls))}"
        return torch.tensor(list(text.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Accept the state; :func:`attach` was called with it before."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Weights that were saved without it load strictly
        key = f"{prefix}_extra_state"
        added = {} if key in state_dict else {key: self.get_extra_state()}
        super()._load_from_state_dict(state_dict | added, prefix, *args)


def _with_options(loss: nn.Module, options: dict[str, Any]) -> nn.Module:
    """Return a shallow copy with the options of a call, which may differ from batch to batch; so for losses within."""
    twin = copy.copy(loss)
    twin._buffers = dict(loss._buffers)
    twin._modules = {name: each and _with_options(each, options) for name, each in loss._modules.items()}
    for name, value in options.items():
        if name in twin._buffers:
            twin._buffers[name] = value
        elif name in vars(twin) and name != "label_smoothing":
            vars(twin)[name] = value
    return twin


class InlineStep:
    """``training_step`` of a module, with calls of loss functions replaced.

    An object with a reference to the module, so that copying and pickling the module carries it along.
    """

    def __init__(self, module: nn.Module, inner: Callable[..., Any] | None) -> None:
        self.module = module
        self.inner = inner

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The method whose signature Lightning reads."""
        return self.inner or getattr(type(self.module), "training_step").__get__(self.module)  # noqa: B009

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step."""
        places = [child for child in self.module._modules.values() if isinstance(child, InlineLoss)]

        def replaced(func: Any, name: str | None, index: int, args: Any, kwargs: dict[str, Any]) -> Any:
            for place in places:
                if place.function == name and index in place.calls:
                    return place.replace(args, kwargs)
            return func(*args, **kwargs)

        with Intercepting(replaced):
            return self.__wrapped__(*args, **kwargs)


class Intercepting(TorchFunctionMode):
    """Lets ``on_call`` answer calls of functions of torch: it gets the function, its name if it is a loss function that
    can be replaced, which call of that name it is, and the arguments.
    """

    def __init__(self, on_call: Callable[..., Any]) -> None:
        super().__init__()
        self.on_call = on_call
        self.counts: Counter[str | None] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = NAMES.get(func)
        self.counts[name] += 1
        return self.on_call(func, name, self.counts[name] - 1, args, kwargs or {})


def attach(module: nn.Module, name: str, function: str, calls: tuple[int, ...]) -> InlineLoss:
    """Return the submodule ``name`` that replaces these calls in ``training_step`` of ``module``, made if needed."""
    place = module._modules.get(name)
    if not isinstance(place, InlineLoss) or (place.function, place.calls) != (function, calls):
        place = InlineLoss(function, calls)
        module.add_module(name, place)
    step = vars(module).get("training_step")
    if not isinstance(step, InlineStep):
        vars(module)["training_step"] = InlineStep(module, step)
    return place


def detach(module: nn.Module, name: str) -> None:
    """Remove what :func:`attach` added under ``name``; do nothing if it added nothing."""
    if not isinstance(module._modules.get(name), InlineLoss):
        return
    delattr(module, name)
    step = vars(module).get("training_step")
    if isinstance(step, InlineStep) and not any(isinstance(each, InlineLoss) for each in module.children()):
        del vars(module)["training_step"]
        if step.inner is not None:
            vars(module)["training_step"] = step.inner


def read_state(state: Any) -> tuple[str, tuple[int, ...]] | None:
    """Function and calls that :meth:`InlineLoss.get_extra_state` wrote; ``None`` for the state of something else."""
    if getattr(state, "dtype", None) != torch.uint8:
        return None
    kind, *parts = bytes(state.tolist()).decode(errors="replace").split(":")
    if kind != STATE or len(parts) != 2 or parts[0] not in FUNCTIONS:
        return None
    return parts[0], tuple(int(part) for part in parts[1].split(",") if part.isdigit())


def bound(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Input, target, and the other arguments of a call of a loss function, by name, without those left at ``None``.

    Torch hands a call to modes with input and target by position, and all else by name.
    """
    input, target = args
    options = {name: value for name, value in kwargs.items() if value is not None}
    # Deprecated spellings of the reduction
    average, reduce = options.pop("size_average", None), options.pop("reduce", None)
    if average is not None or reduce is not None:
        options["reduction"] = _reduction.legacy_get_string(average, reduce)
    return input, target, options
