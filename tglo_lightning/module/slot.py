"""Where a module keeps its loss: read it, replace it, find it in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import nn

from tglo_lightning.losses import FAMILIES, FamilyLoss, loss_options
from tglo_lightning.losses.registry import FUNCTIONS, check_replaceable, loss_name
from tglo_lightning.module.inline import InlineLoss, OriginalCall, attach, detach, read_state
from tglo_lightning.search import Criterion, LossSpec

EXTRA = "_extra_state"
# Attribute of a loss with the one whose place it took, in a tuple, so that it is no submodule
REPLACED = "_replaced"


class LossSlot:
    """The attribute of a module that holds its loss.

    Args:
        path: dotted path from the module, such as ``"criterion"`` or ``"head.criterion"``.

    Attributes:
        label: what the argument ``loss`` calls it.
        reduction: reduction of the present loss, if it is not among its attributes.
    """

    reduction: str | None = None

    def __init__(self, path: str) -> None:
        named = isinstance(path, str)
        if not named or not all(part.isidentifier() or part.isdigit() for part in path.split(".")):
            kind = ValueError if named else TypeError
            raise kind(f"`loss` must be the path of an attribute, such as 'criterion', got {path!r}.")
        self.path = self.label = path

    def get(self, module: nn.Module) -> Any:
        """The loss of ``module``.

        Raises:
            ValueError: there is no such attribute, or it is no loss that TaylorGLO can replace.
        """
        kind, argument = type(module).__name__, f"`loss={self.path!r}`"
        owner: Any = module
        loss: Any = module
        for part in self.path.split("."):
            owner = loss
            if isinstance(owner, dict | list | tuple):
                raise ValueError(
                    f"{argument}: {part!r} is in a plain {type(owner).__name__} of {kind}, which is no part of its "
                    "state. Keep losses in a torch.nn.ModuleDict or ModuleList, under the same path."
                )
            if not hasattr(owner, part):
                known = nn.modules.loss._Loss | FamilyLoss
                losses = ", ".join(repr(name) for name, child in module.named_modules() if isinstance(child, known))
                advice = f"Losses found: {losses}; pass one of them as `loss=`."
                advice = advice if losses else "Leave out `loss=` to let it be found."
                raise ValueError(f"{argument}: {kind} has no attribute {part!r}. {advice}")
            loss = getattr(owner, part)
        check_replaceable(loss, f"{argument}: {kind}.{self.path}")
        if not isinstance(owner, nn.Module):
            raise ValueError(
                f"{argument}: its owner is a {type(owner).__name__}. Keep the loss in a torch.nn.Module, so that "
                "checkpoints hold what is found."
            )
        if hasattr(type(owner), part):
            raise ValueError(
                f"{argument}: {type(owner).__name__}.{part} belongs to the class, so it cannot be replaced. Write "
                "`self.criterion = torch.nn.CrossEntropyLoss()` in its __init__, call that, and pass loss='criterion'."
            )
        return loss

    def set(self, module: nn.Module, loss: Any) -> None:
        """Put ``loss`` into its place."""
        *parents, name = self.path.split(".")
        owner: Any = module
        for part in parents:
            owner = getattr(owner, part)
        if name in getattr(owner, "_modules", {}) and not isinstance(loss, nn.Module):
            # torch refuses a plain function where a submodule was
            delattr(owner, name)
        setattr(owner, name, loss)

    def install(self, module: nn.Module, spec: LossSpec) -> None:
        """Put a loss into its place, with the options of the present one, on the module's device."""
        present = self.get(module)
        loss = spec.build(present)
        vars(loss)[REPLACED] = vars(present).get(REPLACED, (present,)) if hasattr(present, "__dict__") else (present,)
        loss.reduction = self.reduction or loss.reduction
        like = next(module.parameters(), None)
        self.set(module, loss if like is None else loss.to(like.device))

    def holds(self, module: nn.Module, spec: LossSpec) -> bool:
        """Whether the loss in its place is ``spec`` already."""
        loss = self.get(module)
        return isinstance(loss, FamilyLoss) and (spec.family, spec.theta) == (loss.family, tuple(loss.theta.tolist()))

    def name(self, module: nn.Module) -> str:
        """What the present loss is called."""
        return loss_name(self.get(module))


class InlineSlot(LossSlot):
    """Calls of a loss function in ``training_step``.

    Args:
        name: ``"F.cross_entropy"``, or ``"F.cross_entropy#2"`` for the second line that calls it.
        calls: which calls of the function in ``training_step`` come from that line, counted from 0.
        options: arguments of the first of them, beside input and target.
    """

    def __init__(self, name: str, calls: Sequence[int] = (), options: Mapping[str, Any] | None = None) -> None:
        self.function, _, number = name.removeprefix("F.").partition("#")
        if self.function not in FUNCTIONS or not (number.isdigit() if "#" in name else True):
            known = ", ".join(f"'F.{function}'" for function in FUNCTIONS)
            raise ValueError(f"`loss` must name one of {known}, or a second line by 'F.cross_entropy#2', got {name!r}.")
        self.attribute = f"inline_{self.function}{'_' * bool(number)}{number}"
        super().__init__(f"{self.attribute}.criterion")
        self.label, self.calls, self.options = name, tuple(calls), dict(options or {})

    def get(self, module: nn.Module) -> Any:
        """The loss that replaces the calls, or a module that stands for them."""
        place = module._modules.get(self.attribute)
        return place.criterion if isinstance(place, InlineLoss) else OriginalCall(self.function, self.options)

    def set(self, module: nn.Module, loss: Any) -> None:
        """Let ``training_step`` call ``loss``."""
        attach(module, self.attribute, self.function, self.calls).criterion = loss


class LossSlots(list[LossSlot]):
    """The attributes that hold the losses which are searched for together.

    Args:
        paths: one path, or several; see :class:`LossSlot`.

    Raises:
        TypeError, ValueError: no path, or one twice.
    """

    def __init__(self, paths: str | Sequence[str]) -> None:
        super().__init__(map(LossSlot, loss_names(paths)))

    @classmethod
    def of(cls, slots: Sequence[LossSlot]) -> LossSlots:
        """Return these slots together."""
        together = cls.__new__(cls)
        together.extend(slots)
        return together

    @property
    def paths(self) -> list[str]:
        """Where the losses are, or will be, in the module."""
        return [slot.path for slot in self]

    def to_list(self) -> list[dict[str, Any]]:
        """Return plain values."""
        return [{"name": s.label, "calls": list(getattr(s, "calls", ())), "reduction": s.reduction} for s in self]

    @classmethod
    def from_list(cls, values: Sequence[Mapping[str, Any]]) -> LossSlots:
        """Return the slots that :meth:`to_list` described."""
        slots = [
            InlineSlot(entry["name"], entry["calls"]) if entry["name"].startswith("F.") else LossSlot(entry["name"])
            for entry in values
        ]
        for slot, entry in zip(slots, values, strict=True):
            slot.reduction = entry["reduction"]
        return cls.of(slots)

    def install(self, module: nn.Module, criterion: Criterion) -> None:
        """Put the losses of a criterion into their places, unless they are there; the module's own stay."""
        for slot, spec in zip(self, criterion.losses, strict=False):
            if not slot.holds(module, spec):
                slot.install(module, spec)

    def options(self, module: nn.Module) -> list[dict[str, Any]]:
        """The options of the present losses, see :func:`~tglo_lightning.losses.loss_options`."""
        return [loss_options(slot.get(module)) for slot in self]

    def name(self, module: nn.Module) -> str:
        """What the present losses are called."""
        return ", ".join(slot.name(module) for slot in self)


def loss_names(loss: str | Sequence[str]) -> list[str]:
    """Return the names that the argument ``loss`` holds: paths of attributes, or such as ``"F.cross_entropy#2"``.

    Raises:
        TypeError, ValueError: no name, one twice, or one that is malformed.
    """
    if not isinstance(loss, str) and not isinstance(loss, Sequence):
        raise TypeError(f"`loss` must be the path of an attribute, or a list of paths, got {loss!r}.")
    names = [loss] if isinstance(loss, str) else list(loss)
    for name in names:
        InlineSlot(name) if isinstance(name, str) and name.startswith("F.") else LossSlot(name)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"`loss` must hold at least one path, and none twice, got {loss!r}.")
    return names


def restore_loss(module: nn.Module, state_dict: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Give ``module`` the losses that a ``state_dict`` was saved with, where it still builds others.

    Args:
        module: the module, its losses under the attributes they had when the checkpoint was written.
        state_dict: weights of a module of the same class with a metalearned loss.
        prefix: what stands before the names of ``module`` in ``state_dict``.

    Returns:
        The paths of the losses that were replaced.
    """
    replaced = []
    for key, state in state_dict.items():
        if key.startswith(prefix) and key.endswith(f".{EXTRA}") and (call := read_state(state)) is not None:
            attach(module, key[len(prefix) : -len(EXTRA) - 1], *call)
    for path, spec in stored_losses(state_dict, prefix).items():
        slot = LossSlot(path)
        parent, _, name = path.rpartition(".")
        try:
            if not hasattr(module.get_submodule(parent), name):  # it is made later, such as in `setup`
                slot.set(module, spec.build())
            elif not slot.holds(module, spec):
                slot.install(module, spec)
            else:
                continue
        except (AttributeError, ValueError):  # nothing that can be replaced is there
            continue
        replaced.append(path)
    return replaced


def restore_original(module: nn.Module) -> list[str]:
    """Give ``module`` the losses back that metalearned ones have replaced, in place.

    Afterwards its ``state_dict`` fits the class as it is without this package.

    Returns:
        The paths of the losses, such as ``["criterion"]``; empty if none was replaced.
    """
    replaced = {
        path: loss
        for path, loss in module.named_modules()
        if path and isinstance(loss, FamilyLoss) and REPLACED in vars(loss)
    }
    for path, loss in replaced.items():
        (original,) = vars(loss)[REPLACED]
        if isinstance(original, nn.Module):
            original.to(loss.theta.device).train(loss.training)
        LossSlot(path).set(module, original)
        owner, _, place = path.removesuffix(".criterion").rpartition(".")
        detach(module.get_submodule(owner), place)
    return list(replaced)


def stored_losses(state_dict: Mapping[str, Any], prefix: str = "") -> dict[str, LossSpec]:
    """Return the losses of a family whose parameters a ``state_dict`` holds, by their paths."""
    found: dict[str, LossSpec] = {}
    for key, name in state_dict.items():
        if not (isinstance(key, str) and key.startswith(prefix) and key.endswith(f".{EXTRA}")):
            continue
        path = key[len(prefix) : -len(EXTRA) - 1]
        theta = state_dict.get(f"{prefix}{path}.theta")
        if not _is_vector(name) or not _is_vector(theta) or name.dtype != torch.uint8 or not theta.is_floating_point():
            continue
        family = bytes(name.tolist()).decode(errors="replace")
        if family in FAMILIES:
            found[path] = LossSpec(family, tuple(theta.tolist()))
    return found


def _is_vector(value: Any) -> TypeGuard[torch.Tensor]:
    return isinstance(value, torch.Tensor) and value.dim() == 1 and value.layout == torch.strided and not value.is_meta
