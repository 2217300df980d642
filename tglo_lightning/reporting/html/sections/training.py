"""What was recorded of trainings: curves, attraction of the samples, accuracy under attack."""

from __future__ import annotations

from itertools import zip_longest

from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.html import snippets
from tglo_lightning.reporting.html.blocks import Details, Missing, Pictures, Points, Section, Table
from tglo_lightning.reporting.html.files import TARGETS, RunFiles
from tglo_lightning.reporting.numbers import LOSSES, mean_sd, number, percent
from tglo_lightning.reporting.tables import robustness_table
from tglo_lightning.wording import counted


def curves(files: RunFiles) -> Section:
    """The metrics over the epochs, all losses in one picture; each loss's own value in a picture of its own."""
    section = Section("curves", "Training and validation")
    if files.search is not None and files.search.curves is not None:
        return section.add(Missing("The curves are those of the race; the fit that ended it trained nothing more."))
    if not files.curves:
        return section.add(_no_curves(files))
    names = {kind: LOSSES.get(kind, kind) for kind in files.curves}
    monitor = files.result["monitor"] if files.result else ""
    if files.fit and files.search is not None:
        kept = "the metalearned loss" if files.kept else files.original
        names, monitor = dict.fromkeys(files.curves, kept), files.search.monitor
        section.lead = (
            f"The one training that followed the search, with {kept}. The curves of both losses, over fresh seeds, "
            "come from the code under “Comparison on test data”, with a logger for each Trainer."
        )
    else:
        if files.result is not None and "original" in names:
            names["original"] = files.original
        n = max(map(len, files.curves.values()))
        over = "One seed." if n == 1 else f"Mean over {n} fresh seeds, with ± one standard deviation."
        section.lead = (
            f"{over} Each training loss has a picture of its own: values of different losses cannot be compared."
        )
    metrics = {metric for seeds in files.curves.values() for seed in seeds for metric in seed}
    figures = []
    for metric in sorted(metrics, key=lambda m: (m != monitor, not m.startswith("val/"), m)):
        name = metric.rpartition("/")[2]
        if name in ("brier", "ece"):
            continue
        shown = {k: seeds for k, seeds in files.curves.items() if any(metric in seed for seed in seeds)}
        groups = [{kind: shown[kind]} for kind in shown] if name.startswith("loss") else [shown]
        figures += [pictures.curves(group, metric, names) for group in groups]
    section.add(Pictures(figures))
    return section.add(Details("Epoch by epoch", [_epochs(files, names, monitor)])) if monitor else section


def _no_curves(files: RunFiles) -> Missing:
    if files.plain:
        return Missing("A training loop of your own keeps its own curves; the search knows its last figure only.")
    if files.own and files.fit:
        return Missing("The fit that followed the search logged nothing at the end of an epoch with self.log.")
    if files.own:
        return Missing(f"{files.pending} When it is, this report is written again, with its curves.")
    words = "No curves were recorded. tglo-train records them when it compares the losses over fresh seeds."
    typed = snippets.command(files) if files.result is not None else ""
    return Missing(words, typed if files.overrides is not None else snippets.EXAMPLE)


def _epochs(files: RunFiles, names: dict[str, str], monitor: str) -> Table:
    columns = {
        names[kind]: [
            mean_sd(epoch) for epoch in zip(*(seed[monitor] for seed in seeds if monitor in seed), strict=False)
        ]
        for kind, seeds in files.curves.items()
    }
    rows = [[str(epoch), *cells] for epoch, cells in enumerate(zip_longest(*columns.values(), fillvalue=""), start=1)]
    spread = ": mean ± standard deviation" if max(map(len, files.curves.values())) > 1 else ""
    return Table(f"{monitor}{spread}", ["epoch", *columns], rows)


def attraction(files: RunFiles) -> Section:
    """Which samples are pulled in and which are pushed away."""
    section = Section("attraction", "Attraction to zero training error")
    if not files.attraction:
        return section.add(_no_attraction(files))
    section.lead = (
        "Every dot is a training sample. Above zero the loss pulls it to zero training error, below zero it pushes it "
        "away. A loss that does not memorise single samples keeps confidence below one."
    )
    figures, rows = [], []
    raced = files.search.curves if files.search is not None else None
    unit = "epochs" if raced is None else raced.unit
    if raced is not None:
        section.lead += (
            f" The network that is kept is that of the check after {counted(raced.kept_at, raced.unit[:-1])}; the "
            "table is of the last check of each."
        )
    for kind, record in files.attraction.items():
        name = files.original if kind == "original" else LOSSES.get(kind, kind)
        figures.append(pictures.attraction({str(name): record}, unit))
        last = record.scalars()
        pulls = [number(last.get(name)) for name in ("q05", "q50", "q95")]
        middle = number(1 - last["eps"]) if last else "n/a"
        settles = ", ".join(number(1 - eps) for eps in record.equilibria[-1]) or "none below 1"
        rows.append([str(name), percent(last["repelled"]) if last else "n/a", *pulls, middle, settles])
    counts = {(len(record.index), record.epochs[-1]) for record in files.attraction.values()}
    when = ", ".join(f"{counted(samples, 'sample')}, {unit[:-1]} {epoch}" for samples, epoch in sorted(counts))
    head = ["loss", "pushed away", "attraction, 5 %", "median", "95 %", "median confidence", "predicted equilibrium"]
    end = "At the end of training" if raced is None else "At the last check"
    return section.add(Pictures(figures), Table(f"{end} ({when})", head, rows))


def _no_attraction(files: RunFiles) -> Missing:
    words = "What the loss does to single training samples was not measured."
    if any(entry.endswith("callbacks=attraction") for entry in files.overrides or []):
        return Missing("The samples are measured when both losses are compared, which this run has not come to.")
    if files.kind != "classes":
        return Missing(f"Attraction is measured for losses over classes, not for {TARGETS[files.kind]} targets.")
    if files.plain:
        return Missing(f"{words} AttractionMonitor, a callback for a Lightning Trainer, measures it.")
    if files.own:
        later = "" if files.fit else f" {files.pending} If it is added now, this report will show it after the fit."
        words += f" AttractionMonitor, a second callback, measures it in the fit that follows the search.{later}"
        return Missing(words)
    return Missing(words, snippets.command(files, "callbacks=attraction"))


def robustness(files: RunFiles) -> Section:
    """Accuracy under attack."""
    section = Section("robustness", "Adversarial robustness")
    if not files.robustness:
        return section.add(_not_attacked(files))
    section.lead = (
        "An image counts as robust if it is classified correctly as it is and under the attack. Only the worst case "
        "over the attacks is a claim; an attack with the network’s own loss alone can be fooled by a flat loss."
    )
    for name, report in files.robustness.items():
        figure = pictures.robustness(report, f"Accuracy under attack: {name}")
        section.add(Pictures([figure]), robustness_table(report))
        if report.findings:
            section.add(Points("Reasons to doubt these figures", report.warnings))
    return section


def _not_attacked(files: RunFiles) -> Missing:
    words = "Accuracy under attack was not measured."
    if files.own:
        return Missing(
            f"{words} For a network of images, tglo_lightning.attacks.evaluate_robustness measures it; save what it "
            "returns as robustness.json in this directory, and tglo-report writes this report again."
        )
    ran = files.overrides is not None
    typed = (
        f"tglo-attack ckpt={'RUN_DIR' if ran else 'CHECKPOINT'} attack=standard "
        f"hydra.run.dir={'RUN_DIR/attack' if ran else 'ATTACK_DIR'}\n"
        f"tglo-report RUN_DIR{'' if ran else ' --attack ATTACK_DIR'}"
    )
    return Missing(f"{words} Attack the trained network and write the report again:", typed)
