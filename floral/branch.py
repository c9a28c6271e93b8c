"""A branch that each of many clients side by side takes its own way."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from floral import tree
from floral.typing import Array, PyTree

__all__ = ["cond_any"]


def cond_any(asked: Array, new: Callable[..., PyTree], old: PyTree, *operands: PyTree) -> PyTree:
    """``new(*operands)`` where it is asked for, ``old`` elsewhere.

    As ``jax.lax.cond``, which under ``jax.vmap`` with conditions of the lanes' own gives each lane
    a copy of all that a branch looks at, were it the examples of the whole population, and takes
    both branches always. Here lanes share what they shared before, and none computes anew unless
    one of them asks. Not for reverse-mode differentiation.

    Args:
      asked: bool.
      new: gives what is like ``old``; of what lanes have of their own it sees its operands alone.
      old: arrays.
      *operands: trees of arrays.

    Example:
      >>> shared = jnp.arange(1000.0)
      >>> jax.vmap(lambda asked, at: cond_any(asked, lambda x, at: x[at], 0.0, shared, at))(
      ...     jnp.array([True, False]), jnp.array([7, 8])
      ... ).tolist()
      [7.0, 0.0]
    """

    @custom_vmap
    def either(asked: Array, old: PyTree, operands: Sequence[PyTree]) -> PyTree:
        return jax.lax.cond(asked, lambda: new(*operands), lambda: old)

    @either.def_vmap
    def side_by_side(
        lanes: int, own: Any, asked: Array, old: PyTree, operands: Sequence[PyTree]
    ) -> tuple[PyTree, PyTree]:
        def lane(asked: Array, old: PyTree, operands: Sequence[PyTree]) -> PyTree:
            return tree.select(asked, new(*operands), old)

        axes = jax.tree.map(lambda is_own: 0 if is_own else None, own)
        each = jax.vmap(lane, in_axes=tuple(axes), axis_size=lanes)
        every = jax.vmap(lambda old: old, in_axes=axes[1:2], axis_size=lanes)(old)
        chosen = cond_any(jnp.any(asked), each, every, asked, old, operands)
        return chosen, jax.tree.map(lambda _: True, chosen)

    return either(jnp.asarray(asked), jax.tree.map(jnp.asarray, old), operands)
