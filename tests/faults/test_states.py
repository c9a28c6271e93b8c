"""A state is used by the simulator that it fits; another's rows or params are never read as its own."""

# ruff: noqa: E501  (a row is a line)

import jax
import numpy as np
import optax
import pytest

from floral import models, simulate
from floral.errors import SpecError

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def simulators(build, make_population, simulator, network):
    def made(name, population, model=network, rows="device", **settings):
        return simulate.make_simulator(
            build(name, model=model, **settings), model, population, metrics={},
            execution=simulate.execution(rows=rows, devices=1),
        )  # fmt: skip

    five, three = make_population(), make_population(sizes=(2, 1, 3), clusters=(0, 1, 0))
    return {
        "ditto": made("ditto", five),
        "fewer clients": made("ditto", three),
        "ditto, rows on the host": made("ditto", five, rows="host"),
        "fewer clients, rows on the host": made("ditto", three, rows="host"),
        "fedavg": made("fedavg", five),
        "another width": made("fedavg", five, models.mlp(2, hidden=(5,))),
        "momentum": made("fedavg", five, server_optimizer=optax.sgd(1.0, momentum=0.9)),
    }


PAIRS = {
    "rows of fewer clients": ("fewer clients", "ditto", "rows of 3 clients, the population has 5"),
    "rows of more clients": ("ditto", "fewer clients", "rows of 5 clients, the population has 3"),
    "fewer, on the host": ("fewer clients, rows on the host", "ditto, rows on the host", "rows of 3 clients"),
    "no rows": ("fedavg", "ditto", "state.table lacks 'client/params"),
    "rows for none": ("ditto", "fedavg", "state.table has an unknown 'client/params"),
    "another shape": ("another width", "fedavg", r"state.server: 'params/params/Dense_0/bias' has shape \(5,\), expected \(4,\)"),
    "another optimizer": ("momentum", "fedavg", "state.server has an unknown 'optimizer/"),
}  # fmt: skip


@pytest.mark.parametrize(("whose", "used", "said"), PAIRS.values(), ids=PAIRS)
def test_a_state_of_another_simulator_is_refused_by_every_use(simulators, whose, used, said):
    state, sim = simulators[whose].init(KEY), simulators[used]
    for use in (
        lambda: sim.round(state),
        lambda: sim.rounds(state, 2),
        lambda: sim.evaluate(state),
        lambda: sim.client(state, 0),
        lambda: sim.predict(state, 0, np.ones((1, 3), "f")),
        lambda: sim.export(state, 0),
    ):
        with pytest.raises(SpecError, match=f"{said}.*go on from a state of this simulator"):
            use()


def test_a_state_of_its_own_is_taken_with_keys_of_any_generator(simulators):
    state = simulators["fedavg"].init(jax.random.key(0, impl="rbg"))
    assert int(simulators["fedavg"].round(state)[0].round) == 1
