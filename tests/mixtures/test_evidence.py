"""Mixtures from losses: closed forms, what they minimise, and that padding is no evidence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floral import mixtures
from floral.errors import SpecError

C, N = 3, 5
ALL = jnp.ones(C, bool)
SHOWN = jnp.ones(N, bool)

losses = st.lists(
    st.floats(0, 5, width=32, allow_subnormal=False), min_size=N * C, max_size=N * C
).map(lambda values: jnp.array(values, jnp.float32).reshape(N, C))
points = st.lists(
    st.floats(0.0078125, 1, width=32, allow_subnormal=False), min_size=C, max_size=C
).map(lambda values: np.array(values) / np.sum(values))


def weights(
    mixing, losses, *, start=None, mask=SHOWN, active=ALL, round=0, count=None, prices=None
):
    logits = mixing.refresh.logits(
        jnp.zeros(C) if start is None else start,
        losses,
        mask,
        count=mask.sum() if count is None else count,
        active=active,
        round=round,
        prices=jnp.zeros(C) if prices is None else jnp.asarray(prices),
    )
    return np.asarray(mixing.weights(logits, active=active))


@given(losses=losses, other=points, rate=st.sampled_from([0.1, 1.0, 3.0]))
def test_exponential_weights_minimise_the_regularised_loss(losses, other, rate):
    def objective(point):
        entropy = -np.sum(np.where(point > 0, point * np.log(np.maximum(point, 1e-300)), 0))
        return rate * point @ np.asarray(losses, float).sum(0) - entropy

    found = weights(mixtures.exponential_weights(rate=rate), losses).astype(float)
    # float32 sums of five losses of up to five, times the rate
    assert objective(found / found.sum()) <= objective(other) + 1e-4


def test_exponential_weights_are_the_posterior():
    """Of a client whose examples are all drawn from one of three known normal distributions."""
    means, x = np.array([-1.0, 0.0, 2.0]), np.array([-0.9, -0.2, -0.6, 0.1, -1.5])
    densities = np.exp(-0.5 * (x[:, None] - means) ** 2).prod(0)
    found = weights(mixtures.exponential_weights(), jnp.array(0.5 * (x[:, None] - means) ** 2))
    np.testing.assert_allclose(found, densities / densities.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    "mixing", [mixtures.exponential_weights(), mixtures.responsibilities(steps=3)]
)
def test_what_is_not_shown_and_who_is_not_active_give_no_evidence(mixing):
    rng = np.random.default_rng(0)
    losses = jnp.array(rng.random((N, C)), jnp.float32)
    mask = jnp.arange(N) < 3
    padded = losses.at[3:].set(jnp.inf)
    np.testing.assert_allclose(
        weights(mixing, padded, mask=mask), weights(mixing, losses[:3], mask=SHOWN[:3])
    )
    active = jnp.array([True, False, True])
    found = weights(mixing, losses.at[:, 1].set(-9.0), active=active)
    assert found[1] == 0
    two = losses[:, jnp.array([0, 2])]
    logits = mixing.refresh.logits(
        jnp.zeros(2), two, SHOWN, count=N, active=jnp.ones(2, bool), round=0, prices=jnp.zeros(2)
    )
    np.testing.assert_allclose(
        found[[0, 2]], mixing.weights(logits, active=jnp.ones(2, bool)), rtol=1e-5
    )


@pytest.mark.parametrize("mixing", [mixtures.exponential_weights(), mixtures.responsibilities()])
def test_a_client_without_examples_learns_nothing(mixing):
    found = weights(mixing, jnp.tile(jnp.arange(float(C)), (N, 1)), mask=jnp.zeros(N, bool))
    np.testing.assert_allclose(found, 1 / C)


def test_examples_shown_twice_count_once():
    rng = np.random.default_rng(0)
    once = jnp.array(rng.random((N, C)), jnp.float32)
    mixing = mixtures.exponential_weights()
    twice = weights(mixing, jnp.concatenate([once, once]), mask=jnp.ones(2 * N, bool), count=N)
    np.testing.assert_allclose(twice, weights(mixing, once), rtol=1e-5)


@given(losses=losses, start=points)
def test_a_step_of_expectation_maximisation_never_lowers_the_likelihood(losses, start):
    def likelihood(point):
        return np.log(np.exp(-np.asarray(losses, float)) @ np.maximum(point, 1e-300)).sum()

    found = weights(mixtures.responsibilities(), losses, start=jnp.log(jnp.array(start)))
    assert likelihood(found / found.sum()) >= likelihood(start) - 1e-4
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-5)


def test_the_rate_rises_over_its_rounds_and_memory_pools_them():
    losses = jnp.array([[0.0, 1.0, 2.0]])
    mask = jnp.ones(1, bool)

    def odds(mixing, round, start=None):
        found = weights(mixing, losses, mask=mask, round=round, start=start)
        return np.log(found[0] / found[1])

    rising = mixtures.exponential_weights(anneal=4)
    np.testing.assert_allclose(
        [odds(rising, t) for t in (0, 1, 3, 9)], [0.25, 0.5, 1, 1], rtol=1e-5
    )
    pooled, former = mixtures.exponential_weights(memory=0.5), jnp.array([0.0, -3.0, 0.0])
    np.testing.assert_allclose(odds(pooled, 1, former), 0.5 * 3 + 1, rtol=1e-5)


def test_random_rounds_draw_one_adaptor_and_are_then_forgotten():
    mixing = mixtures.exponential_weights(random_rounds=2, every=3, memory=0.9)
    keys = jax.random.split(jax.random.key(0), 300)
    logits = jax.vmap(lambda key: mixing.init(key, C, {}))(keys)
    drawn = np.asarray(jax.vmap(lambda row: mixing.weights(row, active=ALL))(logits))
    np.testing.assert_array_equal(drawn.max(1), 1)
    assert (drawn.sum(0) > 60).all()  # 100 expected of each, five standard deviations are 41
    assert [bool(mixing.refresh.due(t)) for t in range(7)] == [
        False,
        False,
        True,
        False,
        False,
        True,
        False,
    ]
    losses = jnp.array([[0.0, 1.0, 2.0]])
    fresh = weights(mixtures.exponential_weights(), losses, mask=jnp.ones(1, bool))
    for row in logits[:3]:
        found = weights(mixing, losses, mask=jnp.ones(1, bool), start=row, round=2)
        np.testing.assert_allclose(found, fresh, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (mixtures.exponential_weights, {"rate": 0.0}, "rate"),
        (mixtures.exponential_weights, {"every": 0}, "every"),
        (mixtures.exponential_weights, {"memory": 1.5}, "memory"),
        (mixtures.exponential_weights, {"anneal": -1}, "anneal"),
        (mixtures.exponential_weights, {"balance": 0.3}, "give settle"),
        (mixtures.responsibilities, {"steps": 0}, "steps"),
    ],
)
def test_settings_out_of_range_are_named(make, settings, message):
    with pytest.raises(SpecError, match=message):
        make(**settings)


def test_one_mixture_a_layer_cannot_follow_the_losses_of_whole_adaptors():
    with pytest.raises(SpecError, match="set mixture_per to client"):
        mixtures.per_layer(mixtures.exponential_weights(), ["a"])


def test_a_price_is_a_loss_that_every_example_pays():
    rng = np.random.default_rng(0)
    losses = jnp.array(rng.random((N, C)), jnp.float32)
    prices = jnp.array([0.3, 0.0, -0.1])
    mixing = mixtures.exponential_weights(rate=0.7)
    np.testing.assert_allclose(
        weights(mixing, losses, prices=prices),
        weights(mixing, losses + jnp.tile(prices, (N, 1))),
        rtol=1e-5,
    )


def test_prices_pull_shares_together_and_then_vanish():
    mixing = mixtures.exponential_weights(balance=0.5, random_rounds=3, settle=10)
    shares, active = jnp.array([0.75, 0.25, 0.0]), jnp.array([True, True, False])

    def price(start, round):
        return np.asarray(mixing.refresh.prices(jnp.array(start), shares, active, round))

    np.testing.assert_array_equal(price([0.0, 0.0, 0.0], 2), 0)  # groups are still random
    np.testing.assert_allclose(price([0.0, 0.0, 0.0], 3), [0.125, -0.125, 0], rtol=1e-6)
    np.testing.assert_allclose(price([1.0, 1.0, 0.0], 12), [1.025, 0.775, 0], rtol=1e-6)
    np.testing.assert_array_equal(price([1.0, 1.0, 0.0], 13), 0)  # the market is closed


def test_while_mixtures_settle_clients_look_in_every_round():
    mixing = mixtures.exponential_weights(random_rounds=2, settle=3, every=4)
    due = [round for round in range(14) if mixing.refresh.due(round)]
    assert due == [2, 3, 4, 6, 10]


def test_without_a_balance_there_are_no_prices():
    shares = jnp.array([1.0, 0.0, 0.0])
    for mixing in (mixtures.exponential_weights(), mixtures.responsibilities()):
        assert not mixing.refresh.prices(jnp.zeros(C), shares, ALL, 5).any()
