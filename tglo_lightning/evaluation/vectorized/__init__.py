"""A whole population in one pass."""

from tglo_lightning.evaluation.vectorized.evaluator import NotVectorizable, VectorizedEvaluator

__all__ = ["NotVectorizable", "VectorizedEvaluator"]
