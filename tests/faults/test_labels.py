"""Labels in every form become the right classes, or are refused with example and value."""

import decimal

import numpy as np
import pandas
import pytest

import floral as fl
from floral.errors import DataError

NOTHING = [None, np.nan, float("nan"), "", "  ", "None", "nan", pandas.NA, pandas.NaT, b""]


def source(labels, **settings):
    return fl.data.arrays(np.zeros((len(labels), 2)), labels, **settings)


def objects(*values):
    held = np.empty(len(values), object)
    held[:] = values
    return held


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        (["b", "a", "b"], [1, 0, 1], ("a", "b")),
        ([b"b", b"a", b"b"], [1, 0, 1], ("a", "b")),
        (objects("b", "a", "b"), [1, 0, 1], ("a", "b")),
        (objects(b"b", "a", b"b"), [1, 0, 1], ("a", "b")),
        (["10", "9", "10"], [1, 0, 1], ("9", "10")),
        (["10", "9", "x"], [0, 1, 2], ("10", "9", "x")),
        (["é", "日本", "é"], [0, 1, 0], ("é", "日本")),
        (objects(0, 1, 2, 10, 11, 3), [0, 1, 2, 10, 11, 3], None),
        (objects(np.int8(2), 1, 0), [2, 1, 0], None),
        (np.array([2, 0, 1], ">i8"), [2, 0, 1], None),
        (np.array([2, 0, 1], np.uint64), [2, 0, 1], None),
        ([True, False, True], [1, 0, 1], ("False", "True")),
        ([True, True], [1, 1], ("False", "True")),
        (objects(True, False), [1, 0], None),
        (pandas.Series(["lo", "hi", "lo"]), [1, 0, 1], ("hi", "lo")),
        (pandas.Categorical(["lo", "hi"], ["lo", "mid", "hi"]), [0, 2], ("lo", "mid", "hi")),
        (pandas.Series([2, 0, 1], dtype="Int64"), [2, 0, 1], None),
        (np.ma.masked_array([2, 0, 1], [False] * 3), [2, 0, 1], None),
    ],
    ids=str,
)
def test_labels_become_classes_in_their_own_order(labels, numbers, names):
    made = source(labels)
    assert made.examples["y"].tolist() == numbers
    assert made.examples["y"].dtype == np.int32
    assert made.class_names == names
    assert made.num_classes == (len(names) if names else max(numbers) + 1)


@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
@pytest.mark.parametrize("others", [("cat", "dog"), (0, 1), (0.0, 1.0), (b"cat", b"dog")], ids=str)
def test_a_missing_label_is_never_a_class(nothing, others):
    labels = objects(others[0], nothing, others[1], others[0])
    with pytest.raises(DataError, match="label of example 1 is missing"):
        source(labels)
    clients = {"a": {"train": {"x": np.zeros((4, 2)), "y": labels}}}
    with pytest.raises(DataError, match="client 0, split 'train': label of example 1 is missing"):
        fl.data.from_clients(clients)


@pytest.mark.parametrize(
    "labels",
    [np.ma.masked_array([0, 1, 2], [0, 1, 0]), pandas.Series([0, None, 2], dtype="Int64"),
     pandas.Series(["a", None, "b"]), pandas.Categorical(["a", None, "b"])],
    ids=["masked", "nullable", "words", "categories"],
)  # fmt: skip
def test_a_gap_in_a_column_is_a_missing_label(labels):
    with pytest.raises(DataError, match="label of example 1 is missing"):
        source(labels)


@pytest.mark.parametrize(
    ("labels", "settings", "said"),
    [
        ([7, 1000000] * 6, {}, "12 examples, 1,000,001 classes, 999,999 of them empty"),
        ([1, 2, 3], {}, "3 examples, 4 classes, 1 of them empty .labels 1 to 3.; number classes"),
        ([2**62, 0], {}, "classes, 4,611,686,018,427,387,903 of them empty"),
        ([0, 1, -1], {}, "label of example 2 is -1, expected 0 to 1"),
        ([0.0, 1.5], {"num_classes": 2}, "label of example 1 is 1.5, expected a whole number from"),
        ([0.0, np.nan], {"num_classes": 2}, "label of example 1 is missing"),
        ([0.0, np.inf], {"num_classes": 2}, "label of example 1 is inf"),
        ([0.0, np.inf], {}, "'y' of example 1 is inf"),
        (["a", "b", "c"], {"num_classes": 2}, "3 different labels, but num_classes=2"),
        (
            ["a", "cat"],
            {"class_names": ["a", "cart"]},
            "'cat', which is none .* mean 'cart",
        ),
        ([0, 1], {"class_names": ["a", "a"]}, "class_names must be 2 different words"),
        (objects("a", 1), {}, "label of example 1 is 1, that of example 0 is 'a'; labels must be"),
        (objects(1, (2,)), {}, r"example 1 has shape \[1\], example 0 \[\]"),
        ([["a"], ["b"]], {}, r"labels that are words must be \[M\]"),
        ([b"\xff", b"a"], {}, "no UTF-8"),
        ([1j, 2j], {}, "'y' holds complex numbers"),
        (np.array(["2020-01-01", "2020-01-02"], "M8[D]"), {}, "'y' holds dates"),
        ([0, 1], {"num_classes": 2.0}, "num_classes must be a whole number"),
    ],
    ids=str,
)
def test_labels_that_are_no_classes_are_refused(labels, settings, said):
    with pytest.raises(fl.errors.FloralError, match=said):
        source(labels, **settings)


def test_floats_are_classes_only_where_it_is_said():
    assert source([0.0, 2.0, 1.0]).num_classes is None
    made = source([0.0, 2.0, 1.0], num_classes=3)
    assert made.examples["y"].tolist() == [0, 2, 1]
    assert made.examples["y"].dtype == np.int32
    assert source(objects(decimal.Decimal(1), 0), num_classes=2).examples["y"].tolist() == [1, 0]


def test_few_classes_of_a_known_number_may_be_there():
    made = source([7, 2], num_classes=10)
    assert (made.num_classes, made.examples["y"].tolist()) == (10, [7, 2])
    population = fl.data.federate(source([0, 1, 3, 3]), partition=fl.data.iid(clients=2))
    assert "4 classes (1 without training examples)" in population.describe()


def test_words_mean_the_same_class_for_all_clients():
    def client(*labels):
        return {"train": {"x": np.zeros((len(labels), 1)), "y": labels}}

    population = fl.data.from_clients([client("dog", "eel"), client("cat", "dog")])
    assert population.class_names == ("cat", "dog", "eel")
    assert population.num_classes == 3
    assert population.splits["train"].examples["y"].tolist() == [1, 2, 0, 1]
    with pytest.raises(DataError, match=r"words at client 0, split .train., but numbers at"):
        fl.data.from_clients([client("dog"), client(1)])


def test_class_names_live_as_long_as_numbers_mean_one_word(tmp_path):
    made = source(["dog", "cat", "dog", "cat"], fields={"who": ["a", "a", "b", "b"]})
    population = fl.data.federate(made, partition=fl.data.natural(field="who"))
    assert population.class_names == ("cat", "dog")
    assert "2 classes: cat, dog" in population.describe()
    fl.data.save_mapped(population, tmp_path / "there")
    assert fl.data.mapped(folder=str(tmp_path / "there")).class_names == ("cat", "dog")
    renamed = population._replace(class_names=("chat", "chien"))
    assert renamed.fingerprint != population.fingerprint
    shifted = fl.data.federate(population, shift=fl.data.label_shift(clusters=2))
    assert shifted.class_names is None
    flat = fl.data.from_flat(
        {"train": {"x": np.zeros((3, 1)), "y": ["b", "a", "b"]}}, {"train": [0, 1, 3]}
    )
    assert (flat.class_names, flat.num_classes) == (("a", "b"), 2)
