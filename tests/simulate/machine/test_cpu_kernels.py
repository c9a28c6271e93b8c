"""The rewrites of slow convolutions and poolings change no result, and reach into every loop."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from floral.simulate.machine.cpu_kernels import with_fast_kernels

CANONICAL = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def convolutions(program):
    """The parameters of every convolution of a traced program, those in loops and calls too."""
    for operation in program.eqns:
        if operation.primitive.name == "conv_general_dilated":
            yield operation.params
        for value in operation.params.values():
            for inner in value if isinstance(value, tuple) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from convolutions(inner)


def names(program):
    for operation in program.eqns:
        yield operation.primitive.name
        for value in operation.params.values():
            for inner in value if isinstance(value, tuple) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from names(inner)


def close(left, right):
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"padding": "SAME"},
        {"padding": "VALID"},
        {"padding": ((1, 2), (0, 3))},
        {"strides": (2, 3)},
        {"kernel_dilation": (2, 1)},
        {"input_dilation": (1, 2), "padding": ((0, 1), (1, 1))},
        {"feature_group_count": 2},
        {"strides": (2, 2), "padding": "VALID", "kernel_dilation": (1, 2)},
    ],
    ids=lambda settings: ",".join(settings),
)
def test_gradients_of_convolutions_in_a_loop_are_the_same(settings):
    layer = nn.Conv(6, (3, 2), **settings)
    key = jax.random.key(0)
    x = jax.random.normal(key, (3, 5, 9, 8, 4))
    params = layer.init(key, x[0])

    def train(params, images):
        def step(params, image):
            grads = jax.grad(lambda p: jnp.mean(layer.apply(p, image) ** 2))(params)
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), None

        return lax.scan(step, params, images)[0]

    close(jax.jit(with_fast_kernels(train))(params, x), jax.jit(train)(params, x))
    if "feature_group_count" not in settings:
        rewritten = jax.make_jaxpr(with_fast_kernels(train))(params, x).jaxpr
        found = list(convolutions(rewritten))
        assert found
        assert all(tuple(p["dimension_numbers"]) == CANONICAL for p in found)


def test_the_original_has_what_the_rewrite_is_for():
    layer = nn.Conv(2, (3, 3))
    x = jnp.ones((1, 4, 4, 1))
    params = layer.init(jax.random.key(0), x)
    gradient = jax.grad(lambda p: jnp.sum(layer.apply(p, x)))
    found = convolutions(jax.make_jaxpr(gradient)(params).jaxpr)
    assert any(tuple(p["dimension_numbers"]) != CANONICAL for p in found)


@pytest.mark.parametrize(
    ("shape", "window", "strides", "padding", "rewritten"),
    [
        ((2, 6, 8, 3), (2, 2), (2, 2), "VALID", True),
        ((2, 7, 9, 3), (2, 4), (2, 4), "VALID", True),
        ((2, 6, 6, 3), (3, 3), (3, 3), "SAME", True),
        ((2, 7, 7, 3), (3, 3), (2, 2), "VALID", False),
        ((2, 7, 7, 3), (2, 2), (2, 2), "SAME", False),
    ],
)
def test_gradients_of_max_pools_are_the_same_bit_for_bit(
    shape, window, strides, padding, rewritten
):
    # Few values, so that many windows hold equals: the first of them gets the gradient.
    x = jnp.round(2 * jax.random.normal(jax.random.key(0), shape))
    weights = jax.random.normal(jax.random.key(1), shape)

    def pooled(x):
        outputs = nn.max_pool(x, window, strides, padding)
        return jnp.sum(outputs * weights[:, : outputs.shape[1], : outputs.shape[2]])

    gradient = jax.grad(pooled)
    np.testing.assert_array_equal(with_fast_kernels(gradient)(x), gradient(x))
    left = "select_and_scatter_add" in names(jax.make_jaxpr(with_fast_kernels(gradient))(x).jaxpr)
    assert left != rewritten


def test_branches_vmaps_and_random_keys_pass_through():
    def function(key, tree, flag):
        x = tree["x"]
        y = lax.cond(flag, lambda x: jnp.sin(x), lambda x: x + 1, x)
        y = jax.vmap(lambda row: lax.fori_loop(0, 3, lambda _, r: r * 1.5, row))(y)
        return {"y": y, "noise": jax.random.normal(key, (2,)), "key": key}

    key, tree = jax.random.key(3), {"x": jnp.arange(6.0).reshape(2, 3)}
    for flag in (True, False):
        one = jax.jit(with_fast_kernels(function))(key, tree, flag)
        other = jax.jit(function)(key, tree, flag)
        assert (
            jax.random.key_data(one.pop("key")).tolist()
            == jax.random.key_data(other.pop("key")).tolist()
        )
        close(one, other)
