"""Params that cannot be trained, averaged or saved are refused by their path, before training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import algorithms, data, losses, models, simulate
from floral.errors import SpecError

_LEAVES = {
    "integer": (jnp.zeros((), jnp.int32), r"is int32\[\]"),
    "whole number of Python": (3, r"is int64\[\]"),
    "bool": (jnp.zeros(2, bool), r"is bool\[2\]"),
    "eight bits": (jnp.zeros(2, jnp.float8_e4m3fn), r"is float8_e4m3fn\[2\], of which no mean"),
    "complex": (jnp.zeros(2, jnp.complex64), r"is complex64\[2\]"),
    "random key": (jax.random.key(0), "is a random key"),
    "word": ("relu", "is str"),
    "object": (object(), "is object"),
    "empty": (jnp.zeros((0, 3)), r"has no elements, its shape is \(0, 3\)"),
}


def _simulator(init):
    model = models.Model(init, lambda p, stats, batch, **_: (batch["x"] @ p["w"], stats))
    local = algorithms.local_solver(optax.sgd, learning_rate=0.1)
    algorithm = algorithms.fedavg(model, losses.squared_error, local)
    ones = {"x": np.ones((2, 3), "f"), "y": np.ones((2, 2), "f")}
    population = data.from_clients([{"train": ones}])
    return simulate.make_simulator(algorithm, model, population, metrics={})


@pytest.mark.parametrize(("leaf", "message"), _LEAVES.values(), ids=_LEAVES)
def test_a_parameter_that_is_no_float_is_refused_by_its_path(leaf, message):
    with pytest.raises(SpecError, match=f"params: 'head/step' {message}"):
        _simulator(lambda key, batch: ({"w": jnp.zeros((3, 2)), "head": {"step": leaf}}, ()))


def test_two_parameters_of_one_path_are_refused():
    def init(key, batch):
        return {"w": jnp.zeros((3, 2)), "a/b": jnp.zeros(2), "a": {"b": jnp.zeros(2)}}, ()

    with pytest.raises(
        SpecError, match="two leaves have the path 'a/b': leave slashes out of keys"
    ):
        _simulator(init)


def test_statistics_may_count_but_hold_something():
    _simulator(lambda key, batch: ({"w": jnp.zeros((3, 2))}, {"count": jnp.zeros((), jnp.int32)}))
    with pytest.raises(SpecError, match="statistics: 'moments' has no elements"):
        _simulator(lambda key, batch: ({"w": jnp.zeros((3, 2))}, {"moments": jnp.zeros((0,))}))


def test_a_server_whose_state_changes_its_dtype_in_a_round_is_refused():
    model = models.linear(2)
    local = algorithms.local_solver(optax.sgd, learning_rate=0.1)
    base = algorithms.fedavg(model, losses.squared_error, local)

    def aggregate(server, reduced, context):
        after = base.aggregate(server, reduced, context)
        narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), after.params)
        return after._replace(params=narrow)

    ones = {"x": np.ones((2, 3), "f"), "y": np.ones((2, 2), "f")}
    population = data.from_clients([{"train": ones}])
    with pytest.raises(SpecError, match=r"goes in as float32.* and comes out as bfloat16"):
        simulate.make_simulator(base._replace(aggregate=aggregate), model, population, metrics={})
