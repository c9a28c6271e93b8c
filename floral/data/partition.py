"""Partitions: which client owns which example.

A factory takes its settings as keywords and returns a ``Partitioner``:

    (fields, rng) -> Partition

``fields`` holds one number or word an example by name: the labels as ``"y"``, and whatever else
the source knows (a writer, a speaker). Every example goes to exactly one client. Within a client,
the order is random, except under ``natural``, ``blocks`` and ``label_clusters``, which keep the
stored order.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from floral import check
from floral.data.checks.names import sortable_names
from floral.data.ownership import Partition, load_partition
from floral.errors import DataError
from floral.first_argument import first_by_place
from floral.typing import FilePath

__all__ = [
    "Partitioner",
    "blocks",
    "dirichlet",
    "iid",
    "label_clusters",
    "natural",
    "quantity_skew",
    "saved",
    "shards",
]


class Partitioner(Protocol):
    """``(fields {name: [M]}, rng) -> Partition``."""

    def __call__(self, fields: Mapping[str, np.ndarray], rng: np.random.Generator) -> Partition: ...


@first_by_place
def iid(*, clients: int = 100) -> Partitioner:
    """Shuffles the examples and deals them in equal parts (they differ by at most one).

    Args:
      clients: the number of clients, N.

    Example:
      >>> iid(clients=3)({"y": np.zeros(8)}, np.random.default_rng(0)).sizes
      array([3, 3, 2])
    """
    check.positive_int(clients=clients)

    def deal(fields: Mapping[str, np.ndarray], rng: np.random.Generator) -> Partition:
        return Partition.of(np.array_split(rng.permutation(_enough(fields, clients)), clients))

    return deal


@first_by_place
def blocks(*, clients: int = 100) -> Partitioner:
    """Cuts the examples, as stored, into equal contiguous blocks (they differ by at most one).

    Args:
      clients: the number of clients, N.
    """
    check.positive_int(clients=clients)

    def deal(fields: Mapping[str, np.ndarray], rng: np.random.Generator) -> Partition:
        return Partition.of(np.array_split(np.arange(_enough(fields, clients)), clients))

    return deal


@first_by_place
def dirichlet(*, clients: int = 100, alpha: float = 0.5, min_examples: int = 1) -> Partitioner:
    """Label skew: each class is divided among the clients by a Dirichlet(alpha) draw.

    Args:
      clients: the number of clients, N.
      alpha: concentration; small values give each client few classes, large ones all of them.
      min_examples: the least a client gets; a smaller one takes examples from the largest ones.

    Source: Yurochkin et al., "Bayesian Nonparametric Federated Learning", ICML 2019, section 4.
    Differs from the customary code: rather than redrawing everything until no client is too small,
    which may never end, a client that is too small takes random examples from the largest ones.
    """
    check.positive_int(clients=clients)
    check.positive(alpha=alpha)
    check.whole(min_examples=min_examples)

    def deal(fields: Mapping[str, np.ndarray], rng: np.random.Generator) -> Partition:
        labels = _classes(fields)
        _enough(fields, clients, min_examples)
        rows: list[list[np.ndarray]] = [[] for _ in range(clients)]
        for label in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == label))
            share = rng.dirichlet(np.full(clients, alpha))
            cuts = np.round(np.cumsum(share)[:-1] * len(members)).astype(int)
            for mine, part in zip(rows, np.split(members, cuts), strict=True):
                mine.append(part)
        shuffled = [rng.permutation(np.concatenate(mine)) for mine in rows]
        return Partition.of(_level_up(shuffled, min_examples))

    return deal


@first_by_place
def shards(*, clients: int = 100, shards_per_client: int = 2) -> Partitioner:
    """Label skew: sorts by label, cuts into equal shards and deals each client a few at random.

    Args:
      clients: the number of clients, N.
      shards_per_client: how many shards each client gets, hence about how many classes.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", AISTATS 2017, section 3.
    """
    check.positive_int(clients=clients, shards_per_client=shards_per_client)

    def deal(fields: Mapping[str, np.ndarray], rng: np.random.Generator) -> Partition:
        total = _enough(fields, clients, shards_per_client)
        shuffled = rng.permutation(total)
        by_label = shuffled[np.argsort(_field(fields, "y")[shuffled], kind="stable")]
        cut = np.array_split(by_label, clients * shards_per_client)
        dealt = rng.permutation(len(cut)).reshape(clients, shards_per_client)
        return Partition.of([rng.permutation(np.concatenate([cut[i] for i in d])) for d in dealt])

    return deal


@first_by_place
def quantity_skew(*, clients: int = 100, alpha: float = 0.5, min_examples: int = 1) -> Partitioner:
    """Sizes by a Dirichlet(alpha) draw, examples at random.

    Args:
      clients: the number of clients, N.
      alpha: concentration; small values give a few clients nearly everything.
      min_examples: what every client gets before the rest is divided.

    Source: Li et al., "Federated Learning on Non-IID Data Silos", ICDE 2022, section 4.3.
    """
    check.positive_int(clients=clients)
    check.positive(alpha=alpha)
    check.whole(min_examples=min_examples)

    def deal(fields: Mapping[str, np.ndarray], rng: np.random.Generator) -> Partition:
        total = _enough(fields, clients, min_examples)
        share = rng.dirichlet(np.full(clients, alpha)) * (total - clients * min_examples)
        sizes = np.diff(np.round(np.cumsum(share)).astype(int), prepend=0)
        sizes[-1] += total - clients * min_examples - sizes.sum()
        cuts = np.cumsum(sizes + min_examples)[:-1]
        return Partition.of(np.split(rng.permutation(total), cuts))

    return deal


@first_by_place
def natural(*, field: str) -> Partitioner:
    """One client for each value of a field, in sorted order of the values, which name the clients.

    Args:
      field: the source's field that names the client: a writer, a speaker, a school. It holds words
        or whole numbers, and clients may be called by these, as in ``dataset.client("writer 7")``.

    Example:
      >>> fields = {"y": np.zeros(4), "writer": np.array(["b", "a", "b", "b"])}
      >>> partition = natural(field="writer")(fields, np.random.default_rng(0))
      >>> [rows.tolist() for rows in partition.rows()]
      [[1], [0, 2, 3]]
      >>> partition.names.tolist()
      ['a', 'b']
    """

    def deal(fields: Mapping[str, np.ndarray], rng: np.random.Generator) -> Partition:
        names, owner = np.unique(sortable_names(_field(fields, field), field), return_inverse=True)
        return _grouped(owner)._replace(names=names.astype(np.str_))

    return deal


@first_by_place
def saved(*, path: FilePath) -> Partitioner:
    """The partition that ``save_partition`` wrote, whatever the seed.

    Args:
      path: the file.
    """
    return lambda fields, rng: load_partition(Path(path))


@first_by_place
def label_clusters(*, clients: int = 100, clusters: int = 10) -> Partitioner:
    """Clients k mod C share the labels c mod C, in contiguous shards; sets the trait "cluster".

    Args:
      clients: the number of clients, N.
      clusters: C, at most the number of classes; cluster c owns the labels l with l mod C = c.

    Source: Almansoori et al., "Collaborative and Efficient Personalization with Mixtures of
    Adaptors", CPAL 2025: the CIFAR-100 task.
    """
    check.positive_int(clients=clients, clusters=clusters)
    check.in_range(1, clients, clusters=clusters)

    def deal(fields: Mapping[str, np.ndarray], rng: np.random.Generator) -> Partition:
        _enough(fields, clients)
        labels = _classes(fields)
        owner = np.zeros(len(labels), np.int64)
        for c in range(clusters):
            members = np.flatnonzero(labels % clusters == c)
            mine = np.arange(c, clients, clusters)
            if len(members) < len(mine):
                raise DataError(
                    f"cluster {c} has {len(members)} examples for its {len(mine)} clients"
                )
            owner[members] = np.repeat(mine, [len(p) for p in np.array_split(members, len(mine))])
        return _grouped(owner, cluster=np.arange(clients, dtype=np.int32) % clusters)

    return deal


def _field(fields: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if not isinstance(name, str):
        raise DataError(f"field must be the name of one, got {check.described(name)}")
    if name not in fields:
        hint = check.did_you_mean(name, fields)
        raise DataError(f"the source has no field {name!r}; it has {', '.join(fields)}{hint}")
    if fields[name].ndim != 1:
        raise DataError(
            f"field {name!r} must hold one value an example, got shape {fields[name].shape}"
        )
    return fields[name]


def _classes(fields: Mapping[str, np.ndarray]) -> np.ndarray:
    labels = _field(fields, "y")
    if labels.dtype.kind not in "iu":
        raise DataError(f"this partition needs labels of classes, got 'y' of {labels.dtype}")
    return labels


def _enough(fields: Mapping[str, np.ndarray], clients: int, each: int = 1) -> int:
    """The number of examples, M, once it is known to go round."""
    total = len(next(iter(fields.values())))
    if total < clients * max(each, 1):
        raise DataError(
            f"{total} examples are too few for {clients} clients with at least "
            f"{max(each, 1)} each; use at most {total // max(each, 1)} clients"
        )
    return total


def _level_up(rows: list[np.ndarray], least: int) -> list[np.ndarray]:
    for k in np.flatnonzero([len(r) < least for r in rows]):
        while len(rows[k]) < least:
            largest = int(np.argmax([len(r) for r in rows]))
            rows[k] = np.append(rows[k], rows[largest][-1])
            rows[largest] = rows[largest][:-1]
    return rows


def _grouped(owner: np.ndarray, **traits: np.ndarray) -> Partition:
    order = np.argsort(owner, kind="stable")
    return Partition.of(np.split(order, np.cumsum(np.bincount(owner))[:-1]), **traits)
