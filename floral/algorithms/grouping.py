"""A mixing's grouping in an algorithm: a part of the server's state and of an update."""

import jax
import jax.numpy as jnp

from floral.data import Batches, distinct_examples
from floral.messages import Reduced, evidence
from floral.mixtures import Mixing
from floral.random import stream
from floral.typing import Array, Batch, Key, PyTree

__all__ = [
    "grouping_active",
    "grouping_learnt",
    "grouping_report",
    "grouping_start",
    "grouping_told",
    "placed",
]


def grouping_start(mixing: Mixing, key: Key, sample: Batch, count: int) -> PyTree:
    """The server's part, for C adaptors or models; () where a mixing finds no groups."""
    if mixing.grouping is None:
        return ()
    return mixing.grouping.init(stream(key, "grouping"), sample, count)


def grouping_told(mixing: Mixing, state: PyTree, batches: Batches, round: Array) -> PyTree:
    """``{"grouping": what a client adds}``, a part of its update; empty where there is none."""
    if mixing.grouping is None:
        return {}
    count = distinct_examples(batches)
    return {"grouping": mixing.grouping.tell(state, batches, count=count, round=round)}


def grouping_learnt(mixing: Mixing, state: PyTree, reduced: Reduced, round: Array) -> PyTree:
    """The server's part after a round; as it was if nobody told anything."""
    if mixing.grouping is None:
        return state
    clients = reduced.weight["grouping"]
    learnt = mixing.grouping.learn(state, reduced.update["grouping"], clients, round)
    trusted = evidence(clients)
    return jax.tree.map(lambda new, old: jnp.where(trusted, new, old), learnt, state)


def grouping_active(mixing: Mixing, state: PyTree, active: Array, round: Array) -> Array:
    """The adaptors or models in use after a round, [C] bool."""
    return active if mixing.grouping is None else mixing.grouping.active(state, active, round)


def grouping_report(mixing: Mixing, state: PyTree) -> dict[str, Array]:
    """``{"groups": how many the data show}``; empty where no one looks for any."""
    return {} if mixing.grouping is None else {"groups": mixing.grouping.groups(state)}


def placed(
    mixing: Mixing,
    state: PyTree,
    logits: Array,
    batches: Batches,
    *,
    active: Array,
    round: Array,
    always: bool = False,
) -> Array:
    """A client's logits, as the group that its examples look like has them, once that is known."""
    if mixing.grouping is None:
        return logits
    return mixing.grouping.place(
        state,
        logits,
        batches,
        count=distinct_examples(batches),
        active=active,
        round=round,
        always=always,
    )
