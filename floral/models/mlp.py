"""Multi-layer perceptrons and linear models."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from floral import check
from floral.models.base import Model, from_linen

__all__ = ["linear", "mlp"]


class MLP(nn.Module):
    """Dense layers with ReLU between them, on inputs flattened to [B, d]."""

    widths: Sequence[int]

    @nn.compact
    def __call__(self, x):
        x = jnp.reshape(x, (x.shape[0], -1))
        for width in self.widths[:-1]:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.widths[-1])(x)


def mlp(outputs: int, *, hidden: Sequence[int] = (200,)) -> Model:
    """A multi-layer perceptron with ReLU.

    Args:
      outputs: the width of the last layer; a config takes it from the data.
      hidden: the widths of the hidden layers.
    """
    check.positive_int(outputs=outputs)
    for index, width in enumerate(hidden):
        check.positive_int(**{f"hidden.{index}": width})
    return from_linen(MLP((*hidden, outputs)))


def linear(outputs: int) -> Model:
    """One dense layer with bias.

    Args:
      outputs: its width; a config takes it from the data.
    """
    check.positive_int(outputs=outputs)
    return from_linen(MLP((outputs,)))
