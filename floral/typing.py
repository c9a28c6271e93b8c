"""Names for the trees and arrays that pass between the parts.

Letters in shapes, everywhere: N population, K cohort, S local steps, B batch, C adaptors in the
bank, R rank.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from jax import Array

__all__ = ["Array", "Batch", "Key", "Loss", "Params", "PyTree"]

PyTree: TypeAlias = Any

Params: TypeAlias = Any
"""A tree of trained arrays: nested dicts, as linen's ``{"params": {...}}``, or any other pytree."""

Batch: TypeAlias = Mapping[str, Any]
"""``{"x": [B, ...], "y": [B, ...], "mask": [B] bool}``; padding has mask False."""

Key: TypeAlias = Array
"""A typed PRNG key of ``jax.random.key``."""

Loss: TypeAlias = Callable[[Any, Batch], Array]
"""``(outputs [B, ...], batch) -> [B]``: one number an example; callers mask and average."""
