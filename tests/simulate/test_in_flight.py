"""A loop that reads no result may not run far ahead of two devices of a CPU, which would hang."""

import jax
import pytest

from floral import simulate


@pytest.mark.parametrize("donate", [False, True])
def test_the_host_is_no_more_than_two_rounds_ahead_of_two_devices(build, simulator, donate):
    sim = simulator(build("fedavg"), execution=simulate.execution(devices=2), donate=donate)
    state = sim.init(jax.random.key(0))
    taken = []
    for _ in range(40):
        state, metrics = sim.round(state)
        taken.append(metrics["cohort"])
        assert all(older.is_ready() for older in taken[:-2])
    assert int(state.round) == 40


def test_a_round_of_two_devices_that_was_only_traced_is_not_waited_for(build, simulator):
    sim = simulator(build("fedavg"), execution=simulate.execution(devices=2))
    state = sim.init(jax.random.key(0))
    jax.eval_shape(sim.round, state)
    for _ in range(4):
        state, _ = sim.round(state)
    assert int(state.round) == 4
