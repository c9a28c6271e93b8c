"""Memory and operations are those of the program, and a limit of memory is kept."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import lax

from floral import algorithms, losses, mixtures, models, simulate, tree
from floral.errors import SpecError
from floral.simulate.memory import largest_chunk
from floral.simulate.operations import work_of


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


def convolve(x, w, groups=1):
    return lax.conv_general_dilated(
        x,
        w,
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: convolve(x, w),
        lambda x, w: jnp.einsum("bhwc,klcd->bhwkld", x, w),
        lambda x, w: convolve(x, jnp.concatenate([w, w], axis=3)[:, :, :2], 2),
    ],
    ids=["convolution", "einsum", "grouped"],
)
def test_operations_are_the_compilers(function):
    x, w = jnp.ones((2, 6, 6, 4)), jnp.ones((3, 3, 4, 5))
    counted = work_of(function, x, w).operations
    compiled = jax.jit(function).lower(x, w).cost_analysis()["flops"]
    assert counted == pytest.approx(compiled)
    assert counted > 0


def test_gradients_of_a_convolution_cost_what_it_costs():
    x, w = jnp.ones((2, 6, 6, 4)), jnp.ones((3, 3, 4, 5))
    forward = work_of(convolve, x, w).operations
    gradient = jax.grad(lambda w, x: jnp.sum(convolve(x, w) ** 2))
    assert work_of(gradient, w, x).operations == 2 * forward
    assert work_of(gradient, w, x).of_convolutions == 2 * forward
    assert work_of(lambda x, w: x @ w, x, w[0, 0]).of_convolutions == 0


def test_loops_count_as_often_as_they_run():
    x = jnp.ones((8, 8))
    once = work_of(lambda x: x @ x, x)

    def known(x):
        return lax.fori_loop(0, 7, lambda _, y: y @ x, x)

    def unknown(x, count):
        return lax.fori_loop(0, count, lambda _, y: y @ x, x)

    assert work_of(known, x).operations == 7 * once.operations
    assert work_of(unknown, x, jnp.int32(3), trips=3).operations == 3 * once.operations
    branches = work_of(lambda x: lax.cond(x[0, 0] > 0, lambda y: y @ y, lambda y: y, x), x)
    assert branches == once


def test_a_simulators_operations_are_the_formula(build, simulator):
    """A linear layer 3 -> 2 with two live steps on average: forward and weight gradient."""
    sim = simulator(build("fedavg"))
    steps = (2 + 1 + 4 + 2 + 4) / 5
    assert sim.costs.operations == pytest.approx(steps * 2 * (2 * 2 * 3 * 2))
