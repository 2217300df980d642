"""Losses against a reference, over all trainings of many runs: table and tests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tglo_lightning.reporting.numbers import LESS_IS_BETTER, direction
from tglo_lightning.reporting.runs import Loss, Run, conditions, find_runs, labels
from tglo_lightning.reporting.stats import Verdict, holm, summarize, verdict

UNITS = ("training", "run")


@dataclass
class Row:
    """One loss under one condition, by one metric.

    Attributes:
        condition: in what the runs differ besides loss and seed, such as `"task.label_noise=0.4"`; may be empty.
        loss, name: short name, and that of the class.
        kind: `"original"` for a loss that was given, else how it was found.
        formula: of the loss, in plain text, if it has one and the row stands for one loss.
        values: one a training, or one a run; None where one is not finite, and then for mean and sd too.
        verdict: the loss against the reference, over the trainings of both from the same seeds.
        holm_two_sided: two-sided p, corrected for the number of all comparisons by this metric, over all conditions.
    """

    condition: str
    loss: str
    metric: str
    kind: str
    name: str
    formula: str
    values: list[float | None]
    mean: float | None
    std: float | None
    verdict: Verdict | None = None
    holm_two_sided: float | None = None

    @property
    def n(self) -> int:
        """Number of values."""
        return len(self.values)

    @property
    def p_two_sided(self) -> float | None:
        """Two-sided p against the reference."""
        return None if self.verdict is None else self.verdict.p_two_sided


@dataclass
class Comparison:
    """Losses against a reference.

    Attributes:
        unit: what a value is: a `"training"`, or the mean of the trainings of a `"run"`.
        runs: number of runs read.
        rows: in the order of conditions, metrics, losses.
        notes: what a reader should know of the data.
    """

    reference: str
    unit: str
    runs: int
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    @property
    def conditions(self) -> list[str]:
        """The conditions, in order."""
        return list(dict.fromkeys(row.condition for row in self.rows))

    @property
    def metrics(self) -> list[str]:
        """The metrics, in order."""
        return list(dict.fromkeys(row.metric for row in self.rows))

    def select(self, condition: str, metric: str) -> list[Row]:
        """The rows of one table."""
        return [row for row in self.rows if (row.condition, row.metric) == (condition, metric)]

    def comparisons(self, metric: str) -> int:
        """Number of tests by a metric, for which Holm's method corrects."""
        return sum(row.p_two_sided is not None for row in self.rows if row.metric == metric)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        derived = {
            "better": {m: direction(m) for m in self.metrics},
            "comparisons": {m: self.comparisons(m) for m in self.metrics},
            "rows": [{**asdict(row), "n": row.n, "p_two_sided": row.p_two_sided} for row in self.rows],
        }
        return vars(self) | derived


def compare(
    paths: Iterable[str | Path],
    *,
    reference: str | None = None,
    pool: Iterable[str] = (),
    unit: str = "training",
) -> Comparison:
    """Compare the losses of all runs that are given.

    A training that several runs report, as cross-entropy beside every search, counts once.

    Args:
        paths: `result.json` files, or folders below which they are.
        reference: short name of the loss to compare with, or the name of its class, or how it was found, such as
            `"known"`; by default cross-entropy as it is, else the loss that most runs have as their original.
        pool: keys of the config whose differences are not to make a condition of its own.
        unit: `"training"`: one value a training, and a row for every loss that was found. `"run"`: one value a run,
            the mean of its trainings, and one row for all losses found in the same way, as is right if the question
            is what *searching* gives, since trainings with one found loss are not independent searches.

    Raises:
        ValueError: nothing to read, a file that cannot be read, no such reference, unit or key.
    """
    if unit not in UNITS:
        raise ValueError(f"unit must be one of {UNITS}, got {unit!r}")
    runs = find_runs(paths)
    grouped = conditions(runs, pool)
    notes: list[str] = []
    if any(run.seeds is None for run in runs):
        notes.append("runs without .hydra/config.yaml are taken to share one condition, and to repeat no training")
    rows: list[Row] = []
    measured: dict[tuple[str, str, str], dict[Place, float | None]] = {}
    for condition, members in grouped.items():
        names = labels(members, pooled=unit == "run")
        values, conflicts = _values(members, names, unit)
        notes += [f"{condition or 'all runs'}: {each}" for each in conflicts]
        losses = {name: loss for loss, name in reversed(names.items())}
        for metric in dict.fromkeys(metric for by_metric in values.values() for metric in by_metric):
            for name in (name for name, by_metric in values.items() if metric in by_metric):
                loss, found = losses[name], values[name][metric]
                formula = loss.formula if loss.kind == "original" or unit == "training" else ""
                summary = summarize(_floats([*found.values()]))
                rows.append(Row(condition, name, metric, loss.kind, loss.name, formula, **summary))
                measured[condition, name, metric] = found
    chosen = _reference(rows, reference)
    _test(rows, chosen, measured)
    return Comparison(chosen, unit, len(runs), rows, list(dict.fromkeys(notes)))


# A training: its seeds, or where its run lies; its number in the run; and what was trained with
Place = tuple[Any, int, Any]
Values = dict[str, dict[str, dict[Place, float | None]]]


def _values(runs: Sequence[Run], names: dict[Loss, str], unit: str) -> tuple[Values, list[str]]:
    """`{loss: {metric: values}}` without repeated trainings, and what contradicts itself."""
    seen: dict[tuple[Any, ...], dict[str, list[float | None]]] = {}
    notes = []
    for run in runs:
        for loss, by_metric in run.values.items():
            # The fresh seeds of a run follow from its seed: the same loss from the same seed is the same training
            key = (names[loss], loss.criterion, run.path if run.seeds is None else run.seeds)
            before = seen.setdefault(key, by_metric)
            common = before.keys() & by_metric.keys()
            if any(a != b for m in common for a, b in zip(before[m], by_metric[m], strict=False)):
                notes.append(f"{names[loss]} has several results for one seed; the first was taken, not {run.path}")
            elif sum(map(len, by_metric.values())) > sum(map(len, before.values())):
                seen[key] = by_metric
    values: Values = {}
    for (name, criterion, seeds), by_metric in seen.items():
        for metric, each in by_metric.items():
            several = [summarize(_floats(each))["mean"]] if unit == "run" else each
            places = values.setdefault(name, {}).setdefault(metric, {})
            places |= {(seeds, number, criterion): value for number, value in enumerate(several)}
    # originals first, in the order of the runs
    kinds = {name: loss.kind for loss, name in names.items()}
    return dict(sorted(values.items(), key=lambda item: kinds[item[0]] != "original")), notes


def _reference(rows: Sequence[Row], wanted: str | None) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.loss] = counts.get(row.loss, 0) + row.n
    if wanted is None:
        originals = {row.loss: counts[row.loss] for row in rows if row.kind == "original"}
        if not originals:
            raise ValueError(f"no given loss among the runs to compare with; choose a reference: {', '.join(counts)}")
        plain = next((name for name in originals if name == "CrossEntropyLoss"), None)
        return plain or max(originals, key=lambda name: originals[name])
    exact = [name for name in counts if name.lower() == wanted.lower()]
    alike = [row.loss for row in rows if wanted.lower() in (row.name.lower(), row.kind)]
    found = exact or list(dict.fromkeys(alike))
    if len(found) != 1:
        raise ValueError(f"reference must be one of: {', '.join(counts)}; got {wanted!r}")
    return found[0]


def _test(rows: Sequence[Row], reference: str, measured: Mapping[tuple[str, str, str], Any]) -> None:
    """Fill in what compares a row with the reference, paired by the seeds of the trainings."""
    references = {(row.condition, row.metric): row for row in rows if row.loss == reference}
    for row in rows:
        other = references.get((row.condition, row.metric))
        if other is None or other is row:
            continue
        mine, base = (measured[row.condition, each.loss, row.metric] for each in (row, other))
        theirs = {place[:2]: value for place, value in reversed(base.items())}
        pairs = [(value, theirs[place[:2]]) for place, value in mine.items() if place[:2] in theirs]
        ours, others = _floats([a for a, _ in pairs]), _floats([b for _, b in pairs])
        row.verdict = verdict(ours, others, less=row.metric in LESS_IS_BETTER)
    for metric in dict.fromkeys(row.metric for row in rows):
        family = [row for row in rows if row.metric == metric]
        for row, p in zip(family, holm([row.p_two_sided for row in family]), strict=True):
            row.holm_two_sided = p


def _floats(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
