"""Every loss on test data."""

from __future__ import annotations

from markupsafe import Markup

from tglo_lightning.reporting.html import snippets
from tglo_lightning.reporting.html.blocks import Section, details, missing, table
from tglo_lightning.reporting.html.files import RunFiles
from tglo_lightning.reporting.html.headline import verdict_on_test
from tglo_lightning.reporting.html.sections.loss import chosen
from tglo_lightning.reporting.numbers import direction, fixed, long_name, mean_sd, p_value


def comparison(files: RunFiles) -> Section:
    """Test metrics of every loss over fresh seeds, and the tests."""
    section = Section("comparison", "Comparison on test data")
    if files.result is None:
        return section.add(_not_compared(files))
    losses = files.result["losses"]
    metrics = list(losses["original"]["test"])
    n = len(losses["original"]["test"][metrics[0]]["values"])
    rows = [
        [f"{kind}: {loss['name']}", *(mean_sd(loss["test"][m]["values"]) for m in metrics)]
        for kind, loss in losses.items()
    ]
    for reference in ("original", "opponent"):
        if "metalearned" in losses and reference in losses:
            told = [verdict_on_test(files, metric, reference) for metric in metrics]
            cells = (p_value(each.p if each else None) for each in told)
            rows.append([f"p, metalearned better than {reference}", *cells])
    head = [f"{long_name(metric)}, {direction(metric)} is better" for metric in metrics]
    over = "one training of each loss" if n == 1 else f"mean ± standard deviation over {n} fresh seeds"
    foot = (
        "A seed sets initial weights and data order, and is the same for every loss. Test data were used once per "
        "training and chose nothing. p: Welch’s test, one-sided, not corrected for the number of metrics."
    )
    each = [
        [f"{kind}: {loss['name']}, seed {i + 1}", *(fixed(loss["test"][m]["values"][i]) for m in metrics)]
        for kind, loss in losses.items()
        for i in range(n)
    ]
    single = table("Every training", ["training", *map(long_name, metrics)], each)
    return section.add(
        table(f"Test data: {over}", ["loss", *head], rows, foot), details("Every single training", single)
    )


def _not_compared(files: RunFiles) -> Markup:
    if files.own:
        best, _ = chosen(files)
        if files.interrupted:
            return missing("The search has not ended; the loss that it finds can then be compared on test data.")
        words = "No test data were used here: the search chose by validation data, which flatters what it chose."
        if best is None:
            return missing(words)
        words += (
            " To compare both losses, train with each from fresh seeds and test each training once. This continues the "
            "code under “The loss”:"
        )
        return missing(words, snippets.comparison(files, best.losses))
    if files.overrides is None:
        words = "No test data were used. tglo-train trains both losses from fresh seeds and tests each training once."
        return missing(words, snippets.EXAMPLE)
    words = "The run has not come to its comparison. Started again in its directory, it continues where it stopped."
    return missing(words, "" if files.interrupted else snippets.again(files))
