"""Cohorts are drawn uniformly, without repetition, at a cost that knows no population."""

from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from scipy import stats

from floral.simulate.sampling import distinct


@pytest.mark.parametrize(("population", "count"), [(1, 1), (2, 1), (5, 2), (9, 9), (1000, 100)])
def test_numbers_are_distinct_and_of_the_population(population, count):
    for seed in range(10):
        drawn = distinct(jax.random.key(seed), population, count).tolist()
        assert len(set(drawn)) == count
        assert set(drawn) <= set(range(population))


@pytest.mark.parametrize(("population", "count"), [(7, 3), (4, 3)], ids=["drawn", "permuted"])
def test_all_ordered_draws_are_equally_likely(population, count):
    """With 3 of 7, six draws hold fewer than three different numbers now and then."""
    keys = jax.random.split(jax.random.key(0), 21_000)
    drawn = jax.jit(jax.vmap(lambda key: distinct(key, population, count)))(keys)
    seen = Counter(map(tuple, drawn.tolist()))
    outcomes = 1
    for taken in range(count):
        outcomes *= population - taken
    counts = [*seen.values(), *[0] * (outcomes - len(seen))]
    assert len(seen) <= outcomes
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_cohort_of_a_huge_population_is_drawn_in_an_array_of_its_own_size():
    program = jax.make_jaxpr(lambda key: distinct(key, 10**9, 50))(jax.random.key(0))
    largest = max(v.aval.size for e in program.jaxpr.eqns for v in e.outvars)
    assert largest <= 200
    assert int(jnp.max(distinct(jax.random.key(0), 10**9, 50))) > 10**7
