"""Data that stay on the host give the numbers of data on the devices, bit for bit."""

import gc
import subprocess
import sys
import textwrap
import threading
import time

import jax
import numpy as np
import pytest

from floral import data, simulate
from floral.data.storage.lazy import LazyArray
from floral.errors import DataError
from floral.simulate.feed import Feed, Prefetch
from floral.simulate.shard import make_mesh

THREE = simulate.fixed(size=3)


class Noting(LazyArray):
    """A plain array behind slices that are noted; reading ``broken`` rows fails."""

    def __init__(self, array, broken=range(0)):
        super().__init__(array.shape, array.dtype)
        self.array = array
        self.broken = broken
        self.read = []

    def rows(self, first, last):
        self.read.append((first, last))
        if first in self.broken:
            raise OSError("input/output error")
        return self.array[first:last]

    @property
    def digest(self):
        return "noting"


def stored(dataset, store):
    """The population with every array of examples stored otherwise."""
    splits = {
        name: split._replace(examples={f: store(name, f, a) for f, a in split.examples.items()})
        for name, split in dataset.splits.items()
    }
    return dataset._replace(splits=splits)


def noting(dataset, **options):
    return stored(dataset, lambda name, field, array: Noting(array, **options))


def until(condition):
    """Waits for what another thread does."""
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


@pytest.fixture(scope="module")
def some_unseen(make_population):
    return make_population(unseen=[False, False, False, False, True])


@pytest.mark.parametrize(
    ("name", "options", "devices"),
    [
        ("fedavg", {}, 1),
        ("fedavg", {}, 2),
        ("floral", {}, 2),
        ("floral", {"stateful": False}, 1),
        pytest.param("floral", {}, 1, marks=pytest.mark.slow),
        pytest.param("floral", {"stateful": False}, 2, marks=pytest.mark.slow),
    ],
    ids=lambda value: "stateless" if value == {"stateful": False} else None,
)
def test_feeding_is_residency(name, options, devices, some_unseen, build, simulator, same):
    device, host = (
        simulator(
            build(name, **options),
            some_unseen,
            cohort=THREE,
            execution=simulate.execution(devices=devices, population=home),
        )
        for home in ("device", "host")
    )
    state = device.init(jax.random.key(0))
    ends = [sim.rounds(state, 3) for sim in (device, host)]
    same(*ends)
    if name == "floral":
        reports = [sim.evaluate(ends[0][0]) for sim in (device, host)]
        same(*reports)
        assert reports[0]["client"].tolist() == [0, 1, 2, 3, 4]


def test_however_examples_are_stored_the_numbers_are_the_same(
    tmp_path, population, build, simulator, same
):
    def as_memmap(name, field, array):
        np.save(tmp_path / f"{name}.{field}.npy", array)
        return np.load(tmp_path / f"{name}.{field}.npy", mmap_mode="r")

    data.save_mapped(population, tmp_path / "mapped")
    datasets = [
        population,
        stored(population, as_memmap),
        data.mapped(folder=str(tmp_path / "mapped")),
    ]
    sims = [simulator(build("fedavg"), dataset, cohort=THREE) for dataset in datasets]
    assert [bool(sim.data.examples) for sim in sims] == [True, False, False]
    state = sims[0].init(jax.random.key(0))
    ends = [sim.rounds(state, 2) for sim in sims]
    for end in ends[1:]:
        same(end, ends[0])
    resident = simulate.execution(population="device")
    for dataset in datasets[1:]:
        sim = simulator(build("fedavg"), dataset, execution=resident)
        same(sim.data.examples, sims[0].data.examples)


def test_a_generated_population_is_what_its_examples_are_in_memory(build, simulator, same):
    def ramps(rng, client, size):
        x = rng.standard_normal((size, 3))
        return {"x": x, "y": x[:, :2] * (1 + client % 2)}

    lazy = data.generated(ramps, sizes={"train": [4, 1, 6, 2]})
    plain = stored(lazy, lambda name, field, array: np.asarray(array))
    sims = [simulator(build("fedavg"), dataset, cohort=THREE) for dataset in (lazy, plain)]
    state = sims[0].init(jax.random.key(0))
    same(*(sim.rounds(state, 2) for sim in sims))


def test_one_client_is_personalized_from_the_host(some_unseen, build, simulator, same):
    sims = [
        simulator(build("floral"), some_unseen, execution=simulate.execution(population=home))
        for home in ("device", "host")
    ]
    state = sims[0].init(jax.random.key(0))
    for client in (2, 4):  # one that trains, and an unseen one
        same(*(sim.client(state, client) for sim in sims))
    x = some_unseen.client(4)["test"]["x"]
    same(*(sim.predict(state, 4, x) for sim in sims))
    same(*(sim.export(state, 4) for sim in sims))


def rows_of(dataset, split, clients):
    """The first row, and the one after the last, of each client."""
    offsets = dataset.splits[split].offsets
    return {(int(offsets[k]), int(offsets[k + 1])) for k in clients}


@pytest.mark.parametrize(
    ("name", "options", "personalize"),
    [("fedavg", {}, []), ("floral", {}, [4]), ("floral", {"stateful": False}, [2, 4])],
    ids=["that keep and find nothing", "that keep a row", "that find one"],
)
def test_an_evaluation_reads_what_its_clients_need_alone(
    name, options, personalize, some_unseen, build, simulator
):
    dataset = noting(some_unseen)
    test, train = (dataset.splits[split].examples["x"] for split in ("test", "train"))
    sim = simulator(build(name, **options), dataset)
    train.read.clear()  # of the batch that it was traced with
    state = sim.init(jax.random.key(0))
    report = sim.evaluate(state, "test", [4, 2])
    assert report["client"].tolist() == [2, 4]
    assert set(test.read) == rows_of(some_unseen, "test", [2, 4])
    assert set(train.read) == rows_of(some_unseen, "train", personalize)
    train.read.clear()
    sim.client(state, 4)
    assert set(train.read) == rows_of(some_unseen, "train", {4} & {*personalize})


def test_the_next_cohort_is_read_while_a_round_trains_and_none_twice(population, build, simulator):
    dataset = noting(population)
    sim = simulator(build("fedavg"), dataset, cohort=THREE)
    x = dataset.splits["train"].examples["x"]
    x.read.clear()  # of the batch that it was traced with
    state = sim.init(jax.random.key(0))
    for taken in range(1, 4):
        state, sums = sim.round(state)
        assert float(sums["cohort"]) == 3
        until(lambda taken=taken: len(x.read) >= 3 * (taken + 1))  # also the next one's
        assert len(x.read) == 3 * (taken + 1)


def test_a_round_can_be_lowered_and_compiled(population, build, simulator):
    execution = simulate.execution(devices=2, population="host")
    sim = simulator(build("fedavg"), population, execution=execution)
    state = jax.eval_shape(sim.init, jax.random.key(0))
    assert sim.lower(state).compile() is not None


def test_an_unreadable_client_is_named_where_the_round_is_asked_for(population, build, simulator):
    """Found while the cohort before it trains, and said when the round itself is due."""
    dataset = noting(population)
    fields = dataset.splits["train"].examples.values()
    sim = simulator(build("fedavg"), dataset, cohort=THREE)
    for array in fields:
        array.read.clear()  # of the batch that it was traced with
    state, _ = sim.round(sim.init(jax.random.key(0)))
    until(lambda: all(len(array.read) == 6 for array in fields))
    for array in fields:
        array.broken = range(1000)
    state, _ = sim.round(state)  # whose cohort was read before
    message = r"client \d, split 'train': 'x' cannot be read: OSError: input/output error"
    for _ in range(2):  # it is tried again each time
        with pytest.raises(DataError, match=message):
            sim.round(state)
    for array in fields:
        array.broken = range(0)
    assert int(sim.round(state)[0].round) == 3


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (EOFError("too short"), DataError, "'x' cannot be read: EOFError: too short"),
        (ValueError("is closed"), DataError, "'x' cannot be read: ValueError: is closed"),
        (ZeroDivisionError("by zero"), ZeroDivisionError, "by zero"),
        (DataError("another's message"), DataError, "another's message"),
    ],
    ids=["a file's", "a mapping's", "a bug's", "our own"],
)
def test_whatever_fails_while_rows_are_read_names_them(error, raised, said, population):
    """A bug in the code that makes the rows stays the error that it is, with a note."""

    class Failing(Noting):
        def rows(self, first, last):
            raise error

    dataset = stored(population, lambda name, field, array: Failing(array))
    feed = Feed(dataset, make_mesh(jax.devices()[:1]))
    with pytest.raises(raised, match=said) as caught:
        feed("train", np.array([3]))
    told = [str(caught.value), *getattr(caught.value, "__notes__", [])]
    assert any(line.startswith("client 3, split 'train': 'x'") for line in told)
    assert error in (caught.value, caught.value.__cause__)


def test_rows_of_another_number_are_named(population):
    class Short(Noting):
        def rows(self, first, last):
            return super().rows(first, last)[1:]

    dataset = stored(population, lambda name, field, array: Short(array))
    feed = Feed(dataset, make_mesh(jax.devices()[:1]))
    with pytest.raises(DataError, match=r"client 3.*'x' has shape \[3, 3\], expected \[4, 3\]"):
        feed("train", np.array([3]))


def test_the_room_is_that_of_the_largest_clients_whoever_comes(population):
    feed = Feed(population, make_mesh(jax.devices()[:2]))
    for ids in ([0, 1, 3, 5], [2, 4, 5, 5], [5, 5, 5, 5]):
        held = feed("train", np.array(ids))
        assert held.examples["x"].shape == (2 * 14, 3)
        sizes = [(*(4, 1, 7, 4, 7), 0)[k] for k in ids]
        assert held.sizes.tolist() == sizes
        for k, start, size in zip(ids, held.starts.tolist(), sizes, strict=True):
            device = ids.index(k) // 2 if k < 5 else 0
            rows = np.asarray(held.examples["x"])[14 * device + start :][:size]
            if size:
                np.testing.assert_array_equal(rows, population.client(k)["train"]["x"])


def prefetch(fetch):
    return Prefetch(lambda key, round_index: np.array([round_index]), fetch)


def test_only_what_follows_is_fetched_ahead_and_one_fetch_at_a_time():
    running, most, fetched = [], [], []

    def fetch(ids):
        running.append(threading.current_thread())
        most.append(len(running))
        time.sleep(0.01)
        fetched.append(int(ids[0]))
        return running.pop() and int(ids[0])

    ahead = prefetch(fetch)
    key = jax.random.key(0)
    assert [ahead(key, r) for r in (0, 1, 2)] == [0, 1, 2]
    assert [ahead(key, r) for r in (7, 7, 3)] == [7, 7, 3]
    assert ahead(jax.random.key(1), 4) == 4  # of another key, so not what was fetched ahead
    assert max(most) == 1
    assert fetched[:8] == [0, 1, 2, 3, 7, 8, 7, 3]  # 8 was ahead already the second time


def test_the_thread_ends_with_the_simulator_it_fetches_for():
    threads = set()

    def fetch(ids):
        threads.add(threading.current_thread())
        return ids

    ahead = prefetch(fetch)
    for r in range(3):
        ahead(jax.random.key(0), r)
    (thread,) = threads  # one for all fetches
    assert thread.is_alive()
    del ahead
    gc.collect()
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_an_error_ahead_of_a_round_that_never_comes_is_never_raised():
    def fetch(ids):
        if ids[0] == 1:
            raise DataError("client 1 is gone")
        return int(ids[0])

    ahead = prefetch(fetch)
    assert ahead(jax.random.key(0), 0) == 0
    assert ahead(jax.random.key(0), 2) == 2
    with pytest.raises(DataError, match="client 1 is gone"):
        ahead(jax.random.key(0), 1)


def test_a_process_ends_though_a_fetch_does_not():
    code = """
        import time
        import jax, numpy as np
        from floral.simulate.feed import Prefetch

        def fetch(ids):
            while ids[0]:
                time.sleep(1)
            return ids

        Prefetch(lambda key, index: np.array([index]), fetch)(jax.random.key(0), 0)
        print("over")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "over", "")


def test_a_round_from_the_host_can_be_lowered_whoever_is_largest(build, simulator, make_population):
    """The room is that of a cohort of different clients, the first of which is the largest here."""
    population = make_population((50, 1, 1, 1), clusters=(0, 1, 0, 1))
    execution = simulate.execution(population="host")
    sim = simulator(build("fedavg"), population, cohort=simulate.fixed(size=2), execution=execution)
    assert sim.lower(sim.init(jax.random.key(0))).compile().memory_analysis() is not None
    assert sim.memory().cohorts > 0
