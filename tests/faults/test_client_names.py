"""Clients are asked for by id or by name, and whoever is not there is refused in one sentence."""

import re

import jax
import numpy as np
import optax
import pyarrow.parquet
import pytest

import floral as fl
from floral.errors import DataError, SpecError


def examples(shift, size=3):
    x = np.arange(size * 2.0).reshape(size, 2) + shift
    return {"x": x, "y": np.arange(size) % 2}


@pytest.fixture(scope="module")
def named():
    """Three clients: "zoe", "ann" and "bob", in this order."""
    clients = {
        name: {"train": examples(10 * k), "test": examples(k)}
        for k, name in enumerate(["zoe", "ann", "bob"])
    }
    return fl.data.from_clients(clients, num_classes=2)


@pytest.fixture(scope="module")
def trained(named):
    model = fl.models.mlp(2, hidden=(3,))
    algorithm = fl.algorithms.ditto(
        model, fl.losses.cross_entropy, fl.algorithms.local_solver(optax.sgd, learning_rate=0.1)
    )
    simulator = fl.simulate.make_simulator(
        algorithm,
        model,
        named,
        metrics={"accuracy": fl.metrics.accuracy()},
        batching=fl.data.batching(batch_size=2),
    )
    state, _ = simulator.round(simulator.init(jax.random.key(0)))
    return simulator, state


def test_a_mapping_gives_names_in_its_order(named):
    assert named.client_names.tolist() == ["zoe", "ann", "bob"]
    for k, name in enumerate(["zoe", "ann", "bob"]):
        np.testing.assert_array_equal(
            named.client(name)["train"]["x"], examples(10 * k)["x"].astype(np.float32)
        )
        np.testing.assert_array_equal(named.client(name)["test"]["x"], named.client(k)["test"]["x"])


@pytest.mark.parametrize(
    ("clients", "ids"),
    [
        ("bob", [2]),
        (["bob", "zoe"], [2, 0]),
        (np.array(["ann"]), [1]),
        (["ann", 2], [1, 2]),
        (1, [1]),
        (np.int32(2), [2]),
        ([0, 2], [0, 2]),
        (np.array([True, False, True]), [0, 2]),
        ([False, True, False], [1]),
    ],
    ids=repr,
)
def test_clients_are_found_by_name_by_id_and_by_mask(named, clients, ids):
    assert named.ids_of(clients).tolist() == ids


UNKNOWN = [-1, 3, 99, True, None, 1.0, float("nan"), "", "bod", b"bob", [0, -1], [], [[0]]]
UNKNOWN += [np.zeros(3, bool), np.zeros(2, bool), np.array([1.0]), 10**30, {"ann"}, {"ann": 1}]


@pytest.mark.parametrize("clients", UNKNOWN, ids=repr)
def test_whoever_is_not_there_is_refused_everywhere_in_one_sentence(named, trained, clients):
    simulator, state = trained
    said = "(clients must be ids from 0 to 2 or names such as 'zoe', got )|(mask marks none)"
    with pytest.raises(SpecError, match=said):
        named.ids_of(clients)
    asked = [
        lambda: named.client(clients),
        lambda: simulator.client(state, clients),
        lambda: simulator.export(state, clients),
        lambda: simulator.predict(state, clients, np.zeros((1, 2), np.float32)),
    ]
    if clients is not None:  # of evaluate, everyone
        asked.append(lambda: simulator.evaluate(state, "test", clients))
    for ask in asked:
        with pytest.raises(SpecError, match="clients"):
            ask()


def test_the_nearest_name_is_suggested(named):
    with pytest.raises(SpecError, match="got 'bod'; did you mean 'bob'"):
        named.client("bod")


@pytest.mark.parametrize("client", [-1, 2])
def test_clients_without_names_are_asked_for_by_id_alone(client):
    two = fl.data.from_clients([{"train": examples(0)}, {"train": examples(1)}])
    said = re.escape(f"clients must be ids from 0 to 1, got {client}")
    with pytest.raises(SpecError, match=said):
        two.client(client)
    with pytest.raises(SpecError, match=said):
        two.splits["train"].client(client)
    with pytest.raises(SpecError, match="got 'ann'; these clients have no names"):
        two.client("ann")


def test_a_simulator_takes_names(trained):
    simulator, state = trained
    x = np.ones((2, 2), np.float32)
    np.testing.assert_array_equal(
        simulator.predict(state, "bob", x), simulator.predict(state, 2, x)
    )
    jax.tree.map(
        np.testing.assert_array_equal, simulator.export(state, "ann"), simulator.export(state, 1)
    )
    by_name = simulator.evaluate(state, "test", ["bob", "ann"])
    by_id = simulator.evaluate(state, "test", [1, 2])
    jax.tree.map(np.testing.assert_array_equal, by_name, by_id)


@pytest.mark.parametrize(
    ("field", "names", "sizes"),
    [
        (["b", "a", "b", "c"], ["a", "b", "c"], [1, 2, 1]),
        (np.array(["b", "a", "b", "c"], object), ["a", "b", "c"], [1, 2, 1]),
        (np.array([b"b", b"a", b"b", b"c"]), ["a", "b", "c"], [1, 2, 1]),
        ([10, 9, 10, 11], ["9", "10", "11"], [1, 2, 1]),
        (np.array([10, 9, 10, 11], object), ["9", "10", "11"], [1, 2, 1]),
        ([10.0, 9.0, 10.0, 11.0], ["9", "10", "11"], [1, 2, 1]),
        (["é", "日本", "é", "z"], ["z", "é", "日本"], [1, 2, 1]),
    ],
    ids=["words", "objects", "bytes", "numbers", "number-objects", "whole-floats", "unicode"],
)
def test_natural_clients_keep_their_names(field, names, sizes, tmp_path):
    source = fl.data.arrays(np.arange(4.0)[:, None], [0, 1, 0, 1], fields={"who": field})
    partition = fl.data.natural(field="who")({**source.fields}, np.random.default_rng(0))
    fl.data.save_partition(tmp_path / "p.npz", partition)
    for deal in (fl.data.natural(field="who"), fl.data.saved(path=str(tmp_path / "p.npz"))):
        population = fl.data.federate(source, partition=deal)
        assert population.client_names.tolist() == names
        assert population.splits["train"].sizes.tolist() == sizes
    fl.data.save_mapped(population, tmp_path / "mapped")
    mapped = fl.data.mapped(folder=str(tmp_path / "mapped"))
    assert mapped.client_names.tolist() == names
    rows = mapped.client(names[1])["train"]["x"]
    np.testing.assert_array_equal(rows, population.client(1)["train"]["x"])


@pytest.mark.parametrize("missing", [None, np.nan, float("nan"), "", " ", np.ma.masked, "None"])
def test_a_missing_client_name_is_named_by_field_and_example(missing):
    who = np.array(["a", missing, "b", "a"], object)
    source = fl.data.arrays(np.zeros((4, 1)), [0, 1, 0, 1], fields={"who": who})
    with pytest.raises(DataError, match="field 'who' of example 1 is missing"):
        fl.data.federate(source, partition=fl.data.natural(field="who"))


@pytest.mark.parametrize(
    "who",
    [
        ["a", 1, "b", "a"],
        [(1,), (2,), (1,), (2,)],
        [1.5, 2.0, 1.0, 2.0],
        [1j, 2j, 1j, 2j],
        [["a"], ["b"], ["a"], ["b"]],
    ],
    ids=["mixed", "tuples", "halves", "complex", "columns"],
)
def test_what_names_no_client_is_refused(who):
    held = np.empty(4, object)
    held[:] = who
    for field in (held, who) if not isinstance(who[0], tuple) else (held,):
        fields = {"who": np.asarray(field, object if "a" in who else None)}
        source = fl.data.arrays(np.zeros((4, 1)), [0, 1, 0, 1], fields=fields)
        with pytest.raises(DataError, match="field 'who'"):
            fl.data.federate(source, partition=fl.data.natural(field="who"))


def test_names_that_are_missing_or_taken_twice_are_refused():
    one = {"train": examples(0)}
    with pytest.raises(DataError, match="clients: name 1 is missing"):
        fl.data.from_clients({"a": one, None: one})
    with pytest.raises(DataError, match="clients: the name '1' is given twice"):
        fl.data.from_clients({"1": one, 1: one})
    with pytest.raises(DataError, match="clients: expected 1 names, got 2"):
        fl.data.federated(examples(0), {"train": [[0, 1]]}, client_names=["a", "b"])


def test_a_partition_may_be_rows_by_name():
    source = fl.data.arrays(np.arange(4.0)[:, None], [0, 1, 0, 1])
    population = fl.data.federate(source, partition={"ann": [3, 1], "bob": [0]})
    assert population.client("ann")["train"]["x"][:, 0].tolist() == [3.0, 1.0]
    assert fl.data.federate(source, partition=[[3], [0]]).num_clients == 2
    with pytest.raises(DataError, match="the rows of client 1 must be a list of whole numbers"):
        fl.data.federate(source, partition=[[3], [0.5]])
    with pytest.raises(DataError, match="partition must be made by a factory"):
        fl.data.federate(source, partition=4)


def test_tables_of_a_run_carry_names(tmp_path):
    np.savez(
        tmp_path / "d.npz",
        x=np.random.default_rng(0).normal(size=(12, 2)),
        y=np.arange(12) % 2,
        site=np.repeat(["rome", "oslo", "bonn"], 4),
    )
    config = {
        "rounds": 1,
        "data": {
            "source": {"kind": "npz", "path": str(tmp_path / "d.npz")},
            "partition": {"kind": "natural", "field": "site"},
            "split": {"test": 0.25},
        },
        "model": {"kind": "linear"},
        "algorithm": {"kind": "fedavg"},
        "local": {"kind": "sgd", "learning_rate": 0.1, "batch_size": 4},
    }
    folder = fl.run(config, out=tmp_path / "runs").folder
    (table,) = folder.rglob("round_*.parquet")
    assert pyarrow.parquet.read_table(table)["name"].to_pylist() == ["bonn", "oslo", "rome"]
