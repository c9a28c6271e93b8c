"""Metrics over examples, summaries over clients, and how far both can be trusted."""

from floral.metrics.base import Metric, from_per_example
from floral.metrics.classification import accuracy, top_k_accuracy
from floral.metrics.fairness import gini, jain, worst_share
from floral.metrics.uncertainty import (
    Difference,
    Estimate,
    between_clients,
    between_seeds,
    over_clients,
    over_seeds,
    welch,
)

__all__ = [
    "Difference",
    "Estimate",
    "Metric",
    "accuracy",
    "between_clients",
    "between_seeds",
    "from_per_example",
    "gini",
    "jain",
    "over_clients",
    "over_seeds",
    "top_k_accuracy",
    "welch",
    "worst_share",
]
