"""Low-rank adaptors of matrices, embeddings and kernels with several axes.

The delta of a leaf ``[in.., out..]`` is ``α · aᵀ b`` with ``a [R, in..]`` and ``b [R, out..]``, as
if the leaf were the matrix ``[prod(in), prod(out)]``. One of the two starts at zero, so the delta
does too; there is no further scaling by the rank. (An embedding's a is ``[V, R]``, whose rows are
looked up.)

Applied to an input, the C adaptors of a bank are one thin pair of products: with their ranks first,
the a's stand on top of each other in ``[C·R, in..]`` and so do the b's in ``[C·R, out..]``, as they
lie in memory; the mixture scales the C·R numbers in the middle.
"""

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from floral import check
from floral.adaptors.base import Adaptor, Op
from floral.adaptors.product import matrix_product
from floral.adaptors.rank import RankRule, keep_first, rank_rule, scaled, side_by_side
from floral.errors import SpecError
from floral.first_argument import first_by_place
from floral.typing import Array, Key

__all__ = ["INITS", "draw_pair", "embedding", "inverse_gram", "low_rank"]

INITS = ("uniform_in", "uniform_out", "normal_in", "normal_out")


@first_by_place
def low_rank(
    *,
    rank: int | None = None,
    budget: float | None = None,
    in_axes: tuple[int, ...] | None = None,
    alpha: float = 1.0,
    init: str = "uniform_in",
) -> Adaptor:
    """Adapts a matrix or a kernel of several axes by ``α · aᵀ b``.

    Args:
      rank: R, the number of directions.
      budget: instead of the rank, the share ρ of the leaf's size that the two factors may take:
        ``R = max(1, floor(ρ · size / (prod(in) + prod(out))))``.
      in_axes: the leaf's input axes, which must be its first ones: ``(0,)`` for an attention's
        query kernel ``[d, heads, head]``, ``(0, 1)`` for its output kernel ``[heads, head, d]``.
        A matrix needs none.
      alpha: α, the scale of the delta.
      init: which factor is drawn and how: ``uniform_in`` draws a from ±sqrt(6 / prod(in)),
        ``uniform_out`` draws b from ±sqrt(6 / prod(out)); ``normal_in`` and ``normal_out`` are
        normal with the same variances. The other factor is zero.

    Raises:
      SpecError: if the settings make no rank; in `make_plan`, if they do not fit the leaf.

    Example:
      >>> adaptor = low_rank(rank=4)
      >>> leaf = jax.ShapeDtypeStruct((16, 8), jnp.float32)
      >>> trained, fixed = adaptor.init(jax.random.key(0), leaf)
      >>> jax.tree.map(jnp.shape, trained)
      {'a': (4, 16), 'b': (4, 8)}
      >>> bool((adaptor.delta(trained, fixed) == 0).all())
      True

    Source: the FLoRAL paper (arXiv 2410.03497), section 3.2; ``uniform_in`` is its code's default.
    """
    check.positive(alpha=alpha)
    check.one_of(INITS, init=init)
    if in_axes is not None:
        axes = list(in_axes) if isinstance(in_axes, Iterable) else []
        whole = [axis for axis in axes if isinstance(axis, int | np.integer)]
        if not axes or whole != list(range(len(axes))):
            raise SpecError(
                f"in_axes must be the leaf's leading axes (0, 1, …), got {check.brief(in_axes)}"
            )

    def draw(key: Key, a_shape: tuple[int, ...], b_shape: tuple[int, ...], dtype: Any):
        fans = (math.prod(a_shape[:-1]), math.prod(b_shape[1:]))
        pair = draw_pair(key, init, (a_shape, b_shape), fans, dtype)
        return {**pair, "a": jnp.moveaxis(pair["a"], -1, 0)}

    return _matrix_pair("low_rank", rank_rule(rank=rank, budget=budget), in_axes, alpha, draw)


@first_by_place
def embedding(
    *, rank: int | None = None, budget: float | None = None, alpha: float = 1.0
) -> Adaptor:
    """Adapts an embedding table ``[V, d]``: a standard normal ``a [V, R]`` and a zero ``b [R, d]``.

    Args:
      rank: R, the number of directions.
      budget: instead of the rank, the share of the table's size that the factors may take.
      alpha: the scale of the delta.

    Raises:
      SpecError: if the settings make no rank; in `make_plan`, if the leaf is no matrix.

    Example:
      >>> table = jax.ShapeDtypeStruct((1000, 64), jnp.float32)
      >>> embedding(budget=0.1).rank(table)
      6

    Source: the embedding adaptor of the FLoRAL paper's code.
    """
    check.positive(alpha=alpha)

    def draw(key: Key, a_shape: tuple[int, ...], b_shape: tuple[int, ...], dtype: Any):
        return {"a": jax.random.normal(key, a_shape, dtype), "b": jnp.zeros(b_shape, dtype)}

    rule = rank_rule(rank=rank, budget=budget)
    return _matrix_pair("embedding", rule, None, alpha, draw, rank_axis=-1)


def draw_pair(
    key: Key,
    init: str,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    fans: tuple[int, int],
    dtype: Any,
) -> dict[str, Array]:
    """The factors a and b at the start: one drawn with variance 2 / fan, the other zero.

    Args:
      init: one of ``INITS``.
      shapes: of a and of b.
      fans: how many inputs a has, how many outputs b has.
    """
    distribution, side = init.split("_")
    drawn = 0 if side == "in" else 1
    shape, fan = shapes[drawn], fans[drawn]
    if distribution == "uniform":
        bound = math.sqrt(6 / fan)
        values = jax.random.uniform(key, shape, dtype, -bound, bound)
    else:
        values = jax.random.normal(key, shape, dtype) * jnp.asarray(math.sqrt(2 / fan), dtype)
    zeros = jnp.zeros(shapes[1 - drawn], dtype)
    return {"a": values, "b": zeros} if drawn == 0 else {"a": zeros, "b": values}


def inverse_gram(gradient: Array, other: Array, epsilon: float) -> Array:
    """``(M Mᵀ + ε I)⁻¹ G`` for the gradient G ``[R, n]`` and the other factor M ``[R, m]``, solved
    in float32 at least."""
    dtype = jnp.promote_types(gradient.dtype, jnp.float32)
    gradient_, other = gradient.astype(dtype), other.astype(dtype)
    gram = other @ other.T + epsilon * jnp.eye(other.shape[0], dtype=dtype)
    return (_inverse(gram) @ gradient_).astype(gradient.dtype)


def _inverse(matrix: Array) -> Array:
    """The inverse of a small symmetric positive definite matrix [R, R], by Gauss-Jordan steps.

    In plain array operations: LAPACK's solvers are called once a local step and client on a CPU,
    where starting their threads costs many times the arithmetic. Positive definite matrices need
    no pivoting.
    """
    size = matrix.shape[0]

    def eliminate(k, matrix):
        here = jnp.arange(size) == k
        column = matrix[:, k]
        unit = jnp.where(here[None, :], here[:, None].astype(matrix.dtype), matrix)
        row = unit[k] / matrix[k, k]
        return jnp.where(here[:, None], row[None, :], unit - column[:, None] * row[None, :])

    return jax.lax.fori_loop(0, size, eliminate, matrix)


def _matrix_pair(
    kind: str,
    rule: RankRule,
    in_axes: tuple[int, ...] | None,
    alpha: float,
    draw: Any,
    *,
    rank_axis: int = 0,
) -> Adaptor:
    """A pair of factors; ``rank_axis`` is the first axis of a, or its last."""
    num_in = 1 if in_axes is None else len(in_axes)
    axes = {"a": rank_axis, "b": 0}  # of the rank

    def split(leaf: jax.ShapeDtypeStruct) -> tuple[tuple[int, ...], tuple[int, ...]]:
        shape = tuple(leaf.shape)
        if len(shape) < 2:
            raise SpecError(f"{kind} needs a matrix, got shape {shape}; additive() fits any shape")
        if in_axes is None and len(shape) > 2:
            raise SpecError(
                f"{kind} cannot tell the input axes of shape {shape}: state in_axes, or use conv() "
                "for a convolution"
            )
        if num_in >= len(shape):
            raise SpecError(f"in_axes {in_axes} leave no output axis in shape {shape}")
        return shape[:num_in], shape[num_in:]

    def rank_of(leaf: jax.ShapeDtypeStruct) -> int:
        rows, columns = map(math.prod, split(leaf))
        return rule(tuple(leaf.shape), rows + columns, min(rows, columns))

    def init(key, leaf):
        into, out = split(leaf)
        size = rank_of(leaf)
        return draw(key, (*into, size), (size, *out), leaf.dtype), ()

    def truncate(trained, rank):
        return {name: keep_first(trained[name], axis, rank) for name, axis in axes.items()}

    def delta(trained, fixed, rank=None):
        pair = trained if rank is None else truncate(trained, rank)
        return alpha * jnp.tensordot(pair["a"], pair["b"], axes=(rank_axis, 0))

    def supports(op: Op) -> bool:
        return op.kind == "embed" or (op.kind == "dense" and len(op.settings["axes"]) == num_in)

    def apply(op, trained, fixed, weights):
        form, to = (_look_up, -1) if op.kind == "embed" else (_multiply, 1)
        of_bank = 1 if rank_axis == 0 else -1
        return form(op, jnp.moveaxis(trained["a"], of_bank, to), trained["b"], alpha * weights)

    def mix(trained, weights):
        a = scaled(trained["a"], weights)
        return {"a": side_by_side(a, axes["a"]), "b": side_by_side(trained["b"], axes["b"])}

    def precondition(gradients, trained, epsilon):
        first = {name: jnp.moveaxis(factor, axes[name], 0) for name, factor in trained.items()}

        def rescale(name: str, gradient: Array) -> Array:
            moved, other = jnp.moveaxis(gradient, axes[name], 0), first["a" if name == "b" else "b"]
            rank = moved.shape[0]
            rescaled = inverse_gram(moved.reshape(rank, -1), other.reshape(rank, -1), epsilon)
            return jnp.moveaxis(rescaled.reshape(moved.shape), 0, axes[name])

        return {name: rescale(name, gradient) for name, gradient in gradients.items()}

    return Adaptor(
        init=init,
        delta=delta,
        apply=apply,
        supports=supports,
        precondition=precondition,
        kind=kind,
        rank=rank_of,
        truncate=truncate,
        mix=mix,
        product=matrix_product(axes, _as_one, alpha),
    )


def _as_one(matrix: Array, into: tuple[int, ...], out: tuple[int, ...]) -> Array:
    return matrix.reshape(*into, *out)


def _multiply(op: Op, a: Array, b: Array, scale: Array) -> Array:
    """With ``a [C, R, in..]``."""
    rank, num_in = a.shape[1], a.ndim - 2
    a, b = (factor.reshape(-1, *factor.shape[2:]).astype(op.dtype) for factor in (a, b))
    contract = ((op.settings["axes"], tuple(range(1, num_in + 1))), ((), ()))
    middle = lax.dot_general(op.inputs.astype(op.dtype), a, contract, precision=op.precision)
    # The mixture meets the middle, not b: under a vmap over clients b then stays unbatched.
    middle = middle * jnp.broadcast_to(jnp.repeat(scale, rank).astype(op.dtype), middle.shape)
    return jnp.tensordot(middle, b, axes=1, precision=op.precision)


def _look_up(op: Op, a: Array, b: Array, scale: Array) -> Array:
    """With ``a [C, V, R]``."""
    rows = jnp.take(a, op.inputs, axis=1).astype(op.dtype)  # [C, ids.., R]
    rows = rows * jnp.expand_dims(scale.astype(op.dtype), tuple(range(1, rows.ndim)))
    contract = ((0, rows.ndim - 1), (0, 1))
    return jnp.tensordot(rows, b.astype(op.dtype), axes=contract)
