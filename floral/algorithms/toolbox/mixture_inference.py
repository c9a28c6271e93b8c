"""How an algorithm infers mixtures: from clusters of clients, from losses, or not at all.

A mixing may ask for a part of the server's state, of what is sent to clients, and of what they
send; here are those parts, for any algorithm with C adaptors or models.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from floral.algorithms.toolbox.adaptor_losses import next_prices, refreshed
from floral.data import Batches, distinct_examples
from floral.messages import Download, Reduced, evidence
from floral.mixtures import Mixing
from floral.random import stream
from floral.typing import Array, Batch, Key, PyTree

__all__ = [
    "MixtureInference",
    "client_sums",
    "infer_logits",
    "inference_report",
    "start_inference",
    "to_client",
    "update_inference",
]


class MixtureInference(NamedTuple):
    """What the server keeps to infer mixtures by.

    Attributes:
      prices: [C], what is added to the losses that mixtures follow; () where they follow none.
      clustering: what is known of the clients' data; () where mixtures do not come from it.
    """

    prices: PyTree
    clustering: PyTree


def start_inference(mixing: Mixing, key: Key, sample: Batch, count: int) -> MixtureInference:
    """The server's part at the start, for C adaptors or models and batches like the sample."""
    clustering: PyTree = ()
    if mixing.clustering is not None:
        clustering = mixing.clustering.init(stream(key, "grouping"), sample, count)
    prices = () if mixing.refresh is None else jnp.zeros((count,))
    return MixtureInference(prices, clustering)


def to_client(mixing: Mixing, inference: MixtureInference) -> tuple[MixtureInference, PyTree]:
    """What clients receive of it: in each round, and once."""
    if mixing.clustering is None:
        return inference, ()
    now, once = mixing.clustering.broadcast(inference.clustering)
    return inference._replace(clustering=now), once


def infer_logits(
    mixing: Mixing,
    received: Download,
    logits: Array,
    losses_each: Callable[[Batch], Array],
    batches: Batches,
    *,
    active: Array,
    round: Array,
    always: bool = False,
) -> Array:
    """A client's logits, inferred from its examples, then from each adaptor's losses on them.

    Args:
      mixing: where it infers nothing, logits stay as they are.
      received: ``to_client`` gives its ``"inference"``, fresh and cached.
      logits: [C].
      losses_each: ``(batch of B) -> [B, C]``, the losses of each adaptor alone.
      batches: the client's.
      active: [C] bool.
      round: int32.
      always: whether to infer them in any round, as a client that knows nothing must.
    """
    if mixing.clustering is not None:
        logits = mixing.clustering.assign(
            *_clustering(received),
            logits,
            batches,
            count=distinct_examples(batches),
            active=active,
            round=round,
            always=always,
        )
    return refreshed(
        mixing.refresh,
        logits,
        losses_each,
        batches,
        active=active,
        round=round,
        prices=received.fresh["inference"].prices,
        always=always,
    )


def client_sums(mixing: Mixing, received: Download, batches: Batches, round: Array) -> PyTree:
    """A client's part of the sums by which clients are clustered, for ``Upload.sums``.

    Returns:
      ``{"clustering": tree of arrays, "clients": 1.0}``; () for a mixing that does not cluster.
    """
    if mixing.clustering is None:
        return ()
    count = distinct_examples(batches)
    sums = mixing.clustering.client_sums(*_clustering(received), batches, count=count, round=round)
    return {"clustering": sums, "clients": jnp.ones(())}


def update_inference(
    mixing: Mixing,
    inference: MixtureInference,
    reduced: Reduced,
    active: Array,
    round: Array,
    *,
    examples: Array | None,
) -> tuple[MixtureInference, Array]:
    """The server's part and the active adaptors after a round.

    Args:
      mixing: the algorithm's.
      inference: before the round.
      reduced: of the round; without any client nothing changes.
      active: [C] bool, before the round.
      round: int32, this round.
      examples: [C], each adaptor's examples; None where no adaptor moves.
    """
    prices, clustering = inference
    if examples is not None:
        prices = next_prices(mixing.refresh, prices, examples, active, round)
    if mixing.clustering is not None:
        clients = reduced.sums["clients"]
        anyone = evidence(clients)
        mean = jax.tree.map(
            lambda total: jnp.where(anyone, total / jnp.where(anyone, clients, 1), 0),
            reduced.sums["clustering"],
        )
        updated = mixing.clustering.update(clustering, mean, clients, round)
        clustering = jax.tree.map(lambda new, old: jnp.where(anyone, new, old), updated, clustering)
        active = mixing.clustering.active(clustering, active, round)
    return MixtureInference(prices, clustering), active


def inference_report(mixing: Mixing, inference: MixtureInference, count: int) -> dict[str, Array]:
    """``{"groups": how many the data show, "bank": the C that can serve them}``; empty for a mixing
    that does not cluster."""
    if mixing.clustering is None:
        return {}
    return {"groups": mixing.clustering.groups(inference.clustering), "bank": jnp.asarray(count)}


def _clustering(received: Download) -> tuple[PyTree, PyTree]:
    """What was received to cluster by: in this round, and once."""
    return received.fresh["inference"].clustering, received.cached["inference"]
