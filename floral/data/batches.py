"""Batches: a cohort's examples laid out as ``[K, S, B, ...]``, in one function on the device.

A population is one flat array a field (``clients``), so a cohort is one indexing operation: each
client's places in its grid of S steps by B are computed from its own key and size, then looked up.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from floral import check
from floral.data.lookup import show
from floral.errors import SpecError
from floral.random import stream
from floral.typing import Array, Key

__all__ = ["Batching", "batching", "gather", "locate", "num_steps", "schedule"]

_MOST_STEPS = 2**31 - 1  # in 32 bits


class Batching(NamedTuple):
    """How a client's examples become batches; made by ``batching``."""

    batch_size: int
    epochs: int = 1
    steps: int | None = None
    shuffle: bool = True


def batching(
    *, batch_size: int = 32, epochs: int = 1, steps: int | None = None, shuffle: bool = True
) -> Batching:
    """How a client walks its examples in one round: by epochs, or by a number of steps.

    Args:
      batch_size: examples a step, B; an epoch's last batch may be partly masked.
      epochs: passes over the client's examples; a client with n takes ceil(n / B) steps each.
      steps: live steps of every client instead, walking its epochs again and again.
      shuffle: a fresh order each epoch; otherwise the stored order.

    Example:
      >>> num_steps(batching(batch_size=4, epochs=2), max_size=9)
      6
    """
    check.positive_int(batch_size=batch_size, epochs=epochs)
    check.boolean(shuffle=shuffle)
    if steps is not None:
        check.positive_int(steps=steps)
        if epochs != 1:
            raise SpecError(f"give epochs or steps, not both: got epochs={epochs}, steps={steps}")
    return Batching(batch_size, epochs, steps, shuffle)


def num_steps(batching: Batching, max_size: int) -> int:
    """S: ``steps``, or ``epochs * ceil(max_size / batch_size)``."""
    if batching.steps is not None:
        return batching.steps
    steps = batching.epochs * -(-max_size // batching.batch_size)
    if steps > _MOST_STEPS:
        raise SpecError(
            f"epochs={batching.epochs}: the largest client, of {max_size} examples, would take "
            f"{steps} steps a round, at most {_MOST_STEPS} can be counted"
        )
    return steps


def gather(
    examples: Mapping[str, Array],
    offsets: Array,
    ids: Array,
    key: Key,
    batching: Batching,
    *,
    max_size: int,
    limit: int | None = None,
) -> dict[str, Array]:
    """The batches of a cohort: ``{"x": [K, S, B, ...], "y": [K, S, B, ...], "mask": [K, S, B]}``.

    Pure and jittable, with ``batching``, ``max_size`` and ``limit`` static; ``schedule`` says what
    is shown where. Places where the mask is False hold real examples of the same client: a live one
    of the same batch, or the client's first. A client without any shows those of others.

    Args:
      examples: a split's flat arrays, each ``[M, ...]``.
      offsets: the split's offsets, ``[N + 1]``.
      ids: the cohort, ``[K]``; an id outside ``0 … N - 1`` (N, by custom) is a client of padding,
        whose places are all masked.
      key: of the round.
      batching: from ``batching``.
      max_size: at least the size of the cohort's largest client; what is beyond is left out.
      limit: use only the first ``limit`` examples of each client.

    Example:
      >>> x = jnp.arange(5.0)
      >>> plan = batching(batch_size=2, shuffle=False)
      >>> batches = gather({"x": x}, jnp.array([0, 3, 5]), jnp.array([1, 0]), jax.random.key(0),
      ...                  plan, max_size=3)
      >>> batches["x"].tolist()
      [[[3.0, 4.0], [3.0, 3.0]], [[0.0, 1.0], [2.0, 2.0]]]
    """
    ids = jnp.asarray(ids)
    starts, sizes = locate(offsets, ids)
    rows, mask = schedule(ids, starts, sizes, key, batching, max_size=max_size, limit=limit)
    return show(examples, rows, mask)


def locate(offsets: Array, ids: Array) -> tuple[Array, Array]:
    """Where clients' examples start and how many there are; none for an id outside ``0 … N - 1``.

    Example:
      >>> starts, sizes = locate(jnp.array([0, 3, 5]), jnp.array([1, 2]))
      >>> starts.tolist(), sizes.tolist()
      ([3, 0], [2, 0])
    """
    offsets = jnp.asarray(offsets)
    known = (ids >= 0) & (ids < offsets.shape[0] - 1)
    safe = jnp.where(known, ids, 0)
    starts = offsets[safe]
    return starts * known, (offsets[safe + 1] - starts) * known


def schedule(
    ids: Array,
    starts: Array,
    sizes: Array,
    key: Key,
    batching: Batching,
    *,
    max_size: int,
    limit: int | None = None,
) -> tuple[Array, Array]:
    """Which example each client of a cohort shows at each step and place: ``(rows, mask)``.

    Guarantees: every example of a client is shown exactly once an epoch; what a client sees depends
    on the key and its own id only, neither on ``max_size`` nor on who else is in the cohort. A
    client's live steps, ``epochs * ceil(n / B)`` or ``steps``, come first.

    Args:
      ids: the cohort, ``[K]``.
      starts: the row of each client's first example, ``[K]``.
      sizes: how many examples each has, ``[K]``; 0 masks every place.
      key: of the round; the order of client k in epoch e is the stream ``("order", k, e)`` of it.
      batching: from ``batching``.
      max_size: at least the size of the largest client; what is beyond is left out.
      limit: use only each client's first ``limit`` examples.

    Returns:
      ``rows [K, S, B]`` int32 into the flat arrays and ``mask [K, S, B]``, False at places of
      padding, whose row is the client's first (its start, if it has none).
    """
    max_size = max_size if limit is None else min(max_size, limit)

    def one(client: Array, start: Array, size: Array) -> tuple[Array, Array]:
        own = stream(key, "order", client)
        local, mask = _walk(own, jnp.minimum(size, max_size), batching, max_size)
        return start + jnp.where(mask, local, 0), mask

    # By steps, clients need different numbers of orders: one by one none waits for the smallest.
    if batching.shuffle and batching.steps is not None:
        return jax.lax.map(lambda client: one(*client), (ids, starts, sizes))
    return jax.vmap(one)(ids, starts, sizes)


def _walk(key: Key, size: Array, batching: Batching, max_size: int) -> tuple[Array, Array]:
    """Which of its examples one client shows at each place of its grid, and where it shows any."""
    step = jnp.arange(num_steps(batching, max_size))
    an_epoch = jnp.maximum((size + batching.batch_size - 1) // batching.batch_size, 1)
    if batching.steps is None:
        epochs = batching.epochs
    else:
        epochs = (batching.steps + an_epoch - 1) // an_epoch
    epoch, within = step // an_epoch, step % an_epoch
    place = within[:, None] * batching.batch_size + jnp.arange(batching.batch_size)[None]  # [S, B]
    mask = (place < size) & (epoch < epochs)[:, None]
    if not batching.shuffle or max_size == 0:
        return place, mask

    def fill(e: Array, rows: Array) -> Array:
        order = _order(jax.random.fold_in(key, e), size, max_size)
        return jnp.where((epoch == e)[:, None], order[jnp.minimum(place, max_size - 1)], rows)

    return jax.lax.fori_loop(0, epochs, fill, place), mask


def _order(key: Key, size: Array, max_size: int) -> Array:
    """A random order of ``0 … size - 1``, then the padding.

    Example i draws from its own key, so its number does not depend on ``max_size``. The folded
    key's first word is that number: it is already a hash, for every kind of key.
    """
    index = jnp.arange(max_size)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
    draw = jax.random.key_data(keys)[:, 0]
    return jax.lax.sort((index >= size, draw, index), num_keys=2, is_stable=True)[2]
