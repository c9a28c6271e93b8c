"""The gap between averaging factors and products, of a round that is taken to be measured."""

import jax
import pytest

from floral import simulate, uplink


@pytest.fixture(scope="module")
def telling():
    """An uplink whose reducer tells the gap of every round."""
    return uplink.uplink(reduce=uplink.factor_mean())


def moved(sim, key=0):
    """A state in which both factors of every pair are moving."""
    state = sim.init(jax.random.key(key))
    for _ in range(2):
        state, _ = sim.round(state)
    return state


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("devices", [1, 2])
def test_it_is_what_the_next_round_of_these_clients_tells(
    build, simulator, telling, chunk, devices
):
    walk = "auto" if chunk is None else "chunk"
    execution = simulate.execution(walk=walk, chunk=chunk, devices=devices)
    sim = simulator(build("floral"), execution=execution)
    state = moved(sim)
    _, metrics = simulator(build("floral"), uplink=telling, execution=execution).round(state)
    assert 0 < float(metrics["uplink"]["averaging_gap"]) < 1
    assert sim.averaging_gap(state, range(5)) == pytest.approx(
        float(metrics["uplink"]["averaging_gap"])
    )


def test_of_some_clients_it_is_that_of_their_round(build, simulator, telling, make_population):
    absent = make_population(unseen=[False, True, False, False, True])
    sim = simulator(build("floral"))
    state = moved(sim)
    _, metrics = simulator(build("floral"), absent, uplink=telling).round(state)
    gap = float(metrics["uplink"]["averaging_gap"])
    assert sim.averaging_gap(state, [0, 2, 3]) == pytest.approx(gap)
    assert sim.averaging_gap(state, [3, 0, 2]) == pytest.approx(gap)
    assert sim.averaging_gap(state, range(5)) != pytest.approx(gap, rel=1e-2)


@pytest.mark.parametrize("options", [{}, {"population": "host", "rows": "host"}])
def test_nothing_is_changed_by_measuring(build, simulator, same, options):
    sim = simulator(build("floral"), execution=simulate.execution(**options))
    state, untouched = moved(sim), moved(sim)
    gap = sim.averaging_gap(state, [1, 4])
    same(state, untouched)
    assert gap == sim.averaging_gap(state, [1, 4])
    same(sim.round(state)[0], sim.round(untouched)[0])


def test_rows_and_examples_on_the_host_tell_the_same(build, simulator):
    there = simulator(build("floral"))
    host = simulate.execution(population="host", rows="host")
    here = simulator(build("floral"), execution=host)
    gaps = [sim.averaging_gap(moved(sim), [0, 3, 4]) for sim in (there, here)]
    assert gaps[0] == pytest.approx(gaps[1])


def test_there_is_none_where_no_pairs_are_averaged_or_every_round_tells_it(
    build, simulator, telling
):
    assert simulator(build("fedavg")).averaging_gap is None
    assert simulator(build("floral", train=("base", "mixture"))).averaging_gap is None
    one_side = ("base", "bank/**/b", "bank/**/offset", "mixture")
    assert simulator(build("floral", train=one_side)).averaging_gap is None
    assert simulator(build("floral"), uplink=telling).averaging_gap is None
