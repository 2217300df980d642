"""The Lightning layer: callbacks, and loading what they wrote."""

from tglo_lightning.callbacks.attraction import AttractionMonitor
from tglo_lightning.callbacks.checkpoint import load_from_checkpoint
from tglo_lightning.callbacks.robustness import RobustnessMonitor
from tglo_lightning.callbacks.taylorglo import TaylorGLO

__all__ = ["AttractionMonitor", "RobustnessMonitor", "TaylorGLO", "load_from_checkpoint"]
