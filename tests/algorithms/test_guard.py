"""What no one spoke for stays as it is, whatever the numbers and the server optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import algorithms, mixtures, simulate
from floral.algorithms.toolbox.server import guarded_step, init_stack, step_stack
from floral.messages import Reduced

OPTIMIZERS = {
    "sgd": optax.sgd(1.0),
    "momentum": optax.sgd(1.0, momentum=0.9),
    "adam": optax.adam(0.1),
    "yogi": optax.yogi(0.1),
}
EXTREMES = [1e4, -1e4, 1e30, -1e30, np.inf, -np.inf]


def _some(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_entry_without_evidence_keeps_value_moments_and_count_bit_for_bit(name, same):
    optimizer = OPTIMIZERS[name]
    stack = {"w": {"a": _some(3, 2)}}
    states = init_stack(optimizer, stack, jax.random.key(0))
    update = {"w": {"a": _some(3, 2)}}
    stack, states = step_stack(optimizer, stack, states, update, jnp.ones(3))
    silent = {"w": {"a": update["w"]["a"].at[1].set(jnp.nan)}}
    after, after_states = step_stack(optimizer, stack, states, silent, jnp.array([5.0, 0.0, 1e-30]))
    for kept in (1, 2):
        same(*(jax.tree.map(lambda leaf: leaf[kept], t) for t in (after, stack)))  # noqa: B023
        same(*(jax.tree.map(lambda leaf: leaf[kept], t) for t in (after_states, states)))  # noqa: B023
    assert np.all(after["w"]["a"][0] != stack["w"]["a"][0])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_adaptor_that_comes_back_steps_as_if_the_silent_rounds_had_not_been(name, same):
    optimizer = OPTIMIZERS[name]
    start, update = {"w": {"a": _some(1, 2)}}, {"w": {"a": _some(1, 2)}}
    spoken, silent = jnp.array([1.0]), jnp.array([0.0])

    def run(weights):
        values, states = start, init_stack(optimizer, start, jax.random.key(0))
        for weight in weights:
            values, states = step_stack(optimizer, values, states, update, weight)
        return values, states

    same(run([spoken, silent, silent, spoken]), run([spoken, spoken]))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_whole_keeps_its_bits_without_evidence(name, same):
    optimizer = OPTIMIZERS[name]
    params, update = {"w": _some(2, 2)}, {"w": _some(2, 2)}
    params, state = guarded_step(optimizer, params, optimizer.init(params), update, jnp.array(1.0))
    same(guarded_step(optimizer, params, state, update, jnp.array(0.0)), (params, state))


def test_a_guarded_step_with_evidence_is_the_optimizers_own(near):
    optimizer = OPTIMIZERS["adam"]
    params, update = {"w": _some(2, 2)}, {"w": -_some(2, 2)}
    deltas, state = optimizer.update(update, optimizer.init(params), params)
    near(
        guarded_step(optimizer, params, optimizer.init(params), update, jnp.array(3.0)),
        (optax.apply_updates(params, deltas), state),
    )


def test_an_adaptor_whose_cluster_is_absent_keeps_everything_under_adam(
    build, simulator, after, same
):
    def only_cluster_zero(key, round_index, clients):
        return jnp.array([0, 2]), jnp.ones(2, bool)

    algorithm = build("floral", mixing=mixtures.known(), server_optimizer=optax.adam(0.1))
    state = after(simulator(algorithm), 1)
    cohort = simulate.Sampler(capacity=lambda population: 2, sample=only_cluster_zero)
    moved = after(simulator(algorithm, cohort=cohort), 2, state=state)
    for part in ("bank", "bank_optimizer"):
        before, now = getattr(state.server, part), getattr(moved.server, part)
        same(*(jax.tree.map(lambda leaf: leaf[1], t) for t in (now, before)))
        zeroth = [jax.tree.leaves(jax.tree.map(lambda leaf: leaf[0], t)) for t in (now, before)]
        assert any(np.any(a != b) for a, b in zip(*zeroth, strict=True))


@pytest.fixture(scope="module")
def mixed(build, simulator):
    return simulator(build("floral", server_optimizer=optax.adam(0.1)))


@pytest.mark.parametrize("first", EXTREMES)
@pytest.mark.parametrize("second", [0.0, np.inf, -1e30])
def test_extreme_logits_never_give_a_nan(mixed, first, second):
    state = mixed.init(jax.random.key(0))
    logits = jnp.full((5, 2), jnp.array([first, second], jnp.float32))
    moved, metrics = mixed.round(state._replace(table=jax.tree.map(lambda _: logits, state.table)))
    for path, leaf in jax.tree_util.tree_leaves_with_path((moved.server, metrics)):
        assert np.all(np.isfinite(leaf)), path
    assert not np.any(np.isnan(jax.tree.leaves(moved.table)[0]))


def test_an_inactive_adaptor_gets_no_weight_and_does_not_move(mixed, same):
    state = mixed.init(jax.random.key(0))
    state = state._replace(server=state.server._replace(active=jnp.array([True, False])))
    moved, _ = mixed.round(state)
    for part in ("bank", "bank_optimizer"):
        before, now = getattr(state.server, part), getattr(moved.server, part)
        same(*(jax.tree.map(lambda leaf: leaf[1], t) for t in (now, before)))
    assert moved.table["client"]["mixture"][:, 1].tolist() == [0] * 5


@pytest.mark.parametrize("name", ["fedavg", "floral", "ensemble"])
def test_aggregating_nothing_at_all_changes_no_value(name, build, simulator, same):
    algorithm = build(name)
    server = simulator(algorithm).init(jax.random.key(0)).server
    weights = {"params": (), "base": (), "bank": (2,), "models": (2,)}
    values = {
        "fedavg": ["params"],
        "floral": ["base", "bank"],
        "ensemble": ["models"],
    }[name]
    reduced = Reduced(
        update={part: jax.tree.map(jnp.zeros_like, getattr(server, part)) for part in values},
        weight={part: jnp.zeros(weights[part]) for part in values},
    )
    context = algorithms.Context(jnp.array(0), jax.random.key(0), jnp.zeros(()), jnp.zeros(()), ())
    for part in values:
        same(getattr(algorithm.aggregate(server, reduced, context), part), getattr(server, part))
