import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floral.messages import evidence
from floral.uplink import weighted_mean

K, C = 5, 3
MEAN = weighted_mean()

# Sums of five float32 terms of order one, reassociated.
TOLERANCE = 1e-5

seeds = st.integers(0, 2**16)
positive = st.floats(0.125, 100.0, width=32)
client_weights = st.lists(positive, min_size=K, max_size=K).map(lambda w: np.array(w, np.float32))


def _updates(seed):
    rng = np.random.default_rng(seed)
    return {
        "base": {"w": rng.standard_normal((K, 4, 2)).astype(np.float32)},
        "bank": {"w": {"a": rng.standard_normal((K, C, 2)).astype(np.float32)}},
    }


def _weights(per_client, seed=0):
    mixtures = np.random.default_rng(seed).dirichlet(np.ones(C), K)
    return {"base": per_client, "bank": (per_client[:, None] * mixtures).astype(np.float32)}


def _set(array, place, value):
    changed = array.copy()
    changed[place] = value
    return changed


@jax.jit
def _reduce(updates, weights):
    return MEAN.reduce(updates, weights, ())[0]


_add = jax.jit(MEAN.fold.add)


@given(seeds, client_weights)
def test_the_mean_is_the_formula_leaf_by_leaf(seed, per_client):
    updates, weights = _updates(seed), _weights(per_client, seed)
    reduced = _reduce(updates, weights)
    base, bank = (np.asarray(weights[part], np.float64) for part in ("base", "bank"))
    np.testing.assert_allclose(
        reduced.update["base"]["w"],
        np.einsum("k,kij->ij", base / base.sum(), updates["base"]["w"]),
        atol=TOLERANCE,
    )
    np.testing.assert_allclose(
        reduced.update["bank"]["w"]["a"],
        np.einsum("kc,kci->ci", bank / bank.sum(0), updates["bank"]["w"]["a"]),
        atol=TOLERANCE,
    )
    np.testing.assert_allclose(reduced.weight["bank"], bank.sum(0), rtol=TOLERANCE)


@given(seeds, client_weights)
def test_the_mean_lies_in_the_convex_hull(seed, per_client):
    updates = _updates(seed)
    reduced = _reduce(updates, _weights(per_client, seed)).update
    for mean, values in zip(jax.tree.leaves(reduced), jax.tree.leaves(updates), strict=True):
        assert np.all(mean <= np.max(values, axis=0) + TOLERANCE)
        assert np.all(mean >= np.min(values, axis=0) - TOLERANCE)


@given(seeds, client_weights, st.sampled_from([2.0**-20, 0.5, 1024.0]))
def test_scaling_all_weights_changes_no_mean(seed, per_client, scale):
    updates, weights = _updates(seed), _weights(per_client, seed)
    scaled = jax.tree.map(lambda w: w * scale, weights)
    left, right = _reduce(updates, weights), _reduce(updates, scaled)
    # Scaling by a power of two is exact, so not even rounding differs.
    jax.tree.map(np.testing.assert_array_equal, left.update, right.update)


@given(seeds, client_weights, st.permutations(range(K)))
def test_the_order_of_clients_is_irrelevant(seed, per_client, order):
    both = _updates(seed), _weights(per_client, seed)
    shuffled = jax.tree.map(lambda leaf: leaf[np.array(order)], both)
    left, right = _reduce(*both), _reduce(*shuffled)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE), left, right
    )


@given(seeds, client_weights, st.lists(st.integers(1, K - 1), max_size=3, unique=True))
def test_folding_in_any_pieces_is_the_whole_reduction(seed, per_client, cuts):
    both = _updates(seed), _weights(per_client, seed)
    sums = MEAN.fold.zero(*jax.tree.map(lambda leaf: leaf[0], both))
    edges = [0, *sorted(cuts), K]
    for start, stop in itertools.pairwise(edges):
        sums = _add(sums, *jax.tree.map(lambda leaf: leaf[start:stop], both))  # noqa: B023
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE),
        MEAN.fold.finish(sums),
        _reduce(*both),
    )


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_client_of_weight_zero_changes_nothing_whatever_it_sends(poison, same):
    updates, weights = _updates(0), _weights(np.ones(K, np.float32))
    silent = jax.tree.map(lambda w: _set(w, 2, 0.0), weights)
    poisoned = jax.tree.map(lambda u: _set(u, 2, poison), updates)
    without = jax.tree.map(lambda u: _set(u, 2, 0.0), updates)
    same(_reduce(poisoned, silent), _reduce(without, silent))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(_reduce(poisoned, silent)))


def test_a_nan_for_one_adaptor_stays_with_that_adaptor():
    updates, weights = _updates(0), _weights(np.ones(K, np.float32))
    updates["bank"]["w"]["a"][2, 1] = np.nan
    reduced = _reduce(updates, {**weights, "bank": _set(weights["bank"], (2, 1), 0.0)})
    assert np.isfinite(reduced.update["bank"]["w"]["a"]).all()


def test_an_adaptor_that_no_one_spoke_for_has_update_zero_and_says_so():
    updates, weights = _updates(0), _weights(np.ones(K, np.float32))
    reduced = _reduce(updates, {**weights, "bank": _set(weights["bank"], (slice(None), 1), 0.0)})
    assert reduced.weight["bank"][1] == 0
    assert reduced.update["bank"]["w"]["a"][1].tolist() == [0, 0]
    assert np.all(reduced.update["bank"]["w"]["a"][0] != 0)


def test_a_share_that_is_all_rounding_noise_counts_as_no_evidence():
    weights = {"w": jnp.array([[10.0, 1e-38], [10.0, 1e-38]])}
    reduced = _reduce({"w": jnp.ones((2, 2))}, weights)
    assert reduced.update["w"].tolist() == [1, 0]


def test_no_client_at_all_gives_zeros_and_no_nan():
    updates, weights = _updates(0), _weights(np.zeros(K, np.float32))
    reduced = _reduce(updates, weights)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(reduced))


def test_an_empty_update_reduces_to_an_empty_update():
    reduced = _reduce({}, {})
    assert reduced.update == reduced.weight == {}


def test_evidence_is_relative_so_that_units_of_weight_do_not_matter():
    for scale in (1e-30, 1.0, 1e30):
        weight = jnp.array([1.0, 1e-3, 1e-9, 0.0]) * scale
        assert evidence(weight).tolist() == [True, True, False, False]
    assert bool(evidence(jnp.array(1e-30)))
    assert not bool(evidence(jnp.array(0.0)))
    assert evidence(jnp.zeros(3)).tolist() == [False] * 3
