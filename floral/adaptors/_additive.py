"""Full-shape offsets: the adaptor of biases and norms, which are too small to factor."""

import jax
import jax.numpy as jnp

from floral import check
from floral.adaptors.base import Adaptor
from floral.first_argument import first_by_place

__all__ = ["additive"]


@first_by_place
def additive(*, alpha: float = 1.0, bound: float = 0.0) -> Adaptor:
    """Adapts a leaf of any shape by ``α · offset``, where the offset starts at zero, or at random.

    Of a kernel it is a whole second kernel: full-rank adaptation. Offsets of hidden biases that
    start at random let other units pass in each adaptor, so that they share less of the base: one
    adaptor is then more like a model of its own.

    Args:
      alpha: α, the scale of the offset.
      bound: offsets start uniform in ±bound; at zero the start equals the base.

    Raises:
      SpecError: for a scale that is not positive, or a negative bound.

    Example:
      >>> import jax
      >>> bias = jax.ShapeDtypeStruct((3,), jnp.float32)
      >>> additive().init(jax.random.key(0), bias)
      ({'offset': Array([0., 0., 0.], dtype=float32)}, ())

    Source: the FLoRAL paper (arXiv 2410.03497), section 3.2 and appendix G.2. Its code draws the
    bias with a bound of 1/√R beside a kernel's factors of rank R; the paper has zero.
    """
    check.positive(alpha=alpha)
    check.non_negative(bound=bound)

    def init(key, leaf):
        if bound:
            return {"offset": jax.random.uniform(key, leaf.shape, leaf.dtype, -bound, bound)}, ()
        return {"offset": jnp.zeros(leaf.shape, leaf.dtype)}, ()

    def delta(trained, fixed, rank=None):
        return alpha * trained["offset"]

    def mix(trained, weights):
        return {"offset": jnp.tensordot(weights, trained["offset"], axes=1)}

    return Adaptor(init=init, delta=delta, kind="additive", mix=mix)
