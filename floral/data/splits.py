"""Splits: their names, and slices of them as both libraries of data sets write them."""

from collections.abc import Mapping
from typing import Any

from floral import check
from floral.errors import DataError

__all__ = ["SPLITS", "check_apart", "sliced"]

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
    if all((p.from_ or 0) >= _end(p, lengths) for p in places):
        held = ", ".join(f"{split!r} has {length}" for split, length in lengths.items())
        raise DataError(f"{name}: the split {spec!r} holds no example; {held}")
    places = [p for p in places if (p.from_ or 0) < _end(p, lengths)]
    chosen = [parts[p.splitname].select(range(p.from_ or 0, _end(p, lengths))) for p in places]
    return chosen[0] if len(chosen) == 1 else datasets.concatenate_datasets(chosen)


def check_apart(asked: Mapping[str, str], lengths: Mapping[str, int], name: str) -> None:
    """Raises DataError where an example would be in two of the splits, or twice in one.

    Args:
      asked: the library's split, or slices of splits, by ours; of one alone ours is "".
      lengths: how many examples each of the library's splits has.
      name: names the data in messages.
    """
    import datasets

    taken: list[tuple[str, Any, int, int]] = []
    for ours, spec in asked.items():
        for place in datasets.ReadInstruction.from_spec(spec).to_absolute(lengths):
            first, last = place.from_ or 0, _end(place, lengths)
            for other, before, start, end in taken:
                shared = min(last, end) - max(first, start)
                if before.splitname == place.splitname and shared > 0:
                    raise DataError(_shared(asked, (other, ours), _counted(shared), name))
            taken.append((ours, place, first, last))


def _shared(asked: Mapping[str, str], both: tuple[str, str], examples: str, name: str) -> str:
    first, second = both
    if first == second:
        return f"{name}: split {asked[first]!r} holds {examples} twice"
    return (
        f"{name}: {first}={asked[first]!r} and {second}={asked[second]!r} share {examples}; an "
        "example belongs to one split"
    )


def _counted(examples: int) -> str:
    return "1 example" if examples == 1 else f"{examples} examples"


def _end(place: Any, lengths: Mapping[str, int]) -> int:
    return lengths[place.splitname] if place.to is None else place.to
