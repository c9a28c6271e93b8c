"""The walk of one device: its clients side by side, in chunks, or one after another.

Sums are carried from chunk to chunk where the reducer can stream, so that no more than one chunk
of updates exists at a time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from floral.typing import Array, PyTree
from floral.uplink.base import Fold

__all__ = ["ClientResult", "CohortResult", "walk_clients"]


class ClientResult(NamedTuple):
    """What one client's turn leaves behind.

    Attributes:
      update, weight, sums: the upload; weight and sums are zero for a client that took no part.
      row: its next row.
      metrics: sums and counts, zero for a client that took no part.
      non_finite: bool, whether its loss or its update is not finite.
    """

    update: PyTree
    weight: PyTree
    sums: PyTree
    row: PyTree
    metrics: PyTree
    non_finite: Array


class CohortResult(NamedTuple):
    """What the turns of many clients leave behind.

    Attributes:
      folded: the state of a streaming reducer; () without one.
      uploads: ``(updates [K, ...], weights [K, ...])`` where nothing streams; () otherwise.
      rows: [K, ...].
      sums, metrics: summed over the clients, in float32 at least.
      non_finite: [K] bool, as the clients' own.
    """

    folded: PyTree
    uploads: PyTree
    rows: PyTree
    sums: PyTree
    metrics: PyTree
    non_finite: Array


def walk_clients(
    turn: Callable[[Any], ClientResult], inputs: PyTree, chunk: int, fold: Fold | None
) -> CohortResult:
    """Gives every client its turn.

    Args:
      turn: one client's work.
      inputs: leaves [K, ...], K a multiple of the chunk.
      chunk: clients side by side; at 1 the turn is not vmapped, so that its branches are real and
        a short client's loop ends early.
      fold: how updates are summed as they come; None keeps them all.
    """
    cohort = jax.tree.leaves(inputs)[0].shape[0]
    struct = jax.eval_shape(turn, jax.tree.map(lambda leaf: leaf[0], inputs))
    zero = () if fold is None else fold.zero(struct.update, struct.weight)
    none = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, _summed(leaf.dtype)), (struct.sums, struct.metrics)
    )

    def take_turns(some):
        if chunk == 1:
            result = turn(jax.tree.map(lambda leaf: leaf[0], some))
            return jax.tree.map(lambda leaf: leaf[None], result)
        return jax.vmap(turn)(some)

    def step(carry, some):
        folded, totals = carry
        result = take_turns(some)
        totals = jax.tree.map(
            lambda total, leaf: total + jnp.sum(leaf, axis=0, dtype=total.dtype),
            totals,
            (result.sums, result.metrics),
        )
        uploads = ()
        if fold is None:
            uploads = (result.update, result.weight)
        else:
            folded = fold.add(folded, result.update, result.weight)
        return (folded, totals), (uploads, result.row, result.non_finite)

    if chunk == cohort:
        (folded, totals), kept = step((zero, none), inputs)
    else:
        chunks = jax.tree.map(lambda leaf: leaf.reshape(-1, chunk, *leaf.shape[1:]), inputs)
        (folded, totals), by_chunk = jax.lax.scan(step, (zero, none), chunks)
        kept = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), by_chunk)
    uploads, rows, non_finite = kept
    sums, metrics = totals
    return CohortResult(folded, uploads, rows, sums, metrics, non_finite)


def _summed(dtype: Any) -> Any:
    """The dtype in which values are summed: whole numbers keep theirs, with 64 bits or without."""
    if dtype == jnp.bool_:
        return jnp.int32
    return jnp.promote_types(dtype, jnp.float32) if jnp.issubdtype(dtype, jnp.floating) else dtype
