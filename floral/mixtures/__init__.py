"""Mixtures: from a client's logits to its weights over the bank, and how good they are."""

from floral.mixtures.agreement import agreement, entropy, matching, sharpness
from floral.mixtures.base import Mixing, per_layer, traits_check
from floral.mixtures.weights import known, softmax, top_k

__all__ = [
    "Mixing",
    "agreement",
    "entropy",
    "known",
    "matching",
    "per_layer",
    "sharpness",
    "softmax",
    "top_k",
    "traits_check",
]
