import importlib
import json

import numpy as np
import pytest

from floral.data import from_clients, mapped, save_mapped, synthetic_population
from floral.errors import DataError


@pytest.fixture(scope="module")
def population():
    rng = np.random.default_rng(0)

    def split(size):
        return {"x": rng.random((size, 2, 3), np.float32), "y": rng.integers(0, 4, size)}

    clients = [{"train": split(4), "test": split(1)}, {"train": split(1)}, {"train": split(6)}]
    unseen = [False, True, False]
    return from_clients(clients, traits={"cluster": [0, 1, 0]}, unseen=unseen, num_classes=4)


@pytest.fixture
def folder(population, tmp_path):
    save_mapped(population, tmp_path / "data")
    return tmp_path / "data"


def assert_same_data(one, other):
    assert list(one.splits) == list(other.splits)
    assert one.num_classes == other.num_classes
    for name, split in one.splits.items():
        np.testing.assert_array_equal(split.offsets, other.splits[name].offsets)
        for field, array in split.examples.items():
            found = other.splits[name].examples[field]
            assert (found.shape, found.dtype) == (array.shape, array.dtype)
            np.testing.assert_array_equal(np.asarray(found), np.asarray(array))
    for trait, values in one.traits.items():
        np.testing.assert_array_equal(other.traits[trait], values)
    np.testing.assert_array_equal(one.unseen, other.unseen)


def test_a_population_comes_back_as_it_was_saved(population, folder):
    assert_same_data(population, mapped(folder=str(folder)))


def test_any_numpy_reads_the_files(population, folder):
    expected = population.splits["train"].examples["x"]
    np.testing.assert_array_equal(np.load(folder / "train.x.npy", mmap_mode="r"), expected)


def test_a_generated_population_is_saved_piece_by_piece(tmp_path, monkeypatch):
    module = importlib.import_module("floral.data.storage.mapped")
    monkeypatch.setattr(module, "_AT_ONCE", 200)
    population = synthetic_population(clients=5, side=3, test=1)
    save_mapped(population, tmp_path / "data")
    assert_same_data(population, mapped(folder=str(tmp_path / "data")))


def test_a_split_without_examples_is_kept(tmp_path):
    one = {"x": np.ones((2, 1), np.float32), "y": np.zeros(2, np.int32)}
    none = {name: array[:0] for name, array in one.items()}
    population = from_clients([{"train": one}], num_classes=1)
    train = population.splits["train"]
    empty = train._replace(examples=none, offsets=np.array([0, 0]))
    population = population._replace(splits={"train": train, "test": empty})
    save_mapped(population, tmp_path / "data")
    assert_same_data(population, mapped(folder=str(tmp_path / "data")))


def test_the_fingerprint_is_that_of_the_data(population, folder, tmp_path):
    same = mapped(folder=str(folder)).fingerprint
    save_mapped(mapped(folder=str(folder)), tmp_path / "again")
    assert mapped(folder=str(tmp_path / "again")).fingerprint == same
    y = population.splits["train"].examples["y"]
    y = np.where(np.arange(len(y)) == 7, (y + 1) % 4, y)
    train = population.splits["train"]
    train = train._replace(examples={**train.examples, "y": y})
    save_mapped(population._replace(splits={**population.splits, "train": train}), tmp_path / "b")
    assert mapped(folder=str(tmp_path / "b")).fingerprint != same
    save_mapped(population._replace(unseen=np.zeros(3, bool)), tmp_path / "c")
    assert mapped(folder=str(tmp_path / "c")).fingerprint != same


def test_nothing_is_overwritten_and_nothing_half_written_is_left(population, folder, monkeypatch):
    with pytest.raises(DataError, match="is there already"):
        save_mapped(population, folder)
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_mapped(population, folder.parent / "other")
    assert [path.name for path in folder.parent.iterdir()] == ["data"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no population at '.*nowhere': it has no population.json"):
        mapped(folder=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), r"no data file at .*train\.x\.npy"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), r"\d+ bytes, \d+ were written"),
        (lambda path: np.save(path, np.zeros((11, 2, 3), np.float32)), "it was changed"),
    ],
)
def test_files_that_are_not_those_written_are_refused(folder, damage, message):
    damage(folder / "train.x.npy")
    with pytest.raises(DataError, match=message):
        mapped(folder=str(folder))


@pytest.mark.parametrize("damage", [lambda i: i.pop("arrays"), lambda i: i.update(format=9)])
def test_an_index_that_cannot_be_read_is_refused(folder, damage):
    index = json.loads((folder / "population.json").read_text())
    damage(index)
    (folder / "population.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"is damaged: KeyError\('arrays'\)|is of format 9"):
        mapped(folder=str(folder))
    (folder / "population.json").write_text("{")
    with pytest.raises(DataError, match=r"population\.json' is damaged"):
        mapped(folder=str(folder))
