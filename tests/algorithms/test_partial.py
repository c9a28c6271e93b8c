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
HEAD = "params/Dense_1"
BODY, LAST = 3 * 4 + 4, 4 * 2 + 2  # the parameters of either layer
EVERYTHING = ("**",)


def _layers(params):
    """``(body, head)``, the hidden layer and the last one, as NumPy arrays."""
    layers = jax.tree.map(np.asarray, params["params"])
    return layers["Dense_0"], layers["Dense_1"]


def _whole(body, head):
    return {"params": {"Dense_0": body, "Dense_1": head}}


def _stepped(values, slope, rate=0.1):
    return jax.tree.map(lambda v, g: np.float32(v - rate * g), values, slope)


def _stack(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _average(trees, population):
    sizes = population.splits["train"].sizes
    return jax.tree.map(
        lambda *leaves: np.float32(np.average(leaves, axis=0, weights=sizes)), *trees
    )


@pytest.mark.parametrize("server_optimizer", [None, optax.adam(0.01)])
def test_with_nothing_private_it_is_fedavg_bit_for_bit(
    build, simulator, after, same, server_optimizer
):
    settings = {"server_optimizer": server_optimizer}
    shared = after(simulator(build("partial", private=(), **settings)), 3)
    same(shared.server, after(simulator(build("fedavg", **settings)), 3).server)


def test_with_all_private_everyone_trains_alone_and_sends_nothing(
    build, simulator, population, after, slope_of, near, same
):
    sim = simulator(build("partial", private=EVERYTHING), batching=FULL)
    start = sim.init(jax.random.key(0))
    end = after(sim, 3)
    assert sim.costs.upload_bytes == 0
    same(end.server, start.server)
    for client in (0, 2):
        batch, own = population.client(client)["train"], start.server.params
        for _ in range(3):
            own = _stepped(own, slope_of(own, batch))
        near(sim.export(end, client), own)


def test_a_private_head_stays_where_it_is_and_the_shared_body_is_averaged(
    build, simulator, population, slope_of, near, same
):
    sim = simulator(build("partial", private=(HEAD,)), batching=FULL)
    start = sim.init(jax.random.key(0))
    end, _ = sim.round(start)
    params = start.server.params
    ends = [
        _layers(_stepped(params, slope_of(params, population.client(k)["train"]))) for k in range(5)
    ]
    rows = end.table["client"]["params"]["params"]
    assert jax.tree.leaves(rows["Dense_0"]) == []
    near(rows["Dense_1"], _stack([head for _, head in ends]))
    body, head = _layers(end.server.params)
    near(body, _average([body for body, _ in ends], population))
    same(head, _layers(params)[1])
    assert sim.costs.uploaded_parameters == BODY


def test_a_client_predicts_with_its_own_head_on_the_shared_body(
    build, simulator, after, outputs_of, near
):
    sim = simulator(build("partial", private=(HEAD,)))
    state = after(sim, 2)
    x = np.ones((2, 3), np.float32)
    rows = state.table["client"]["params"]["params"]["Dense_1"]
    own = jax.tree.map(lambda leaf: leaf[3], rows)
    near(sim.predict(state, 3, x), outputs_of(_whole(_layers(state.server.params)[0], own), x))


def test_a_new_client_finds_its_head_with_the_body_frozen(
    build, simulator, make_population, slope_of, near
):
    unseen = np.array([False] * 4 + [True])
    dataset = make_population(unseen=unseen)
    sim = simulator(build("partial", private=(HEAD,)), dataset, batching=FULL, personalization=ONCE)
    state = sim.init(jax.random.key(0))
    for _ in range(2):
        state, _ = sim.round(state)
    params, batch = state.server.params, dataset.client(4)["train"]
    body, head = _layers(sim.export(state, 4))
    near(body, _layers(params)[0])
    near(head, _layers(_stepped(params, slope_of(params, batch)))[1])


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
    build, simulator, population, slope_of, near, passes
):
    sim = simulator(build("fedrep", private=(HEAD,), head_passes=passes), batching=FULL)
    start = sim.init(jax.random.key(0))
    end, _ = sim.round(start)
    heads, bodies = [], []
    for client in range(5):
        batch = population.client(client)["train"]
        body, head = _layers(start.server.params)
        for _ in range(passes):
            now = _whole(body, head)
            head = _layers(_stepped(now, slope_of(now, batch)))[1]
        heads.append(head)
        now = _whole(body, head)
        bodies.append(_layers(_stepped(now, slope_of(now, batch)))[0])
    near(end.table["client"]["params"]["params"]["Dense_1"], _stack(heads))
    near(_layers(end.server.params)[0], _average(bodies, population))


def test_fedrep_without_a_head_is_fedavg(build, simulator, after, near):
    alternating = after(simulator(build("fedrep", private=())), 3)
    near(alternating.server, after(simulator(build("fedavg")), 3).server)


def test_fedbabu_without_a_head_trains_as_fedavg_bit_for_bit(build, simulator, after, same):
    tuned = after(simulator(build("fedbabu", head=())), 3)
    same(tuned.server, after(simulator(build("fedavg")), 3).server)


def test_fedbabu_never_trains_nor_sends_the_head_until_it_tunes_the_whole_model(
    build, simulator, population, after, slope_of, near, same
):
    sim = simulator(
        build("fedbabu", head=(HEAD,), tuning_learning_rate=0.2),
        batching=FULL,
        personalization=ONCE,
    )
    start, end = sim.init(jax.random.key(0)), after(sim, 3)
    bodies, heads = zip(*(_layers(state.server.params) for state in (start, end)), strict=True)
    same(*heads)
    assert np.any(bodies[0]["kernel"] != bodies[1]["kernel"])
    assert sim.costs.uploaded_parameters == BODY
    assert sim.costs.cached_bytes == 4 * LAST
    assert sim.costs.client_state_bytes == 0
    params, batch = end.server.params, population.client(3)["train"]
    near(sim.export(end, 3), _stepped(params, slope_of(params, batch), 0.2))


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
    build, simulator, population, after, slope_of, near, steps, taken
):
    thrice = data.batching(batch_size=7, steps=3, shuffle=False)
    sim = simulator(
        build("fedavg_finetuned", tuning_steps=steps, tuning_learning_rate=0.2),
        personalization=simulate.Personalization(thrice),
    )
    state = after(sim, 2)
    own, batch = state.server.params, population.client(3)["train"]
    for _ in range(taken):
        own = _stepped(own, slope_of(own, batch), 0.2)
    near(sim.export(state, 3), own)
    assert sim.costs.client_state_bytes == 0


def test_fedbabu_may_tune_the_head_alone(build, simulator, after, same):
    sim = simulator(build("fedbabu", head=(HEAD,), tuned=(HEAD,)), batching=FULL)
    state = after(sim, 1)
    body, head = _layers(sim.export(state, 3))
    shared_body, shared_head = _layers(state.server.params)
    same(body, shared_body)
    assert np.any(head["bias"] != shared_head["bias"])
