"""Which factor is trained, and which is shared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral import data

LAYERS = ("Dense_0", "Dense_1")
FULL = data.batching(batch_size=7, shuffle=False)
RATE = 0.1


def _merged(base, *pairs):
    """The base with what the pairs of factors, ``{layer: {a, b, offset}}``, add to it."""
    return {
        "params": {
            layer: {
                "kernel": base["params"][layer]["kernel"]
                + sum(pair[layer]["a"].T @ pair[layer]["b"] for pair in pairs),
                "bias": base["params"][layer]["bias"] + sum(p[layer]["offset"] for p in pairs),
            }
            for layer in LAYERS
        }
    }


@pytest.fixture(scope="module")
def gradient(outputs_of):
    """``(pairs, base, batch) -> gradients`` of the mean squared error of the merged network."""

    def loss(pairs, base, batch):
        return jnp.mean((outputs_of(_merged(base, *pairs), batch["x"]) - batch["y"]) ** 2)

    return jax.jit(jax.grad(loss))


def _by_layer(bank, pick):
    """``{layer: {a, b, offset}}`` of a bank's leaves, each as ``pick`` takes it."""
    return {
        layer: {
            **{name: pick(factor) for name, factor in bank[f"params/{layer}/kernel"].items()},
            "offset": pick(bank[f"params/{layer}/bias"]["offset"]),
        }
        for layer in LAYERS
    }


def _factors(server):
    return _by_layer(server.bank, lambda factor: np.asarray(factor[0]))


def _moved(pair, slope, names, rate=RATE):
    """The pair after a step on the named factors."""
    return {
        layer: {k: v - rate * slope[layer][k] if k in names else v for k, v in factors.items()}
        for layer, factors in pair.items()
    }


def _chosen(pair, names):
    return {layer: {name: factors[name] for name in names} for layer, factors in pair.items()}


def _average(pairs, sizes):
    return jax.tree.map(
        lambda *leaves: np.float32(np.average(leaves, axis=0, weights=sizes)), *pairs
    )


def _rounds(gradient, server, population, *, trained, private, rounds=3):
    """Plain federated LoRA of the named factors: ``(factors of the server, those kept)``."""
    shared, sizes = _factors(server), population.splits["train"].sizes
    kept = [_chosen(shared, private) for _ in range(5)]
    for _ in range(rounds):
        ends = []
        for client in range(5):
            now = {layer: {**shared[layer], **kept[client][layer]} for layer in LAYERS}
            (slope,) = gradient((now,), server.base, population.client(client)["train"])
            end = _moved(now, slope, trained)
            kept[client] = _chosen(end, private)
            ends.append(end)
        mean = _average(ends, sizes)
        shared = {
            layer: {k: shared[layer][k] if k in private else mean[layer][k] for k in mean[layer]}
            for layer in LAYERS
        }
    return shared, kept


@pytest.mark.parametrize(
    ("name", "trained", "private"),
    [("fedsa_lora", ("a", "b", "offset"), ("b",)), ("ffa_lora", ("b",), ())],
)
def test_it_is_plain_federated_lora_of_those_factors(
    build, simulator, population, after, near, gradient, name, trained, private
):
    sim = simulator(build(name), batching=FULL)
    start, end = sim.init(jax.random.key(0)), after(sim, 3)
    expected, kept = _rounds(gradient, start.server, population, trained=trained, private=private)
    near(_factors(end.server), expected)
    near(end.server.base, start.server.base)
    for layer in LAYERS:
        row = end.table["client"]["bank"][f"params/{layer}/kernel"]
        assert {factor for factor, values in row.items() if values is not None} == set(private)
        for factor in private:
            near(row[factor][:, 0], np.stack([own[layer][factor] for own in kept]))


def test_they_send_only_what_is_shared_and_trained(build, simulator):
    sent = {name: simulator(build(name)).costs for name in ("fedsa_lora", "ffa_lora")}
    assert sent["fedsa_lora"].uploaded_parameters == (3 + 4) + (4 + 2)  # a and offset
    assert sent["ffa_lora"].uploaded_parameters == 4 + 2  # b


def test_ffa_lora_leaves_a_as_it_was_drawn(build, simulator, after, same):
    sim = simulator(build("ffa_lora"))
    start, end = _factors(sim.init(jax.random.key(0)).server), _factors(after(sim, 3).server)
    for layer in LAYERS:
        same(end[layer]["a"], start[layer]["a"])
        assert np.any(end[layer]["b"] != 0)


@pytest.mark.parametrize("own_rate", [RATE, 0.02])
def test_the_dual_adaptor_is_plain_training_of_both(
    build, simulator, population, outputs_of, gradient, near, own_rate
):
    sim = simulator(build("dual_adaptor", own_learning_rate=own_rate), batching=FULL)
    start = state = sim.init(jax.random.key(0))
    base, sizes = start.server.base, population.splits["train"].sizes
    every = ("a", "b", "offset")

    def own(state, client):
        bank = state.table["client"]["bank"]
        return _by_layer(bank, lambda factor: np.asarray(factor[client, 0]))

    shared, kept = _factors(start.server), [own(start, client) for client in range(5)]
    for _ in range(3):
        ends = []
        for client in range(5):
            batch = population.client(client)["train"]
            slopes = gradient((shared, kept[client]), base, batch)
            ends.append(_moved(shared, slopes[0], every))
            kept[client] = _moved(kept[client], slopes[1], every, own_rate)
        shared = _average(ends, sizes)
        state, _ = sim.round(state)
    near(_factors(state.server), shared)
    for client in range(5):
        near(own(state, client), jax.tree.map(np.asarray, kept[client]))
    merged, x = _merged(base, shared, kept[3]), np.ones((2, 3), np.float32)
    near(sim.export(state, 3), merged)
    near(sim.predict(state, 3, x), outputs_of(merged, x))


def test_the_dual_adaptor_without_its_own_is_federated_lora(build, simulator, after, near):
    dual = after(simulator(build("dual_adaptor", own_learning_rate=0.0)), 3)
    shared = after(simulator(build("floral", num_adaptors=1, train=("bank",))), 3)
    near(dual.server.base, shared.server.base)
    near(dual.server.bank, shared.server.bank)
