"""Mixtures whose logits are learnt by their gradient, or given.

Source: Almansoori, Horváth, Takáč, "Collaborative and Efficient Personalization with Mixtures of
Adaptors", section 5.
"""

import jax
import jax.numpy as jnp
import numpy as np

from floral import check
from floral.errors import SpecError
from floral.first_argument import first_by_place
from floral.mixtures.base import LARGEST, Mixing, finite, softmax_over, zeros
from floral.typing import Array

__all__ = ["known", "softmax", "top_k"]


@first_by_place
def softmax(
    *,
    temperature: float = 1.0,
    noise: float = 0.0,
    floor: float = 0.0,
    renormalize: bool = True,
    plain_shares: bool = False,
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
      plain_shares: whether adaptors are averaged by ``softmax(θ)``, without temperature and floor,
        as in the authors' code.

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
    check.boolean(renormalize=renormalize, plain_shares=plain_shares)

    def init(key, num_adaptors, traits):
        if floor * num_adaptors > 1:
            raise SpecError(
                f"softmax: a floor of {floor} leaves nothing to mix over {num_adaptors} adaptors; "
                f"at most {1 / num_adaptors:.3g} fits"
            )
        return zeros(key, num_adaptors, traits)

    def weights(logits, *, active, round=0, train=False, key=None):
        if train and noise and key is not None:
            logits = logits + noise * jax.random.uniform(key, logits.shape)
        return _floored(softmax_over(logits / temperature, active), active, floor, renormalize)

    def shares(logits, *, active, round=0):
        return softmax_over(logits, active)

    return Mixing(init=init, weights=weights, shares=shares if plain_shares else None)


def _floored(mixture: Array, active: Array, floor: float, renormalize: bool) -> Array:
    """The mixture, no weight of an active adaptor below the floor."""
    if not floor:
        return mixture
    mixture = jnp.where(active, jnp.maximum(mixture, floor), 0.0)
    return mixture / mixture.sum() if renormalize else mixture


@first_by_place
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
        return zeros(key, num_adaptors, traits)

    def weights(logits, *, active, round=0, train=False, key=None):
        order = jnp.argsort(jnp.where(active, -finite(logits), jnp.inf), stable=True)
        chosen = jnp.zeros_like(active).at[order[:k]].set(True)
        return softmax_over(logits / temperature, active & chosen)

    return Mixing(init=init, weights=weights)


@first_by_place
def known(*, trait: str = "cluster", floor: float = 0.0, renormalize: bool = True) -> Mixing:
    """Mixtures that are given, not learnt: the oracle with the true clusters.

    The logits are the logarithms of the given weights and get no gradient. Adaptors are averaged
    by the given weights, whatever the floor.

    Args:
      trait: the client trait that holds its cluster (an integer below C) or its weights [C].
      floor: smaller weights are raised to it, in training and prediction (0.01 in the authors'
        code).
      renormalize: whether floored weights are scaled back to sum to one.

    Raises:
      SpecError: for a floor outside [0, 1]; when initialised, if clients have no such trait; when
        a population is simulated, for a client whose trait names no adaptor.
    """
    check.in_range(0.0, 1.0, floor=floor)
    check.boolean(renormalize=renormalize)

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
        return jnp.maximum(jnp.log(given), -LARGEST)

    def shares(logits, *, active, round=0):
        return jax.lax.stop_gradient(softmax_over(logits, active))

    def weights(logits, *, active, round=0, train=False, key=None):
        return _floored(shares(logits, active=active), active, floor, renormalize)

    def check_traits(traits, num_adaptors):
        given = np.asarray(traits.get(trait, np.zeros(0, int)))
        if given.ndim == 1:
            if given.dtype.kind not in "iu":
                raise SpecError(
                    f"known: the trait {trait!r} is {given.dtype}, expected whole numbers, each "
                    f"client's adaptor, or {num_adaptors} weights a client"
                )
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

    return Mixing(
        init=init, weights=weights, shares=shares if floor else None, check_traits=check_traits
    )
