"""Models, losses and metrics that mix the examples of a batch: right for live ones, or refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import floral as fl
from floral.errors import SpecError
from floral.metrics import Metric

SIZES = (5, 7, 3)


def population(seed=0):
    rng = np.random.default_rng(seed)
    clients = [
        {"train": {"x": rng.normal(size=(n, 4)).astype(np.float32), "y": rng.integers(0, 3, n)}}
        for n in SIZES
    ]
    return fl.data.from_clients(clients)


def start(key, x):
    return {"a": jax.random.normal(key, (4, 6)), "b": jax.random.normal(key, (6, 3))}


def network(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


PLAIN = fl.models.from_function(start, network)
CENTERED = fl.models.from_function(
    start, lambda p, x: network(p, x - jnp.mean(x, axis=0, keepdims=True))
)
SHUFFLED = fl.models.from_function(start, lambda p, x: network(p, x + jnp.roll(x, 1, axis=0)))


def masked_mean(values, mask):
    return jnp.sum(jnp.where(mask, values, 0)) / jnp.maximum(jnp.sum(mask), 1)


def batch_mean(outputs, batch):
    losses = fl.losses.cross_entropy(outputs, batch)
    return jnp.broadcast_to(jnp.mean(losses), losses.shape)


def live_mean(outputs, batch):
    losses = fl.losses.cross_entropy(outputs, batch)
    return jnp.broadcast_to(masked_mean(losses, batch["mask"]), losses.shape)


def simulator(model=PLAIN, loss=fl.losses.cross_entropy, **metrics):
    local = fl.algorithms.local_solver(optax.sgd, learning_rate=0.1)
    algorithm = fl.algorithms.fedavg(model, loss, local)
    return fl.simulate.make_simulator(algorithm, model, population(), metrics=metrics)


@pytest.mark.parametrize("model", [CENTERED, SHUFFLED], ids=["batch mean", "neighbours"])
def test_a_model_whose_outputs_depend_on_padding_is_refused(model):
    with pytest.raises(SpecError, match=r"^model: its outputs .* padding .* batch\['mask'\]"):
        simulator(model)


@pytest.mark.parametrize(
    ("where", "given"),
    [("loss", {"loss": batch_mean}), ("metrics.mean", {"mean": batch_mean})],
    ids=["loss", "metric"],
)
def test_a_function_of_examples_that_counts_padding_is_refused(where, given):
    with pytest.raises(SpecError, match=rf"^{where}: what it gives for an example changes"):
        simulator(**given)


def test_a_metric_whose_sums_count_padding_is_refused():
    counts = Metric(
        from_outputs=lambda outputs, batch: {"n": jnp.sum(jnp.ones(outputs.shape[0]))},
        merge=lambda one, other: jax.tree.map(jnp.add, one, other),
        compute=lambda sums: sums["n"],
    )
    with pytest.raises(SpecError, match=r"^metrics.count: its sums change with the padding"):
        simulator(count=counts)


def test_a_loss_that_mixes_live_examples_alone_is_trained_on_them_alone():
    mixing, plain = simulator(loss=live_mean), simulator()
    state, metrics = mixing.round(mixing.init(jax.random.key(0)))
    expected, _ = plain.round(plain.init(jax.random.key(0)))
    assert int(metrics["examples"]) == sum(SIZES)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        state.server.params,
        expected.server.params,
    )


@pytest.mark.parametrize(
    "model",
    [
        PLAIN,
        fl.models.mlp(3, hidden=(4,), norm="batch"),
    ],
    ids=["plain", "batch norm"],
)
def test_models_that_leave_padding_out_are_taken(model):
    simulator(model)
