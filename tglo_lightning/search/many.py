"""One loss for many tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from statistics import fmean
from typing import Any

from torch import nn

from tglo_lightning.arguments import integer
from tglo_lightning.search.criterion import Criterion, LossSpec
from tglo_lightning.search.evaluator import Evaluation
from tglo_lightning.search.minimize import FunctionEvaluator, FunctionPopulation, run, settings_of
from tglo_lightning.search.progress import SearchBar
from tglo_lightning.search.result import SearchResult
from tglo_lightning.search.settings import Objective, SearchSettings
from tglo_lightning.theory import from_minimal, from_shape, to_minimal, to_shape

# Below this error a difference counts for less
FLOOR = 0.02


def relative_gain(error: float, reference: float) -> float:
    """Return ``(reference - error) / (reference + 0.02)``, clipped to [-1, 1]: what a loss gains on one task.

    >>> round(relative_gain(0.1, 0.3), 6)
    0.625
    """
    return max(-1.0, min(1.0, (reference - error) / (reference + FLOOR)))


def transferred(criterion: Criterion, num_classes: int, to: int) -> Criterion:
    """Return TaylorGLO losses of the same shape and step for ``to`` in place of ``num_classes`` classes.

    They are normalised by the mean pull. The module's own loss stays as it is.

    Raises:
        ValueError: losses of another family, which have no shape.
    """
    losses = []
    for spec in criterion.losses:
        if spec.family != "taylorglo":
            raise ValueError(f"One loss for many tasks is searched for among TaylorGLO losses, got {spec.formula}.")
        _, t = to_shape(to_minimal(list(spec.theta)), num_classes)
        losses.append(LossSpec("taylorglo", tuple(from_minimal(from_shape(1.0, t, to)).tolist())))
    return Criterion(tuple(losses), criterion.step)


def minimize_many(
    fns: Sequence[Callable[[nn.Module], Any]],
    num_classes: Sequence[int],
    *,
    settings: SearchSettings | None = None,
    journal: str | PathLike[str] | None = None,
    progress: bool | SearchBar = True,
    identity: Mapping[str, Any] | None = None,
    **options: Any,
) -> SearchResult:
    """Metalearn one TaylorGLO loss for several tasks at once.

    Every task trains with the same shape of loss, normalised for its number of classes, and the same factor on its
    learning rate. The fitness is the mean :func:`relative_gain` on cross-entropy at the given learning rate, trained
    from the same seeds; a training that fails gains -1.

    Args:
        fns: a function for each task, as for :func:`~tglo_lightning.search.minimize`: it returns or yields the error
            rate on validation data, in [0, 1].
        num_classes: classes of each task.
        settings: the arguments of the search; by default CMA-ES over shape and step, from the prior.
        journal: as for :func:`~tglo_lightning.search.minimize`.
        progress: show a progress bar, or a bar of one's own, which may log what it follows.
        identity: what else the result depends on, as plain values; a journal with other ones is another search's.
        options: attributes of :class:`~tglo_lightning.search.SearchSettings`, in place of ``settings``.

    Returns:
        The result with the gain as fitness, 0 for cross-entropy. Other searches can start there: ``prior=result``.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range, by its name; not one function for each of
            ``num_classes``; a space of losses that are no TaylorGLO losses.

    >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> def task(n, y):
    ...     def error(loss):
    ...         net = torch.nn.Linear(8, n)
    ...         optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    ...         loss(net(x), y).backward()
    ...         optimizer.step()
    ...         return (net(x).argmax(1) != y).float().mean()
    ...     return error
    >>> tasks = [task(n, x[:, :n].argmax(1)) for n in (3, 5)]
    >>> minimize_many(tasks, [3, 5], generations=1, population=4, finals=2, progress=False).original.fitness
    (0.0, 0.0)
    """
    functions, classes = list(fns), [integer("num_classes", n, 2) for n in num_classes]
    if not functions or len(functions) != len(classes) or not all(map(callable, functions)):
        raise ValueError(f"Give a function for each of `num_classes`, got {len(functions)} for {len(classes)}.")
    settings = settings_of(settings, options if settings else {"space": "shape"} | options)
    original = nn.CrossEntropyLoss()
    tasks = [FunctionEvaluator(fn, original, n, settings.budget) for fn, n in zip(functions, classes, strict=True)]
    objective = Objective(max(classes), "gain", "max", "CrossEntropyLoss")
    more: dict[str, Any] = {"classes_of_tasks": classes} | ({} if identity is None else {"identity": dict(identity)})
    return run(TaskEvaluator(tasks, classes), tasks, settings, objective, journal, progress, **more)


@dataclass
class TaskEvaluator:
    """Scores a criterion, made for as many classes as the largest task has, by its mean gain over several tasks."""

    tasks: list[FunctionEvaluator]
    classes: list[int]
    name: str = "tasks"
    shares_passes: bool = False

    def start(self, criteria: Sequence[Criterion], seed: int) -> TaskPopulation:
        """Start the trainings of each task, and those of cross-entropy."""
        parts = []
        for task, n in zip(self.tasks, self.classes, strict=True):
            own = [transferred(criterion, max(self.classes), n) for criterion in criteria]
            parts.append(task.start([*own, Criterion.original()], seed))
        return TaskPopulation(parts, len(criteria))


class TaskPopulation(FunctionPopulation):
    """The same criteria in training on each task, cross-entropy after them."""

    def __init__(self, parts: Sequence[FunctionPopulation], members: int) -> None:
        self.members, self._reference, self._parts = list(range(members)), members, parts
        self.length, self.trained = parts[0].length, 0

    def advance(self, n: int) -> None:
        """Let each training go on for ``n`` numbers."""
        for part in self._parts:
            part.advance(n)
        self.trained = self._parts[0].trained

    def scores(self) -> Iterator[Evaluation]:
        """Yield the mean gain of each member."""
        scores = [list(part.scores()) for part in self._parts]
        for place in range(len(self.members)):
            own = [evaluations[place] for evaluations in scores]
            pairs = zip(own, (evaluations[-1] for evaluations in scores), strict=True)
            gains = [relative_gain(e.fitness, r.fitness if r.ok else 1.0) if e.ok else -1.0 for e, r in pairs]
            yield Evaluation(fmean(gains), seconds=sum(e.seconds for e in own))

    def keep(self, members: Sequence[int]) -> None:
        """End the other trainings."""
        self.members = sorted(members)
        for part in self._parts:
            part.keep([*self.members, self._reference] if self.members else [])
