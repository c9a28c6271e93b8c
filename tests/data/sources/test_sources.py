import gzip

import numpy as np
import pytest

from floral import data
from floral.data.checks.pixels import scaled
from floral.errors import DataError, SpecError


def write_idx(path, array, magic=None, cut=0, zipped=False):
    header = bytes([0, 0, 8, array.ndim]) if magic is None else magic
    body = header + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()
    body = body[: len(body) - cut]
    path.write_bytes(gzip.compress(body) if zipped else body)
    return str(path)


@pytest.fixture
def pair(tmp_path):
    x = np.arange(5 * 3 * 2).reshape(5, 3, 2) * 8
    images = write_idx(tmp_path / "images.idx", x)
    return images, write_idx(tmp_path / "labels.idx", np.array([3, 0, 1, 2, 3])), x


def test_digits_are_five_hundred_of_each_in_zero_to_one():
    source = data.digits()
    x, y = source.examples["x"], source.examples["y"]
    assert x.shape == (5000, 28, 28, 1)
    assert (x.dtype, y.dtype) == (np.float32, np.int32)
    assert (x.min(), x.max()) == (0.0, 1.0)
    assert np.bincount(y).tolist() == [500] * 10
    assert source.num_classes == 10


def test_a_few_digits_are_the_first_of_each_class():
    few, whole = data.digits(per_class=2), data.digits()
    assert few.examples["y"].tolist() == np.repeat(np.arange(10), 2).tolist()
    first = np.flatnonzero(whole.examples["y"] == 7)[:2]
    np.testing.assert_array_equal(few.examples["x"][14:16], whole.examples["x"][first])
    with pytest.raises(SpecError, match="per_class must lie between 1 and 500, got 501"):
        data.digits(per_class=501)


def test_bytes_become_images_in_zero_to_one_and_nothing_else_does():
    grey = np.full((2, 3, 3), 255, np.uint8)
    assert scaled(grey).shape == (2, 3, 3, 1)
    assert scaled(grey).max() == 1.0
    assert scaled(grey[..., None]).dtype == np.float32
    for other in (grey.astype(np.float32), grey.reshape(2, 9), grey.astype(np.int32)):
        assert scaled(other) is other


@pytest.mark.parametrize(
    ("y", "num_classes"),
    [([0, 2, 1], 3), ([0.0, 2.0, 1.0], None), ([[0], [2], [1]], None), ([True, False, True], 2)],
)
def test_whole_numbers_in_one_column_are_classes(y, num_classes):
    assert data.arrays(np.zeros((3, 1)), y).num_classes == num_classes


def test_words_become_classes_in_sorted_order():
    source = data.arrays(np.zeros((3, 1)), ["sit", "run", "sit"])
    assert source.examples["y"].tolist() == [1, 0, 1]
    assert source.num_classes == 2


@pytest.mark.parametrize(
    ("x", "y", "settings", "message"),
    [
        ([[1.0], [np.nan]], [0, 1], {}, r"arrays: 'x' of example 1 is nan at \(0,\); every number"),
        ([[1.0]], [-np.inf], {}, r"'y' of example 0 is -inf; every"),
        ([[1.0], [2.0]], [0, -1], {}, "arrays: label of example 1 is -1, expected 0 to 0"),
        ([[1.0]], [-1], {}, "labels of classes start at 0, the largest is -1"),
        ([[1.0], [2.0]], [0, 2], {"num_classes": 2}, "label of example 1 is 2, expected 0 to 1"),
        ([[1.0]], [0, 1], {"name": "mine"}, "mine: arrays differ in length: 'x' has 1, 'y' has 2"),
        ([], [], {}, "arrays is empty"),
        ([["a"]], [0], {}, "'x' of example 0 is 'a' .*, not a number"),
        (
            [[1.0]],
            [0],
            {"fields": {"writer": ["a", "b"]}},
            "field 'writer' has 2 values for 1 exam",
        ),
    ],
)
def test_arrays_that_cannot_be_trained_on_are_refused(x, y, settings, message):
    with pytest.raises(DataError, match=message):
        data.arrays(x, y, **settings)


def test_npz_reads_features_targets_and_fields(tmp_path):
    path = str(tmp_path / "some.npz")
    image = np.full((2, 4, 4), 255, np.uint8)
    np.savez(path, image=image, y=[0, 1], writer=["a", "b"], mean=np.zeros(9))
    source = data.npz(path=path, x="image")
    assert source.examples["x"].shape == (2, 4, 4, 1)
    assert source.fields["writer"].tolist() == ["a", "b"]
    assert list(source.fields) == ["writer"]
    assert source.name == path


def test_npz_says_what_is_wrong_with_the_file(tmp_path):
    path, garbage, single = (str(tmp_path / name) for name in ("a.npz", "b.npz", "c.npy"))
    np.savez(path, x=np.zeros((2, 1)), labels=[0, 1])
    with pytest.raises(DataError, match=r"a\.npz' has no array 'label'; it has x, labels; did you"):
        data.npz(path=path, y="label")
    with pytest.raises(DataError, match=r"no data file at '.*missing\.npz'"):
        data.npz(path=str(tmp_path / "missing.npz"))
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 and then nothing")
    np.save(single, np.zeros(3))
    for wrong in (garbage, single):
        with pytest.raises(DataError, match="is no npz file of plain arrays"):
            data.npz(path=wrong)


def test_a_population_comes_back_from_its_npz(tmp_path):
    task = data.synthetic_linear(validation=2)
    held = {"cluster": task.dataset.traits["cluster"]}
    for name, split in task.dataset.splits.items():
        for axis, array in split.examples.items():
            held[f"{axis}_{name}"] = array.reshape(10, -1, array.shape[1])
    path = str(tmp_path / "clients.npz")
    np.savez(path, **held)
    assert data.from_npz(path=path).fingerprint == task.dataset.fingerprint


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_test": 1, "y_test": 1}, "has no array 'x_train'; it has x_test, y_test"),
        ({"x_train": 1}, "has 'x_train' but no 'y_train'"),
        ({"x_train": 2, "y_train": 1}, "arrays differ in clients: 'x_train' has 2, 'y_train' has"),
    ],
)
def test_a_population_s_npz_must_have_its_layout(tmp_path, arrays, message):
    path = str(tmp_path / "clients.npz")
    np.savez(path, **{name: np.zeros((n, 3, 1)) for name, n in arrays.items()})
    with pytest.raises(DataError, match=message):
        data.from_npz(path=path)


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_reads_what_was_written(tmp_path, pair, zipped):
    images, labels, x = pair
    if zipped:
        images = write_idx(tmp_path / "images.gz", x, zipped=True)
    source = data.idx(images=images, labels=labels)
    np.testing.assert_array_equal(source.examples["x"][..., 0], (x / 255).astype(np.float32))
    assert source.examples["y"].tolist() == [3, 0, 1, 2, 3]
    assert source.num_classes == 4


def test_idx_joins_files_and_remembers_which(pair):
    images, labels, _ = pair
    source = data.idx(images=[images, images], labels=[labels, labels])
    assert source.examples["x"].shape == (10, 3, 2, 1)
    assert source.fields["file"].tolist() == [0] * 5 + [1] * 5


def test_idx_names_the_file_that_is_wrong(tmp_path, pair):
    images, labels, x = pair
    cut = write_idx(tmp_path / "cut.idx", x, cut=4)
    cut_gz = tmp_path / "cut.gz"
    cut_gz.write_bytes(gzip.compress(b"anything at all")[:-9])
    other = write_idx(tmp_path / "other.idx", x, magic=b"\x00\x00\x0d\x03")
    stub = tmp_path / "stub.idx"
    stub.write_bytes(b"\x00\x00\x08\x03\x00")
    three = write_idx(tmp_path / "three.idx", np.arange(3))
    for wrong, message in [
        (cut, r"cut\.idx' is cut short: its header announces 30 bytes for \[5, 3, 2\], it has 26"),
        (str(cut_gz), r"cut\.gz' is a gzip file cut short or damaged"),
        (other, r"other\.idx' is no IDX file of 3 axes of bytes: it starts with 0x00000d03, exp"),
        (labels, r"labels\.idx' is no IDX file of 3 axes"),
        (str(stub), r"stub\.idx' is cut short"),
        (str(tmp_path / "nothing"), "no data file at '.*nothing'"),
    ]:
        with pytest.raises(DataError, match=message):
            data.idx(images=wrong, labels=labels)
    with pytest.raises(DataError, match=r"images\.idx' has 5 images for 3 labels"):
        data.idx(images=images, labels=three)
    with pytest.raises(DataError, match="1 image files but 2 label files"):
        data.idx(images=images, labels=[labels, labels])


@pytest.fixture
def small_mnist(tmp_path):
    """The four files of a set of 6 and 2 images."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("t10k", 2)):
        images = rng.integers(0, 256, (count, 3, 2), np.uint8)
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(count), zipped=True)
    return tmp_path


def test_mnist_is_its_four_files_zipped_or_not(small_mnist):
    source = data.mnist(folder=str(small_mnist))
    joined = data.idx(
        images=[str(small_mnist / f"{part}-images-idx3-ubyte") for part in ("train", "t10k")],
        labels=[str(small_mnist / f"{part}-labels-idx1-ubyte.gz") for part in ("train", "t10k")],
    )
    np.testing.assert_array_equal(source.examples["x"], joined.examples["x"])
    assert source.examples["y"].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert source.fields["split"].tolist() == ["train"] * 6 + ["test"] * 2
    assert source.name == "mnist"


def test_the_test_images_of_mnist_can_be_kept_for_testing(small_mnist):
    source = data.mnist(folder=str(small_mnist))
    population = data.federate(source, partition=data.iid(clients=2), split="split", seed=0)
    for name, expected in (("train", source.examples["y"][:6]), ("test", source.examples["y"][6:])):
        held = population.splits[name].examples["y"]
        assert sorted(held.tolist()) == sorted(expected.tolist())


def test_a_missing_mnist_says_how_to_get_it(small_mnist, tmp_path):
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"put train-images-idx3-ubyte, .* there, .* say by folder"):
        data.mnist(variant="fashion", folder=nowhere)
    (small_mnist / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match=r"no data file at '.*t10k-images-idx3-ubyte'"):
        data.mnist(folder=str(small_mnist))
    with pytest.raises(SpecError, match=r"variant.*fashion"):
        data.mnist(variant="fashon", folder=nowhere)
