"""Images and labels in the IDX format, in which MNIST and what was modelled on it are given."""

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from floral import check
from floral.data.sources.in_memory import Source, arrays, existing, file_name
from floral.errors import DataError
from floral.first_argument import first_by_place
from floral.typing import FilePath

__all__ = ["digits", "idx", "mnist"]

_FOLDERS = {"digits": "mnist", "fashion": "fashion_mnist"}
_PARTS = ("train", "t10k")
_FILES = [
    f"{part}-{kind}" for part in _PARTS for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
]


@first_by_place
def digits(*, per_class: int | None = None) -> Source:
    """5,000 MNIST digits, 500 a class, which come with the package.

    ``x`` is ``[M, 28, 28, 1]`` in [0, 1]; the order is the file's, by class.

    Args:
      per_class: the first so many of each digit; None takes all 500.
    """
    if per_class is not None:
        check.positive_int(per_class=per_class)
        check.in_range(1, 500, per_class=per_class)
    folder = Path(__file__).parent / "mnist_5k"
    source = idx(
        images=folder / "images-idx3-ubyte.gz", labels=folder / "labels-idx1-ubyte.gz"
    )._replace(fields={}, name="digits")
    if per_class is None:
        return source
    y = source.examples["y"]
    rows = np.concatenate([np.flatnonzero(y == c)[:per_class] for c in range(10)])
    return source._replace(examples={name: a[rows] for name, a in source.examples.items()})


@first_by_place
def idx(
    *,
    images: FilePath | Sequence[FilePath],
    labels: FilePath | Sequence[FilePath],
    num_classes: int | None = None,
) -> Source:
    """Images and labels in the IDX format of MNIST, gzipped or not.

    Several files are joined in order, and the field ``"file"`` says which one each example is of.

    Args:
      images: the file, or files, of images.
      labels: the file, or files, of labels, in the same order.
      num_classes: the number of classes; by default the largest label plus one.

    Raises:
      DataError: if a file is missing, is not IDX, is cut short, or the two disagree.
    """
    image_paths, label_paths = (
        [
            file_name(path)
            for path in (
                paths if isinstance(paths, Sequence) and not isinstance(paths, str) else [paths]
            )
        ]
        for paths in (images, labels)
    )
    if len(image_paths) != len(label_paths):
        raise DataError(f"{len(image_paths)} image files but {len(label_paths)} label files")
    if not image_paths:
        raise DataError("images names no file; give at least one")
    x = [_read_idx(path, 3) for path in image_paths]
    y = [_read_idx(path, 1) for path in label_paths]
    for path, some_x, some_y in zip(image_paths, x, y, strict=True):
        if len(some_x) != len(some_y):
            raise DataError(f"{path!r} has {len(some_x)} images for {len(some_y)} labels")
        if some_x.shape[1:] != x[0].shape[1:]:
            raise DataError(
                f"{path!r} has images of {list(some_x.shape[1:])}, {image_paths[0]!r} of "
                f"{list(x[0].shape[1:])}; make all images of one size"
            )
    file = np.repeat(np.arange(len(x)), [len(some) for some in x])
    labels_of_all = np.concatenate(y).astype(np.int32)
    return arrays(
        np.concatenate(x),
        labels_of_all,
        fields={"file": file},
        num_classes=num_classes,
        name=image_paths[0],
    )


@first_by_place
def mnist(
    *,
    variant: Literal["digits", "fashion"] = "digits",
    folder: FilePath | None = None,
) -> Source:
    """All 70,000 images of MNIST or Fashion-MNIST: x ``[70000, 28, 28, 1]`` in [0, 1].

    The 60,000 training images come first; the field ``"split"`` is "train" for them and "test" for
    the 10,000 others, so that ``split="split"`` of ``federate`` (``data.split: split``) keeps
    MNIST's own test images apart. Nothing is downloaded; a checkout of floral has a script that
    puts the files where they are looked for, ``experiments/floral/fetch.py``.

    Args:
      variant: digits, or fashion: articles of clothing in the same format.
      folder: with the four files under their usual names, gzipped (``.gz``) or not; by default
        ``~/.cache/floral/mnist`` or ``~/.cache/floral/fashion_mnist``.

    Raises:
      DataError: if a file is missing or damaged.
    """
    check.one_of(_FOLDERS, variant=variant)
    if folder is not None:
        check.path(folder=folder)
    default = Path("~/.cache/floral").expanduser() / _FOLDERS[variant]
    place = default if folder is None else Path(folder).expanduser()
    if not place.is_dir():
        raise DataError(
            f"no folder {str(place)!r} with the files of MNIST's {variant}: put "
            f"{', '.join(_FILES)} there, gzipped or not, or say by folder where they are; "
            f"a checkout of floral does so by: python experiments/floral/fetch.py "
            f"{_FOLDERS[variant]}"
        )

    def files(kind: str) -> list[str]:
        names = [place / f"{part}-{kind}-ubyte" for part in _PARTS]
        zipped = [name.with_name(f"{name.name}.gz") for name in names]
        return [
            str(packed if packed.is_file() and not plain.is_file() else plain)
            for plain, packed in zip(names, zipped, strict=True)
        ]

    source = idx(images=files("images-idx3"), labels=files("labels-idx1"))
    split = np.array(["train", "test"])[source.fields["file"]]
    return source._replace(fields={"split": split}, name=_FOLDERS[variant])


def _read_idx(path: str, num_axes: int) -> np.ndarray:
    data = existing(path).read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{path!r} is a gzip file cut short or damaged: {error}") from error
    magic = bytes([0, 0, 8, num_axes])
    if data[:4] != magic:
        raise DataError(
            f"{path!r} is no IDX file of {num_axes} axes of bytes: "
            f"it starts with 0x{data[:4].hex()}, expected 0x{magic.hex()}"
        )
    start = 4 + 4 * num_axes
    shape = tuple(int(n) for n in np.frombuffer(data[4:start].ljust(4 * num_axes, b"\0"), ">u4"))
    if len(data) - start != math.prod(shape):
        held = max(len(data) - start, 0)
        raise DataError(
            f"{path!r} is {'too long' if held > math.prod(shape) else 'cut short'}: its header "
            f"announces {math.prod(shape)} bytes for {list(shape)}, it has {held}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
