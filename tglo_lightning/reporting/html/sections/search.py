"""The search and its finals."""

from __future__ import annotations

import math
from statistics import fmean

from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.html import snippets
from tglo_lightning.reporting.html.blocks import Details, Formula, Missing, Pictures, Section, Table
from tglo_lightning.reporting.html.files import RunFiles
from tglo_lightning.reporting.html.headline import same_for_every_seed
from tglo_lightning.reporting.numbers import duration, fixed, mean_sd, p_value, signed
from tglo_lightning.reporting.results import called, evolved, final_verdict, leaders
from tglo_lightning.search.curves import Curves
from tglo_lightning.search.result import Finalist, SearchResult
from tglo_lightning.wording import counted


def search(files: RunFiles) -> Section:
    """Every candidate's fitness by generation, the parameters, the feasible share of the draws."""
    section, found = Section("search", "The search"), files.search
    if found is not None and found.curves is not None:
        return _race(found, found.curves)
    if found is None or not found.history:
        if files.result is not None and files.result["search"]["candidates"]:
            words = "The files of the search (search.json, search.jsonl) are not in this directory any more."
            return section.add(Missing(words))
        if found is not None:
            return section.add(Missing("No candidate has been trained yet.", snippets.again(files)))
        return section.add(Missing("This run made no search.", "tglo-train search=small"))
    if files.interrupted:
        done, takes = files.trainings
        words = (
            f"The search was interrupted, or still runs: its journal holds {done} of {takes} trainings. Nothing is "
            "lost. Start the same fit again: it continues from there, with the same result."
        )
        section.add(Missing(words, snippets.again(files)))
    section.lead = (
        f"The search tried {counted(found.candidates, 'candidate')}; a network was trained with each and scored by "
        f"{found.monitor}. {found.failed or 'None'} failed."
    )
    if rejected := sum(found.rejected):
        total = counted(rejected + found.candidates, "draw")
        section.lead += f" The constraint rejected {rejected} of {total}, before any training."
    if found.seconds and not files.interrupted:
        section.lead += f" It took {duration(found.seconds)}, finals included."
    figures = [pictures.fitness(found)]
    figures += [pictures.parameters(found)] if evolved(found) else []
    figures += [pictures.feasible(found)] if any(found.rejected) else []
    section.add(Pictures(figures))
    return section.add(Details("Generation by generation", [_generations(found)]))


def _race(found: SearchResult, curves: Curves) -> Section:
    """The curves of all networks that trained side by side, and their best checks."""
    section = Section("search", "The race")
    section.lead = (
        f"{counted(len(curves.criteria), 'network')} trained side by side for {curves.checks[-1]} {curves.unit}, and "
        f"{counted(len(curves.checks), 'check')} validated them. The best network by {found.monitor} is in the module, "
        f"as it was at its best check. It took {duration(found.seconds)}."
    )
    section.add(Pictures([pictures.race(found)]))
    rows = []
    for index, name in enumerate(curves.names(found.original.name)):
        best = found.history[index].fitness
        values = curves.values[index]
        at = str(curves.checks[values.index(best)]) if best in values else "none"
        kept = ", kept" if index == curves.winner else ""
        ended = next((value for value in reversed(values) if math.isfinite(value)), math.nan)
        rows.append([f"{name}{kept}", fixed(best), at, fixed(ended)])
    head = ["network", f"best {found.monitor}", f"after {curves.unit}", "at its last check"]
    foot = "One network each, from the same initial weights and batches, chosen by validation."
    return section.add(Details("Network by network", [Table("The race in numbers", head, rows, foot)]))


def _generations(found: SearchResult) -> Table:
    best, rows = {c.generation: c.fitness for c in leaders(found)}, []
    for g in sorted({c.generation for c in found.history}):
        members = [c.fitness for c in found.history if c.generation == g]
        values = [fitness for fitness in members if math.isfinite(fitness)]
        figures = [fixed(best[g]), fixed(fmean(values))] if values else ["none", "none"]
        rejected = str(found.rejected[g]) if g < len(found.rejected) else "n/a"
        rows.append([str(g + 1), str(len(members)), *figures, str(len(members) - len(values)), rejected])
    head = ["generation", "candidates", f"best {found.monitor}", "mean", "failed", "rejected draws"]
    return Table("The search in numbers", head, rows)


def finalists(files: RunFiles) -> Section:
    """Return the confirmation of the winner, and the choice before it."""
    section, found = Section("finalists", "Finals"), files.search
    if found is None:
        return section.add(Missing("Without a search there are no finals."))
    if found.curves is not None and len(found.original.fitness) < 2:
        words = "A race keeps a network and proves nothing about its loss; Race(confirm=True) has finals."
        return section.add(Missing(words))
    if not any(entrant.fitness for entrant in (found.original, *found.finalists)):
        words = "The search has not come to its finals, which train the best candidates and the original loss again."
        return section.add(Missing(words))
    lead = (
        "A fitness measured once may be luck. So the best candidates are trained again to choose one of them; then the "
        "chosen one and the original loss are trained from other fresh seeds, the same for both, and only these decide."
    )
    section.lead = " ".join(filter(None, [lead, files.starts, same_for_every_seed(files)]))
    section.add(Pictures([pictures.finals(found)]))
    if found.original.fitness:
        section.add(_confirmation(files, found))
    if not any(entrant.fitness for entrant in found.finalists):
        return section
    rows = []
    for entrant in found.finalists:
        generation = "" if entrant.generation is None else str(entrant.generation + 1)
        figures = [mean_sd(entrant.fitness), str(len(entrant.fitness)), fixed(entrant.found), generation]
        rows.append([called(entrant), *figures, Formula(entrant.formula)])
    head = ["loss", _measure(found, found.finalists[0]), "n", "in the search", "generation", "f(y, h)"]
    return section.add(
        Table("The choice", head, rows, "The best mean was chosen; being the best of several flatters it.")
    )


def _confirmation(files: RunFiles, found: SearchResult) -> Table:
    told, p = final_verdict(found), p_value(found.p_value)
    rows = [[files.original, mean_sd(found.original.fitness), str(len(found.original.fitness)), "", ""]]
    if found.best is not None:
        mean, n = mean_sd(found.best.fitness), str(len(found.best.fitness))
        rows.append([f"{called(found.best)}, chosen", mean, n, signed(told.difference if told else None), p])
    head = ["loss", _measure(found, found.original), "n", "difference", "p, better than original"]
    finals = found.settings.get("finals", {})
    level, look = finals.get("level"), finals.get("look")
    needed = f" The original is replaced if p is at most {level:g}." if level is not None and len(rows) > 1 else ""
    doubled = f" It is doubled, for clear cases end after {counted(look, 'seed')}." if look and len(rows) > 1 else ""
    return Table("The confirmation", head, rows, f"p: paired t-test over the seeds, one-sided.{doubled}{needed}")


def _measure(found: SearchResult, entrant: Finalist) -> str:
    return f"{found.monitor}{', mean ± sd' if len(entrant.fitness) > 1 else ''}"
