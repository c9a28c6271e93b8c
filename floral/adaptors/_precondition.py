"""Rescales the gradients of factors so that their product moves at the base's scale.

The gradient of ``a b`` reaches a through b and b through a. Where one factor is small the other
hardly moves. Dividing each gradient by the Gram matrix of the other factor undoes this: as ε → 0
the product moves by ``G`` projected on the factors' row and column spaces.
"""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from floral import check
from floral.adaptors.base import Plan
from floral.errors import SpecError
from floral.typing import Array

__all__ = ["precondition"]


def precondition(plan: Plan, *, epsilon: float = 1e-5) -> optax.GradientTransformationExtraArgs:
    """An optax transform of ``{path: {factor: [C, ...]}}``, the gradients of a bank's factors.

    Matrices, as ``a [in, R]`` and ``b [R, out]`` (a is stored as aᵀ): ``G_a ← G_a (b bᵀ + ε I)⁻¹``
    and ``G_b ← (aᵀ a + ε I)⁻¹ G_b``. Convolutions: each
    factor's gradient is divided by ε plus the Frobenius norm of the other's Gram matrix [m, m],
    summed over kernel positions. What is not factored is left as it is, and so is the base.

    A factor is rescaled by the *other* one, trained or not. If only one of the two is trained, its
    partner is absent from the optimizer's params (or None there): pass the whole bank as
    ``update(updates, state, params, factors=bank.trained)``, which takes the params' place.

    At the start one factor, say b, is zero: then so is the gradient of a. One step later b is
    small, the gradient of a is divided by its tiny Gram matrix, and steps can be large: clip after
    this transform, or raise ε.

    Args:
      plan: which leaf has which adaptor.
      epsilon: ε, the ridge.

    Raises:
      SpecError: when traced, if a factor's partner is nowhere to be found.

    Example:
      >>> import jax.numpy as jnp
      >>> from floral.adaptors import Rule, low_rank, make_plan
      >>> plan = make_plan([Rule(".*", low_rank(rank=1))], {"w": jnp.ones((2, 2))})
      >>> factors = {"w": {"a": jnp.full((1, 1, 2), 1.0), "b": jnp.full((1, 1, 2), 2.0)}}
      >>> gradients = jax.tree.map(jnp.ones_like, factors)
      >>> scaled, _ = precondition(plan).update(gradients, optax.EmptyState(), factors)
      >>> [round(float(scaled["w"][name].max()), 3) for name in ("a", "b")]
      [0.125, 0.5]

    Source: the FLoRAL paper (arXiv 2410.03497), appendix E, with ε = 1e-5.
    Differs from its code: the Gram matrix of a convolution is summed over kernel positions.
    """
    check.positive(epsilon=epsilon)

    def update(updates, state, params=None, *, factors=None, **_):
        known = params if factors is None else factors
        if known is None:
            raise SpecError("precondition needs the factors: pass params to update")
        scaled = {
            path: _precondition_leaf(plan, path, gradients, known.get(path), epsilon)
            for path, gradients in updates.items()
        }
        return scaled, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _precondition_leaf(
    plan: Plan, path: str, gradients: Any, factors: Any, epsilon: float
) -> dict[str, Array]:
    if path not in plan.adaptors:
        raise SpecError(
            f"the plan has no adaptor at {path!r}{check.did_you_mean(path, plan.adaptors)}"
        )
    adaptor = plan.adaptors[path]
    rescale = adaptor.precondition
    if rescale is None or not jax.tree.leaves(gradients):
        return gradients
    moving, present = _arrays(gradients), _arrays(factors or {})
    names = jax.eval_shape(adaptor.init, jax.random.key(0), plan.leaves[path])[0].keys()
    missing = names - present.keys()
    if missing:
        raise SpecError(
            f"the gradient at {path!r} is rescaled by the factor {min(missing)!r}, which is not "
            "among the params: pass update(..., factors=bank.trained)"
        )
    scaled = jax.vmap(lambda gradient, factor: rescale(gradient, factor, epsilon))(moving, present)
    return {**gradients, **scaled}


def _arrays(factors: Mapping[str, Any]) -> dict[str, Array]:
    """The factors that are there: an optimizer may see None or optax's MaskedNode for others."""
    return {name: factor for name, factor in factors.items() if jax.tree.leaves(factor)}
