"""Factor pairs as products of matrices, and the best pair for a matrix.

What a pair does is its product. Products of several pairs can be summed, and the sum made a pair
of a given rank again: by the Eckart-Young theorem the truncated singular value decomposition is
the nearest such pair in the Frobenius norm.
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from floral.adaptors.base import Adaptor, Plan, Product
from floral.typing import Array, PyTree

__all__ = ["best_pair", "best_pair_of_sum", "factor_pairs", "interleaved", "matrix_product"]


def factor_pairs(plan: Plan, bank: Mapping[str, PyTree]) -> dict[str, Adaptor]:
    """The adaptors, by path, of which a bank holds more than one factor.

    Args:
      plan: which leaf has which adaptor.
      bank: ``{path: {factor: leaf}}``, None for what it lacks.
    """
    return {
        path: plan.adaptors[path]
        for path, factors in bank.items()
        if len(jax.tree.leaves(factors)) > 1
    }


def matrix_product(
    axes: Mapping[str, int],
    arrange: Callable[[Array, tuple[int, ...], tuple[int, ...]], Array],
    scale: float,
) -> Product:
    """The product of factors a and b, each with the R directions on an axis of its own.

    Args:
      axes: the axis of the directions, by factor.
      arrange: ``(matrix, a's other axes, b's other axes) -> array`` of the leaf's shape.
      scale: of the delta.
    """

    def others(like, name: str) -> tuple[int, ...]:
        shape = list(like[name].shape)
        del shape[axes[name]]
        return tuple(shape)

    def matrix(trained, name: str) -> Array:
        factor = jnp.moveaxis(trained[name], axes[name], 0)
        return factor.reshape(factor.shape[0], -1)

    def factor(matrix: Array, like, name: str) -> Array:
        shaped = matrix.reshape(matrix.shape[0], *others(like, name))
        return jnp.moveaxis(shaped, 0, axes[name]).astype(like[name].dtype)

    return Product(
        matrices=lambda trained: (matrix(trained, "a"), matrix(trained, "b")),
        pair=lambda left, right, like: {
            "a": factor(left, like, "a"),
            "b": factor(right, like, "b"),
        },
        leaf=lambda matrix, like: scale * arrange(matrix, others(like, "a"), others(like, "b")),
        scale=scale,
    )


def interleaved(matrix: Array, of_a: tuple[int, ...], of_b: tuple[int, ...]) -> Array:
    """The kernel ``[*k, c_in, c_out]`` of a matrix whose rows are ``[*ka, c_in]`` and whose columns
    are ``[*kb, c_out]``: on each spatial axis at most one of the two is longer than 1."""
    count = len(of_a)
    apart = matrix.reshape(*of_a, *of_b)
    pairs = [axis for index in range(count) for axis in (index, count + index)]
    shape = [math.prod(extents) for extents in zip(of_a[:-1], of_b[:-1], strict=True)]
    return apart.transpose(pairs).reshape(*shape, of_a[-1], of_b[-1])


def best_pair(matrix: Array, rank: int) -> tuple[Array, Array]:
    """``left [R, rows]`` and ``right [R, columns]`` with ``leftᵀ right`` nearest to the matrix.

    Balanced: each singular value is shared out in equal parts, so that ``left leftᵀ`` is
    ``right rightᵀ``. Directions beyond the matrix' own are zero.

    Args:
      matrix: [rows, columns].
      rank: R.

    Example:
      >>> left, right = best_pair(jnp.diag(jnp.array([4.0, 1.0])), 1)
      >>> abs(left.T @ right).tolist()
      [[4.0, 0.0], [0.0, 0.0]]
    """
    u, values, v = jnp.linalg.svd(matrix, full_matrices=False)
    root = jnp.sqrt(values)
    return _padded((u * root[None]).T, rank), _padded(v * root[:, None], rank)


def best_pair_of_sum(left: Array, right: Array, rank: int) -> tuple[Array, Array]:
    """The ``best_pair`` of ``leftᵀ right``, a product of many directions, which is never formed.

    Args:
      left: [M, rows].
      right: [M, columns].
      rank: R.
    """
    left_basis, left_core = jnp.linalg.qr(left.T)  # [rows, p], [p, M]
    right_basis, right_core = jnp.linalg.qr(right.T)
    core = jnp.matmul(left_core, right_core.T, precision="highest")
    inner_left, inner_right = best_pair(core, rank)
    return (
        jnp.matmul(inner_left, left_basis.T, precision="highest"),
        jnp.matmul(inner_right, right_basis.T, precision="highest"),
    )


def _padded(matrix: Array, rows: int) -> Array:
    """The first so many rows, zeros where there are fewer."""
    kept = matrix[:rows]
    return jnp.pad(kept, ((0, rows - kept.shape[0]), (0, 0)))
