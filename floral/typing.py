"""Names for the trees and arrays that pass between the parts.

Letters in shapes, everywhere: N population, K cohort, S local steps, B batch, C adaptors in the
bank, R rank.
"""

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Annotated, Any, TypeAlias

from jax import Array

__all__ = ["Array", "Batch", "FileOrName", "FilePath", "Key", "Loss", "Params", "PyTree", "Seed"]

PyTree: TypeAlias = Any

Params: TypeAlias = Any
"""A tree of trained arrays: nested dicts, as linen's ``{"params": {...}}``, or any other pytree."""

Batch: TypeAlias = Mapping[str, Any]
"""``{"x": [B, ...], "y": [B, ...], "mask": [B] bool}``; padding has mask False."""

Key: TypeAlias = Array
"""A typed PRNG key of ``jax.random.key``."""

Loss: TypeAlias = Callable[[Any, Batch], Array]
"""``(outputs [B, ...], batch) -> [B]``: one number an example; callers mask and average."""

FilePath: TypeAlias = str | PathLike[str]
"""A file or a folder. A run makes those of its config absolute, so that it may be gone on with from
any folder; so it does with a setting of one's own factory that is annotated ``Path``."""

FileOrName: TypeAlias = Annotated[FilePath, "or a name"]
"""A file or a folder, or what has another meaning if there is none of that name."""

Seed: TypeAlias = Annotated[int, "a seed"]
"""A whole number from 0 to 2^32 - 1: JAX would take the rest of a larger one, in silence."""
