"""Augmentation: what local training changes of a batch, anew at every step, and evaluation never.

A factory takes its settings as keywords and returns an ``Augment``:

    (key, batch) -> batch

It is pure and changes ``x`` alone. Who trains wraps the model in it, see ``models.augmented``.
"""

from typing import Protocol

import jax
import jax.numpy as jnp

from floral import check
from floral.errors import SpecError
from floral.random import stream
from floral.typing import Array, Batch, Key

__all__ = ["Augment", "flip_crop"]


class Augment(Protocol):
    """``(key, batch) -> batch``: the same examples with other inputs of the same shape."""

    def __call__(self, key: Key, batch: Batch) -> dict[str, Array]: ...


def flip_crop(*, flip: bool = True, padding: int = 4) -> Augment:
    """Mirrors half of the images left to right and cuts each out anew of its padded self.

    Images ``[B, H, W, channels]`` or ``[B, H, W]`` are padded with zeros, of standardized images
    the mean, on all sides, and a window of H by W pixels is kept, uniformly one of
    ``(2 padding + 1)²``. Where examples say how many quarter turns they took
    (``rotate(keep_turns=True)``), they are mirrored about their own upright axis: otherwise what
    was turned once would come out as if turned three times.

    Args:
      flip: whether images are mirrored.
      padding: pixels on each side; 0 cuts nothing.

    Raises:
      SpecError: when traced, for inputs that are no images.

    Example:
      >>> batch = {"x": jnp.ones((5, 32, 32, 3)), "y": jnp.arange(5)}
      >>> flip_crop()(jax.random.key(0), batch)["x"].shape
      (5, 32, 32, 3)

    Source: He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2.
    """
    check.boolean(flip=flip)
    check.whole(padding=padding)

    def augment(key: Key, batch: Batch) -> dict[str, Array]:
        x = batch["x"]
        if x.ndim not in (3, 4):
            raise SpecError(
                f"flip_crop: expected images [B, height, width, channels], or [B, height, width] "
                f"of one channel, got inputs of shape {tuple(x.shape)}"
            )
        if flip:
            x = _flipped(stream(key, "flip"), x, batch.get("turns"))
        if padding:
            x = _cropped(stream(key, "crop"), x, padding)
        return {**batch, "x": x}

    return augment


def _flipped(key: Key, x: Array, turns: Array | None) -> Array:
    """Each image as it is or, as probably, mirrored along its width; along its height where it
    stands turned by a quarter or by three."""

    def where(condition: Array, yes: Array, no: Array) -> Array:
        return jnp.where(condition.reshape(-1, *(1,) * (x.ndim - 1)), yes, no)

    mirrored = jnp.flip(x, axis=2)
    if turns is not None:
        mirrored = where(turns % 2 == 1, jnp.flip(x, axis=1), mirrored)
    return where(jax.random.bernoulli(key, shape=x.shape[:1]), mirrored, x)


def _cropped(key: Key, x: Array, padding: int) -> Array:
    sides = [(padding, padding) if axis in (1, 2) else (0, 0) for axis in range(x.ndim)]
    padded = jnp.pad(x, sides)
    corners = jax.random.randint(key, (x.shape[0], 2), 0, 2 * padding + 1)

    def cut(image: Array, corner: Array) -> Array:
        rows = jax.lax.dynamic_slice_in_dim(image, corner[0], x.shape[1], axis=0)
        return jax.lax.dynamic_slice_in_dim(rows, corner[1], x.shape[2], axis=1)

    return jax.vmap(cut)(padded, corners)
