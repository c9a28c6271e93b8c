"""What every model of the zoo must satisfy; a newly exported one fails here until it is listed.

``CASES`` says how a tiny one of each is built and adapted. All that follows is asked of every case
alike.
"""

import inspect
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import adaptors, losses, models
from floral.adaptors import Rule, additive, conv, low_rank
from floral.errors import SpecError

KEY = jax.random.key(0)
WEIGHTS = np.array([[0.5, 0.2, 0.3], [0.0, 1.0, 0.0]], np.float32)
MATRICES = (Rule(".*/kernel", low_rank(rank=2)), Rule(".*", additive()))
CONVOLUTIONS = (Rule(".*/Conv_0/kernel", conv(rank=2)), *MATRICES)

CASES = {
    "linear": (models.linear(3), MATRICES),
    "mlp": (models.mlp(3, hidden=(16,)), MATRICES),
    "cnn": (models.cnn(3, channels=[4], kernels=[3], pools=[2], hidden=[8]), CONVOLUTIONS),
    "vgg": (models.vgg(3, channels=[4], hidden=[8], dropout=0.0), CONVOLUTIONS),
    "resnet": (models.resnet(3, stages=[1, 1], width=4), CONVOLUTIONS),
    "vit": (models.vit(3, patch_size=4, width=8, depth=1, heads=2), MATRICES),
}


def _factories():
    exported = {name: getattr(models, name) for name in models.__all__}
    return {
        name
        for name, value in exported.items()
        if inspect.isfunction(value)
        and typing.get_type_hints(value).get("return") is models.Model
        and "outputs" in inspect.signature(value).parameters
    }


def test_every_exported_model_has_a_case():
    assert _factories() == set(CASES)


class Case(typing.NamedTuple):
    model: models.Model
    rules: tuple[Rule, ...]
    params: typing.Any
    stats: typing.Any


@pytest.fixture(scope="module")
def batch():
    """Twelve tiny colour images with labels at random."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 8, 8, 3)).astype(np.float32)
    return {"x": x, "y": rng.integers(0, 3, 12), "mask": np.ones(12, bool)}


@pytest.fixture(scope="module", params=CASES)
def case(request, batch, init):
    model, rules = CASES[request.param]
    return Case(model, rules, *init(model, batch))


def test_an_example_has_one_output_whatever_the_others_of_its_batch_are(case, batch, jit):
    """So the examples that pad a batch do not enter the others' outputs."""
    apply = jit(lambda x: case.model.apply(case.params, case.stats, {"x": x})[0])
    others = batch["x"].copy()
    others[1:] *= 100
    outputs = apply(batch["x"])
    assert outputs.shape == (12, 3)
    assert outputs.dtype == np.float32
    assert np.all(np.isfinite(outputs))
    np.testing.assert_array_equal(outputs[0], apply(others)[0])


def test_features_are_what_the_last_layer_sees(case, batch, jit):
    outputs, features = jit(
        lambda x: (
            case.model.apply(case.params, case.stats, {"x": x})[0],
            case.model.features(case.params, case.stats, {"x": x}),
        )
    )(batch["x"])
    layers = case.params["params"]
    last = layers["head" if "head" in layers else max(n for n in layers if n.startswith("Dense_"))]
    expected = features @ last["kernel"] + last["bias"][None]
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


def test_an_empty_batch_has_no_outputs(case, batch, jit):
    nobody = {"x": batch["x"][:0]}
    outputs = jit(lambda x: case.model.apply(case.params, case.stats, {"x": x})[0])(nobody["x"])
    assert outputs.shape == (0, 3)
    structs = jax.eval_shape(case.model.init, KEY, nobody)
    assert structs == jax.eval_shape(lambda: (case.params, case.stats))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("shape", [(2, 0), (2, 8, 0, 3), ()])
def test_inputs_without_numbers_are_refused(name, shape):
    batch = {"x": jax.ShapeDtypeStruct(shape, jnp.float32)}
    said = rf"^{name}: expected .*, got inputs of shape {re.escape(str(shape))}"
    with pytest.raises(SpecError, match=said):
        jax.eval_shape(CASES[name][0].init, KEY, batch)


@pytest.mark.parametrize("shape", [(2, 8, 12, 1), (1, 16, 8, 2)])
def test_images_may_be_of_any_channels_and_sides(case, shape):
    batch = {"x": jax.ShapeDtypeStruct(shape, jnp.float32)}
    params, stats = jax.eval_shape(case.model.init, KEY, batch)
    assert jax.eval_shape(case.model.apply, params, stats, batch)[0].shape == (shape[0], 3)


@pytest.mark.parametrize("name", ["cnn", "vgg", "resnet", "vit"])
def test_images_without_a_channel_axis_have_one_channel(name):
    model, _ = CASES[name]
    with_axis, without = (
        jax.eval_shape(model.init, KEY, {"x": jax.ShapeDtypeStruct(shape, jnp.float32)})
        for shape in ((2, 8, 8, 1), (2, 8, 8))
    )
    assert with_axis == without


def _random(structs, seed):
    """Normal numbers by NumPy, which need no compilation."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: np.asarray(0.3 * rng.standard_normal(leaf.shape), leaf.dtype), structs
    )


def test_a_bank_under_vmap_has_the_merged_models_outputs_and_gradients(case, batch, jit):
    """Two clients of different mixtures and data: factored side by side, merged one by one."""
    plan = adaptors.make_plan(case.rules, case.params)
    fast = adaptors.adapted(case.model, plan, batch)
    kernels = {path for path in plan.leaves if path.endswith("kernel")}
    assert {fast.methods[path] for path in kernels} == {"fast"}
    bank = _random(jax.eval_shape(lambda key: adaptors.init_bank(key, plan, 3), KEY), 1)
    x = batch["x"].reshape(2, 6, *batch["x"].shape[1:])

    def score(outputs):
        return jnp.sum(jnp.sin(outputs)), outputs

    def factored(params, bank, weights, x):
        return score(fast.apply(params, case.stats, bank, weights, {"x": x})[0])

    def defined(params, bank, weights, x):
        merged = adaptors.merge(params, bank, weights, plan)
        return score(case.model.apply(merged, case.stats, {"x": x})[0])

    def with_gradients(fn):
        return jax.value_and_grad(fn, argnums=(0, 1, 2), has_aux=True)

    clients = jit(jax.vmap(with_gradients(factored), in_axes=(None, None, 0, 0)))
    left = clients(case.params, bank, WEIGHTS, x)
    one_by_one = jit(with_gradients(defined))
    for client in range(2):
        right = one_by_one(case.params, bank, WEIGHTS[client], x[client])
        mine = jax.tree.map(lambda leaf, client=client: leaf[client], left)
        for one, other in zip(jax.tree.leaves(mine), jax.tree.leaves(right), strict=True):
            # float32 sums in two orders, through norms; relative to the leaf's largest entry.
            scale = max(1.0, float(np.max(np.abs(other))))
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-4 * scale)


def test_a_small_batch_can_be_learnt_by_heart(case, batch, jit):
    optimizer = optax.adam(0.03)

    def loss(params):
        outputs, _ = case.model.apply(params, case.stats, batch, train=True)
        return jnp.mean(losses.cross_entropy(outputs, batch))

    def step(carry, _):
        params, state = carry
        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradients, state)
        return (optax.apply_updates(params, updates), state), value

    @jit
    def train(params):
        return jax.lax.scan(step, (params, optimizer.init(params)), None, length=80)[1]

    values = train(case.params)
    assert values[0] > 0.5
    assert values[-1] < 0.05
