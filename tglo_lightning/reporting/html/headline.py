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


def headline(files: RunFiles) -> Headline:
    """The headline of a run."""
    if files.result is None and files.search is None:
        return Headline("plain", "A training that was measured, without a search or a comparison.")
    return _unfinished(files) if files.result is None and files.interrupted else _compared(files)


def verdict_on_test(files: RunFiles, metric: str, against: str = "original") -> Verdict | None:
    """The metalearned loss against another, on test data; None if a value is missing or not finite."""
    losses = files.result["losses"] if files.result else {}
    if not {"metalearned", against} <= losses.keys():
        return None
    ours, theirs = (losses[kind]["test"][metric]["values"] for kind in ("metalearned", against))
    return verdict(ours, theirs, less=metric in LESS_IS_BETTER)


def _compared(files: RunFiles) -> Headline:
    search, metric, baseline = files.search, "", None
    if files.result is not None:
        losses, kept = files.result["losses"], files.result["kept"] == "metalearned"
        tests, wanted = losses["original"]["test"], str(files.result["monitor"]).rpartition("/")[2]
        metric = wanted if wanted in tests else next(iter(tests))
        name, what, data = losses["original"]["name"], f"test {long_name(metric)}", "test data"
        values = {kind: loss["test"][metric]["values"] for kind, loss in losses.items()}
        told, baseline = verdict_on_test(files, metric), verdict_on_test(files, metric, "opponent")
    else:
        assert search is not None
        name, kept, what, data = search.original.name, search.kept == "metalearned", search.monitor, search.monitor
        values = {"original": search.original.fitness}
        values |= {} if search.best is None else {"metalearned": search.best.fitness}
        told = final_verdict(search)
    head = Headline("plain", f"{name} stays: no metalearned loss beat it on validation data.")
    head.measure = f"{what.replace('test ', 'Test ', 1)}, {over_seeds([*values.values()])}"
    found = "Metalearned" if kept else "Best finalist, not kept"
    labels = {"original": f"{name} (original)", "metalearned": found, "opponent": "Searched baseline"}
    head.bars = [(labels.get(k, k), mean_sd(each), KINDS.get(k, "ink")) for k, each in values.items()]
    if "metalearned" not in values:
        head.title = f"{name}, without a search." if search is None else f"No candidate could be trained; {name} stays."
        return head
    if told is None:
        head.tone, head.title = "open", "Some trainings from fresh seeds did not come to a finite result."
        return head
    head.sure = f"{signed(told.difference)} in {what}: {told.words}."
    trainings = counted(told.n, "training")
    head.sentences.append(f"Welch’s test, n\u00a0=\u00a0{trainings} of each loss, on {data}: {told.details}.")
    if kept:
        head.tone = "good" if told.outcome == "better" else "open"
        seeds = "one training does" if told.constant or told.n == 1 else f"{told.n} seeds do"
        head.title = {
            "better": f"The metalearned loss beats {name}.",
            "worse": f"Better on validation data, the metalearned loss is worse than {name} on {data}.",
        }.get(
            told.outcome,
            f"The metalearned loss is {'' if told.better else 'not '}ahead of {name}; {seeds} not settle it.",
        )
    if baseline is not None:
        stands = {"better": "beats", "worse": "is worse than", "undecided": "does not clearly beat"}[baseline.outcome]
        head.sentences.append(
            f"The metalearned loss {stands} the best smoothed cross-entropy that a search of the same budget found: "
            f"{signed(baseline.difference)}; {baseline.details}."
        )
    if files.result is None:
        assert search is not None
        head.sentences += filter(None, (same_for_every_seed(files), files.starts))
        if len(search.finalists) > 1 and kept:
            head.sentences.append(
                f"The loss is the best of {len(search.finalists)} finalists by these same figures, on the data that it "
                "was chosen by, which flatters it a little. Test data have the last word."
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
