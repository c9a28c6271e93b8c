"""Metrics of class predictions."""

import jax
import jax.numpy as jnp

from floral import check
from floral.metrics.base import Metric, from_per_example

__all__ = ["accuracy", "top_k_accuracy"]


def accuracy() -> Metric:
    """The share of examples whose largest logit is the label's."""
    return from_per_example(
        lambda outputs, batch: (jnp.argmax(outputs, -1) == batch["y"]).astype(jnp.float32)
    )


def top_k_accuracy(*, k: int) -> Metric:
    """The share of examples whose label is among the k largest logits.

    Args:
      k: how many of the largest logits count.
    """
    check.positive_int(k=k)

    def correct(outputs, batch):
        _, best = jax.lax.top_k(outputs, k)
        return jnp.any(best == batch["y"][..., None], axis=-1).astype(jnp.float32)

    return from_per_example(correct)
