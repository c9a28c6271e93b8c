"""Reads off a bound flax layer what an adaptor's fast path needs to know of its call.

Only four layers are known, and only exactly these classes: a subclass may compute anything. What
a layer does otherwise than plainly is told as a reason not to use the fast path.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.linen import dtypes
from jax import lax

from floral.adaptors.base import Op
from floral.typing import Array

__all__ = ["LEAF_NAMES", "read_op"]

LEAF_NAMES = {
    nn.Dense: "kernel",
    nn.DenseGeneral: "kernel",
    nn.Conv: "kernel",
    nn.Embed: "embedding",
}
"""The known layers, and which of their parameters an adaptor can act on inside the layer."""


def read_op(
    layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], shape: Any, outputs: Array
) -> Op | str:
    """The op of a known layer's ``__call__``, or the reason why the fast path cannot serve it.

    Args:
      layer: a bound layer of a class in ``LEAF_NAMES``.
      args: what it was called with.
      kwargs: what it was called with by keyword.
      shape: of its leaf.
      outputs: what it returned; their dtype is the one it computes in.
    """
    inputs = jnp.asarray(args[0] if args else kwargs["inputs"])
    if layer.promote_dtype is not dtypes.promote_dtype:
        return "custom promote_dtype"
    if isinstance(layer, nn.Embed):
        return _embed_op(layer, inputs, tuple(shape), outputs.dtype)
    if isinstance(layer, nn.Conv):
        return _conv_op(layer, inputs, tuple(shape), outputs.dtype)
    return _dense_op(layer, inputs, tuple(shape), outputs.dtype)


def _dense_op(layer: Any, inputs: Array, shape: tuple[int, ...], dtype: Any) -> Op | str:
    if layer.dot_general is not None or layer.dot_general_cls is not None:
        return "custom dot_general"
    if getattr(layer, "batch_dims", ()):
        return "batch_dims"
    axes = _each(getattr(layer, "axis", -1), 1)
    # flax contracts in the order of the axes' positions, not in the order given.
    settings = {"axes": tuple(sorted(axis % inputs.ndim for axis in axes))}
    return Op("dense", inputs, shape, settings, dtype, layer.precision)


def _embed_op(layer: Any, inputs: Array, shape: tuple[int, ...], dtype: Any) -> Op | str:
    if layer.num_embeddings == 1:
        return "a table of one row, which flax broadcasts"
    return Op("embed", inputs, shape, {}, dtype)


def _conv_op(layer: Any, inputs: Array, shape: tuple[int, ...], dtype: Any) -> Op | str:
    num_spatial = len(shape) - 2
    if layer.feature_group_count != 1:
        return "grouped convolution"
    if any(step != 1 for step in _each(layer.input_dilation, num_spatial)):
        return "input dilation"
    if layer.mask is not None:
        return "masked kernel"
    if layer.conv_general_dilated is not None or layer.conv_general_dilated_cls is not None:
        return "custom conv_general_dilated"
    strides = _each(layer.strides, num_spatial)
    dilation = _each(layer.kernel_dilation, num_spatial)
    extents = [(k - 1) * step + 1 for k, step in zip(shape[:num_spatial], dilation, strict=True)]
    inputs, padding = _pad(layer.padding, inputs, extents, strides)
    settings = {"strides": strides, "padding": padding, "kernel_dilation": dilation}
    return Op("conv", inputs, shape, settings, dtype, layer.precision)


def _pad(
    padding: Any, inputs: Array, extents: list[int], strides: tuple[int, ...]
) -> tuple[Array, tuple[tuple[int, int], ...]]:
    """The inputs, padded where lax has no word for it, and the explicit pads that are left.

    Follows flax's ``Conv`` to the letter; ``extents`` are the kernel's lengths with its gaps.
    """
    num_spatial = len(extents)
    nothing = ((0, 0),) * num_spatial
    lead = inputs.ndim - num_spatial - 1

    def padded(pads: Iterable[tuple[int, int]], **mode: Any) -> Array:
        return jnp.pad(inputs, [(0, 0)] * lead + list(pads) + [(0, 0)], **mode)

    if padding in ("CIRCULAR", "REFLECT"):
        pads = [((extent - 1) // 2, extent // 2) for extent in extents]
        return padded(pads, mode={"CIRCULAR": "wrap", "REFLECT": "reflect"}[padding]), nothing
    if padding == "CAUSAL":
        return padded([(extents[0] - 1, 0)]), nothing
    if isinstance(padding, str):
        spatial = inputs.shape[lead:-1]
        pads = lax.padtype_to_pads(spatial, extents, strides, padding)
        return inputs, tuple((int(low), int(high)) for low, high in pads)
    pads = [(p, p) if isinstance(p, int) else tuple(p) for p in _each(padding, num_spatial)]
    return inputs, tuple(pads)


def _each(value: Any, count: int) -> tuple[Any, ...]:
    """A setting that may be None or one number for all, as one entry an axis."""
    if value is None:
        return (1,) * count
    return (value,) * count if isinstance(value, int) else tuple(value)
