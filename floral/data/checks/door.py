"""The one door of examples: every source and every population passes through here."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from floral.data.checks.host_arrays import canonical, check_examples
from floral.data.checks.labels import Targets, as_targets
from floral.data.checks.pixels import are_images, as_pixels, scaled
from floral.errors import DataError

__all__ = ["as_examples", "as_features", "check_split"]


def as_examples(
    given: Any,
    where: str,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    infer: bool = False,
) -> tuple[dict[str, np.ndarray], Targets]:
    """Examples that can be trained on, and what is known of their classes.

    Args:
      given: ``{"x": [M, ...], "y": [M, ...]}``, and whatever else there is of each example.
      where: names the data in messages.
      num_classes: the number of classes, where it is known.
      class_names: the words of all classes in order, where they are known.
      infer: whether whole numbers [M] are classes where nothing says how many there are.

    Raises:
      DataError: unless x and y are there, hold numbers (y: or words), are finite, of one length
        and not empty, and labels lie in their range.
    """
    check_split(given, where)
    targets = as_targets(
        given["y"], where, num_classes=num_classes, class_names=class_names, infer=infer
    )
    examples = {
        name: as_features(values, f"{where}: 'x'")
        if name == "x"
        else targets.values
        if name == "y"
        else canonical(values, f"{where}: {name!r}")
        for name, values in given.items()
    }
    check_examples(examples, where=where, num_classes=targets.num_classes)
    return examples, targets


def as_features(values: Any, what: str) -> np.ndarray:
    """Features as numbers of 32 bits or fewer; images of bytes, and of PIL, in [0, 1]."""
    if are_images(values):
        values = as_pixels(list(values), what)
    return scaled(canonical(values, what))


def check_split(given: Any, where: str) -> None:
    """Raises DataError unless given is a mapping with x and y."""
    if not isinstance(given, Mapping):
        raise DataError(
            f"{where} must be a mapping {{'x': ..., 'y': ...}}, got {type(given).__name__}"
        )
    for name in ("x", "y"):
        if name not in given:
            raise DataError(f"{where} lacks {name!r}; it has {', '.join(map(repr, given))}")
