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
      update, weight: the upload, the weight zero for a client that took no part.
      row: its next row.
      metrics: sums and counts, zero for a client that took no part.
      non_finite: bool, whether its loss or its update is not finite.
    """

    update: PyTree
    weight: PyTree
    row: PyTree
    metrics: PyTree
    non_finite: Array


class CohortResult(NamedTuple):
    """What the turns of many clients leave behind.

    Attributes:
      sums: of a streaming reducer; () without one.
      sent: ``(updates [K, ...], weights [K, ...])`` where nothing streams; () otherwise.
      rows: [K, ...].
      metrics: summed over the clients.
      non_finite: [K] bool, as the clients' own.
    """

    sums: PyTree
    sent: PyTree
    rows: PyTree
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
    none = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, _summed(leaf.dtype)), struct.metrics)

    def take_turns(some):
        if chunk == 1:
            sent = turn(jax.tree.map(lambda leaf: leaf[0], some))
            return jax.tree.map(lambda leaf: leaf[None], sent)
        return jax.vmap(turn)(some)

    def step(carry, some):
        sums, metrics = carry
        sent = take_turns(some)
        metrics = jax.tree.map(
            lambda total, leaf: total + jnp.sum(leaf, axis=0, dtype=total.dtype),
            metrics,
            sent.metrics,
        )
        if fold is None:
            return (sums, metrics), ((sent.update, sent.weight), sent.row, sent.non_finite)
        return (fold.add(sums, sent.update, sent.weight), metrics), ((), sent.row, sent.non_finite)

    if chunk == cohort:
        (sums, metrics), (sent, rows, non_finite) = step((zero, none), inputs)
        return CohortResult(sums, sent, rows, metrics, non_finite)
    chunks = jax.tree.map(lambda leaf: leaf.reshape(-1, chunk, *leaf.shape[1:]), inputs)
    (sums, metrics), kept = jax.lax.scan(step, (zero, none), chunks)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), kept)
    sent, rows, non_finite = flat
    return CohortResult(sums, sent, rows, metrics, non_finite)


def _summed(dtype: Any) -> Any:
    """The dtype in which metrics are summed: whole numbers keep theirs, with 64 bits or without."""
    if dtype == jnp.bool_:
        return jnp.int32
    return jnp.promote_types(dtype, jnp.float32) if jnp.issubdtype(dtype, jnp.floating) else dtype
