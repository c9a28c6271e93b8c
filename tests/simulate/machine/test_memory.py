"""Memory and operations are those of the program, and a limit of memory is kept."""

import jax
import optax
import pytest

from floral import algorithms, losses, mixtures, models, simulate, tree
from floral.errors import SpecError
from floral.simulate.machine.memory import largest_chunk


@pytest.mark.parametrize(
    ("fixed", "each", "limit", "expected"),
    [(10, 5, 100, 18), (10, 5, 15, 1), (10, 5, 20, 2), (10, 5, 10**6, 50), (10, 0, 11, 50)],
)
def test_the_chunk_is_the_largest_that_fits(fixed, each, limit, expected):
    assert largest_chunk(lambda c: fixed + each * c, share=50, limit=limit) == expected


def test_a_guess_that_does_not_fit_is_halved():
    """Memory that grows faster than its first two points say."""
    chunk = largest_chunk(lambda c: 10 + c * c, share=50, limit=200)
    assert 10 + chunk * chunk <= 200
    assert chunk > 2


def test_too_little_for_one_client_is_refused(build, simulator):
    little = simulate.execution(memory=1e-6)
    with pytest.raises(SpecError, match=r"execution.memory: a round of one client .* 0.0 MiB"):
        simulator(build("fedavg"), execution=little)


@pytest.fixture(scope="module")
def frozen(adapt, population):
    """``(**execution) -> Simulator`` of clients over a frozen base, which a CPU walks together."""
    model = models.mlp(2, hidden=(256,))
    algorithm = algorithms.floral(
        adapt(model),
        losses.squared_error,
        algorithms.local_solver(optax.sgd, learning_rate=0.1),
        mixtures.softmax(),
        num_adaptors=2,
        train=("mixture",),
    )

    def make(**settings):
        execution = simulate.execution(devices=1, **settings)
        return simulate.make_simulator(
            algorithm, model, population, metrics={}, execution=execution
        )

    return make


def test_a_round_keeps_to_its_limit(frozen):
    two, five = (frozen(walk="chunk", chunk=chunk).memory().device for chunk in (2, 5))
    chosen = frozen(memory=(two + five) / 2 / 2**30)
    assert chosen.memory().device <= (two + five) / 2
    assert 1 < chosen.chunk < 5
    assert frozen(memory=1.0).chunk == frozen().chunk == 5


def test_a_cpu_with_room_to_spare_still_walks_as_is_fastest(build, simulator):
    assert simulator(build("floral"), execution=simulate.execution(memory=1.0)).chunk == 1


def test_the_parts_of_memory_are_what_they_are_named_for(build, simulator):
    sim = simulator(build("floral"))
    state = sim.init(jax.random.key(0))
    memory = sim.memory()
    assert memory.population == tree.num_bytes(sim.data)
    assert memory.state == sim.devices * tree.num_bytes(state)
    assert memory.outputs >= tree.num_bytes(state.server)
    parts = (memory.population, memory.state, memory.outputs, memory.temporaries)
    assert memory.peak == sum(parts)
    donating = simulator(build("floral"), donate=True).memory()
    assert donating.outputs < memory.outputs


def test_a_population_on_the_host_counts_two_cohorts_and_the_same_state(build, simulator):
    on_device = simulator(build("floral")).memory()
    sim = simulator(build("floral"), execution=simulate.execution(population="host"))
    memory = sim.memory()
    share = -(-5 // sim.devices)
    # On each device room for the largest clients (7, 7, 4 of 5) with 3 + 2 floats; besides, for
    # each place a start, a size, and everywhere all ids.
    room = sum((7, 7, 4, 4, 1)[:share])
    cohort = sim.devices * 4 * (room * (3 + 2) + 2 * share + sim.devices * share)
    assert memory.cohorts == 2 * cohort
    assert memory.state == on_device.state


def test_a_simulators_operations_are_the_formula(build, simulator):
    """Layers 3 -> 4 -> 2: forward and weight gradients, and the last one's input gradient."""
    sim = simulator(build("fedavg"))
    steps = (2 + 1 + 4 + 2 + 4) / 5
    products = 2 * (3 * 4 + 4 * 2) + 4 * 2
    assert sim.costs.operations == pytest.approx(steps * 2 * 2 * products)
