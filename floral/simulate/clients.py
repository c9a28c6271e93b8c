"""The population on the devices: data, traits, and what a round knows about one client."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from floral.data import Batches, Batching, FederatedDataset, locate, schedule
from floral.data.storage.aligned import aligned
from floral.errors import SpecError
from floral.messages import Context
from floral.random import stream
from floral.simulate.shard import replicate
from floral.simulate.state import gather_rows
from floral.typing import Array, Key

__all__ = [
    "DeviceData",
    "Holdings",
    "client_context",
    "first_of",
    "holdings",
    "on_devices",
    "own_batches",
    "splits_of_holdings",
]

_MOST = 2**31 - 1  # offsets are int32; where data stay on the host only their differences are used


class DeviceData(NamedTuple):
    """What of the population is on the devices, whole on each of them.

    Attributes:
      examples: ``{split: {field: [M, ...]}}``; empty for a population whose data stay on the host.
      offsets: ``{split: [N + 1]}`` int32.
      traits: ``{name: [N, ...]}``.
      training: [n] int32, the clients that may be sampled.
    """

    examples: Mapping[str, Mapping[str, Array]]
    offsets: Mapping[str, Array]
    traits: Mapping[str, Array]
    training: Array


class Holdings(NamedTuple):
    """What the clients of a cohort hold of one split, and where it lies.

    Attributes:
      examples: flat arrays, each ``[M, ...]``.
      starts: [K] int32, the row of each client's first example.
      sizes: [K] int32, how many it has.
    """

    examples: Mapping[str, Array]
    starts: Array
    sizes: Array


def splits_of_holdings(fed: bool) -> Any:
    """Which parts of ``Holdings`` are split over devices: the examples only where they are fed."""
    parts: Any = (fed, True, True)
    return Holdings(*parts)


def on_devices(dataset: FederatedDataset, mesh: Mesh, *, examples: bool = True) -> DeviceData:
    """A dataset as arrays on every device.

    On a CPU the devices share the host's memory with the dataset: arrays that the library made and
    files that are mapped into memory are not copied at all, others once, here, unless they are
    aligned (``floral.data.storage.aligned``).

    Args:
      dataset: the population.
      mesh: the devices.
      examples: whether the examples themselves go there.

    Raises:
      SpecError: for more examples than devices can count in 32 bits.
    """

    def put(array: Any) -> Array:
        return replicate(aligned(np.asarray(array[:])), mesh)

    kept = dataset.splits if examples else {}
    for name, split in kept.items():
        if split.offsets[-1] > _MOST:
            raise SpecError(
                f"execution.population: split {name!r} has {split.offsets[-1]} examples, at most "
                f"{_MOST} fit on devices; set it to host"
            )
    return DeviceData(
        examples={
            name: {field: put(array) for field, array in split.examples.items()}
            for name, split in kept.items()
        },
        offsets={
            name: put(split.offsets.astype(np.int32)) for name, split in dataset.splits.items()
        },
        traits={name: put(values) for name, values in dataset.traits.items()},
        training=put(dataset.seen.astype(np.int32)),
    )


def holdings(data: DeviceData, split: str, ids: Array) -> Holdings:
    """What clients [K] hold of a split that is on the devices; nothing for an id of N (padding)."""
    return Holdings(data.examples[split], *locate(data.offsets[split], ids))


def first_of(held: Holdings, limit: Array | int) -> Holdings:
    """The same clients with so many examples at most, their first ones."""
    return held._replace(sizes=jnp.minimum(held.sizes, limit))


def own_batches(
    held: Holdings,
    place: Array,
    client: Array,
    key: Key,
    batching: Batching,
    *,
    max_size: int,
) -> Batches:
    """The batches of the cohort's client at this place; see ``floral.data``."""
    rows, mask = schedule(
        client[None],
        held.starts[place][None],
        held.sizes[place][None],
        key,
        batching,
        max_size=max_size,
    )
    return Batches(held.examples, rows[0], mask[0])


def client_context(
    data: DeviceData, client: Array, round_index: Array, key: Key, cohort_size: Array
) -> Context:
    """What a round knows about one client (an id below N); the key is the run's."""
    offsets = data.offsets["train"]
    return Context(
        round=round_index,
        public_key=stream(key, "public", round_index),
        num_examples=(offsets[client + 1] - offsets[client]).astype(jnp.float32),
        cohort_size=cohort_size,
        traits=gather_rows(data.traits, client),
    )
