"""The headline: did the loss beat the baselines, by how much, how sure is that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tglo_lightning.reporting.html.files import RunFiles
from tglo_lightning.reporting.numbers import LESS_IS_BETTER, LOSSES, duration, fixed, mean_sd, signed
from tglo_lightning.reporting.pictures.canvas import KINDS
from tglo_lightning.reporting.results import final_verdict, leader
from tglo_lightning.reporting.stats import Verdict, verdict
from tglo_lightning.search import SearchResult
from tglo_lightning.search.curves import Curves
from tglo_lightning.wording import counted

METALEARNED = "metalearned"
CALLED = {"original": "the original", "tuned_original": "the tuned original", "known": "the best known loss"}
STANDS = {"better": "beats", "undecided": "ties with", "worse": "is worse than"}


@dataclass
class Headline:
    """What the reader should know first.

    Attributes:
        tone: ``"good"``, ``"open"`` or ``"plain"``.
        facts: module, data, what was compared, what it cost and what got worse, in one line.
        bars, measure: label, mean and deviation, colour of each loss; and what these figures are.
        sure: how sure it is, in words.
    """

    tone: str
    title: str
    facts: str = ""
    sentences: list[str] = field(default_factory=list)
    bars: list[tuple[str, str, str]] = field(default_factory=list)
    measure: str = ""
    sure: str = ""


def headline(files: RunFiles) -> Headline:
    """Return the headline of a run."""
    if files.result is not None:
        return _on_test_data(files, files.result)
    if (search := files.search) is None:
        return Headline("plain", "A training that was measured, without a search or a comparison.")
    if files.interrupted:
        return _unfinished(files, search)
    return _of_search(files, search) if search.curves is None else _of_race(files, search, search.curves)


def verdicts(files: RunFiles, metric: str) -> dict[str, Verdict | None]:
    """Compare the metalearned loss with each other loss on test data; None if a value is missing or not finite."""
    values = test_values(files, metric)
    ours, less = values.pop(METALEARNED, None), metric in LESS_IS_BETTER
    return {} if ours is None else {kind: verdict(ours, theirs, less=less) for kind, theirs in values.items()}


def test_values(files: RunFiles, metric: str) -> dict[str, list[float]]:
    """Return one value per seed for each loss; NaN if a training did not come to a finite result."""
    losses = files.result["losses"] if files.result else {}
    return {k: [math.nan if v is None else v for v in loss["test"][metric]["values"]] for k, loss in losses.items()}


def loss_names(files: RunFiles) -> dict[str, str]:
    """Return what the losses of a comparison on test data are called, the name of the class included."""
    losses = files.result["losses"] if files.result else {}
    named = {"known": f"best known loss ({losses['known']['name']})"} if "known" in losses else {}
    return LOSSES | named | {"original": f"{files.original} (original)"}


def _on_test_data(files: RunFiles, result: dict[str, Any]) -> Headline:
    tests, wanted = result["losses"]["original"]["test"], result["monitor"].rpartition("/")[2]
    metric = wanted if wanted in tests else next(iter(tests))
    values, search = test_values(files, metric), result["search"]
    if METALEARNED in values:
        head = _compared(files, verdicts(files, metric), loss_names(files), files.logged(metric))
    else:
        searched = search["candidates"] > 0
        title = f"No candidate could be trained; {files.original} stays." if searched else None
        head = Headline("plain", title or f"{files.original}, without a search.")
    cost = f"search: {counted(search['trainings'], 'training')}, {duration(search['seconds'])}"
    others = {files.logged(m): verdicts(files, m).get("original") for m in tests if m != metric}
    return _with_figures(
        head, files, files.logged(metric), values, "tested on test data", cost if search["trainings"] else "", others
    )


def _of_search(files: RunFiles, search: SearchResult) -> Headline:
    values = {"original": search.original.fitness}
    if search.best is None:
        head = Headline("plain", f"No candidate could be trained; {files.original} stays.")
    else:
        values[METALEARNED] = search.best.fitness
        told = final_verdict(search)
        head = _compared(files, {"original": told}, {"original": files.original}, search.monitor)
        head.sentences += filter(None, (same_for_every_seed(files), files.starts))
        if files.kept:
            data = "the number that fn returns" if files.plain else "the validation data that the search chose by"
            head.sentences.append(f"The confirming seeds are fresh, but {data} are not. Test data have the last word.")
        if any(map(math.isnan, search.original.fitness)) and told is not None:
            head.sentences.append(f"A training with {files.original} that diverged counts as the worst value seen.")
    cost = f"{counted(search.trainings, 'training')}, {duration(search.seconds)}"
    return _with_figures(head, files, search.monitor, values, f"compared by {search.monitor}", cost, {})


def _of_race(files: RunFiles, search: SearchResult, curves: Curves) -> Headline:
    names = curves.names(search.original.name)
    head = Headline("plain", f"Of {len(names)} networks that of {names[curves.winner]} is kept.")
    own = next(entry for entry in search.history if entry.criterion.is_original)
    entrants = {METALEARNED: search.history[curves.winner], "original": own}
    head.bars = [(names[e.index], fixed(e.fitness), KINDS[kind]) for kind, e in entrants.items()]
    head.bars = head.bars[: 1 + (own.index != curves.winner)]
    head.measure = f"{search.monitor}, the best check of one network each"
    head.sentences = ["They were compared by the data that chose among them. Test data have the last word."]
    if search.p_value is not None:
        n, p = len(search.original.fitness), search.p_value
        head.sentences.append(f"From {n} fresh seeds each its loss gains {signed(search.gain)}; one-sided p {p:.2g}.")
    cost = f"{counted(search.trainings, 'training')}, {duration(search.seconds)}"
    head.facts = _facts(files, "one network each, no test of the loss" if search.p_value is None else "", cost)
    return head


def _compared(
    files: RunFiles, compared: Mapping[str, Verdict | None], names: Mapping[str, str], metric: str
) -> Headline:
    """The headline on comparisons with baselines; good only if the best of them is beaten."""
    name = files.original
    head = Headline("plain", f"{name} stays: no metalearned loss was confirmed to beat it on validation data.")
    told = {kind: each for kind, each in compared.items() if each is not None}
    if len(told) < len(compared):
        return Headline("open", "Some trainings from fresh seeds did not come to a finite result.")
    best = min(told, key=lambda kind: abs(told[kind].difference) * (1 if told[kind].better else -1))
    first, several = told[best], len(told) > 1
    head.sure = f"{signed(first.difference)} in {metric}{f' against {names[best]}' if several else ''}: {first.words}."
    test = f"Paired t-test, n\u00a0=\u00a0{counted(first.n, 'seed')}"
    lines = [f"{test}." if several else f"{test}: {first.details}."]
    if several:
        lines += [f"Against {names[kind]} {signed(each.difference)}; {each.details}." for kind, each in told.items()]
    head.sentences += lines
    if not files.kept:
        return head
    stands: dict[str, list[str]] = {}
    for kind, each in told.items():
        tested = STANDS[each.outcome] if each.p is not None else "is ahead of" if each.better else "is not ahead of"
        stands.setdefault(tested, []).append(CALLED[kind] if several else name)
    parts = _listed([f"{word} {_listed(losses)}" for word, losses in stands.items()])
    untested = "" if first.p is not None else "; one training does not settle it"
    head.title = f"The metalearned loss {parts}{untested}."
    head.tone = "good" if first.outcome == "better" else "open"
    return head


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _with_figures(
    head: Headline,
    files: RunFiles,
    metric: str,
    values: Mapping[str, Sequence[float]],
    compared: str,
    cost: str,
    others: Mapping[str, Verdict | None],
) -> Headline:
    """Add the value of each loss, and one line: module, data, what was compared and how, its cost, what got worse."""
    labels = loss_names(files) | {METALEARNED: METALEARNED if files.kept else "best finalist, not kept"}
    head.bars = [(labels[kind], mean_sd(each), KINDS[kind]) for kind, each in values.items()]
    head.measure = f"{metric}, {over_seeds([*values.values()])}"
    worse = [f"{m} ({signed(v.difference)})" for m, v in others.items() if v is not None and not v.better]
    seeds = f"{counted(len(values['original']), 'fresh seed')} for each loss, {compared}"
    head.facts = _facts(files, seeds, cost, f"worse than the original: {', '.join(worse)}" if worse else "")
    return head


def _facts(files: RunFiles, *more: str) -> str:
    """Module and data in a line, and what else is to be told."""
    lengths = ((files.header.get("data") or {}).get("train") or {}).get("lengths")
    samples = counted(sum(lengths), "training sample") if lengths else ""
    classes = counted(files.num_classes, "class") if files.num_classes else ""
    return " · ".join(filter(None, (files.module, samples, classes, *more)))


def _unfinished(files: RunFiles, search: SearchResult) -> Headline:
    done, takes = files.trainings
    head = Headline("open", f"The search is not finished: {done} of {takes} trainings are done.")
    if (best := leader(search)) is not None:
        words = f"The best candidate so far has {search.monitor} {fixed(best.found)}, from one seed."
        head.sentences.append(f"{words} The finals will tell whether it beats {files.original}.")
    return head


def same_for_every_seed(files: RunFiles) -> str:
    """Return what it means if the seeds of the finals made no difference; empty if they did."""
    if files.search is None or files.search.seeds_matter:
        return ""
    why = {
        "module": ', because nothing is random: no shuffling, no dropout, init="module". More seeds change nothing',
        "plain": ", because fn draws nothing at random, or sets a seed of its own. More seeds change nothing",
    }.get("plain" if files.plain else files.header.get("init", ""), "")
    return (
        f"The seeds made no difference: each loss came to the same number in all its trainings{why}. So the comparison "
        "counts as a single training of each loss."
    )


def over_seeds(entrants: Sequence[Sequence[float]]) -> str:
    """Return what the figures of each loss are, in words."""
    n = len(entrants[0])
    if n == 1:
        return "one training of each loss"
    if all(len(set(values)) == 1 and math.isfinite(values[0]) for values in entrants if values):
        return f"the same from each of {counted(n, 'fresh seed')}"
    return f"mean ± standard deviation over {counted(n, 'fresh seed')}"
