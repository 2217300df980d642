"""What matplotlib's pictures have in common: the library, asked for when one is drawn; the palette; the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PULL", "PUSH", "new_figure", "save_figure"]

# Of the palette of Okabe and Ito: what a loss pulls to zero training error, and what it pushes away
PULL, PUSH = "#009E73", "#D55E00"


def new_figure(width: float, height: float, dpi: int = 130) -> Figure:
    """A figure that belongs to no window, its size in inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Drawing needs matplotlib: pip install 'tglo-lightning[plots]'") from error
    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure in the format of the suffix of ``path``; the folder is made if need be."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
