"""What a search tells the user: lines of the logger ``tglo_lightning``, shown also where no logging is set up."""

from __future__ import annotations

import logging

from pytorch_lightning.utilities import rank_zero_only

logger = logging.getLogger("tglo_lightning")
logger.setLevel(logging.INFO)
_fallback = logging.StreamHandler()
# Whoever has configured logging, as Hydra does, shows the line by handlers of their own
_fallback.addFilter(lambda record: not logging.root.handlers)
logger.addHandler(_fallback)


@rank_zero_only
def tell(message: str) -> None:
    """Log a line at level INFO, on rank zero only."""
    logger.info(message)
