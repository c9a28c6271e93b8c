"""Groups from sketches: what a sketch keeps, what the server learns from sums, where clients go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral import mixtures
from floral.data import as_batches
from floral.errors import SpecError
from floral.mixtures.clustering.sketch import make_tables, moments, sketched

KEY = jax.random.key(0)
GROUPS, CLIENTS, EXAMPLES, WIDTH = 3, 60, 12, 10
ALL = jnp.ones(GROUPS, bool)


def batch_of(x, y):
    return {"x": jnp.asarray(x, jnp.float32), "y": jnp.asarray(y)}


def clients_of(kind, *, seed=0, group=None):
    """Inputs ``[K, 1, n, D]`` and labels: groups have means, or names of classes, of their own."""
    rng = np.random.default_rng(seed)
    group = np.arange(CLIENTS) % GROUPS if group is None else group
    y = rng.integers(4, size=(CLIENTS, EXAMPLES))
    of_class = 2 * rng.standard_normal((4, WIDTH))
    of_group = rng.standard_normal((GROUPS, WIDTH))
    x = of_class[y] + rng.standard_normal((CLIENTS, EXAMPLES, WIDTH))
    if kind == "inputs":
        x += 1.5 * of_group[group][:, None]
    if kind == "labels":
        y = (y + group[:, None]) % 4
    mask = np.ones((CLIENTS, 1, EXAMPLES), bool)
    return {"x": x[:, None].astype(np.float32), "y": y[:, None], "mask": mask}, group


def learnt(mixing, clients, *, rounds, cohort=None, adaptors=GROUPS):
    """The server's state after rounds in which everyone, or a part, tells what it is asked."""
    clustering, rng = mixing.clustering, np.random.default_rng(1)
    state = clustering.init(KEY, {name: leaf[0, 0] for name, leaf in clients.items()}, adaptors)

    @jax.jit
    def take(state, ids, round):
        own = jax.tree.map(lambda leaf: leaf[ids], clients)
        sums = jax.vmap(
            lambda one: clustering.client_sums(
                *clustering.broadcast(state), as_batches(one), count=EXAMPLES, round=round
            )
        )(own)
        mean = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), sums)
        return clustering.update(state, mean, jnp.float32(len(ids)), round)

    clients = jax.tree.map(jnp.asarray, clients)
    for round in range(rounds):
        ids = rng.choice(CLIENTS, cohort or CLIENTS, replace=False)
        state = take(state, jnp.asarray(ids), jnp.int32(round))
    return state


def logits_of(mixing, state, clients, *, round, start=None, always=False, active=ALL):
    start = jnp.zeros(len(active)) if start is None else start

    def place(one):
        return mixing.clustering.assign(
            *mixing.clustering.broadcast(state),
            start,
            as_batches(one),
            count=EXAMPLES,
            active=active,
            round=jnp.int32(round),
            always=always,
        )

    return jax.vmap(place)(jax.tree.map(jnp.asarray, clients))


def test_sketches_multiply_as_inputs_of_one_label_do():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 50)), np.array([0, 1, 2, 0, 1, 2])
    tables = make_tables(KEY, batch_of(x, y), 100_000)
    z = np.asarray(sketched(tables, batch_of(x, y)))
    expected = np.where(y[:, None] == y, x @ x.T / 50, 0.0)
    # a mean of 1e5 products, each with a standard deviation of up to about two
    np.testing.assert_allclose(z @ z.T / 1e5, expected, atol=0.03)


def test_sketches_of_numbers_multiply_as_both_parts_do():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((5, 50)), rng.standard_normal((5, 2))
    tables = make_tables(KEY, batch_of(x, y.astype(np.float32)), 100_000)
    z = np.asarray(sketched(tables, batch_of(x, y.astype(np.float32))))
    np.testing.assert_allclose(
        z @ z.T / 1e5, (x @ x.T / 50) * (1 + y @ y.T), atol=0.15
    )  # factors of variance 3


def test_moments_are_of_different_examples_and_of_no_padding():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((5, 4)).astype(np.float32), np.array([0, 1, 1, 0, 1])
    tables = make_tables(KEY, batch_of(x, y), 6)
    rows = np.array([[0, 1, 2], [3, 4, 0], [2, 0, 1], [4, 3, 2]])  # two epochs
    mask = np.array([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 0]], bool)
    batches = as_batches({"x": jnp.zeros((4, 3, 4)), "mask": mask})
    batches = batches._replace(examples=batch_of(x, y), rows=jnp.asarray(rows))
    found = moments(tables, batches, jnp.int32(5))
    z = np.asarray(sketched(tables, batch_of(x, y)))
    np.testing.assert_allclose(found.mean, z.mean(0), rtol=1e-5, atol=1e-6)
    centred = z - z.mean(0)
    np.testing.assert_allclose(found.scatter, centred.T @ centred, rtol=1e-4, atol=1e-4)
    assert not np.any(moments(tables, batches, jnp.int32(5), scatter=False).scatter)


@pytest.mark.parametrize("kind", ["inputs", "labels"])
@pytest.mark.parametrize("cohort", [None, 20])
def test_groups_are_found_by_inputs_or_by_the_meaning_of_labels(kind, cohort):
    rounds = 1 if cohort is None else 10
    mixing = mixtures.discriminants(size=24, survey_rounds=rounds, group_rounds=2 * rounds + 6)
    clients, group = clients_of(kind)
    state = learnt(mixing, clients, rounds=3 * rounds + 6, cohort=cohort)
    logits = logits_of(mixing, state, clients, round=3 * rounds + 6)
    assert mixtures.agreement(jax.nn.softmax(logits), group) >= 0.95
    assert int(state.groups) == GROUPS


@pytest.mark.parametrize("seed", range(3))
def test_groups_far_smaller_than_another_are_found(seed):
    group = np.where(np.arange(CLIENTS) < 6, 1 + np.arange(CLIENTS) // 3, 0)  # 54, 3 and 3
    mixing = mixtures.discriminants(size=24, survey_rounds=1, group_rounds=1)
    clients, _ = clients_of("labels", seed=seed, group=group)
    state = learnt(mixing, clients, rounds=2)
    logits = logits_of(mixing, state, clients, round=2)
    assert mixtures.agreement(jax.nn.softmax(logits), group) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_where_there_are_no_groups_none_are_seen(seed):
    mixing = mixtures.discriminants(size=24, survey_rounds=1, group_rounds=1)
    state = learnt(mixing, clients_of("none", seed=seed)[0], rounds=1)
    assert int(state.groups) == 1
    # the edge for F-matrices (Wachter), of means of clients over the scatter of their examples
    means, scatter = 24 / CLIENTS, 24 / (CLIENTS * (EXAMPLES - 1))
    edge = ((1 + np.sqrt(means + scatter - means * scatter)) / (1 - scatter)) ** 2
    assert float(state.spread[0]) < 1.15 * edge


@pytest.mark.parametrize(("adaptors", "used"), [(7, 3), (3, 3), (2, 2)])
def test_a_bank_too_large_rests_in_part_and_one_too_small_is_told(adaptors, used):
    mixing = mixtures.discriminants(size=24, survey_rounds=1, group_rounds=8, find_count=True)
    clients, group = clients_of("labels")
    state = learnt(mixing, clients, rounds=9, adaptors=adaptors)
    before, after = (
        mixing.clustering.active(state, jnp.ones(adaptors, bool), jnp.int32(round))
        for round in (7, 8)
    )
    assert before.all()
    assert after.tolist() == [c < used for c in range(adaptors)]
    assert int(mixing.clustering.groups(state)) == GROUPS
    logits = logits_of(mixing, state, clients, round=9, active=after)
    weights = np.asarray(mixing.weights(logits, active=after))
    assert not weights[:, used:].any()
    if used == GROUPS:
        assert mixtures.agreement(weights, group) == 1.0


def test_directions_are_discriminant():
    """Along them examples of a client have variance one and are uncorrelated."""
    mixing = mixtures.discriminants(size=8, survey_rounds=1, group_rounds=1)
    clients, _ = clients_of("inputs")
    state = learnt(mixing, clients, rounds=1)
    flat = {name: leaf.reshape(-1, *leaf.shape[3:]) for name, leaf in clients.items()}
    sketches = np.asarray(sketched(state.tables, flat)).reshape(CLIENTS, EXAMPLES, 8)
    means = sketches.mean(1)
    deviations = (sketches - means[:, None]).reshape(-1, 8)
    within = deviations.T @ deviations / (CLIENTS * (EXAMPLES - 1))
    directions = np.asarray(state.directions)
    np.testing.assert_allclose(directions.T @ within @ directions, np.eye(2), atol=2e-3)
    among = EXAMPLES * np.cov(means.T)
    values = np.diag(directions.T @ among @ directions)
    np.testing.assert_allclose(values, state.spread[:2], rtol=1e-2)


def test_logits_are_a_posterior_over_groups(near):
    mixing = mixtures.discriminants(size=8, survey_rounds=1, group_rounds=4)
    clients, _ = clients_of("inputs")
    state = learnt(mixing, clients, rounds=5)
    found = jax.nn.softmax(logits_of(mixing, state, clients, round=5))
    for k in (0, 1, 2, 7):
        batches = as_batches(jax.tree.map(lambda leaf, k=k: jnp.asarray(leaf[k]), clients))
        own = moments(state.tables, batches, jnp.int32(EXAMPLES))
        y = np.asarray((own.mean - state.center) @ state.directions, float)
        away = np.square(np.asarray(state.centroids, float) - y).sum(-1)
        density = np.exp(-EXAMPLES * (away - away.min()) / 2)
        np.testing.assert_allclose(found[k], density / density.sum(), rtol=1e-3, atol=1e-6)


def test_a_client_is_placed_once_and_not_before_groups_are_known():
    mixing = mixtures.discriminants(size=8, survey_rounds=1, group_rounds=2)
    clients, _ = clients_of("inputs")
    state = learnt(mixing, clients, rounds=3)
    assert not np.any(logits_of(mixing, state, clients, round=2))
    placed = logits_of(mixing, state, clients, round=3)
    assert np.any(placed)
    own = jnp.array([0.0, 5.0, 0.0])
    kept = logits_of(mixing, state, clients, round=3, start=own)
    np.testing.assert_array_equal(kept, np.broadcast_to(own, kept.shape))
    anew = logits_of(mixing, state, clients, round=3, start=own, always=True)
    np.testing.assert_array_equal(anew, placed)


def test_later_rounds_are_told_nothing_and_teach_nothing(same):
    mixing = mixtures.discriminants(size=8, survey_rounds=1, group_rounds=2)
    clients, _ = clients_of("inputs")
    same(learnt(mixing, clients, rounds=3), learnt(mixing, clients, rounds=6))


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        (np.zeros((2, 3), np.int32), np.zeros(2, np.int32), "float inputs 'x', got int32"),
        (np.zeros((2, 3)), np.zeros((2, 5), np.int32), r"got int32 of shape \[B, 5\]"),
    ],
)
def test_data_without_a_sketch_are_refused(x, y, match):
    with pytest.raises(SpecError, match=match):
        mixtures.discriminants().clustering.init(KEY, {"x": x, "y": y}, GROUPS)


def test_settings_are_checked():
    with pytest.raises(SpecError, match="survey_rounds"):
        mixtures.discriminants(survey_rounds=0)
    with pytest.raises(SpecError, match="one mixture for the network"):
        mixtures.per_layer(mixtures.discriminants(), ["params/Dense_0"])
