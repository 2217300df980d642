"""Every loss on test data."""

from __future__ import annotations

from tglo_lightning.reporting.html import snippets
from tglo_lightning.reporting.html.blocks import Details, Formula, Missing, Section, Table
from tglo_lightning.reporting.html.files import RunFiles
from tglo_lightning.reporting.html.headline import loss_names, verdicts
from tglo_lightning.reporting.html.sections.loss import chosen
from tglo_lightning.reporting.numbers import direction, fixed, mean_sd, p_value


def comparison(files: RunFiles) -> Section:
    """Return the test metrics of every loss over fresh seeds, and the tests."""
    section = Section("comparison", "Comparison on test data")
    if files.result is None:
        return section.add(_not_compared(files))
    losses, names = files.result["losses"], loss_names(files)
    metrics = list(losses["original"]["test"])
    n = len(losses["original"]["test"][metrics[0]]["values"])
    rows = [
        [names[kind], *(mean_sd(loss["test"][m]["values"]) for m in metrics), Formula(loss["formula"])]
        for kind, loss in losses.items()
    ]
    told = [verdicts(files, metric) for metric in metrics]
    for kind in told[0]:
        each = [compared[kind] for compared in told]
        rows.append([f"p, metalearned better than {names[kind]}", *(p_value(v.p if v else None) for v in each), ""])
    head = [f"test/{metric}, {direction(metric)} is better" for metric in metrics]
    over = "one training of each loss" if n == 1 else f"mean ± standard deviation over {n} fresh seeds"
    foot = (
        "A seed sets initial weights and data order, and is the same for every loss. Test data were used once per "
        "training and chose nothing. p: t-test paired by seed, one-sided, not corrected for the number of comparisons."
    )
    if len(losses) > 2:
        foot += " Each loss but the original was found by a search with the same number of trainings."
    single = [
        [f"{names[kind]}, seed {i + 1}", *(fixed(loss["test"][m]["values"][i]) for m in metrics)]
        for kind, loss in losses.items()
        for i in range(n)
    ]
    everything = Table("Every training", ["training", *(f"test/{metric}" for metric in metrics)], single)
    return section.add(
        Table(f"Test data: {over}", ["loss", *head, "f(y, h)"], rows, foot),
        Details("Every single training", [everything]),
    )


def _not_compared(files: RunFiles) -> Missing:
    if files.own:
        best, _ = chosen(files)
        if files.interrupted:
            return Missing("The search has not ended; the loss that it finds can then be compared on test data.")
        words = "No test data were used here: the search chose by validation data, which flatters what it chose."
        if best is None:
            return Missing(words)
        words += " To compare both losses, train with each from the same fresh seeds and test each training once."
        return Missing(words, snippets.comparison(files, best.criterion))
    if files.overrides is None:
        words = "No test data were used. tglo-train trains both losses from fresh seeds and tests each training once."
        return Missing(words, snippets.EXAMPLE)
    words = "The run has not come to its comparison. Started again in its directory, it continues where it stopped."
    return Missing(words, "" if files.interrupted else snippets.again(files))
