"""Examples looked up by the rows of a schedule: a step at a time, or all at once.

A client's batches are places in the population's flat arrays; each step copies its own few rows
into the processor's cache, so that no copy of a client's data ever exists as a whole.

A place where the mask is False repeats a live example of its batch. Zeros would not do: a model
that divides by the norm of its input is undefined at zero, and the backward pass of the masked loss
would multiply the mask's zero by infinity, which makes the gradient of every parameter NaN.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp

from floral.typing import Array, Batch

__all__ = ["Batches", "as_batches", "distinct_examples", "show"]


class Batches(NamedTuple):
    """A client's batches for one round, not yet looked up.

    Attributes:
      examples: flat arrays, each ``[M, ...]``, of which the client shows some rows.
      rows: [S, B] int32.
      mask: [S, B] bool, False at places of padding.
    """

    examples: Mapping[str, Array]
    rows: Array
    mask: Array

    def step(self, index: int | Array) -> dict[str, Array]:
        """The batch of one step, ``{"x": [B, ...], "y": [B, ...], "mask": [B]}``."""
        return show(self.examples, self.rows[index], self.mask[index])

    def steps(self) -> dict[str, Array]:
        """All batches at once, ``{"x": [S, B, ...], "y": [S, B, ...], "mask": [S, B]}``."""
        return show(self.examples, self.rows, self.mask)


def as_batches(batches: Batches | Batch) -> Batches:
    """Batches, of which a mapping of arrays ``[S, B, ...]`` and their ``mask`` is one form.

    What stands in the mapping where the mask is False is never shown, unless nothing is live.

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
    places = jnp.arange(mask.size, dtype=jnp.int32).reshape(mask.shape)
    return Batches(flat, jnp.where(mask, places, jnp.argmax(mask)), mask)


def show(examples: Mapping[str, Array], rows: Array, mask: Array) -> dict[str, Array]:
    """The examples of a schedule and its ``mask``, padding filled with live examples.

    Args:
      examples: flat arrays, each ``[M, ...]``.
      rows: whole numbers ``[..., B]``; out of bounds stands for the nearest row.
      mask: bool of that shape. Where it is False stands the first live example of the same batch
        of B; in a batch without any, the example of its first row.

    Returns:
      ``{"x": [..., B, ...], ..., "mask": [..., B]}``; zeros only where M is 0.

    Example:
      >>> show({"x": jnp.array([5.0, 6.0, 7.0])}, jnp.array([2, 0]), jnp.array([True, False]))["x"]
      Array([7., 7.], dtype=float32)
    """
    first = jnp.argmax(mask, axis=-1, keepdims=True)  # 0 in a batch without a live example
    filler = jnp.take_along_axis(rows, first, axis=-1)
    rows = jnp.where(mask, rows, filler)

    def take(array: Array) -> Array:
        array = jnp.asarray(array)
        if array.shape[0] == 0:
            return jnp.zeros(rows.shape + array.shape[1:], array.dtype)
        flat = array.reshape(array.shape[0], -1)  # whose rows are copied whole, in order
        return jnp.take(flat, rows, axis=0, mode="clip").reshape(rows.shape + array.shape[1:])

    return {**{name: take(array) for name, array in examples.items()}, "mask": mask}


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
