"""What comes through a door of the data is what was stored, or one sentence names the place."""

import csv
import io

import numpy as np
import pandas
import pytest

import floral as fl
from floral.errors import DataError, FloralError, SpecError

datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
VALUE = datasets.Value


@pytest.fixture(autouse=True, scope="module")
def caches(tmp_path_factory):
    """Whatever the library caches goes to a folder of this test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def table(**columns):
    """A data set of columns (values, type)."""
    features = {name: kind for name, (_, kind) in columns.items()}
    values = {name: held for name, (held, _) in columns.items()}
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


def who(values, kind="int64"):
    given = table(image=([0.0] * len(values), VALUE("float32")),
                  label=([0] * len(values), VALUE("int64")), who=(values, kind))  # fmt: skip
    source = fl.data.from_dataset(given, client="who")
    return fl.data.federate(source, partition=fl.data.natural("who")).client_names.tolist()


# Columns of data sets.


@pytest.mark.parametrize(
    "kind",
    [
        datasets.Array3D((1, 2, 1), "uint8"),
        datasets.Array2D((1, 2), "uint8"),
        datasets.Sequence(datasets.Sequence(VALUE("uint8"))),
    ],
    ids=["array with channels", "array", "lists"],
)
def test_bytes_of_images_are_scaled_whatever_column_holds_them(kind):
    pixels = np.array([[[255], [51]]], np.uint8)
    pixels = pixels if getattr(kind, "shape", ()) == (1, 2, 1) else pixels[..., 0]
    given = table(image=([pixels.tolist()] * 2, kind), label=([0, 1], VALUE("int64")))
    x = fl.data.from_dataset(given).examples["x"]
    assert (x.shape, x.dtype) == ((2, 1, 2, 1), np.float32)
    np.testing.assert_allclose(x[0, 0, :, 0], [1.0, 0.2])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([16777216.0, 16777217.0], VALUE("float64")),
        ([2**60, 2**60 + 1], VALUE("int64")),
        ([2**62, 2**62 + 1], VALUE("uint64")),
    ],
    ids=["floats", "whole numbers", "unsigned"],
)
def test_numbers_that_name_clients_stay_apart(values, kind):
    assert who(values, kind) == [str(int(value)) for value in values]


def test_unsigned_names_beyond_63_bits_do_not_wrap(tmp_path):
    columns = {"a": [1.0, 2.0], "y": [0, 1], "who": pyarrow.array([2**64 - 1, 2], pyarrow.uint64())}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    source = fl.data.huggingface(tmp_path / "t.parquet", x="a", y="y", client="who")
    names = fl.data.federate(source, partition=fl.data.natural("who")).client_names
    assert set(names.tolist()) == {"2", str(2**64 - 1)}


def test_classes_that_name_clients_keep_their_words():
    assert who([0, 1, 1], datasets.ClassLabel(names=["zoe", "ann"])) == ["ann", "zoe"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0, np.inf], "'who' of example 1 is inf; clients are named by words or by whole"),
        ([1.0, 1e300], r"is 1e\+300; .* whole numbers .in float64: up to 2.53."),
        (["a", "a "], "names 'a' and 'a ' look the same"),
        (["caf\u00e9", "cafe\u0301"], r"names 'cafe\\u0301' and 'caf\\xe9' look the same"),
        (["a", "a\0"], r"'who' of example 1 is 'a\\x00'"),
    ],
    ids=["infinite", "too large to be exact", "a blank", "an accent", "a zero character"],
)
def test_names_of_clients_that_would_become_one_another_are_refused(values, said):
    frame = pandas.DataFrame({"a": [1, 2], "y": [0, 1], "who": values})
    source = fl.data.from_dataset(frame, x="a", y="y", client="who")
    with pytest.raises(DataError, match=said):
        fl.data.federate(source, partition=fl.data.natural("who"))


def test_names_of_given_clients_are_told_apart_too():
    one = {"train": {"x": [[0.0]], "y": [0]}}
    with pytest.raises(DataError, match="the names ' a' and 'a' look the same"):
        fl.data.from_clients({"a": one, " a": one})


@pytest.mark.parametrize(
    "labels",
    [["cat", "cat "], ["\tcat", "cat"], ["caf\u00e9", "cafe\u0301"],
     pandas.Categorical(["a", "a "]), np.array(["a", "a\0"], object)],
    ids=["a blank", "a tab", "an accent", "categories", "a zero character"],
)  # fmt: skip
def test_labels_that_look_the_same_are_refused(labels):
    with pytest.raises(DataError, match=r"labels .* and .* look the same; write one class in one"):
        fl.data.arrays(np.zeros((2, 1)), labels)


def test_a_large_whole_number_is_not_rounded_beside_a_column_of_floats():
    with pytest.raises(DataError, match="'t' of example 0 is 1732700000001; 32 bits cannot hold"):
        fl.data.from_dataset({"t": [1732700000001, 1], "v": [0.5, 1.5], "y": [0, 1]}, x=["t", "v"],
                             y="y")  # fmt: skip


def test_a_transform_of_a_data_set_is_not_dropped_in_silence():
    given = datasets.Dataset.from_dict({"image": [1.0, 2.0], "label": [0, 1]})
    with pytest.raises(DataError, match=r"a transform of its own, .* apply it with dataset\.map"):
        fl.data.from_dataset(given.with_transform(lambda rows: rows))


def test_images_that_cannot_be_read_are_named(tmp_path):
    from PIL import Image

    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir()
        Image.new("L", (3, 2)).save(tmp_path / kind / "1.png")
    (tmp_path / "dog" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nxxxx")
    with pytest.raises(DataError, match="column 'image' of example 1 is no whole image"):
        fl.data.huggingface(tmp_path)


def test_images_in_a_column_of_a_frame_are_images():
    from PIL import Image

    column = pandas.Series([Image.new("L", (3, 2), 255), Image.new("L", (3, 2))], index=[5, 7])
    assert fl.data.arrays(column, [0, 1]).examples["x"].max() == 1.0


# Splits.


def parts(**splits):
    return datasets.DatasetDict(
        {name: datasets.Dataset.from_dict(held) for name, held in splits.items()}
    )


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"train": "train", "test": "train"}, "train='train' and test='train' share 4 examples"),
        (
            {"train": "train[:75%]", "test": "train[50%:]"},
            r"train='train\[:75%\]' and test='train\[50%:\]' share 1 example; an example belongs",
        ),
        ("train+train", r"split 'train\+train' holds 4 examples twice"),
        ("train[9:]", r"split 'train\[9:\]' holds no example; 'train' has 4"),
        ("train[:0]", "holds no example"),
        (1, "split must be one split, as 'train', or one for each of .* got int 1"),
        (["train"], r"got list \['train'\]"),
        ({"train": None}, "split must be one split"),
    ],
    ids=str,
)
def test_a_split_that_cannot_be_asked_for_is_refused(split, said):
    held = {"a": [1, 2, 3, 4], "y": [0, 1, 0, 1]}
    with pytest.raises(DataError, match=said):
        fl.data.from_dataset(parts(train=held), x="a", y="y", split=split)


def test_splits_of_one_file_share_no_example(tmp_path):
    (tmp_path / "t.csv").write_text("a,y\n1,0\n2,1\n3,0\n4,1\n")
    halves = {"train": "train[:50%]", "test": "train[50%:]"}
    source = fl.data.huggingface(tmp_path / "t.csv", x="a", y="y", split=halves)
    assert source.fields["split"].tolist() == ["train"] * 2 + ["test"] * 2
    with pytest.raises(DataError, match="share 2 examples"):
        fl.data.huggingface(tmp_path / "t.csv", x="a", y="y", split={**halves, "test": "train"})


def test_classes_of_two_splits_are_in_one_order():
    def split(names):
        label = datasets.ClassLabel(names=names)
        return table(a=([1, 2], VALUE("int64")), y=([0, 1], label))

    given = datasets.DatasetDict(train=split(["cat", "dog"]), test=split(["dog", "cat"]))
    with pytest.raises(DataError, match="'cat, dog' in split 'train', but 'dog, cat' in 'test'"):
        fl.data.from_dataset(given, x="a", y="y", split={"train": "train", "test": "test"})


# Names of columns.


@pytest.mark.parametrize(
    "given",
    [
        pandas.DataFrame([[1, 2, 0]], columns=["a", "a", "y"]),
        pandas.DataFrame([[1, 2, 0]], columns=[1, "1", "y"]),
        pyarrow.Table.from_arrays([pyarrow.array([1])] * 3, names=["a", "a", "y"]),
    ],
    ids=["pandas", "a number and its word", "arrow"],
)
def test_two_columns_of_one_name_are_refused(given):
    with pytest.raises(DataError, match=r"two columns are called '.'; rename one"):
        fl.data.from_dataset(given, x="a", y="y")


@pytest.mark.parametrize("x", [None, 0, [0], [], ["a", "a"]], ids=str)
def test_columns_are_named_by_words_each_once(x):
    with pytest.raises(DataError, match=r"x must be the name of a col|x names no col|'a' twice"):
        fl.data.from_dataset({"a": [1, 2], "y": [0, 1]}, x=x, y="y")


def test_columns_of_unlike_lengths_are_named():
    with pytest.raises(DataError, match="column 'b' has 2 values, column 'a' 3"):
        fl.data.from_dataset({"a": [1, 2, 3], "b": [1, 2], "y": [0, 1]}, x=["a", "b"], y="y")


def test_a_gap_in_a_feature_is_named_by_its_column():
    with pytest.raises(DataError, match="column 'b' of example 1 is missing"):
        fl.data.from_dataset({"a": [1, 2], "b": [1.0, None], "y": [0, 1]}, x=["a", "b"], y="y")


# Files.


@pytest.mark.parametrize(
    ("content", "x"),
    [
        ('"a, cm";b;y\n1;2;cat\n2;3;dog\n', ["a, cm", "b"]),
        ("a (u,v);b;y\n1;2;cat\n2;3;dog\n", ["a (u,v)", "b"]),
        ("a|b|y\n1|2|cat\n2|3|dog\n", ["a", "b"]),
        ("a,b,y,\n1,2,cat,\n2,3,dog,\n", ["a", "b"]),
        ("a,b,y\n1,2,cat; or so\n2,3,dog\n", ["a", "b"]),
    ],
    ids=["a quoted comma", "a comma in a name", "bars", "every line ends in one", "in a value"],
)
def test_what_separates_columns_is_found(tmp_path, content, x):
    (tmp_path / "t.csv").write_text(content)
    source = fl.data.huggingface(tmp_path / "t.csv", x=x, y="y")
    assert source.examples["x"].tolist() == [[1, 2], [2, 3]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,a,y\n1,2,0\n", "two columns are called 'a'; rename one"),
        ("a,b,y\n1,2,0,\n2,3,1,\n", "names 3 columns, but the first row has 4 values"),
        ("a,b,y\n7,1,2,0\n8,2,3,1\n", "name every column, and end no row with a separator"),
        ("sep=;\na;b;y\n1;2;0\n", "names 2 columns, but the first row has 3 values"),
    ],
    ids=["a name twice", "rows end in a separator", "a column without a name", "a line of Excel"],
)
@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_columns_that_would_be_shifted_are_refused(tmp_path, content, said, folder):
    if folder:
        content = content.replace(";", ",")
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DataError, match=said) as raised:
        fl.data.huggingface(tmp_path if folder else tmp_path / "t.csv", x=["a", "b"], y="y")
    assert "t.csv" in str(raised.value)


def test_a_long_table_is_read_to_its_end(tmp_path):
    rows = [["a", "y"], *[[i, i % 2] for i in range(200)]]
    text = io.StringIO()
    csv.writer(text, delimiter=";").writerows(rows)
    (tmp_path / "t.csv").write_text(text.getvalue())
    source = fl.data.huggingface(tmp_path / "t.csv", x="a", y="y")
    assert source.examples["x"].tolist() == list(range(200))


@pytest.mark.parametrize("name", ["empty.json", "blank.jsonl", "empty.csv"])
def test_an_empty_file_is_said_to_be_empty(tmp_path, name):
    (tmp_path / name).write_text("" if "empty" in name else " \n\n")
    with pytest.raises(DataError, match=f"{name}' is empty"):
        fl.data.huggingface(tmp_path / name)


def test_a_table_or_folder_of_nothing_is_said_to_hold_nothing(tmp_path):
    parquet.write_table(
        pyarrow.table({"image": pyarrow.array([], "float32")}), tmp_path / "t.parquet"
    )
    with pytest.raises(DataError, match="holds no rows"):
        fl.data.huggingface(tmp_path / "t.parquet")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="is a folder of no files"):
        fl.data.huggingface(tmp_path / "none")


@pytest.mark.parametrize("door", [fl.data.npz, fl.data.from_npz, fl.data.huggingface])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        (None, "path must be the path of a file, got None"),
        (3, "path must be the path of a file, got 3"),
        ("", "path must be the path of a file, got ''"),
        ("http://example.org/d.csv", "'http://example.org/d.csv' is an address"),
    ],
    ids=str,
)
def test_what_is_no_path_is_refused(door, path, said):
    with pytest.raises(DataError, match=said):
        door(path=path)


def test_a_path_in_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 1)), y=[0, 1])
    assert fl.data.npz("~/d.npz").num_classes == 2
    with pytest.raises(SpecError, match="path is too long for a path: 'aaaaa") as raised:
        fl.data.npz("a" * 5000)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x_val": np.zeros((2, 1, 2)), "y_val": np.zeros((2, 1), int)}, "'x_val' is of no split"),
        ({"X_test": np.zeros((2, 1, 2)), "Y_test": np.zeros((2, 1))}, "'X_test' is of no split"),
        ({"y_test": np.zeros((2, 1), int)}, "'y_test' is of no split"),
        ({"cluster": np.int32(0)}, "'cluster' is a single number; N clients lead every array"),
    ],
    ids=["an abbreviation", "capitals", "half a pair", "one number"],
)
def test_arrays_of_clients_that_would_be_dropped_are_refused(tmp_path, arrays, said):
    np.savez(
        tmp_path / "d.npz", x_train=np.zeros((2, 3, 2)), y_train=np.zeros((2, 3), int), **arrays
    )
    with pytest.raises(DataError, match=said):
        fl.data.from_npz(tmp_path / "d.npz")


def test_a_trait_may_be_called_as_an_axis_is(tmp_path):
    np.savez(tmp_path / "d.npz", x_train=np.zeros((2, 3, 2)), y_train=np.zeros((2, 3), int),
             x_center=np.zeros(2))  # fmt: skip
    assert set(fl.data.from_npz(tmp_path / "d.npz").traits) == {"x_center"}


def idx(array):
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def test_idx_files_of_unlike_sizes_or_none_are_named(tmp_path):
    for name, size in (("a", 2), ("b", 3)):
        (tmp_path / name).write_bytes(idx(np.zeros((1, size, size))))
    (tmp_path / "long").write_bytes(idx(np.zeros((1, 2, 2))) + b"x")
    (tmp_path / "y").write_bytes(idx(np.zeros(1)))
    label = tmp_path / "y"
    with pytest.raises(DataError, match=r"b' has images of \[3, 3\], .*a' of \[2, 2\]"):
        fl.data.idx(images=[tmp_path / "a", tmp_path / "b"], labels=[label] * 2)
    with pytest.raises(DataError, match="long' is too long: its header announces 4 bytes"):
        fl.data.idx(images=tmp_path / "long", labels=label)
    with pytest.raises(DataError, match="images names no file"):
        fl.data.idx(images=[], labels=[])


@pytest.mark.parametrize("deal", [fl.data.dirichlet, fl.data.quantity_skew])
def test_counts_and_switches_are_no_other_numbers(deal):
    with pytest.raises(FloralError, match=r"min_examples must be a whole number, got 2\.5"):
        deal(clients=2, min_examples=2.5)
    source = fl.data.arrays(np.arange(4.0)[:, None], [0, 1, 0, 1])
    with pytest.raises(FloralError, match="standardize must be True or False, got 'no'"):
        fl.data.federate(source, partition=fl.data.iid(2), standardize="no")
