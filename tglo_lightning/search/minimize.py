"""The search for a training loop in plain PyTorch: one function in, the loss out."""

from __future__ import annotations

import copy
import inspect
import math
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from os import PathLike
from typing import Any

from torch import nn

from tglo_lightning._version import __version__
from tglo_lightning.arguments import integer
from tglo_lightning.losses.registry import check_replaceable, kind_of, loss_name, loss_options
from tglo_lightning.search.budget import Budget
from tglo_lightning.search.criterion import Criterion
from tglo_lightning.search.evaluator import Evaluation, Evaluator
from tglo_lightning.search.files import journal_path, result_path
from tglo_lightning.search.interruption import interruptible
from tglo_lightning.search.journal import Journal
from tglo_lightning.search.loop import search
from tglo_lightning.search.progress import SearchBar
from tglo_lightning.search.rate import scaled_rates
from tglo_lightning.search.result import SearchResult
from tglo_lightning.search.seeding import random_states, saved_states, seed_all
from tglo_lightning.search.settings import Objective, SearchSettings
from tglo_lightning.search.summary import warn_of_seeds
from tglo_lightning.search.walker import code_of

VERSIONS = ("torch", "cma", "numpy")


def minimize(
    fn: Callable[[nn.Module], Any],
    num_classes: int,
    *,
    original: Callable[..., Any] | None = None,
    settings: SearchSettings | None = None,
    journal: str | PathLike[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> SearchResult:
    """Metalearn the loss that a training of your own is best with.

    ``fn`` gets a loss, trains a new network with it and returns the number to minimise, such as the error rate on
    validation data: never a value of the loss it was given, for that cannot compare losses. It is called with the
    candidates, then in the finals with the best of them and with ``original``, from fresh seeds. ``original`` is kept
    unless the winner is confirmed, see :class:`~tglo_lightning.search.Finals`.

    A ``fn`` that yields numbers instead, one after each epoch or so, can be stopped on the way by strategies that look
    at candidates while they train; ``budget`` is then how many numbers to take.

    Before each call the global generators of torch, numpy and Python are seeded, the same for all losses of a
    generation, so that all start from the same weights and see the same batches; afterwards they are put back. A ``fn``
    that seeds itself trains the same network again from every seed, and the error bars mean nothing.
    ``torch.initial_seed()`` is the seed, for generators of your own.

    If the learning rate is searched as well, the torch optimizers and schedules that ``fn`` builds run at the
    candidate's factor times their rates. A call that returns NaN or an infinite number, or raises, is a failed
    candidate, ranked worst.

    Args:
        fn: called with a loss, a module that takes the place of ``original``; for ``torch.nn.CrossEntropyLoss()``
            logits and class indices or probabilities in, on any device that it was moved to by ``loss.to(device)``.
        num_classes: classes of the task; 2 where ``original`` is a loss of binary, multi-label or continuous targets.
        original: the loss to beat; ``None`` for ``torch.nn.CrossEntropyLoss()``. Candidates are for the same kind of
            target and take over its weights, ``ignore_index`` and reduction.
        settings: the arguments of the search.
        journal: file that every finished training is written to; the result is written beside it, as ``.json``. A
            search that was killed goes on from there when it is started again with the same ``fn``: its code, that of
            the functions and classes it leads to, and the numbers, strings and tensors that these read.
        options: attributes of :class:`~tglo_lightning.search.SearchSettings`, such as ``generations=3``, in place of
            ``settings``.

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
    >>> result = minimize(error, 3, generations=2, population=6, finals=3, progress=False)
    >>> result.candidates, len(result.original.fitness)
    (12, 3)
    >>> criterion = result.loss()  # TaylorGLOLoss, or CrossEntropyLoss if nothing beat that
    """
    if not callable(fn):
        raise TypeError(f"`fn` must be a function of a loss, got {fn!r}.")
    settings = settings_of(settings, options)
    if original is None:
        original = nn.CrossEntropyLoss()
    check_replaceable(original, "`original`")
    if kind := kind_of(original):
        settings = settings.for_kind(kind)
    name = getattr(fn, "__name__", type(fn).__name__)
    objective = Objective(
        integer("num_classes", num_classes, 2), name, "min", loss_name(original), (loss_options(original),)
    )
    evaluator = FunctionEvaluator(fn, original, num_classes if kind in (None, "classes") else None, settings.budget)
    result = run(evaluator, [evaluator], settings, objective, journal, progress)
    warn_of_seeds(result, "If `fn` seeds generators itself, leave that to the search.")
    return result


def settings_of(settings: SearchSettings | None, options: dict[str, Any]) -> SearchSettings:
    """Return settings for one loss, given as a whole or by their attributes."""
    if settings is not None and options:
        raise TypeError(f"Give either `settings` or {', '.join(options)}.")
    return (SearchSettings(**options) if settings is None else settings).for_places(1)


def run(
    evaluator: Evaluator,
    tasks: Sequence[FunctionEvaluator],
    settings: SearchSettings,
    objective: Objective,
    journal: str | PathLike[str] | None,
    progress: bool | SearchBar,
    **more: Any,
) -> SearchResult:
    """Search with a journal and a progress bar; write the result beside the journal.

    ``tasks`` are the functions behind ``evaluator``; ``more`` goes into the header of the journal.
    """
    original, space = tasks[0].original, settings.space
    header = {
        "settings": settings.identity,
        "classes": objective.num_classes,
        "code": code_of(*(t.fn for t in tasks), settings.strategy, space, getattr(space, "constraint", None)),
        "original": objective.original,
        "options": repr(original) if isinstance(original, nn.Module) else "",
        "original_options": list(objective.options),
        "monitor": objective.monitor,
        "mode": objective.mode,
        "evaluator": evaluator.name,
        "versions": {"tglo-lightning": __version__, **{package: version(package) for package in VERSIONS}},
        **more,
    }
    with ExitStack() as stack:
        check = stack.enter_context(interruptible())
        opened = None
        if (path := journal_path(journal)) is not None:
            opened = Journal(path, header)
            stack.callback(opened.close)
            for task in tasks:
                task.proven = opened.recorded > 0
        if not isinstance(progress, SearchBar):
            progress = SearchBar(settings, objective.monitor, disable=not progress)
        bar = stack.enter_context(progress)
        result = search(evaluator, settings, objective, journal=opened, listener=bar, check=check)
        if opened is not None:
            result.save(result_path(opened.path))
    return result


@dataclass
class FunctionEvaluator:
    """Scores losses by a function that trains with them.

    Attributes:
        fn: gets a loss; returns a number, or yields numbers.
        original: the loss that is called the original; candidates take over its options.
        num_classes: classes that the logits must have; None for any number.
        budget: how many numbers to take from a function that yields, within which time.
        proven: ``fn`` has returned a number before. Until it has, failures are held back, and a first generation of
            nothing else is an error.
    """

    fn: Callable[[nn.Module], Any]
    original: Callable[..., Any]
    num_classes: int | None
    budget: Budget
    proven: bool = False
    name: str = "function"
    shares_passes: bool = False

    def start(self, criteria: Sequence[Criterion], seed: int) -> FunctionPopulation:
        """Start one call of the function for each criterion."""
        return FunctionPopulation(self, criteria, seed)


class FunctionPopulation:
    """Calls of a function, one for each criterion, that can wait at each number they yield."""

    def __init__(self, evaluator: FunctionEvaluator, criteria: Sequence[Criterion], seed: int) -> None:
        self.evaluator = evaluator
        self.length = max(1, evaluator.budget.length)
        self.trained = 0
        self.members = list(range(len(criteria)))
        self._calls = [_Call(evaluator, criterion, seed) for criterion in criteria]

    def advance(self, n: int) -> None:
        """Let each call go on for ``n`` numbers, once scores are asked for."""
        self.trained = min(self.trained + n, self.length)

    def scores(self) -> Iterator[Evaluation]:
        """Yield the last number of each call."""
        held: list[Evaluation] = []
        cause: Exception | None = None
        for call in [self._calls[member] for member in self.members]:
            held.append(call.run(self.trained))
            cause = call.error or cause
            self.evaluator.proven |= held[-1].status == "ok"
            if self.evaluator.proven:
                yield from held
                held.clear()
        if held:
            raise RuntimeError(
                f"`fn` failed with each of the {len(held)} losses of the first generation, the last time with "
                f"{held[-1].error}. The fault will be in `fn`: it must work with any loss of (logits, class "
                "targets), and move it to the network's device by `loss.to(device)`."
            ) from cause

    def keep(self, members: Sequence[int]) -> None:
        """End the other calls."""
        for member in set(self.members) - set(members):
            self._calls[member].close()
        self.members = sorted(members)

    def weights(self, member: int) -> dict[str, Any]:
        """Not known: the network is the function's own."""
        raise NotImplementedError("The weights of a network that `fn` trains are not known.")

    def close(self) -> None:
        """End all calls."""
        self.keep([])


class _Call:
    """One call of a function: its progress, its random states and its last number."""

    def __init__(self, evaluator: FunctionEvaluator, criterion: Criterion, seed: int) -> None:
        self.evaluator, self.criterion, self.seed = evaluator, criterion, seed
        self.error: Exception | None = None
        self._taken = 0
        self._last: Evaluation | None = None
        self._value: Any = None
        self._running: Iterator[Any] | None = None
        self._resume: Callable[[], None] = lambda: None

    def run(self, until: int) -> Evaluation:
        """Go on until so many numbers were taken, if the function yields; else call it once."""
        if self._last is not None and (self._running is None or self._taken >= until):
            return self._last
        before, started = 0.0 if self._last is None else self._last.seconds, time.perf_counter()
        words: str | None = None
        limit = None if self.criterion.is_original else self.evaluator.budget.timeout
        try:
            with random_states(), scaled_rates(self.criterion.step) as built:
                if self._last is None:
                    self._begin(built)
                self._resume()
                while self._running is not None and self._taken < until:
                    self._take()
                    if limit is not None and time.perf_counter() - started > limit - before:
                        raise TimedOut(f"not done within timeout={limit:g} s")
                self._resume = saved_states()
            fitness, status = _number(self._value), "ok"
        except (WrongType, WrongValue):
            raise
        except Exception as error:
            self.error, self._running = error, None
            timed_out = isinstance(error, TimedOut)
            words = str(error) if timed_out else f"{type(error).__name__}: {error}"
            fitness, status = math.nan, "timeout" if timed_out else "crashed"
        self._last = Evaluation(fitness, status, before + time.perf_counter() - started, words)
        return self._last

    def close(self) -> None:
        """End the function, if it waits."""
        if isinstance(self._running, Generator):
            self._running.close()
        self._running = None

    def _begin(self, built: Sequence[Any]) -> None:
        """Call the function; if it yields, to its first number."""
        criterion, original = self.criterion, self.evaluator.original
        loss: Any = criterion.build(original) if criterion.losses else copy.deepcopy(original)
        seed_all(self.seed)
        called: set[int] = set()
        hook = None
        if not self.evaluator.proven and isinstance(loss, nn.Module):
            hook = loss.register_forward_pre_hook(lambda _, arguments: called.add(_classes(*arguments)))
        self._value = self.evaluator.fn(loss)
        if inspect.isgenerator(self._value):
            if not self.evaluator.budget.length:
                raise WrongValue(
                    "`fn` yields numbers; pass `budget=` how many of them are a whole training, such as budget=20."
                )
            self._running = self._value
            self._take()
        if criterion.step != 1 and not built:
            raise WrongValue(
                "The learning rate is searched, but `fn` builds no torch optimizer whose rate could be set. To search "
                "the loss alone, pass space='taylorglo'."
            )
        if hook is not None:
            hook.remove()
            self._check(called)

    def _take(self) -> None:
        """Take the next number, if the function has not returned."""
        assert self._running is not None
        self._value = next(self._running, self._value)
        self._taken += 1

    def _check(self, called: set[int]) -> None:
        wanted = self.evaluator.num_classes
        if not called:
            warnings.warn(
                "`fn` did not call the loss that it was given, so all candidates train with the same loss. Call it in "
                "place of your own: loss(logits, target).",
                stacklevel=9,
            )
        elif wanted is not None and wanted not in called:
            raise WrongValue(
                f"`num_classes` is {wanted}, but `fn` called the loss with logits of "
                f"{' and '.join(map(str, sorted(called)))} classes."
            )


class TimedOut(Exception):
    """A call that takes longer than the budget allows."""


class WrongType(TypeError):
    """A function that returns no number: no failure of a candidate."""


class WrongValue(ValueError):
    """A function that does not fit the arguments of the search: no failure of a candidate."""


def _classes(logits: Any = None, *_: Any) -> int:
    """The number of classes of the logits that a loss was called with; 0 if they are none."""
    shape = tuple(getattr(logits, "shape", ()))
    return shape[min(1, len(shape) - 1)] if shape else 0


def _number(value: Any) -> float:
    try:
        if not isinstance(value, str | bytes):
            return float(value)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise WrongType(f"`fn` must return the number to minimise, got {value!r}.")
