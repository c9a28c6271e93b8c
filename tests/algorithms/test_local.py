import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import algorithms
from floral.algorithms.toolbox import optimizers
from floral.errors import SpecError
from floral.random import stream

KEY = jax.random.key(0)


def _batches(live, steps, seed=0):
    """``steps`` batches of two; the first ``live`` hold examples, the last of them only one."""
    rng = np.random.default_rng(seed)
    mask = np.arange(2 * steps).reshape(steps, 2) < 2 * live - 1
    x = np.where(mask[..., None], rng.standard_normal((steps, 2, 3)), 0)
    return {"x": x.astype(np.float32), "mask": mask}


def _objective(params, stats, batch, key):
    """Noise from the key and a count in the stats, so that nothing a step uses goes unseen."""
    noise = jax.random.normal(key, (3,))
    losses = (batch["x"] @ (params["w"] + noise) - 1.0) ** 2
    return losses, {"steps": stats["steps"] + 1}


def _solve(batches, optimizer):
    params, stats = {"w": jnp.ones(3)}, {"steps": jnp.zeros((), jnp.int32)}
    return algorithms.solve(_objective, params, stats, batches, KEY, optimizer=optimizer)


@pytest.mark.parametrize(
    "optimizer",
    [optax.sgd(0.1), optax.sgd(0.1, momentum=0.9), optax.adam(0.1), optax.adamw(0.1)],
    ids=["sgd", "momentum", "adam", "adamw"],
)
def test_padded_steps_change_nothing_whatever_the_optimizer(optimizer, same):
    """Adam and weight decay would move params on a zero gradient; a padded step does not run."""
    long = _batches(3, 5)
    short = jax.tree.map(lambda leaf: leaf[:3], long)
    same(_solve(long, optimizer), _solve(short, optimizer))
    assert int(_solve(long, optimizer)[1]["steps"]) == 3


def test_a_client_without_examples_stays_where_it_is(same):
    batches = jax.tree.map(np.zeros_like, _batches(2, 2))
    params, stats, metrics = _solve(batches, optax.adam(0.1))
    same(params, {"w": jnp.ones(3)})
    assert int(stats["steps"]) == 0
    assert {name: float(value) for name, value in metrics.items()} == {
        "loss_sum": 0,
        "examples": 0,
    }


def test_padding_within_a_batch_has_no_share_in_the_mean(same):
    batches = _batches(2, 2)
    poisoned = batches | {"x": np.where(batches["mask"][..., None], batches["x"], 1e6)}
    poisoned["x"] = poisoned["x"].astype(np.float32)
    same(_solve(poisoned, optax.sgd(0.1)), _solve(batches, optax.sgd(0.1)))


def test_the_loss_sum_is_of_losses_before_their_steps():
    batches = _batches(1, 1)
    _, _, metrics = _solve(batches, optax.sgd(0.1))
    noise = jax.random.normal(stream(KEY, "step", 0), (3,))
    expected = (batches["x"][0, 0] @ (1.0 + noise) - 1.0) ** 2
    assert float(metrics["loss_sum"]) == pytest.approx(float(expected), rel=1e-5)
    assert int(metrics["examples"]) == 1


def test_every_step_draws_from_a_key_of_its_own():
    one = _batches(1, 1)
    twice = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), one)
    still = optax.sgd(0.0)
    first, both = (float(_solve(batches, still)[2]["loss_sum"]) for batches in (one, twice))
    assert both != pytest.approx(2 * first)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "yogi", "adagrad"])
def test_a_solver_takes_its_own_rate_unless_given_one(name, same):
    factory = getattr(optimizers, name)
    solver = algorithms.as_local(factory)(learning_rate=0.1)
    params, gradient = {"w": jnp.ones(3)}, {"w": jnp.arange(1.0, 4.0)}

    def step(optimizer):
        return optimizer.update(gradient, optimizer.init(params), params)[0]

    same(step(solver.optimizer(None)), step(factory(learning_rate=0.1)))
    same(step(solver.optimizer(0.0)), step(factory(learning_rate=0.0)))
    assert solver.learning_rate == 0.1


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sgd", {"learning_rate": -1.0}),
        ("sgd", {"learning_rate": 0.1, "momentum": 1.5}),
        ("sgd", {"learning_rate": 0.1, "weight_decay": -0.1}),
        ("adam", {"learning_rate": 0.1, "epsilon": 0.0}),
        ("adam", {"learning_rate": 0.1, "b1": -0.1}),
        ("adam", {"learning_rate": 0.1, "b1": 1.0}),
        ("yogi", {"learning_rate": 0.1, "b2": 1}),
        ("sgd", {"learning_rate": 0.1, "momentum": 1.0}),
        ("sgd", {"learning_rate": 0.1, "nesterov": True}),
        ("adamw", {"learning_rate": 0.1, "weight_decay": -0.1}),
    ],
)
def test_settings_out_of_range_are_refused_when_the_solver_is_made(name, settings):
    with pytest.raises(SpecError):
        algorithms.as_local(getattr(optimizers, name))(**settings)


def test_weight_decay_is_added_to_the_gradient():
    params, optimizer = {"w": jnp.ones(3)}, optimizers.sgd(learning_rate=0.1, weight_decay=0.5)
    step, _ = optimizer.update({"w": jnp.zeros(3)}, optimizer.init(params), params)
    np.testing.assert_allclose(step["w"], -0.05, rtol=1e-6)
