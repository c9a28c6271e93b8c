import numpy as np
import pytest

from floral.data import from_clients, from_flat, label_shift, noise, synthetic_population
from floral.data.storage.lazy import LazyArray, is_plain
from floral.errors import DataError


class Counting(LazyArray):
    """Row i is i everywhere; what is read is noted."""

    def __init__(self, shape, dtype=np.float32):
        super().__init__(shape, dtype)
        self.read = []

    def rows(self, first, last):
        self.read.append((first, last))
        row = np.arange(first, last, dtype=self.dtype).reshape(-1, *[1] * (self.ndim - 1))
        return np.broadcast_to(row, (last - first, *self.shape[1:]))

    @property
    def digest(self):
        return "counting"


def flat(x=None, y=None, offsets=(0, 1, 3), **options):
    x = np.array([[1.0], [2.0], [3.0]]) if x is None else x
    y = np.array([0, 1, 0]) if y is None else y
    return from_flat({"train": {"x": x, "y": y}}, {"train": offsets}, **options)


def test_flat_arrays_and_clients_arrays_make_the_same_population():
    one = {"train": {"x": [[1.0]], "y": [0]}}
    two = {"train": {"x": [[2.0], [3.0]], "y": [1, 0]}}
    by_client = from_clients([one, two], traits={"cluster": [0, 1]}, num_classes=2)
    assert flat(traits={"cluster": [0, 1]}, num_classes=2).fingerprint == by_client.fingerprint


def test_what_is_not_in_memory_is_not_read():
    x, y = Counting((3, 2)), Counting((3,), np.int32)
    data = flat(x, y, num_classes=3)
    assert "3 examples" in data.describe()
    assert len(data.fingerprint) == 64
    assert x.read == y.read == []
    assert data.client(1)["train"]["x"].tolist() == [[1, 1], [2, 2]]
    assert (x.read, y.read) == ([(1, 3)], [(1, 3)])


@pytest.mark.parametrize(
    "where", [slice(None), slice(2, 5), slice(5, 2), slice(-3, None), slice(None, None, 2)]
)
def test_slices_of_a_lazy_array_are_those_of_a_plain_one(where):
    lazy = Counting((7, 2))
    plain = np.asarray(lazy)
    assert (is_plain(plain), is_plain(lazy)) == (True, False)
    np.testing.assert_array_equal(lazy[where], plain[where])
    np.testing.assert_array_equal(lazy[::-2], plain[::-2])


def test_a_lazy_array_says_what_it_cannot_do():
    with pytest.raises(TypeError, match="Counting gives slices of rows, not 3"):
        Counting((7, 2))[3]
    with pytest.raises(ValueError, match="no array in memory to share"):
        np.array(Counting((7, 2)), copy=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"offsets": (0, 1, 2)},
            r"offsets of 'x' must be N \+ 1 numbers from 0 to 3, got \[0 1 2\]",
        ),
        ({"offsets": (0, 2, 1, 3)}, "fall at client 1"),
        ({"offsets": (0, 0, 3)}, "client 0 has no training example"),
        ({"x": [[1.0], [np.nan], [0.0]]}, "'x' of example 1 is nan"),
        ({"y": [0, 1, 2], "num_classes": 2}, "label of example 2 is 2"),
        ({"y": Counting((2,))}, "offsets of 'y'"),
        (
            {"x": Counting((3,), np.float64)},
            "is float64, which JAX does not use; store it as float32",
        ),
    ],
)
def test_what_does_not_fit_is_said(given, message):
    with pytest.raises(DataError, match=message):
        flat(**given)


def test_missing_parts_are_named():
    with pytest.raises(DataError, match="split 'train' lacks 'y'; it has 'x'"):
        from_flat({"train": {"x": Counting((3, 1))}}, {"train": [0, 3]})
    with pytest.raises(DataError, match="split 'train' has no offsets; there are test"):
        from_flat({"train": {"x": [1.0], "y": [1.0]}}, {"test": [0, 1]})


@pytest.mark.parametrize("shift", [label_shift(clusters=2), noise()])
def test_a_shift_of_what_is_read_when_needed_is_refused(shift):
    data = synthetic_population(clients=4, clusters=2, side=2)
    with pytest.raises(DataError, match="shift them before they are saved"):
        shift(data, np.random.default_rng(0))
