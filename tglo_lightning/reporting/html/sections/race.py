"""A race: the curves of its networks."""

from __future__ import annotations

import math

from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.html.blocks import Details, Pictures, Section, Table
from tglo_lightning.reporting.numbers import duration, fixed
from tglo_lightning.search.result import SearchResult
from tglo_lightning.wording import counted


def race(found: SearchResult) -> Section:
    """Return the curves of all networks that trained side by side, and their best checks."""
    curves = found.curves
    assert curves is not None
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
