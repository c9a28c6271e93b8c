"""Shifts: how the clients' data differ beyond who owns what.

A factory takes its settings as keywords and returns a ``Shift``:

    (dataset, rng) -> dataset

Clients fall into C clusters, client k into k mod C unless ``sizes`` are given: with sizes 3 and 1
the first three of every four clients fall into cluster 0, the fourth into cluster 1. All splits of
a client shift alike, cluster 0 keeps the data as stored, and the truth is kept as the trait
``"cluster"``.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from floral import check
from floral.data.clients import FederatedDataset, Split
from floral.data.storage.aligned import aligned_copy, aligned_zeros
from floral.data.storage.lazy import is_plain
from floral.errors import DataError, SpecError
from floral.first_argument import first_by_place

__all__ = ["Shift", "label_shift", "noise", "none", "permute", "rotate"]


class Shift(Protocol):
    """``(dataset, rng) -> dataset``."""

    def __call__(self, dataset: FederatedDataset, rng: np.random.Generator) -> FederatedDataset: ...


def none() -> Shift:
    """Leaves the data as they are."""
    return lambda dataset, rng: dataset


@first_by_place
def rotate(
    *, clusters: int = 4, sizes: Sequence[int] | None = None, keep_turns: bool = False
) -> Shift:
    """Images of cluster c turn counter-clockwise by c · 360/C degrees.

    Multiples of 90 degrees of square images move pixels and change none; other angles interpolate
    linearly and fill the corners with zeros.

    Args:
      clusters: C, the number of clusters.
      sizes: [C], how many of every Σ sizes clients fall into each; None makes them even.
      keep_turns: whether examples have a field ``"turns"``, the quarter turns that they took, for
        an augmentation that minds which way an image stands; needs 1, 2 or 4 clusters.

    Example:
      >>> from floral.data.clients import from_clients
      >>> image = np.arange(4.0).reshape(1, 2, 2, 1)
      >>> data = from_clients([{"train": {"x": image, "y": [0]}}] * 2)
      >>> rotated = rotate(clusters=4)(data, np.random.default_rng(0))
      >>> rotated.client(1)["train"]["x"][0, :, :, 0].tolist(), rotated.traits["cluster"].tolist()
      ([[1.0, 3.0], [0.0, 2.0]], [0, 1])
    """
    turns = _turns(clusters, sizes)
    check.boolean(keep_turns=keep_turns)
    if keep_turns and 4 % clusters:
        raise SpecError(f"rotate: keep_turns needs 1, 2 or 4 clusters, got {clusters}")

    def turn(x: np.ndarray, c: int) -> np.ndarray:
        if x.ndim not in (3, 4):
            raise DataError(f"rotate needs images [M, H, W] or [M, H, W, C], got {list(x.shape)}")
        if 4 * c % clusters == 0 and (x.shape[1] == x.shape[2] or 2 * c % clusters == 0):
            return np.rot90(x, 4 * c // clusters, axes=(1, 2))
        from scipy import ndimage

        return ndimage.rotate(x, 360.0 * c / clusters, axes=(1, 2), reshape=False, order=1)

    def shift(dataset: FederatedDataset, rng: np.random.Generator) -> FederatedDataset:
        turned = _by_cluster(dataset, turns, "x", turn)
        return _with_turns(turned, 4 // clusters) if keep_turns else turned

    return shift


@first_by_place
def permute(*, clusters: int = 4, sizes: Sequence[int] | None = None) -> Shift:
    """The pixels (or features) of cluster c stand in its own random order, channels together.

    Args:
      clusters: C, the number of clusters.
      sizes: [C], how many of every Σ sizes clients fall into each; None makes them even.
    """
    turns = _turns(clusters, sizes)

    def shift(dataset: FederatedDataset, rng: np.random.Generator) -> FederatedDataset:
        shape = dataset.splits["train"].examples["x"].shape[1:]
        pixels = shape[:2] if len(shape) == 3 else shape
        count = int(np.prod(pixels))
        orders = [rng.permutation(count) if c else np.arange(count) for c in range(clusters)]

        def reorder(x: np.ndarray, c: int) -> np.ndarray:
            flat = x.reshape(len(x), count, *shape[len(pixels) :])
            return flat[:, orders[c]].reshape(x.shape)

        return _by_cluster(dataset, turns, "x", reorder)

    return shift


@first_by_place
def label_shift(*, clusters: int = 4, sizes: Sequence[int] | None = None) -> Shift:
    """Labels of cluster c become (y + c) mod the number of classes.

    Args:
      clusters: C, the number of clusters; more than there are classes would repeat.
      sizes: [C], how many of every Σ sizes clients fall into each; None makes them even.
    """
    turns = _turns(clusters, sizes)

    def shift(dataset: FederatedDataset, rng: np.random.Generator) -> FederatedDataset:
        classes = dataset.num_classes
        if classes is None:
            raise DataError("label_shift needs labels of classes; the source has num_classes=None")
        if clusters > classes:
            raise DataError(f"label_shift: {clusters} clusters repeat with {classes} classes")
        shifted = _by_cluster(
            dataset,
            turns,
            "y",
            lambda y, c: ((y.astype(np.int64) + c) % classes).astype(y.dtype),
        )
        return shifted._replace(class_names=None)  # a number stands for another word by cluster

    return shift


@first_by_place
def noise(*, std: float = 0.1, clusters: int | None = None) -> Shift:
    """Gaussian noise on the features, a level a client or cluster: g of G gets std · (g + 1) / G.

    Sets the trait ``"noise_std"``, and ``"cluster"`` where clusters are given. Unlike the other
    shifts no group is left untouched, except at ``std=0``.

    Args:
      std: the standard deviation of the last client's or cluster's noise.
      clusters: C, the number of clusters; None gives every client its own level.

    Source: Li et al., "Federated Learning on Non-IID Data Silos", ICDE 2022, section 4.2.
    Differs from the paper: ``std`` is a standard deviation, not a variance.
    """
    check.non_negative(std=std)
    if clusters is not None:
        check.positive_int(clusters=clusters)
        check.in_range(1, check.MOST_CLUSTERS, clusters=clusters)

    def shift(dataset: FederatedDataset, rng: np.random.Generator) -> FederatedDataset:
        groups = clusters or dataset.num_clients
        level = std * (np.arange(dataset.num_clients) % groups + 1) / groups
        splits = {}
        for name, split in dataset.splits.items():
            x = _in_memory(split, "x")
            if x.dtype.kind != "f":
                raise DataError(f"noise needs features that are floats, got {x.dtype}")
            each = level[split.owners].reshape(-1, *[1] * (x.ndim - 1))
            drawn = (each * rng.standard_normal(x.shape)).astype(x.dtype)
            noisy = np.add(x, drawn, out=aligned_zeros(x.shape, x.dtype))
            splits[name] = Split({**split.examples, "x": noisy}, split.offsets)
        traits = {**dataset.traits, "noise_std": level.astype(np.float32)}
        shifted = dataset._replace(splits=splits, traits=traits)
        return shifted if clusters is None else _with_clusters(shifted, np.arange(clusters))

    return shift


def _in_memory(split: Split, field: str) -> np.ndarray:
    array = split.examples[field]
    if not is_plain(array):
        raise DataError(
            "a shift changes every example, but this population's are read only when they are "
            "needed; shift them before they are saved, or in the function that makes them"
        )
    return array


def _turns(clusters: int, sizes: Sequence[int] | None) -> np.ndarray:
    """The clusters of the first clients, over and over: [Σ sizes]."""
    check.positive_int(clusters=clusters)
    check.in_range(1, check.MOST_CLUSTERS, clusters=clusters)
    if sizes is None:
        return np.arange(clusters)
    check.positive_ints(sizes=sizes)
    if len(sizes) != clusters:
        raise SpecError(f"sizes must be one for each of the {clusters} clusters, got {len(sizes)}")
    return np.repeat(np.arange(clusters), sizes)


def _by_cluster(
    dataset: FederatedDataset,
    turns: np.ndarray,
    field: str,
    change: Callable[[np.ndarray, int], np.ndarray],
) -> FederatedDataset:
    splits = {}
    for name, split in dataset.splits.items():
        values = aligned_copy(_in_memory(split, field))
        cluster = turns[split.owners % len(turns)]
        for c in range(1, turns.max() + 1):
            members = cluster == c
            if members.any():
                values[members] = change(values[members], c)
        splits[name] = Split({**split.examples, field: values}, split.offsets)
    return _with_clusters(dataset._replace(splits=splits), turns)


def _with_turns(dataset: FederatedDataset, each: int) -> FederatedDataset:
    """The examples with ``"turns"``: ``each`` quarter turns a step from cluster to cluster."""
    taken = each * dataset.traits["cluster"]
    splits = {
        name: Split({**split.examples, "turns": aligned_copy(taken[split.owners])}, split.offsets)
        for name, split in dataset.splits.items()
    }
    return dataset._replace(splits=splits)


def _with_clusters(dataset: FederatedDataset, turns: np.ndarray) -> FederatedDataset:
    cluster = turns.astype(np.int32)[np.arange(dataset.num_clients) % len(turns)]
    known = dataset.traits.get("cluster", cluster)
    if not np.array_equal(known, cluster):
        raise DataError(
            f"the data have {len(np.unique(known))} clusters already, and a shift that deals "
            f"clients to {turns.max() + 1} in turn disagrees with them"
        )
    return dataset._replace(traits={**dataset.traits, "cluster": cluster})
