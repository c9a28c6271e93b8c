"""Batch norm: the statistics travel beside the params, padding left out."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import adaptors, algorithms, data, losses, mixtures, models, simulate
from floral.errors import SpecError

LOCAL = algorithms.local_solver(optax.sgd, learning_rate=0.05)


class Normed(nn.Module):
    """A batch norm that counts its steps, then a dense layer."""

    @nn.compact
    def __call__(self, x, train=False, mask=None):
        count = self.variable("counters", "steps", lambda: jnp.zeros((), jnp.int32))
        if train:
            count.value += 1
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.5)
        mask = None if mask is None else jnp.broadcast_to(mask[:, None], x.shape)
        return nn.Dense(2)(norm(x, mask=mask))


def _model(mask=True):
    return models.from_linen(Normed(), train_argument="train", mask=mask)


@pytest.fixture(scope="module")
def rounds(population):
    model = _model()
    algorithm = algorithms.fedavg(model, losses.squared_error, LOCAL)
    sim = simulate.make_simulator(
        algorithm, model, population, metrics={}, batching=data.batching(batch_size=8)
    )
    start = sim.init(jax.random.key(0))
    return sim, start, sim.round(start)[0]


def test_running_moments_are_averaged_by_examples(rounds, population):
    """One step at momentum 0.5 from zero mean: each client uploads half its own mean."""
    _, _, after = rounds
    means = [population.client(k)["train"]["x"].mean(axis=0) for k in range(5)]
    sizes = population.splits["train"].sizes
    # Means of a few float32 numbers of order one. Were padding counted, they would be far off.
    np.testing.assert_allclose(
        after.server.stats["batch_stats"]["BatchNorm_0"]["mean"],
        0.5 * np.average(means, axis=0, weights=sizes),
        atol=1e-5,
    )


def test_integer_counters_are_never_averaged(rounds, population):
    sim, _, after = rounds
    assert int(after.server.stats["counters"]["steps"]) == 0
    assert after.server.stats["counters"]["steps"].dtype == jnp.int32
    assert sim.costs.uploaded_parameters == (3 + 3) + (3 * 2 + 2) + (3 + 3)


def test_statistics_are_used_in_prediction(rounds):
    sim, _, after = rounds
    x = np.ones((2, 3), np.float32)
    stats = jax.tree.map(lambda leaf: leaf + 1, after.server.stats)
    shifted = after._replace(server=after.server._replace(stats=stats))
    assert np.any(sim.predict(after, 0, x) != sim.predict(shifted, 0, x))


def test_statistics_without_a_mask_are_refused(population):
    model = _model(mask=False)
    algorithm = algorithms.fedavg(model, losses.squared_error, LOCAL)
    with pytest.raises(SpecError, match="examples that pad a batch would enter"):
        simulate.make_simulator(algorithm, model, population, metrics={})


def test_an_ensemble_refuses_statistics(population):
    model = _model()
    algorithm = algorithms.ensemble(
        model,
        losses.squared_error,
        LOCAL,
        mixtures.softmax(),
        simulate.sample_batch(population),
    )
    with pytest.raises(SpecError, match="the model keeps statistics"):
        simulate.make_simulator(algorithm, model, population, metrics={})


def test_floral_averages_statistics_too(population, adapt, rounds):
    model = _model()
    adapted = adapt(model, kernel=".*Dense.*kernel", bias=".*Dense.*bias")
    algorithm = algorithms.floral(
        adapted, losses.squared_error, LOCAL, mixtures.softmax(), num_adaptors=2
    )
    sim = simulate.make_simulator(
        algorithm, model, population, metrics={}, batching=data.batching(batch_size=8)
    )
    after, _ = sim.round(sim.init(jax.random.key(0)))
    np.testing.assert_allclose(
        after.server.stats["batch_stats"]["BatchNorm_0"]["mean"],
        rounds[2].server.stats["batch_stats"]["BatchNorm_0"]["mean"],
        atol=1e-6,
    )
    assert int(after.server.stats["counters"]["steps"]) == 0


def test_a_frozen_model_keeps_its_statistics_and_sends_nothing(population):
    model = _model()
    rules = [adaptors.Rule(".*/kernel", adaptors.low_rank(rank=1))]
    adapted = adaptors.adapt(model, rules, simulate.sample_batch(population))
    algorithm = algorithms.floral(
        adapted,
        losses.squared_error,
        LOCAL,
        mixtures.softmax(),
        num_adaptors=2,
        train=("mixture",),
    )
    sim = simulate.make_simulator(algorithm, model, population, metrics={})
    start = sim.init(jax.random.key(0))
    after, _ = sim.round(start)
    assert sim.costs.upload_bytes == 0
    for old, new in zip(
        jax.tree.leaves(start.server.stats), jax.tree.leaves(after.server.stats), strict=True
    ):
        np.testing.assert_array_equal(old, new)


MEAN = ("batch_stats", "BatchNorm_0", "mean")


def _mean(stats):
    for name in MEAN:
        stats = stats[name]
    return np.asarray(stats)


@pytest.fixture(scope="module")
def private(population, adapt):
    """``(dataset=population, **settings) -> Simulator`` of floral whose statistics are private."""
    model = _model()

    def make(dataset=population, *, private=("stats",), **settings):
        algorithm = algorithms.floral(
            adapt(model, kernel=".*Dense.*kernel", bias=".*Dense.*bias"),
            losses.squared_error,
            LOCAL,
            mixtures.softmax(),
            num_adaptors=2,
            private=private,
            **settings,
        )
        return simulate.make_simulator(
            algorithm,
            model,
            dataset,
            metrics={},
            batching=data.batching(batch_size=8),
            personalization=simulate.Personalization(data.batching(batch_size=8)),
        )

    return make


def test_private_statistics_are_each_clients_own_and_are_never_sent(private, population, near):
    sim = private()
    start = sim.init(jax.random.key(0))
    after, _ = sim.round(start)
    near(after.server.stats, start.server.stats)
    means = [0.5 * population.client(k)["train"]["x"].mean(axis=0) for k in range(5)]
    near(_mean(after.table["client"]["stats"]), np.float32(means))
    adaptor, base = (3 * 1 + 1 * 2) + 2, (3 * 2 + 2) + (3 + 3)
    assert sim.costs.uploaded_parameters == base + 2 * adaptor
    x = np.ones((2, 3), np.float32)
    moved = jax.tree.map(lambda leaf: leaf + 1, after.table["client"]["stats"])
    row = {**after.table["client"], "stats": moved}
    elsewhere = after._replace(table={**after.table, "client": row})
    assert np.any(sim.predict(after, 0, x) != sim.predict(elsewhere, 0, x))


def test_statistics_stay_private_from_round_to_round(private, population, near):
    sim = private()
    state = sim.init(jax.random.key(0))
    for _ in range(2):
        state, _ = sim.round(state)
    means = [0.75 * population.client(k)["train"]["x"].mean(axis=0) for k in range(5)]
    near(_mean(state.table["client"]["stats"]), np.float32(means))
    assert state.table["client"]["stats"]["counters"]["steps"].tolist() == [2] * 5


def test_a_part_of_the_statistics_may_be_private(private, near):
    sim = private(private=("stats/**/mean",))
    start = sim.init(jax.random.key(0))
    after, _ = sim.round(start)
    norm, old = (s.server.stats["batch_stats"]["BatchNorm_0"] for s in (after, start))
    near(norm["mean"], old["mean"])
    assert np.all(norm["var"] != old["var"])
    row = after.table["client"]["stats"]["batch_stats"]["BatchNorm_0"]
    assert row["var"] is None
    assert np.any(row["mean"][0] != row["mean"][2])


def test_floral_that_trains_its_base_alone_is_partial_with_the_same_private_statistics(
    private, population, near
):
    sim = private(train=("base",))
    algorithm = algorithms.partial(
        _model(),
        losses.squared_error,
        LOCAL,
        simulate.sample_batch(population),
        private=["batch_stats", "counters"],
    )
    other = simulate.make_simulator(
        algorithm, _model(), population, metrics={}, batching=data.batching(batch_size=8)
    )
    left, right = (s.init(jax.random.key(0)) for s in (sim, other))
    for _ in range(2):
        left, right = sim.round(left)[0], other.round(right)[0]
    near(left.server.base, right.server.params)
    near(left.table["client"]["stats"], right.table["client"]["stats"])


def test_an_unseen_client_finds_its_statistics_with_the_shared_part_frozen(
    private, make_population, near
):
    """Also where its mixture is not trained, so that it has nothing to learn by gradients."""
    dataset = make_population(unseen=np.array([False] * 4 + [True]))
    sim = private(dataset, train=("base", "bank"))
    state, _ = sim.round(sim.init(jax.random.key(0)))
    x = dataset.client(4)["train"]["x"]
    outputs = sim.predict(state, 4, x)
    norm = {"mean": 0.5 * x.mean(axis=0), "var": 0.5 + 0.5 * x.var(axis=0)}
    params = jax.tree.map(np.asarray, sim.export(state, 4)["params"])
    scaled = params["BatchNorm_0"]["scale"] * (x - norm["mean"]) / np.sqrt(norm["var"] + 1e-5)
    hidden = scaled + params["BatchNorm_0"]["bias"]
    near(outputs, hidden @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], tolerance=1e-4)


def test_a_stateless_client_finds_its_statistics_at_every_participation(private, population):
    sim = private(stateful=False)
    start = sim.init(jax.random.key(0))
    after, _ = sim.round(start)
    np.testing.assert_array_equal(_mean(after.server.stats), _mean(start.server.stats))
    assert not jax.tree.leaves(after.table["client"])
    x = population.client(0)["train"]["x"]
    assert np.any(sim.predict(after, 0, x) != sim.predict(after, 2, x))


def test_statistics_are_never_trained(private):
    with pytest.raises(SpecError, match="train: 'stats' matches none of the parts base, bank, mix"):
        private(train=("base", "stats"))


def test_a_model_without_statistics_has_none_to_keep(build):
    with pytest.raises(SpecError, match="private: 'stats' matches none of the parts base, bank"):
        build("floral", private=("stats",))
