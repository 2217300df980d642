"""Where a module keeps its loss: read it, replace it, find it in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tglo_lightning.losses import SeparableLoss, TaylorGLOLoss, taylorglo_like

__all__ = ["LossSlot", "restore_loss"]

# Losses of torch whose targets are class indices or probabilities, and whose inputs are logits or log-probabilities
REPLACEABLE = (nn.CrossEntropyLoss, nn.NLLLoss)


class LossSlot:
    """The attribute of a module that holds its loss.

    Args:
        path: dotted path from the module, such as ``"criterion"`` or ``"head.criterion"``.
    """

    def __init__(self, path: str) -> None:
        if not isinstance(path, str):
            raise TypeError(f"`loss` must be the path of an attribute, such as 'criterion', got {path!r}.")
        if not path or not all(part.isidentifier() or part.isdigit() for part in path.split(".")):
            raise ValueError(f"`loss` must be the path of an attribute, such as 'criterion', got {path!r}.")
        self.path = path

    def get(self, module: nn.Module) -> Any:
        """The loss of ``module``.

        Raises:
            ValueError: there is no such attribute, or it is no loss that TaylorGLO can replace.
        """
        owner: Any = module
        for part in self.path.split("."):
            if not hasattr(owner, part):
                raise ValueError(_missing(module, self.path, part))
            owner = getattr(owner, part)
        if not callable(owner):
            raise ValueError(f"`loss={self.path!r}`: {type(module).__name__}.{self.path} is {owner!r}, not a loss.")
        if isinstance(owner, nn.modules.loss._Loss) and not isinstance(owner, (*REPLACEABLE, SeparableLoss)):
            raise ValueError(
                f"`loss={self.path!r}`: {type(module).__name__}.{self.path} is a {type(owner).__name__}. TaylorGLO "
                "replaces losses of (logits, class targets), such as torch.nn.CrossEntropyLoss."
            )
        return owner

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

    def install(self, module: nn.Module, theta: list[float] | Tensor) -> None:
        """Put the TaylorGLO loss with parameters ``theta`` into its place, options taken over, on the right device."""
        loss = taylorglo_like(self.get(module), theta)
        like = next(module.parameters(), None)
        self.set(module, loss if like is None else loss.to(like.device))

    def name(self, module: nn.Module) -> str:
        """What the present loss is called."""
        loss = self.get(module)
        return type(loss).__name__ if isinstance(loss, nn.Module) else getattr(loss, "__name__", repr(loss))


def _missing(module: nn.Module, path: str, part: str) -> str:
    kind = type(module).__name__
    losses = [
        name for name, child in module.named_modules() if isinstance(child, nn.modules.loss._Loss | SeparableLoss)
    ]
    advice = (
        f"Losses found: {', '.join(map(repr, losses))}; pass one of them as `loss=`."
        if losses
        else "If training_step calls F.cross_entropy, write `self.criterion = torch.nn.CrossEntropyLoss()` in "
        f"{kind}.__init__, call self.criterion(logits, target) in training_step, and pass loss='criterion'."
    )
    return f"`loss={path!r}`: {kind} has no attribute {part!r}. {advice}"


def restore_loss(module: nn.Module, state_dict: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Give ``module`` the metalearned losses of a ``state_dict``, where it still builds another loss.

    Args:
        module: the module, its losses under the attributes they had when the checkpoint was written.
        state_dict: weights of a module of the same class with a metalearned loss.
        prefix: what stands before the names of ``module`` in ``state_dict``.

    Returns:
        The paths of the losses that were replaced.
    """
    replaced = []
    for key, theta in state_dict.items():
        if not (key.startswith(prefix) and key.endswith(".theta")):
            continue
        path = key[len(prefix) : -len(".theta")]
        slot = LossSlot(path)
        try:
            present = slot.get(module)
        except ValueError:
            continue
        if isinstance(present, TaylorGLOLoss) and present.theta.shape == theta.shape:
            continue
        slot.install(module, theta)
        replaced.append(path)
    return replaced
