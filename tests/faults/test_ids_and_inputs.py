"""What a simulator is asked: clients, inputs, keys and params, each taken or refused in a sentence."""

# ruff: noqa: E501  (a row is a line)

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import floral as fl
from floral.errors import SpecError


@pytest.fixture(scope="module")
def sim(simulator, build, make_population):
    unseen = np.array([False, False, True, False, True])
    return simulator(build("floral"), make_population(unseen=unseen))


@pytest.fixture(scope="module")
def state(sim):
    return sim.init(jax.random.key(0))


MASK = np.array([False, False, True, False, True])
TAKEN = {
    "a mask": (MASK, [2, 4]),
    "a list of booleans": (MASK.tolist(), [2, 4]),
    "one id": (3, [3]),
    "an array of JAX": (jnp.array([4, 2]), [2, 4]),
}


@pytest.mark.parametrize(("clients", "expected"), TAKEN.values(), ids=TAKEN)
def test_ids_and_masks_say_who_is_evaluated(clients, expected, sim, state):
    assert sim.evaluate(state, "test", clients)["client"].tolist() == expected


REFUSED = {
    "a negative id": [-1],
    "an id too large": [5],
    "a float": [1.0],
    "a name": ["b"],
    "a truth value": True,
    "a mask of two": [True, False],
    "a grid": [[0], [1]],
    "rows of unlike length": [[0], [1, 2]],
    "a set": {0},
    "nobody": [],
    "a number beyond 64 bits": 10**30,
}


@pytest.mark.parametrize("clients", REFUSED.values(), ids=REFUSED)
def test_what_is_no_id_is_refused(clients, sim, state):
    with pytest.raises(SpecError, match="clients must be ids from 0 to 4, got"):
        sim.evaluate(state, "test", clients)
    for ask in (lambda: sim.predict(state, clients, np.ones((1, 3), "f")),
                lambda: sim.client(state, clients), lambda: sim.export(state, clients)):  # fmt: skip
        with pytest.raises(SpecError, match="clients must be ids from 0 to 4, got"):
            ask()


def test_a_mask_of_nobody_is_refused(sim, state):
    with pytest.raises(SpecError, match="the mask marks none of the 5 clients"):
        sim.evaluate(state, "test", np.zeros(5, bool))


@pytest.mark.parametrize("client", [[0], MASK, None, 1.5, "0"], ids=str)
def test_one_client_is_one_id(client, sim, state):
    with pytest.raises(SpecError, match="clients must be ids from 0 to 4"):
        sim.predict(state, client, np.ones((1, 3), "f"))


INPUTS = {
    "no batch axis": (np.ones(3, "f"), r"inputs \[B, 3\] as the examples have, got \[3\]; add the batch axis, as x\[None\]"),
    "another width": (np.ones((2, 4), "f"), r"got \[2, 4\]"),
    "an axis more": (np.ones((2, 3, 1), "f"), r"got \[2, 3, 1\]"),
    "bytes": (np.ones((2, 3), np.uint8), "of float32, got uint8; cast and scale"),
    "whole numbers": (np.ones((2, 3), int), "got int64"),
    "text": ("abc", "got str 'abc'"),
    "words": (np.array([["a", "b", "c"]]), "got <U1"),
    "rows of unlike length": ([[1.0], [1.0, 2.0]], "rows of unlike shapes"),
    "nothing": (None, "got NoneType"),
    "a batch": ({"x": np.ones((2, 3), "f")}, "got dict"),
    "objects": (np.ones((2, 3), object), r"got object\[2, 3\]"),
    "a number too large for the examples' floats": (np.full((2, 3), 1e300), r"float32, which cannot hold 1e\+300"),
    "masked numbers": (np.ma.masked_array(np.ones((2, 3), "f"), np.eye(2, 3)), r"some of its numbers are masked; fill them"),
}  # fmt: skip


@pytest.mark.parametrize(("x", "said"), INPUTS.values(), ids=INPUTS)
def test_inputs_that_are_no_batch_of_examples_are_refused(x, said, sim, state):
    with pytest.raises(SpecError, match=said):
        sim.predict(state, 0, x)


@pytest.mark.parametrize("wrong", [300, -1], ids=["too large", "negative"])
@pytest.mark.parametrize("kind", [np.asarray, np.ndarray.tolist], ids=["array", "list"])
def test_whole_numbers_are_not_wrapped_into_the_examples_bytes(wrong, kind):
    bytes_of = {"train": {"x": np.array([[1, 2]], np.uint8), "y": [0]}}
    model = fl.models.from_function(lambda key, x: {"w": jnp.ones((2, 2))}, lambda p, x: x @ p["w"])
    local = fl.algorithms.local_solver(optax.sgd, learning_rate=0.1)
    algorithm = fl.algorithms.fedavg(model, fl.losses.cross_entropy, local)
    population = fl.data.from_clients([bytes_of], num_classes=2)
    sim = fl.simulate.make_simulator(algorithm, model, population, metrics={})
    state = sim.init(jax.random.key(0))
    assert np.asarray(sim.predict(state, 0, kind(np.array([[200, 55]])))).tolist() == [[255.0] * 2]
    with pytest.raises(SpecError, match=f"of uint8, which cannot hold {wrong}"):
        sim.predict(state, 0, kind(np.array([[wrong, 1]])))


def test_lists_and_wider_floats_are_inputs(sim, state):
    given = [[1, 2, 3]], [[1.0, 2.0, 3.0]], np.array([[1.0, 2.0, 3.0]])
    outputs = [np.asarray(sim.predict(state, 0, x)) for x in given]
    assert outputs[0].shape == (1, 2)
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])


KEYS = {
    "a number": (0, r"as jax.random.key\(0\), got int 0"),
    "an old key": (jax.random.PRNGKey(0), "jax.random.wrap_key_data"),
    "two keys": (jax.random.split(jax.random.key(0)), r"got key<fry>\[2\]"),
    "nothing": (None, "got NoneType"),
}


@pytest.mark.parametrize(("key", "said"), KEYS.values(), ids=KEYS)
def test_a_start_needs_one_key(key, said, sim):
    with pytest.raises(SpecError, match=said):
        sim.init(key)


OWN = {"params": {"Dense_0": {"kernel": np.ones((3, 2), "f"), "bias": np.zeros(2, "f")}}}


def changed(**leaves):
    return {"params": {"Dense_0": {**OWN["params"]["Dense_0"], **leaves}}}


PARAMS = {
    "another shape": (changed(bias=np.zeros(3, "f")), r"bias' has shape \(3,\), expected \(2,\)"),
    "a leaf more": (changed(scale=np.zeros(2, "f")), "unknown 'params/Dense_0/scale'"),
    "whole numbers": (changed(bias=np.zeros(2, int)), "bias' is int"),
    "NaN": (changed(bias=np.full(2, np.nan, "f")), "bias' holds numbers that are not finite"),
    "no tree": ("weights", "lacks"),
    "another tree": ([np.zeros(2, "f")], "lacks"),
}


@pytest.fixture(scope="module")
def one_layer(population):
    model = fl.models.linear(2)
    local = fl.algorithms.local_solver(optax.sgd, learning_rate=0.1)
    algorithm = fl.algorithms.fedavg(model, fl.losses.squared_error, local)
    return fl.simulate.make_simulator(algorithm, model, population, metrics={})


@pytest.mark.parametrize(("params", "said"), PARAMS.values(), ids=PARAMS)
def test_params_that_are_not_the_models_are_refused(params, said, one_layer):
    with pytest.raises(SpecError, match=f"params.*{said}"):
        one_layer.init(jax.random.key(0), params)


def test_params_in_a_frozen_dict_are_the_models(one_layer, same):
    from flax.core import freeze

    key = jax.random.key(0)
    same(one_layer.init(key, freeze(OWN)), one_layer.init(key, OWN))
    assert fl.simulate.SimulationState is type(one_layer.init(key, OWN))
