"""Batch norm for the models that offer it: padding stays out of its moments."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from floral import check
from floral.typing import Array

__all__ = ["batch_norm", "norm_arguments"]


def batch_norm(x: Array, *, train: bool, mask: Array | None) -> Array:
    """Batch norm in the module that calls it, over all axes but the last: [B, ..., c] -> the same.

    Running moments keep nine tenths of themselves at a step, and ε is 1e-5, as PyTorch has both.

    Args:
      x: what is normalised.
      train: by the moments of the batch, which enter the running ones; otherwise by those.
      mask: [B] bool, False for the examples that pad a batch.
    """
    if mask is not None:
        mask = jnp.broadcast_to(mask.reshape(-1, *(1,) * (x.ndim - 1)), x.shape)
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x, mask=mask)


def norm_arguments(norm: str) -> dict[str, Any]:
    """What ``from_linen`` must know of a module with this norm, "none" or "batch"."""
    check.one_of(("none", "batch"), norm=norm)
    return {"train_argument": "train", "mask": norm == "batch"}
