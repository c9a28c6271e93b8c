"""Parts that are shared and parts that are not: partial, FedRep, FedBABU."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import algorithms, data, losses, models, simulate
from floral.errors import SpecError

FULL = data.batching(batch_size=7, shuffle=False)
ONCE = simulate.Personalization(FULL)
BIAS = "params/Dense_0/bias"
EVERYTHING = ("**",)


def _dense(params):
    return jax.tree.map(np.asarray, params["params"]["Dense_0"])


def _slope(dense, batch):
    """Gradient of the mean squared error of ``x W + b``, written out."""
    error = batch["x"] @ dense["kernel"] + dense["bias"] - batch["y"]
    scale = 2 / error.size
    return {"kernel": scale * batch["x"].T @ error, "bias": scale * error.sum(axis=0)}


def _average(leaves, population):
    sizes = population.splits["train"].sizes
    return np.average(leaves, axis=0, weights=sizes).astype(np.float32)


@pytest.mark.parametrize("server_optimizer", [None, optax.adam(0.01)])
def test_with_nothing_private_it_is_fedavg_bit_for_bit(
    build, simulator, after, same, server_optimizer
):
    settings = {"server_optimizer": server_optimizer}
    shared = after(simulator(build("partial", private=(), **settings)), 3)
    same(shared.server, after(simulator(build("fedavg", **settings)), 3).server)


def test_with_all_private_everyone_trains_alone_and_sends_nothing(
    build, simulator, population, after, near, same
):
    sim = simulator(build("partial", private=EVERYTHING), batching=FULL)
    start = sim.init(jax.random.key(0))
    end = after(sim, 3)
    assert sim.costs.upload_bytes == 0
    same(end.server, start.server)
    for client in (0, 2):
        batch, own = population.client(client)["train"], _dense(start.server.params)
        for _ in range(3):
            own = jax.tree.map(lambda v, g: v - 0.1 * g, own, _slope(own, batch))
        near(_dense(sim.export(end, client)), jax.tree.map(np.float32, own))


def test_a_private_head_stays_where_it_is_and_the_shared_body_is_averaged(
    build, simulator, population, near, same
):
    sim = simulator(build("partial", private=(BIAS,)), batching=FULL)
    start = sim.init(jax.random.key(0))
    end, _ = sim.round(start)
    dense = _dense(start.server.params)
    slopes = [_slope(dense, population.client(k)["train"]) for k in range(5)]
    rows = end.table["client"]["params"]["params"]["Dense_0"]
    assert rows["kernel"] is None
    near(rows["bias"], np.float32([dense["bias"] - 0.1 * slope["bias"] for slope in slopes]))
    kernels = [dense["kernel"] - 0.1 * slope["kernel"] for slope in slopes]
    near(_dense(end.server.params)["kernel"], _average(kernels, population))
    same(_dense(end.server.params)["bias"], dense["bias"])
    assert sim.costs.uploaded_parameters == 3 * 2


def test_a_client_predicts_with_its_own_head_on_the_shared_body(build, simulator, after, near):
    sim = simulator(build("partial", private=(BIAS,)))
    state = after(sim, 2)
    x = np.ones((2, 3), np.float32)
    bias = np.asarray(state.table["client"]["params"]["params"]["Dense_0"]["bias"][3])
    near(sim.predict(state, 3, x), x @ _dense(state.server.params)["kernel"] + bias)


def test_a_new_client_finds_its_head_with_the_body_frozen(build, simulator, make_population, near):
    unseen = np.array([False] * 4 + [True])
    dataset = make_population(unseen=unseen)
    sim = simulator(build("partial", private=(BIAS,)), dataset, batching=FULL, personalization=ONCE)
    state = sim.init(jax.random.key(0))
    for _ in range(2):
        state, _ = sim.round(state)
    dense, batch = _dense(state.server.params), dataset.client(4)["train"]
    own = _dense(sim.export(state, 4))
    near(own["kernel"], dense["kernel"])
    near(own["bias"], np.float32(dense["bias"] - 0.1 * _slope(dense, batch)["bias"]))


class Normed(nn.Module):
    """A batch norm, then a dense layer."""

    @nn.compact
    def __call__(self, x, train=False, mask=None):
        mask = None if mask is None else jnp.broadcast_to(mask[:, None], x.shape)
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.5)
        return nn.Dense(2)(norm(x, mask=mask))


def test_fedbn_keeps_norms_and_their_statistics_with_the_client(population, near):
    model = models.from_linen(Normed(), train_argument="train", mask=True)
    local = algorithms.local_solver(optax.sgd, learning_rate=0.05)
    algorithm = algorithms.partial(
        model,
        losses.squared_error,
        local,
        simulate.sample_batch(population),
        private=["**/BatchNorm_*"],
    )
    sim = simulate.make_simulator(algorithm, model, population, metrics={}, batching=FULL)
    start = sim.init(jax.random.key(0))
    end, _ = sim.round(start)
    assert sim.costs.uploaded_parameters == 3 * 2 + 2
    near(end.server.stats, start.server.stats)
    means = [population.client(k)["train"]["x"].mean(axis=0) for k in range(5)]
    row = end.table["client"]
    near(row["stats"]["batch_stats"]["BatchNorm_0"]["mean"], 0.5 * np.float32(means))
    x = np.ones((2, 3), np.float32)
    moved = jax.tree.map(lambda leaf: leaf + 1, row["stats"])
    elsewhere = end._replace(table={**end.table, "client": {**row, "stats": moved}})
    assert np.any(sim.predict(end, 0, x) != sim.predict(elsewhere, 0, x))


@pytest.mark.parametrize(("name", "setting"), [("partial", "private"), ("fedbabu", "head")])
def test_a_glob_that_matches_nothing_is_refused_with_the_nearest_path(build, name, setting):
    with pytest.raises(SpecError, match=f"{setting}: 'params/Dens_0' .* did you mean 'params/D"):
        build(name, **{setting: ("params/Dens_0",)})


@pytest.mark.parametrize("passes", [1, 3])
def test_fedrep_trains_the_head_then_the_body_under_the_new_head(
    build, simulator, population, near, passes
):
    sim = simulator(build("fedrep", private=(BIAS,), head_passes=passes), batching=FULL)
    start = sim.init(jax.random.key(0))
    end, _ = sim.round(start)
    heads, kernels = [], []
    for client in range(5):
        dense, batch = _dense(start.server.params), population.client(client)["train"]
        for _ in range(passes):
            dense["bias"] = dense["bias"] - 0.1 * _slope(dense, batch)["bias"]
        heads.append(dense["bias"])
        kernels.append(dense["kernel"] - 0.1 * _slope(dense, batch)["kernel"])
    near(end.table["client"]["params"]["params"]["Dense_0"]["bias"], np.float32(heads))
    near(_dense(end.server.params)["kernel"], _average(kernels, population))


def test_fedrep_without_a_head_is_fedavg(build, simulator, after, near):
    alternating = after(simulator(build("fedrep", private=())), 3)
    near(alternating.server, after(simulator(build("fedavg")), 3).server)


def test_fedbabu_without_a_head_trains_as_fedavg_bit_for_bit(build, simulator, after, same):
    tuned = after(simulator(build("fedbabu", head=())), 3)
    same(tuned.server, after(simulator(build("fedavg")), 3).server)


def test_fedbabu_never_trains_nor_sends_the_head_until_it_tunes_the_whole_model(
    build, simulator, population, after, near, same
):
    sim = simulator(
        build("fedbabu", head=(BIAS,), tuning_learning_rate=0.2),
        batching=FULL,
        personalization=ONCE,
    )
    start, end = sim.init(jax.random.key(0)), after(sim, 3)
    same(_dense(end.server.params)["bias"], _dense(start.server.params)["bias"])
    assert np.any(_dense(end.server.params)["kernel"] != _dense(start.server.params)["kernel"])
    assert sim.costs.uploaded_parameters == 3 * 2
    assert sim.costs.cached_bytes == 4 * 2
    assert sim.costs.client_state_bytes == 0
    dense, batch = _dense(end.server.params), population.client(3)["train"]
    tuned = jax.tree.map(lambda v, g: np.float32(v - 0.2 * g), dense, _slope(dense, batch))
    near(_dense(sim.export(end, 3)), tuned)


def test_fine_tuned_fedavg_that_tunes_nothing_is_fedavg_bit_for_bit(build, simulator, after, same):
    average = simulator(build("fedavg"))
    expected = after(average, 2)
    x = np.ones((2, 3), np.float32)
    for nothing in ({"tuning_steps": 0}, {"tuning_learning_rate": 0.0}):
        sim = simulator(build("fedavg_finetuned", **nothing))
        state = after(sim, 2)
        same(state.server, expected.server)
        same(sim.predict(state, 2, x), average.predict(expected, 2, x))


@pytest.mark.parametrize(("steps", "taken"), [(1, 1), (2, 2), (None, 3), (7, 3)])
def test_fine_tuning_takes_its_steps_on_the_client_s_own_examples(
    build, simulator, population, after, near, same, steps, taken
):
    thrice = data.batching(batch_size=7, steps=3, shuffle=False)
    sim = simulator(
        build("fedavg_finetuned", tuning_steps=steps, tuning_learning_rate=0.2),
        personalization=simulate.Personalization(thrice),
    )
    state = after(sim, 2)
    own, batch = _dense(state.server.params), population.client(3)["train"]
    for _ in range(taken):
        own = jax.tree.map(lambda v, g: np.float32(v - 0.2 * g), own, _slope(own, batch))
    near(_dense(sim.export(state, 3)), own)
    assert sim.costs.client_state_bytes == 0


def test_fedbabu_may_tune_the_head_alone(build, simulator, after, same):
    sim = simulator(build("fedbabu", head=(BIAS,), tuned=(BIAS,)), batching=FULL)
    state = after(sim, 1)
    own = _dense(sim.export(state, 3))
    same(own["kernel"], _dense(state.server.params)["kernel"])
    assert np.any(own["bias"] != _dense(state.server.params)["bias"])
