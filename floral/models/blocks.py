"""Transformer blocks made of plain dense layers.

Every kernel is a matrix: the heads are split after the projection, not in its kernel. So one rule,
``.*/kernel`` with a low-rank adaptor, takes the whole of a transformer, and because nothing is
scanned or rematerialised every kernel stays factored.

A block's kernels are ``attention/{query,key,value,out}/kernel`` and ``mlp/{up,down}/kernel``.
"""

import flax.linen as nn
import jax

from floral.typing import Array

__all__ = ["Attention", "Feedforward", "TransformerBlock"]

_XAVIER = nn.initializers.xavier_uniform()


class Attention(nn.Module):
    """Multi-head self-attention: [B, T, width] -> [B, T, width].

    ``softmax(Q Kᵀ / sqrt(width / heads)) V`` in every head, then a projection of all heads side by
    side.

    Attributes:
      heads: how many; must divide the inputs' width.

    Source: Vaswani et al., "Attention Is All You Need", 2017, section 3.2.
    """

    heads: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = x.shape[-1]

        def project(name: str) -> Array:
            projected = nn.Dense(width, kernel_init=_XAVIER, name=name)(x)
            return projected.reshape(*x.shape[:-1], self.heads, width // self.heads)

        mixed = jax.nn.dot_product_attention(project("query"), project("key"), project("value"))
        return nn.Dense(width, kernel_init=_XAVIER, name="out")(mixed.reshape(x.shape))


class Feedforward(nn.Module):
    """Two dense layers with GELU between them: [B, T, width] -> [B, T, width].

    Attributes:
      hidden: width of the first.
      dropout: share of numbers dropped after each layer.
    """

    hidden: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        h = nn.gelu(nn.Dense(self.hidden, kernel_init=_XAVIER, name="up")(x), approximate=False)
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        y = nn.Dense(x.shape[-1], kernel_init=_XAVIER, name="down")(h)
        return nn.Dropout(self.dropout, deterministic=not train)(y)


class TransformerBlock(nn.Module):
    """Attention, then a feed-forward part, each on the normed input and added to it.

    Attributes:
      heads: of the attention.
      hidden: width of the feed-forward part.
      dropout: share of numbers dropped after each part's layers but the projections to query, key
        and value; drawn only in training.

    Source: the pre-norm form of Xiong et al., "On Layer Normalization in the Transformer
    Architecture", 2020.
    """

    heads: int
    hidden: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        y = nn.LayerNorm(epsilon=1e-6, name="attention_norm")(x)
        y = Attention(self.heads, name="attention")(y)
        x = x + nn.Dropout(self.dropout, deterministic=not train)(y)
        y = nn.LayerNorm(epsilon=1e-6, name="mlp_norm")(x)
        return x + Feedforward(self.hidden, self.dropout, name="mlp")(y, train)
