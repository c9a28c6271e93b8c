"""How alike the adaptors of a bank are: adaptors that have become one personalize no one."""

import jax
import jax.numpy as jnp

from floral.adaptors.base import Bank, Plan
from floral.typing import Array

__all__ = ["cosines", "likeness"]


def cosines(bank: Bank, plan: Plan) -> Array:
    """The cosines between the whole deltas of adaptors, over all leaves: [C, C].

    Of factors they would say nothing: ``(a, b)`` and ``(-a, -b)`` are one adaptor. An adaptor whose
    delta is zero, as at a start, has cosine 0 with all, itself included.

    Args:
      bank: of C adaptors.
      plan: made for its leaves.

    Example:
      >>> from floral.adaptors import Bank, Rule, additive, make_plan
      >>> plan = make_plan([Rule(".*", additive())], {"bias": jnp.zeros(2)})
      >>> offsets = jnp.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
      >>> bank = Bank({"bias": {"offset": offsets}}, {"bias": ()})
      >>> cosines(bank, plan).tolist()
      [[1.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 1.0]]
    """
    products = []
    for path, adaptor in plan.adaptors.items():
        fixed = bank.fixed[path]
        deltas = jax.vmap(lambda one, adaptor=adaptor, fixed=fixed: adaptor.delta(one, fixed))(
            bank.trained[path]
        )
        flat = deltas.reshape(deltas.shape[0], -1)
        products.append(flat @ flat.T)
    gram = jnp.sum(jnp.stack(products), axis=0)
    lengths = jnp.sqrt(jnp.diagonal(gram))
    scale = lengths[:, None] * lengths[None]
    return jnp.where(scale > 0, gram / jnp.where(scale > 0, scale, 1.0), 0.0)


def likeness(bank: Bank, plan: Plan, active: Array) -> Array:
    """The mean cosine over pairs of different active adaptors; 0 where there are no pairs.

    Args:
      bank: of C adaptors.
      plan: made for its leaves.
      active: [C] bool.
    """
    pairs = active[:, None] & active[None] & ~jnp.eye(active.shape[0], dtype=bool)
    total = jnp.sum(jnp.where(pairs, cosines(bank, plan), 0.0))
    return total / jnp.maximum(pairs.sum(), 1)
