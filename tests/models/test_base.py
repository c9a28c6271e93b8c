import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from floral import adaptors, algorithms, data, losses, mixtures, models, simulate, tree

LOCAL = algorithms.local_solver(optax.sgd, learning_rate=0.1)
BATCHING = data.batching(batch_size=2, shuffle=False)


def _two_layers(params, x):
    hidden = jax.nn.relu(x @ params["first"]["kernel"] + params["first"]["bias"][None])
    return hidden @ params["second"]["kernel"] + params["second"]["bias"][None]


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.second(nnx.relu(self.first(x)))


class EquinoxNet(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear

    def __init__(self, key):
        self.first = eqx.nn.Linear(3, 4, key=key)
        self.second = eqx.nn.Linear(4, 2, key=jax.random.fold_in(key, 1))

    def __call__(self, x):
        return self.second(jax.nn.relu(self.first(x)))


def _weights():
    rng = np.random.default_rng(0)
    shapes = {"first": (3, 4), "second": (4, 2)}
    return {
        name: {
            "kernel": rng.standard_normal(shape).astype(np.float32),
            "bias": rng.standard_normal(shape[1]).astype(np.float32),
        }
        for name, shape in shapes.items()
    }


def _as_linen(weights):
    return {"params": {"Dense_0": weights["first"], "Dense_1": weights["second"]}}


def _as_equinox(weights, params):
    leaves = (
        lambda p: (p.first.weight, p.first.bias, p.second.weight, p.second.bias),
        tuple(
            jnp.asarray(leaf)
            for layer in ("first", "second")
            for leaf in (weights[layer]["kernel"].T, weights[layer]["bias"])
        ),
    )
    return eqx.tree_at(leaves[0], params, leaves[1])


KINDS = {
    "function": lambda: models.from_function(lambda key, x: _weights(), _two_layers),
    "linen": lambda: models.mlp(2, hidden=(4,)),
    "nnx": lambda: models.from_nnx(lambda rngs: NNXNet(rngs)),
    "equinox": lambda: models.from_equinox(EquinoxNet),
}


@pytest.fixture(scope="module", params=KINDS)
def one_round(request, population):
    """A round of FLoRAL with biases adapted, from the same weights in every library."""
    model = KINDS[request.param]()
    batch = simulate.sample_batch(population)
    params, _ = model.init(jax.random.key(0), batch)
    given = {
        "function": lambda: _weights(),
        "linen": lambda: _as_linen(_weights()),
        "nnx": lambda: _weights(),
        "equinox": lambda: _as_equinox(_weights(), params),
    }[request.param]()
    plan = adaptors.make_plan([adaptors.Rule(".*bias", adaptors.additive())], params)
    adapted = adaptors.adapted(model, plan, batch)
    algorithm = algorithms.floral(
        adapted, losses.squared_error, LOCAL, mixtures.known(), num_adaptors=2
    )
    sim = simulate.make_simulator(algorithm, model, population, metrics={}, batching=BATCHING)
    state, metrics = sim.round(sim.init(jax.random.key(0), given))
    return request.param, sim, state, metrics


@pytest.fixture(scope="module")
def reference(population):
    """The same round written for ``{first, second}`` by hand: plain steps and weighted means."""

    @jax.jit
    @jax.grad
    def gradient(values, batch, cluster):
        params = {
            name: {
                "kernel": values["base"][name]["kernel"],
                "bias": values["base"][name]["bias"] + values["bank"][name][cluster],
            }
            for name in ("first", "second")
        }
        return losses.squared_error(_two_layers(params, batch["x"]), batch).mean()

    base = _weights()
    start = {"base": base, "bank": {name: np.zeros((2, len(base[name]["bias"]))) for name in base}}
    start = jax.tree.map(jnp.float32, start)
    ends = []
    for client in range(5):
        values, examples = start, population.client(client)["train"]
        cluster = jnp.asarray(population.traits["cluster"][client])
        for first in range(0, len(examples["x"]), 2):
            batch = {name: array[first : first + 2] for name, array in examples.items()}
            grads = gradient(values, batch, cluster)
            values = jax.tree.map(lambda v, g: v - 0.1 * g, values, grads)
        ends.append(values)
    sizes = population.splits["train"].sizes.astype(float)
    clusters = population.traits["cluster"]
    mean = jax.tree.map(
        lambda *leaves: np.average(leaves, axis=0, weights=sizes), *[end["base"] for end in ends]
    )
    banks = [
        jax.tree.map(
            lambda *leaves, c=c: np.average(leaves, axis=0, weights=sizes * (clusters == c))[c],
            *[end["bank"] for end in ends],
        )
        for c in (0, 1)
    ]
    return mean, banks


def test_every_library_trains_the_same_round_from_the_same_weights(
    one_round, reference, population
):
    kind, sim, state, _ = one_round
    base, banks = reference
    x = np.random.default_rng(1).standard_normal((6, 3)).astype(np.float32)
    for client in range(5):
        offsets = banks[int(population.traits["cluster"][client])]
        params = {
            name: {"kernel": base[name]["kernel"], "bias": base[name]["bias"] + offsets[name]}
            for name in base
        }
        # A few float32 steps on losses of order ten, in another order of sums.
        np.testing.assert_allclose(
            sim.predict(state, client, x), _two_layers(params, x), rtol=1e-4, atol=1e-4
        )
    assert kind in KINDS


def test_an_exported_model_is_a_params_tree_of_the_models_own_library(one_round):
    _, sim, state, _ = one_round
    exported = sim.export(state, 1)
    assert jax.tree.structure(exported) == jax.tree.structure(state.server.base)


def test_params_of_nnx_and_equinox_have_readable_paths():
    batch = {"x": jnp.zeros((2, 3))}
    nnx_params, _ = models.from_nnx(lambda rngs: NNXNet(rngs)).init(jax.random.key(0), batch)
    assert sorted(tree.paths(nnx_params)) == [
        "first/bias",
        "first/kernel",
        "second/bias",
        "second/kernel",
    ]
    equinox_params, _ = models.from_equinox(EquinoxNet).init(jax.random.key(0), batch)
    assert sorted(tree.paths(equinox_params)) == [
        "first/bias",
        "first/weight",
        "second/bias",
        "second/weight",
    ]


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(2)(nn.Dropout(0.5, deterministic=not train)(x))


def test_a_model_with_dropout_trains_on_other_masks_every_round(population, same):
    model = models.from_linen(Dropped(), train_argument="train")
    algorithm = algorithms.fedavg(model, losses.squared_error, LOCAL)
    sim = simulate.make_simulator(algorithm, model, population, metrics={}, batching=BATCHING)
    state = sim.init(jax.random.key(0))
    same(sim.round(state)[0], sim.round(state)[0])
    for other in (state._replace(key=jax.random.key(1)), state._replace(round=state.round + 1)):
        kernels = [
            sim.round(s)[0].server.params["params"]["Dense_0"]["kernel"] for s in (state, other)
        ]
        assert np.any(kernels[0] != kernels[1])


@pytest.mark.parametrize(
    ("model", "shape", "outputs", "parameters"),
    [
        (models.linear(3), (2, 10), (2, 3), 33),
        (models.mlp(10, hidden=(200,)), (2, 28, 28), (2, 10), 159_010),
        (models.mlp(1, hidden=(20,)), (2, 10), (2, 1), 241),
        (models.cnn(10), (2, 32, 32, 3), (2, 10), 87_178),
    ],
)
def test_the_zoo_has_the_papers_sizes(model, shape, outputs, parameters):
    batch = {"x": jax.ShapeDtypeStruct(shape, jnp.float32)}
    params, stats = jax.eval_shape(model.init, jax.random.key(0), batch)
    assert tree.num_parameters(params) == parameters
    assert jax.eval_shape(model.apply, params, stats, batch)[0].shape == outputs
