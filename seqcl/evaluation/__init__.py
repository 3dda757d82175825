"""Ranks without bias, their metrics and tests, and measures of a representation."""

from seqcl.evaluation.as_published import rank_as_published
from seqcl.evaluation.candidates import draw_negatives
from seqcl.evaluation.diagnostics import by_count, effective_rank, hardest_share, quantiles, singular_values, spectrum
from seqcl.evaluation.evaluate import Evaluator, Result
from seqcl.evaluation.metrics import METRICS, list_metrics, metric_name, rank_metrics, row_metric
from seqcl.evaluation.ranks import ranks
from seqcl.evaluation.scores import Scorer
from seqcl.evaluation.significance import Comparison, compare, holm
from seqcl.evaluation.slices import by_slice
from seqcl.evaluation.through_index import IndexResult, Questions, Searcher

__all__ = [
    "METRICS",
    "Comparison",
    "Evaluator",
    "IndexResult",
    "Questions",
    "Result",
    "Scorer",
    "Searcher",
    "by_count",
    "by_slice",
    "compare",
    "draw_negatives",
    "effective_rank",
    "hardest_share",
    "holm",
    "list_metrics",
    "metric_name",
    "quantiles",
    "rank_as_published",
    "rank_metrics",
    "ranks",
    "row_metric",
    "singular_values",
    "spectrum",
]
