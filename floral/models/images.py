"""What the image models ask of their inputs and settings, said before anything is trained.

Shapes are known when a model is traced, so a misfit is an error of `Model.init`, which a config's
check runs, and never one of a round.
"""

import math
from collections.abc import Sequence

from floral.errors import SpecError
from floral.typing import Array

__all__ = ["as_images", "check_divides", "check_patches", "check_sides"]


def as_images(x: Array, model: str) -> Array:
    """The inputs as images ``[B, H, W, channels]``; ``[B, H, W]`` are of one channel.

    Args:
      x: the model's inputs.
      model: the factory's name, for the message.

    Raises:
      SpecError: for inputs of any other number of axes, or with an axis of no length.

    Example:
      >>> import jax.numpy as jnp
      >>> as_images(jnp.zeros((4, 28, 28)), "vit").shape
      (4, 28, 28, 1)
    """
    given = tuple(x.shape)
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise SpecError(
            f"{model}: expected images [B, height, width, channels], or [B, height, width] of one "
            f"channel, got inputs of shape {given}; mlp takes inputs of any shape"
        )
    return x


def check_divides(whole: int, *, of: str, **named: int) -> None:
    """Raises SpecError unless every value divides the whole; names the nearest one that does.

    Args:
      whole: what is to be divided.
      of: its name, as ``"width"``.
      named: the divisors by name.
    """
    for name, value in named.items():
        if int(whole) % int(value):
            nearest = _nearest_divisor(value, whole)
            raise SpecError(
                f"{name}={value} does not divide {of}={whole}; the nearest that does: "
                f"{name}={nearest}"
            )


def check_patches(height: int, width: int, *, patch_size: int, model: str) -> None:
    """Raises SpecError unless images of ``height x width`` pixels are whole patches; names the
    nearest patch size and the nearest larger image that would be right."""
    if height % patch_size or width % patch_size:
        nearest = _nearest_divisor(patch_size, math.gcd(height, width))
        padded = [-(-side // patch_size) * patch_size for side in (height, width)]
        raise SpecError(
            f"{model}: patch_size={patch_size} does not divide images of {height}×{width} pixels; "
            f"the nearest that does: patch_size={nearest}, or pad the images to "
            f"{padded[0]}×{padded[1]}"
        )


def check_sides(
    sides: Sequence[int],
    kernels: Sequence[int],
    pools: Sequence[int],
    *,
    padding: str,
    model: str,
) -> None:
    """Raises SpecError unless a pixel is left after the last pooling.

    Args:
      sides: height and width of the images.
      kernels: side of each convolution's kernel.
      pools: side and stride of the pooling after each.
      padding: of the convolutions, "VALID" or "SAME".
      model: the factory's name, for the message.
    """
    least = 1
    for kernel, pool in zip(reversed(kernels), reversed(pools), strict=True):
        least = least * pool + (kernel - 1 if padding == "VALID" else 0)
    if min(sides) < least:
        height, width = sides
        raise SpecError(
            f"{model}: images of {height}×{width} pixels leave nothing after kernels of "
            f"{list(kernels)} with padding {padding!r} and pools of {list(pools)}; they must be "
            f"{least}×{least} at least, or kernels and pools smaller"
        )


def _nearest_divisor(value: int, whole: int) -> int:
    """The divisor of the whole that is nearest to the value, of two as near the smaller."""
    divisors = [divisor for divisor in range(1, whole + 1) if whole % divisor == 0]
    return min(divisors, key=lambda divisor: abs(divisor - value))
