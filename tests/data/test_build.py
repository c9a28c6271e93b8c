import numpy as np
import pytest

from floral import data
from floral.errors import DataError, SpecError


@pytest.fixture(scope="module")
def source():
    """Forty examples of four classes; example i has the feature i."""
    return data.arrays(np.arange(40.0)[:, None], np.arange(40) % 4)


def rows(population, split):
    return population.splits[split].examples["x"][:, 0].astype(int)


def test_the_same_seed_gives_the_same_population(source):
    def build(seed):
        return data.federate(
            source,
            partition=data.dirichlet(clients=4),
            shift=data.permute(clusters=2),
            split={"validation": 0.1, "test": 0.2},
            keep=0.5,
            seed=seed,
        ).fingerprint

    assert build(0) == build(0) != build(1)


def test_without_keep_every_example_is_in_one_split_of_one_client(source):
    split = {"validation": 0.2, "test": 0.2}
    population = data.federate(source, partition=data.iid(clients=4), split=split)
    everything = np.concatenate([rows(population, name) for name in population.splits])
    assert sorted(everything) == list(range(40))
    assert list(population.splits) == ["train", "validation", "test"]
    assert population.num_classes == 4


def test_what_is_not_kept_is_in_no_split(source):
    settings = {"partition": data.iid(clients=4), "split": {"test": 0.2}}
    whole, thin = (data.federate(source, keep=keep, **settings) for keep in (1.0, 0.25))
    np.testing.assert_array_equal(rows(whole, "test"), rows(thin, "test"))
    assert thin.splits["train"].sizes.tolist() == [2, 2, 2, 2]
    assert set(rows(thin, "train")) < set(rows(whole, "train"))


def test_a_shift_leaves_the_partition_alone(source):
    plain = data.federate(source, partition=data.iid(clients=4))
    shifted = data.federate(
        source, partition=data.iid(clients=4), shift=data.label_shift(clusters=4)
    )
    np.testing.assert_array_equal(rows(plain, "train"), rows(shifted, "train"))
    assert shifted.traits["cluster"].tolist() == [0, 1, 2, 3]


def test_a_saved_partition_builds_the_same_population(source, tmp_path):
    rng = np.random.default_rng(0)
    partition = data.iid(clients=4)({"y": source.examples["y"]}, rng)
    data.save_partition(tmp_path / "p.npz", partition)
    direct = data.federate(source, partition=partition)
    by_path = data.federate(source, partition=data.saved(path=str(tmp_path / "p.npz")))
    assert direct.fingerprint == by_path.fingerprint


def test_natural_clients_come_from_the_source_s_fields():
    source = data.arrays(np.zeros((4, 1)), [0, 1, 0, 1], fields={"writer": ["b", "a", "b", "b"]})
    population = data.federate(source, partition=data.natural(field="writer"))
    assert population.splits["train"].sizes.tolist() == [1, 3]


def test_the_partition_s_clusters_become_the_population_s(source):
    partition = data.label_clusters(clients=6, clusters=2)
    population = data.federate(source, partition=partition, split={"test": 0.2})
    assert population.traits["cluster"].tolist() == [0, 1, 0, 1, 0, 1]
    assert set(population.client(1)["train"]["y"] % 2) == {1}


@pytest.mark.parametrize(
    ("unseen", "ids"),
    [(0, []), (1, [7]), (2, [6, 7]), (3, [5, 6, 7]), (0.5, [4, 5, 6, 7]), (5, [3, 4, 5, 6, 7])],
)
def test_unseen_clients_are_the_last_of_each_cluster_in_turn(source, unseen, ids):
    traits = {"cluster": np.array([0, 0, 0, 0, 0, 1, 0, 1])}
    population = data.federate(source, partition=data.iid(clients=8))._replace(traits=traits)
    assert np.flatnonzero(data.federate(population, unseen=unseen).unseen).tolist() == ids


def test_unseen_clients_are_balanced_over_clusters(source):
    population = data.federate(
        source, partition=data.iid(clients=8), shift=data.label_shift(clusters=4), unseen=0.5
    )
    assert population.traits["cluster"][population.unseen].tolist() == [0, 1, 2, 3]
    assert population.seen.tolist() == [0, 1, 2, 3]


def test_synthetic_tasks_come_with_their_clients():
    task = data.synthetic_linear()
    assert data.federate(task).fingerprint == task.dataset.fingerprint
    assert data.federate(task, unseen=2).unseen.sum() == 2
    with pytest.raises(DataError, match="takes no partition, split or keep"):
        data.federate(task, partition=data.iid(clients=2))
    with pytest.raises(DataError, match="takes no partition, split or keep"):
        data.federate(task.dataset, keep=0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "arrays needs a partition"),
        ({"partition": data.iid(clients=41)}, "40 examples are too few for 41 clients"),
        (
            {"partition": data.Partition.of([[0, 1], [], [2]])},
            "the partition of arrays leaves client 1 without examples",
        ),
        (
            {"partition": data.Partition.of([[0, 40]])},
            "the partition names example 40, but arrays has 40",
        ),
        (
            {"partition": data.Partition.of([[0, 1], [-1]])},
            "the partition names example -1, but arrays has 40",
        ),
        (
            {"partition": data.Partition.of([[0, 1], [2, 1]])},
            "the partition of arrays deals example 1 more than once; an example belongs to one",
        ),
        ({"partition": data.iid(clients=4), "unseen": 4}, "unseen=4 leaves none of 4 clients"),
        ({"partition": data.iid(clients=4), "unseen": 1.0}, "unseen=1.0 leaves none of 4 clients"),
        ({"partition": data.natural(field="writer")}, "no field 'writer'; it has y"),
    ],
)
def test_parts_that_do_not_fit_say_so(source, settings, message):
    with pytest.raises(DataError, match=message):
        data.federate(source, **settings)


@pytest.fixture
def marked():
    """Forty images of two channels, whose every example has values of its own."""
    x = np.random.default_rng(0).gamma(2.0, size=(40, 3, 3, 2)) * [1.0, 50.0] + [0.0, 1e4]
    return data.arrays(x, np.arange(40) % 4)


def test_only_kept_training_examples_of_clients_that_train_are_read_to_standardize(marked):
    settings = {
        "partition": data.iid(clients=4),
        "split": {"validation": 0.2, "test": 0.2},
        "shift": data.rotate(clusters=2),
        "keep": 0.5,
        "unseen": 1,
    }
    plain = data.federate(marked, **settings)
    standard = data.federate(marked, standardize=True, **settings)
    train = plain.splits["train"]
    read = train.examples["x"][~plain.unseen[train.owners]].astype(np.float64)
    assert len(read) < 40
    mean, deviation = read.mean(axis=(0, 1, 2)), read.std(axis=(0, 1, 2))
    for name, split in plain.splits.items():
        got = standard.splits[name].examples
        expected = (split.examples["x"] - mean) / deviation
        np.testing.assert_allclose(got["x"], expected, rtol=1e-6, atol=1e-6)
        assert got["x"].dtype == np.float32
        np.testing.assert_array_equal(got["y"], split.examples["y"])


def test_held_out_examples_do_not_move_the_statistics(marked):
    given = data.federate(marked, partition=data.iid(clients=4), split={"test": 0.2})
    test = given.splits["test"]
    other = {**test.examples, "x": 7 * test.examples["x"]}
    changed = given._replace(splits={**given.splits, "test": test._replace(examples=other)})
    one, two = (
        data.federate(population, standardize=True).splits["train"].examples["x"]
        for population in (given, changed)
    )
    np.testing.assert_array_equal(one, two)


def test_a_constant_channel_cannot_be_standardized():
    x = np.stack([np.arange(8.0), np.full(8, 0.1)], axis=1)
    source = data.arrays(x, np.arange(8) % 2)
    with pytest.raises(DataError, match=r"channel 1 of x \[2\] has the same value in all training"):
        data.federate(source, partition=data.iid(clients=2), standardize=True)


def test_a_population_that_is_made_when_it_is_read_cannot_be_standardized():
    with pytest.raises(DataError, match="read only when they are needed; standardize them before"):
        data.federate(data.synthetic_population(clients=4, side=2), standardize=True)


def test_a_negative_seed_is_refused(source):
    with pytest.raises(SpecError, match="seed must not be negative"):
        data.federate(source, partition=data.iid(clients=4), seed=-1)
