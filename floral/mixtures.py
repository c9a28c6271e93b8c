r"""Mixtures: from a client's logits to its weights over the bank.

A mixture is a point π on the simplex of the C adaptors; logits θ are its parameters, zero at the
start, so that a client begins in the middle (π_c = 1/C). Weights are always taken over the
*active* adaptors; an inactive one has weight 0.

Source: Almansoori, Horváth, Takáč, "Collaborative and Efficient Personalization with Mixtures of
Adaptors", section 5.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from floral import check
from floral.errors import SpecError
from floral.typing import Array, Key, PyTree

__all__ = [
    "Mixing",
    "agreement",
    "entropy",
    "known",
    "matching",
    "per_layer",
    "sharpness",
    "softmax",
    "top_k",
    "traits_check",
]

_LARGEST = 1e30  # logits are clipped to ±this, so that infinities cannot become inf - inf = NaN


class Mixing(NamedTuple):
    """How logits become weights.

    Attributes:
      init: ``(key, C, traits) -> logits``: ``[C]``, or ``{path prefix: [C]}`` with one mixture per
        layer. ``traits`` are the client's own, such as a known cluster.
      weights: ``(logits, *, active [C] bool, round, train, key=None) -> weights`` of the same
        structure, non-negative, summing to one over the active adaptors.
      refresh: ``(logits, losses [n, C], active, round) -> logits`` from the losses of each adaptor
        alone on the client's own training examples; None if logits only follow their gradient.
      check_traits: ``({name: [N, ...]}, C) -> None``: raises SpecError, on the host, for clients
        whose traits cannot give a mixture; None if any will do.
    """

    init: Callable[[Key, int, Any], PyTree]
    weights: Callable[..., PyTree]
    refresh: Callable[[PyTree, Array, Array, Array | int], PyTree] | None = None
    check_traits: Callable[[Mapping[str, Any], int], None] | None = None


def _zeros(key: Key, num_adaptors: int, traits: Any) -> Array:
    return jnp.zeros((num_adaptors,))


def _finite(logits: Array) -> Array:
    return jnp.clip(logits, -_LARGEST, _LARGEST)


def _softmax(logits: Array, active: Array) -> Array:
    return jax.nn.softmax(_finite(logits), where=active)


def softmax(
    *,
    temperature: float = 1.0,
    noise: float = 0.0,
    floor: float = 0.0,
    renormalize: bool = True,
) -> Mixing:
    r"""Weights ``π = softmax(θ / temperature)``, learnt by gradient descent on θ.

    Args:
      temperature: divides the logits; below one sharpens, above one flattens.
      noise: while training, uniform [0, noise) numbers are added to the logits (1.0 in the
        authors' code, none in the paper).
      floor: smaller weights of active adaptors are raised to it (0.01 in the authors' code, none
        in the paper), wherever weights are used: in training, prediction and averaging.
      renormalize: whether floored weights are scaled back to sum to one; the authors' code does
        not, so that a one-hot client gets (1, .01, .01, .01).

    Raises:
      SpecError: for a temperature that is not positive, negative noise, or a floor outside [0, 1];
        when initialised, for a floor above 1/C, which would make all weights equal.

    Example:
      >>> mixing = softmax()
      >>> logits = mixing.init(jax.random.key(0), 4, {})
      >>> mixing.weights(logits, active=jnp.ones(4, bool)).tolist()
      [0.25, 0.25, 0.25, 0.25]
    """
    check.positive(temperature=temperature)
    check.non_negative(noise=noise)
    check.in_range(0.0, 1.0, floor=floor)

    def init(key, num_adaptors, traits):
        if floor * num_adaptors > 1:
            raise SpecError(
                f"softmax: a floor of {floor} leaves nothing to mix over {num_adaptors} adaptors; "
                f"at most {1 / num_adaptors:.3g} fits"
            )
        return _zeros(key, num_adaptors, traits)

    def weights(logits, *, active, round=0, train=False, key=None):
        if train and noise and key is not None:
            logits = logits + noise * jax.random.uniform(key, logits.shape)
        mixture = _softmax(logits / temperature, active)
        if floor:
            mixture = jnp.where(active, jnp.maximum(mixture, floor), 0.0)
            mixture = mixture / mixture.sum() if renormalize else mixture
        return mixture

    return Mixing(init=init, weights=weights)


def top_k(*, k: int = 1, temperature: float = 1.0) -> Mixing:
    """Softmax over the k active adaptors of largest logit; the others get weight 0.

    Ties go to the lowest index. ``top_k(C)`` is ``softmax``; the others' logits get no gradient.

    Args:
      k: how many adaptors a client mixes.
      temperature: divides the logits.

    Raises:
      SpecError: for k below one; when initialised, for k above the number of adaptors.
    """
    check.positive_int(k=k)
    check.positive(temperature=temperature)

    def init(key, num_adaptors, traits):
        if k > num_adaptors:
            raise SpecError(f"top_k: k = {k} is more than the bank's {num_adaptors} adaptors")
        return _zeros(key, num_adaptors, traits)

    def weights(logits, *, active, round=0, train=False, key=None):
        order = jnp.argsort(jnp.where(active, -_finite(logits), jnp.inf), stable=True)
        chosen = jnp.zeros_like(active).at[order[:k]].set(True)
        return _softmax(logits / temperature, active & chosen)

    return Mixing(init=init, weights=weights)


def known(*, trait: str = "cluster") -> Mixing:
    """Mixtures that are given, not learnt: the oracle with the true clusters.

    The logits are the logarithms of the given weights and get no gradient.

    Args:
      trait: the client trait that holds its cluster (an integer below C) or its weights [C].

    Raises:
      SpecError: when initialised, if clients have no such trait; when a population is simulated,
        for a client whose trait names no adaptor.
    """

    def init(key, num_adaptors, traits):
        if trait not in traits:
            known_traits = ", ".join(sorted(traits)) or "none"
            raise SpecError(
                f"known mixtures need the client trait {trait!r}; the data give {known_traits}"
                + check.did_you_mean(trait, traits)
            )
        given = jnp.asarray(traits[trait])
        if given.ndim == 0:
            given = jax.nn.one_hot(given, num_adaptors)
        return jnp.maximum(jnp.log(given), -_LARGEST)

    def weights(logits, *, active, round=0, train=False, key=None):
        return jax.lax.stop_gradient(_softmax(logits, active))

    def check_traits(traits, num_adaptors):
        given = np.asarray(traits.get(trait, np.zeros(0, int)))
        if given.ndim == 1:
            wrong = np.flatnonzero((given < 0) | (given >= num_adaptors))
            expected = f"one of the {num_adaptors} adaptors, 0 to {num_adaptors - 1}"
        else:
            wrong = np.flatnonzero((given < 0).any(-1) | ~np.isclose(given.sum(-1), 1.0))
            expected = "weights of at least 0 that sum to 1"
            if given.shape[1:] != (num_adaptors,):
                raise SpecError(
                    f"known: the trait {trait!r} has shape {given.shape}, expected one number or "
                    f"{num_adaptors} weights a client"
                )
        if wrong.size:
            raise SpecError(
                f"known: client {wrong[0]} has {trait} {given[wrong[0]].tolist()}, expected "
                f"{expected}"
            )

    return Mixing(init=init, weights=weights, check_traits=check_traits)


def per_layer(mixing: Mixing, prefixes: Sequence[str]) -> Mixing:
    """One mixture for each path prefix, each as the given mixing has it.

    Args:
      mixing: the mixing of every layer.
      prefixes: path prefixes, such as ``params/Dense_0``; each covers the leaves below it.

    Returns:
      A mixing over ``{prefix: [C]}``.
    """

    def init(key, num_adaptors, traits):
        keys = jax.random.split(key, len(prefixes))
        return {
            prefix: mixing.init(layer_key, num_adaptors, traits)
            for prefix, layer_key in zip(prefixes, keys, strict=True)
        }

    def weights(logits, *, active, round=0, train=False, key=None):
        keys = [None] * len(prefixes) if key is None else list(jax.random.split(key, len(prefixes)))
        return {
            prefix: mixing.weights(
                logits[prefix], active=active, round=round, train=train, key=layer_key
            )
            for prefix, layer_key in zip(prefixes, keys, strict=True)
        }

    return Mixing(init=init, weights=weights, check_traits=mixing.check_traits)


def traits_check(mixing: Mixing, num_adaptors: int) -> Callable[[Mapping[str, Any]], None] | None:
    """The mixing's ``check_traits`` for a bank of C adaptors; None if any traits will do."""
    check_traits = mixing.check_traits
    if check_traits is None:
        return None
    return lambda traits: check_traits(traits, num_adaptors)


def entropy(weights: Array | np.ndarray) -> Array:
    """Shannon entropy in nats over the last axis; 0 for one-hot, log C for uniform weights."""
    return -jnp.sum(jax.scipy.special.xlogy(weights, weights), axis=-1)


def sharpness(weights: np.ndarray, *, above: float = 0.8) -> float:
    """The share of clients that put nearly all their weight on one adaptor.

    Args:
      weights: [N, C] mixtures.
      above: what "nearly all" is.
    """
    return float(np.mean(np.max(np.asarray(weights), axis=1) > above))


def matching(weights: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Which cluster each adaptor stands for: the one-to-one assignment that agrees best, since the
    adaptors' numbering means nothing.

    Args:
      weights: [N, C] mixtures.
      clusters: [N] true clusters, integers from 0.

    Returns:
      [C] integers; -1 for an adaptor without a cluster of its own.
    """
    from scipy.optimize import linear_sum_assignment  # takes longer to import than JAX's own core

    chosen = np.argmax(np.asarray(weights), axis=1)
    counts = np.zeros((np.shape(weights)[1], int(np.max(clusters)) + 1), int)
    np.add.at(counts, (chosen, clusters), 1)
    rows, columns = linear_sum_assignment(-counts)
    cluster_of = np.full(counts.shape[0], -1)
    cluster_of[rows] = columns
    return cluster_of


def agreement(
    weights: np.ndarray, clusters: np.ndarray, *, cluster_of: np.ndarray | None = None
) -> float:
    """The share of clients whose largest weight names their true cluster.

    Args:
      weights: [N, C] mixtures.
      clusters: [N] true clusters, integers from 0.
      cluster_of: [C], as ``matching`` gives it for other clients: newcomers are judged by what the
        adaptors stand for already. None matches these clients themselves.

    Example:
      >>> agreement(np.eye(2)[[1, 1, 0, 0]], np.array([0, 0, 1, 1]))
      1.0
    """
    cluster_of = matching(weights, clusters) if cluster_of is None else cluster_of
    return float(np.mean(cluster_of[np.argmax(np.asarray(weights), axis=1)] == clusters))
