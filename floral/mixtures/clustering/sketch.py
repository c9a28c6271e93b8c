"""A few numbers of an example that tell how its inputs and its labels go together.

An example's sketch is ``(x R) * s(y)``: random projections of its inputs, each times a random sign
of its label. Inner products of sketches are, in expectation, those of ``x ⊗ y``, so that means of
them differ between clients whose inputs differ, or whose labels mean something else, or both.

Source: Pham and Pagh, "Fast and Scalable Polynomial Kernels via Explicit Feature Maps", 2013, for
products of sketches as sketches of products.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from floral.errors import SpecError
from floral.random import stream
from floral.typing import Array, Batch, Key

__all__ = ["Moments", "Steps", "Tables", "make_tables", "moments", "sketched"]


class Tables(NamedTuple):
    """What all clients sketch with.

    Attributes:
      inputs: [D, d], of normal numbers, for inputs of D numbers.
      labels: the data of a random key, from which each class draws its d signs; [k, d] for labels
        of k numbers.
    """

    inputs: Array
    labels: Array


class Steps(Protocol):
    """A client's batches, as ``floral.data.Batches`` are."""

    @property
    def mask(self) -> Array:
        """[S, B] bool."""
        ...

    def step(self, index: int | Array) -> Batch:
        """The batch of a step, with its own ``mask``."""
        ...


class Moments(NamedTuple):
    """Of the sketches of one client.

    Attributes:
      mean: [d].
      scatter: [d, d], the sum over its different examples of the products of what deviates from
        the mean.
    """

    mean: Array
    scatter: Array


def make_tables(key: Key, batch: Mapping[str, Any], size: int) -> Tables:
    """Tables for sketches of so many numbers.

    Args:
      key: of all randomness in them.
      batch: of the data's shapes: inputs ``x [B, ...]`` and labels ``y``, ``[B]`` of integers or
        ``[B, ...]`` of floats.
      size: d.

    Raises:
      SpecError: for inputs that are no floats, or labels of another shape.
    """
    x, y = batch.get("x"), batch.get("y")
    if x is None or not jnp.issubdtype(x.dtype, jnp.floating):
        found = "none" if x is None else f"{x.dtype}"
        raise SpecError(f"a sketch of clients' data needs float inputs 'x', got {found}")
    if y is None or (jnp.issubdtype(y.dtype, jnp.integer) and y.ndim != 1):
        found = (
            "none" if y is None else f"{y.dtype} of shape [B, {', '.join(map(str, y.shape[1:]))}]"
        )
        raise SpecError(
            "a sketch of clients' data needs labels 'y', one class an example or floats, got "
            f"{found}"
        )
    width = math.prod(x.shape[1:])
    inputs = jax.random.normal(stream(key, "inputs"), (width, size)) / math.sqrt(width)
    own = stream(key, "labels")
    if jnp.issubdtype(y.dtype, jnp.integer):
        return Tables(inputs, jax.random.key_data(own))
    return Tables(inputs, jax.random.normal(own, (1 + math.prod(y.shape[1:]), size)))


def sketched(tables: Tables, batch: Batch) -> Array:
    """The sketches of a batch, [B, d] float32."""
    x, y = jnp.asarray(batch["x"]), jnp.asarray(batch["y"])
    size = tables.inputs.shape[1]
    projected = x.reshape(x.shape[0], -1).astype(jnp.float32) @ tables.inputs
    if jnp.issubdtype(y.dtype, jnp.integer):
        key = jax.random.wrap_key_data(tables.labels)
        signs = jax.vmap(
            lambda label: jax.random.rademacher(jax.random.fold_in(key, label), (size,))
        )(y)
        return projected * signs
    numbers = y.reshape(y.shape[0], -1).astype(jnp.float32)
    constant = jnp.ones((y.shape[0], 1))
    return projected * (jnp.concatenate([constant, numbers], axis=1) @ tables.labels)


def moments(tables: Tables, batches: Steps, count: Array, *, scatter: bool = True) -> Moments:
    """The moments of a client's sketches, a step at a time, however often an example is shown.

    Args:
      tables: from ``make_tables``.
      batches: the client's; one without examples has zeros.
      count: of its different examples, each shown as often as the others.
      scatter: whether it is wanted; zeros if not.
    """
    size = tables.inputs.shape[1]

    def step(index: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        batch = batches.step(index)
        sketches = jnp.where(batch["mask"][:, None], sketched(tables, batch), 0.0)
        squares = sums[1] + sketches.T @ sketches if scatter else sums[1]
        return sums[0] + jnp.sum(sketches, axis=0), squares

    zeros = jnp.zeros((size,)), jnp.zeros((size, size))
    total, squares = jax.lax.fori_loop(0, batches.mask.shape[0], step, zeros)
    shown = jnp.maximum(jnp.sum(batches.mask), 1)
    mean = total / shown
    deviations = (squares / shown - jnp.outer(mean, mean)) * count
    return Moments(mean, deviations if scatter else zeros[1])
