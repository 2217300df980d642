"""The loss that was found: what the theory says of it, and how it compares on test data."""

from __future__ import annotations

from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.html import snippets
from tglo_lightning.reporting.html.blocks import (
    Block,
    Code,
    Details,
    Formula,
    Loss,
    Missing,
    Pictures,
    Points,
    Section,
    Table,
    Text,
)
from tglo_lightning.reporting.html.files import TARGETS, RunFiles
from tglo_lightning.reporting.html.headline import headline, loss_names, verdicts
from tglo_lightning.reporting.numbers import direction, fixed, mean_sd, number, p_value
from tglo_lightning.reporting.results import family_of, leader, original_loss
from tglo_lightning.search import Criterion, Finalist
from tglo_lightning.theory import explain
from tglo_lightning.theory.explanation import parameter_meanings

MEANINGS = {
    "classes": "A network’s loss is the sum over the classes −Σₖ f(yₖ, hₖ), with the label y and the softmax output h; "
    "cross-entropy is f = y log h.",
    "binary": "The loss of a network is the mean of f(y, h), with the label y and the sigmoid h of the output.",
    "regression": "The loss of a network is the mean of f(y, h), with the target y and the output h.",
}


def chosen(files: RunFiles) -> tuple[Finalist | None, str]:
    """Return the loss that the report is about, and what it is in words; None if there is none."""
    search = files.search
    if search is None:
        entry = files.result["losses"].get("metalearned") if files.result else None
        if not entry or entry["criterion"] is None:
            return None, ""
        return Finalist(Criterion.from_dict(entry["criterion"]), "metalearned"), "the metalearned loss"
    best, kept = search.best, search.kept == "metalearned"
    if best is None or files.interrupted:
        return leader(search), "the best candidate so far"
    if search.curves is not None:
        name = search.curves.names(files.original)[search.curves.winner]
        return best, f"{name}, the loss of the network that is kept"
    # Known losses have a name
    named = "" if "taylorglo" in family_of(best.criterion) else f"{family_of(best.criterion)}, "
    if not best.criterion.losses or not named:
        return best, "the metalearned loss" if kept else "the best finalist, not kept"
    return best, f"{named}{'which the search kept' if kept else 'the best finalist, not kept'}"


def loss(files: RunFiles) -> Section:
    """Return the formula, and code to use the loss elsewhere."""
    best, what = chosen(files)
    section = Section("loss", "The loss")
    if best is None and files.search is None:
        words = "There is no metalearned loss: this run made no search."
        return section.add(Missing(words, "tglo-train search=small"))
    if best is None:
        return section.add(Missing("There is no metalearned loss: no candidate came to a finite result."))
    step = best.criterion.step
    if not best.criterion.losses:
        rate = "" if step == 1 else f", at {number(step)} times its learning rate"
        section.lead = f"This is {what}: {files.original} as it is{rate}."
        return section
    section.lead = f"This is {what}. {MEANINGS[files.kind]}"
    paths = files.header.get("loss") or []
    for i, each in enumerate(best.criterion.losses):
        place = f" of {paths[i] if i < len(paths) else f'loss {i + 1}'}" if len(best.criterion.losses) > 1 else ""
        section.add(Loss(place, Formula(each.formula)))
    use = f"In place of {files.original}, in any training loop" if files.kept else "To build this loss"
    section.add(Code(use, snippets.drop_in(files, best.criterion)))
    if step != 1:
        section.add(Text(f"It was trained at {number(step)} times the learning rate of the module’s optimizer."))
    return section


def theory(files: RunFiles) -> Section:
    """What the theory says of the loss, with the curve of its attraction."""
    num_classes = files.num_classes
    best, _ = chosen(files)
    section = Section("why", "Why it works" if headline(files).tone == "good" else "What the theory says of it")
    if best is None:
        words = "Without a metalearned loss there is nothing to explain."
        return section.add(Missing(words, "tglo-explain cross_entropy"))
    if files.kind != "classes":
        words = f"The theory is of losses over classes; this one is for {TARGETS[files.kind]} targets."
        return section.add(Missing(words))
    if num_classes is None:
        words = "What a loss does depends on the number of classes, which no file of this run knows."
        return section.add(Missing(words, "tglo-report RUN_DIR --num-classes 10"))
    if not best.criterion.losses:
        words = "The loss is the module’s own, and only its learning rate was searched."
        return section.add(Missing(words, "tglo-explain cross_entropy"))
    section.lead = (
        "With a softmax, a loss pulls a sample towards zero training error where D(ε) > 0 and pushes it away where "
        "D(ε) < 0; ε is the sample’s distance from full confidence in its label. Samples settle where D crosses zero "
        "from below. Cross-entropy pulls everywhere, wrong labels included."
    )
    try:
        for i in range(len(best.criterion.losses)):
            prefix = f"loss {i + 1}: " if len(best.criterion.losses) > 1 else ""
            section.add(*_explained(files, best.criterion, i, num_classes, prefix))
    except (ValueError, TypeError) as error:
        return section.add(Missing(f"This loss cannot be explained: {error}"))
    return section


def _explained(files: RunFiles, criterion: Criterion, place: int, num_classes: int, prefix: str) -> list[Block]:
    original = original_loss(files.original_options, place)
    told = explain(criterion.losses[place].build(original), num_classes)
    blocks: list[Block] = [Pictures([pictures.explanation(told, original)])]
    # The last paragraphs of the text are the words; formula and numbers are shown otherwise
    for paragraph in told.text.split("\n\n")[-3:]:
        head, *lines = paragraph.splitlines()
        blocks.append(Points(prefix + head, [line.removeprefix("  ") for line in lines]))
    if told.theta is None or told.coefficients is None:
        return blocks
    words = (
        "The D(ε) of a polynomial stays finite as ε goes to 1, while that of cross-entropy grows without bound. So a "
        "sample that the network classifies confidently otherwise, as it soon does with a wrong label, loses its pull; "
        "cross-entropy pulls it with full force."
    )
    meanings = zip(parameter_meanings(told.theta).items(), told.theta, strict=True)
    own = [[name, number(value, 5), meaning] for (name, meaning), value in meanings]
    slopes = [[name, number(value, 5)] for name, value in told.coefficients.items()]
    tables = [
        Table("Parameters θ", ["name", "value", "stands before"], own),
        Table("Coefficients of γ = ∂f/∂h, the learning rule", ["coefficient", "value"], slopes),
    ]
    return [*blocks, Text(words), Details(f"{prefix}All parameters".capitalize(), tables)]


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
    head = [f"{files.logged(metric)}, {direction(metric)} is better" for metric in metrics]
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
    everything = Table("Every training", ["training", *map(files.logged, metrics)], single)
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
        if best is None or best.criterion.is_original:
            return Missing(words)
        words += " To compare both losses, train with each from the same fresh seeds and test each training once."
        return Missing(words, snippets.comparison(files, best.criterion))
    if files.overrides is None:
        words = "No test data were used. tglo-train trains both losses from fresh seeds and tests each training once."
        return Missing(words, snippets.EXAMPLE)
    words = "The run has not come to its comparison. Started again in its directory, it continues where it stopped."
    return Missing(words, "" if files.interrupted else snippets.again(files))
