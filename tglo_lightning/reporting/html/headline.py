"""The headline: did the loss beat the original, by how much, how sure is that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tglo_lightning.reporting.html.files import RunFiles
from tglo_lightning.reporting.numbers import fixed, long_name, mean_sd, signed
from tglo_lightning.reporting.pictures.canvas import KINDS
from tglo_lightning.reporting.results import final_verdict, leader
from tglo_lightning.reporting.stats import LESS_IS_BETTER, Verdict, verdict
from tglo_lightning.wording import counted

__all__ = ["Headline", "headline", "over_seeds", "same_for_every_seed", "verdict_on_test"]


@dataclass
class Headline:
    """What the reader should know first.

    Attributes:
        tone: ``"good"``, ``"open"`` or ``"plain"``.
        title: one sentence.
        sentences: what stands below.
        bars: label, mean and deviation, colour of each loss.
        measure: what the bars show.
        sure: how sure it is, in words.
    """

    tone: str
    title: str
    sentences: list[str] = field(default_factory=list)
    bars: list[tuple[str, str, str]] = field(default_factory=list)
    measure: str = ""
    sure: str = ""

    def bar(self, kind: str, label: str, values: Sequence[float]) -> None:
        """Add the figures of a loss."""
        self.bars.append((label, mean_sd(values), KINDS.get(kind, "ink")))

    def compare(self, told: Verdict, what: str, data: str) -> None:
        """Say how sure the comparison is."""
        self.sure = f"{signed(told.difference)} in {what}: {told.words}."
        self.sentences.append(
            f"Welch’s test, n\u00a0=\u00a0{counted(told.n, 'training')} of each loss, on {data}: {told.details}."
        )


def headline(files: RunFiles) -> Headline:
    """The headline of a run."""
    if files.result is not None:
        return _of_test(files)
    if files.search is None:
        return Headline("plain", "A training that was measured, without a search or a comparison.")
    return _unfinished(files) if files.interrupted else _of_finals(files)


def verdict_on_test(files: RunFiles, metric: str, against: str = "original") -> Verdict | None:
    """The metalearned loss against another, on test data; None if a value is missing or not finite."""
    assert files.result is not None
    losses = files.result["losses"]
    if not {"metalearned", against} <= losses.keys():
        return None
    ours, theirs = (losses[kind]["test"][metric]["values"] for kind in ("metalearned", against))
    return verdict(ours, theirs, less=metric in LESS_IS_BETTER)


def _of_test(files: RunFiles) -> Headline:
    assert files.result is not None
    losses = files.result["losses"]
    tests, wanted = losses["original"]["test"], str(files.result["monitor"]).rpartition("/")[2]
    metric = wanted if wanted in tests else next(iter(tests))
    name, what = losses["original"]["name"], long_name(metric)
    values = {kind: loss["test"][metric]["values"] for kind, loss in losses.items()}
    head = Headline("plain", "", measure=f"Test {what}, {over_seeds([*values.values()])}")
    labels = {"original": f"{name} (original)", "metalearned": "Metalearned", "opponent": "Searched baseline"}
    for kind, each in values.items():
        head.bar(kind, labels.get(kind, kind), each)
    if "metalearned" not in values:
        head.title = f"{name}, without a search."
        if files.search is not None:
            head.title = f"No candidate could be trained; {name} stays."
        return head
    told = verdict_on_test(files, metric)
    if told is None:
        head.tone, head.title = "open", "Some trainings from fresh seeds did not come to a finite result."
        return head
    head.compare(told, f"test {what}", "test data")
    if files.result["kept"] != "metalearned":
        head.title = f"{name} stays: no metalearned loss beat it on validation data."
    elif told.outcome == "better":
        head.tone, head.title = "good", f"The metalearned loss beats {name}."
    elif told.outcome == "worse":
        head.tone = "open"
        head.title = f"Better on validation data, the metalearned loss is worse than {name} on test data."
    else:
        head.tone = "open"
        side = "ahead of" if told.better else "not ahead of"
        seeds = f"{counted(told.n, 'seed')} {'does' if told.n == 1 else 'do'}"
        head.title = f"The metalearned loss is {side} {name}; {seeds} not settle it."
    other = verdict_on_test(files, metric, "opponent")
    if other is not None:
        stands = {"better": "beats", "worse": "is worse than", "undecided": "does not clearly beat"}[other.outcome]
        head.sentences.append(
            f"The metalearned loss {stands} the best smoothed cross-entropy that a search of the same budget found: "
            f"{signed(other.difference)}; {other.details}."
        )
    return head


def _of_finals(files: RunFiles) -> Headline:
    search = files.search
    assert search is not None
    original, best, name = search.original, search.best, search.original.name
    head = Headline("plain", f"{name} stays: no finalist beat it.")
    head.bar("original", f"{name} (original)", original.fitness)
    head.measure = f"{search.monitor}, {over_seeds([original.fitness])}"
    if best is None:
        head.title = f"No candidate could be trained; {name} stays."
        return head
    kept = search.kept == "metalearned"
    head.bar("metalearned", "Metalearned" if kept else "Best finalist, not kept", best.fitness)
    told = final_verdict(search)
    if told is None:
        head.tone = "open"
        head.title = f"The {search.kept} loss was kept; some trainings did not come to a finite result."
        return head
    head.measure = f"{search.monitor}, {over_seeds([original.fitness, best.fitness])}"
    head.compare(told, search.monitor, search.monitor)
    if kept and told.outcome == "better":
        head.tone, head.title = "good", f"The metalearned loss beats {name}."
    elif kept:
        trainings = "a single training" if told.constant else f"n = {told.n}"
        head.tone = "open"
        head.title = f"The metalearned loss was kept; whether it is better, {trainings} does not settle."
    head.sentences += filter(None, (same_for_every_seed(files), files.starts))
    if len(search.finalists) > 1 and kept:
        head.sentences.append(
            f"The loss is the best of {len(search.finalists)} finalists by these same figures, on the data that it was "
            "chosen by, which flatters it a little. Test data have the last word."
        )
    return head


def _unfinished(files: RunFiles) -> Headline:
    search = files.search
    assert search is not None
    done, takes = files.trainings
    head = Headline("open", f"The search is not finished: {done} of {takes} trainings are done.")
    best = leader(search)
    if best is not None:
        head.sentences.append(
            f"The best candidate so far has {search.monitor} {fixed(best.found)}, from one seed. The finals will tell "
            f"whether it beats {search.original.name}."
        )
    return head


def same_for_every_seed(files: RunFiles) -> str:
    """What it means if the seeds of the finals made no difference; empty if they did."""
    if files.search is None or files.search.seeds_matter:
        return ""
    why = {
        "given": ', because nothing is random: no shuffling, no dropout, init="given". More seeds change nothing',
        "plain": ", because fn draws nothing at random, or sets a seed of its own. More seeds change nothing",
    }.get("plain" if files.plain else files.init or "", "")
    return (
        f"The seeds made no difference: each loss came to the same number in all its trainings{why}. So the comparison "
        "counts as a single training of each loss."
    )


def over_seeds(entrants: Sequence[Sequence[float]]) -> str:
    """What the figures of each loss are, in words."""
    n = len(entrants[0])
    if n == 1:
        return "one training of each loss"
    if all(len(set(values)) == 1 and math.isfinite(values[0]) for values in entrants if values):
        return f"the same from each of {counted(n, 'fresh seed')}"
    return f"mean ± standard deviation over {counted(n, 'fresh seed')}"
