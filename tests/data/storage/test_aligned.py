"""What the library allocates for a population is what a CPU's devices use: it exists once."""

import jax
import numpy as np
import pytest

from floral import data
from floral.data.storage.aligned import aligned, aligned_zeros, joined, taken
from floral.simulate.clients import on_devices
from floral.simulate.shard import make_mesh

X = np.arange(7 * 5, dtype=np.float32).reshape(7, 5)
Y = np.arange(7) % 2
RNG = np.random.default_rng(0)


def dealt():
    return data.federated({"x": X, "y": Y}, {"train": [[0, 1, 2], [5]], "test": [[3], [4]]})


def of_clients():
    clients = [{"train": {"x": X[:3], "y": Y[:3]}}, {"train": {"x": X[3:], "y": Y[3:]}}]
    return data.from_clients(clients, num_classes=2)


def flat_in_64_bits():
    examples = {"x": X.astype(np.float64), "y": Y}
    return data.from_flat({"train": examples}, {"train": [0, 3, 7]}, num_classes=2)


def shifted():
    return data.label_shift(clusters=2)(of_clients(), RNG)


def noisy():
    return data.noise()(of_clients(), RNG)


@pytest.mark.parametrize("make", [dealt, of_clients, flat_in_64_bits, shifted, noisy])
def test_devices_of_a_cpu_share_the_arrays_of_a_population(make):
    population = make()
    held = on_devices(population, make_mesh(jax.devices()[:2]))
    for name, split in population.splits.items():
        for field, array in split.examples.items():
            shards = held.examples[name][field].addressable_shards
            pointers = {shard.data.unsafe_buffer_pointer() for shard in shards}
            assert len(shards) == 2
            assert pointers == {array.ctypes.data}, (name, field)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (1000, 7)])
def test_zeros_are_aligned_whatever_their_shape(shape):
    for dtype in (np.uint8, np.float32, bool):
        made = aligned_zeros(shape, dtype)
        assert made.size == 0 or made.ctypes.data % 64 == 0  # NumPy shows no address of nothing
        assert (made.shape, made.dtype) == (shape, dtype)
        assert not made.any()


def test_an_aligned_array_is_not_copied():
    made = aligned_zeros((4, 4), np.float32)
    assert aligned(made) is made
    shifted = aligned(made[1:])
    assert shifted.ctypes.data % 64 == 0
    assert aligned(made.T).flags.c_contiguous


def test_parts_and_rows_are_numpys(monkeypatch):
    # several blocks, the last cut short
    monkeypatch.setattr("floral.data.storage.aligned._ROWS", 3)
    rows = np.array([6, 0, 0, 3, 2, 5, 1])
    np.testing.assert_array_equal(taken(X, rows), X[rows])
    np.testing.assert_array_equal(joined([X[:0], X[2:], X]), np.concatenate([X[2:], X]))
    with pytest.raises(IndexError):
        taken(X, np.array([7]))
