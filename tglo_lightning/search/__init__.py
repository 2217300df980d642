"""The search for a loss. No Lightning in here.

A *criterion* is what to train with, as data. A *space* turns coordinates into criteria, a *strategy* proposes them, an
*evaluator* trains a *population* of networks with them, *finals* confirm the winner, a *journal* remembers.
"""

from tglo_lightning.search.budget import Budget
from tglo_lightning.search.criterion import Criterion, LossSpec
from tglo_lightning.search.curves import Curves
from tglo_lightning.search.evaluator import Evaluation, Evaluator, Population
from tglo_lightning.search.export import export_loss
from tglo_lightning.search.finals import Finals
from tglo_lightning.search.journal import Journal, JournalError
from tglo_lightning.search.loop import Listener, SearchError, search
from tglo_lightning.search.many import minimize_many
from tglo_lightning.search.minimize import minimize
from tglo_lightning.search.portfolio import Portfolio
from tglo_lightning.search.presets import Presets, WarmCMAES, presets
from tglo_lightning.search.race import Race
from tglo_lightning.search.result import Candidate, Finalist, SearchResult
from tglo_lightning.search.settings import Objective, SearchSettings
from tglo_lightning.search.space import FamilySpace, ProductSpace, ShapeSpace, Space, StepSpace, TaylorSpace
from tglo_lightning.search.strategy import CMAES, RandomSearch, Strategy

__all__ = [
    "CMAES",
    "Budget",
    "Candidate",
    "Criterion",
    "Curves",
    "Evaluation",
    "Evaluator",
    "FamilySpace",
    "Finalist",
    "Finals",
    "Journal",
    "JournalError",
    "Listener",
    "LossSpec",
    "Objective",
    "Population",
    "Portfolio",
    "Presets",
    "ProductSpace",
    "Race",
    "RandomSearch",
    "SearchError",
    "SearchResult",
    "SearchSettings",
    "ShapeSpace",
    "Space",
    "StepSpace",
    "Strategy",
    "TaylorSpace",
    "WarmCMAES",
    "export_loss",
    "minimize",
    "minimize_many",
    "presets",
    "search",
]
