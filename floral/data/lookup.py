"""Examples looked up by the rows of a schedule: a step at a time, or all at once.

A client's batches are places in the population's flat arrays; each step copies its own few rows
into the processor's cache, so that no copy of a client's data ever exists as a whole.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp

from floral.typing import Array, Batch

__all__ = ["Batches", "as_batches", "distinct_examples", "masked", "show"]


class Batches(NamedTuple):
    """A client's batches for one round, not yet looked up.

    Attributes:
      examples: flat arrays, each ``[M, ...]``, of which the client shows some rows.
      rows: [S, B] int32.
      mask: [S, B] bool, False where nothing is shown.
    """

    examples: Mapping[str, Array]
    rows: Array
    mask: Array

    def step(self, index: int | Array) -> dict[str, Array]:
        """The batch of one step, ``{"x": [B, ...], "y": [B, ...], "mask": [B]}``."""
        return masked(show(self.examples, self.rows[index], self.mask[index]))

    def steps(self) -> dict[str, Array]:
        """All batches at once, ``{"x": [S, B, ...], "y": [S, B, ...], "mask": [S, B]}``."""
        return masked(show(self.examples, self.rows, self.mask))


def as_batches(batches: Batches | Batch) -> Batches:
    """Batches, of which a mapping of arrays ``[S, B, ...]`` and their ``mask`` is one form.

    Example:
      >>> given = {"x": jnp.ones((2, 3, 5)), "mask": jnp.ones((2, 3), bool)}
      >>> as_batches(given).step(1)["x"].shape
      (3, 5)
    """
    if isinstance(batches, Batches):
        return batches
    mask = jnp.asarray(batches["mask"])
    flat = {
        name: jnp.reshape(leaf, (mask.size, *leaf.shape[2:]))
        for name, leaf in batches.items()
        if name != "mask"
    }
    return Batches(flat, jnp.arange(mask.size).reshape(mask.shape), mask)


def show(examples: Mapping[str, Array], rows: Array, mask: Array) -> dict[str, Array]:
    """The examples of a schedule and its ``mask``; where nothing is shown is some example.

    Args:
      examples: flat arrays, each ``[M, ...]``.
      rows: whole numbers of any shape.
      mask: bool of that shape.
    """

    def take(array: Array) -> Array:
        array = jnp.asarray(array)
        if array.shape[0] == 0:
            return jnp.zeros(rows.shape + array.shape[1:], array.dtype)
        flat = array.reshape(array.shape[0], -1)  # whose rows are copied whole, in order
        return jnp.take(flat, rows, axis=0, mode="clip").reshape(rows.shape + array.shape[1:])

    return {**{name: take(array) for name, array in examples.items()}, "mask": mask}


def masked(batch: Mapping[str, Array]) -> dict[str, Array]:
    """The batch, or batches, with zeros where nothing is shown.

    Apart from ``show``: rows are then copied whole and not number by number, and a step masks its
    own batch alone, in passing.
    """
    mask = batch["mask"]

    def zero(leaf: Array) -> Array:
        live = mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim))
        return jnp.where(live, leaf, jnp.zeros_like(leaf))

    return {name: leaf if name == "mask" else zero(leaf) for name, leaf in batch.items()}


def distinct_examples(batches: Batches) -> Array:
    """How many different examples are shown, however often each is: int32.

    Example:
      >>> mask = jnp.array([[True, True], [True, False]])
      >>> rows = jnp.array([[7, 3], [7, 5]])
      >>> distinct_examples(Batches({}, rows, mask)).tolist()
      2
    """
    shown = jnp.sort(jnp.where(batches.mask, batches.rows, -1), axis=None)
    return jnp.sum(jnp.diff(shown, prepend=-1) != 0, dtype=jnp.int32)
