"""How clients find their mixtures in an algorithm: by groups of alike data, by losses, or neither.

A mixing may ask for a part of the server's state, of what is sent to clients, and of what they
send; here are those parts, for any algorithm with C adaptors or models.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from floral.algorithms.toolbox.adaptor_losses import next_prices, refreshed
from floral.data import Batches, distinct_examples
from floral.messages import GROUPING, Download, Reduced, evidence
from floral.mixtures import Mixing
from floral.random import stream
from floral.typing import Array, Batch, Key, PyTree

__all__ = [
    "Finding",
    "finding_learnt",
    "finding_report",
    "finding_sent",
    "finding_start",
    "finding_told",
    "found_logits",
]


class Finding(NamedTuple):
    """What the server keeps for it.

    Attributes:
      prices: [C], what is added to the losses that mixtures follow; () where they follow none.
      grouping: what is known of the clients' data; () where mixtures do not come from it.
    """

    prices: PyTree
    grouping: PyTree


def finding_start(mixing: Mixing, key: Key, sample: Batch, count: int) -> Finding:
    """The server's part at the start, for C adaptors or models and batches like the sample."""
    grouping = mixing.grouping
    return Finding(
        prices=() if mixing.refresh is None else jnp.zeros((count,)),
        grouping=() if grouping is None else grouping.init(stream(key, "grouping"), sample, count),
    )


def finding_sent(mixing: Mixing, finding: Finding) -> tuple[Finding, PyTree]:
    """What clients receive of it: each round, and once for all."""
    if mixing.grouping is None:
        return finding, ()
    now, once = mixing.grouping.sent(finding.grouping)
    return finding._replace(grouping=now), once


def found_logits(
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
    """A client's logits, as its examples and then each adaptor's losses on them have them.

    Args:
      mixing: where it has no such part, logits stay as they are.
      received: what ``finding_sent`` gives is its ``"finding"``, fresh and cached.
      logits: [C].
      losses_each: ``(batch of B) -> [B, C]``, what each adaptor alone loses.
      batches: the client's.
      active: [C] bool.
      round: int32.
      always: whether to look whenever it is: a client that knows nothing does.
    """
    if mixing.grouping is not None:
        logits = mixing.grouping.place(
            *_grouping(received),
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
        prices=received.fresh["finding"].prices,
        always=always,
    )


def finding_told(mixing: Mixing, received: Download, batches: Batches, round: Array) -> PyTree:
    """``{"grouping": what a client adds}``, a part of its update; empty where there is none."""
    if mixing.grouping is None:
        return {}
    count = distinct_examples(batches)
    told = mixing.grouping.tell(*_grouping(received), batches, count=count, round=round)
    return {GROUPING: told}


def finding_learnt(
    mixing: Mixing,
    finding: Finding,
    reduced: Reduced,
    active: Array,
    round: Array,
    *,
    examples: Array | None,
) -> tuple[Finding, Array]:
    """The server's part and the adaptors in use after a round.

    Args:
      mixing: the algorithm's.
      finding: before the round.
      reduced: of the round; what nobody told changes nothing.
      active: [C] bool, in use before it.
      round: int32, this round.
      examples: [C], that each adaptor had; None where none of them moves.
    """
    prices, grouping = finding
    if examples is not None:
        prices = next_prices(mixing.refresh, prices, examples, active, round)
    if mixing.grouping is not None:
        clients = reduced.weight[GROUPING]
        learnt = mixing.grouping.learn(grouping, reduced.update[GROUPING], clients, round)
        told = evidence(clients)
        grouping = jax.tree.map(lambda new, old: jnp.where(told, new, old), learnt, grouping)
        active = mixing.grouping.active(grouping, active, round)
    return Finding(prices, grouping), active


def finding_report(mixing: Mixing, finding: Finding, count: int) -> dict[str, Array]:
    """``{"groups": how many the data show, "bank": the C that can serve them}``; empty where no one
    looks for any."""
    if mixing.grouping is None:
        return {}
    return {"groups": mixing.grouping.groups(finding.grouping), "bank": jnp.asarray(count)}


def _grouping(received: Download) -> tuple[PyTree, PyTree]:
    """What was received of a grouping: now, and once."""
    return received.fresh["finding"].grouping, received.cached["finding"]
