"""Leaves that are trained themselves are merged where that takes fewer operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from floral.adaptors import Rule, adapt, additive, conv, embedding, init_bank, low_rank
from floral.adaptors._conv import LAYOUTS
from floral.adaptors.bank import weighted_deltas
from floral.adaptors.fast.choice import cheaper_merged, mixed_delta
from floral.models.frameworks.linen import from_linen
from floral.operations import work_of

KEY = jax.random.key(0)
WEIGHTS = jnp.array([0.5, 0.2, 0.3])
KERNEL, TABLE = "params/kernel", "params/embedding"


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(
    ("adaptor", "shape"),
    [
        (low_rank(rank=2, alpha=0.5), (5, 4)),
        (low_rank(rank=2, in_axes=(0, 1)), (2, 3, 4)),
        (embedding(rank=2, alpha=0.5), (7, 4)),
        (additive(alpha=0.5), (3, 2)),
        *((conv(layout=layout, rank=1, alpha=0.5), (3, 2, 4, 5)) for layout in LAYOUTS),
        (low_rank(rank=2)._replace(mix=None), (5, 4)),
    ],
)
def test_the_mixture_of_a_bank_is_one_adaptor(random_tree, close, adaptor, shape):
    trained, fixed = jax.eval_shape(
        jax.vmap(adaptor.init, (0, None)), jax.random.split(KEY, 3), jnp.zeros(shape)
    )
    trained = random_tree(trained, 0)
    mixed = mixed_delta(adaptor, trained, fixed, WEIGHTS)
    close(mixed, weighted_deltas(adaptor, trained, fixed, WEIGHTS))


def operations(module, adaptor, x, trained, *, num_adaptors=3):
    """Of the adapted module, forward, the paths of ``trained`` being trained themselves."""
    model = adapt(from_linen(module), [Rule(".*/(kernel|embedding)", adaptor)], {"x": x[:1]})
    bank = jax.eval_shape(lambda: init_bank(KEY, model.plan, num_adaptors))
    weights = struct(num_adaptors)
    apply = model.apply_training(trained)
    return work_of(lambda *given: apply(*given)[0], model.params, (), bank, weights, {"x": x})


@pytest.mark.parametrize("axes", [(), (3,)])
@pytest.mark.parametrize("examples", [1, 2, 4, 5, 7])
def test_a_dense_layer_is_merged_from_as_many_positions_on_as_make_it_cheaper(axes, examples):
    """in · out / (in + out) = 4.8 of them, whatever the model was adapted with; C·R = 6."""
    x = jnp.zeros((examples, *axes, 12))
    positions = examples * np.prod(axes, initial=1)
    own = 2 * positions * 12 * 8
    beside, merged = 2 * 6 * positions * (12 + 8), 2 * 6 * 12 * 8
    module, adaptor = nn.Dense(8), low_rank(rank=2)
    assert operations(module, adaptor, x, [KERNEL]).operations == own + min(beside, merged)
    assert operations(module, adaptor, x, []).operations == own + beside
    assert operations(module, adaptor, x, ["params/bias"]).operations == own + beside


@pytest.mark.parametrize("side", [2, 3, 4, 5, 8])
def test_a_convolution_is_merged_from_as_many_pixels_on_as_make_it_cheaper(side):
    module, adaptor = nn.Conv(8, (3, 3)), conv(rank=2)
    x = jnp.zeros((2, side, side, 4))
    own = 2 * 2 * side**2 * 3 * 3 * 4 * 8
    beside, merged = 2 * 6 * 2 * side**2 * 3 * (4 + 8), 2 * 6 * 3 * 3 * 4 * 8
    work = operations(module, adaptor, x, [KERNEL])
    assert work.operations == own + min(beside, merged)
    assert work.of_convolutions == own + (beside if beside <= merged else 0)
    assert operations(module, adaptor, x, []).of_convolutions == own + beside


def test_an_embedding_is_merged_for_as_many_ids_as_it_has_rows():
    for ids, expected in ((3, 3), (9, 7)):
        work = operations(nn.Embed(7, 4), embedding(rank=2), jnp.zeros((ids,), int), [TABLE])
        assert work.operations == 2 * 6 * expected * 4


@pytest.mark.parametrize("examples", [1, 40])
def test_outputs_and_gradients_are_the_same_on_either_side(merged_is_factored, examples):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = jnp.tanh(nn.Conv(4, (3, 2), strides=(2, 1))(x))
            return nn.Dense(3)(x.reshape(len(x), -1))

    model = from_linen(Net())
    x = np.random.default_rng(0).standard_normal((examples, 2, 2, 2), np.float32)
    rules = [Rule(".*/Conv_0/kernel", conv(rank=2)), Rule(".*/kernel", low_rank(rank=2))]
    net = adapt(model, rules, {"x": x})
    for weights in (WEIGHTS, {"": WEIGHTS, "params/Conv_0": jnp.array([0.0, 1.0, 0.0])}):
        merged_is_factored(model, net.plan, {"x": x}, weights=weights)
    bank = jax.eval_shape(lambda: init_bank(KEY, net.plan, 3))
    chosen = cheaper_merged(
        model, net.plan, net.methods, net.params, (), bank, WEIGHTS, {"x": x}, train=True
    )
    assert chosen == (set() if examples == 1 else set(net.methods))


def test_frozen_factors_reach_the_delta_of_the_mixture(merged_is_factored):
    """A trained core between frozen sides, made of the parts of a pair."""

    def init(key, leaf):
        sides = [0.5 * jnp.ones((size, 2)) for size in leaf.shape]
        return {"core": jnp.zeros((2, 2))}, tuple(sides)

    def delta(trained, fixed, rank=None):
        return fixed[0] @ trained["core"] @ fixed[1].T

    def apply(op, trained, fixed, weights):
        core = jnp.tensordot(weights, trained["core"], axes=1)
        return op.inputs @ fixed[0] @ core @ fixed[1].T

    def mix(trained, weights):
        return {"core": jnp.tensordot(weights, trained["core"], axes=1)}

    pair = low_rank(rank=2)
    core = pair._replace(init=init, delta=delta, apply=apply, mix=mix, precondition=None)
    for examples in (1, 40):
        batch = {"x": jnp.ones((examples, 5))}
        model = from_linen(nn.Dense(4))
        plan = adapt(model, [Rule(".*/kernel", core)], batch).plan
        assert merged_is_factored(model, plan, batch) == {KERNEL: "fast"}
