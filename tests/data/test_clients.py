import numpy as np
import pytest

from floral.data import FederatedDataset, Split, federated, from_clients
from floral.errors import DataError


def client(*values, split="train"):
    return {split: {"x": [[float(v)] for v in values], "y": [int(v) % 2 for v in values]}}


def test_a_client_gets_back_what_it_brought():
    data = from_clients([client(1, 2, 3), client(4)], num_classes=2)
    assert data.client(0)["train"]["x"].tolist() == [[1.0], [2.0], [3.0]]
    assert data.client(1)["train"]["y"].tolist() == [0]
    assert data.splits["train"].owners.tolist() == [0, 0, 0, 1]
    assert data.splits["train"].max_size == 3
    assert data.num_clients == 2


def test_both_ways_of_building_agree():
    one = from_clients([client(1, 2, 3), client(4)], num_classes=2)
    examples = {"x": np.array([[4.0], [1.0], [2.0], [3.0]]), "y": np.array([0, 1, 0, 1])}
    other = federated(examples, {"train": [[1, 2, 3], [0]]}, num_classes=2)
    assert one.fingerprint == other.fingerprint


def test_numbers_take_the_types_that_jax_gives_them():
    data = from_clients([client(1)], traits={"cluster": np.zeros(1, np.int64)})
    x, y = data.splits["train"].examples["x"], data.splits["train"].examples["y"]
    assert (x.dtype, y.dtype, data.traits["cluster"].dtype) == (np.float32, np.int32, np.int32)


def test_a_split_that_a_client_lacks_is_empty_for_it():
    data = from_clients([client(1), {**client(2), **client(3, split="test")}])
    assert data.splits["test"].sizes.tolist() == [0, 1]
    assert data.client(0)["test"]["x"].shape == (0, 1)
    assert list(data.splits) == ["train", "test"]


def test_unseen_clients_are_not_among_the_seen():
    data = from_clients([client(1), client(2), client(3)], unseen=[False, True, False])
    assert data.seen.tolist() == [0, 2]
    assert "3 clients (1 unseen)" in data.describe()


def test_describe_counts_known_clusters_only():
    data = from_clients([client(1), client(2), client(3)], traits={"cluster": [1, -1, 1]})
    assert data.describe().endswith("clusters: 0, 2 clients")


def changes():
    base = from_clients([client(1, 2), client(3)], traits={"cluster": [0, 1]}, num_classes=2)
    train = base.splits["train"]
    yield base, base._replace(traits={"cluster": np.array([0, 0], np.int32)})
    yield base, base._replace(traits={})
    yield base, base._replace(unseen=np.array([False, True]))
    yield base, base._replace(num_classes=3)
    yield base, base._replace(splits={"test": train})
    yield base, base._replace(splits={"train": train._replace(offsets=np.array([0, 1, 3]))})
    x = train.examples["x"].copy()
    x[1, 0] = np.nextafter(x[1, 0], np.float32(9))
    yield base, base._replace(splits={"train": Split({**train.examples, "x": x}, train.offsets)})
    swapped = {"x": train.examples["x"].reshape(1, 3), "y": train.examples["y"]}
    yield base, base._replace(splits={"train": Split(swapped, train.offsets)})


@pytest.mark.parametrize(("before", "after"), list(changes()))
def test_the_fingerprint_changes_with_any_data(before: FederatedDataset, after: FederatedDataset):
    assert before.fingerprint != after.fingerprint


def test_the_fingerprint_stays_where_the_data_do():
    base = from_clients([client(1, 2), client(3)], traits={"a": [0, 1], "b": [1, 1]})
    train = base.splits["train"]
    copied = {name: array[::-1].copy()[::-1] for name, array in train.examples.items()}
    same = base._replace(
        splits={"train": Split(dict(reversed(copied.items())), train.offsets.copy())},
        traits=dict(reversed(base.traits.items())),
    )
    assert same.fingerprint == base.fingerprint
    assert len(base.fingerprint) == 64


def test_the_fingerprint_is_the_same_in_every_process():
    # The number below was printed by this line; it guards against a silent change of the hash.
    assert from_clients([client(1, 2)], num_classes=2).fingerprint.startswith(FINGERPRINT)


FINGERPRINT = "f6f15a7a95e6"


@pytest.mark.parametrize(
    ("clients", "settings", "message"),
    [
        ([], {}, "no client has a training example"),
        ([client(1, split="test")], {}, "the split 'train' is missing"),
        ([client(1), client(2, split="test")], {}, "client 1 has no training example"),
        ([client(1, split="trian")], {}, "got 'trian'; did you mean 'train'"),
        ([{"train": {"x": [[1.0, np.nan]], "y": [0]}}], {}, "client 0, split 'train': 'x' of exam"),
        ([{"train": {"x": [[np.inf]], "y": [0]}}], {}, "is inf at (0,)"),
        ([{"train": {"x": [[1.0]], "y": [0, 1]}}], {}, "'x' has 1, 'y' has 2"),
        ([{"train": {"x": [[1.0]]}}], {}, "lacks 'y'; it has 'x'"),
        ([{"train": {"x": [], "y": []}}], {}, "is empty"),
        ([{"train": {"x": ["a"], "y": [0]}}], {}, "'x' of example 0 is 'a'"),
        ([{"train": {"x": 1.0, "y": 0}}], {}, "got a single number"),
        ([client(1), client(3)], {"num_classes": 1}, "label of example 0 is 1, expected 0 to 0"),
        ([{"train": {"x": [[1.0]], "y": [-1]}}], {"num_classes": 2}, "example 0 is -1"),
        ([{"train": {"x": [[1.0]], "y": [0.5]}}], {"num_classes": 2}, "example 0 is 0.5"),
        ([client(1)], {"traits": {"cluster": [0, 1]}}, "trait 'cluster' has shape (2,)"),
        ([client(1)], {"unseen": [True]}, "must mark some, not all, of 1 clients"),
        (
            [client(1), {"train": {"x": [[1.0, 2.0]], "y": [0]}}],
            {},
            "'x' is float32[1] for client 0 but float32[2] for client 1",
        ),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused_by_name(clients, settings, message):
    with pytest.raises(DataError) as error:
        from_clients(clients, **settings)
    assert message in str(error.value)


def test_splits_of_unequal_numbers_of_clients_are_refused():
    examples = {"x": np.zeros((3, 1)), "y": np.zeros(3)}
    with pytest.raises(DataError, match="'test' has 1 clients, 'train' has 2"):
        federated(examples, {"train": [[0], [1]], "test": [[2]]})


@pytest.mark.parametrize(
    ("names", "who"), [(None, "client 1"), (["a", "b"], "client 'b'")], ids=["numbered", "named"]
)
def test_a_cluster_beyond_what_can_be_counted_is_refused_with_its_client(names, who):
    with pytest.raises(DataError, match=f"trait 'cluster' of {who} is 1048576"):
        from_clients(
            [client(1), client(2)] if names is None else {"a": client(1), "b": client(2)},
            traits={"cluster": [2**20 - 1, 2**20]},
        )
