"""Full-shape offsets: the adaptor of biases and norms, which are too small to factor."""

import jax.numpy as jnp

from floral import check
from floral.adaptors.base import Adaptor

__all__ = ["additive"]


def additive(*, alpha: float = 1.0) -> Adaptor:
    """Adapts a leaf of any shape by ``α · offset``, where the offset starts at zero.

    Of a kernel it is a whole second kernel: full-rank adaptation.

    Args:
      alpha: α, the scale of the offset.

    Example:
      >>> import jax
      >>> bias = jax.ShapeDtypeStruct((3,), jnp.float32)
      >>> additive().init(jax.random.key(0), bias)
      ({'offset': Array([0., 0., 0.], dtype=float32)}, ())

    Source: the FLoRAL paper (arXiv 2410.03497), section 3.2 and appendix G.2. Its code draws the
    bias at random; the paper's zero makes the start equal the base.
    """
    check.positive(alpha=alpha)

    def init(key, leaf):
        return {"offset": jnp.zeros(leaf.shape, leaf.dtype)}, ()

    def delta(trained, fixed, rank=None):
        return alpha * trained["offset"]

    def mix(trained, weights):
        return {"offset": jnp.tensordot(weights, trained["offset"], axes=1)}

    return Adaptor(init=init, delta=delta, kind="additive", mix=mix)
