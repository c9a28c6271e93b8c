"""Metrics as sums and counts that are divided only at the very end.

A mean of batch means is biased when the last batch is short; a sum over a count is not.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from floral import check
from floral.errors import SpecError
from floral.typing import Array, Batch, Loss

__all__ = ["Metric", "added", "from_per_example"]


class Metric(NamedTuple):
    """A quantity of a client's examples.

    Attributes:
      from_outputs: ``(outputs [B, ...], batch) -> sums``, a tree of arrays, padding left out.
      merge: ``(sums, sums) -> sums``.
      compute: ``(sums) -> value``; NaN where nothing was counted.

    The shapes and dtypes of ``sums`` depend on no size of a batch, and ``merge`` keeps them; both
    are checked when a simulator is made.
    """

    from_outputs: Callable[[Any, Batch], Any]
    merge: Callable[[Any, Any], Any]
    compute: Callable[[Any], Array]


def from_per_example(values: Loss) -> Metric:
    """The mean over examples of ``values(outputs, batch) -> [B]``.

    Raises:
      SpecError: when traced, unless ``values`` gives one real number an example.

    Example:
      >>> metric = from_per_example(lambda outputs, batch: outputs)
      >>> batch = {"mask": jnp.array([True, True, False])}
      >>> float(metric.compute(metric.from_outputs(jnp.array([1.0, 3.0, 99.0]), batch)))
      2.0
    """

    def from_outputs(outputs, batch):
        mask = batch["mask"]
        found = values(outputs, batch)
        check.per_example(found, mask.shape[0], what="values")
        if jnp.issubdtype(found.dtype, jnp.complexfloating):
            raise SpecError(f"values: expected real numbers, got {found.dtype}; take its .real")
        return {
            "sum": jnp.sum(jnp.where(mask, found.astype(jnp.float32), 0.0)),
            "count": jnp.sum(mask, dtype=jnp.int32),
        }

    def compute(sums):
        count = sums["count"]
        return jnp.where(count > 0, sums["sum"] / jnp.maximum(count, 1), jnp.nan)

    return Metric(from_outputs, added, compute)


def added(left: Any, right: Any) -> Any:
    """The sum of two trees of sums and counts, leaf by leaf: how nearly all metrics merge."""
    return jax.tree.map(jnp.add, left, right)
