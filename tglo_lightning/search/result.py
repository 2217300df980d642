"""What a search leaves behind: plain values only, so that it fits into a checkpoint and into JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from torch import nn

from tglo_lightning.losses.registry import loss_formula, loss_like
from tglo_lightning.search.space import split_theta

__all__ = ["Candidate", "Evaluation", "Finalist", "SearchResult"]


@dataclass(frozen=True)
class Evaluation:
    """One candidate training, as an evaluator reports it.

    Attributes:
        fitness: the monitored metric; NaN unless ``status`` is ``"ok"``.
        status: ``"ok"``, ``"diverged"`` (loss, weights or metric not finite), ``"crashed"`` (an exception),
            ``"timeout"`` (beyond ``candidate_timeout``) or ``"hopeless"`` (below ``min_fitness_after``).
        seconds: wall-clock time.
        error: what went wrong, if anything did.
    """

    fitness: float
    status: str = "ok"
    seconds: float = 0.0
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the fitness counts."""
        return self.status == "ok" and math.isfinite(self.fitness)

    @property
    def outcome(self) -> str:
        """``status``, or ``"diverged"`` where an ``"ok"`` comes with a fitness that is not finite."""
        return "diverged" if self.status == "ok" and not self.ok else self.status


@dataclass(frozen=True)
class Candidate:
    """One evaluated candidate of one generation; the other fields are those of :class:`Evaluation`."""

    generation: int
    index: int
    theta: list[float]
    fitness: float
    status: str
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class Finalist:
    """A loss trained again from fresh seeds.

    Attributes:
        theta: its parameters; ``None`` for the module's original loss.
        name: ``"finalist 1"``, ... or the name of the original loss.
        fitness: the monitored metric, one value a seed; NaN where the training failed.
        found: fitness during the search; ``None`` for the original loss.
        generation: generation it was found in; ``None`` for the original loss.
        losses: losses that ``theta`` holds the parameters of, one after the other.
        errors: why trainings failed, other than by divergence. An original loss with one is never replaced: what
            crashed was not beaten.
    """

    theta: list[float] | None
    name: str
    fitness: list[float] = field(default_factory=list)
    found: float | None = None
    generation: int | None = None
    losses: int = 1
    errors: list[str] = field(default_factory=list)

    def add(self, evaluation: Evaluation) -> None:
        """Take over one training more."""
        self.fitness.append(evaluation.fitness if evaluation.ok else math.nan)
        if evaluation.outcome not in ("ok", "diverged"):
            self.errors.append(f"{evaluation.outcome}: {evaluation.error}")

    @property
    def formula(self) -> str:
        """``f(y, h)`` in plain text, of each loss; for the original loss its name."""
        if self.theta is None:
            return self.name
        return "; ".join(loss_formula(part) for part in split_theta(self.theta, self.losses))

    @property
    def mean(self) -> float:
        """Mean fitness; NaN if one of its trainings failed."""
        return fmean(self.fitness) if self.fitness else math.nan

    @property
    def std(self) -> float:
        """Standard deviation of the fitness (n - 1); 0 for a single value."""
        if not all(map(math.isfinite, self.fitness)):
            return math.nan
        return stdev(self.fitness) if len(self.fitness) > 1 else 0.0


@dataclass
class SearchResult:
    """The outcome of a search.

    Attributes:
        kept: ``"metalearned"`` if a finalist beat the original loss, else ``"original"``.
        monitor: name of the metric.
        mode: ``"max"`` or ``"min"``.
        best: the best finalist, kept or not; ``None`` if every candidate failed.
        original: the module's own loss, trained beside the finalists with the same seeds and budget.
        finalists: the finalists, best first.
        history: every candidate of every generation.
        infeasible: draws that the constraint refused before any training.
        seconds: wall-clock time of the search.
        settings: the arguments of the search, as plain values, ``num_classes`` and ``evaluator`` among them; and
            ``original_options``, those of each original loss, see :func:`~tglo_lightning.losses.loss_options`.
        refused: ``infeasible``, generation by generation.
        finished: whether the search came to its end; ``False`` for what :meth:`load` makes of a journal
            that ends before.
    """

    kept: str
    monitor: str
    mode: str
    best: Finalist | None
    original: Finalist
    finalists: list[Finalist]
    history: list[Candidate]
    infeasible: int
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)
    finished: bool = True

    @property
    def candidates(self) -> int:
        """Number of candidates trained in the generations, failed ones included."""
        return len(self.history)

    @property
    def failed(self) -> int:
        """Number of candidates without a fitness: diverged, crashed, too slow or given up."""
        return sum(candidate.status != "ok" for candidate in self.history)

    @property
    def seeds_matter(self) -> bool:
        """Whether the finals can tell one seed from another; where none does, they are as good as a single training."""
        entrants = [entrant.fitness for entrant in (*self.finalists, self.original)]
        return len(self.original.fitness) < 2 or not self.finalists or any(len(set(values)) > 1 for values in entrants)

    def loss(self, original: Any = None) -> Any:
        """The loss to train with: ``original`` where it was kept, else the metalearned one that takes its place.

        Args:
            original: the loss that was to be replaced, with its class weights and other options; ``None`` for
                ``torch.nn.CrossEntropyLoss()``.

        Raises:
            ValueError: several losses were searched for together.
        """
        if self.best is not None and self.best.losses > 1:
            raise ValueError("Several losses were searched for together; `result.best.theta` holds them all.")
        original = nn.CrossEntropyLoss() if original is None else original
        if self.kept == "original" or self.best is None or self.best.theta is None:
            return original
        return loss_like(original, self.best.theta)

    def to_dict(self) -> dict[str, Any]:
        """Lists, dicts, strings and numbers; ``None`` in place of a fitness that is not finite."""
        values: dict[str, Any] = _plain(asdict(self))
        return values

    def save(self, path: str | PathLike[str]) -> None:
        """Write :meth:`to_dict` as strict JSON. A file that is there is replaced at once, never left half written."""
        target = Path(path)
        draft = target.with_name(f"{target.name}.tmp")
        draft.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")
        draft.replace(target)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> SearchResult:
        """What :meth:`save` wrote; or, from a journal (``.jsonl``), what is known so far.

        A journal does not say how many draws were refused: ``infeasible`` is 0 then. Until the search is finished
        ``kept`` is ``"original"``. Candidates of a generation are in the order in which they were drawn.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is neither.
        """
        from tglo_lightning.search.journal import Journal, recorded_result

        if Path(path).suffix != ".json":
            return recorded_result(*Journal.read(path))
        try:
            return cls.from_dict(json.loads(Path(path).read_bytes()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} holds no result of a search: {type(error).__name__}: {error}") from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchResult:
        """The inverse of :meth:`to_dict`."""

        def build(kind: type, entry: Mapping[str, Any]) -> Any:
            return kind(**{item.name: entry[item.name] for item in fields(kind) if item.name in entry})

        def finalist(entry: Mapping[str, Any]) -> Finalist:
            return build(Finalist, {**entry, "fitness": [_number(value) for value in entry["fitness"]]})

        def candidate(entry: Mapping[str, Any]) -> Candidate:
            return build(Candidate, {**entry, "fitness": _number(entry["fitness"])})

        return build(
            cls,
            {
                **values,
                "best": None if values["best"] is None else finalist(values["best"]),
                "original": finalist(values["original"]),
                "finalists": [finalist(entry) for entry in values["finalists"]],
                "history": [candidate(entry) for entry in values["history"]],
            },
        )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    # numpy's numbers would not survive `torch.load(weights_only=True)`
    number = int(value) if isinstance(value, Integral) else float(value)
    return number if math.isfinite(number) else None
