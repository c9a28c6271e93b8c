"""Metrics over examples, and summaries over clients."""

from floral.metrics.base import Metric, from_per_example
from floral.metrics.classification import accuracy, top_k_accuracy
from floral.metrics.fairness import gini, jain, worst_share

__all__ = [
    "Metric",
    "accuracy",
    "from_per_example",
    "gini",
    "jain",
    "top_k_accuracy",
    "worst_share",
]
