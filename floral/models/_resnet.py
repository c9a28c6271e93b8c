"""Residual networks with group norm, as federated papers train them on images.

Batch norm keeps statistics of the data it has seen, which differ from client to client and which
small local batches estimate badly; group norm keeps none and looks at one image at a time.

Kernels are told apart by their layer's kind, as in `cnn`: ``.*/Conv_0/kernel`` are all
convolutions, ``params/Dense_0/kernel`` is the one matrix. The norms' ``scale`` and ``bias`` are
vectors, for `additive`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from floral import check
from floral.errors import SpecError
from floral.models.base import Model
from floral.models.frameworks.linen import from_linen
from floral.models.images import as_images, check_divides
from floral.typing import Array

__all__ = ["resnet"]

_HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_ONE_PIXEL: Any = ((1, 1), (1, 1))  # flax calls the type of its padding a string


class NormedConv(nn.Module):
    """A square convolution without bias, then group norm: [B, H, W, c] -> [B, H', W', channels].

    H' is ``ceil(H / stride)``. Both sides are padded alike, as in the published networks; SAME
    would pad only one side of an even image at stride 2, and weights would not carry over.
    """

    channels: int
    kernel: int
    stride: int
    groups: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.Conv(
            self.channels,
            (self.kernel, self.kernel),
            strides=self.stride,
            padding=(self.kernel - 1) // 2,
            use_bias=False,
            kernel_init=_HE,
        )(x)
        return nn.GroupNorm(num_groups=self.groups, epsilon=1e-5)(x)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where shapes change."""

    channels: int
    stride: int
    groups: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = nn.relu(NormedConv(self.channels, 3, self.stride, self.groups, name="first")(x))
        y = NormedConv(self.channels, 3, 1, self.groups, name="second")(y)
        if self.stride != 1 or x.shape[-1] != self.channels:
            x = NormedConv(self.channels, 1, self.stride, self.groups, name="shortcut")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A stem, stages of basic blocks, the mean over the pixels, and a dense layer."""

    stages: Sequence[int]
    width: int
    groups: int
    stem: str
    outputs: int

    @nn.compact
    def __call__(self, x: Array, features: bool = False) -> Array:
        x = as_images(x, "resnet")
        kernel, stride = (3, 1) if self.stem == "cifar" else (7, 2)
        x = nn.relu(NormedConv(self.width, kernel, stride, self.groups, name="stem")(x))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=_ONE_PIXEL)
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage_{stage}_block_{block}"
                x = BasicBlock(self.width * 2**stage, stride, self.groups, name=name)(x)
        x = jnp.mean(x, axis=(1, 2))
        return x if features else nn.Dense(self.outputs)(x)


def resnet(
    outputs: int,
    *,
    stages: Sequence[int] = (2, 2, 2, 2),
    width: int = 64,
    groups: int = 2,
    stem: Literal["cifar", "imagenet"] = "cifar",
) -> Model:
    """A residual network of basic blocks with group norm; by default ResNet-18 for small images.

    Inputs are images ``[B, H, W, channels]`` or ``[B, H, W]`` of any size and any number of
    channels; outputs are ``[B, outputs]``. With 10 outputs the defaults have 11,173,962
    parameters on colour images. ``stages=[3, 4, 6, 3]`` is ResNet-34.

    Args:
      outputs: the width of the last layer; a config takes it from the data.
      stages: basic blocks in each stage. Every stage after the first halves the sides of the image
        and doubles the channels.
      width: channels of the stem and the first stage.
      groups: groups of channels that group norm normalises together, in every layer; must divide
        the width. 2 is what public federated code takes; Wu & He, "Group Normalization",
        2018, take 32 in larger networks.
      stem: "cifar", a 3x3 convolution that keeps the image's size, for images of some 32 pixels;
        "imagenet", a 7x7 convolution and a max-pool that quarter its sides, for some 224.

    Raises:
      SpecError: if the groups do not divide the width; when initialised, if the inputs are no
        images.

    Example:
      >>> import jax
      >>> model, batch = resnet(10, stages=[1, 1], width=8), {"x": jnp.ones((2, 28, 28, 1))}
      >>> params, stats = jax.eval_shape(model.init, jax.random.key(0), batch)
      >>> jax.eval_shape(model.apply, params, stats, batch)[0].shape
      (2, 10)

    Source: He et al., "Deep Residual Learning for Image Recognition", 2016; with group norm in
    place of batch norm as in Hsieh et al., "The Non-IID Data Quagmire of Decentralized Machine
    Learning", 2020, and Reddi et al., "Adaptive Federated Optimization", 2021.
    """
    check.positive_int(outputs=outputs, width=width, groups=groups)
    check.one_of(("cifar", "imagenet"), stem=stem)
    check.positive_ints(stages=stages)
    if len(stages) == 0:
        raise SpecError("stages must hold the blocks of at least one stage, as [2, 2, 2, 2]")
    check_divides(width, of="width", groups=groups)
    network = ResNet(tuple(stages), width, groups, stem, outputs)
    return from_linen(network, features_argument="features")
