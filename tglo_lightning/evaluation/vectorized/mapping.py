"""Maps a function over stacks as :func:`torch.func.vmap` does, and reaches the stacks from within.

A function that knows how to treat a whole stack at once is quicker than one that is mapped over it operation by
operation. How to do so are calls that torch keeps to itself, and all of them that this package makes are here. They are
tried once; where a version of torch does not have them, or means something else by them, everything is left to
:func:`torch.func.vmap`, with the same results, more slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

try:
    from torch._C import _functorch as functorch
except ImportError:
    functorch: Any = None  # type: ignore[no-redef]

__all__ = ["map_again", "on_stacks"]


def on_stacks(function: Callable[..., Tensor], *values: Tensor) -> Tensor | None:
    """The result of ``function`` on whole stacks, called where :func:`torch.func.vmap` maps over them.

    Args:
        function: takes the stacks of ``values``, candidates first, 1 where all share the value; returns a stack.
        values: tensors as they look within.

    Returns:
        The result as it looks within; ``None`` where nothing is mapped over at this level, or there is no reaching the
        stacks.
    """
    return _on_stacks(function, *values) if REACHABLE else None


def map_again(function: Callable[[Sequence[Tensor]], Tensor], size: int, values: Sequence[Tensor]) -> Tensor:
    """``torch.func.vmap(function, randomness="different")`` without looking for what there is to map.

    Args:
        function: takes the values of one candidate.
        size: number of candidates.
        values: stacks, candidates first.
    """
    if REACHABLE:
        return _map(function, size, values)
    mapped: Callable[..., Tensor] = torch.func.vmap(lambda *own: function(own), randomness="different")
    return mapped(*values)


def _on_stacks(function: Callable[..., Tensor], *values: Tensor) -> Tensor | None:
    layer = functorch.peek_interpreter_stack()
    if layer is None or layer.key() != functorch.TransformType.Vmap:
        return None
    level = layer.level()
    pairs = [functorch._unwrap_batched(value, level) for value in values]
    if all(dim is None for _, dim in pairs):
        return None
    stacks = [value[None] if dim is None else value.movedim(dim, 0) if dim else value for value, dim in pairs]
    # Out of the layer, or each operation would go through it
    popped = functorch.pop_dynamic_layer_stack()
    try:
        result = function(*stacks)
    finally:
        functorch.push_dynamic_layer_stack(popped)
    within: Tensor = functorch._add_batch_dim(result, 0, level)
    return within


def _map(function: Callable[[Sequence[Tensor]], Tensor], size: int, values: Sequence[Tensor]) -> Tensor:
    level = functorch._vmap_increment_nesting(size, "different")
    try:
        result = function([functorch._add_batch_dim(value, 0, level) for value in values])
        stack: Tensor = functorch._remove_batch_dim(result, level, size, 0)
    finally:
        functorch._vmap_decrement_nesting()
    return stack


def _reachable() -> bool:
    """Whether torch's inner calls do what they are here for: a small product with its gradient."""
    left, right = torch.arange(6.0, device="cpu").view(3, 2), torch.tensor([2.0, 3.0], device="cpu")

    def product(own: Sequence[Tensor]) -> Tensor:
        result = _on_stacks(lambda x, y: (x * y).sum(dim=1), own[0], right)
        assert result is not None
        assert _on_stacks(torch.neg, right) is None
        return result + own[0][0]

    try:
        with torch.enable_grad():
            left.requires_grad_()
            stack = _map(product, 3, [left])
        (gradient,) = torch.autograd.grad(stack.sum(), left)
    except Exception:
        return False
    return bool(
        stack.tolist() == [3.0, 15.0, 27.0]
        and gradient.tolist() == [[3.0, 3.0]] * 3
        and functorch.peek_interpreter_stack() is None
    )


REACHABLE = _reachable()
