"""Metrics over examples, summaries over clients, and how far both can be trusted."""

from floral.metrics.base import Metric, from_per_example
from floral.metrics.classification import (
    accuracy,
    balanced_accuracy,
    confusion,
    macro_f1,
    top_k_accuracy,
)
from floral.metrics.fairness import gini, jain, worst_share
from floral.metrics.ranking import auc
from floral.metrics.regression import mae, rmse
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
    "auc",
    "balanced_accuracy",
    "between_clients",
    "between_seeds",
    "confusion",
    "from_per_example",
    "gini",
    "jain",
    "macro_f1",
    "mae",
    "over_clients",
    "over_seeds",
    "rmse",
    "top_k_accuracy",
    "welch",
    "worst_share",
]
