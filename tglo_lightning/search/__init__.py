"""The search for a loss: CMA-ES over ``theta``, finalists, result. No Lightning in here."""

from tglo_lightning.search.function import minimize
from tglo_lightning.search.loop import Evaluator, Listener, SearchError, SearchSettings, count_trainings, search
from tglo_lightning.search.result import Candidate, Evaluation, Finalist, SearchResult
from tglo_lightning.search.strategy import CMAES

__all__ = [
    "CMAES",
    "Candidate",
    "Evaluation",
    "Evaluator",
    "Finalist",
    "Listener",
    "SearchError",
    "SearchResult",
    "SearchSettings",
    "count_trainings",
    "minimize",
    "search",
]
