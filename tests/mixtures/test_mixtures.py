import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floral import mixtures
from floral.errors import SpecError

KEY = jax.random.key(0)
C = 4
ALL = jnp.ones(C, bool)

# float32 sums of four terms: a few units in the last place.
TOLERANCE = 1e-6

FACTORIES = {
    "softmax": mixtures.softmax(),
    "sharp": mixtures.softmax(temperature=0.01),
    "noisy": mixtures.softmax(noise=1.0),
    "floored": mixtures.softmax(floor=0.01),
    "top_1": mixtures.top_k(k=1),
    "top_3": mixtures.top_k(k=3),
    "known": mixtures.known(),
}

numbers = st.one_of(
    st.floats(-20, 20, width=32),
    st.sampled_from([1e4, -1e4, 1e30, -1e30, 3e38, -3e38, float("inf"), float("-inf")]),
)
logit_vectors = st.lists(numbers, min_size=C, max_size=C).map(lambda v: jnp.array(v, jnp.float32))
masks = (
    st.lists(st.booleans(), min_size=C, max_size=C).filter(any).map(lambda v: jnp.array(v, bool))
)
_compiled = {
    (name, train): jax.jit(
        lambda logits, active, mixing=mixing, train=train: mixing.weights(
            logits, active=active, round=3, train=train, key=KEY
        )
    )
    for name, mixing in FACTORIES.items()
    for train in (False, True)
}

_gradients = {
    name: jax.jit(
        jax.grad(
            lambda logits, active, mixing=mixing: (
                mixing.weights(logits, active=active) @ jnp.arange(float(C))
            )
        )
    )
    for name, mixing in FACTORIES.items()
}


def _weights(mixing, logits, *, active=ALL, **settings):
    return mixing.weights(jnp.asarray(logits, jnp.float32), active=active, **settings)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", FACTORIES)
@given(logits=logit_vectors, active=masks)
def test_every_mixture_lies_on_the_simplex_of_the_active_adaptors(name, train, logits, active):
    weights = np.asarray(_compiled[name, train](logits, active))
    assert np.all(weights >= 0)
    np.testing.assert_array_equal(weights[~np.asarray(active)], 0)
    np.testing.assert_allclose(weights.sum(), 1, rtol=TOLERANCE)


@pytest.mark.parametrize("name", ["softmax", "sharp", "floored", "top_3"])
@given(logits=logit_vectors, active=masks)
def test_the_gradient_of_a_mixture_is_finite_at_every_logit(name, logits, active):
    assert np.all(np.isfinite(_gradients[name](logits, active)))


@pytest.mark.parametrize("name", ["softmax", "top_1", "top_3", "floored"])
def test_shifting_all_logits_by_a_constant_changes_nothing(name, near):
    logits = jnp.array([1.0, -2.0, 0.5, 3.0])
    # 8 is a power of two: the shifted logits are exact.
    near(_weights(FACTORIES[name], logits), _weights(FACTORIES[name], logits + 8.0), TOLERANCE)


def test_a_client_begins_in_the_middle():
    for name in ("softmax", "floored"):
        logits = FACTORIES[name].init(KEY, C, {})
        assert _weights(FACTORIES[name], logits).tolist() == [0.25] * 4


def test_temperature_divides_the_logits(near):
    logits = jnp.array([1.0, -2.0, 0.5, 3.0])
    near(
        _weights(mixtures.softmax(temperature=4.0), logits),
        jax.nn.softmax(logits / 4.0),
        TOLERANCE,
    )


def test_noise_is_added_in_training_only_and_only_from_a_key(same):
    noisy, plain = mixtures.softmax(noise=1.0), mixtures.softmax()
    logits = jnp.array([1.0, -2.0, 0.5, 3.0])
    for settings in ({}, {"key": KEY}, {"train": True}):
        same(_weights(noisy, logits, **settings), _weights(plain, logits))
    drawn = _weights(noisy, logits, train=True, key=KEY)
    by_hand = jax.nn.softmax(logits + jax.random.uniform(KEY, (C,)))
    np.testing.assert_allclose(drawn, by_hand, rtol=TOLERANCE)


def test_a_floor_without_renormalisation_gives_the_authors_weights():
    authors = mixtures.softmax(floor=0.01, renormalize=False)
    weights = _weights(authors, [100.0, -100.0, -100.0, -100.0])
    np.testing.assert_allclose(weights, [1, 0.01, 0.01, 0.01], rtol=TOLERANCE)


def test_adaptors_are_averaged_by_the_weights_unless_plain_shares_are_asked_for(same):
    logits, settings = jnp.array([1.0, -2.0, 0.5, 3.0]), {"temperature": 0.5, "floor": 0.1}
    for mixing in (mixtures.softmax(**settings), mixtures.top_k(k=2), mixtures.known()):
        same(mixtures.shares_of(mixing, logits, active=ALL), _weights(mixing, logits))
    plain = mixtures.softmax(**settings, plain_shares=True)
    same(mixtures.shares_of(plain, logits, active=ALL), jax.nn.softmax(logits))
    same(_weights(plain, logits), _weights(mixtures.softmax(**settings), logits))
    layered = mixtures.per_layer(plain, ["one", "two"])
    both = mixtures.shares_of(layered, {"one": logits, "two": -logits}, active=ALL)
    same(both["two"], jax.nn.softmax(-logits))


def test_the_oracle_with_a_floor_leaks_in_prediction_and_not_in_averages():
    authors = mixtures.known(floor=0.01, renormalize=False)
    logits = authors.init(KEY, C, {"cluster": jnp.array(2)})
    np.testing.assert_allclose(_weights(authors, logits), [0.01, 0.01, 1, 0.01], rtol=TOLERANCE)
    assert mixtures.shares_of(authors, logits, active=ALL).tolist() == [0, 0, 1, 0]


def test_a_renormalised_floor_sums_to_one_and_leaves_inactive_adaptors_at_zero():
    active = jnp.array([True, True, False, True])
    floored = mixtures.softmax(floor=0.01)
    weights = _weights(floored, [100.0, -100.0, -100.0, -100.0], active=active)
    np.testing.assert_allclose(weights, np.array([1, 0.01, 0, 0.01]) / 1.02, rtol=TOLERANCE)


def test_top_c_is_softmax(near):
    logits = jnp.array([1.0, -2.0, 0.5, 3.0])
    active = jnp.array([True, False, True, True])
    near(
        _weights(mixtures.top_k(k=C, temperature=2.0), logits, active=active),
        _weights(mixtures.softmax(temperature=2.0), logits, active=active),
        TOLERANCE,
    )


def test_top_k_is_softmax_among_the_k_largest_active():
    weights = _weights(
        mixtures.top_k(k=2),
        [9.0, 1.0, 0.0, -5.0],
        active=jnp.array([False, True, True, True]),
    )
    np.testing.assert_allclose(
        weights, [0, np.e / (1 + np.e), 1 / (1 + np.e), 0], rtol=TOLERANCE, atol=TOLERANCE
    )


def test_ties_of_top_k_go_to_the_lowest_index():
    assert _weights(mixtures.top_k(k=1), [1.0, 2.0, 2.0, 2.0]).tolist() == [0, 1, 0, 0]
    assert _weights(mixtures.top_k(k=2), [0.0] * 4).tolist() == [0.5, 0.5, 0, 0]


def test_top_k_never_prefers_an_inactive_adaptor_to_an_active_one_at_minus_infinity():
    active = jnp.array([False, False, False, True])
    logits = [0.0, 0.0, 0.0, -jnp.inf]
    assert _weights(mixtures.top_k(k=1), logits, active=active).tolist() == [0, 0, 0, 1]


def test_the_logits_that_top_k_leaves_out_get_no_gradient():
    gradient = jax.grad(
        lambda logits: _weights(mixtures.top_k(k=2), logits) @ jnp.arange(float(C))
    )(jnp.array([1.0, -2.0, 0.5, 3.0]))
    assert gradient.tolist()[1:3] == [0, 0]
    assert abs(gradient[0]) > 0.1


def test_the_gradient_of_softmax_is_the_weight_times_the_advantage(near):
    logits, values = jnp.array([1.0, -2.0, 0.5, 3.0]), jnp.array([0.3, 1.0, -2.0, 0.1])
    weights = jax.nn.softmax(logits)
    gradient = jax.grad(lambda logits: _weights(mixtures.softmax(), logits) @ values)(logits)
    near(gradient, weights * (values - weights @ values), TOLERANCE)


def test_a_known_cluster_is_one_hot_exactly_and_gets_no_gradient():
    mixing = mixtures.known()
    logits = mixing.init(KEY, C, {"cluster": jnp.array(2)})
    assert _weights(mixing, logits).tolist() == [0, 0, 1, 0]
    gradient = jax.grad(lambda logits: _weights(mixing, logits) @ jnp.arange(float(C)))(logits)
    assert gradient.tolist() == [0, 0, 0, 0]


def test_known_weights_are_given_back(near):
    given_weights = jnp.array([0.5, 0.0, 0.2, 0.3])
    mixing = mixtures.known(trait="share")
    logits = mixing.init(KEY, C, {"share": given_weights})
    near(_weights(mixing, logits), given_weights, TOLERANCE)


def test_a_known_cluster_beyond_the_bank_is_seen_at_no_adaptor():
    # Traced ids cannot be refused: one-hot of an id of C or more is all zero, hence uniform.
    logits = mixtures.known().init(KEY, C, {"cluster": jnp.array(7)})
    assert _weights(mixtures.known(), logits).tolist() == [0.25] * 4


def test_populations_that_name_no_adaptor_are_refused():
    refuse = mixtures.traits_check(mixtures.known(), 2)
    assert refuse is not None
    refuse({"cluster": np.array([0, 1, 1])})
    refuse({"cluster": np.array([[0.5, 0.5], [0.0, 1.0]])})
    for trait, words in (
        (np.array([0, 2]), "client 1 has cluster 2"),
        (np.array([-1, 0]), "client 0 has cluster -1"),
        (np.array([[0.5, 0.4]]), "client 0 has cluster"),
        (np.ones((2, 3)) / 3, "has shape"),
    ):
        with pytest.raises(SpecError, match=words):
            refuse({"cluster": trait})
    assert mixtures.traits_check(mixtures.softmax(), 2) is None


def test_newcomers_are_judged_by_what_adaptors_stand_for():
    trained, clusters = np.eye(2)[[0, 0, 1, 1]], np.array([1, 1, 0, 0])
    cluster_of = mixtures.matching(trained, clusters)
    assert cluster_of.tolist() == [1, 0]
    wrong = np.eye(2)[[1, 0]]  # alone, any two clients that differ would match perfectly
    newcomers = np.array([1, 0])
    assert mixtures.agreement(wrong, newcomers) == 1.0
    assert mixtures.agreement(wrong, newcomers, cluster_of=cluster_of) == 0.0


def test_a_missing_trait_is_named_with_the_nearest_one():
    with pytest.raises(SpecError) as caught:
        mixtures.known(trait="clster").init(KEY, C, {"cluster": 1, "rank": 2})
    assert str(caught.value) == (
        "known mixtures need the client trait 'clster'; the data give cluster, rank; "
        "did you mean 'cluster'?"
    )


def test_per_layer_gives_every_prefix_a_mixture_of_its_own():
    mixing = mixtures.per_layer(mixtures.softmax(), ["Dense_0", "Dense_1"])
    logits = mixing.init(KEY, C, {})
    assert list(logits) == ["Dense_0", "Dense_1"]
    moved = {**logits, "Dense_1": jnp.array([100.0, 0.0, 0.0, 0.0])}
    weights = mixing.weights(moved, active=ALL)
    assert weights["Dense_0"].tolist() == [0.25] * 4
    assert weights["Dense_1"].tolist() == [1, 0, 0, 0]


def test_the_layers_of_a_noisy_mixture_draw_apart():
    mixing = mixtures.per_layer(mixtures.softmax(noise=1.0), ["Dense_0", "Dense_1"])
    weights = mixing.weights(mixing.init(KEY, C, {}), active=ALL, train=True, key=KEY)
    assert weights["Dense_0"].tolist() != weights["Dense_1"].tolist()


@pytest.mark.parametrize(
    "make",
    [
        lambda: mixtures.softmax(temperature=0.0),
        lambda: mixtures.softmax(noise=-1.0),
        lambda: mixtures.softmax(floor=1.5),
        lambda: mixtures.top_k(k=0),
        lambda: mixtures.top_k(temperature=-1.0),
        lambda: mixtures.top_k(k=5).init(KEY, 4, {}),
    ],
)
def test_a_setting_out_of_range_is_refused(make):
    with pytest.raises(SpecError):
        make()


def test_entropy_is_zero_at_a_corner_and_log_c_in_the_middle():
    weights = jnp.array([[1.0, 0, 0, 0], [0.25] * 4])
    np.testing.assert_allclose(mixtures.entropy(weights), [0, np.log(4)], atol=TOLERANCE)


def test_sharpness_counts_clients_above_the_bar():
    weights = np.array([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5], [0.05, 0.95]])
    assert mixtures.sharpness(weights) == 0.5
    assert mixtures.sharpness(weights, above=0.4) == 1.0


def test_agreement_ignores_how_adaptors_are_numbered():
    weights = np.eye(3)[[2, 2, 0, 0, 1]]
    assert mixtures.agreement(weights, np.array([0, 0, 1, 1, 2])) == 1.0
    assert mixtures.agreement(weights[:, [1, 2, 0]], np.array([0, 0, 1, 1, 2])) == 1.0


def test_agreement_lets_no_two_adaptors_claim_one_cluster():
    assert mixtures.agreement(np.eye(2)[[0, 1, 0, 1]], np.array([0, 0, 0, 0])) == 0.5


def test_agreement_is_defined_for_more_or_fewer_adaptors_than_clusters():
    assert mixtures.agreement(np.eye(5)[[4, 4, 3]], np.array([0, 0, 1])) == 1.0
    assert mixtures.agreement(np.ones((4, 1)), np.array([0, 0, 1, 2])) == 0.5


def test_cluster_scores_know_groups_by_any_number_and_chance_by_none():
    clusters = np.repeat(np.arange(4), 50)
    same = mixtures.cluster_scores(np.eye(5)[(clusters + 2) % 5], clusters)
    assert same == {"ari": 1.0, "nmi": 1.0}
    drawn = np.random.default_rng(0).integers(4, size=200)
    chance = mixtures.cluster_scores(np.eye(4)[drawn], clusters)
    assert abs(chance["ari"]) < 0.03
    assert chance["nmi"] < 0.1


def test_cluster_scores_are_those_of_scikit_learn():
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    rng = np.random.default_rng(0)
    for clients, adaptors, groups in itertools.product((1, 2, 7, 30), (1, 2, 5), (1, 3)):
        chosen, clusters = rng.integers(adaptors, size=clients), rng.integers(groups, size=clients)
        for truth in (clusters, chosen, np.arange(clients)):
            found = mixtures.cluster_scores(np.eye(adaptors)[chosen], truth)
            ari = adjusted_rand_score(truth, chosen)
            nmi = normalized_mutual_info_score(truth, chosen)
            assert found == pytest.approx({"ari": ari, "nmi": nmi}, abs=1e-12)


def test_effective_adaptors_count_what_a_population_uses():
    assert mixtures.effective_adaptors(np.full((3, 4), 0.25)) == pytest.approx(4)
    assert mixtures.effective_adaptors(np.eye(4)[[2, 2]]) == pytest.approx(1)
    halves = mixtures.effective_adaptors(np.eye(4)[[0, 0, 1, 2]])
    assert 2 < halves < 3
