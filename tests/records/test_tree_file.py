"""A saved tree comes back bit for bit, or is refused; a file is whole or not there."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import floral as fl
from floral.errors import DataError, FloralError, SpecError

TREE = {
    "half": jnp.array([1.0, -0.0, jnp.nan, jnp.inf], jnp.bfloat16),
    "one": np.float32(0.1),
    "none": np.zeros((0, 3)),
    "names": np.array(["a", "böse", ""]),
    "file": [None, True, 3, 0.1, "word", ()],
    "nested": ({"a/b": np.arange(2), "a": {"b": np.arange(3)}}, {7: np.array([True])}),
    "floral.json": np.uint8(3),
}


def test_every_kind_of_leaf_comes_back_bit_for_bit(tmp_path, same):
    fl.save(tmp_path / "tree.npz", TREE)
    found = fl.load(tmp_path / "tree.npz")
    words = ("names", "file", "half")
    assert found["half"].dtype == jnp.bfloat16
    assert found["half"].tobytes() == np.asarray(TREE["half"]).tobytes()  # a NaN too
    assert [*found] == [*TREE]
    assert found["file"] == TREE["file"]
    assert found["names"].tolist() == TREE["names"].tolist()
    same(*({name: t[name] for name in t if name not in words} for t in (found, TREE)))
    assert [path.name for path in tmp_path.iterdir()] == ["tree.npz"]
    assert np.load(tmp_path / "tree.npz")["names"].tolist() == ["a", "böse", ""]


def test_a_state_goes_on_from_a_file_as_if_it_had_never_stopped(tmp_path, build, simulator, same):
    sim = simulator(build("floral"))
    state, _ = sim.round(sim.init(jax.random.key(3)))
    fl.save(tmp_path / "state.npz", state)
    like = jax.eval_shape(lambda: sim.init(jax.random.key(0)))
    again = fl.load(tmp_path / "state.npz", like=like)
    same(again, state)
    assert type(again) is type(state)
    same(sim.round(again)[0], sim.round(state)[0])


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"f": len}, "f: fl.save keeps dicts, .* got the function len"),
        ({"f": np.array([None])}, r"f: .* got dtype object; astype\(str\)"),
        ({(1, 2): 3}, r"the tree's top: a key must be a word or an int, got \(1, 2\)"),
        ({"a": [{1, 2}]}, "a/0: fl.save keeps .* got set"),
    ],
    ids=["function", "objects", "key", "set"],
)
def test_what_cannot_be_kept_is_refused_and_nothing_is_written(tree, said, tmp_path):
    with pytest.raises(SpecError, match=said):
        fl.save(tmp_path / "tree.npz", tree)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("like", "said"),
    [
        ({"w": jnp.zeros(3)}, r"holds float32\[2\] at w, not float32\[3\]"),
        ({"w": jnp.zeros(2, jnp.int32)}, r"float32\[2\] at w, not int32\[2\]"),
        ({"b": jnp.zeros(2)}, "holds keys w at the tree's top, not keys b"),
        ([1], "holds keys w at the tree's top, not a list of 1"),
    ],
    ids=["shape", "dtype", "keys", "structure"],
)
def test_another_tree_than_is_wanted_is_refused(like, said, tmp_path):
    fl.save(tmp_path / "tree.npz", {"w": jnp.zeros(2)})
    with pytest.raises(SpecError, match=said):
        fl.load(tmp_path / "tree.npz", like=like)


@pytest.mark.parametrize("length", [0, 10, -30])
def test_a_file_that_is_cut_short_or_none_is_refused(length, tmp_path):
    path = tmp_path / "tree.npz"
    with pytest.raises(FloralError, match=r"cannot read .*tree\.npz"):
        fl.load(path)
    fl.save(path, TREE)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match=r"tree\.npz' is no whole file of fl\.save"):
        fl.load(path)


def test_data_and_states_can_be_pickled_and_a_simulator_says_what_to_do(
    build, simulator, population, same
):
    sim = simulator(build("fedavg"))
    for tree in (sim.evaluate(sim.init(jax.random.key(0))), population.splits):
        same(pickle.loads(pickle.dumps(tree)), tree)
    assert pickle.loads(pickle.dumps(population)).fingerprint == population.fingerprint
    with pytest.raises(SpecError, match=r"cannot be pickled: make it anew .* fl\.save"):
        pickle.dumps(sim)
