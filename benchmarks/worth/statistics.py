"""From lines of results to tables. A split is the unit: the mean of its unseen test seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from scipy import stats

ORIGINAL = "ce"
MARGIN = 0.01  # a false replacement is worse by more than this, outside noise


def unit(line: dict[str, Any]) -> float:
    """The mean over test seeds; a training that diverged counts as 0, or as -5 for a negated NLL."""
    lowest = -5.0 if "NLL" in line["scenario"] else 0.0
    return fmean(lowest if value is None else value for value in line["test"])


class Results:
    """Lines of results, by scenario, split and method."""

    def __init__(self, lines: Iterable[dict[str, Any]]) -> None:
        self.lines = {(line["scenario"], line["split"], line["method"]): line for line in lines}
        self.methods = list(dict.fromkeys(method for *_, method in self.lines))
        self.scenarios = list(dict.fromkeys(scenario for scenario, *_ in self.lines))

    def pairs(self, a: str, b: str, groups: Sequence[str]) -> dict[str, list[float]]:
        """Differences ``a - b`` of the splits that both have, by scenario."""
        found: dict[str, list[float]] = {}
        for (scenario, split, method), line in self.lines.items():
            other = self.lines.get((scenario, split, b))
            if method == a and other is not None and line["group"] in groups:
                found.setdefault(scenario, []).append(round(unit(line) - unit(other), 9))
        return found

    def compare(self, a: str, b: str, groups: Sequence[str]) -> dict[str, Any] | None:
        """The pooled difference with its 95 % interval, splits won and lost, and p over scenario means."""
        found = self.pairs(a, b, groups)
        values = [value for part in found.values() for value in part]
        if len(values) < 2:
            return None
        half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
        means = [fmean(part) for part in found.values()]
        p = stats.ttest_1samp(means, 0).pvalue if len(means) > 2 and len(set(means)) > 1 else None
        won, lost = sum(v > 0 for v in values), sum(v < 0 for v in values)
        mean = fmean(values)
        return {"n": len(values), "mean": mean, "low": mean - half, "high": mean + half} | {
            "won": won,
            "lost": lost,
            "p_scenarios": None if p is None else float(p),
        }

    def false(self, method: str, groups: Sequence[str]) -> tuple[int, int]:
        """Splits in which a method is worse than the original by more than 0.01 outside noise, and all splits."""
        worse = total = 0
        for (scenario, split, name), line in self.lines.items():
            other = self.lines.get((scenario, split, ORIGINAL))
            if name != method or other is None or line["group"] not in groups:
                continue
            total += 1
            gaps = np.array([v or 0.0 for v in line["test"]]) - np.array([v or 0.0 for v in other["test"]])
            sem = gaps.std(ddof=1) / len(gaps) ** 0.5
            worse += bool(gaps.mean() < -MARGIN and gaps.mean() < -stats.t.ppf(0.95, len(gaps) - 1) * sem)
        return worse, total

    def mean(self, scenario: str, method: str) -> float | None:
        """The mean over splits."""
        found = [unit(line) for (s, _, m), line in self.lines.items() if (s, m) == (scenario, method)]
        return fmean(found) if found else None


def pooled_table(results: Results, against: Sequence[str], groups: Sequence[str] = ("noise",)) -> str:
    """A table of methods: cost, mean, and differences in thousandths from the methods ``against``."""
    rows = [["method", "trainings", "mean", *(f"- {b}" for b in against), "worse than ce, outside noise"]]
    for method in results.methods:
        lines = [v for (*_, m), v in results.lines.items() if m == method and v["group"] in groups]
        if not lines:
            continue
        cells = []
        for b in against:
            c = results.compare(method, b, groups) if method != b else None
            if c is None:
                cells.append("")
                continue
            p = "" if c["p_scenarios"] is None else f", p {c['p_scenarios']:.2g}"
            interval = f"[{1000 * c['low']:.0f}, {1000 * c['high']:.0f}]"
            cells.append(f"{1000 * c['mean']:+.0f} {interval} {c['won']}:{c['lost']}{p}")
        worse, total = results.false(method, groups)
        means = [results.mean(s, method) for s in results.scenarios if any(v["scenario"] == s for v in lines)]
        mean = fmean(m for m in means if m is not None)
        cost = f"{fmean(line['trainings'] for line in lines):.0f}"
        rows.append([method, cost, f"{mean:.3f}", *cells, f"{worse} of {total}" if method != ORIGINAL else ""])
    return markdown(rows)


def scenario_table(results: Results) -> str:
    """A table of scenarios x methods, means over splits."""
    rows = [["scenario", *results.methods]]
    for scenario in results.scenarios:
        means = [results.mean(scenario, method) for method in results.methods]
        rows.append([scenario, *("" if m is None else f"{m:.3f}" for m in means)])
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table, the first as its head."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])
