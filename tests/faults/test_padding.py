"""A short batch trains as its live examples alone, also a model that is undefined at zero."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import algorithms, data, losses, simulate
from floral.data import Batches, as_batches

_UNDEFINED = {
    "divided by the norm": lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True),
    "logarithm": lambda x: jnp.log(jnp.abs(x)),
    "reciprocal": lambda x: 1 / x,
    "square root": lambda x: jnp.sqrt(jnp.abs(x)),
}
_KEY = jax.random.key(0)


def _solved(inputs, batches):
    def objective(params, stats, batch, key):
        out = inputs(batch["x"] * params["scale"]) @ params["w"]
        return losses.squared_error(out, batch), stats

    params = {"scale": jnp.ones((1, 3)), "w": jnp.ones((3, 2))}
    return algorithms.solve(
        objective, params, (), batches, _KEY, optimizer=optax.sgd(0.01, momentum=0.9)
    )


def _examples(count):
    rng = np.random.default_rng(count)
    x = rng.uniform(0.5, 2, (count, 3)).astype("f")
    return {"x": x, "y": x[:, :2]}


@pytest.mark.parametrize("inputs", _UNDEFINED.values(), ids=_UNDEFINED)
@pytest.mark.parametrize("filled", [0.0, np.nan], ids=["zeros", "NaN"])
def test_padding_has_no_share_in_a_step_whatever_the_model_is(inputs, filled, near):
    alone = {name: leaf[None] for name, leaf in _examples(3).items()} | {
        "mask": np.ones((1, 3), bool)
    }
    mask = np.array([[True, False, True, True], [False] * 4])
    long = {"mask": mask}
    for name, leaf in _examples(3).items():
        long[name] = np.full((2, 4, *leaf.shape[1:]), filled, "f")
        long[name][mask] = leaf
    params, _, metrics = _solved(inputs, long)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))
    near((params, metrics), _solved(inputs, alone)[::2])


def test_batches_made_by_hand_show_live_examples_too():
    examples = {"x": jnp.array([0.0, 5.0, 6.0])}
    batches = Batches(
        examples, jnp.array([[1, 0], [0, 2]]), jnp.array([[True, False], [False, True]])
    )
    assert batches.steps()["x"].tolist() == [[5.0, 5.0], [6.0, 6.0]]
    assert as_batches(batches) is batches


@pytest.fixture(scope="module")
def by_norm(network):
    """The linear model of inputs of length one."""

    def apply(params, stats, batch, **options):
        return network.apply(
            params, stats, {**batch, "x": _UNDEFINED["divided by the norm"](batch["x"])}, **options
        )

    return network._replace(apply=apply, features=None)


@pytest.mark.parametrize(
    ("name", "home"),
    [("fedavg", "device"), ("fedavg", "host"), ("floral", "device"), ("fedem", "device")],
)
def test_a_round_of_short_batches_is_that_of_whole_ones(name, home, build, by_norm, near):
    """Three examples in one batch of three, and in one of four; one client is absent."""
    settings = {"num_models": 2} if name == "fedem" else {}
    algorithm = build(name, model=by_norm, **settings)
    clients = [{"train": _examples(3)}] * 3
    here = jnp.array([True, False, True])
    two = simulate.Sampler(capacity=lambda _: 3, sample=lambda *_: (jnp.arange(3), here))

    def after(batch_size):
        sim = simulate.make_simulator(
            algorithm,
            by_norm,
            data.from_clients(clients),
            metrics={},
            cohort=two,
            batching=data.batching(batch_size=batch_size),
            execution=simulate.execution(walk="vmap", population=home, devices=1),
        )
        state, metrics = sim.round(sim.init(_KEY))
        return state._replace(key=()), metrics

    short, whole = after(4), after(3)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(short[0].server))
    near(short, whole)


def test_a_sample_batch_shows_real_examples(population):
    sample = simulate.sample_batch(population, size=40)
    examples = population.splits["train"].examples
    np.testing.assert_array_equal(sample["x"][:23], examples["x"])
    assert np.all(np.any(sample["x"] != 0, axis=1))
    assert sample["x"].shape == (40, 3)
