"""Exact rewrites that keep a traced program on the fast kernels of XLA's CPU backend.

Inside a loop that backend runs a convolution fast only where its axes stand in the canonical order
(images batch first and channels last, kernels with outputs last). A convolution's gradient with
respect to its kernel never does, and is then up to 20 times slower than the same operation outside
of a loop; the gradient of a max-pool is slow anywhere. Both have equal forms that are fast
everywhere. They are put in place of the originals in the traced program, whatever library the
model was written with, so that no model has to know of this.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.extend.core import primitives

from floral.typing import Array

__all__ = ["with_fast_kernels"]


def with_fast_kernels(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of arrays, with slow convolutions and poolings rewritten.

    Args:
      function: pure and traceable; it is traced at every call, so it belongs under ``jax.jit``.
    """

    def rewritten(*arguments: Any) -> Any:
        traced, out = jax.make_jaxpr(function, return_shape=True)(*arguments)
        program = core.ClosedJaxpr(_rewrite(traced.jaxpr), traced.consts)
        results = core.jaxpr_as_fun(program)(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(out), results)

    return rewritten


def _rewrite(program: core.Jaxpr) -> core.Jaxpr:
    return program.replace(eqns=[_rewrite_operation(operation) for operation in program.eqns])


def _rewrite_operation(operation: core.JaxprEqn) -> core.JaxprEqn:
    """The operation, or one call of its fast form; loops and calls are entered."""
    if operation.primitive is primitives.conv_general_dilated_p:
        fast = _canonical_convolution(**operation.params)
    elif operation.primitive is primitives.select_and_scatter_add_p:
        fast = _pooling_gradient(operation)
    else:
        inner = {name: _enter(value) for name, value in operation.params.items()}
        return operation.replace(params=inner)
    if fast is None:
        return operation
    avals: list[Any] = [variable.aval for variable in operation.invars]
    structs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
    (call,) = jax.make_jaxpr(jax.jit(fast))(*structs).eqns
    return call.replace(invars=operation.invars, outvars=operation.outvars)


def _enter(value: Any) -> Any:
    """A parameter of an operation, the programs in it rewritten."""
    if isinstance(value, core.ClosedJaxpr):
        return core.ClosedJaxpr(_rewrite(value.jaxpr), value.consts)
    if isinstance(value, core.Jaxpr):
        return _rewrite(value)
    if type(value) is tuple:  # the branches of a cond, and not a named tuple of settings
        return tuple(_enter(element) for element in value)
    return value


def _canonical_convolution(
    *,
    dimension_numbers: lax.ConvDimensionNumbers,
    feature_group_count: int,
    batch_group_count: int,
    **settings: Any,
) -> Callable[[Array, Array], Array] | None:
    """The convolution between transposes that bring its axes in order; None if they are."""
    lhs, rhs, out = dimension_numbers
    axes = len(lhs)
    images = (0, axes - 1, *range(1, axes - 1))  # batch, feature and spatial axes of [B, ..., C]
    kernels = (axes - 1, axes - 2, *range(axes - 2))  # out, in and spatial ones of [..., in, out]
    canonical = lax.ConvDimensionNumbers(images, kernels, images)
    if dimension_numbers == canonical or feature_group_count > 1 or batch_group_count > 1:
        return None

    def convolve(left: Array, right: Array) -> Array:
        outputs = primitives.conv_general_dilated_p.bind(
            lax.transpose(left, (lhs[0], *lhs[2:], lhs[1])),
            lax.transpose(right, (*rhs[2:], rhs[1], rhs[0])),
            dimension_numbers=canonical,
            feature_group_count=1,
            batch_group_count=1,
            **settings,
        )
        return lax.transpose(outputs, np.argsort((out[0], *out[2:], out[1])))

    return convolve


def _pooling_gradient(operation: core.JaxprEqn) -> Callable[[Array, Array], Array] | None:
    """The gradient of a max-pool whose windows neither overlap nor are padded; None for others.

    As in the original, of equal values the first of a window gets the gradient.
    """
    settings = operation.params
    window = settings["window_dimensions"]
    if (
        tuple(settings["window_strides"]) != tuple(window)
        or any(low or high for low, high in settings["padding"])
        or settings["select_prim"] is not lax.ge_p
    ):
        return None

    def scatter(gradient: Array, inputs: Array) -> Array:
        pooled = gradient.shape
        covered = [count * side for count, side in zip(pooled, window, strict=True)]
        whole = lax.slice(inputs, [0] * len(covered), covered)
        apart = [size for pair in zip(pooled, window, strict=True) for size in pair]
        windows_last = [*range(0, 2 * len(window), 2), *range(1, 2 * len(window), 2)]
        windows = whole.reshape(apart).transpose(windows_last).reshape(*pooled, -1)
        first = jnp.argmax(windows, axis=-1, keepdims=True)
        chosen = lax.broadcasted_iota(first.dtype, windows.shape, windows.ndim - 1) == first
        spread = jnp.where(chosen, gradient[..., None], 0).reshape(*pooled, *window)
        back = spread.transpose(np.argsort(windows_last)).reshape(covered)
        rest = [(0, size - part) for size, part in zip(inputs.shape, covered, strict=True)]
        return jnp.pad(back, rest)

    return scatter
