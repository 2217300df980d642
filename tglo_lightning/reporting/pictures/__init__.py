"""Every picture of the package: one function each, which returns a matplotlib figure.

All raise ``ImportError``, with what to install, if matplotlib is missing, and ``ValueError`` if nothing is to draw.

The report embeds it by :func:`svg`, :func:`save` writes a file; its label describes it in words. A new picture is one
function with the decorator :func:`~tglo_lightning.reporting.pictures.canvas.picture`, in the file of its subject.

>>> from tglo_lightning.reporting import pictures
>>> from tglo_lightning.theory import explain
>>> pictures.save(pictures.explanation(explain("baikal", 10)), "baikal.png")  # doctest: +SKIP
"""

from tglo_lightning.reporting.pictures.attraction import attraction
from tglo_lightning.reporting.pictures.canvas import PALETTE, picture, pixels, save, svg, themes
from tglo_lightning.reporting.pictures.comparison import comparison
from tglo_lightning.reporting.pictures.curves import curves
from tglo_lightning.reporting.pictures.explanation import explanation
from tglo_lightning.reporting.pictures.landscape import basins, surfaces
from tglo_lightning.reporting.pictures.race import race
from tglo_lightning.reporting.pictures.robustness import robustness, worst_cases
from tglo_lightning.reporting.pictures.search import feasible, finals, fitness, parameters

__all__ = [
    "PALETTE",
    "attraction",
    "basins",
    "comparison",
    "curves",
    "explanation",
    "feasible",
    "finals",
    "fitness",
    "parameters",
    "picture",
    "pixels",
    "race",
    "robustness",
    "save",
    "surfaces",
    "svg",
    "themes",
    "worst_cases",
]
