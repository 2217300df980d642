"""Metalearn the loss function of a PyTorch Lightning module."""

from tglo_lightning._version import __version__

__all__ = ["__version__"]
