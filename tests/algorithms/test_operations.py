"""What a step of FLoRAL takes beside FedAvg's, and where it convolves with thin kernels."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.extend import core

from floral import adaptors, algorithms, data, losses, mixtures, models
from floral.messages import Context
from floral.operations import work_of_program

MODEL = models.cnn(10, kernels=(5, 5), pools=(2, 2), padding="SAME", hidden=(64,))
SAMPLE = {"x": jnp.zeros((1, 28, 28, 1)), "y": jnp.zeros((1,), jnp.int32)}
STEP = {
    **{name: jnp.zeros((1, 20, *value.shape[1:]), value.dtype) for name, value in SAMPLE.items()},
    "mask": jnp.ones((1, 20), bool),
}
PARTS = (losses.cross_entropy, algorithms.local_solver(optax.sgd, learning_rate=0.1))
THIN = {(5, 1), (1, 5)}


def floral(**settings):
    """With 4 adaptors of 1 % of every kernel."""
    rules = [
        adaptors.Rule(".*/Conv_./kernel", adaptors.conv(budget=0.01)),
        adaptors.Rule(".*/kernel", adaptors.low_rank(budget=0.01)),
        adaptors.Rule(".*/bias", adaptors.additive()),
    ]
    model = adaptors.adapt(MODEL, rules, SAMPLE)
    return algorithms.floral(model, *PARTS, mixtures.softmax(), num_adaptors=4, **settings)


def traced(algorithm):
    """The program of one local step on 20 examples."""
    params, stats = jax.eval_shape(MODEL.init, jax.random.key(0), SAMPLE)
    server = jax.eval_shape(algorithm.init, jax.random.key(0), params, stats)

    def turn(key, server):
        context = Context(jnp.zeros((), jnp.int32), key, jnp.ones(()), jnp.ones(()), {})
        row = algorithm.client_init(key, server, {})
        received = algorithm.download(server, context)
        return algorithm.client_update(key, received, row, data.as_batches(STEP), context)[0]

    return jax.make_jaxpr(turn)(jax.random.key(0), server)


def kernels(program):
    """The sides of every kernel that a program convolves with."""
    for operation in program.eqns:
        if operation.primitive.name == "conv_general_dilated":
            spatial = operation.params["dimension_numbers"].rhs_spec[2:]
            yield tuple(operation.invars[1].aval.shape[axis] for axis in spatial)
        for value in operation.params.values():
            if isinstance(value, core.ClosedJaxpr):
                yield from kernels(value.jaxpr)


def test_beside_a_trained_base_four_adaptors_take_a_tenth_more_at_most():
    fedavg = work_of_program(traced(algorithms.fedavg(MODEL, *PARTS)))
    program = traced(floral())
    work = work_of_program(program)
    assert fedavg.operations < work.operations <= 1.1 * fedavg.operations
    assert work.of_convolutions == fedavg.of_convolutions
    assert not THIN & set(kernels(program.jaxpr))


@pytest.mark.parametrize(
    "train", [("bank", "mixture"), ("mixture",), ("base/**/bias", "bank", "mixture")]
)
def test_frozen_kernels_keep_thin_convolutions_beside_them(train):
    assert set(kernels(traced(floral(train=train)).jaxpr)) >= THIN


def test_a_kernel_alone_in_training_is_merged_alone():
    train = ("base/**/Conv_1/kernel", "bank", "mixture")
    seen = [side for side in kernels(traced(floral(train=train)).jaxpr) if side in THIN]
    everywhere = [side for side in kernels(traced(floral(train=("bank",))).jaxpr) if side in THIN]
    assert 0 < len(seen) < len(everywhere)
