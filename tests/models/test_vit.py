import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral import models, tree
from floral.errors import SpecError
from floral.models._vit import _patches
from floral.models.blocks import Attention

KEY = jax.random.key(0)


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def structs(model, *shape):
    batch = {"x": jax.ShapeDtypeStruct(shape, jnp.float32)}
    return jax.eval_shape(model.init, KEY, batch)[0]


@pytest.mark.parametrize(
    ("settings", "published"),
    [
        ({}, 5_717_416),
        ({"width": 384, "heads": 6}, 22_050_664),
        ({"width": 768, "heads": 12}, 86_567_656),
        ({"pool": "mean"}, 5_717_416 - 2 * 192),  # no class token, no position for it
    ],
)
def test_the_parameters_are_as_many_as_published_and_as_counted(settings, published):
    model = models.vit(1000, patch_size=16, **settings)
    width, tokens = settings.get("width", 192), 196 + ("pool" not in settings)
    block = 4 * (width + 1) * width + (width + 1) * 4 * width + (4 * width + 1) * width + 4 * width
    token = width * ("pool" not in settings)
    expected = (16 * 16 * 3 + 1) * width + token + tokens * width + 12 * block
    expected += 2 * width + (width + 1) * 1000
    assert tree.num_parameters(structs(model, 1, 224, 224, 3)) == expected == published


def test_every_kernel_is_a_matrix():
    leaves = tree.paths(structs(models.vit(10), 1, 32, 32, 3))
    shapes = {path: leaf.shape for path, leaf in leaves.items()}
    assert {len(shape) for path, shape in shapes.items() if path.endswith("kernel")} == {2}
    assert shapes["params/block_0/attention/query/kernel"] == (192, 192)
    assert shapes["params/position"] == (65, 192)


def test_attention_is_the_papers_formula(jit):
    x, heads = normal(2, 5, 6), 3
    layer = Attention(heads)
    params = jax.tree.map(lambda leaf: normal(*leaf.shape) / 2, jax.eval_shape(layer.init, KEY, x))[
        "params"
    ]
    weights = {name: np.asarray(layer["kernel"], np.float64) for name, layer in params.items()}
    biases = {name: np.asarray(layer["bias"], np.float64) for name, layer in params.items()}
    expected = np.zeros((2, 5, 6))
    for image in range(2):
        q, k, v = (x[image] @ weights[n] + biases[n] for n in ("query", "key", "value"))
        mixed = []
        for head in np.split(np.arange(6), heads):
            scores = np.exp(q[:, head] @ k[:, head].T / np.sqrt(len(head)))
            mixed.append(scores / scores.sum(1, keepdims=True) @ v[:, head])
        expected[image] = np.concatenate(mixed, 1) @ weights["out"] + biases["out"]
    np.testing.assert_allclose(jit(layer.apply)({"params": params}, x), expected, atol=1e-4)


def test_patches_are_what_a_convolution_of_their_stride_sees():
    """With the patches' matrix as its kernel, of a patch's sides and stride."""
    x, matrix = normal(1, 4, 6, 3), normal(12, 4)
    expected = jax.lax.conv_general_dilated(
        x, matrix.reshape(2, 2, 3, 4), (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    tokens = np.asarray(_patches(jnp.asarray(x), 2)) @ matrix
    np.testing.assert_allclose(tokens, expected.reshape(1, 6, 4), atol=1e-5)


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_only_the_positions_tell_patches_apart(pool, init, jit):
    model, x = models.vit(3, patch_size=4, width=8, depth=1, heads=2, pool=pool), normal(2, 8, 8, 1)
    params, stats = init(model, {"x": x})
    swapped = np.concatenate([x[:, 4:], x[:, :4]], axis=1)
    nowhere = {"params": {**params["params"], "position": params["params"]["position"] * 0}}

    @jit
    def outputs(params, x):
        return model.apply(params, stats, {"x": x})[0]

    np.testing.assert_allclose(outputs(nowhere, x), outputs(nowhere, swapped), atol=1e-5)
    assert np.max(np.abs(outputs(params, x) - outputs(params, swapped))) > 1e-4


def test_dropout_draws_in_training_and_only_from_a_key(init, jit):
    model = models.vit(3, patch_size=4, width=8, depth=1, heads=2, dropout=0.5)
    batch = {"x": normal(2, 8, 8, 1)}
    params, stats = init(model, batch)

    @functools.partial(jit, static_argnames="train")
    def outputs(key=None, train=False):
        return model.apply(params, stats, batch, key=key, train=train)[0]

    drawn = outputs(key=KEY, train=True)
    np.testing.assert_array_equal(drawn, outputs(key=KEY, train=True))
    assert np.any(drawn != outputs(key=jax.random.key(1), train=True))
    assert np.any(drawn != outputs())
    np.testing.assert_array_equal(outputs(train=True), outputs())
    np.testing.assert_array_equal(outputs(key=KEY), outputs())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 5}, "heads=5 does not divide width=192; the nearest that does: heads=4"),
        ({"depth": 0}, "depth must be a whole number of at least 1, got 0"),
        ({"pool": "men"}, "pool must be one of token, mean; got 'men'; did you mean 'mean'"),
        ({"dropout": 1.0}, "dropout must be below 1, got 1.0"),
        ({"dropout": -0.1}, "dropout must not be negative"),
        ({"mlp_ratio": 0}, "mlp_ratio must be a whole number"),
    ],
)
def test_a_setting_that_does_not_fit_is_named_with_one_that_does(settings, message):
    with pytest.raises(SpecError, match=message):
        models.vit(10, **settings)


@pytest.mark.parametrize(
    ("shape", "patch_size", "message"),
    [
        ((2, 28, 28, 1), 8, "images of 28×28 pixels; .* patch_size=7, or pad .* to 32×32"),
        ((2, 32, 36, 3), 8, "images of 32×36 pixels; .* patch_size=4, or pad .* to 32×40"),
        ((2, 3, 32, 32), 4, "images of 3×32 pixels; .* patch_size=1"),
        ((2, 10), 4, r"expected images .* got inputs of shape \(2, 10\)"),
    ],
)
def test_images_that_do_not_fit_are_refused_when_initialised(shape, patch_size, message):
    with pytest.raises(SpecError, match=f"vit: .*{message}"):
        structs(models.vit(10, patch_size=patch_size), *shape)
