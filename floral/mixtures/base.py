r"""Mixtures: from a client's logits to its weights over the bank.

A mixture is a point π on the simplex of the C adaptors; logits θ are its parameters, zero at the
start, so that a client begins in the middle (π_c = 1/C). Weights are always taken over the
*active* adaptors; an inactive one has weight 0.

Source: Almansoori, Horváth, Takáč, "Collaborative and Efficient Personalization with Mixtures of
Adaptors", section 5.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from floral import check
from floral.errors import SpecError
from floral.typing import Array, Key, PyTree

__all__ = [
    "LARGEST",
    "Clustering",
    "Mixing",
    "Refresh",
    "finite",
    "per_layer",
    "shares_of",
    "softmax_over",
    "traits_check",
    "zeros",
]

LARGEST = 1e30
"""Logits are clipped to ±this, so that infinities cannot become inf - inf = NaN."""


class Refresh(NamedTuple):
    """How logits follow what each adaptor alone loses on a client's own training examples.

    Attributes:
      due: ``(round) -> bool``, whether clients look at their losses before they train this round.
      logits: ``(logits [C], losses [n, C], mask [n], *, count, active [C] bool, round, prices [C])
        -> logits``, for losses of n shown examples, of which those where the mask is False are
        none; ``count`` is how many different ones there are.
      prices: ``(prices [C], shares [C], active [C] bool, round) -> prices``: what the server adds
        to each adaptor's losses next round, from the shares of this round's examples that they
        had; zeros at the start.
    """

    due: Callable[[Array | int], Array]
    logits: Callable[..., Array]
    prices: Callable[[Array, Array, Array, Array], Array]


class Clustering(NamedTuple):
    """How server and clients find clusters of clients together, by sums over clients.

    Attributes:
      init: ``(key, batch, C) -> state`` of the server, for a batch of the data's shapes.
      broadcast: ``(state) -> (now, once)``, what clients receive of it: in each round, and once.
      client_sums: ``(now, once, batches, *, count, round) -> sums``, what a client with so many
        different examples adds in a round, a tree of arrays.
      update: ``(state, mean of the clients' sums, clients, round) -> state`` after a round in which
        so many clients took part; without any the state stays.
      assign: ``(now, once, logits [C], batches, *, count, active [C] bool, round, always)`` to a
        client's logits, once groups are known; ``always`` anew, else where they are all zero.
      active: ``(state, active [C] bool, round) -> active``: the adaptors that are used after a
        round, where groups turned out to be fewer.
      groups: ``(state) -> int32``, the groups that the data show, which may be more than C; 0 while
        they have not been looked at.
    """

    init: Callable[[Key, Mapping[str, Any], int], PyTree]
    broadcast: Callable[[PyTree], tuple[PyTree, PyTree]]
    client_sums: Callable[..., PyTree]
    update: Callable[[PyTree, PyTree, Array, Array], PyTree]
    assign: Callable[..., Array]
    active: Callable[[PyTree, Array, Array], Array]
    groups: Callable[[PyTree], Array]


class Mixing(NamedTuple):
    """How logits become weights.

    Attributes:
      init: ``(key, C, traits) -> logits``: ``[C]``, or ``{path prefix: [C]}`` with one mixture per
        layer. ``traits`` are the client's own, such as a known cluster.
      weights: ``(logits, *, active [C] bool, round, train, key=None) -> weights`` of the same
        structure, non-negative, summing to one over the active adaptors.
      shares: ``(logits, *, active [C] bool, round) -> shares``, what share of a client's examples
        counts for each adaptor where adaptors are averaged; None if the weights do.
      refresh: how logits follow the losses of each adaptor alone; None if they only follow their
        gradient.
      clustering: how groups are found from what clients' data are like; None if they are not.
      check_traits: ``({name: [N, ...]}, C) -> None``: raises SpecError, on the host, for clients
        whose traits cannot give a mixture; None if any will do.
    """

    init: Callable[[Key, int, Any], PyTree]
    weights: Callable[..., PyTree]
    shares: Callable[..., PyTree] | None = None
    refresh: Refresh | None = None
    clustering: Clustering | None = None
    check_traits: Callable[[Mapping[str, Any], int], None] | None = None


def per_layer(mixing: Mixing, prefixes: Sequence[str]) -> Mixing:
    """One mixture for each path prefix, each as the given mixing has it.

    Args:
      mixing: the mixing of every layer.
      prefixes: path prefixes, such as ``params/Dense_0``; each covers the leaves below it.

    Returns:
      A mixing over ``{prefix: [C]}``.

    Raises:
      SpecError: for a mixing that follows the losses of whole adaptors, or finds groups of clients.
    """
    _check_mixing(mixing)
    if isinstance(prefixes, str) or not all(isinstance(each, str) for each in _listed(prefixes)):
        raise SpecError(
            "prefixes must be a list of paths, as ['params/Dense_0'], got "
            f"{check.described(prefixes)}"
        )
    if mixing.refresh is not None or mixing.clustering is not None:
        raise SpecError(
            "mixture_per: a mixing that follows the losses of whole adaptors, or groups clients by "
            "their data, gives one mixture for the network; set mixture_per to client, or mixing "
            "to softmax"
        )

    def init(key, num_adaptors, traits):
        keys = jax.random.split(key, len(prefixes))
        return {
            prefix: mixing.init(layer_key, num_adaptors, traits)
            for prefix, layer_key in zip(prefixes, keys, strict=True)
        }

    def shares(logits, *, active, round=0):
        return {
            prefix: shares_of(mixing, logits[prefix], active=active, round=round)
            for prefix in prefixes
        }

    def weights(logits, *, active, round=0, train=False, key=None):
        keys = [None] * len(prefixes) if key is None else list(jax.random.split(key, len(prefixes)))
        return {
            prefix: mixing.weights(
                logits[prefix], active=active, round=round, train=train, key=layer_key
            )
            for prefix, layer_key in zip(prefixes, keys, strict=True)
        }

    return Mixing(
        init=init,
        weights=weights,
        shares=None if mixing.shares is None else shares,
        check_traits=mixing.check_traits,
    )


def shares_of(mixing: Mixing, logits: PyTree, *, active: Array, round: Array | int = 0) -> PyTree:
    """What share of a client's examples counts for each adaptor where these are averaged.

    Args:
      mixing: whose logits these are.
      logits: [C], or ``{path prefix: [C]}``.
      active: [C] bool.
      round: int32.

    Returns:
      Of the logits' structure; the mixing's weights unless it says otherwise.
    """
    _check_mixing(mixing)
    logits = jax.tree.map(lambda leaf: check.numbers(leaf, what="logits"), logits)
    active = check.numbers(active, what="active")
    shapes = {leaf.shape for leaf in jax.tree.leaves(logits)}
    if active.dtype != bool or active.ndim != 1 or shapes != {active.shape}:
        raise SpecError(
            "active must be a boolean for each adaptor, [C], and logits a number for each, got "
            f"{check.described(active)} and {', '.join(str(list(shape)) for shape in shapes)}"
        )
    round = check.numbers(round, what="round")
    give = mixing.weights if mixing.shares is None else mixing.shares
    return give(logits, active=active, round=round)


def traits_check(mixing: Mixing, num_adaptors: int) -> Callable[[Mapping[str, Any]], None] | None:
    """The mixing's ``check_traits`` for a bank of C adaptors; None if any traits will do."""
    _check_mixing(mixing)
    check.positive_int(num_adaptors=num_adaptors)
    check_traits = mixing.check_traits
    if check_traits is None:
        return None
    return lambda traits: check_traits(traits, num_adaptors)


def _check_mixing(mixing: Any) -> None:
    check.instance_of(Mixing, "fl.mixtures.softmax()", mixing=mixing)


def _listed(prefixes: Any) -> Iterable[Any]:
    return prefixes if isinstance(prefixes, Sequence) else [prefixes]


def zeros(key: Key, num_adaptors: int, traits: Any) -> Array:
    """The logits of a client that knows nothing: [C] zeros."""
    return jnp.zeros((num_adaptors,))


def finite(logits: Array) -> Array:
    """The logits without infinities."""
    return jnp.clip(logits, -LARGEST, LARGEST)


def softmax_over(logits: Array, active: Array) -> Array:
    """Softmax over the active adaptors; the others have weight 0."""
    return jax.nn.softmax(finite(logits), where=active)
