"""The small convolutional networks of the federated papers."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from floral import check
from floral.errors import SpecError
from floral.models.base import Model
from floral.models.frameworks.linen import from_linen
from floral.models.images import as_images, check_sides

__all__ = ["cnn"]


class CNN(nn.Module):
    """Convolutions with ReLU and max-pooling, then dense layers."""

    channels: Sequence[int]
    kernels: Sequence[int]
    pools: Sequence[int]
    padding: str
    hidden: Sequence[int]
    outputs: int

    @nn.compact
    def __call__(self, x, features=False):
        x = as_images(x, "cnn")
        check_sides(x.shape[1:3], self.kernels, self.pools, padding=self.padding, model="cnn")
        for channels, kernel, pool in zip(self.channels, self.kernels, self.pools, strict=True):
            x = nn.relu(nn.Conv(channels, (kernel, kernel), padding=self.padding)(x))
            x = nn.max_pool(x, (pool, pool), strides=(pool, pool))
        x = jnp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))  # a batch may be empty
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return x if features else nn.Dense(self.outputs)(x)


def cnn(
    outputs: int,
    *,
    channels: Sequence[int] = (32, 64),
    kernels: Sequence[int] = (5, 3),
    pools: Sequence[int] = (2, 3),
    padding: str = "VALID",
    hidden: Sequence[int] = (64,),
) -> Model:
    """Convolutions, each with ReLU and max-pooling, then dense layers.

    Inputs are images ``[B, H, W, channels]`` or ``[B, H, W]``, with any number of channels; outputs
    are ``[B, outputs]``. Images must be large enough to leave a pixel after the last pooling, with
    the defaults 14x14 pixels. The defaults are FLoRAL's network for CIFAR-10 (87,178 parameters on
    32x32x3 inputs).

    Args:
      outputs: the width of the last layer; a config takes it from the data.
      channels: output channels of each convolution.
      kernels: side of each convolution's square kernel, in pixels.
      pools: side and stride of the max-pooling after each convolution, in pixels.
      padding: "VALID" or "SAME".
      hidden: widths of the hidden dense layers.

    Raises:
      SpecError: if channels, kernels and pools differ in length; when initialised, if the inputs
        are no images or too small.
    """
    check.positive_int(outputs=outputs)
    check.one_of(("VALID", "SAME"), padding=padding)
    check.positive_ints(channels=channels, kernels=kernels, pools=pools, hidden=hidden)
    if not len(channels) == len(kernels) == len(pools):
        raise SpecError(
            f"cnn: channels, kernels and pools must be as many; got {len(channels)}, "
            f"{len(kernels)} and {len(pools)}"
        )
    network = CNN(tuple(channels), tuple(kernels), tuple(pools), padding, tuple(hidden), outputs)
    return from_linen(network, features_argument="features")
