"""The search for a training loop in plain PyTorch: one function in, the loss out."""

from __future__ import annotations

import copy
import inspect
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from hashlib import sha256
from importlib.metadata import version
from os import PathLike
from typing import Any

from torch import nn

from tglo_lightning._version import __version__
from tglo_lightning.arguments import integer
from tglo_lightning.losses.registry import check_replaceable, loss_like, loss_name, loss_options
from tglo_lightning.search.interruption import InterruptibleEvaluator, interruptible
from tglo_lightning.search.journal import Journal, JournaledEvaluator
from tglo_lightning.search.loop import Evaluator, SearchSettings, search
from tglo_lightning.search.progress import SearchBar
from tglo_lightning.search.result import Evaluation, SearchResult
from tglo_lightning.search.seeding import random_states, seed_all
from tglo_lightning.search.space import Constraint

__all__ = ["FunctionEvaluator", "minimize"]

VERSIONS = ("torch", "cma", "numpy")


def minimize(
    fn: Callable[[nn.Module], Any],
    num_classes: int,
    *,
    original: Callable[..., Any] | None = None,
    generations: int = 10,
    population: int = 20,
    order: int = 3,
    sigma: float = 1.2,
    finalists: int = 5,
    repeats: int = 5,
    constraint: str | Constraint | None = "exact",
    parameterization: str = "minimal",
    seed: int = 0,
    journal: str | PathLike[str] | None = None,
    progress: bool = True,
) -> SearchResult:
    """Metalearn the loss that a training of your own is best with.

    ``fn`` gets a loss, trains a new network with it and returns the number to minimise, such as the error rate on
    validation data; for an accuracy return ``1 - accuracy``, never a value of the loss it was given, for that cannot
    compare losses. It is called ``generations * population`` times with candidates, then ``repeats`` times with each
    finalist and with ``original``, from fresh seeds. The better mean wins.

    Before each call the global generators of torch, numpy and Python are seeded, the same for all losses of a
    generation, so that all start from the same weights and see the same batches; afterwards they are put back. Leave
    the seeding to this: a ``fn`` that seeds itself trains the same network again in every repeat, and the error bars
    mean nothing. ``torch.initial_seed()`` is the seed, for generators of your own.

    A call that returns NaN or an infinite number, or raises, is a failed candidate, ranked worst.

    Args:
        fn: called with a loss, a module that takes the place of ``torch.nn.CrossEntropyLoss()``: logits and class
            indices or probabilities in, on any device that it was moved to by ``loss.to(device)``. Returns a number.
        num_classes: classes of the task.
        original: the loss to beat; ``None`` for ``torch.nn.CrossEntropyLoss()``. Candidates take over its class
            weights, ``ignore_index`` and reduction.
        generations: number of generations.
        population: candidates a generation.
        order: order of the polynomial.
        sigma: initial step size of CMA-ES.
        finalists: candidates that are trained again.
        repeats: fresh seeds a finalist.
        constraint: what must hold of a loss to be trained at all, see
            :class:`~tglo_lightning.search.SearchSettings`.
        parameterization: what is searched over: ``"minimal"``, ``"full"`` or ``"smoothed_ce"``.
        seed: seed of the search.
        journal: file that every finished training is written to. A search that was killed goes on from there when it
            is started again with the same code of ``fn``; what ``fn`` calls or reads is not watched.
        progress: show a progress bar.

    Returns:
        ``result.kept`` tells which loss won and ``result.loss(original)`` builds it; ``result.best`` and
        ``result.original`` have the figures, ``result.history`` every candidate.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range, by its name; a ``fn`` that returns no
            number.
        RuntimeError: every candidate of the first generation raised, so the fault is in ``fn``; its error is the cause.
        SearchError: no candidate of a generation could be trained, for other reasons.

    >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> y = x[:, :3].argmax(1)
    >>> def error(loss):
    ...     net = torch.nn.Linear(8, 3)
    ...     optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    ...     for _ in range(5):
    ...         optimizer.zero_grad()
    ...         loss(net(x[:32]), y[:32]).backward()
    ...         optimizer.step()
    ...     return (net(x[32:]).argmax(1) != y[32:]).float().mean()
    >>> result = minimize(error, 3, generations=2, population=6, finalists=1, repeats=3, progress=False)
    >>> result.candidates, len(result.original.fitness)
    (12, 3)
    >>> criterion = result.loss()  # TaylorGLOLoss, or CrossEntropyLoss where nothing beat that
    """
    if not callable(fn):
        raise TypeError(f"`fn` must be a function of a loss, got {fn!r}.")
    if original is None:
        original = nn.CrossEntropyLoss()
    check_replaceable(original, "`original`")
    settings = SearchSettings(
        generations=generations,
        population=population,
        order=order,
        sigma=sigma,
        finalists=finalists,
        repeats=repeats,
        constraint=constraint,
        parameterization=parameterization,
        seed=seed,
    )
    options = [loss_options(original)]
    num_classes = integer("num_classes", num_classes, 2)
    name = getattr(fn, "__name__", type(fn).__name__)
    with ExitStack() as stack:
        called = FunctionEvaluator(fn, original, num_classes=num_classes)
        evaluator: Evaluator = InterruptibleEvaluator(called, stack.enter_context(interruptible()))
        if journal is not None:
            header = {
                "settings": settings.to_dict(),
                "classes": num_classes,
                "source": _source(fn),
                "original": loss_name(original),
                "options": repr(original) if isinstance(original, nn.Module) else "",
                "original_options": options,
                "monitor": name,
                "mode": "min",
                "evaluator": FunctionEvaluator.name,
                "versions": {"tglo-lightning": __version__, **{package: version(package) for package in VERSIONS}},
            }
            opened = Journal(journal, header)
            stack.callback(opened.close)
            evaluator = recorded = JournaledEvaluator(evaluator, opened, settings)
            called.proven = recorded.replayed > 0
        bar = stack.enter_context(SearchBar(settings, name, disable=not progress))
        result = search(
            evaluator,
            settings,
            num_classes=num_classes,
            monitor=name,
            mode="min",
            original_name=loss_name(original),
            listener=bar,
        )
    result.settings |= {"evaluator": FunctionEvaluator.name, "original_options": options}
    _doubt(result)
    return result


class FunctionEvaluator:
    """Scores losses by a function that trains with them.

    Args:
        fn: gets a loss and returns a number.
        original: the loss that is called the original; candidates take over its options.
        num_classes: classes that the logits must have; None for any number.
        proven: ``fn`` has returned a number before. Until it has, failures are held back, and a first generation of
            nothing else is an error.
    """

    name = "function"

    def __init__(
        self,
        fn: Callable[[nn.Module], Any],
        original: Callable[..., Any],
        *,
        num_classes: int | None = None,
        proven: bool = False,
    ) -> None:
        self.fn = fn
        self.original = original
        self.num_classes = num_classes
        self.proven = proven

    def evaluate(self, thetas: Sequence[list[float] | None], seed: int) -> Iterator[Evaluation]:
        """One call of the function for each ``theta``, in order; ``None`` stands for the original loss."""
        held: list[Evaluation] = []
        for theta in thetas:
            loss: Any = copy.deepcopy(self.original) if theta is None else loss_like(self.original, theta)
            started = time.perf_counter()
            cause: Exception | None = None
            try:
                value = self._call(loss, seed)
            except WrongClasses:
                raise
            except Exception as error:
                cause = error
                held.append(Evaluation(math.nan, "crashed", time.perf_counter() - started, _in_words(error)))
            else:
                held.append(Evaluation(_number(value), "ok", time.perf_counter() - started))
                self.proven = True
            if self.proven:
                yield from held
                held.clear()
        if held:
            raise RuntimeError(
                f"`fn` failed with each of the {len(held)} losses of the first generation, the last time with "
                f"{held[-1].error}. The fault will be in `fn`: it must work with any loss of (logits, class "
                "targets), and move it to the network's device by `loss.to(device)`."
            ) from cause

    def _call(self, loss: Any, seed: int) -> Any:
        called: set[int] = set()
        hook = None
        if not self.proven and isinstance(loss, nn.Module):
            hook = loss.register_forward_pre_hook(lambda _, arguments: called.update(_classes(arguments)))
        with random_states():
            seed_all(seed)
            value = self.fn(loss)
        if hook is not None:
            hook.remove()
            if not called:
                warnings.warn(
                    "`fn` did not call the loss that it was given, so every candidate trains alike. Call it in place "
                    "of your own: loss(logits, target).",
                    stacklevel=6,
                )
            elif self.num_classes is not None and self.num_classes not in called:
                raise WrongClasses(
                    f"`num_classes` is {self.num_classes}, but `fn` called the loss with logits of "
                    f"{' and '.join(map(str, sorted(called)))} classes."
                )
        return value


class WrongClasses(ValueError):
    """The logits have another number of classes than the search was told."""


def _classes(arguments: tuple[Any, ...]) -> set[int]:
    """The number of classes of the logits that a loss was called with; 0 where they are none."""
    logits = arguments[0] if arguments else None
    shape = tuple(getattr(logits, "shape", ()))
    return {shape[min(1, len(shape) - 1)] if shape else 0}


def _source(fn: Any) -> str:
    """A hash of the code of ``fn``; empty where Python does not know it."""
    try:
        return sha256(inspect.getsource(fn).encode()).hexdigest()[:12]
    except (OSError, TypeError):
        return ""


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _number(value: Any) -> float:
    try:
        if not isinstance(value, str | bytes):
            return float(value)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise TypeError(f"`fn` must return the number to minimise, got {value!r}.")


def _doubt(result: SearchResult) -> None:
    """Warn of finals that cannot tell one seed from another."""
    if not result.seeds_matter:
        warnings.warn(
            f"Each finalist, and the original loss, gave the same number from {len(result.original.fitness)} seeds. "
            f"Either {result.monitor} seeds generators itself, and the comparison counts as a single seed, or what it "
            "returns is too coarse to compare losses by.",
            stacklevel=3,
        )
