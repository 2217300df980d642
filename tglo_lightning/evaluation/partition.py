"""How a compiled graph is divided into forward and backward on a CPU. Imports torch's compiler."""

from __future__ import annotations

from typing import Any

from functorch.compile import default_partition  # type: ignore[import-untyped, unused-ignore]
from torch._inductor.custom_graph_pass import CustomPartitionerFn

__all__ = ["SaveAll"]


class SaveAll(CustomPartitionerFn):  # type: ignore[misc, unused-ignore]
    """Hands backward what it needs of forward, and recomputes nothing."""

    def __call__(self, gm: Any, joint_inputs: Any, **kwargs: Any) -> Any:
        """The forward and the backward graph of a joint one."""
        kwargs.pop("compiler", None)
        return default_partition(gm, joint_inputs, **kwargs)

    def uuid(self) -> str:
        """Names the partition in the compiler's cache."""
        return "tglo_lightning.SaveAll"
