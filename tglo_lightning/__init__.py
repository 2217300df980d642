"""Metalearn the loss function of a PyTorch Lightning module.

Names are imported when first asked for, so that ``tglo_lightning.losses`` costs no Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tglo_lightning._version import __version__

if TYPE_CHECKING:
    from tglo_lightning.callbacks import AttractionMonitor, RobustnessMonitor, TaylorGLO, load_from_checkpoint
    from tglo_lightning.losses import TaylorGLOLoss
    from tglo_lightning.module import restore_original
    from tglo_lightning.search import export_loss

__all__ = [
    "AttractionMonitor",
    "RobustnessMonitor",
    "TaylorGLO",
    "TaylorGLOLoss",
    "__version__",
    "export_loss",
    "load_from_checkpoint",
    "restore_original",
]

_HOMES = {
    "AttractionMonitor": "tglo_lightning.callbacks",
    "RobustnessMonitor": "tglo_lightning.callbacks",
    "TaylorGLO": "tglo_lightning.callbacks",
    "load_from_checkpoint": "tglo_lightning.callbacks",
    "TaylorGLOLoss": "tglo_lightning.losses",
    "export_loss": "tglo_lightning.search",
    "restore_original": "tglo_lightning.module",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
