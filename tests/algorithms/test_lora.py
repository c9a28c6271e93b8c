"""Which factor is trained, and which is shared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral import data

KERNEL, BIAS = "params/Dense_0/kernel", "params/Dense_0/bias"
FULL = data.batching(batch_size=7, shuffle=False)
RATE = 0.1


@jax.jit
@jax.grad
def _gradient(factors, base, batch):
    kernel = base["kernel"] + factors["a"].T @ factors["b"]
    return jnp.mean(
        (batch["x"] @ kernel + (base["bias"] + factors["offset"])[None] - batch["y"]) ** 2
    )


def _factors(server):
    pair = {name: np.asarray(factor[0]) for name, factor in server.bank[KERNEL].items()}
    return {**pair, "offset": np.asarray(server.bank[BIAS]["offset"][0])}


def _rounds(server, population, *, trained, private, rounds=3):
    """Plain federated LoRA of the named factors: ``(factors of the server, those kept)``."""
    base = server.base["params"]["Dense_0"]
    shared, sizes = _factors(server), population.splits["train"].sizes
    kept = [{name: shared[name] for name in private} for _ in range(5)]
    for _ in range(rounds):
        ends = []
        for client in range(5):
            now = {**shared, **kept[client]}
            slope = _gradient(now, base, population.client(client)["train"])
            end = {k: v - RATE * slope[k] if k in trained else v for k, v in now.items()}
            kept[client] = {name: end[name] for name in private}
            ends.append(end)
        mean = {k: np.average([e[k] for e in ends], axis=0, weights=sizes) for k in shared}
        shared = {k: shared[k] if k in private else np.float32(mean[k]) for k in shared}
    return shared, kept


@pytest.mark.parametrize(
    ("name", "trained", "private"),
    [("fedsa_lora", ("a", "b", "offset"), ("b",)), ("ffa_lora", ("b",), ())],
)
def test_it_is_plain_federated_lora_of_those_factors(
    build, simulator, population, after, near, name, trained, private
):
    sim = simulator(build(name), batching=FULL)
    start, end = sim.init(jax.random.key(0)), after(sim, 3)
    expected, kept = _rounds(start.server, population, trained=trained, private=private)
    near(_factors(end.server), expected)
    near(end.server.base, start.server.base)
    for client in range(5):
        row = end.table["client"]["bank"][KERNEL]
        assert {factor for factor, values in row.items() if values is not None} == set(private)
        for factor in private:
            near(row[factor][client, 0], np.asarray(kept[client][factor]))


def test_they_send_only_what_is_shared_and_trained(build, simulator):
    assert simulator(build("fedsa_lora")).costs.uploaded_parameters == 3 + 2  # a, offset
    assert simulator(build("ffa_lora")).costs.uploaded_parameters == 2  # b


def test_ffa_lora_leaves_a_as_it_was_drawn(build, simulator, after, same):
    sim = simulator(build("ffa_lora"))
    start, end = sim.init(jax.random.key(0)), after(sim, 3)
    same(_factors(end.server)["a"], _factors(start.server)["a"])
    assert np.any(_factors(end.server)["b"] != 0)


@jax.jit
@jax.grad
def _gradient_of_both(pair, base, batch):
    one, other = pair
    kernel = base["kernel"] + one["a"].T @ one["b"] + other["a"].T @ other["b"]
    bias = base["bias"] + one["offset"] + other["offset"]
    return jnp.mean((batch["x"] @ kernel + bias[None] - batch["y"]) ** 2)


@pytest.mark.parametrize("own_rate", [RATE, 0.02])
def test_the_dual_adaptor_is_plain_training_of_both(build, simulator, population, near, own_rate):
    sim = simulator(build("dual_adaptor", own_learning_rate=own_rate), batching=FULL)
    start = state = sim.init(jax.random.key(0))
    base, sizes = start.server.base["params"]["Dense_0"], population.splits["train"].sizes

    def own(state, client):
        row = jax.tree.map(lambda leaf: np.asarray(leaf[client, 0]), state.table["client"]["bank"])
        return {**row[KERNEL], **row[BIAS]}

    shared, kept = _factors(start.server), [own(start, client) for client in range(5)]
    for _ in range(3):
        ends = []
        for client in range(5):
            batch = population.client(client)["train"]
            slopes = _gradient_of_both((shared, kept[client]), base, batch)
            ends.append({k: v - RATE * slopes[0][k] for k, v in shared.items()})
            kept[client] = {k: v - own_rate * slopes[1][k] for k, v in kept[client].items()}
        shared = {
            k: np.float32(np.average([end[k] for end in ends], axis=0, weights=sizes))
            for k in shared
        }
        state, _ = sim.round(state)
    near(_factors(state.server), shared)
    for client in range(5):
        near(own(state, client), jax.tree.map(np.asarray, kept[client]))
    merged = sim.export(state, 3)["params"]["Dense_0"]["kernel"]
    deltas = [pair["a"].T @ pair["b"] for pair in (shared, kept[3])]
    near(merged, base["kernel"] + deltas[0] + deltas[1])
    x = np.ones((2, 3), np.float32)
    bias = base["bias"] + shared["offset"] + kept[3]["offset"]
    near(sim.predict(state, 3, x), x @ np.asarray(merged) + np.asarray(bias))


def test_the_dual_adaptor_without_its_own_is_federated_lora(build, simulator, after, near):
    dual = after(simulator(build("dual_adaptor", own_learning_rate=0.0)), 3)
    shared = after(simulator(build("floral", num_adaptors=1, train=("bank",))), 3)
    near(dual.server.base, shared.server.base)
    near(dual.server.bank, shared.server.bank)
