"""The headline: did the loss beat the original, by how much, how sure is that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from tglo_lightning.reporting.html.figures import colour_of, long_name, number
from tglo_lightning.reporting.html.files import RunFiles
from tglo_lightning.reporting.stats import LESS_IS_BETTER, Alternative, hedges_g, welch, welch_interval
from tglo_lightning.wording import counted

__all__ = ["Contest", "Verdict", "verdict"]

SURE = 0.05
ALIKE = "The seeds made no difference: each loss came to the same number in all its trainings"
AS_ONE = "So the comparison counts as a single training of each loss"


@dataclass(frozen=True)
class Contest:
    """Two losses by one metric, over fresh seeds.

    Attributes:
        ours: values of the metalearned loss.
        theirs: values of the other.
        less: whether less is better.
    """

    ours: Sequence[float]
    theirs: Sequence[float]
    less: bool = False

    @property
    def difference(self) -> float:
        """Mean of ours minus mean of theirs."""
        return fmean(self.ours) - fmean(self.theirs)

    @property
    def better(self) -> bool:
        """Whether our mean is the better one."""
        return self.difference < 0 if self.less else self.difference > 0

    @property
    def p(self) -> float | None:
        """One-sided p-value of Welch's test: ours is better."""
        alternative: Alternative = "less" if self.less else "greater"
        return welch(self.ours, self.theirs, alternative)

    @property
    def sure(self) -> bool:
        """Whether the test sees our lead."""
        return self.p is not None and self.p < SURE

    @property
    def worse(self) -> bool:
        """Whether the test sees their lead."""
        p = welch(self.ours, self.theirs, "greater" if self.less else "less")
        return p is not None and p < SURE

    @property
    def constant(self) -> bool:
        """Whether each loss came to one number in several trainings."""
        return constant([self.ours, self.theirs])

    @property
    def told(self) -> str:
        """Interval of the difference, p and effect size."""
        interval = welch_interval(self.ours, self.theirs)
        effect = hedges_g(self.ours, self.theirs)
        parts = []
        if interval is not None:
            low, high = map(signed, interval)
            parts.append(f"95\u00a0% confidence interval of the difference {low} to {high}")
        parts.append(
            "a single value, or values without spread, allow no test"
            if self.p is None
            else f"one-sided p\u00a0=\u00a0{p_value(self.p)}"
        )
        if effect is not None:
            parts.append(f"effect size {number(abs(effect), 2)}\u00a0standard deviations")
        return "; ".join(parts)


@dataclass
class Verdict:
    """What the reader shall know first.

    Attributes:
        tone: ``"good"``, ``"open"`` or ``"plain"``.
        headline: one sentence.
        sentences: what stands below.
        bars: label, mean, standard deviation, colour of each loss.
        measure: what the bars show.
        sure: how sure it is, in words.
    """

    tone: str
    headline: str
    sentences: list[str] = field(default_factory=list)
    bars: list[tuple[str, str, str, str]] = field(default_factory=list)
    measure: str = ""
    sure: str = ""


def p_value(p: float | None) -> str:
    """A p-value for reading."""
    return "n/a" if p is None else number(p, 2)


def headline_metric(files: RunFiles) -> str:
    """The test metric that the loss was chosen by, else the first."""
    assert files.result is not None
    tests = files.result["losses"]["original"]["test"]
    wanted = str(files.result["monitor"]).rpartition("/")[2]
    return wanted if wanted in tests else next(iter(tests))


def verdict(files: RunFiles) -> Verdict:
    """The headline of a run."""
    if files.result is not None:
        return _of_test(files)
    if files.search is None:
        return Verdict("plain", "A training that was measured, without a search or a comparison.")
    if files.interrupted:
        return _unfinished(files)
    return _of_finals(files)


def _of_test(files: RunFiles) -> Verdict:
    assert files.result is not None
    losses, metric = files.result["losses"], headline_metric(files)
    name, less, what = losses["original"]["name"], metric in LESS_IS_BETTER, long_name(metric)
    values = {kind: loss["test"][metric]["values"] for kind, loss in losses.items()}
    n = len(values["original"])
    bars = [(_label(kind, losses[kind]["name"]), *_spread(v), colour_of(kind)) for kind, v in values.items()]
    told = Verdict("plain", "", bars=bars, measure=f"Test {what}, {_over([*values.values()])}")
    if "metalearned" not in values:
        searched = files.search is not None
        told.headline = f"No candidate could be trained; {name} stays." if searched else f"{name}, without a search."
        return told
    if not all(map(math.isfinite, [*values["metalearned"], *values["original"]])):
        told.tone, told.headline = "open", "Some trainings from fresh seeds did not come to a finite result."
        return told
    contest = Contest(values["metalearned"], values["original"], less)
    kept = files.result["kept"] == "metalearned"
    told.sure = _sureness(contest, n, f"test {what}")
    told.sentences.append(
        f"Welch’s test, n\u00a0=\u00a0{counted(n, 'training')} of each loss, on test data: {contest.told}."
    )
    if not kept:
        told.headline = f"{name} stays: no metalearned loss beat it on validation data."
    elif contest.sure:
        told.tone, told.headline = "good", f"The metalearned loss beats {name}."
    elif contest.worse:
        told.tone, told.headline = (
            "open",
            f"Better on validation data, the metalearned loss is behind {name} on test data.",
        )
    else:
        told.tone = "open"
        side = "ahead of" if contest.better else "not ahead of"
        seeds = f"{counted(n, 'seed')} {'does' if n == 1 else 'do'}"
        told.headline = f"The metalearned loss is {side} {name}; {seeds} not settle it."
    if contest.constant:
        told.sentences.append(f"{ALIKE}. {AS_ONE}.")
    if "baseline" in values and all(map(math.isfinite, values["baseline"])):
        other = Contest(values["metalearned"], values["baseline"], less)
        if other.sure:
            stands = "beats, too," if told.tone == "good" else "beats"
        else:
            stands = "is behind" if other.worse else "does not clearly beat"
        told.sentences.append(
            f"It {stands} the best smoothed cross-entropy that a search of the same budget found: "
            f"{signed(other.difference)}; {other.told}."
        )
    return told


def _of_finals(files: RunFiles) -> Verdict:
    search = files.search
    assert search is not None
    name, original, best = search.original.name, search.original, search.best
    told = Verdict("plain", f"{name} stays: no finalist beat it.")
    n = len(original.fitness)
    told.measure = f"{search.monitor}, {_over([original.fitness])}"
    told.bars = [(_label("original", name), *_spread(original.fitness), "original")]
    if best is None:
        told.headline = f"No candidate could be trained; {name} stays."
        return told
    label = _label("metalearned", "") if search.kept == "metalearned" else "Best finalist, not kept"
    told.bars.append((label, *_spread(best.fitness), "metalearned"))
    if not all(map(math.isfinite, [*best.fitness, *original.fitness])):
        told.tone, told.headline = (
            "open",
            f"The {search.kept} loss was kept; some trainings did not come to a finite result.",
        )
        return told
    told.measure = f"{search.monitor}, {_over([original.fitness, best.fitness])}"
    contest = Contest(best.fitness, original.fitness, search.mode == "min")
    told.sure = _sureness(contest, n, search.monitor)
    if search.kept == "metalearned":
        told.tone = "good" if contest.sure else "open"
        trainings = "what counts as n = 1" if contest.constant else f"n = {n}"
        told.headline = (
            f"The metalearned loss beats {name}."
            if contest.sure
            else f"The metalearned loss was kept; whether it is better, {trainings} does not settle."
        )
    told.sentences.append(
        f"Welch’s test, n\u00a0=\u00a0{counted(n, 'training')} of each loss, on {search.monitor}: {contest.told}."
    )
    if alike := seeds_alike(files):
        told.sentences.append(alike)
    if files.starts:
        told.sentences.append(files.starts)
    if len(search.finalists) > 1 and search.kept == "metalearned":
        told.sentences.append(
            f"The loss is the best of {len(search.finalists)} finalists by these same figures, on the data that it was "
            "chosen by, which flatters it a little. Test data have the last word."
        )
    return told


def _unfinished(files: RunFiles) -> Verdict:
    search = files.search
    assert search is not None
    done, takes = files.trainings
    sign = 1 if search.mode == "max" else -1
    values = [c.fitness for c in search.history if math.isfinite(c.fitness)]
    told = Verdict("open", f"The search is not finished: {done} of {takes} trainings are done.")
    if values:
        best = max(values, key=lambda v: sign * v)
        told.sentences.append(
            f"The best candidate so far has {search.monitor} {number(best, 4)}, once, from one seed. Whether that "
            f"beats {search.original.name} is what the finals will tell."
        )
    return told


def constant(entrants: Sequence[Sequence[float]]) -> bool:
    """Whether each entrant came to one number in several trainings."""
    return all(len(values) > 1 and len(set(values)) == 1 for values in entrants)


def seeds_alike(files: RunFiles) -> str:
    """What it means where the seeds of the finals made no difference; empty where they did."""
    search = files.search
    if search is None or search.seeds_matter:
        return ""
    why = {
        "given": ', as where nothing is left to chance: no shuffling, no dropout, init="given". Then more seeds would '
        "not tell more",
        "plain": ", as where fn draws nothing at random, or sets a seed of its own. Then more seeds would not tell "
        "more",
    }.get("plain" if files.plain else files.init or "", "")
    return f"{ALIKE}{why}. {AS_ONE}."


def _sureness(contest: Contest, n: int, what: str) -> str:
    p, lead = contest.p, f"{signed(contest.difference)} in {what}"
    if contest.constant:
        return f"{lead}: the same from every seed, so it counts as a single training of each loss."
    if n < 2 or p is None:
        return f"{lead}: whether by chance, more seeds would tell."
    if p < 0.001:
        return f"{lead}: hardly chance (p\u00a0<\u00a00.001)."
    if p < 0.01:
        return f"{lead}: strong evidence (p\u00a0<\u00a00.01)."
    if p < SURE:
        return f"{lead}: evidence, not proof (p\u00a0<\u00a00.05)."
    return (
        f"{lead}: worse, and hardly by chance (p\u00a0<\u00a00.05)."
        if contest.worse
        else f"{lead}: may well be chance."
    )


def signed(value: float) -> str:
    """A difference, with its sign."""
    return f"{value:+.4f}".replace("-", "−")


def _over(entrants: Sequence[Sequence[float]]) -> str:
    """What the bars show of the values of each loss."""
    n = len(entrants[0])
    if n == 1:
        return "one training of each loss"
    if constant(entrants):
        return f"the same from each of {counted(n, 'fresh seed')}"
    return f"mean ± standard deviation over {counted(n, 'fresh seed')}"


def _spread(values: Sequence[float]) -> tuple[str, str]:
    if not values or not all(map(math.isfinite, values)):
        return "not finite", ""
    return f"{fmean(values):.4f}", f"± {stdev(values):.4f}" if len(values) > 1 else ""


def _label(kind: str, name: str) -> str:
    return {"original": f"{name} (original)", "metalearned": "Metalearned", "baseline": "Searched baseline"}.get(
        kind, kind
    )
