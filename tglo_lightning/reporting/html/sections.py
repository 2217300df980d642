"""The sections of the report: what each shows, and what it says where there is nothing to show."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape

import numpy as np
from markupsafe import Markup
from torch import nn

from tglo_lightning.losses.registry import loss_like
from tglo_lightning.reporting.html import figures
from tglo_lightning.reporting.html.blocks import (
    Block,
    Code,
    Details,
    Formula,
    Missing,
    Plots,
    Points,
    Section,
    Table,
    Text,
)
from tglo_lightning.reporting.html.figures import long_name, number, percent
from tglo_lightning.reporting.html.files import RunFiles
from tglo_lightning.reporting.html.mathml import mathml
from tglo_lightning.reporting.html.snippets import (
    again,
    attack,
    callback,
    command,
    comparison,
    drop_in,
    monitored,
    original_options,
)
from tglo_lightning.reporting.html.verdict import Contest, p_value, seeds_alike, verdict
from tglo_lightning.reporting.stats import LESS_IS_BETTER
from tglo_lightning.search.result import Finalist, SearchResult
from tglo_lightning.theory import Explanation, explain
from tglo_lightning.theory.explanation import parameter_meanings
from tglo_lightning.wording import counted

__all__ = ["sections"]

ERRORS_OF_A_LOSS = (ValueError, TypeError)
EXAMPLE = "tglo-train experiment=digits_noisy"


def sections(files: RunFiles, num_classes: int | None = None) -> list[Section]:
    """All sections, in the order of the page.

    Args:
        files: what there is of the run.
        num_classes: number of classes, where no file knows it.
    """
    n = num_classes or files.num_classes
    return [
        _comparison(files),
        _loss(files),
        _why(files, n),
        _search(files),
        _finalists(files),
        _curves(files),
        _attraction(files),
        _robustness(files),
        _setup(files),
    ]


def _own(files: RunFiles) -> bool:
    """Whether this is a search from a program of the user's, where the commands of this package do not reach."""
    return files.search is not None and not files.command


def _comparison(files: RunFiles) -> Section:
    section = Section("comparison", "Comparison on test data")
    if files.result is None and _own(files):
        best, _ = _chosen(files)
        text = "No test data were used here: the search chose by validation data, which flatters what it chose."
        if files.interrupted or best is None:
            early = "A comparison on test data is for the loss that is found in the end; the search has not come to it."
            section.blocks.append(Missing(early if files.interrupted else text))
            return section
        text += (
            " To compare both losses, train with each from fresh seeds and test each training once. This goes on from "
            "the code under “The loss”:"
        )
        section.blocks.append(Missing(text, comparison(files, best.losses)))
        return section
    if files.result is None:
        why = (
            "The run has not come to its comparison." if files.overrides is not None else "No test data were used here."
        )
        how = (
            "Started again in its directory, it goes on where it stopped."
            if files.overrides is not None
            else "tglo-train trains both losses from fresh seeds and tests each training once."
        )
        typed = "" if files.interrupted else again(files)
        section.blocks.append(Missing(f"{why} {how}", typed if files.overrides is not None else EXAMPLE))
        return section
    losses = files.result["losses"]
    metrics = list(losses["original"]["test"])
    n = len(losses["original"]["test"][metrics[0]]["values"])
    rows = [
        [_named(kind, loss["name"]), *(_mean(loss["test"][m]["values"]) for m in metrics)]
        for kind, loss in losses.items()
    ]
    for reference in ("original", "baseline"):
        if "metalearned" in losses and reference in losses:
            contests = [_contest(losses, m, reference) for m in metrics]
            rows.append([f"p, metalearned better than {reference}", *(p_value(c.p) for c in contests)])
    better = [f"{long_name(m)}, {'lower' if m in LESS_IS_BETTER else 'higher'} is better" for m in metrics]
    over = "one training of each loss" if n == 1 else f"mean ± standard deviation over {n} fresh seeds"
    section.blocks.append(
        Table(
            f"Test data: {over}",
            ["loss", *better],
            rows,
            "A seed covers initial weights and data order, and is the same for every loss; test data were used once a "
            "training and chose nothing. p: Welch’s test, one-sided, not corrected for the number of metrics.",
        )
    )
    each = [
        [f"{_named(kind, loss['name'])}, seed {i + 1}", *(f"{loss['test'][m]['values'][i]:.4f}" for m in metrics)]
        for kind, loss in losses.items()
        for i in range(n)
    ]
    table = Table("Every training", ["training", *map(long_name, metrics)], each)
    section.blocks.append(Details("Every single training", [table]))
    return section


def _contest(losses: dict[str, dict], metric: str, reference: str) -> Contest:
    ours, theirs = (losses[kind]["test"][metric]["values"] for kind in ("metalearned", reference))
    return Contest(ours, theirs, metric in LESS_IS_BETTER)


def _named(kind: str, name: str) -> str:
    return f"{kind}: {name}"


def _mean(values: Sequence[float]) -> str:
    if not all(map(math.isfinite, values)):
        return "not finite"
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def _chosen(files: RunFiles) -> tuple[Finalist | None, str]:
    """The loss that the report is about, and what it is."""
    search = files.search
    if search is None:
        theta = files.result["losses"].get("metalearned", {}).get("theta") if files.result else None
        return (None, "") if theta is None else (Finalist(theta, "metalearned"), "the metalearned loss")
    if search.best is not None and not files.interrupted:
        return search.best, "the metalearned loss" if search.kept == "metalearned" else "the best finalist, not kept"
    sign = 1 if search.mode == "max" else -1
    ok = [c for c in search.history if math.isfinite(c.fitness)]
    if not ok:
        return None, ""
    leader = max(ok, key=lambda c: sign * c.fitness)
    losses = int(search.settings.get("losses", 1))
    best = Finalist(leader.theta, "candidate", [], leader.fitness, leader.generation, losses)
    return best, "the best candidate so far"


def _loss(files: RunFiles) -> Section:
    best, what = _chosen(files)
    section = Section("loss", "The loss")
    if best is None or best.theta is None:
        text = "There is no metalearned loss: no candidate came to a finite result."
        if files.search is None:
            text = "There is no metalearned loss: this run made no search."
        section.blocks.append(Missing(text, "tglo-train search=taylorglo" if files.search is None else ""))
        return section
    section.lead = (
        f"This is {what}. A network’s loss is the sum over the classes −Σₖ f(yₖ, hₖ), with the label y and the softmax "
        "output h; cross-entropy is f = y log h."
    )
    parts = split_theta(best.theta, best.losses)
    paths = files.header.get("loss") or []
    for i, part in enumerate(parts):
        head = f" of {paths[i] if i < len(paths) else f'loss {i + 1}'}" if len(parts) > 1 else ""
        try:
            section.blocks.append(Formula(head, _loss_of(part).formula))
        except ERRORS_OF_A_LOSS as error:
            section.blocks.append(Missing(f"The formula cannot be told: {error}"))
    options = original_options(files)
    original = files.search.original.name if files.search else files.result["losses"]["original"]["name"]  # type: ignore[index]
    section.blocks.append(Code(f"In place of {original}, in any training loop", drop_in(best, options)))
    if options is None:
        section.blocks.append(
            Missing(
                "The options of the original loss were not recorded by the version that made this run. If it has class "
                "weights, ignore_index or a reduction, give them to this loss too."
            )
        )
    elif any("label_smoothing" in each for each in options):
        smoothed = ", ".join(f"{each.get('label_smoothing', 0):g}" for each in options)
        section.blocks.append(
            Text(
                f"The original loss smooths its labels by {smoothed}. The metalearned one does not take that over, nor "
                "did it in the search: its parameters say all that it does to a label."
            )
        )
    return section


def _loss_of(theta: Sequence[float]):  # type: ignore[no-untyped-def]
    return loss_like(nn.CrossEntropyLoss(), theta)


def _why(files: RunFiles, n: int | None) -> Section:
    best, _ = _chosen(files)
    section = Section("why", "Why it works" if verdict(files).tone == "good" else "What the theory says of it")
    if best is None or best.theta is None:
        section.blocks.append(
            Missing("Without a metalearned loss there is nothing to explain.", "tglo-explain cross_entropy")
        )
        return section
    if n is None:
        section.blocks.append(
            Missing(
                "What a loss does depends on the number of classes, which no file of this run knows.",
                "tglo-report RUN_DIR --num-classes 10",
            )
        )
        return section
    section.lead = (
        "With a softmax, a loss pulls a sample towards zero training error where D(ε) > 0 and pushes it away where "
        "D(ε) < 0; ε is the sample’s distance from full confidence in its label. Where D crosses zero from below, "
        "samples settle. Cross-entropy pulls everywhere, wrong labels included."
    )
    parts = split_theta(best.theta, best.losses)
    for i, part in enumerate(parts):
        try:
            told = explain(_loss_of(part), n)
        except ERRORS_OF_A_LOSS as error:
            section.blocks.append(Missing(f"This loss cannot be explained: {error}"))
            continue
        section.blocks += _explained(told, f"loss {i + 1}: " if len(parts) > 1 else "")
    return section


def _explained(told: Explanation, prefix: str) -> list[Block]:
    blocks: list[Block] = [Plots([figures.explanation(told)])]
    # The last two paragraphs of the text are what is told in words; the formula and its numbers are shown otherwise
    for paragraph in told.text.split("\n\n")[-2:]:
        head, *lines = paragraph.splitlines()
        blocks.append(Points(prefix + _typeset(head), [_typeset(line.removeprefix("  ")) for line in lines]))
    if told.theta is not None and told.coefficients is not None and len(told.theta) > 2:
        blocks.append(
            Text(
                "The D(ε) of a polynomial stays finite where ε goes to 1, while that of cross-entropy grows without "
                "bound. So a sample that the network is sure is something else, as a mislabelled one soon is, loses "
                "its pull; cross-entropy pulls it with full force."
            )
        )
        rows = [
            [name, number(value, 5), meaning]
            for (name, meaning), value in zip(parameter_meanings(told.theta).items(), told.theta, strict=True)
        ]
        own = Table("Parameters θ", ["name", "value", "stands before"], rows)
        slopes = [[name, number(value, 5)] for name, value in told.coefficients.items()]
        learned = Table("Coefficients of γ = ∂f/∂h, the learning rule", ["coefficient", "value"], slopes)
        blocks.append(Details(f"{prefix}All parameters".capitalize(), [own, learned]))
    return blocks


def _typeset(text: str) -> Markup:
    """Plain text with the signs and indices that a page has."""
    for pattern, sign in ((r"\beps\b", "ε"), ("<=", "≤"), (">=", "≥"), (r"(?<=[\s(=])-(?=\d)", "−"), (" - ", " − ")):
        text = re.sub(pattern, sign, text)
    return Markup(re.sub(r"\bh_T\b", "h<sub>T</sub>", escape(text)))


def _search(files: RunFiles) -> Section:
    section = Section("search", "The search")
    search = files.search
    if search is None or not search.history:
        if files.result is not None and files.result["search"]["candidates"]:
            section.blocks.append(
                Missing("The files of the search (search.json, search.jsonl) are not in this directory any more.")
            )
        elif search is not None:
            section.blocks.append(Missing("No candidate has been trained yet.", again(files)))
        else:
            section.blocks.append(Missing("This run made no search.", "tglo-train search=taylorglo"))
        return section
    if files.interrupted:
        done, takes = files.trainings
        section.blocks.append(
            Missing(
                f"The search was interrupted, or still runs: its journal holds {done} of {takes} trainings. Nothing is "
                "lost. Start the same fit again and it goes on from there, with the same result.",
                again(files),
            )
        )
    share = ""
    if search.infeasible or search.refused:
        total = search.infeasible + search.candidates
        share = f" The constraint refused {search.infeasible} of {counted(total, 'draw')}, before any training."
    section.lead = (
        f"CMA-ES drew {counted(search.candidates, 'candidate')}; a network was trained with each and scored by "
        f"{search.monitor}. "
        f"{search.failed or 'None'} failed.{share}"
        + (f" It took {_duration(search.seconds)}." if search.seconds and not files.interrupted else "")
    )
    section.blocks.append(Plots([figures.fitness(search)]))
    small = [panel for panel in (figures.theta(search), figures.feasible(search)) if panel is not None]
    section.blocks.append(Plots(small))
    if not search.refused:
        section.blocks.append(
            Missing("The feasible share of each generation is known when a search has come to its end (search.json).")
        )
    section.blocks.append(Details("Generation by generation", [_generations(search)]))
    return section


def _generations(search: SearchResult) -> Table:
    sign = 1 if search.mode == "max" else -1
    rows = []
    for g in sorted({c.generation for c in search.history}):
        members = [c for c in search.history if c.generation == g]
        values = [c.fitness for c in members if math.isfinite(c.fitness)]
        refused = str(search.refused[g]) if g < len(search.refused) else "n/a"
        best = f"{max(values, key=lambda v: sign * v):.4f}" if values else "none"
        mean = f"{np.mean(values):.4f}" if values else "none"
        rows.append([str(g + 1), str(len(members)), best, mean, str(len(members) - len(values)), refused])
    head = ["generation", "candidates", f"best {search.monitor}", "mean", "failed", "refused draws"]
    return Table("The search in numbers", head, rows)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _finalists(files: RunFiles) -> Section:
    section = Section("finalists", "Finalists")
    search = files.search
    if search is None or not (search.finalists or search.original.fitness):
        text = "Without a search there are no finalists."
        if search is not None:
            text = "The search has not come to its finals, in which the best candidates meet the original loss again."
        section.blocks.append(Missing(text))
        return section
    section.lead = (
        "A fitness seen once is flattered by luck. So the best candidates are trained again from fresh seeds, the "
        "original loss beside them from the same seeds, and the best mean wins."
    )
    section.lead = " ".join(filter(None, [section.lead, files.starts, seeds_alike(files)]))
    section.blocks.append(Plots([figures.finalists(search)]))
    rows = []
    for entrant in [search.original, *search.finalists]:
        p = None
        if entrant.theta is not None and len(entrant.fitness) == len(search.original.fitness):
            p = Contest(entrant.fitness, search.original.fitness, search.mode == "min").p if entrant.fitness else None
        rows.append(
            [
                entrant.name,
                _mean(entrant.fitness) if entrant.fitness else "none yet",
                str(len(entrant.fitness)),
                "" if entrant.found is None else f"{entrant.found:.4f}",
                "" if entrant.generation is None else str(entrant.generation + 1),
                "" if entrant.theta is None else p_value(p),
                Markup() if entrant.theta is None else mathml(entrant.formula),
            ]
        )
    head = [
        "loss",
        f"{search.monitor}{', mean ± sd' if len(search.original.fitness) > 1 else ''}",
        "n",
        "in the search",
        "generation",
        "p, better than original",
        "f(y, h)",
    ]
    foot = "p: Welch’s test, one-sided, not corrected for the number of finalists."
    section.blocks.append(Table("The finals", head, rows, foot))
    return section


def _pending(files: RunFiles) -> str:
    """Why there is nothing yet of the fit that follows a search as a callback."""
    return f"The fit that follows the search is not over{', nor is the search' if files.interrupted else ''}."


def _curves(files: RunFiles) -> Section:
    section = Section("curves", "Training and validation")
    if not files.curves:
        text = "No curves were recorded."
        if _own(files):
            text = f"{_pending(files)} When it is, this report is written again, with its curves."
            if files.plain:
                text = "A training loop of your own keeps its own curves; the search knows its last figure only."
            elif files.fit:
                text = "The fit that followed the search has logged nothing at the end of an epoch, by self.log."
            section.blocks.append(Missing(text))
            return section
        if files.result is None:
            text += " tglo-train records them when it compares the losses over fresh seeds."
        else:
            text += " This version of tglo-train records them; the run is of an older one."
        typed = command(files) if files.result is not None else ""
        section.blocks.append(Missing(text, typed if files.overrides is not None else EXAMPLE))
        return section
    names = {kind: kind for kind in files.curves}
    if files.fit and files.search is not None:
        kept = files.search.original.name if files.search.kept == "original" else "the metalearned loss"
        names, monitor = dict.fromkeys(files.curves, kept), files.search.monitor
        section.lead = (
            f"The one training that followed the search, with {kept}. The curves of both losses, over fresh seeds, "
            "come from the code under “Comparison on test data”, with a logger for each Trainer."
        )
        section.blocks.append(Plots(figures.curves(files.curves, names, monitor)))
        section.blocks.append(Details("Epoch by epoch", [_epochs(files, names, monitor)]))
        return section
    if files.result is not None:
        names |= {k: v["name"] if k == "original" else k for k, v in files.result["losses"].items() if k in names}
    monitor = files.result["monitor"] if files.result else ""
    count = max(map(len, files.curves.values()))
    section.lead = (
        f"{_over(count)} A training loss is drawn for each loss alone: values of different losses cannot be compared."
    )
    panels = figures.curves(files.curves, names, monitor)
    section.blocks.append(Plots(panels))
    section.blocks.append(Details("Epoch by epoch", [_epochs(files, names, monitor)] if monitor else []))
    return section


def _over(seeds: int) -> str:
    return "One seed." if seeds == 1 else f"Mean over {seeds} fresh seeds, with ± one standard deviation."


def _epochs(files: RunFiles, names: dict[str, str], monitor: str) -> Table:
    columns = {}
    for kind, seeds in files.curves.items():
        rows = [seed[monitor] for seed in seeds if monitor in seed]
        if rows:
            columns[names[kind]] = list(zip(*rows, strict=False))
    length = max(map(len, columns.values()), default=0)
    cells = [
        [str(epoch + 1)]
        + [
            _mean([math.nan if v is None else v for v in column[epoch]]) if epoch < len(column) else ""
            for column in columns.values()
        ]
        for epoch in range(length)
    ]
    spread = ": mean ± standard deviation" if max(map(len, files.curves.values())) > 1 else ""
    return Table(f"{monitor}{spread}", ["epoch", *columns], cells)


def _attraction(files: RunFiles) -> Section:
    section = Section("attraction", "Attraction to zero training error")
    if not files.attraction:
        repeat = f"{command(files)} callbacks=attraction" if files.overrides is not None else ""
        text = "What the loss does to single training samples was not measured."
        if any(entry.endswith("callbacks=attraction") for entry in files.overrides or []):
            repeat, text = "", "The samples are watched when both losses are compared, which this run has not come to."
        elif _own(files):
            if files.plain:
                text += " AttractionMonitor, a callback for a Lightning Trainer, measures it."
            elif files.fit:
                text += " AttractionMonitor, a second callback, measures it in the fit that follows the search:"
                repeat = monitored(files)
            else:
                text += (
                    f" {_pending(files)} Where AttractionMonitor, a second callback, watches it, this report is "
                    "written again at its end, with what it saw:"
                )
                repeat = monitored(files)
        section.blocks.append(Missing(text, repeat))
        return section
    section.lead = (
        "Every dot is a training sample. Above zero the loss pulls it to zero training error, below zero it pushes it "
        "away. A loss that does not want to learn single samples by heart holds confidence below one."
    )
    rows = []
    for kind, record in files.attraction.items():
        name = files.result["losses"][kind]["name"] if files.result and kind == "original" else kind
        section.blocks.append(Plots(figures.attraction(record, name)))
        pulls, confidence = record.quantity("attraction")[-1], 1 - record.quantity("eps")[-1]
        pulls, confidence = pulls[~np.isnan(pulls)], confidence[~np.isnan(confidence)]
        low, middle, high = np.quantile(pulls, (0.05, 0.5, 0.95)) if pulls.size else (math.nan,) * 3
        rests = ", ".join(number(1 - eps) for eps in record.equilibria[-1]) or "none below 1"
        rows.append(
            [
                str(name),
                percent(float(np.mean(pulls < 0))) if pulls.size else "n/a",
                number(low),
                number(middle),
                number(high),
                number(float(np.median(confidence))) if confidence.size else "n/a",
                rests,
            ]
        )
    counts = {(len(r.index), r.epochs[-1]) for r in files.attraction.values()}
    told = ", ".join(f"{counted(samples, 'sample')}, epoch {epoch}" for samples, epoch in sorted(counts))
    head = ["loss", "pushed away", "attraction, 5 %", "median", "95 %", "median confidence", "predicted rest"]
    section.blocks.append(Table(f"At the end of training ({told})", head, rows))
    return section


def _robustness(files: RunFiles) -> Section:
    section = Section("robustness", "Adversarial robustness")
    if not files.robustness and _own(files) and files.images is False:
        text = "The attacks of this package are on images (N, C, H, W), and this search saw none."
        section.blocks.append(Missing(text))
        return section
    if not files.robustness and _own(files):
        text = (
            "Accuracy under attack was not measured. For a network of images (N, C, H, W), pixels from 0 to 1 unless "
            "bounds= or normalize= says otherwise, this measures it (pip install 'tglo-lightning[attacks]'); then "
            f"tglo-report RUN_DIR writes this report again. {'network' if files.plain else 'module'} is the trained "
            "network to attack. Repeat it with the one that was trained with the original loss, and another file name "
            "(robustness-original.json), to see what the loss does."
        )
        section.blocks.append(Missing(text, attack(files)))
        return section
    if not files.robustness:
        where = "hydra.run.dir=RUN_DIR/attack" if files.overrides is not None else "hydra.run.dir=ATTACK_DIR"
        text = "Accuracy under attack was not measured. Attack the trained network and write the report again:"
        typed = f"tglo-attack ckpt={'RUN_DIR' if files.overrides is not None else 'CHECKPOINT'} attack=standard {where}"
        reported = "tglo-report RUN_DIR" + ("" if files.overrides is not None else " --attack ATTACK_DIR")
        section.blocks.append(Missing(text, f"{typed}\n{reported}"))
        return section
    section.lead = (
        "An image counts as robust if it is classified rightly as it is and under the attack. Only the worst case over "
        "the attacks is a claim; an attack with the network’s own loss alone can be fooled by a flat loss."
    )
    for name, report in files.robustness.items():
        section.blocks.append(Plots([figures.robustness(report, name)]))
        rows = [[a.name, *(f"{v:.3f}" for v in a.accuracy)] for a in report.attacks]
        rows.append(["worst case", *(f"{v:.3f}" for v in report.worst_case)])
        caption = f"{name}: accuracy of {counted(report.samples, 'image')} under attack, by radius ε ({report.norm})"
        section.blocks.append(Table(caption, ["attack", *(f"{e:g}" for e in report.epsilons)], rows))
        if report.findings:
            section.blocks.append(Points("Reasons to doubt these figures", report.warnings))
    return section


def _setup(files: RunFiles) -> Section:
    section = Section("setup", "Configuration and versions")
    typed, search = command(files), files.search
    evaluator = search.settings.get("evaluator") if search is not None else None
    if typed:
        section.blocks.append(Code("To repeat this run", typed))
        if evaluator and not any(o.startswith("search.evaluator=") for o in files.overrides or []):
            section.blocks.append(
                Text(
                    f"The search was scored by the “{evaluator}” evaluator; for a repeat bit for bit add "
                    f"search.evaluator={evaluator}, and install the versions below."
                )
            )
    elif search is not None:
        section.blocks.append(Code("The search, as a callback", callback(files, search)))
    else:
        section.blocks.append(
            Missing("The command was not recorded: there is no .hydra/overrides.yaml in this directory.")
        )
    versions = (files.result or {}).get("versions") or files.header.get("versions") or {}
    if versions:
        section.blocks.append(Table("Versions", ["package", "version"], [[k, str(v)] for k, v in versions.items()]))
    else:
        section.blocks.append(
            Missing("The versions of the packages were not recorded: there is no result.json or journal.")
        )
    if search is not None and search.settings:
        told = {key: value for key, value in search.settings.items() if key != "original_options"}
        told |= {} if files.init is None else {"init": files.init}
        rows = [[key, "none" if value is None else str(value)] for key, value in told.items()]
        section.blocks.append(Details("Settings of the search", [Table("Settings", ["setting", "value"], rows)]))
    if files.config:
        section.blocks.append(Details("Full configuration", [Code("config.yaml", files.config.rstrip())]))
    elif files.overrides is not None or files.result is not None:
        section.blocks.append(Missing("The configuration was not recorded: there is no .hydra/config.yaml here."))
    return section
