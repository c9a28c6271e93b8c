"""Corrections of local gradients: the small terms by which methods keep clients from drifting.

They come before the client's optimizer, as terms of the objective would, so that momentum and
adaptive rates see them, while the loss that is reported stays the loss. Only
``scaled`` comes after the optimizer.
"""

import jax
import jax.numpy as jnp
import optax

from floral import tree
from floral.typing import Array, PyTree

__all__ = ["pulled", "scaled", "shifted"]


def pulled(
    optimizer: optax.GradientTransformation, *, towards: PyTree, strength: float
) -> optax.GradientTransformation:
    """The optimizer of the loss plus ``strength / 2 * ||values - towards||^2``.

    Args:
      optimizer: of the loss alone.
      towards: the centre, of the structure of the values.
      strength: of the pull; 0 is the optimizer itself.

    Example:
      >>> import jax.numpy as jnp
      >>> steps = pulled(optax.sgd(1.0), towards=jnp.array(3.0), strength=0.5)
      >>> float(steps.update(jnp.array(0.0), steps.init(jnp.array(1.0)), jnp.array(1.0))[0])
      1.0
    """

    def correct(updates, params):
        return jax.tree.map(
            lambda slope, value, centre: slope + strength * (value - centre),
            updates,
            params,
            towards,
        )

    return optax.chain(optax.stateless(correct), optimizer)


def shifted(optimizer: optax.GradientTransformation, *, by: PyTree) -> optax.GradientTransformation:
    """The optimizer, given every gradient plus the same tree.

    Args:
      optimizer: of the loss alone.
      by: what is added, of the structure of the values.
    """
    return optax.chain(optax.stateless(lambda updates, params: tree.add(updates, by)), optimizer)


def scaled(
    optimizer: optax.GradientTransformation, *, by: Array | float
) -> optax.GradientTransformation:
    """The optimizer with every step multiplied by one factor, as its learning rate would be.

    Args:
      optimizer: of the loss alone.
      by: the factor, a scalar; it may be traced.
    """

    def scale(updates, params):
        return jax.tree.map(lambda leaf: leaf * jnp.asarray(by, leaf.dtype), updates)

    return optax.chain(optimizer, optax.stateless(scale))
