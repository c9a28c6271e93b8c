"""Clients' data: flat arrays with offsets, on the host.

A population of ragged clients is stored as one array a field, client after client, and N + 1
offsets: it can be hashed, saved and put on a device whole, and any cohort is one indexing
operation away (``batches.gather``). An array may also be lazy, or mapped from a file: a simulator
then reads the rows of its cohort and no others.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from floral import check
from floral.data.checks.columns import as_array
from floral.data.checks.door import as_examples, check_split
from floral.data.checks.host_arrays import canonical, fingerprint, row_numbers
from floral.data.checks.ids import client_ids
from floral.data.checks.labels import shared_names
from floral.data.checks.names import names_array
from floral.data.splits import SPLITS
from floral.data.storage.aligned import joined, taken
from floral.data.storage.lazy import is_plain
from floral.display import as_html, each
from floral.errors import DataError

__all__ = [
    "FederatedDataset",
    "Split",
    "assembled",
    "federated",
    "from_clients",
]

_MOST_NAMED = 20  # classes that a description lists by name


class Split(NamedTuple):
    """One split of every client; client k owns the rows ``offsets[k]:offsets[k + 1]``."""

    examples: dict[str, Any]
    """``{"x": [M, ...], "y": [M, ...]}``, flat, in client order; NumPy's, mapped or lazy."""
    offsets: np.ndarray
    """``[N + 1]`` int64, from 0 to M."""

    @property
    def sizes(self) -> np.ndarray:
        """How many examples each client has, ``[N]``."""
        return np.diff(self.offsets)

    @property
    def max_size(self) -> int:
        """The examples of the largest client: ``gather``'s ``max_size``."""
        return int(self.sizes.max(initial=0))

    @property
    def owners(self) -> np.ndarray:
        """Which client each example belongs to, ``[M]``."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def client(self, k: int) -> dict[str, np.ndarray]:
        """The examples of client k, as views; raises SpecError for an id that there is not."""
        (k,) = client_ids(k, len(self.sizes))
        rows = slice(self.offsets[k], self.offsets[k + 1])
        return {name: array[rows] for name, array in self.examples.items()}


class FederatedDataset(NamedTuple):
    """The data of N clients, and what is known about each of them."""

    splits: dict[str, Split]
    """``"train"``, ``"test"``, ``"validation"``; the last two may be absent or empty."""
    traits: dict[str, np.ndarray]
    """What is known about each client, ``[N, ...]``; ``"cluster"`` where the truth is known."""
    unseen: np.ndarray
    """``[N]`` bool: clients that are never sampled in training."""
    num_classes: int | None
    """The number of classes, or None where the targets are not classes."""
    client_names: np.ndarray | None = None
    """``[N]`` words, the clients' names; None where they have none."""
    class_names: tuple[str, ...] | None = None
    """The word of each class, in order; None where labels have none."""

    def __repr__(self) -> str:
        x = self.splits["train"].examples["x"]
        classes = "" if self.num_classes is None else f", {self.num_classes} classes"
        sizes = ", ".join(f"{name} {int(s.sizes.sum()):,}" for name, s in self.splits.items())
        return (
            f"FederatedDataset({self.num_clients} clients, {int(self.unseen.sum())} unseen; "
            f"{sizes} examples; x {each(x)}{classes})"
        )

    def _repr_html_(self) -> str:
        return as_html(self.describe())

    @property
    def num_clients(self) -> int:
        """N."""
        return len(self.unseen)

    @property
    def seen(self) -> np.ndarray:
        """The ids of the clients that may take part in training."""
        return np.flatnonzero(~self.unseen)

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of every array: it changes if, and only if, the data do.

        Lazy arrays say what stands for theirs; others are read whole.
        """
        named: dict[str, Any] = {"unseen": self.unseen, "num_classes": self.num_classes}
        if self.client_names is not None:
            named["client_names"] = self.client_names
        if self.class_names is not None:
            named["class_names"] = self.class_names
        named |= {f"traits/{name}": trait for name, trait in self.traits.items()}
        for name, split in self.splits.items():
            named[f"splits/{name}"] = split.offsets
            named |= {f"splits/{name}/{key}": array for key, array in split.examples.items()}
        return fingerprint(named)

    def client(self, client: int | str) -> dict[str, dict[str, np.ndarray]]:
        """The splits of a client, by id or name: ``{"train": {"x": ..., "y": ...}, ...}``.

        Raises:
          SpecError: for a client that there is not.
        """
        (k,) = self.ids_of([client])
        return {name: split.client(k) for name, split in self.splits.items()}

    def ids_of(self, clients: Any) -> np.ndarray:
        """The ids of clients by id, by name, or marked by ``[N]`` bool: int64 [K].

        Raises:
          SpecError: for a client that there is not; it names the nearest name.
        """
        return client_ids(clients, self.num_clients, self.client_names)

    def describe(self) -> str:
        """A few lines of text: clients, examples per split, traits."""
        lines = [f"{self.num_clients} clients ({int(self.unseen.sum())} unseen){self._classes()}"]
        for name, split in self.splits.items():
            sizes, x = split.sizes, split.examples["x"]
            lines.append(
                f"{name}: {sizes.sum()} examples, {sizes.min()} to {sizes.max()} a client, "
                f"x {list(x.shape[1:])} {x.dtype}"
            )
        if "cluster" in self.traits:
            cluster = self.traits["cluster"]
            counts = np.bincount(cluster[cluster >= 0])
            if len(counts):
                lines.append(f"clusters: {', '.join(map(str, counts))} clients")
        return "\n".join(lines)

    def _classes(self) -> str:
        """How many classes there are, which of them have no training example, and their words."""
        if self.num_classes is None:
            return ""
        labels = self.splits["train"].examples["y"]
        empty = self.num_classes - len(np.unique(labels)) if is_plain(labels) else 0
        without = f" ({empty} without training examples)" if empty else ""
        few = self.class_names is not None and len(self.class_names) <= _MOST_NAMED
        words = f": {', '.join(self.class_names or ())}" if few else ""
        return f", {self.num_classes} classes{without}{words}"


def federated(
    examples: Mapping[str, Any],
    assignment: Mapping[str, Sequence[Any]],
    *,
    traits: Mapping[str, Any] | None = None,
    unseen: Any = None,
    num_classes: int | None = None,
    client_names: Sequence[Any] | np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
) -> FederatedDataset:
    """A population from one set of examples and the rows of each client in each split.

    Args:
      examples: ``{"x": [M, ...], "y": [M, ...]}``.
      assignment: by split, N arrays of row numbers; ``"train"`` is needed.
      traits: what is known about the clients, each ``[N, ...]``.
      unseen: ``[N]`` bool, clients that never train; none by default.
      num_classes: the number of classes, or None.
      client_names: the clients' names, N different ones; none by default.
      class_names: the words of all classes, in order; by default those that labels are.

    Raises:
      DataError: if the examples cannot be trained on, or a client has no training example.

    Example:
      >>> examples = {"x": np.arange(6.0)[:, None], "y": np.arange(6) % 2}
      >>> data = federated(examples, {"train": [[0, 1, 2], [5]], "test": [[3], [4]]}, num_classes=2)
      >>> data.splits["train"].sizes, data.client(1)["test"]["y"]
      (array([3, 1]), array([0], dtype=int32))
    """
    arrays, targets = as_examples(
        examples, "examples", num_classes=num_classes, class_names=class_names
    )
    splits = {}
    for name, rows_by_client in assignment.items():
        rows = [
            _rows_of(rows, len(targets.values), f"split {name!r}: the rows of client {k}")
            for k, rows in enumerate(rows_by_client)
        ]
        flat = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        splits[name] = Split({key: taken(a, flat) for key, a in arrays.items()}, _offsets(rows))
    return assembled(splits, traits, unseen, targets.num_classes, client_names, targets.class_names)


def _rows_of(rows: Any, total: int, what: str) -> np.ndarray:
    rows = row_numbers(rows, what)
    outside = rows[(rows < 0) | (rows >= total)]
    if len(outside):
        raise DataError(f"{what} name example {outside[0]}, but there are {total}")
    return rows


def from_clients(
    clients: Sequence[Mapping[str, Any]] | Mapping[Any, Mapping[str, Any]],
    *,
    traits: Mapping[str, Any] | None = None,
    unseen: Any = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
) -> FederatedDataset:
    """A population from each client's own arrays; a split a client lacks is empty for it.

    Args:
      clients: for each client ``{split: {"x": [n, ...], "y": [n, ...]}}``; ``"train"`` is needed.
        A mapping from their names gives the clients names, in its order.
      traits: what is known about the clients, each ``[N, ...]``.
      unseen: ``[N]`` bool, clients that never train; none by default.
      num_classes: the number of classes, or None; where labels are words, of the different ones.
      class_names: the words of all classes, in order; by default those that labels are, of all
        clients together.

    Raises:
      DataError: if a client's examples cannot be trained on; it names the client and the split.

    Example:
      >>> one = {"train": {"x": [[0.0], [1.0]], "y": [0, 1]}}
      >>> two = {"train": {"x": [[2.0]], "y": [1]}, "test": {"x": [[3.0]], "y": [0]}}
      >>> data = from_clients([one, two], num_classes=2)
      >>> data.splits["train"].offsets, data.splits["test"].sizes
      (array([0, 2, 3]), array([0, 1]))
      >>> named = from_clients({"ann": one, "bob": two}, num_classes=2)
      >>> named.client("bob")["train"]["y"]
      array([1], dtype=int32)
    """
    names = None
    if isinstance(clients, Mapping):
        names, clients = list(clients), list(clients.values())
    elif not isinstance(clients, Sequence):
        raise DataError(
            "from_clients takes a list of clients, or a mapping from their names, got "
            f"{type(clients).__name__}"
        )
    given = _given_splits(clients)
    if class_names is None:
        class_names = shared_names([(one["y"], where) for _, _, one, where in given])
    parts: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    for name, k, examples, where in given:
        arrays, targets = as_examples(
            examples, where, num_classes=num_classes, class_names=class_names
        )
        num_classes = targets.num_classes if num_classes is None else num_classes
        parts.setdefault(name, {})[k] = arrays
    splits = {}
    for name, by_client in parts.items():
        first_id, first = next(iter(by_client.items()))
        for k, arrays in by_client.items():
            _check_alike(name, first_id, first, k, arrays)
        empty = {key: array[:0] for key, array in first.items()}
        rows = [by_client.get(k, empty) for k in range(len(clients))]
        flat = {key: joined([client[key] for client in rows]) for key in first}
        splits[name] = Split(flat, _offsets([client["x"] for client in rows]))
    return assembled(splits, traits, unseen, num_classes, names, class_names)


def _given_splits(
    clients: Sequence[Any],
) -> list[tuple[str, int, Mapping[str, Any], str]]:
    """Each split of each client: its name, the client's id, its examples, and what names them."""
    given = []
    for k, client in enumerate(clients):
        if not isinstance(client, Mapping):
            raise DataError(
                f"client {k} must be a mapping {{'train': {{'x': ..., 'y': ...}}}}, got "
                f"{type(client).__name__}"
            )
        for name, examples in client.items():
            _check_split_name(name)
            where = f"client {k}, split {name!r}"
            check_split(examples, where)
            given.append((name, k, examples, where))
    return given


def _check_clusters(cluster: np.ndarray, names: np.ndarray | None) -> None:
    outside = np.flatnonzero(cluster >= check.MOST_CLUSTERS)
    if len(outside):
        first = outside[0]
        who = first if names is None else repr(str(names[first]))
        raise DataError(
            f"trait 'cluster' of client {who} is {cluster[first]}, expected a number below "
            f"{check.MOST_CLUSTERS}; np.unique(cluster, return_inverse=True)[1] numbers clusters "
            "from 0"
        )


def _check_split_name(name: Any) -> None:
    if name not in SPLITS:
        hint = check.did_you_mean(name, SPLITS)
        raise DataError(f"splits are {', '.join(SPLITS)}; got {name!r}{hint}")


def _offsets(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)


def _check_alike(
    split: str, one: int, ones: dict[str, np.ndarray], two: int, twos: dict[str, np.ndarray]
) -> None:
    for name in ones.keys() | twos.keys():
        left, right = (
            f"{a[name].dtype}{list(a[name].shape[1:])}" if name in a else "nothing"
            for a in (ones, twos)
        )
        if left != right:
            raise DataError(
                f"split {split!r}: {name!r} is {left} for client {one} but {right} for client {two}"
            )


def assembled(
    splits: Mapping[str, Split],
    traits: Mapping[str, Any] | None,
    unseen: Any,
    num_classes: int | None,
    client_names: Sequence[Any] | np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
) -> FederatedDataset:
    """A population of these splits; all but the examples themselves is checked here.

    Raises:
      DataError: if clients, traits and marks differ in number, or one cannot train.
    """
    for name in splits:
        _check_split_name(name)
    if "train" not in splits or len(splits["train"].sizes) == 0:
        raise DataError("no client has a training example: the split 'train' is missing or empty")
    num_clients = len(splits["train"].sizes)
    for name, split in splits.items():
        if len(split.sizes) != num_clients:
            raise DataError(
                f"split {name!r} has {len(split.sizes)} clients, 'train' has {num_clients}"
            )
    empty = np.flatnonzero(splits["train"].sizes == 0)
    if len(empty):
        raise DataError(
            f"client {empty[0]} has no training example "
            f"({len(empty)} of {num_clients} clients have none)"
        )
    for name, split in splits.items():
        if "mask" in split.examples:
            raise DataError(
                f"split {name!r} has a field 'mask', the name of what marks padding in a batch; "
                "give it another name"
            )
    traits = _canonical_traits(traits)
    for name, trait in traits.items():
        if trait.shape[:1] != (num_clients,):
            raise DataError(
                f"trait {name!r} has shape {trait.shape}, expected one row for each of "
                f"{num_clients} clients"
            )
    cluster = traits.get("cluster")
    if cluster is not None and (cluster.dtype.kind not in "iu" or cluster.ndim != 1):
        raise DataError(
            f"trait 'cluster' must be a whole number for each client, got {cluster.dtype}"
            f"{list(cluster.shape)}"
        )
    names = None if client_names is None else names_array(client_names, num_clients, "clients")
    if cluster is not None:
        _check_clusters(cluster, names)
    unseen = np.zeros(num_clients, bool) if unseen is None else as_array(unseen, "unseen")
    if unseen.dtype.kind != "b":
        raise DataError(f"unseen must be a mask, a bool for each client; got {unseen.dtype}")
    if unseen.shape != (num_clients,) or unseen.all():
        raise DataError(
            f"unseen must mark some, not all, of {num_clients} clients; "
            f"got shape {unseen.shape}, {int(unseen.sum())} marked"
        )
    ordered = {name: splits[name] for name in SPLITS if name in splits}
    words = None if class_names is None else tuple(class_names)
    return FederatedDataset(ordered, traits, unseen, num_classes, names, words)


def _canonical_traits(traits: Any) -> dict[str, np.ndarray]:
    if traits is None:
        return {}
    if not isinstance(traits, Mapping):
        raise DataError(
            "traits must be a mapping of names, as {'cluster': [0, 1]}, got "
            f"{check.described(traits)}"
        )
    for name in traits:
        if not isinstance(name, str) or not name:
            raise DataError(f"traits: expected names, got {check.brief(name)}")
    return {name: canonical(trait, f"trait {name!r}") for name, trait in traits.items()}
