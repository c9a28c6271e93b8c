"""Splits: their names, and slices of them as both libraries of data sets write them."""

from collections.abc import Mapping
from typing import Any

from floral import check
from floral.errors import DataError

__all__ = ["SPLITS", "sliced"]

SPLITS = ("train", "validation", "test")


def sliced(parts: Mapping[str, Any], spec: str, name: str, *, file: bool = False) -> Any:
    """What a specification, as ``train[:50%]`` or ``train+test``, means of data sets by split.

    Args:
      parts: ``datasets.Dataset`` by split.
      spec: the specification.
      name: names the data in messages.
      file: whether they come from one file, which has no splits of its own.

    Raises:
      DataError: for a split that is not there, or a slice that cannot be read.
    """
    import datasets

    for asked in spec.split("+"):
        split = asked.strip().partition("[")[0]
        if split in parts:
            continue
        if file:
            raise DataError(
                f"{name}: one file has the split train alone; it was asked for {spec!r}"
            )
        hint = check.did_you_mean(split, parts)
        raise DataError(f"{name}: split {split!r} is missing; there are {', '.join(parts)}{hint}")
    try:
        lengths = {split: len(part) for split, part in parts.items()}
        places = datasets.ReadInstruction.from_spec(spec).to_absolute(lengths)
    except (ValueError, AssertionError) as error:
        raise DataError(
            f"{name}: cannot read the split {spec!r}; write it as train[:50%]: {error}"
        ) from error
    chosen = [parts[p.splitname].select(range(p.from_ or 0, _end(p, lengths))) for p in places]
    return chosen[0] if len(chosen) == 1 else datasets.concatenate_datasets(chosen)


def _end(place: Any, lengths: Mapping[str, int]) -> int:
    return lengths[place.splitname] if place.to is None else place.to
