r"""Centering: what all adaptors of a bank have in common belongs to the base.

With weights that sum to one, ``u + Σ_c π_c a_c = (u + ā) + Σ_c π_c (a_c - ā)``: moving the mean ā
of the adaptors to the base changes nobody's model. Offsets are centered exactly. A factor pair is
centered as a product and made a pair of its rank again, the nearest one: exact where the pair's
rank is that of the leaf, and otherwise as near as that rank allows.
"""

import jax
import jax.numpy as jnp

from floral.adaptors.base import Adaptor, Bank, Plan
from floral.adaptors.product import best_pair
from floral.errors import SpecError
from floral.tree import map_with_path
from floral.typing import Array, Params

__all__ = ["center", "check_centers"]


def center(base: Params, bank: Bank, plan: Plan, active: Array) -> tuple[Params, Bank]:
    """The base plus the mean over active adaptors of what each adds, and adaptors of mean zero.

    A singular value decomposition for each adaptor and factored leaf.

    Args:
      base: the params that the plan was made for.
      bank: C adaptors.
      plan: which leaf has which adaptor; see ``check_centers``.
      active: [C] bool, over which the mean is taken; it is subtracted from all.

    Example:
      >>> from floral.adaptors import Rule, additive, make_plan
      >>> base = {"bias": jnp.zeros(2)}
      >>> plan = make_plan([Rule(".*", additive())], base)
      >>> bank = Bank({"bias": {"offset": jnp.array([[1.0, 2.0], [3.0, 6.0]])}}, {"bias": ()})
      >>> base, bank = center(base, bank, plan, jnp.ones(2, bool))
      >>> base["bias"].tolist(), bank.trained["bias"]["offset"].tolist()
      ([2.0, 4.0], [[-1.0, -2.0], [1.0, 2.0]])

    Source: the FLoRAL paper (arXiv 2410.03497), appendix F.
    """
    shares = active / jnp.maximum(jnp.sum(active), 1)
    means, trained = {}, {}
    for path, adaptor in plan.adaptors.items():
        move = _center_offset if adaptor.product is None else _center_pair
        means[path], trained[path] = move(adaptor, bank.trained[path], bank.fixed[path], shares)

    def add(path: str, leaf: Array) -> Array:
        return (leaf + means[path]).astype(leaf.dtype) if path in means else leaf

    return map_with_path(add, base), bank._replace(trained=trained)


def check_centers(plan: Plan) -> None:
    """Raises SpecError for an adaptor that is neither an offset nor a product of two matrices."""
    for path, adaptor in plan.adaptors.items():
        if adaptor.product is None and adaptor.kind != "additive":
            raise SpecError(
                f"center_adaptors: the {adaptor.kind} adaptor of {path!r} is neither an offset nor "
                "a product of two matrices, and cannot be centered; use additive, low_rank or conv"
            )


def _center_offset(
    adaptor: Adaptor, trained: dict[str, Array], fixed: object, shares: Array
) -> tuple[Array, dict[str, Array]]:
    mean = jax.tree.map(lambda offsets: jnp.tensordot(shares, offsets, axes=1), trained)
    moved = jax.tree.map(lambda offsets, one: offsets - one[None], trained, mean)
    return adaptor.delta(mean, fixed), moved


def _center_pair(
    adaptor: Adaptor, trained: dict[str, Array], fixed: object, shares: Array
) -> tuple[Array, dict[str, Array]]:
    product = adaptor.product
    assert product is not None
    left, right = jax.vmap(product.matrices)(trained)  # [C, R, rows], [C, R, columns]
    products = jnp.einsum("crm,crn->cmn", left, right, precision="highest")
    mean = jnp.tensordot(shares, products, axes=1, precision="highest")

    def pair(matrix: Array, like: dict[str, Array]) -> dict[str, Array]:
        return product.pair(*best_pair(matrix, left.shape[1]), like)

    first = jax.tree.map(lambda factor: factor[0], trained)
    return product.leaf(mean, first), jax.vmap(pair)(products - mean[None], trained)
