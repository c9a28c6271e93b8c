"""Multi-layer perceptrons and linear models."""

import math
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from floral import check
from floral.errors import SpecError
from floral.models.base import Model
from floral.models.frameworks.linen import from_linen
from floral.models.inits import INITS, draws
from floral.models.norms import batch_norm, norm_arguments

__all__ = ["linear", "mlp"]


class MLP(nn.Module):
    """Dense layers with ReLU between them, on inputs flattened to [B, d]."""

    widths: Sequence[int]
    init_as: str = "lecun_normal"
    norm: str = "none"

    @nn.compact
    def __call__(self, x, train=False, mask=None, features=False):
        if x.ndim == 0 or 0 in x.shape[1:]:
            model = "mlp" if len(self.widths) > 1 else "linear"
            raise SpecError(
                f"{model}: expected inputs [B, ...] of at least one number an example, got inputs "
                f"of shape {tuple(x.shape)}"
            )
        x = jnp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))  # a batch may be empty
        for width in self.widths[:-1]:
            x = nn.relu(nn.Dense(width, **draws(self.init_as, x.shape[-1]))(x))
            if self.norm == "batch":
                x = batch_norm(x, train=train, mask=mask)
        if features:
            return x
        return nn.Dense(self.widths[-1], **draws(self.init_as, x.shape[-1]))(x)


def mlp(
    outputs: int,
    *,
    hidden: Sequence[int] = (200,),
    init: str = "lecun_normal",
    norm: Literal["none", "batch"] = "none",
) -> Model:
    """A multi-layer perceptron with ReLU.

    Args:
      outputs: the width of the last layer; a config takes it from the data.
      hidden: the widths of the hidden layers.
      init: how weights are drawn: ``lecun_normal``, flax's way (variance 1 / fan_in, biases zero),
        or ``pytorch`` (kernels and biases uniform in ±1/√fan_in).
      norm: "batch" normalises what each hidden layer gives, after its ReLU, by the batch in
        training and by running moments in evaluation, which are statistics of the model.

    Raises:
      SpecError: when initialised, if the inputs hold no numbers.
    """
    check.positive_int(outputs=outputs)
    check.positive_ints(hidden=hidden)
    check.one_of(INITS, init=init)
    network = MLP((*hidden, outputs), init, norm)
    return from_linen(network, features_argument="features", **norm_arguments(norm))


def linear(outputs: int) -> Model:
    """One dense layer with bias.

    Args:
      outputs: its width; a config takes it from the data.

    Raises:
      SpecError: when initialised, if the inputs hold no numbers.
    """
    check.positive_int(outputs=outputs)
    return from_linen(MLP((outputs,)), features_argument="features", **norm_arguments("none"))
