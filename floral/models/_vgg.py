"""VGG for small images: 3x3 convolutions that are pooled one by one, then dense layers."""

import math
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from floral import check
from floral.errors import SpecError
from floral.models.base import Model
from floral.models.frameworks.linen import from_linen
from floral.models.images import as_images, check_sides
from floral.models.norms import batch_norm, norm_arguments

__all__ = ["vgg"]

_HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class VGG(nn.Module):
    """Convolutions, each with ReLU and max-pooling, then dense layers behind dropout."""

    channels: Sequence[int]
    hidden: Sequence[int]
    dropout: float
    norm: str
    outputs: int

    @nn.compact
    def __call__(self, x, train=False, mask=None, features=False):
        x = as_images(x, "vgg")
        count, draws = len(self.channels), train and self.has_rng("dropout")
        check_sides(x.shape[1:3], [3] * count, [2] * count, padding="SAME", model="vgg")
        for channels in self.channels:
            x = nn.Conv(channels, (3, 3), kernel_init=_HE)(x)
            if self.norm == "batch":
                x = batch_norm(x, train=train, mask=mask)
            x = nn.max_pool(nn.relu(x), (2, 2), strides=(2, 2))
        x = jnp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))  # a batch may be empty
        for width in self.hidden:
            x = nn.Dropout(self.dropout, deterministic=not draws)(x)
            x = nn.relu(nn.Dense(width)(x))
        if features:
            return x
        return nn.Dense(self.outputs)(x)


def vgg(
    outputs: int,
    *,
    channels: Sequence[int] = (16, 32, 64, 128, 512),
    hidden: Sequence[int] = (512, 512),
    dropout: float = 0.5,
    norm: Literal["none", "batch"] = "none",
) -> Model:
    """A VGG network; by default the VGG-8 that federated papers train on CIFAR-100.

    Inputs are images ``[B, H, W, channels]`` or ``[B, H, W]``, with any number of channels, of at
    least ``2^len(channels)`` pixels a side; outputs are ``[B, outputs]``. With 100 outputs the
    defaults have 1,264,388 parameters on 32x32x3 inputs.

    Args:
      outputs: the width of the last layer; a config takes it from the data.
      channels: output channels of each convolution; a max-pooling by 2 follows every one.
      hidden: widths of the hidden dense layers.
      dropout: share of numbers dropped before each hidden dense layer, in training where a key
        is given.
      norm: "batch" normalises what each convolution gives, by the batch in training and by running
        moments in evaluation, which are statistics of the model.

    Raises:
      SpecError: for settings out of range; when initialised, if the inputs are no images or too
        small.

    Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", 2015; the widths are those of Almansoori et al., 2024, appendix H.
    """
    check.positive_int(outputs=outputs)
    check.non_negative(dropout=dropout)
    if dropout >= 1:
        raise SpecError(f"dropout must be below 1, got {check.brief(dropout)}; 0.5 is usual")
    check.positive_ints(channels=channels, hidden=hidden)
    arguments = {"features_argument": "features", **norm_arguments(norm)}
    return from_linen(VGG(tuple(channels), tuple(hidden), dropout, norm, outputs), **arguments)
