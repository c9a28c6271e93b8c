"""How weights are drawn at the start: as flax does it, or as PyTorch does."""

import math
from typing import Any

import jax

__all__ = ["INITS", "draws"]

INITS = ("lecun_normal", "pytorch")


def draws(init: str, fan_in: int) -> dict[str, Any]:
    """The keywords by which a dense or convolutional layer of linen draws kernel and bias.

    Args:
      init: ``lecun_normal``: flax's, kernels with variance 1 / fan_in and biases zero;
        ``pytorch``: both uniform in ±1/√fan_in, the kernel's variance a third of that.
      fan_in: the numbers that enter one unit.
    """
    if init == "lecun_normal":
        return {}
    bound = 1 / math.sqrt(fan_in)

    def uniform(key, shape, dtype=float):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return {"kernel_init": uniform, "bias_init": uniform}
