"""Who owns which example: a partition, its splits, and its file.

A partition is plain row numbers, so that it can be hashed, saved and used again with another
model, another share of the data or another shift.
"""

import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from floral import check
from floral.data.checks.host_arrays import fingerprint, row_numbers
from floral.data.checks.names import names_array
from floral.data.splits import SPLITS
from floral.errors import DataError

__all__ = ["Partition", "given_splits", "load_partition", "save_partition", "split_clients"]


class Partition(NamedTuple):
    """N lists of row numbers, stored flat; client k owns ``indices[offsets[k]:offsets[k + 1]]``."""

    indices: np.ndarray
    """``[M]`` int64."""
    offsets: np.ndarray
    """``[N + 1]`` int64, from 0 to M."""
    traits: Mapping[str, np.ndarray] = {}
    """What dealing the examples says about the clients, ``[N, ...]``."""
    names: np.ndarray | None = None
    """``[N]`` words, the clients' names; None where they have none."""

    @classmethod
    def of(cls, rows: Sequence[Any] | Mapping[Any, Any], **traits: np.ndarray) -> "Partition":
        """From N lists of row numbers, or a mapping from the clients' names to theirs.

        Raises:
          DataError: for what is no list of row numbers.

        Example:
          >>> Partition.of([[2, 0], [1]]).client(0)
          array([2, 0])
        """
        names = None
        if isinstance(rows, Mapping):
            names = names_array(list(rows), len(rows), "partition")
            rows = list(rows.values())
        arrays = [row_numbers(r, f"partition: the rows of client {k}") for k, r in enumerate(rows)]
        flat = np.concatenate(arrays) if arrays else np.zeros(0, np.int64)
        sizes = [len(a) for a in arrays]
        return cls(flat, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), traits, names)

    @property
    def num_clients(self) -> int:
        """N."""
        return len(self.offsets) - 1

    @property
    def sizes(self) -> np.ndarray:
        """How many examples each client owns, ``[N]``."""
        return np.diff(self.offsets)

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over who owns what and the traits."""
        traits = {f"traits/{name}": trait for name, trait in self.traits.items()}
        names = {} if self.names is None else {"names": self.names}
        return fingerprint({"indices": self.indices, "offsets": self.offsets, **names, **traits})

    def client(self, k: int) -> np.ndarray:
        """The rows of client k."""
        return self.indices[self.offsets[k] : self.offsets[k + 1]]

    def rows(self) -> list[np.ndarray]:
        """The rows of every client."""
        return [self.client(k) for k in range(self.num_clients)]


def split_clients(
    partition: Partition,
    fractions: Mapping[str, float] | None = None,
    rng: np.random.Generator | None = None,
    *,
    keep: float = 1.0,
) -> dict[str, Partition]:
    """Divides each client's own rows into train, validation and test.

    Of a client's n rows, in one random order, the first ⌊test · n⌋ are for testing. Of the rest
    the first ``keep`` share is kept (rounded, at least one row), and what is not kept is in no
    split. From what is kept ⌊validation · keep · n⌋ rows are for validation. A share above zero is
    at least one row, as long as one stays for training. So the test rows depend on no other
    setting, and a smaller ``keep`` keeps a subset. In each split the rows stand in the partition's
    order.

    Args:
      partition: who owns what.
      fractions: the shares of ``"validation"`` and ``"test"``; together below one.
      rng: draws each client's random order; client after client.
      keep: the share of the training rows that is kept, above zero.

    Returns:
      By split, a partition of the same N clients over disjoint rows; held-out splits are empty for
      clients of one row.

    Example:
      >>> whole = Partition.of([range(10), range(10, 15)])
      >>> parts = split_clients(whole, {"test": 0.2}, np.random.default_rng(0))
      >>> parts["train"].sizes, parts["test"].sizes
      (array([8, 4]), array([2, 1]))
    """
    check.instance_of(Partition, "Partition.of([[0, 1], [2]])", partition=partition)
    if fractions is not None:
        check.mapping("{'test': 0.2}", fractions=fractions)
    if rng is not None:
        check.instance_of(np.random.Generator, "np.random.default_rng(0)", rng=rng)
    fractions = dict(fractions or {})
    for name, share in fractions.items():
        check.one_of(("validation", "test"), **{"a split with a fraction": name})
        check.in_range(0, 1, **{f"split {name}": share})
    check.in_range(0, 1, keep=keep)
    check.positive(keep=keep)
    held_out = sum(fractions.values())
    if held_out >= 1:
        raise DataError(f"held-out fractions must sum to less than 1, got {held_out:g}")
    rng = rng if rng is not None else np.random.default_rng(0)
    parts: dict[str, list[np.ndarray]] = {"train": [], **{name: [] for name in fractions}}
    for k in range(partition.num_clients):
        rows = partition.client(k)
        places = _places(len(rows), fractions, keep, rng)
        for name, mine in parts.items():
            mine.append(rows[np.sort(places[name])])
    return _like(partition, parts)


def _like(partition: Partition, parts: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Partition]:
    """By split the rows of the same clients."""
    return {
        name: Partition.of(rows, **partition.traits)._replace(names=partition.names)
        for name, rows in parts.items()
    }


def given_splits(
    partition: Partition,
    split_of: np.ndarray,
    rng: np.random.Generator,
    *,
    keep: float = 1.0,
    field: str = "split",
) -> dict[str, Partition]:
    """Divides each client's rows as the data set does that they come from.

    Args:
      partition: who owns what.
      split_of: [M], "train", "validation" or "test" for each example.
      rng: draws which training rows are kept; client after client.
      keep: the share of each client's training rows that is kept (rounded, at least one).
      field: names ``split_of`` in messages.

    Raises:
      DataError: for another word, or a client without a training example.

    Example:
      >>> words = np.array(["train", "test", "train"])
      >>> parts = given_splits(Partition.of([[0, 1], [2]]), words, np.random.default_rng(0))
      >>> parts["train"].sizes, parts["test"].sizes
      (array([1, 1]), array([1, 0]))
    """
    check.in_range(0, 1, keep=keep)
    check.positive(keep=keep)
    wrong = np.flatnonzero(~np.isin(split_of, SPLITS))
    if len(wrong):
        word = split_of[wrong[0]]
        raise DataError(
            f"field {field!r} of example {wrong[0]} is {str(word)!r}, expected one of "
            f"{', '.join(SPLITS)}{check.did_you_mean(word, SPLITS)}"
        )
    names = [name for name in SPLITS if name == "train" or (split_of == name).any()]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for k in range(partition.num_clients):
        rows = partition.client(k)
        for name, mine in parts.items():
            chosen = rows[split_of[rows] == name]
            if name == "train":
                order = rng.permutation(len(chosen))
                chosen = chosen[np.sort(order[: max(1, round(keep * len(chosen)))])]
            mine.append(chosen)
    return _like(partition, parts)


def _places(
    size: int, fractions: Mapping[str, float], keep: float, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    order = rng.permutation(size)
    test, pool = np.split(order, [_held_out(fractions.get("test", 0.0), size, size)])
    kept = pool[: max(1, round(keep * len(pool)))]
    num_validation = _held_out(fractions.get("validation", 0.0), keep * size, len(kept))
    validation, train = np.split(kept, [num_validation])
    return {"train": train, "validation": validation, "test": test}


def _held_out(share: float, of: float, there: int) -> int:
    """How many rows a share is: at least one if it is above zero, and one row stays."""
    if share == 0:
        return 0
    floor = int(share * of + 1e-9)  # 0.29 · 100 is 28.999… in floating point
    return max(0, min(max(1, floor), there - 1))


def save_partition(path: str | Path, partition: Partition) -> None:
    """Writes the partition as npz, whole or not at all: to a temporary name, then renamed."""
    check.path(path=path)
    check.instance_of(Partition, "Partition.of([[0, 1], [2]])", partition=partition)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    traits = {f"traits/{name}": trait for name, trait in partition.traits.items()}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            arrays = {"indices": partition.indices, "offsets": partition.offsets, **traits}
            if partition.names is not None:
                arrays["names"] = partition.names
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def load_partition(path: str | Path) -> Partition:
    """The partition that ``save_partition`` wrote.

    Raises:
      DataError: if the file is missing or is no partition.
    """
    check.path(path=path)
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no partition at {str(path)!r}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        traits = {n.removeprefix("traits/"): a for n, a in arrays.items() if n.startswith("traits")}
        return Partition(arrays["indices"], arrays["offsets"], traits, arrays.get("names"))
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{str(path)!r} is no saved partition: {error}") from error
