"""Mixtures: from a client's logits to its weights over the bank, and how good they are."""

from floral.mixtures.aggregation import (
    aggregation_mismatch,
    aggregation_weights,
    effective_clients,
)
from floral.mixtures.base import Clustering, Mixing, Refresh, per_layer, shares_of, traits_check
from floral.mixtures.clustering.discriminants import DiscriminantsState, discriminants
from floral.mixtures.evidence import exponential_weights, responsibilities
from floral.mixtures.quality import (
    agreement,
    cluster_scores,
    effective_adaptors,
    entropy,
    matching,
    sharpness,
)
from floral.mixtures.weights import known, softmax, top_k

__all__ = [
    "Clustering",
    "DiscriminantsState",
    "Mixing",
    "Refresh",
    "aggregation_mismatch",
    "aggregation_weights",
    "agreement",
    "cluster_scores",
    "discriminants",
    "effective_adaptors",
    "effective_clients",
    "entropy",
    "exponential_weights",
    "known",
    "matching",
    "per_layer",
    "responsibilities",
    "shares_of",
    "sharpness",
    "softmax",
    "top_k",
    "traits_check",
]
