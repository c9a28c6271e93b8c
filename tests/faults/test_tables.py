"""Tables, files and splits: what was asked for is read, or refused in one sentence."""

import gzip
import logging
import re

import numpy as np
import pandas
import pytest

import floral as fl
from floral.errors import DataError, SpecError

datasets = pytest.importorskip("datasets")
CSV = "image,label\n" + "\n".join(f"{i},{i % 2}" for i in range(6)) + "\n"


@pytest.fixture(autouse=True, scope="module")
def caches(tmp_path_factory):
    """Whatever the library caches goes to a folder of this test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def read(tmp_path, name, content, **settings):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return fl.data.huggingface(path=str(path), **settings)


def test_one_file_has_the_split_train_alone(tmp_path):
    half = read(tmp_path, "all.csv", CSV, split="train[:50%]")
    assert half.examples["x"].tolist() == [0.0, 1.0, 2.0]
    both = read(tmp_path, "all.csv", CSV, split={"train": "train[:4]", "test": "train[4:]"})
    assert both.fields["split"].tolist() == ["train"] * 4 + ["test"] * 2
    with pytest.raises(DataError, match="one file has the split train alone; it was asked for"):
        read(tmp_path, "all.csv", CSV, split="test")
    with pytest.raises(DataError, match=r"cannot read the split 'train\[:'"):
        read(tmp_path, "all.csv", CSV, split="train[:")
    with pytest.raises(DataError, match="splits are train, validation, test; got 'tset'"):
        read(tmp_path, "all.csv", CSV, split={"train": "train", "tset": "train"})


def test_a_saved_split_is_no_other(tmp_path):
    table = datasets.Dataset.from_dict({"image": [0.0, 1.0], "label": [0, 1]}, split="test")
    table.save_to_disk(str(tmp_path / "saved"))
    assert len(fl.data.huggingface(path=str(tmp_path / "saved"), split="test").examples["y"]) == 2
    with pytest.raises(DataError, match="split 'train' is missing; there are test"):
        fl.data.huggingface(path=str(tmp_path / "saved"))


def test_clients_of_two_splits_are_the_same_clients():
    train = {"image": [0.0, 1.0, 2.0, 3.0], "label": ["b", "a", "b", "c"], "who": list("zyzy")}
    test = {"image": [4.0, 5.0], "label": ["a", "b"], "who": ["y", "z"]}
    both = datasets.DatasetDict(
        train=datasets.Dataset.from_dict(train), test=datasets.Dataset.from_dict(test)
    )
    source = fl.data.from_dataset(both, client="who", split={"train": "train", "test": "test"})
    population = fl.data.federate(source, partition=fl.data.natural("who"), split="split")
    assert population.client_names.tolist() == ["y", "z"]
    assert population.class_names == ("a", "b", "c")
    assert population.client("z")["train"]["x"].tolist() == [0.0, 2.0]
    assert population.client("z")["test"]["x"].tolist() == [5.0]
    assert population.client("y")["test"]["y"].tolist() == [0]
    with pytest.raises(DataError, match=r"no field 'splits'; it has .*did you mean 'split'"):
        fl.data.federate(source, partition=fl.data.natural("who"), split="splits")
    with pytest.raises(DataError, match="field 'who' of example 0 is 'z', expected one of train"):
        fl.data.federate(source, partition=fl.data.natural("who"), split="who")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("U.CSV", CSV),
        ("tabs.tsv", CSV.replace(",", "\t")),
        ("europe.csv", CSV.replace(",", ";")),
        ("bom.csv", b"\xef\xbb\xbf" + CSV.encode()),
        ("crlf.csv", CSV.replace("\n", "\r\n")),
        ("zipped.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
        ("a [1] *.csv", CSV),
        ("lines.jsonl", "\n".join(f'{{"image": {i}, "label": {i % 2}}}' for i in range(6))),
        ("lines.NDJSON", "\n".join(f'{{"image": {i}, "label": {i % 2}}}' for i in range(6))),
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path, name, content):
    source = read(tmp_path, name, content)
    assert source.examples["x"].tolist() == [0, 1, 2, 3, 4, 5]
    assert source.examples["y"].tolist() == [0, 1] * 3


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "latin.csv",
            b"image,label\n1,caf\xe9\n",
            "line 2 is not UTF-8 .byte 0xe9",
        ),
        ("wide.csv", CSV.encode("utf-16"), "line 1 is not UTF-8"),
        ("broken.csv", "image,label\n1,2\n1,2,3\n", "Expected 2 fields in line 3, saw 3"),
        ("empty.csv", "", "is empty: its first line must name the columns"),
        ("head.csv", "image,label\n", "to no data"),
        ("gap.csv", "image,label\n1.0,cat\n2.0,\n3.0,dog\n", "label of example 1 is missing"),
        (
            "gap2.csv",
            "image,label\n1.0,1\n,0\n",
            "column 'image' of example 1 is missing",
        ),
        (
            "words.csv",
            "image,label\n1.0,1\nn.a.,0\n",
            "column 'image' of example 1 is 'n.a.', not a",
        ),
        ("torn.json", '[{"image": 1, "label"', "datasets cannot read"),
        ("table.xlsx", "PK", r"must end in one of \.parquet, \.csv"),
        ("torn.csv.gz", gzip.compress(CSV.encode(), mtime=0)[:-9], "cannot be read"),
    ],
)
def test_a_file_s_fault_is_named(tmp_path, name, content, said):
    with pytest.raises(DataError, match=said) as raised:
        read(tmp_path, name, content)
    assert "\n" not in str(raised.value)
    assert name.partition(".")[0] in str(raised.value)


FRAME = {"a": [1.0, 2.0], "b": [3, 4], "kind": ["cat", "dog"]}


@pytest.mark.parametrize(
    "table",
    [FRAME, pandas.DataFrame(FRAME), datasets.Dataset.from_dict(FRAME)],
    ids=["mapping", "pandas", "datasets"],
)
def test_several_columns_of_any_table_are_features(table):
    source = fl.data.from_dataset(table, x=["b", "a"], y="kind")
    assert source.examples["x"].tolist() == [[3.0, 1.0], [4.0, 2.0]]
    assert source.class_names == ("cat", "dog")
    targets = fl.data.from_dataset(table, x="a", y=["b", "a"])
    assert targets.examples["y"].tolist() == [[3.0, 1.0], [4.0, 2.0]]
    with pytest.raises(DataError, match="column 'kind' is both a feature and the target"):
        fl.data.from_dataset(table, x=["a", "kind"], y="kind")
    with pytest.raises(DataError, match="column 'kind' of example 0 is 'cat', not a number"):
        fl.data.from_dataset(table, x=["a", "kind"], y="b")
    with pytest.raises(DataError, match="column 'c' is missing; there are a, b, kind"):
        fl.data.from_dataset(table, x=["a", "c"], y="b")


def rows():
    yield {"image": [1.0], "label": 0}


class Lazy:
    columns = ("image", "label")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (datasets.IterableDataset.from_generator(rows), "a streaming data set must be in memory"),
        (
            datasets.IterableDatasetDict(train=datasets.IterableDataset.from_generator(rows)),
            "a streaming data set must be in memory: pass a Dataset of its first n rows",
        ),
        (
            datasets.DatasetDict(train=datasets.Dataset.from_dict({"image": [1], "label": [0]})),
            "choose one of the splits train",
        ),
        (rows(), "a generator is no table"),
        ([{"image": 1, "label": 0}], "a list is no table"),
        (np.zeros((2, 2)), "a ndarray is no table"),
        (Lazy(), "a Lazy is no table"),
        (None, "a NoneType is no table"),
        ("table.csv", "a str is no table"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:20],
)
def test_what_is_no_table_in_memory_is_refused(table, said):
    with pytest.raises(DataError, match=said):
        fl.data.from_dataset(table)


def test_a_dataset_dict_gives_the_split_that_is_asked_for():
    parts = {
        "train": datasets.Dataset.from_dict({"image": [1, 2], "label": [0, 1]}),
        "dev": datasets.Dataset.from_dict({"image": [3], "label": [0]}),
    }
    source = fl.data.from_dataset(datasets.DatasetDict(parts), split="dev")
    assert source.examples["x"].tolist() == [3]
    with pytest.raises(DataError, match="split 'test' is missing; there are train, dev"):
        fl.data.from_dataset(datasets.DatasetDict(parts), split="test")


def picture(mode, value):
    from PIL import Image

    return Image.new(mode, (3, 2), value)


def red_palette():
    from PIL import Image

    return picture("RGB", "red").convert("P", palette=Image.Palette.ADAPTIVE)


IMAGES = {
    "grey": (lambda: picture("L", 255), (2, 3, 1), [1.0]),
    "colour": (lambda: picture("RGB", (255, 0, 51)), (2, 3, 3), [1.0, 0.0, 0.2]),
    "palette": (red_palette, (2, 3, 3), [1.0, 0.0, 0.0]),
    "grey and alpha": (lambda: picture("LA", (255, 51)), (2, 3, 2), [1.0, 0.2]),
    "colour and alpha": (lambda: picture("RGBA", (255, 0, 0, 51)), (2, 3, 4), [1.0, 0, 0, 0.2]),
    "black and white": (lambda: picture("1", 1), (2, 3, 1), [1.0]),
    "inks": (lambda: picture("CMYK", (0, 255, 255, 0)), (2, 3, 3), [1.0, 0.0, 0.0]),
    "16 bits": (lambda: picture("I;16", 65535), (2, 3, 1), [1.0]),
    "floats": (lambda: picture("F", 0.25), (2, 3, 1), [0.25]),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images_of_every_mode_have_their_right_values(kind):
    make, shape, pixel = IMAGES[kind]
    source = fl.data.arrays([make(), make()], [0, 1])
    assert source.examples["x"].shape == (2, *shape)
    assert source.examples["x"].dtype == np.float32
    np.testing.assert_allclose(source.examples["x"][1, 1, 2], pixel, atol=1e-6)


def test_images_of_other_modes_are_named():
    with pytest.raises(DataError, match="'x' of example 1 is an image of mode 'I'"):
        fl.data.arrays([picture("L", 1), picture("I", 1)], [0, 1])
    with pytest.raises(DataError, match=r"example 1 has shape \[2, 3, 3\] .mode RGB., example 0"):
        fl.data.arrays([picture("L", 1), picture("RGB", "red")], [0, 1])
    with pytest.raises(DataError, match="'x' of example 1 is missing"):
        fl.data.arrays([picture("L", 1), None], [0, 1])


def test_palettes_of_a_data_set_are_colours():
    blue = red_palette()
    blue.putpalette([0, 0, 255] * 256)
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    table = datasets.Dataset.from_dict(
        {"image": [red_palette(), blue], "label": [0, 1]}, features=features
    )
    x = fl.data.from_dataset(table).examples["x"]
    assert x[:, 0, 0].tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize("share", [0.2, 0.01, 1e-9])
def test_a_share_above_zero_is_at_least_one(share):
    source = fl.data.arrays(np.zeros((12, 2)), np.arange(12) % 2)
    deal = fl.data.iid(4)
    assert fl.data.federate(source, partition=deal, unseen=share).unseen.sum() == 1
    for name in ("test", "validation"):
        held = fl.data.federate(source, partition=deal, split={name: share}).splits[name]
        assert held.sizes.tolist() == [1] * 4
    kept = fl.data.federate(source, partition=deal, keep=share).splits["train"]
    assert kept.sizes.tolist() == [1] * 4
    with pytest.raises(DataError, match="split test: no client has an example to spare"):
        fl.data.federate(source, partition=fl.data.iid(12), split={"test": share})


def test_the_first_setting_may_stand_without_its_name():
    fields = {"y": np.arange(4), "site": np.array(list("abab"))}
    rng = np.random.default_rng(0)
    assert fl.data.natural("site")(fields, rng).names.tolist() == ["a", "b"]
    assert fl.data.iid(2)(fields, rng).num_clients == 2
    with pytest.raises(SpecError, match=r"dirichlet takes clients alone by place, then alpha="):
        fl.data.dirichlet(2, 0.5)
    with pytest.raises(SpecError, match="natural takes field alone by place"):
        fl.data.natural("site", field="site")


@pytest.mark.parametrize("mark", [";", "|", "\t"])
def test_a_folder_of_files_with_another_separator_names_it(tmp_path, mark):
    (tmp_path / "part.csv").write_text(CSV.replace(",", mark))
    with pytest.raises(DataError, match=f"separated by {re.escape(repr(mark))}, and those of"):
        fl.data.huggingface(tmp_path, x="image", y="label")


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", 'image,label\n1,2\n1,2,3\n"4'), ("a.json", '{"image": 1, "label": 0, "image": 2}')],
    ids=["a csv of long rows", "json with doubled keys"],
)
def test_a_file_that_cannot_be_read_is_not_logged_as_well(tmp_path, caplog, name, text):
    logger = logging.getLogger("datasets")
    logger.addHandler(caplog.handler)  # it does not propagate to the root
    try:
        with pytest.raises(DataError):
            read(tmp_path, name, text, x="image", y="label")
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.records == []
