"""Statistics, tables, pictures and the report over the results of trainings."""

from tglo_lightning.reporting.html import write_report
from tglo_lightning.reporting.stats import summarize, verdict
from tglo_lightning.reporting.tables import results_table

__all__ = ["results_table", "summarize", "verdict", "write_report"]
