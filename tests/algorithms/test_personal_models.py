"""Ditto, APFL and pFedMe: a personal model beside the global one."""

import jax
import numpy as np
import pytest

from floral.errors import SpecError


def _rows(state, name="params"):
    return np.asarray(state.table["client"][name]["w"])[:, 0]


@pytest.mark.parametrize("pull", [0.0, 1.0])
def test_dittos_global_model_is_fedavgs_bit_for_bit(build, simulator, after, same, pull):
    own = after(simulator(build("ditto", pull=pull)), 3)
    same(own.server, after(simulator(build("fedavg")), 3).server)


def test_ditto_that_pulls_no_one_trains_everyone_alone(build, simulator, after, same):
    free = after(simulator(build("ditto", pull=0.0)), 3)
    alone = after(simulator(build("partial", private=("**",))), 3)
    same(free.table["client"]["params"], alone.table["client"]["params"])


def test_dittos_personal_models_come_to_rest_between_their_own_minimum_and_the_global_model(
    quadratics,
):
    pull, steps = 0.5, 200
    _, before = quadratics.run("ditto", rounds=2, steps=steps, pull=pull)
    sim, state = quadratics.run("ditto", rounds=3, steps=steps, pull=pull)
    received = float(before.server.params["w"][0])
    rest = (quadratics.slope + pull * received) / (quadratics.curvature + pull)
    np.testing.assert_allclose(_rows(state), rest, rtol=1e-5)
    x = np.ones((1, 1), np.float32)
    np.testing.assert_allclose(sim.predict(state, 1, x)[0, 0], rest[1], rtol=1e-5)


def test_apfl_is_the_algorithm_written_out(quadratics):
    rounds, steps, rate, alpha_rate = 2, 3, 0.1, 0.02
    sim, state = quadratics.run(
        "apfl", rounds=rounds, steps=steps, rate=rate, alpha=0.3, alpha_learning_rate=alpha_rate
    )
    w, own, alpha = 0.0, np.zeros(3), np.full(3, 0.3)
    for _ in range(rounds):
        ends = np.full(3, w)
        for _ in range(steps):
            mixed = alpha * own + (1 - alpha) * ends
            slope = quadratics.curvature * mixed - quadratics.slope
            alpha, own, ends = (
                np.clip(alpha - alpha_rate * slope * (own - ends), 0, 1),
                own - rate * alpha * slope,
                ends - rate * (quadratics.curvature * ends - quadratics.slope),
            )
        w = np.sum(quadratics.shares * ends)
    np.testing.assert_allclose(state.server.params["w"], w, rtol=1e-5)
    np.testing.assert_allclose(_rows(state), own, rtol=1e-5)
    np.testing.assert_allclose(state.table["client"]["alpha"], alpha, rtol=1e-5)
    assert np.all(np.abs(alpha - 0.3) > 1e-3)
    np.testing.assert_allclose(
        sim.export(state, 2)["w"], alpha[2] * own[2] + (1 - alpha[2]) * w, rtol=1e-5
    )


def test_apfl_that_trusts_its_local_models_alone_is_local_training(build, simulator, after, near):
    whole = after(simulator(build("apfl", alpha=1.0, alpha_learning_rate=0.0)), 3)
    alone = after(simulator(build("partial", private=("**",))), 3)
    near(whole.table["client"]["params"], alone.table["client"]["params"])
    near(whole.server, after(simulator(build("fedavg")), 3).server)


def test_apfl_that_never_does_is_fedavg(build, simulator, after, near):
    sim = simulator(build("apfl", alpha=0.0, alpha_learning_rate=0.0))
    average = simulator(build("fedavg"))
    state, expected = after(sim, 3), after(average, 3)
    x = np.ones((2, 3), np.float32)
    near(sim.predict(state, 2, x), average.predict(expected, 2, x))


def test_alpha_never_leaves_the_unit_interval(quadratics):
    _, state = quadratics.run("apfl", rounds=5, steps=5, alpha_learning_rate=50.0)
    alpha = np.asarray(state.table["client"]["alpha"])
    assert np.all((alpha >= 0) & (alpha <= 1))
    assert np.any((alpha == 0) | (alpha == 1))


def test_pfedme_is_the_algorithm_written_out(quadratics):
    rounds, steps, rate, inner, inner_rate, pull = 2, 3, 0.05, 4, 0.08, 3.0
    sim, state = quadratics.run(
        "pfedme",
        rounds=rounds,
        steps=steps,
        rate=rate,
        pull=pull,
        inner_steps=inner,
        personal_learning_rate=inner_rate,
    )
    w = 0.0
    for _ in range(rounds):
        ends = np.full(3, w)
        for _ in range(steps):
            own = ends
            for _ in range(inner):
                slope = quadratics.curvature * own - quadratics.slope
                own = own - inner_rate * (slope + pull * (own - ends))
            ends = ends - rate * pull * (ends - own)
        w = np.sum(quadratics.shares * ends)
    np.testing.assert_allclose(state.server.params["w"], w, rtol=1e-5)
    np.testing.assert_allclose(_rows(state), own, rtol=1e-5)
    np.testing.assert_allclose(sim.export(state, 2)["w"], own[2], rtol=1e-5)


def test_pfedme_with_exact_inner_steps_descends_the_envelopes_to_their_common_minimum(quadratics):
    """The envelope of ``h/2 w^2 - s w`` has curvature ``hλ/(h+λ)`` and its minimum at ``s/h``."""
    pull = 2.0
    _, state = quadratics.run(
        "pfedme", rounds=100, rate=0.5, pull=pull, inner_steps=80, personal_learning_rate=0.2
    )
    curvature = quadratics.curvature * pull / (quadratics.curvature + pull)
    least = quadratics.slope / quadratics.curvature
    weights = quadratics.shares * curvature
    np.testing.assert_allclose(
        state.server.params["w"], np.sum(weights * least) / np.sum(weights), rtol=1e-4
    )


def test_pfedme_refuses_a_rate_with_which_the_pull_alone_diverges(build):
    with pytest.raises(SpecError, match=r"learning_rate = 0.1 times pull = 30.0 .* at most 0.0333"):
        build("pfedme", pull=30.0)


def _moved(params, rate, slope):
    return jax.tree.map(lambda leaf, s: np.float32(leaf - rate * s), params, slope)


def _held(params, slope, centre, pull):
    """The slope with that of the pull to a centre."""
    return jax.tree.map(lambda s, leaf, c: s + pull * (leaf - c), slope, params, centre)


@pytest.fixture
def newcomer(build, network, population, jit):
    """``(name, **settings) -> (its own model, the global one, its training examples)`` of a client
    that joins, with four steps on all it has."""
    batch = population.client(2)["train"]
    shown = {**batch, "mask": np.ones(7, bool)}
    shared, _ = network.init(jax.random.key(1), shown)

    def join(name, **settings):
        algorithm = build(name, **settings)
        server = algorithm.init(jax.random.key(0), shared, ())
        row = algorithm.client_init(jax.random.key(2), server, {})
        batches = jax.tree.map(lambda leaf: np.stack([leaf] * 4), shown)
        train = jit(
            lambda row: algorithm.personalize(jax.random.key(3), server, row, batches, None)
        )
        return algorithm.export(server, train(row)), server.params, batch

    return join


@pytest.mark.parametrize("name", ["ditto", "pfedme"])
def test_a_newcomer_steps_from_the_global_model_and_is_pulled_back_to_it(
    name, newcomer, slope_of, near
):
    own, shared, batch = newcomer(name, pull=3.0)
    found = shared
    for _ in range(4):
        found = _moved(found, 0.1, _held(found, slope_of(found, batch), shared, 3.0))
    near(own, found)
    before, after = (tree["params"]["Dense_1"]["bias"] for tree in (shared, found))
    assert np.abs(after - before).max() > 0.01


def test_a_newcomer_of_apfl_trains_its_own_model_and_its_weight_and_not_the_global_one(
    newcomer, slope_of, near
):
    own, shared, batch = newcomer("apfl", alpha=0.4, alpha_learning_rate=0.5)
    mine, alpha = shared, 0.4

    def mixed():
        return jax.tree.map(lambda v, w: np.float32(alpha * v + (1 - alpha) * w), mine, shared)

    for _ in range(4):
        slope = slope_of(mixed(), batch)
        apart = jax.tree.map(lambda s, v, w: np.sum(s * (v - w)), slope, mine, shared)
        step = 0.5 * sum(jax.tree.leaves(apart))
        mine = _moved(mine, 0.1 * alpha, slope)
        alpha = np.clip(alpha - step, 0, 1)
    near(own, mixed())
    assert 0.41 < alpha < 1
