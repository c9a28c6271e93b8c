"""Pixels: bytes are scaled to [0, 1] by one rule, wherever they come from.

Features of uint8 ``[M, H, W]`` or ``[M, H, W, C]`` are images: they become float32 in [0, 1] with a
channel axis. Bytes ``[M]`` and ``[M, d]`` are numbers, and stay as they are; so do pixels that are
given in another type, as int32.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from floral.data.storage.lazy import LazyArray, is_plain
from floral.errors import DataError

__all__ = ["are_images", "as_pixels", "scaled"]

_RGB = ("P", "PA", "CMYK", "YCbCr", "HSV", "RGBX")
"""Modes whose numbers are not light: indices of a palette, inks, other colour spaces."""


def scaled(x: Any) -> Any:
    """Images of bytes as float32 in [0, 1] with a channel axis; anything else as it is.

    Rows that are not in memory are scaled when they are read.

    Example:
      >>> scaled(np.full((1, 2, 2), 255, np.uint8)).shape
      (1, 2, 2, 1)
    """
    if x.dtype != np.uint8 or len(x.shape) not in (3, 4):
        return x
    return _scaled_rows(x) if is_plain(x) else _Scaled(x)


def _scaled_rows(x: np.ndarray) -> np.ndarray:
    return (x if x.ndim == 4 else x[..., None]).astype(np.float32) / np.float32(255)


class _Scaled(LazyArray):
    """Bytes elsewhere, scaled as they are read."""

    def __init__(self, stored: Any):
        shape = tuple(stored.shape)
        super().__init__(shape if len(shape) == 4 else (*shape, 1), np.float32)
        self._stored = stored

    def rows(self, first: int, last: int) -> np.ndarray:
        return _scaled_rows(np.asarray(self._stored[first:last]))

    @property
    def digest(self) -> str:
        from floral.data.checks.host_arrays import fingerprint

        return fingerprint({"bytes": self._stored})


def are_images(rows: Any) -> bool:
    """Whether a list, an array of objects or a column of a frame holds images of PIL."""
    first = None
    if isinstance(rows, Sequence) or (getattr(rows, "dtype", "") == "O" and rows.ndim == 1):
        first = next(iter(rows), None)
    return hasattr(first, "mode") and hasattr(first, "getexif")


def as_pixels(images: Sequence[Any], what: str) -> np.ndarray:
    """Images of PIL as one array ``[M, H, W]`` or ``[M, H, W, C]``, upright.

    Grey (L), colour (RGB) and their transparent forms (LA, RGBA) keep their channels as bytes;
    palettes, CMYK, YCbCr and HSV become RGB, or RGBA where a palette is transparent; black and
    white (1) become 0 and 255. Grey of 16 bits becomes float32 in [0, 1], floats (F) stay, each
    with a channel axis.

    Raises:
      DataError: for another mode, for images of unlike shapes, and for one that cannot be read.
    """
    from PIL import ImageOps

    arrays = []
    for row, image in enumerate(images):
        if not hasattr(image, "getexif"):
            raise DataError(f"{what} of example {row} is missing: it is no image")
        try:
            array = _pixels(ImageOps.exif_transpose(image))
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{what} of example {row} is no whole image: {error}") from error
        if array is None:
            raise DataError(
                f"{what} of example {row} is an image of mode {image.mode!r}, whose range of "
                "values is not known; convert it to L, RGB or F"
            )
        if arrays and (array.shape, array.dtype) != (arrays[0].shape, arrays[0].dtype):
            raise DataError(
                f"{what}: example {row} has shape {list(array.shape)} (mode {image.mode}), "
                f"example 0 {list(arrays[0].shape)} (mode {images[0].mode}); "
                "make all images of one size and mode"
            )
        arrays.append(array)
    return np.stack(arrays)


def _pixels(image: Any) -> np.ndarray | None:
    mode = image.mode
    if mode in _RGB:
        clear = mode == "PA" or "transparency" in image.info
        return np.asarray(image.convert("RGBA" if clear and mode in ("P", "PA") else "RGB"))
    if mode == "1":
        return np.asarray(image.convert("L"))
    if mode in ("L", "LA", "RGB", "RGBA"):
        return np.asarray(image)
    if mode.startswith("I;16"):
        return np.asarray(image).astype(np.float32)[..., None] / np.float32(65535)
    return np.asarray(image, np.float32)[..., None] if mode == "F" else None
