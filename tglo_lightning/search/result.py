"""What a search leaves behind: plain values only, so that it fits into a checkpoint and into JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from torch import nn
from typing_extensions import Self

from tglo_lightning.losses.priors import Prior, prior
from tglo_lightning.search.criterion import Criterion
from tglo_lightning.search.curves import Curves
from tglo_lightning.search.evaluator import Evaluation
from tglo_lightning.search.journal import Journal, JournalError
from tglo_lightning.search.plain import Plain
from tglo_lightning.theory import to_minimal, to_shape
from tglo_lightning.untrusted import NUMBER, check_shape, load_json, write_whole

# What stored options of a loss must be, see `check_shape`
OPTIONS = {
    "weight": ([NUMBER], None),
    "pos_weight": ([NUMBER], None),
    "ignore_index": (int, None),
    "reduction": (str, None),
    "label_smoothing": (*NUMBER, None),
}


@dataclass(frozen=True)
class Candidate(Plain):
    """One criterion that a search tried.

    Attributes:
        generation: number of the generation, from 0.
        index: place in the generation.
        fitness, status, seconds, error: those of its :class:`~tglo_lightning.search.Evaluation`.
    """

    generation: int
    index: int
    criterion: Criterion
    fitness: float
    status: str
    seconds: float
    error: str | None = None

    @classmethod
    def of(cls, generation: int, index: int, criterion: Criterion, evaluation: Evaluation) -> Candidate:
        """Return the candidate with its evaluation."""
        e = evaluation
        fitness = e.fitness if e.ok else math.nan
        return cls(generation, index, criterion, fitness, e.outcome, e.seconds, e.error)


@dataclass(frozen=True)
class Finalist(Plain):
    """A criterion trained again from fresh seeds.

    Attributes:
        name: ``"finalist 1"``, ... or the name of the module's own loss.
        fitness: the monitored metric, one value per seed; NaN if the training failed.
        found: fitness during the search; ``None`` for the module's own loss.
        generation: generation it was found in; ``None`` for the module's own loss.
        errors: why trainings failed, other than by divergence.
    """

    criterion: Criterion
    name: str
    fitness: tuple[float, ...] = ()
    found: float | None = None
    generation: int | None = None
    errors: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        criterion: Criterion,
        name: str,
        evaluations: Sequence[Evaluation],
        origin: Candidate | Finalist | None = None,
    ) -> Finalist:
        """Return the finalist with these evaluations; ``origin`` tells where it was found."""
        found = origin.fitness if isinstance(origin, Candidate) else None if origin is None else origin.found
        return cls(
            criterion,
            name,
            tuple(e.fitness if e.ok else math.nan for e in evaluations),
            found,
            None if origin is None else origin.generation,
            tuple(f"{e.outcome}: {e.error}" for e in evaluations if e.outcome not in ("ok", "diverged")),
        )

    @property
    def formula(self) -> str:
        """``f(y, h)`` in plain text, of each loss; for the module's own loss its name."""
        parts = [self.criterion.formula] if self.criterion.losses else [self.name, self.criterion.formula]
        return ", ".join(filter(None, parts))

    @property
    def mean(self) -> float:
        """Mean fitness; NaN if one of the trainings failed."""
        return fmean(self.fitness) if self.fitness else math.nan

    @property
    def std(self) -> float:
        """Standard deviation of the fitness (n - 1); 0 for a single value."""
        if not all(map(math.isfinite, self.fitness)):
            return math.nan
        return stdev(self.fitness) if len(self.fitness) > 1 else 0.0


@dataclass(frozen=True)
class SearchResult(Plain):
    """The outcome of a search.

    Attributes:
        kept: ``"metalearned"`` if a candidate was confirmed to beat the module's own loss, else ``"original"``.
        best: the chosen finalist, kept or not, with its fitness on the confirming seeds; ``None`` if no finalist could
            be trained.
        original: the module's own loss, with its fitness on the same seeds.
        finalists: the finalists, best first, with their fitness on the choosing seeds.
        history: every candidate of every generation.
        p_value: one-sided p of the confirmation, paired by seed; ``None`` if there was nothing to test.
        rejected: draws that the space's constraint rejected before any training, generation by generation.
        seconds: wall-clock time of the search.
        settings: the arguments of the search, as plain values, ``num_classes`` and ``evaluator`` among them; and
            ``original_options``, those of each original loss, see :func:`~tglo_lightning.losses.loss_options`.
        finished: whether the search came to its end; ``False`` for what :meth:`load` makes of a journal without a
            result.
        diagnosis: what a network trained with the module's own loss does on training and validation data, see
            :func:`~tglo_lightning.evaluation.diagnose`; ``None`` if none was looked at.
        curves: the course of a :class:`~tglo_lightning.search.Race`; ``None`` for any other search. Then ``kept`` says
            whose network is in the module, ``best`` and ``original`` hold one network each, chosen by validation.
    """

    kept: str
    monitor: str
    mode: str
    best: Finalist | None
    original: Finalist
    finalists: tuple[Finalist, ...]
    history: tuple[Candidate, ...]
    p_value: float | None = None
    rejected: tuple[int, ...] = ()
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    finished: bool = True
    curves: Curves | None = None
    diagnosis: dict[str, float] | None = None

    @property
    def criterion(self) -> Criterion:
        """What to train with: the winner, or the module's own loss if that was kept."""
        return self.best.criterion if self.best is not None and self.kept == "metalearned" else Criterion.original()

    @property
    def candidates(self) -> int:
        """Number of candidates trained in the generations, failed ones included."""
        return len(self.history)

    @property
    def trainings(self) -> int:
        """Number of trainings that the search took, finals included."""
        if self.curves is not None and self.best is not None and self.best.found is None:
            return len(self.history)  # no confirmation: both entrants are networks of the race
        finals = [*self.finalists, self.original, *([] if self.best is None else [self.best])]
        return len(self.history) + sum(len(finalist.fitness) for finalist in finals)

    @property
    def failed(self) -> int:
        """Number of candidates without a fitness."""
        return sum(candidate.status != "ok" for candidate in self.history)

    @property
    def gain(self) -> float:
        """Mean difference of the chosen finalist to the original, above 0 if better; NaN if unknown."""
        if self.best is None:
            return math.nan
        return (self.best.mean - self.original.mean) * (1 if self.mode == "max" else -1)

    @property
    def seeds_matter(self) -> bool:
        """Whether the finals can tell one seed from another; if none does, they are as good as a single training."""
        entrants = [self.original.fitness, *(f.fitness for f in (self.best,) if f is not None)]
        return len(self.original.fitness) < 2 or any(len(set(values)) > 1 for values in entrants)

    def loss(self, original: Any = None) -> Any:
        """Return the loss to train with: ``original`` if it was kept, else the winner with the options of ``original``.

        ``None`` stands for ``torch.nn.CrossEntropyLoss()``. The winner may have a ``step``, a factor on the learning
        rate: ``result.criterion.step``.

        Raises:
            ValueError: several losses were searched for together.
        """
        return self.criterion.build(nn.CrossEntropyLoss() if original is None else original)

    def to_prior(self) -> Prior:
        """Return the shape and the step of the best loss, for a search to start from, on the same or another task.

        Raises:
            ValueError: the best loss is no TaylorGLO loss, or has no mean pull to be normalised by. Pass the result
                itself as ``prior=`` to start at a loss of another family.
        """
        losses = () if self.best is None else self.best.criterion.losses
        if self.best is None or len(losses) != 1 or losses[0].family != "taylorglo":
            raise ValueError("The best loss of this search is no TaylorGLO loss; pass the result itself as `prior=`.")
        scale, t = to_shape(to_minimal(list(losses[0].theta)), self.settings["num_classes"])
        if not float(scale) > 0:
            raise ValueError(f"The best loss of this search has the mean pull {float(scale):.3g}, so it has no shape.")
        shared = prior().spread
        spread = shared if len(shared) == len(t) else (max(shared),) * len(t)
        provenance = {"search": {**self.settings, "monitor": self.monitor}, "formula": self.best.formula}
        return Prior("search", tuple(t.tolist()), tuple(0.5 * s for s in spread), self.best.criterion.step, provenance)

    def save(self, path: str | PathLike[str]) -> None:
        """Write :meth:`to_dict` as strict JSON. A file that is there is replaced at once, never left half written."""
        write_whole(Path(path), json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> SearchResult:
        """Read what :meth:`save` wrote, or a journal: the result beside it, or how far its search came if that is
        missing or damaged.

        Raises:
            OSError: the file cannot be read.
            ValueError: it holds no result; a journal that is damaged.
        """
        path = Path(path)
        saved = path.with_suffix(".json")
        try:
            if path != saved:
                with suppress(OSError, ValueError):
                    return cls.load(saved)
                return _so_far(*Journal.read(path))
            return cls.from_dict(load_json(path))
        except JournalError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} holds no result of a search: {type(error).__name__}: {error}") from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the result that :meth:`to_dict` described.

        Raises:
            ValueError: it is none.
        """
        result = super().from_dict(values)
        check_shape(result.settings.get("num_classes"), (int, None), "num_classes")
        options = result.settings.get("original_options")
        check_shape(options, ([dict], None), "original_options")
        for given in options or []:
            # Those of binary and regression losses have any number of dimensions
            weights = {name: _flat(given[name]) for name in ("weight", "pos_weight") if given.get(name) is not None}
            check_shape({**dict.fromkeys(OPTIONS), **given, **weights}, OPTIONS, "original_options")
        return result


def _so_far(header: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> SearchResult:
    """What a journal holds of a search that has not come to its end."""
    history: dict[tuple[int, int], Candidate] = {}
    finals: dict[str, dict[Criterion, list[Evaluation]]] = {"choice": {}, "confirmation": {}}
    for (stage, *place), record in {tuple(record["key"]): record for record in records}.items():
        entries = {}
        if stage in ("generation", *finals):
            entries = {(place[0], place[1]): record}
        elif stage == "check":
            entries = {(0, int(index)): entry for index, entry in record["scores"].items()}
        for (generation, index), entry in entries.items():
            criterion, evaluation = Criterion.from_dict(entry["criterion"]), Evaluation.from_dict(entry)
            if stage in finals:
                finals[stage].setdefault(criterion, []).append(evaluation)
            else:
                history[generation, index] = Candidate.of(generation, index, criterion, evaluation)
    found = {candidate.criterion: candidate for candidate in history.values()}
    own = finals["confirmation"].pop(Criterion.original(), [])
    chosen = {
        c: Finalist.of(c, f"finalist {rank}", kept, found.get(c))
        for rank, (c, kept) in enumerate(finals["choice"].items(), start=1)
    }
    best = [
        Finalist.of(c, chosen[c].name if c in chosen else "finalist 1", kept, found.get(c))
        for c, kept in finals["confirmation"].items()
    ]
    return SearchResult(
        kept="original",
        monitor=header["monitor"],
        mode=header["mode"],
        best=best[0] if best else None,
        original=Finalist.of(Criterion.original(), header["original"], own),
        finalists=tuple(chosen.values()),
        history=tuple(history[place] for place in sorted(history)),
        rejected=tuple(record["rejected"] for record in records if record["key"][0] == "state"),
        seconds=max((record.get("elapsed", 0.0) for record in records), default=0.0),
        settings={
            **next((r["settings"] for r in records[::-1] if r["key"] == ["settings"]), header["settings"]),
            "num_classes": header["classes"],
            "evaluator": header["evaluator"],
            "original_options": header["original_options"],
        },
        finished=False,
    )


def _flat(value: Any) -> list[Any]:
    return [each for entry in value for each in _flat(entry)] if isinstance(value, list) else [value]
