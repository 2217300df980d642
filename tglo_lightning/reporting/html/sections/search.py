"""The search and its finals."""

from __future__ import annotations

import math
from statistics import fmean

from markupsafe import Markup

from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.html import snippets
from tglo_lightning.reporting.html.blocks import Section, details, drawn, function_of, missing, table
from tglo_lightning.reporting.html.files import RunFiles
from tglo_lightning.reporting.html.headline import same_for_every_seed
from tglo_lightning.reporting.numbers import fixed, mean_sd, p_value
from tglo_lightning.reporting.results import entrants, final_verdict, leaders
from tglo_lightning.search.result import SearchResult
from tglo_lightning.wording import counted


def search(files: RunFiles) -> Section:
    """Every candidate's fitness by generation, the parameters, the feasible share of the draws."""
    section, found = Section("search", "The search"), files.search
    if found is None or not found.history:
        if files.result is not None and files.result["search"]["candidates"]:
            words = "The files of the search (search.json, search.jsonl) are not in this directory any more."
            return section.add(missing(words))
        if found is not None:
            return section.add(missing("No candidate has been trained yet.", snippets.again(files)))
        return section.add(missing("This run made no search.", "tglo-train search=taylorglo"))
    if files.interrupted:
        done, takes = files.trainings
        words = (
            f"The search was interrupted, or still runs: its journal holds {done} of {takes} trainings. Nothing is "
            "lost. Start the same fit again: it continues from there, with the same result."
        )
        section.add(missing(words, snippets.again(files)))
    section.lead = (
        f"CMA-ES drew {counted(found.candidates, 'candidate')}; a network was trained with each and scored by "
        f"{found.monitor}. {found.failed or 'None'} failed."
    )
    if found.infeasible or found.refused:
        total = counted(found.infeasible + found.candidates, "draw")
        section.lead += f" The constraint rejected {found.infeasible} of {total}, before any training."
    if found.seconds and not files.interrupted:
        section.lead += f" It took {_duration(found.seconds)}."
    figures = [pictures.fitness(found)]
    figures += [pictures.parameters(found)] if leaders(found) else []
    figures += [pictures.feasible(found)] if found.refused else []
    section.add(drawn(figures))
    if not found.refused:
        section.add(missing("The feasible share of the draws is known when a search has ended (search.json)."))
    return section.add(details("Generation by generation", _generations(found)))


def _generations(found: SearchResult) -> Markup:
    best, rows = {c.generation: c.fitness for c in leaders(found)}, []
    for g in sorted({c.generation for c in found.history}):
        members = [c.fitness for c in found.history if c.generation == g]
        values = [fitness for fitness in members if math.isfinite(fitness)]
        figures = [fixed(best[g]), fixed(fmean(values))] if values else ["none", "none"]
        rejected = str(found.refused[g]) if g < len(found.refused) else "n/a"
        rows.append([str(g + 1), str(len(members)), *figures, str(len(members) - len(values)), rejected])
    head = ["generation", "candidates", f"best {found.monitor}", "mean", "failed", "rejected draws"]
    return table("The search in numbers", head, rows)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def finalists(files: RunFiles) -> Section:
    """The choice, and the seeds that it was made from."""
    section, found = Section("finalists", "Finalists"), files.search
    if found is None:
        return section.add(missing("Without a search there are no finalists."))
    if not (found.finalists or found.original.fitness):
        words = "The search has not come to its finals, which train the best candidates and the original loss again."
        return section.add(missing(words))
    section.lead = " ".join(
        filter(
            None,
            [
                "A fitness measured once may be luck. So the best candidates are trained again from fresh seeds, the "
                "original loss from the same seeds, and the best mean wins.",
                files.starts,
                same_for_every_seed(files),
            ],
        )
    )
    rows = []
    for i, entrant in enumerate(entrants(found)):
        cells = [entrant.name, mean_sd(entrant.fitness), str(len(entrant.fitness))]
        if i == 0:
            rows.append([*cells, "", "", "", ""])
            continue
        told = final_verdict(found, entrant) if len(entrant.fitness) == len(found.original.fitness) else None
        generation = "" if entrant.generation is None else str(entrant.generation + 1)
        p = p_value(told.p if told else None)
        rows.append([*cells, fixed(entrant.found), generation, p, function_of(entrant.formula)])
    several = ", mean ± sd" if len(found.original.fitness) > 1 else ""
    head = [
        "loss",
        f"{found.monitor}{several}",
        "n",
        "in the search",
        "generation",
        "p, better than original",
        "f(y, h)",
    ]
    foot = "p: Welch’s test, one-sided, not corrected for the number of finalists."
    return section.add(drawn([pictures.finals(found)]), table("The finals", head, rows, foot))
