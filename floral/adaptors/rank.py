"""How large a rank is, how a smaller one is seen through a mask, and how C make a larger one.

Factors keep their full rank R in memory, so that shapes stay static when clients of different
ranks share one ``vmap``; a client's own rank r ≤ R only masks the directions ``arange(R) >= r``.
"""

import math
from typing import Protocol

import jax
import jax.numpy as jnp

from floral import check
from floral.errors import SpecError
from floral.typing import Array

__all__ = ["RankRule", "keep_first", "rank_rule", "scaled", "side_by_side"]


class RankRule(Protocol):
    """``(shape, parameters per unit of rank, largest rank) -> rank`` of the leaf's factors."""

    def __call__(self, shape: tuple[int, ...], per_rank: int, largest: int) -> int: ...


def rank_rule(*, rank: int | None = None, budget: float | None = None) -> RankRule:
    """The rank of a leaf's factors, stated outright or as a share ρ of the leaf's size.

    By budget the rank is ``max(1, floor(ρ · size / parameters per unit of rank))``: a tiny leaf
    takes rank 1 even if that is over its budget.

    Args:
      rank: the rank itself.
      budget: ρ in (0, 1], the adaptor's parameters as a share of the leaf's.

    Raises:
      SpecError: unless exactly one of the two is given and lies in its range; when applied to a
        leaf, if the stated rank exceeds the largest that the leaf can have.

    Example:
      >>> rule = rank_rule(budget=0.1)
      >>> rule((784, 200), per_rank=784 + 200, largest=200)
      15
      >>> rule((3, 2), per_rank=5, largest=2)
      1

    Source: the FLoRAL paper (arXiv 2410.03497), section 3.2.
    """
    if (rank is None) == (budget is None):
        raise SpecError(
            "state one of rank and budget, got "
            f"rank={check.brief(rank)} and budget={check.brief(budget)}"
        )
    if rank is not None:
        check.positive_int(rank=rank)
    if budget is not None:
        check.positive(budget=budget)
        if budget > 1:
            raise SpecError(
                f"budget is a share of the leaf's size and at most 1, got {check.brief(budget)}; "
                "a whole number of directions is stated as rank"
            )

    def choose(shape: tuple[int, ...], per_rank: int, largest: int) -> int:
        if budget is not None:
            # The small number keeps a share that comes out whole from being rounded below itself.
            return max(1, math.floor(budget * math.prod(shape) / per_rank + 1e-9))
        assert rank is not None
        if rank > largest:
            raise SpecError(f"rank {rank} is above {largest}, the largest for shape {shape}")
        return rank

    return choose


def keep_first(factor: Array, axis: int, count: int | Array) -> Array:
    """The factor with everything from index ``count`` (possibly traced) of the axis on zero.

    Example:
      >>> keep_first(jnp.ones((2, 3)), 1, 2)
      Array([[1., 1., 0.],
             [1., 1., 0.]], dtype=float32)
    """
    others = [other for other in range(factor.ndim) if other != axis % factor.ndim]
    mask = jnp.expand_dims(jnp.arange(factor.shape[axis]) < count, others)
    return jnp.where(mask, factor, jnp.zeros((), factor.dtype))


def side_by_side(factors: Array, axis: int) -> Array:
    """A factor of C adaptors as one with C times the directions.

    Args:
      factors: ``[C, ...]``.
      axis: of one factor, where its R directions are; there will be C·R.

    Example:
      >>> side_by_side(jnp.ones((3, 8, 2)), -1).shape
      (8, 6)
    """
    axis %= factors.ndim - 1
    moved = jnp.moveaxis(factors, 0, axis)  # C right before R
    return moved.reshape(*moved.shape[:axis], -1, *moved.shape[axis + 2 :])


def scaled(factors: Array, weights: Array) -> Array:
    """Factors ``[C, ...]``, each times its own of the weights ``[C]``."""
    return jax.vmap(jnp.multiply)(factors, weights)
