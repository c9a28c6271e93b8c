"""How a cohort is walked: side by side, in chunks, or one client after another.

On a CPU a client that trains weights of its own is fastest alone: its weights stay in cache, and
skipped steps cost nothing. Clients that share frozen weights are fastest side by side, as they
are on an accelerator. The walk never changes results beyond the reassociation of float sums.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from floral import check
from floral.errors import SpecError
from floral.messages import Reduced
from floral.typing import PyTree
from floral.uplink.base import Reducer

__all__ = ["Sent", "Walk", "chunk_size", "padded", "walk", "walk_cohort"]

_LARGEST_CHUNK = 64


class Walk(NamedTuple):
    """A way of walking; made by ``walk``."""

    kind: Literal["auto", "vmap", "chunk", "scan"] = "auto"
    chunk: int | None = None


def walk(
    *, walk: Literal["auto", "vmap", "chunk", "scan"] = "auto", chunk: int | None = None
) -> Walk:
    """How clients are executed.

    Args:
      walk: vmap (the whole cohort side by side), chunk (so many at a time), scan (one after
        another), or auto, which looks at the backend and at what clients train.
      chunk: clients side by side, for "chunk".

    Raises:
      SpecError: if chunk is missing where it is needed, or given where it is not.
    """
    check.one_of(("auto", "vmap", "chunk", "scan"), walk=walk)
    if (chunk is not None) != (walk == "chunk"):
        raise SpecError(
            f"chunk belongs to walk = 'chunk' and to no other; got walk = {walk!r}, "
            f"chunk = {chunk!r}"
        )
    if chunk is not None:
        check.positive_int(chunk=chunk)
    return Walk(walk, chunk)


def chunk_size(walk: Walk, cohort: int, *, own_weights: bool, backend: str) -> int:
    """How many clients go side by side.

    Args:
      walk: what the user asked for.
      cohort: K.
      own_weights: whether each client trains a copy of the model's weights.
      backend: as ``jax.default_backend()`` names it.
    """
    if walk.kind == "chunk":
        return min(walk.chunk or cohort, cohort)
    if walk.kind == "auto":
        alone = backend == "cpu" and own_weights
        return 1 if alone else min(cohort, _LARGEST_CHUNK)
    return 1 if walk.kind == "scan" else cohort


def padded(cohort: int, chunk: int) -> int:
    """The cohort rounded up to whole chunks."""
    return -(-cohort // chunk) * chunk


class Sent(NamedTuple):
    """What one client's turn leaves behind.

    Attributes:
      update, weight: the upload, the weight zero for a client that took no part.
      row: its next row.
      metrics: sums and counts.
    """

    update: PyTree
    weight: PyTree
    row: PyTree
    metrics: PyTree


def walk_cohort(
    turn: Callable[[Any], Sent],
    inputs: PyTree,
    chunk: int,
    reducer: Reducer,
    reducer_state: PyTree,
    key: jax.Array,
) -> tuple[Reduced, PyTree, PyTree, PyTree]:
    """Gives every client its turn and reduces what they send.

    Sums are carried from chunk to chunk where the reducer can stream, so that no more than one
    chunk of updates exists at a time.

    Args:
      turn: one client's work.
      inputs: leaves [K, ...], K a multiple of the chunk.
      chunk: clients side by side; at 1 the turn is not vmapped, so that its branches are real.
      reducer: makes the updates one.
      reducer_state: its state.
      key: the reducer's randomness.

    Returns:
      ``(Reduced, reducer state, rows [K, ...], metrics [K, ...])``.
    """
    cohort = jax.tree.leaves(inputs)[0].shape[0]
    first = jax.tree.map(lambda leaf: leaf[0], inputs)

    def take_turns(some):
        if chunk == 1:
            sent = turn(jax.tree.map(lambda leaf: leaf[0], some))
            return jax.tree.map(lambda leaf: leaf[None], sent)
        return jax.vmap(turn)(some)

    fold = reducer.fold
    struct = jax.eval_shape(turn, first)
    zero = () if fold is None else fold.zero(struct.update, struct.weight)

    def step(sums, some):
        sent = take_turns(some)
        if fold is None:
            return sums, (sent.row, sent.metrics, (sent.update, sent.weight))
        return fold.add(sums, sent.update, sent.weight), (sent.row, sent.metrics, ())

    if chunk == cohort:
        sums, kept = step(zero, inputs)
    else:
        chunks = jax.tree.map(lambda leaf: leaf.reshape(-1, chunk, *leaf.shape[1:]), inputs)
        sums, kept = jax.lax.scan(step, zero, chunks)
        kept = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), kept)
    rows, metrics, sent = kept
    if fold is None:
        reduced, reducer_state = reducer.reduce(*sent, reducer_state, key=key)
    else:
        reduced = fold.finish(sums)
    return reduced, reducer_state, rows, jax.tree.map(jnp.asarray, metrics)
