"""Cohorts are drawn uniformly, without repetition, at a cost that knows no population."""

from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from scipy import stats

from floral import simulate
from floral.errors import SpecError
from floral.simulate.sampling import distinct


@pytest.mark.parametrize(("population", "count"), [(1, 1), (2, 1), (5, 2), (9, 9), (1000, 100)])
def test_numbers_are_distinct_and_of_the_population(population, count, jit):
    draw = jit(lambda key: distinct(key, population, count))
    for seed in range(10):
        drawn = draw(jax.random.key(seed)).tolist()
        assert len(set(drawn)) == count
        assert set(drawn) <= set(range(population))


@pytest.mark.parametrize(("population", "count"), [(7, 3), (4, 3)], ids=["drawn", "permuted"])
def test_all_ordered_draws_are_equally_likely(population, count, jit):
    """With 3 of 7, six draws hold fewer than three different numbers now and then."""
    keys = jax.random.split(jax.random.key(0), 21_000)
    drawn = jit(jax.vmap(lambda key: distinct(key, population, count)))(keys)
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


def test_scheduled_cohorts_are_taken_in_turn(build, simulator):
    """Also in one compiled call, and from the start again when they end."""
    cohorts = [[0, 3], [2, -1], [1, 4]]
    sim = simulator(build("fedavg"), cohort=simulate.scheduled(cohorts))
    start = sim.init(jax.random.key(0))
    _, together = sim.rounds(start, 4)
    assert together["cohort"].tolist() == [2, 1, 2, 2]
    assert together["examples"].tolist() == [8, 7, 8, 8]
    sizes = (4, 1, 7, 4, 7)
    for row, examples in zip(cohorts, together["examples"].tolist(), strict=False):
        assert sum(sizes[client] for client in row if client >= 0) == examples


@pytest.mark.parametrize(
    ("cohorts", "message"),
    [([1, 2], r"\[rounds, clients a round\]"), ([[0.5]], "float64"), ([[5]], "client 5 is")],
)
def test_a_schedule_that_makes_no_sense_is_refused(cohorts, message, build, simulator):
    with pytest.raises(SpecError, match=message):
        simulator(build("fedavg"), cohort=simulate.scheduled(cohorts))


def test_a_fraction_is_rounded_to_the_nearest_number_of_clients():
    assert simulate.fixed(fraction=0.19).capacity(10) == 2
    assert simulate.fixed(fraction=0.11).capacity(10) == 1
    assert simulate.fixed(fraction=0.01).capacity(10) == 1


def test_a_schedule_begins_again_when_it_ends():
    replayed = simulate.scheduled([[3], [0], [2]])
    drawn = [
        int(replayed.sample(jax.random.key(0), jnp.int32(t), jnp.arange(4))[0][0]) for t in range(7)
    ]
    assert drawn == [3, 0, 2, 3, 0, 2, 3]
