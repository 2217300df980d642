"""Statistics and tables over the results of trainings."""

from tglo_lightning.reporting.stats import summarize, welch
from tglo_lightning.reporting.tables import results_table

__all__ = ["results_table", "summarize", "welch"]
