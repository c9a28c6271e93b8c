"""Clients' rows on the host are those on the devices, bit for bit, and no state is used twice."""

import gc
import os
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import simulate, tree
from floral.errors import SpecError
from floral.simulate.machine.execution import folder_of_rows, rows_on_host
from floral.simulate.table import copy_table, new_table, pieces, read_rows, write_rows
from floral.uplink import uplink

THREE = simulate.fixed(size=3)
MOMENTUM = uplink(client=[optax.with_extra_args_support(optax.trace(0.5))])


def on_devices(state):
    """The state as it is with rows on the devices."""
    columns = {name: rows for name, rows in state.table.items() if name != "round"}
    return state._replace(table=columns)


@pytest.fixture
def both(simulator):
    """``(algorithm, dataset=None, **options) -> (rows on the devices, rows on the host)``."""

    def make(algorithm, dataset=None, *, devices=1, population="auto", folder=None, **options):
        device, host = (
            simulate.execution(devices=devices, population=population, **rows)
            for rows in ({"rows": "device"}, {"rows": "host", "rows_folder": folder})
        )
        options = {"cohort": THREE, **options}
        return [simulator(algorithm, dataset, execution=e, **options) for e in (device, host)]

    return make


@pytest.mark.parametrize(
    ("name", "devices", "home"),
    [
        # Half of all, in which any two settings meet.
        ("fedavg", 1, "device"),
        ("fedavg", 2, "host"),
        ("floral", 1, "host"),
        ("floral", 2, "device"),
        ("local_adaptor", 1, "device"),
        ("local_adaptor", 2, "host"),
        pytest.param("fedavg", 1, "host", marks=pytest.mark.slow),
        pytest.param("fedavg", 2, "device", marks=pytest.mark.slow),
        pytest.param("floral", 1, "device", marks=pytest.mark.slow),
        pytest.param("floral", 2, "host", marks=pytest.mark.slow),
        pytest.param("local_adaptor", 1, "host", marks=pytest.mark.slow),
        pytest.param("local_adaptor", 2, "device", marks=pytest.mark.slow),
    ],
)
def test_where_rows_live_changes_no_bit(name, devices, home, build, both, same):
    """Three of five take part, on two devices with an empty place."""
    options = {"devices": devices, "population": home, "uplink": MOMENTUM}
    device, host = both(build(name), **options)
    states = [sim.init(jax.random.key(0)) for sim in (device, host)]
    same(states[0], on_devices(states[1]))
    for _ in range(4):
        (one, of_one), (other, of_other) = (
            sim.round(state) for sim, state in zip((device, host), states, strict=True)
        )
        same((one, of_one), (on_devices(other), of_other))
        states = [one, other]
    same(device.evaluate(states[0]), host.evaluate(states[1]))
    same(device.client(states[0], 2), host.client(states[1], 2))
    x = jnp.ones((2, 3))
    same(device.predict(states[0], 4, x), host.predict(states[1], 4, x))
    same(device.export(states[0], 0), host.export(states[1], 0))


def test_unseen_clients_find_new_rows(make_population, build, both, same):
    dataset = make_population(unseen=[False, False, False, False, True])
    device, host = both(build("floral"), dataset)
    states = [sim.round(sim.init(jax.random.key(0)))[0] for sim in (device, host)]
    same(device.evaluate(states[0]), host.evaluate(states[1]))
    same(device.client(states[0], 4), host.client(states[1], 4))


def test_mapped_rows_are_rows_in_memory(tmp_path, build, both, same):
    _, mapped = both(build("local_adaptor"), folder=str(tmp_path))
    _, plain = both(build("local_adaptor"))
    states = [sim.rounds(sim.init(jax.random.key(0)), 3) for sim in (mapped, plain)]
    same(*states)
    leaves = jax.tree.leaves(states[0][0].table["client"])
    assert leaves
    assert all(isinstance(leaf, np.memmap) for leaf in leaves)
    assert not os.listdir(tmp_path)  # nothing that a killed process would leave behind
    assert mapped.memory().host == 0
    assert plain.memory().host == tree.num_bytes(on_devices(states[1][0]).table)


def test_a_state_serves_one_round_and_no_more(build, both, same):
    _, host = both(build("local_adaptor"))
    start = host.init(jax.random.key(0))
    state, _ = host.round(start)
    rows = jax.tree.map(np.copy, state.table)
    for use in (
        host.round,
        host.evaluate,
        lambda s: host.rounds(s, 2),
        lambda s: host.client(s, 0),
        lambda s: host.predict(s, 0, jnp.ones((1, 3))),
        lambda s: host.export(s, 0),
    ):
        with pytest.raises(SpecError, match=r"state is of round 0, but .* rows are of round 1: "):
            use(start)
    same(state.table, rows)
    assert int(host.round(state)[0].round) == 2


def test_a_write_that_broke_off_is_never_used(build, both):
    _, host = both(build("local_adaptor"))
    state = host.init(jax.random.key(0))
    with pytest.raises(ValueError, match="zip"):
        write_rows(state.table, np.arange(3), (), 1)
    with pytest.raises(SpecError, match="half written by a round that broke off"):
        host.round(state)


def test_a_state_with_its_rows_elsewhere_is_refused(build, both):
    device, host = both(build("local_adaptor"))
    with pytest.raises(SpecError, match="the state has them on the devices"):
        host.round(device.init(jax.random.key(0)))
    with pytest.raises(SpecError, match="the state has them on the host"):
        device.round(host.init(jax.random.key(0)))


def test_the_shapes_of_a_start_are_those_of_the_start(build, both):
    _, host = both(build("local_adaptor"))
    struct = jax.eval_shape(lambda: host.init(jax.random.key(0)))
    state = host.init(jax.random.key(0))
    assert jax.tree.structure(struct) == jax.tree.structure(state)
    for one, other in zip(jax.tree.leaves(struct), jax.tree.leaves(state), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    assert host.lower(struct).compile() is not None


def test_a_round_takes_no_more_memory_for_more_clients(make_population, build, simulator):
    def memory(count, rows):
        dataset = make_population((4,) * count, clusters=(0,) * count)
        execution = simulate.execution(rows=rows)
        sim = simulator(build("local_adaptor"), dataset, cohort=THREE, execution=execution)
        return sim.memory()

    few, many = (memory(count, "host") for count in (5, 500))
    assert (few.outputs, few.temporaries) == (many.outputs, many.temporaries)
    assert many.host == 100 * few.host
    few, many = (memory(count, "device") for count in (5, 500))
    assert many.outputs > few.outputs
    assert many.host == few.host == 0


def test_a_round_from_the_host_may_take_the_memory_of_its_state(build, simulator, same):
    execution = simulate.execution(rows="host")
    options = {"cohort": THREE, "execution": execution}
    kept, donated = (simulator(build("local_adaptor"), donate=d, **options) for d in (False, True))
    states = [sim.rounds(sim.init(jax.random.key(0)), 3) for sim in (kept, donated)]
    same(*states)


def test_clients_that_keep_nothing_have_no_table(build, simulator):
    sim = simulator(build("fedavg"), execution=simulate.execution(rows="host"))
    assert sim.new_table is None
    state, _ = sim.rounds(sim.init(jax.random.key(0)), 2)
    assert int(state.round) == 2


Device = namedtuple("Device", "limit")
Device.memory_stats = lambda self: None if self.limit is None else {"bytes_limit": self.limit}


@pytest.mark.parametrize(("limit", "expected"), [(399, True), (401, False), (None, False)])
def test_large_tables_live_on_the_host(limit, expected):
    struct = {"client": jax.ShapeDtypeStruct((5, 5), jnp.float32), "uplink": ()}
    auto = simulate.execution()
    assert rows_on_host(auto, struct, Device(limit)) is expected
    assert rows_on_host(auto._replace(rows="host"), struct, Device(limit))
    assert not rows_on_host(auto._replace(rows="device"), struct, Device(1))


def test_a_table_that_memory_does_not_hold_is_mapped(tmp_path):
    vast = {"client": jax.ShapeDtypeStruct((2**45,), jnp.float32)}
    small = {"client": jax.ShapeDtypeStruct((8,), jnp.float32)}
    auto = simulate.execution()
    assert folder_of_rows(auto, small) is None
    assert folder_of_rows(auto, vast) is not None
    given = simulate.execution(rows_folder=str(tmp_path))
    assert folder_of_rows(given, small) == tmp_path
    with pytest.raises(SpecError, match=r"rows take 140,737,488,355,328 bytes, .* has room for "):
        new_table(vast, tmp_path)


def test_rows_with_a_random_key_stay_on_the_devices():
    struct = {"client": jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 5))}
    assert not rows_on_host(simulate.execution(), struct, Device(1))
    with pytest.raises(SpecError, match="a random key"):
        rows_on_host(simulate.execution(rows="host"), struct, Device(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": "disk"}, "rows"),
        ({"rows": "device", "rows_folder": "."}, "rows_folder belongs to rows = 'host'"),
        ({"rows_folder": "no/such/folder"}, "expected a folder that is there"),
    ],
)
def test_wrong_places_for_rows_are_refused(options, message):
    with pytest.raises(SpecError, match=message):
        simulate.execution(**options)


@pytest.mark.parametrize("width", [1, 7, 2**18])  # many rows, and less than one, copied at once
def test_rows_are_read_and_written_by_id(width):
    struct = {"client": jax.ShapeDtypeStruct((6, width), jnp.float32)}
    table, copy = new_table(struct), new_table(struct)
    everyone = np.arange(6, dtype=np.float32)[:, None] + np.zeros((1, width), np.float32)
    write_rows(table, np.array([3, 6, 0, 5, 6, 1]), {"client": 10 + everyone}, 2)
    assert table["client"][:, 0].tolist() == [12, 15, 0, 10, 0, 13]
    assert read_rows(table, np.array([5, 6, 0]))["client"][:, -1].tolist() == [13, 13, 12]
    copy_table(table, copy)
    np.testing.assert_array_equal(copy["client"], table["client"])
    assert int(copy["round"]) == int(table["round"]) == 2


def test_pieces_are_the_whole():
    column = np.broadcast_to(np.float32(0), (1000, 2**20))
    cut = list(pieces(column))
    assert [part.start for part in cut] == [0, *(part.stop for part in cut[:-1])]
    assert sum(len(column[part]) for part in cut) == 1000
    assert len(cut) > 1


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="no list of what is mapped")
def test_a_mapped_table_frees_its_room_when_it_goes(tmp_path):
    struct = {"client": jax.ShapeDtypeStruct((1000, 1000), jnp.float32)}
    links = "/proc/self/maps"
    table = new_table(struct, tmp_path)
    with open(links, encoding="utf-8") as maps:
        assert str(tmp_path) in maps.read()
    del table
    gc.collect()
    with open(links, encoding="utf-8") as maps:
        assert str(tmp_path) not in maps.read()
