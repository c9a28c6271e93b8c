"""CIFAR-10 and CIFAR-100, by way of the libraries that prepare them.

Nothing is downloaded unless asked for: both libraries read what was prepared on a connected
machine, and say so in a sentence where there is nothing.
"""

from typing import Literal

import numpy as np

from floral import check
from floral.data.sources.hubs import huggingface, tfds
from floral.data.sources.in_memory import Source
from floral.errors import DataError
from floral.first_argument import first_by_place
from floral.typing import FilePath

__all__ = ["cifar"]

_NAMES = {10: "cifar10", 100: "cifar100"}
_LABELS = {10: "label", 100: "fine_label"}  # on the hub; TensorFlow Datasets has "label" for both


@first_by_place
def cifar(
    *,
    classes: Literal[10, 100] = 10,
    via: Literal["huggingface", "tfds"] = "huggingface",
    folder: FilePath | None = None,
    download: bool = False,
) -> Source:
    """All 60,000 images of CIFAR-10 or CIFAR-100: x ``[60000, 32, 32, 3]`` in [0, 1].

    The 50,000 training images come first; the field ``"split"`` is "train" for them and "test" for
    the 10,000 others, so that ``split="split"`` of ``federate`` (``data.split: split``) keeps
    CIFAR's own test images apart. Labels of CIFAR-100 are the 100 fine ones.

    Args:
      classes: 10 or 100.
      via: the library that reads them: Hugging Face ``datasets`` or TensorFlow Datasets.
      folder: where they are: of ``huggingface`` a folder of ``save_to_disk`` or of parquet files
        with the splits train and test, by default whatever the hub's name finds; of ``tfds`` its
        ``data_dir``, by default the library's own.
      download: whether ``tfds`` may prepare them, which needs the network; ``huggingface`` decides
        by itself.

    Raises:
      DataError: if they cannot be found, read or reached, or are no colour images of 32×32 pixels.
    """
    check.one_of(_NAMES, classes=classes)
    check.one_of(("huggingface", "tfds"), via=via)
    check.boolean(download=download)
    name = _NAMES[classes]

    def part(split: str) -> Source:
        if via == "huggingface":
            return huggingface(
                path=folder or f"uoft-cs/{name}", x="img", y=_LABELS[classes], split=split
            )
        return tfds(
            name=name, x="image", y="label", split=split, data_dir=folder, download=download
        )

    parts = [part(split) for split in ("train", "test")]
    for one in parts:
        if one.examples["x"].shape[1:] != (32, 32, 3) or one.num_classes != classes:
            raise DataError(
                f"{one.name}: expected images of shape [32, 32, 3] and {classes} classes, got "
                f"{list(one.examples['x'].shape[1:])} and {one.num_classes}"
            )
    x, y = (np.concatenate([one.examples[field] for one in parts]) for field in "xy")
    sizes = [len(one.examples["y"]) for one in parts]
    split = np.repeat(["train", "test"], sizes)
    return Source({"x": x, "y": y}, {"split": split}, classes, name)
