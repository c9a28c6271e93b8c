"""Metrics as sums and counts that are divided only at the very end.

A mean of batch means is biased when the last batch is short; a sum over a count is not.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from floral.typing import Array, Batch, Loss

__all__ = ["Metric", "from_per_example"]


class Metric(NamedTuple):
    """A quantity of a client's examples.

    Attributes:
      from_outputs: ``(outputs [B, ...], batch) -> sums``, a tree of arrays, padding left out.
      merge: ``(sums, sums) -> sums``.
      compute: ``(sums) -> value``; NaN where nothing was counted.
    """

    from_outputs: Callable[[Any, Batch], Any]
    merge: Callable[[Any, Any], Any]
    compute: Callable[[Any], Array]


def from_per_example(values: Loss) -> Metric:
    """The mean over examples of ``values(outputs, batch) -> [B]``.

    Example:
      >>> metric = from_per_example(lambda outputs, batch: outputs)
      >>> batch = {"mask": jnp.array([True, True, False])}
      >>> float(metric.compute(metric.from_outputs(jnp.array([1.0, 3.0, 99.0]), batch)))
      2.0
    """

    def from_outputs(outputs, batch):
        mask = batch["mask"]
        return {
            "sum": jnp.sum(jnp.where(mask, values(outputs, batch), 0.0)),
            "count": jnp.sum(mask, dtype=jnp.int32),
        }

    def merge(left, right):
        return {name: left[name] + right[name] for name in left}

    def compute(sums):
        count = sums["count"]
        return jnp.where(count > 0, sums["sum"] / jnp.maximum(count, 1), jnp.nan)

    return Metric(from_outputs, merge, compute)
