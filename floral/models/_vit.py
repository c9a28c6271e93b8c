"""The vision transformer, in sizes that a client can train.

An image is cut into square patches, each patch is projected to a vector by one matrix, and a
learned vector for its position is added; transformer blocks follow. All kernels are matrices
(`blocks`), the patches' too, so one low-rank rule takes them all. The position table
``params/position [tokens, width]`` is a matrix as well, and the class token a vector.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from floral import check
from floral.errors import SpecError
from floral.models.base import Model
from floral.models.blocks import TransformerBlock
from floral.models.frameworks.linen import from_linen
from floral.models.images import as_images, check_divides, check_patches
from floral.typing import Array

__all__ = ["vit"]

_NORMAL = nn.initializers.normal(0.02)


class VisionTransformer(nn.Module):
    """Patches, positions, blocks, a norm, one vector for the image, and a dense layer."""

    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_ratio: int
    pool: str
    dropout: float
    outputs: int

    @nn.compact
    def __call__(self, x: Array, train: bool = False, features: bool = False) -> Array:
        draws = train and self.has_rng("dropout")  # without a key nothing is dropped
        x = nn.Dense(self.width, name="patches")(_patches(as_images(x, "vit"), self.patch_size))
        if self.pool == "token":
            token = self.param("token", nn.initializers.zeros, (self.width,))
            x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, self.width)), x], axis=1)
        x = x + self.param("position", _NORMAL, x.shape[1:])[None]
        x = nn.Dropout(self.dropout, deterministic=not draws)(x)
        for index in range(self.depth):
            hidden = self.mlp_ratio * self.width
            block = TransformerBlock(self.heads, hidden, self.dropout, name=f"block_{index}")
            x = block(x, draws)
        x = nn.LayerNorm(epsilon=1e-6, name="norm")(x)
        x = x[:, 0] if self.pool == "token" else jnp.mean(x, axis=1)
        return x if features else nn.Dense(self.outputs, name="head")(x)


def vit(
    outputs: int,
    *,
    patch_size: int = 4,
    width: int = 192,
    depth: int = 12,
    heads: int = 3,
    mlp_ratio: int = 4,
    pool: Literal["token", "mean"] = "token",
    dropout: float = 0.0,
) -> Model:
    """A vision transformer; by default ViT-Tiny, with patches for images of some 32 pixels.

    Inputs are images ``[B, H, W, channels]`` or ``[B, H, W]``, square or not, with any number of
    channels; outputs are ``[B, outputs]``. The number of tokens is fixed when initialised. The
    published sizes, counted for 224x224x3 images, patches of 16 and 1000 outputs:

    | name | width | depth | heads | parameters |
    |---|---|---|---|---|
    | tiny | 192 | 12 | 3 | 5,717,416 |
    | small | 384 | 12 | 6 | 22,050,664 |
    | base | 768 | 12 | 12 | 86,567,656 |

    Args:
      outputs: the width of the last layer; a config takes it from the data.
      patch_size: side of a patch, in pixels; must divide both sides of the images.
      width: numbers a token.
      depth: how many blocks.
      heads: attention heads of a block; must divide the width.
      mlp_ratio: hidden width of a block's feed-forward part, in widths.
      pool: the vector that stands for the image: "token", a learned class token's; "mean", the
        mean of the patches'.
      dropout: share of numbers dropped after the positions and after every dense layer but the
        projections to query, key and value; drawn in training only, and only if a key is given.

    Raises:
      SpecError: if the heads do not divide the width; when initialised, if the inputs are no
        images or the patches do not divide them.

    Example:
      >>> import jax
      >>> model = vit(10, patch_size=7, width=16, depth=2, heads=2)
      >>> batch = {"x": jnp.ones((2, 28, 28, 1))}
      >>> params, stats = jax.eval_shape(model.init, jax.random.key(0), batch)
      >>> params["params"]["position"].shape
      (17, 16)
      >>> jax.eval_shape(model.apply, params, stats, batch)[0].shape
      (2, 10)

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021; the sizes of Touvron et al.,
    "Training Data-Efficient Image Transformers & Distillation through Attention", 2021, table 1.
    Differs from the first: the last layer starts as any dense layer does, not at zero.
    """
    check.positive_int(outputs=outputs, patch_size=patch_size, width=width, depth=depth)
    check.positive_int(heads=heads, mlp_ratio=mlp_ratio)
    check.one_of(("token", "mean"), pool=pool)
    check.non_negative(dropout=dropout)
    if dropout >= 1:
        raise SpecError(f"dropout must be below 1, got {check.brief(dropout)}; 0.1 is usual")
    check_divides(width, of="width", heads=heads)
    heads, mlp_ratio = int(heads), int(mlp_ratio)  # a NumPy integer of 8 bits counts no widths
    network = VisionTransformer(patch_size, width, depth, heads, mlp_ratio, pool, dropout, outputs)
    return from_linen(network, train_argument="train", features_argument="features")


def _patches(x: Array, side: int) -> Array:
    """Images [B, H, W, c] as their patches [B, H·W / side², side·side·c], row by row."""
    batch, height, width, channels = x.shape
    check_patches(height, width, patch_size=side, model="vit")
    rows, columns = height // side, width // side
    x = x.reshape(batch, rows, side, columns, side, channels).swapaxes(2, 3)
    return x.reshape(batch, rows * columns, side * side * channels)
