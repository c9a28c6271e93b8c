"""The model that all clients would have without a part of their own."""

import jax
import numpy as np
import pytest

import floral
from floral import data
from floral.simulate import personalization

NOTHING = personalization(steps=0)


@pytest.fixture(scope="module")
def tested_alike():
    """Three clients who train on different examples and are tested on the same."""
    rng = np.random.default_rng(0)
    test = {"x": rng.standard_normal((4, 3)), "y": rng.standard_normal((4, 2))}
    clients = [
        {
            "train": {"x": rng.standard_normal((5, 3)), "y": rng.standard_normal((5, 2))},
            "test": test,
        }
        for _ in range(3)
    ]
    return data.from_clients(clients, traits={"cluster": np.array([0, 1, 0])})


@pytest.mark.parametrize("name", ["floral", "local_adaptor", "ditto", "apfl", "pfedme", "ensemble"])
def test_one_model_is_everyones_before_they_have_a_part_of_their_own(
    build, simulator, after, tested_alike, name
):
    algorithm = build(name)
    assert algorithm.global_model
    sim = simulator(algorithm, tested_alike)
    state = after(sim, 3)
    shared = sim.evaluate(state, "test", personalization=NOTHING)["loss"]
    np.testing.assert_allclose(shared, shared[0], rtol=1e-5)
    own = sim.evaluate(state, "test")["loss"]
    assert np.ptp(own) > 1e-4


def test_of_a_method_without_an_own_part_it_is_everyones_model(build, simulator, after):
    sim = simulator(build("fedavg"))
    state = after(sim, 2)
    given = sim.evaluate(state, "test", personalization=NOTHING)
    jax.tree.map(np.testing.assert_array_equal, given, sim.evaluate(state, "test"))


def test_heads_of_ones_own_and_known_mixtures_leave_none(build):
    assert not build("partial", private=("**/kernel",)).global_model
    assert not build("floral", mixing=floral.mixtures.known()).global_model
    assert not build("ensemble", mixing=floral.mixtures.known()).global_model


def test_a_run_shows_it_beside_the_personal_model_and_says_where_there_is_none(tmp_path):
    config = {
        "rounds": 2,
        "evaluate": {"every": 2, "diagnose_clients": 0, "global_model": True},
        "data": {"source": {"kind": "synthetic_linear", "clients": 4, "train": 6, "dimension": 3}},
        "model": {"kind": "linear"},
        "algorithm": {"kind": "ditto"},
        "local": {"kind": "sgd", "learning_rate": 0.1, "batch_size": 3},
        "compare": {"fedper": {"algorithm": {"kind": "partial", "private": ["**/kernel"]}}},
    }
    result = floral.run(config, out=tmp_path)
    ditto, fedper = (result.summaries[name] for name in ("ditto", "fedper"))
    assert ditto["last"]["global"]["loss"]["mean"] != ditto["last"]["test"]["loss"]["mean"]
    assert "global" not in fedper["last"]
    assert any("no model that all clients share" in line for line in fedper["advice"])
    assert "| global model |" in result.report.read_text()
