"""The population on the device: data, traits, and what a round knows about one client."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from floral.data import Batching, FederatedDataset, gather
from floral.messages import Context
from floral.random import stream
from floral.simulate.state import gather_rows
from floral.typing import Array, Batch, Key

__all__ = ["DeviceData", "DeviceSplit", "client_context", "gather_one", "on_device"]


class DeviceSplit(NamedTuple):
    """One split: flat examples ``[M, ...]`` and offsets ``[N + 1]`` int32."""

    examples: Mapping[str, Array]
    offsets: Array


class DeviceData(NamedTuple):
    """The clients' data on the device.

    Attributes:
      splits: by name.
      traits: ``{name: [N, ...]}``.
      training: [n] int32, the clients that may be sampled.
    """

    splits: dict[str, DeviceSplit]
    traits: dict[str, Array]
    training: Array


def on_device(dataset: FederatedDataset) -> DeviceData:
    """A dataset as device arrays."""
    return DeviceData(
        splits={
            name: DeviceSplit(
                {field: jnp.asarray(array) for field, array in split.examples.items()},
                jnp.asarray(split.offsets, jnp.int32),
            )
            for name, split in dataset.splits.items()
        },
        traits={name: jnp.asarray(values) for name, values in dataset.traits.items()},
        training=jnp.asarray(dataset.seen, jnp.int32),
    )


def gather_one(
    data: DeviceData,
    split: str,
    client: Array,
    key: Key,
    batching: Batching,
    *,
    max_size: int,
    limit: int | None = None,
) -> Batch:
    """One client's batches ``[S, B, ...]``; see ``floral.data.gather``."""
    examples, offsets = data.splits[split]
    cohort = gather(examples, offsets, client[None], key, batching, max_size=max_size, limit=limit)
    return jax.tree.map(lambda leaf: leaf[0], cohort)


def client_context(
    data: DeviceData, client: Array, round_index: Array, key: Key, cohort_size: Array
) -> Context:
    """What a round knows about one client (an id below N); the key is the run's."""
    offsets = data.splits["train"].offsets
    return Context(
        round=round_index,
        public_key=stream(key, "public", round_index),
        num_examples=(offsets[client + 1] - offsets[client]).astype(jnp.float32),
        cohort_size=cohort_size,
        traits=gather_rows(data.traits, client),
    )
