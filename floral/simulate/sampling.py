"""Who takes part in a round."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from floral import check
from floral.errors import SpecError
from floral.typing import Array, Key

__all__ = ["Sampler", "fixed", "full"]


class Sampler(NamedTuple):
    """How cohorts are drawn.

    Attributes:
      capacity: ``(population size) -> K``, the most clients a round can have; raises SpecError
        for a population it cannot serve.
      sample: ``(key, clients [n]) -> (ids [K], active [K] bool)``; ids of inactive places mean
        nothing.
    """

    capacity: Callable[[int], int]
    sample: Callable[[Key, Array], tuple[Array, Array]]


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

    def sample(key, clients):
        cohort = capacity(clients.shape[0])
        if cohort == clients.shape[0]:
            return clients, jnp.ones((cohort,), bool)
        return jax.random.choice(key, clients, (cohort,), replace=False), jnp.ones((cohort,), bool)

    return Sampler(capacity, sample)


def full() -> Sampler:
    """Every client, every round."""
    return fixed(fraction=1.0)
