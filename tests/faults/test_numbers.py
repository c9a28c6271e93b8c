"""Features of every type keep their values in 32 bits, or are refused with example and value."""

import ml_dtypes
import numpy as np
import pytest

import floral as fl
from floral.errors import DataError

Y = np.arange(4) % 2


def by_arrays(x):
    return fl.data.arrays(x, Y).examples["x"]


def by_from_clients(x):
    return fl.data.from_clients([{"train": {"x": x, "y": Y}}]).splits["train"].examples["x"]


def by_federated(x):
    made = fl.data.federated({"x": x, "y": Y}, {"train": [range(4)]})
    return made.splits["train"].examples["x"]


def by_from_flat(x):
    made = fl.data.from_flat({"train": {"x": x, "y": Y}}, {"train": [0, 4]})
    return made.splits["train"].examples["x"]


def by_generated(x):
    made = fl.data.generated(lambda *_: {"x": x, "y": Y}, sizes={"train": 4}, clients=1)
    return made.splits["train"].examples["x"][:]


DOORS = [by_arrays, by_from_clients, by_federated, by_from_flat, by_generated]


@pytest.fixture(params=DOORS, ids=lambda door: door.__name__)
def door(request):
    return request.param


@pytest.mark.parametrize(
    "x",
    [
        np.array([-(2**31), 2**31 - 1, 0, 1]),
        np.array([2**40, -(2**62), 0, 1]),
        np.array([2**32 - 1, 0, 1, 2], np.uint64),
        np.array([1e30, -3e38, 0.5, 1]),
        np.array([1.5, 2, 3, 4], np.longdouble),
        np.array([1.5, 2, 3, 4], ">f4"),
        np.array([1.5, 2, 3, 4], np.float16),
        np.array([1.5, 2, 3, 4], ml_dtypes.bfloat16),
        np.array([1, 2.5, True, np.float32(3)], object),
        np.array([True, False, True, True]),
        np.array([255, 0, 1, 2], np.uint8),
    ],
    ids=lambda x: f"{x.dtype}-{x[0]}",
)
def test_no_number_changes(door, x):
    column = door(x[:, None])
    assert column.dtype.itemsize <= 4
    rounded = x.astype(np.float32) if x.dtype.kind in "fO" else x
    np.testing.assert_array_equal(column[:, 0].astype(float), rounded.astype(float))


@pytest.mark.parametrize(
    ("x", "said"),
    [
        ([0, 0, 1732700000001, 0], "'x' of example 2 is 1732700000001.*32 bits cannot hold it"),
        (np.array([0, 2**64 - 1, 0, 0], np.uint64), "'x' of example 1 is 18446744073709551615"),
        ([0, 0, 0, 10**30], "64 bits cannot hold"),
        ([0.0, 1e300, 0, 0], r"'x' of example 1 is 1e\+300.*float32 ends at 3.4e38"),
        ([0.0, np.nan, 0, 0], "'x' of example 1 is nan"),
        ([0.0, 0, -np.inf, 0], "'x' of example 2 is -inf"),
        ([0.0, None, 0, 0], "'x' of example 1 is missing"),
        (np.ma.masked_array([0.0, 1, 2, 3], [0, 0, 1, 0]), "'x' of example 2 is missing"),
        (np.array([1, "a", 2, 3], object), "'x' of example 1 is 'a'.*not a number"),
        (["1", "2", "3", "4"], "'x' of example 0 is '1'.*, not a number"),
        ([1j, 2j, 3j, 4j], "'x' holds complex numbers"),
        (np.array(["2020-01-01"] * 4, "M8[D]"), "'x' holds dates"),
        (np.array([1] * 4, "m8[s]"), "'x' holds durations"),
        (np.zeros(4, [("a", "f4")]), "'x' holds records"),
    ],
    ids=str,
)
def test_what_32_bits_cannot_hold_is_refused(door, x, said):
    x = x[:, None] if isinstance(x, np.ndarray) else [[value] for value in x]
    with pytest.raises(DataError, match=said):
        door(x)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (None, "must be an array or a list .* got NoneType"),
        ("abcd", "got str"),
        ({"a": [1]}, "got dict"),
        ({1, 2}, "got set"),
        (iter([1, 2, 3, 4]), "got an iterator"),
        ((n for n in range(4)), "got an iterator"),
        (object(), "got object"),
        ([[1.0], [1.0, 2.0], [1.0], [1.0]], r"example 1 has shape \[2\], example 0 \[1\]"),
        (np.zeros((4, 0)), r"'x' has shape \[4, 0\]: an example holds no number"),
        (np.zeros(()), "got a single number"),
    ],
    ids=[
        "nothing",
        "words",
        "a dict",
        "a set",
        "an iterator",
        "a generator",
        "an object",
        "ragged rows",
        "no numbers",
        "one number",
    ],
)
def test_what_is_no_column_is_refused(door, x, said):
    if door is by_generated and "iterator" in said:
        pytest.skip("an iterator is used up by the first client that is made")
    with pytest.raises(DataError, match=said):
        door(x)


@pytest.mark.parametrize("shape", [(4, 3, 3), (4, 3, 3, 3)], ids=["grey", "colour"])
def test_bytes_are_scaled_by_every_door(door, shape):
    image = door(np.full(shape, 255, np.uint8))
    assert image.shape == (4, 3, 3, 3 if len(shape) == 4 else 1)
    assert (image.dtype, image.min(), image.max()) == (np.float32, 1.0, 1.0)
    np.testing.assert_array_equal(door(np.full(shape, 7, np.int32)), 7)


def test_bytes_in_files_are_scaled_too(tmp_path):
    held = {"x": np.full((6, 4, 4), 255, np.uint8), "y": np.zeros(6, int)}
    np.savez(tmp_path / "flat.npz", **held)
    np.savez(
        tmp_path / "pop.npz",
        x_train=held["x"].reshape(2, 3, 4, 4),
        y_train=held["y"].reshape(2, 3),
    )
    np.save(tmp_path / "x.npy", held["x"])
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    lazy = fl.data.from_flat({"train": {"x": stored, "y": held["y"]}}, {"train": [0, 2, 6]})
    for x in (
        fl.data.npz(path=str(tmp_path / "flat.npz")).examples["x"],
        fl.data.from_npz(path=str(tmp_path / "pop.npz")).splits["train"].examples["x"],
        lazy.splits["train"].examples["x"][:],
    ):
        assert x.shape == (6, 4, 4, 1)
        assert (x.dtype, x.max()) == (np.float32, 1.0)
    stored = np.array(stored)
    stored[0, 0, 0] = 3
    other = fl.data.from_flat({"train": {"x": stored, "y": held["y"]}}, {"train": [0, 2, 6]})
    assert other.fingerprint != lazy.fingerprint
    fl.data.save_mapped(lazy, tmp_path / "there")
    assert fl.data.mapped(folder=str(tmp_path / "there")).client(0)["train"]["x"].max() == 1.0


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[0, 1.5]], "must be a list of whole numbers, got float64"),
        ([[0, 4]], "name example 4, but there are 4"),
        ([[0, -1]], "name example -1, but there are 4"),
        ([[True, False, True, True]], "must be a list of whole numbers, got bool"),
        ([["a"]], "must be a list of whole numbers"),
    ],
    ids=str,
)
def test_rows_are_whole_numbers_of_examples(rows, said):
    with pytest.raises(DataError, match=said):
        fl.data.federated({"x": np.zeros((4, 1)), "y": Y}, {"train": rows})


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"traits": {"site": ["rome"]}}, "trait 'site' of example 0 is 'rome', not a number"),
        ({"traits": {"age": [2**40 + 1]}}, "trait 'age' of example 0 is 1099511627777"),
        ({"traits": {"cluster": [0.5]}}, "trait 'cluster' must be a whole number"),
        ({"unseen": [0]}, "unseen must be a mask, a bool for each client"),
        ({"traits": [1]}, r"traits must be a mapping of names.* got list \[1\]"),
        ({"traits": {0: [1]}}, "traits: expected names, got 0"),
    ],
    ids=str,
)
def test_what_is_known_of_clients_is_checked(known, said):
    with pytest.raises(DataError, match=said):
        fl.data.from_clients([{"train": {"x": np.zeros((4, 1)), "y": Y}}], **known)


def test_no_field_of_examples_is_called_mask():
    examples = {"x": np.zeros((4, 1)), "y": Y, "mask": np.ones(4, bool)}
    for made in (
        lambda: fl.data.from_clients([{"train": examples}]),
        lambda: fl.data.federated(examples, {"train": [range(4)]}),
    ):
        with pytest.raises(DataError, match=r"split 'train' has a field 'mask'.*another name"):
            made()


def test_a_client_made_later_is_checked_when_it_is_read():
    def make(rng, client, size):
        return {"x": np.full((size, 1), np.nan if client == 2 else 1.0), "y": np.zeros(size, int)}

    population = fl.data.generated(make, sizes={"train": 2}, clients=3)
    assert population.client(1)["train"]["x"].max() == 1.0
    with pytest.raises(DataError, match="client 2, split 'train': 'x' of example 0 is nan"):
        population.client(2)
