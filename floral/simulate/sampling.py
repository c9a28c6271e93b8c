"""Who takes part in a round."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from floral import check
from floral.errors import SpecError
from floral.first_argument import first_by_place
from floral.typing import Array, Key

__all__ = ["Sampler", "distinct", "fixed", "full", "scheduled"]


class Sampler(NamedTuple):
    """How cohorts are drawn.

    Attributes:
      capacity: ``(population size) -> K``, the most clients a round can have; raises SpecError
        for a population it cannot serve.
      sample: ``(key, round, clients [n]) -> (ids [K], active [K] bool)``, for the training
        clients' ids; ids of inactive places mean nothing.
    """

    capacity: Callable[[int], int]
    sample: Callable[[Key, Array, Array], tuple[Array, Array]]


@first_by_place
def fixed(*, size: int | None = None, fraction: float | None = None) -> Sampler:
    """The same number of clients every round, uniformly without replacement.

    Args:
      size: clients a round.
      fraction: clients a round as a share of the population, rounded, at least one.

    Raises:
      SpecError: unless exactly one of the two is given; for a cohort larger than the population.
    """
    if (size is None) == (fraction is None):
        raise SpecError(
            f"give either size or fraction, got size = {size} and fraction = {fraction}"
        )
    if size is not None:
        check.positive_int(size=size)
    if fraction is not None:
        check.positive(fraction=fraction)
        check.in_range(0.0, 1.0, fraction=fraction)

    def capacity(population):
        cohort = size if size is not None else max(1, round(fraction * population))
        if cohort > population:
            raise SpecError(
                f"cohort.size: {cohort} clients a round, but only {population} clients train; "
                f"at most {population} fit"
            )
        return cohort

    def sample(key, round_index, clients):
        population = clients.shape[0]
        cohort = capacity(population)
        everyone = jnp.ones((cohort,), bool)
        if cohort == population:
            return clients, everyone
        return clients[distinct(key, population, cohort)], everyone

    return Sampler(capacity, sample)


def full() -> Sampler:
    """Every client, every round."""
    return fixed(fraction=1.0)


def scheduled(cohorts: Any) -> Sampler:
    """Cohorts that are known beforehand: a trace that is replayed, from its start when it ends.

    Args:
      cohorts: [R, K] places among the training clients, which are their ids where all clients
        train; round t is the row t mod R, a negative number an empty place.

    Raises:
      SpecError: unless they are rows of whole numbers; for one beyond the training clients.

    Example:
      >>> replayed = scheduled([[3, 1], [0, -1]])
      >>> ids, active = replayed.sample(jax.random.key(0), jnp.int32(3), jnp.arange(4))
      >>> ids[active].tolist()
      [0]
    """
    what = "cohorts, ids [rounds, clients a round],"
    rows = check.array(cohorts, what=what, axes=2, whole=True)

    def capacity(population):
        if rows.max() >= population:
            raise SpecError(
                f"cohorts: client {rows.max()} is scheduled, but only {population} clients train"
            )
        return rows.shape[1]

    def sample(key, round_index, clients):
        places = jnp.asarray(rows, jnp.int32)[round_index % rows.shape[0]]
        return clients[jnp.maximum(places, 0)], places >= 0

    return Sampler(capacity, sample)


def distinct(key: Key, population: int, count: int) -> Array:
    """``count`` of the numbers 0 … population - 1, none twice, all sets equally likely: [count].

    Costs O(count log count) whatever the population: of twice as many independent draws the first
    ``count`` different ones are kept, and in the rare case of too few all are drawn again, which
    favours no number. From half the population on, a permutation is as cheap.

    Example:
      >>> sorted(distinct(jax.random.key(0), 5, 5).tolist())
      [0, 1, 2, 3, 4]
    """
    if 2 * count > population:
        return jax.random.permutation(key, population)[:count]

    def draw(attempt: Array) -> tuple[Array, Array]:
        values = jax.random.randint(
            jax.random.fold_in(key, attempt), (2 * count,), 0, population, jnp.int32
        )
        by_value = jnp.argsort(values, stable=True)
        repeats = jnp.diff(values[by_value], prepend=-1) == 0
        again = jnp.zeros((2 * count,), bool).at[by_value].set(repeats)
        return values[jnp.argsort(again, stable=True)[:count]], jnp.sum(~again)

    def redraw(carry):
        attempt, _, _ = carry
        return (attempt + 1, *draw(attempt + 1))

    start = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(lambda carry: carry[2] < count, redraw, (start, *draw(start)))[1]
