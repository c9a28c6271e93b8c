"""A model in training sees augmented inputs, in every walk the same, and in evaluation never."""

import jax
import numpy as np
import optax
import pytest

from floral import adaptors, algorithms, data, losses, metrics, models, simulate

SIZES = (4, 1, 7, 4, 7)
NETWORK = models.mlp(3, hidden=[4])
AUGMENTED = models.augmented(NETWORK, data.flip_crop(padding=1))
LOCAL = algorithms.local_solver(optax.sgd, learning_rate=0.1)


@pytest.fixture(scope="module")
def images():
    """Five clients with 4, 1, 7, 4 and 7 images of 4 × 4 pixels."""
    rng = np.random.default_rng(0)
    clients = [
        {"train": {"x": rng.standard_normal((size, 4, 4, 1)), "y": rng.integers(0, 3, size)}}
        for size in SIZES
    ]
    return data.from_clients(clients, num_classes=3)


@pytest.fixture(scope="module")
def simulator(images):
    def make(model, **execution):
        return simulate.make_simulator(
            algorithms.fedavg(model, losses.cross_entropy, LOCAL),
            model,
            images,
            metrics={"accuracy": metrics.accuracy()},
            batching=data.batching(batch_size=2),
            execution=simulate.execution(devices=1, **execution),
        )

    return make


@pytest.fixture(scope="module")
def one_round(simulator):
    sim = simulator(AUGMENTED)
    start = sim.init(jax.random.key(0))
    return sim, start, sim.round(start)


@pytest.mark.parametrize(
    "execution", [{"walk": "vmap"}, {"walk": "scan"}, {"walk": "chunk", "chunk": 2}]
)
def test_every_walk_draws_the_same(simulator, one_round, near, execution):
    _, start, (after, sums) = one_round
    walked = simulator(AUGMENTED, **execution).round(start)
    near(walked[0].server, after.server)
    near(walked[1], sums)


def test_training_is_on_other_inputs_and_evaluation_on_the_images(simulator, one_round, same):
    sim, start, (after, sums) = one_round
    plain = simulator(NETWORK)
    same(plain.init(jax.random.key(0)), start)
    assert float(plain.round(start)[1]["loss_sum"]) != float(sums["loss_sum"])
    same(sim.evaluate(after, "train"), plain.evaluate(after, "train"))


def test_each_round_draws_anew(images):
    batch = {"x": images.splits["train"].examples["x"]}
    params, stats = AUGMENTED.init(jax.random.key(0), batch)

    def seen(seed):
        return AUGMENTED.apply(params, stats, batch, key=jax.random.key(seed), train=True)[0]

    assert np.any(seen(0) != seen(1))
    np.testing.assert_array_equal(seen(0), seen(0))
    without_key = AUGMENTED.apply(params, stats, batch, train=True)[0]
    np.testing.assert_array_equal(without_key, NETWORK.apply(params, stats, batch)[0])


def test_an_adapted_model_stays_factored(images):
    """The images change before the first layer meets them, so that nothing else does."""
    rules = [adaptors.Rule(".*/kernel", adaptors.low_rank(rank=1))]
    adapted = adaptors.adapt(AUGMENTED, rules, simulate.sample_batch(images))
    assert set(adapted.methods.values()) == {"fast"}
