"""From a source to a population: dealt, split, thinned, shifted and standardized, from one seed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from floral import check
from floral.data.checks.host_arrays import generator
from floral.data.checks.names import sortable_names
from floral.data.clients import FederatedDataset, federated
from floral.data.ownership import Partition, given_splits, split_clients
from floral.data.partition import Partitioner
from floral.data.shift import Shift
from floral.data.sources.in_memory import Source
from floral.data.standardize import standardized
from floral.data.synthetic import SyntheticTask
from floral.errors import DataError
from floral.typing import Seed

__all__ = ["federate"]


def federate(
    source: Source | FederatedDataset | SyntheticTask,
    *,
    partition: Partitioner | Partition | Sequence[Any] | Mapping[Any, Any] | None = None,
    shift: Shift | None = None,
    split: Mapping[str, float] | str | None = None,
    keep: float = 1.0,
    unseen: int | float = 0,
    standardize: bool = False,
    seed: Seed = 0,
) -> FederatedDataset:
    """The population that a run trains on.

    The source's examples are dealt to clients, each client's are split, its training examples
    thinned to the share ``keep``, the shift applied, and the features standardized. Every draw is
    from its own stream of the seed: another shift leaves the partition alone, another ``keep``
    leaves the test rows alone.

    Args:
      source: examples, or a population that comes with its clients and splits.
      partition: how examples are dealt, or a saved partition, or a list of row numbers for each
        client, by name if it is a mapping; none for a population. Names, those of a mapping or the
        values of the field of ``natural``, take the place of ids wherever clients are asked for.
      shift: how the clients' data differ beyond that; none by default.
      split: the shares of each client's examples that go to "validation" and "test"; or the field
        of the source that says of each example "train", "validation" or "test".
      keep: the share of each client's training examples that is kept; the rest is never read.
      unseen: how many clients, or which share of them (a float below 1; at least one client), never
        train: the last of each cluster in turn.
      standardize: whether each channel of the features (each index of their last axis) gets mean 0
        and standard deviation 1. Both are taken last, over the training examples that are kept of
        the clients that train, and applied to all.
      seed: of every draw made here.

    Raises:
      DataError: if the parts do not fit, or a client is left without a training example.

    Example:
      >>> from floral import data
      >>> source = data.arrays(np.arange(40.0).reshape(20, 2), np.arange(20) % 4)
      >>> population = federate(source, partition=data.iid(clients=4), split={"test": 0.2},
      ...                       shift=data.label_shift(clusters=2), unseen=2)
      >>> print(population.describe())
      4 clients (2 unseen), 4 classes
      train: 16 examples, 4 to 4 a client, x [2] float32
      test: 4 examples, 1 to 1 a client, x [2] float32
      clusters: 2, 2 clients
    """
    check.seed(seed=seed)
    check.non_negative(unseen=unseen)
    check.boolean(standardize=standardize)
    if shift is not None and not (callable(shift) and check.takes(2, shift)):
        raise DataError(
            "shift must be made by a factory, as fl.data.rotate(clusters=4), got "
            f"{check.described(shift)}"
        )
    if not isinstance(split, Mapping | str | None):
        raise DataError(
            "split must be shares, as {'test': 0.2}, or the name of a field, got "
            f"{check.described(split)}"
        )
    if not isinstance(source, Source | FederatedDataset | SyntheticTask):
        raise DataError(
            f"a source is made by a factory, as fl.data.arrays(x, y); got {type(source).__name__}"
        )
    if isinstance(source, SyntheticTask):
        source = source.dataset
    if isinstance(source, FederatedDataset):
        if partition is not None or split or keep != 1.0:
            raise DataError(
                "this source comes with its clients and splits; it takes no partition, split or "
                "keep, only shift, unseen and standardize"
            )
        dataset = source
    else:
        if isinstance(partition, list | tuple | Mapping) and not isinstance(partition, Partition):
            partition = Partition.of(partition)
        dataset = _deal(source, partition, split, keep, seed)
    if shift is not None:
        dataset = shift(dataset, generator(seed, "shift"))
    if unseen:
        dataset = dataset._replace(unseen=_unseen(dataset, unseen))
    return standardized(dataset) if standardize else dataset


def _deal(
    source: Source,
    partition: Any,
    split: Mapping[str, float] | str | None,
    keep: float,
    seed: int,
) -> FederatedDataset:
    if partition is None:
        raise DataError(f"{source.name} needs a partition: how are its examples dealt to clients?")
    total = len(source.examples["y"])
    if not callable(partition) and not isinstance(partition, Partition):
        raise DataError(
            f"partition must be made by a factory, as fl.data.iid(clients=10), or be the rows of "
            f"each client; got {type(partition).__name__}"
        )
    if callable(partition):
        if not check.takes(2, partition):
            raise DataError(
                f"partition: {check.described(partition)} takes other arguments than (fields, rng);"
                " a factory is called first, as fl.data.iid(clients=10)"
            )
        fields = {"y": source.examples["y"], **source.fields}
        partition = _rows_dealt(partition(fields, generator(seed, "partition")))
    outside = partition.indices[(partition.indices < 0) | (partition.indices >= total)]
    if len(outside):
        raise DataError(f"the partition names example {outside[0]}, but {source.name} has {total}")
    twice = np.flatnonzero(np.bincount(partition.indices, minlength=total) > 1)
    if len(twice):
        raise DataError(
            f"the partition of {source.name} deals example {twice[0]} more than once; an example "
            "belongs to one client"
        )
    empty = np.flatnonzero(partition.sizes == 0)
    if len(empty):
        raise DataError(f"the partition of {source.name} leaves client {empty[0]} without examples")
    rng = generator(seed, "split")
    if isinstance(split, str):
        if split not in source.fields:
            hint = check.did_you_mean(split, source.fields)
            known = ", ".join(source.fields) or "none"
            raise DataError(f"split: {source.name} has no field {split!r}; it has {known}{hint}")
        words = sortable_names(source.fields[split], split)
        splits = given_splits(partition, words, rng, keep=keep, field=split)
    else:
        splits = split_clients(partition, split, rng, keep=keep)
        for name, share in (split or {}).items():
            if share > 0 and not splits[name].indices.size:
                raise DataError(
                    f"split {name}: no client has an example to spare beyond the one it trains on"
                )
    return federated(
        source.examples,
        {name: part.rows() for name, part in splits.items()},
        traits=partition.traits,
        num_classes=source.num_classes,
        client_names=partition.names,
        class_names=source.class_names,
    )


def _rows_dealt(found: Any) -> Partition:
    """What a partitioner gave: a partition, or the rows of each client."""
    if isinstance(found, Partition):
        return found
    if not isinstance(found, Mapping | list | tuple | np.ndarray) or len(found) == 0:
        raise DataError(
            "partition: a function (fields, rng) gives a Partition or the rows of each client, got "
            f"{check.described(found)}"
        )
    return Partition.of(list(found) if isinstance(found, np.ndarray) else found)


def _unseen(dataset: FederatedDataset, unseen: int | float) -> np.ndarray:
    """The last clients of each cluster in turn, so that what is unseen is balanced over them."""
    count = int(unseen)
    if isinstance(unseen, float):
        count = max(1, int(unseen * dataset.num_clients + 1e-9))
    if (isinstance(unseen, float) and unseen >= 1) or count >= dataset.num_clients:
        raise DataError(
            f"unseen={unseen} leaves none of {dataset.num_clients} clients to train; "
            "give a number of clients, or a share below 1"
        )
    cluster = dataset.traits.get("cluster", np.zeros(dataset.num_clients, np.int32))
    from_the_end = np.zeros(dataset.num_clients, np.int64)
    for c in np.unique(cluster):
        members = np.flatnonzero(cluster == c)
        from_the_end[members] = np.arange(len(members))[::-1]
    order = np.lexsort((-np.arange(dataset.num_clients), from_the_end))
    marked = np.zeros(dataset.num_clients, bool)
    marked[order[:count]] = True
    return marked | dataset.unseen
