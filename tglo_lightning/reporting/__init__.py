"""Statistics, tables, pictures and the report over the results of trainings."""

from tglo_lightning.reporting.explain_plot import plot_explanation
from tglo_lightning.reporting.html import write_report
from tglo_lightning.reporting.stats import summarize, welch
from tglo_lightning.reporting.tables import results_table

__all__ = ["plot_explanation", "results_table", "summarize", "welch", "write_report"]
