import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floral import data
from floral.errors import DataError, SpecError


def rng(seed=0):
    return np.random.default_rng(seed)


def labels(total, classes=4, seed=0):
    return {"y": rng(seed).integers(classes, size=total)}


FACTORIES = {
    "iid": lambda n: data.iid(clients=n),
    "blocks": lambda n: data.blocks(clients=n),
    "dirichlet": lambda n: data.dirichlet(clients=n, alpha=0.1),
    "shards": lambda n: data.shards(clients=n, shards_per_client=1),
    "quantity_skew": lambda n: data.quantity_skew(clients=n, alpha=0.3),
    "label_clusters": lambda n: data.label_clusters(clients=n, clusters=1),
    "natural": lambda n: data.natural(field="writer"),
}


@pytest.mark.parametrize("name", FACTORIES)
@given(clients=st.integers(1, 8), extra=st.integers(0, 40), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_every_example_goes_to_exactly_one_client(name, clients, extra, seed):
    fields = labels(clients + extra, seed=seed)
    fields["writer"] = np.arange(clients + extra) % clients
    partition = FACTORIES[name](clients)(fields, rng(seed))
    assert sorted(partition.indices) == list(range(clients + extra))
    assert partition.num_clients == clients
    assert (partition.sizes >= 1).all()
    assert [len(rows) for rows in partition.rows()] == partition.sizes.tolist()


@pytest.mark.parametrize("name", FACTORIES)
def test_a_partition_is_its_seed_s(name):
    fields = {**labels(60), "writer": np.arange(60) % 5}
    one, same, other = (FACTORIES[name](5)(fields, rng(seed)).fingerprint for seed in (0, 0, 1))
    assert one == same
    assert (one == other) == (name in ("blocks", "natural", "label_clusters"))


@pytest.mark.parametrize("name", ["iid", "blocks"])
def test_equal_parts_differ_by_at_most_one(name):
    sizes = FACTORIES[name](7)(labels(40), rng()).sizes
    assert sizes.max() - sizes.min() <= 1


def test_blocks_keep_the_stored_order():
    assert data.blocks(clients=2)(labels(5), rng()).client(0).tolist() == [0, 1, 2]


def test_a_small_alpha_skews_labels_and_a_large_one_does_not():
    def largest_share(alpha):
        fields = labels(2000)
        partition = data.dirichlet(clients=10, alpha=alpha, min_examples=5)(fields, rng())
        counts = [np.bincount(fields["y"][rows], minlength=4) for rows in partition.rows()]
        return np.mean([count.max() / count.sum() for count in counts])

    assert largest_share(0.05) > 0.8
    assert largest_share(1000.0) < 0.4


@given(least=st.integers(0, 6), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_no_client_gets_less_than_the_least(least, seed):
    for factory in (data.dirichlet, data.quantity_skew):
        deal = factory(clients=10, alpha=0.05, min_examples=least)
        assert (deal(labels(60, seed=seed), rng(seed)).sizes >= least).all()


def test_shards_give_a_client_few_labels():
    fields = {"y": np.repeat(np.arange(10), 20)}
    partition = data.shards(clients=10, shards_per_client=2)(fields, rng())
    assert all(len(np.unique(fields["y"][rows])) <= 2 for rows in partition.rows())
    assert (partition.sizes == 20).all()


def test_natural_clients_are_the_field_s_values_in_sorted_order():
    fields = {**labels(5), "writer": np.array(["zoe", "amy", "zoe", "bob", "amy"])}
    partition = data.natural(field="writer")(fields, rng())
    assert [rows.tolist() for rows in partition.rows()] == [[1, 4], [3], [0, 2]]


def test_label_clusters_share_labels_but_no_examples():
    fields = {"y": np.arange(60) % 6}
    partition = data.label_clusters(clients=5, clusters=3)(fields, rng())
    assert partition.traits["cluster"].tolist() == [0, 1, 2, 0, 1]
    for k, rows in enumerate(partition.rows()):
        assert set(fields["y"][rows] % 3) == {k % 3}
    assert partition.sizes.tolist() == [10, 10, 20, 10, 10]
    assert partition.client(0).max() < partition.client(3).min()


@given(
    test=st.sampled_from([0.0, 0.1, 0.2, 0.5]),
    validation=st.sampled_from([0.0, 0.1, 0.3]),
    keep=st.sampled_from([0.05, 0.3, 1.0]),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
)
@settings(max_examples=50, deadline=None)
def test_splits_are_disjoint_and_of_the_same_client(test, validation, keep, sizes):
    whole = data.Partition.of(np.split(rng().permutation(sum(sizes)), np.cumsum(sizes)[:-1]))
    fractions = {"validation": validation, "test": test}
    parts = data.split_clients(whole, fractions, rng(), keep=keep)
    for k, size in enumerate(sizes):
        rows = np.concatenate([part.client(k) for part in parts.values()])
        assert len(set(rows)) == len(rows)
        assert set(rows) <= set(whole.client(k))
        assert len(parts["train"].client(k)) >= 1
        least = 1 if test else 0
        expected = min(max(least, int(test * size + 1e-9)), size - 1)
        assert len(parts["test"].client(k)) == expected
        if keep == 1.0:
            assert len(rows) == size


def test_the_paper_s_splits_have_the_paper_s_sizes():
    # 8 -> 7/1 and 120 -> 96/24 (80/20); 5 % of MNIST's 200 training images a client are 10.
    for size, sizes in [(8, (7, 1)), (120, (96, 24))]:
        parts = data.split_clients(data.Partition.of([range(size)]), {"test": 0.2}, rng())
        assert (parts["train"].sizes[0], parts["test"].sizes[0]) == sizes
    parts = data.split_clients(data.Partition.of([range(200)]), {}, rng(), keep=0.05)
    assert parts["train"].sizes.tolist() == [10]


def test_a_smaller_keep_keeps_a_subset_and_the_same_test_rows():
    whole = data.Partition.of([range(40), range(40, 70)])
    kept = {
        keep: data.split_clients(whole, {"test": 0.2}, rng(3), keep=keep)
        for keep in (0.1, 0.5, 1.0)
    }
    for k in range(2):
        small, half, full = (set(kept[keep]["train"].client(k)) for keep in (0.1, 0.5, 1.0))
        assert small < half < full
        tests = {tuple(kept[keep]["test"].client(k)) for keep in kept}
        assert len(tests) == 1


def test_validation_comes_out_of_what_is_kept():
    whole = data.Partition.of([range(100)])
    fractions = {"validation": 0.2}
    parts = data.split_clients(whole, fractions, rng(), keep=0.5)
    assert (parts["train"].sizes[0], parts["validation"].sizes[0]) == (40, 10)
    unvalidated = data.split_clients(whole, {}, rng(), keep=0.5)["train"].client(0)
    both = np.concatenate([part.client(0) for part in parts.values()])
    assert sorted(both) == sorted(unvalidated)


def test_splits_keep_the_partition_s_order_and_traits():
    whole = data.Partition.of([[9, 3, 7, 1, 5]], cluster=np.array([2]))
    parts = data.split_clients(whole, {"test": 0.4}, rng())
    for part in parts.values():
        places = [[9, 3, 7, 1, 5].index(row) for row in part.client(0)]
        assert places == sorted(places)
        assert part.traits["cluster"].tolist() == [2]


def test_a_saved_partition_comes_back_the_same(tmp_path):
    partition = data.label_clusters(clients=5, clusters=2)(labels(30), rng())
    path = tmp_path / "deep" / "partition.npz"
    data.save_partition(path, partition)
    assert data.load_partition(path).fingerprint == partition.fingerprint
    assert data.saved(path=str(path))({}, rng(9)).fingerprint == partition.fingerprint
    assert [file.name for file in path.parent.iterdir()] == ["partition.npz"]


def test_a_partition_s_fingerprint_tells_who_owns_what():
    base = data.Partition.of([[0, 1], [2]])
    assert base.fingerprint != data.Partition.of([[1, 0], [2]]).fingerprint
    assert base.fingerprint != data.Partition.of([[0], [1, 2]]).fingerprint
    assert base.fingerprint != data.Partition.of([[0, 1], [2]], cluster=np.arange(2)).fingerprint


def test_a_file_that_is_no_partition_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no partition at '.*missing\.npz'"):
        data.load_partition(tmp_path / "missing.npz")
    garbage, other, cut = (tmp_path / name for name in ("garbage.npz", "other.npz", "cut.npz"))
    garbage.write_bytes(b"not a zip file")
    np.savez(other, x=np.zeros(3))
    data.save_partition(cut, data.Partition.of([range(50)]))
    cut.write_bytes(cut.read_bytes()[:200])
    for path in (garbage, other, cut):
        with pytest.raises(DataError, match="is no saved partition"):
            data.load_partition(path)


@pytest.mark.parametrize(
    ("deal", "message"),
    [
        (data.iid(clients=5), "4 examples are too few for 5 clients with at least 1 each; use at"),
        (data.blocks(clients=5), "use at most 4 clients"),
        (data.dirichlet(clients=3, min_examples=2), "with at least 2 each; use at most 2 clients"),
        (data.quantity_skew(clients=3, min_examples=2), "use at most 2 clients"),
        (data.shards(clients=3), "use at most 2 clients"),
        (
            data.natural(field="writr"),
            "no field 'writr'; it has y, writer, grid; did you mean",
        ),
        (data.natural(field="grid"), r"one value an example, got shape \(4, 2\)"),
        (data.label_clusters(clients=4, clusters=3), "cluster 2 has 0 examples for its 1 clients"),
    ],
)
def test_a_partition_that_cannot_be_made_says_why(deal, message):
    fields = {"y": np.array([0, 1, 0, 1]), "writer": np.arange(4), "grid": np.zeros((4, 2))}
    with pytest.raises(DataError, match=message):
        deal(fields, rng())


@pytest.mark.parametrize("factory", [data.dirichlet, data.label_clusters])
def test_partitions_by_class_refuse_other_targets(factory):
    with pytest.raises(DataError, match="needs labels of classes, got 'y' of float64"):
        factory(clients=2, **({"clusters": 2} if factory is data.label_clusters else {}))(
            {"y": np.zeros(4)}, rng()
        )


@pytest.mark.parametrize(
    ("factory", "given", "message"),
    [
        (data.iid, {"clients": 0}, "clients must be a whole number of at least 1, got 0"),
        (data.dirichlet, {"alpha": 0.0}, "alpha must be positive"),
        (data.dirichlet, {"min_examples": -1}, "min_examples must not be negative"),
        (data.quantity_skew, {"alpha": -1.0}, "alpha must be positive"),
        (data.shards, {"shards_per_client": 0}, "shards_per_client must be a whole number"),
        (data.label_clusters, {"clients": 3, "clusters": 4}, "clusters must lie between 1 and 3"),
    ],
)
def test_settings_without_meaning_are_refused(factory, given, message):
    with pytest.raises(SpecError, match=message):
        factory(**given)


@pytest.mark.parametrize(
    ("fractions", "keep", "error", "message"),
    [
        ({"tets": 0.1}, 1.0, SpecError, "did you mean 'test'"),
        ({"test": 1.5}, 1.0, SpecError, "split test must lie between 0 and 1"),
        ({"test": 0.5, "validation": 0.5}, 1.0, DataError, "must sum to less than 1, got 1"),
        ({}, 0.0, SpecError, "keep must be positive"),
        ({}, 1.1, SpecError, "keep must lie between 0 and 1"),
    ],
)
def test_shares_without_meaning_are_refused(fractions, keep, error, message):
    with pytest.raises(error, match=message):
        data.split_clients(data.Partition.of([range(5)]), fractions, rng(), keep=keep)
