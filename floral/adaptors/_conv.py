"""Adaptors of convolution kernels: two thin convolutions, one after the other.

The delta of a kernel ``[*k, c_in, c_out]`` is ``α · Σ_m a[.., m] b[m, ..]`` with
``a [*ka, c_in, m]`` and ``b [*kb, m, c_out]``, where on every spatial axis at most one of the two
is longer than 1. So convolving with a and then with b is convolving with the delta: stride,
padding and dilation of an axis go with the factor that has the axis' extent. The layouts differ
in who has which axis:

| layout | a | b | parameters per unit of rank |
|---|---|---|---|
| ``in`` | all axes | none | k c_in + c_out |
| ``out``, ``reshaped`` | none | all axes | c_in + k c_out |
| ``balanced`` | ``in`` if c_in ≤ c_out, else ``out`` | | |
| ``separable`` | one axis | the other | c_min k_max + c_max k_min |
| ``filter_wise`` | the first axis, c_out wide | the second | (c_in k1 + c_out k2) c_out |
"""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from floral import check
from floral.adaptors._low_rank import INITS, draw_pair
from floral.adaptors.base import Adaptor, Op
from floral.adaptors.product import interleaved, matrix_product
from floral.adaptors.rank import keep_first, rank_rule, scaled, side_by_side
from floral.errors import SpecError
from floral.first_argument import first_by_place
from floral.typing import Array

__all__ = ["LAYOUTS", "conv"]

LAYOUTS = ("separable", "in", "out", "balanced", "filter_wise", "reshaped")


class _Extents(NamedTuple):
    """Who has which axis: the extents of a and of b, and how many channels a unit of rank has."""

    a: tuple[int, ...]
    b: tuple[int, ...]
    width: int


@first_by_place
def conv(
    *,
    layout: str = "separable",
    rank: int | None = None,
    budget: float | None = None,
    budget_of: Literal["kernel", "channels"] = "kernel",
    alpha: float = 1.0,
    init: str = "uniform_in",
) -> Adaptor:
    """Adapts a convolution kernel ``[*k, c_in, c_out]`` by two thin kernels.

    Args:
      layout: which factor has which axis. ``separable`` gives the longer axis to the
        side with fewer channels (of a square kernel, a has the first); with one spatial axis it
        is ``balanced``. ``reshaped`` is the matrix ``[c_in, k c_out]``, the same as ``out``.
      rank: the number of directions between the two.
      budget: instead of the rank, the share ρ of the kernel's size that the factors may take:
        ``max(1, floor(ρ · size / parameters per unit of rank))``.
      budget_of: what a budget is a share of: the kernel, or "channels" as in the authors' code,
        ``max(1, floor(ρ · d · c_in c_out / (c_in + c_out)))`` for d spatial axes whatever the
        layout and the kernel's extents, so that the factors' share of the kernel is another one.
      alpha: α, the scale of the delta.
      init: which factor is drawn and how, as in `low_rank`; the other is zero.

    Raises:
      SpecError: if the settings make no rank; in `make_plan`, if the leaf is no such kernel.

    Example:
      >>> kernel = jax.ShapeDtypeStruct((3, 3, 128, 512), jnp.float32)
      >>> [conv(layout=layout, budget=0.1).rank(kernel) for layout in ("separable", "in", "out")]
      [30, 35, 12]
      >>> conv(budget=0.1, budget_of="channels").rank(kernel)
      20

    Source: the FLoRAL paper (arXiv 2410.03497), section 3.2 and appendix G.1. Differs from its
    code, whose rank rule counts the kernel's axes and not its volume (``budget_of="channels"``).
    """
    check.one_of(LAYOUTS, layout=layout)
    check.one_of(INITS, init=init)
    check.positive(alpha=alpha)
    check.one_of(("kernel", "channels"), budget_of=budget_of)
    rule = rank_rule(rank=rank, budget=budget)

    def rank_of(leaf: jax.ShapeDtypeStruct) -> int:
        shape = tuple(leaf.shape)
        extents = _extents(layout, shape)
        if budget is not None and budget_of == "channels":
            channels = shape[-2:]
            return rule((len(shape) - 2, *channels), sum(channels), min(channels))
        rows = math.prod(extents.a) * shape[-2]
        columns = math.prod(extents.b) * shape[-1]
        largest = max(1, min(rows, columns) // extents.width)
        return rule(shape, (rows + columns) * extents.width, largest)

    def make(key, leaf):
        shape = tuple(leaf.shape)
        extents = _extents(layout, shape)
        middle = rank_of(leaf) * extents.width
        shapes = ((*extents.a, shape[-2], middle), (*extents.b, middle, shape[-1]))
        fans = (math.prod(extents.a) * shape[-2], math.prod(extents.b) * shape[-1])
        return draw_pair(key, init, shapes, fans, leaf.dtype), ()

    def truncate(trained, rank):
        width = trained["b"].shape[-1] if layout == "filter_wise" else 1
        return {
            "a": keep_first(trained["a"], -1, rank * width),
            "b": keep_first(trained["b"], -2, rank * width),
        }

    def delta(trained, fixed, rank=None):
        pair = trained if rank is None else truncate(trained, rank)
        return alpha * jnp.einsum("...im,...mo->...io", pair["a"], pair["b"])

    def apply(op, trained, fixed, weights):
        return _convolve_twice(op, trained, alpha * weights)

    def mix(trained, weights):
        a = scaled(trained["a"], weights)
        return {"a": side_by_side(a, -1), "b": side_by_side(trained["b"], -2)}

    return Adaptor(
        init=make,
        delta=delta,
        apply=apply,
        supports=lambda op: op.kind == "conv",
        precondition=_precondition,
        kind=f"conv {layout}",
        rank=rank_of,
        truncate=truncate,
        mix=mix,
        product=matrix_product({"a": -1, "b": -2}, interleaved, alpha),
    )


def _extents(layout: str, shape: tuple[int, ...]) -> _Extents:
    if len(shape) < 3:
        raise SpecError(f"conv needs a kernel [*spatial, c_in, c_out], got shape {shape}")
    *spatial, c_in, c_out = shape
    whole, none = tuple(spatial), (1,) * len(spatial)
    if layout == "separable" and len(spatial) == 1:
        layout = "balanced"
    if layout == "balanced":
        layout = "in" if c_in <= c_out else "out"
    if layout == "in":
        return _Extents(whole, none, 1)
    if layout in ("out", "reshaped"):
        return _Extents(none, whole, 1)
    if len(spatial) != 2:
        raise SpecError(
            f"conv {layout} splits two spatial axes, got {len(spatial)} in shape {shape}; "
            "layout='balanced' fits any number"
        )
    first, second = (spatial[0], 1), (1, spatial[1])
    if layout == "filter_wise":
        return _Extents(first, second, c_out)
    # The longer axis costs least on the side with fewer channels.
    swap = (spatial[0] - spatial[1]) * (c_out - c_in) < 0
    return _Extents(second, first, 1) if swap else _Extents(first, second, 1)


def _convolve_twice(op: Op, trained: dict[str, Array], scale: Array) -> Array:
    width = trained["a"].shape[-1]
    a = side_by_side(trained["a"], -1).astype(op.dtype)  # [*ka, c_in, C*m]
    b = side_by_side(trained["b"], -2).astype(op.dtype)  # [*kb, C*m, c_out]
    num_spatial = a.ndim - 2
    batch_shape = op.inputs.shape[: -num_spatial - 1]
    inputs = op.inputs.reshape(-1, *op.inputs.shape[len(batch_shape) :]).astype(op.dtype)

    # An axis goes with b where b has its extent, and with a where neither has.
    with_b = [extent > 1 for extent in b.shape[:num_spatial]]
    middle = _convolve(op, inputs, a, [not later for later in with_b])
    middle = middle * jnp.broadcast_to(jnp.repeat(scale, width).astype(op.dtype), middle.shape)
    outputs = _convolve(op, middle, b, with_b)
    return outputs.reshape(*batch_shape, *outputs.shape[1:])


def _convolve(op: Op, inputs: Array, kernel: Array, own: list[bool]) -> Array:
    """A convolution with the op's stride, padding and dilation on the axes it owns, and without
    on the others."""
    settings = op.settings
    axes = range(len(own))
    last = len(own) + 1
    channels_last = lax.ConvDimensionNumbers(
        lhs_spec=(0, last, *range(1, last)),
        rhs_spec=(last, last - 1, *axes),
        out_spec=(0, last, *range(1, last)),
    )
    return lax.conv_general_dilated(
        inputs,
        kernel,
        window_strides=[settings["strides"][i] if own[i] else 1 for i in axes],
        padding=[settings["padding"][i] if own[i] else (0, 0) for i in axes],
        rhs_dilation=[settings["kernel_dilation"][i] if own[i] else 1 for i in axes],
        dimension_numbers=channels_last,
        precision=op.precision,
    )


def _precondition(
    gradients: dict[str, Array], trained: dict[str, Array], epsilon: float
) -> dict[str, Array]:
    grams = {
        "a": jnp.einsum("...im,...in->mn", trained["a"], trained["a"]),
        "b": jnp.einsum("...mo,...no->mn", trained["b"], trained["b"]),
    }

    def rescale(name: str, gradient: Array) -> Array:
        other = grams["b" if name == "a" else "a"]
        return gradient / (jnp.linalg.norm(other) + epsilon)

    return {name: rescale(name, gradient) for name, gradient in gradients.items()}
