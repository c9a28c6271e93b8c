import threading

import numpy as np
import pytest

from floral.data import federate, generated, synthetic_population
from floral.errors import DataError, SpecError


def ramps(rng, client, size):
    x = rng.standard_normal((size, 2)).astype(np.float32)
    return {"x": x, "y": (client * x.sum(axis=1)).astype(np.float32)}


@pytest.fixture(scope="module")
def ragged():
    """Clients with 3, 1, 0 and 4 examples to test, and two each to train."""
    return generated(ramps, sizes={"train": [2, 2, 2, 2], "test": [3, 1, 0, 4]}, seed=5)


def test_a_client_s_rows_are_the_same_whoever_reads_them_and_when(ragged):
    whole = np.asarray(ragged.splits["test"].examples["x"])
    for k in (3, 0, 1, 2, 3):
        rows = ragged.splits["test"].offsets[k : k + 2]
        np.testing.assert_array_equal(ragged.client(k)["test"]["x"], whole[slice(*rows)])
    x = ragged.splits["test"].examples["x"]
    for first in range(9):
        for last in range(9):
            np.testing.assert_array_equal(x[first:last], whole[first:last])


def test_threads_read_the_same(ragged):
    found = {}

    def read(name):
        for _ in range(50):
            found[name] = [ragged.client(k)["test"]["y"] for k in range(4)]

    threads = [threading.Thread(target=read, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rows in found.values():
        for k, own in enumerate(rows):
            np.testing.assert_array_equal(own, ragged.client(k)["test"]["y"])


def test_clients_splits_and_seeds_draw_apart(ragged):
    other = generated(ramps, sizes={"train": 2}, clients=4, seed=6)
    drawn = [ragged.client(0)["train"]["x"], ragged.client(1)["train"]["x"]]
    drawn += [ragged.client(0)["test"]["x"][:2], other.client(0)["train"]["x"]]
    assert len({rows.tobytes() for rows in drawn}) == 4


def test_the_fields_of_a_client_are_made_together():
    made = []

    def noted(rng, client, size):
        made.append(client)
        return ramps(rng, client, size)

    data = generated(noted, sizes={"train": 3}, clients=5)
    made.clear()
    data.client(3), data.client(1)
    assert made == [3, 1]


def test_rows_cannot_be_changed_by_who_reads_them(ragged):
    with pytest.raises(ValueError, match="read-only"):
        ragged.client(0)["train"]["x"][0] = 0


def test_sizes_say_who_has_how_many(ragged):
    assert ragged.splits["test"].sizes.tolist() == [3, 1, 0, 4]
    assert list(generated(ramps, sizes={"train": 2, "test": 0}, clients=4).splits) == ["train"]


def fingerprint(function=ramps, **changes):
    options = {"sizes": {"train": 2}, "clients": 3, "seed": 0, **changes}
    return generated(function, **options).fingerprint


def test_the_fingerprint_changes_with_settings_and_with_the_function():
    def steeper(rng, client, size):
        return {**ramps(rng, client, size), "y": np.full(size, 2.0 * client, np.float32)}

    variants = [
        fingerprint(),
        fingerprint(seed=1),
        fingerprint(clients=4),
        fingerprint(sizes={"train": 3}),
        fingerprint(settings={"slope": 2}),
        fingerprint(unseen=[True, False, False]),
        fingerprint(steeper),
    ]
    assert len(set(variants)) == len(variants)
    assert fingerprint() == variants[0]


def test_the_fingerprint_sees_what_a_function_makes_though_its_name_stays():
    def made(slope):
        return lambda rng, client, size: {"x": np.ones((size, 1)), "y": np.full(size, slope)}

    assert fingerprint(made(1.0)) == fingerprint(made(1.0)) != fingerprint(made(2.0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sizes": {"test": 1}}, r"sizes\['train'\] is missing or zero"),
        ({"sizes": {"train": 0}}, r"sizes\['train'\] is missing or zero"),
        ({"sizes": {"train": [1, 0, 1]}}, "client 1 has no training example"),
        ({"sizes": {"train": [1, 2]}}, "one number of examples for each client"),
        ({"sizes": {"train": 1}, "clients": None}, "clients must say how many there are"),
        ({"sizes": {"trian": 1, "train": 1}}, "did you mean 'train'"),
        ({"num_classes": 3}, "labels of classes must be whole numbers, not floats"),
    ],
)
def test_what_does_not_fit_is_said(given, message):
    with pytest.raises(DataError, match=message):
        generated(ramps, **{"sizes": {"train": 2}, "clients": 3, **given})


def test_a_client_of_another_shape_is_named():
    def odd(rng, client, size):
        return {"x": np.ones((size, 1 + client // 2), np.float32), "y": np.ones(size, np.float32)}

    data = generated(odd, sizes={"train": 2}, clients=3)
    with pytest.raises(DataError, match=r"client 2, split 'train': 'x' is float32\[2, 2\]"):
        data.client(2)


def test_clusters_of_a_synthetic_population_name_the_same_images_differently():
    data = synthetic_population(clients=8, clusters=4, train=200, side=4, separation=50.0)
    first = data.client(0)["train"]
    means = np.stack([first["x"][first["y"] == j].mean(axis=0) for j in range(10)])
    for k in range(8):
        own = data.client(k)["train"]
        distance = ((own["x"][:, None] - means[None]) ** 2).sum(axis=(2, 3, 4))
        kind = distance.argmin(axis=1)
        np.testing.assert_array_equal(own["y"], (kind + k % 4) % 10)
    assert data.traits["cluster"].tolist() == [0, 1, 2, 3] * 2


def test_separation_is_the_distance_of_two_classes_means():
    data = synthetic_population(clients=4, train=4000, side=16, separation=20.0)
    own = data.client(0)["train"]
    means = np.stack([own["x"][own["y"] == j].mean(axis=0).ravel() for j in range(10)])
    apart = np.linalg.norm(means[:, None] - means[None], axis=-1)[np.triu_indices(10, 1)]
    # 45 distances in 256 dimensions, each within 5 % or so of its mean, and the noise of a mean.
    assert abs(apart.mean() - 20.0) < 1.0


def test_a_million_clients_are_a_population_like_any_other():
    data = federate(synthetic_population(clients=1_000_000, side=4), unseen=0.25)
    assert data.describe().startswith("1000000 clients (250000 unseen), 10 classes")
    assert len(data.fingerprint) == 64
    assert data.client(765_432)["test"]["x"].shape == (10, 4, 4, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clusters": 11}, "clusters must lie between 1 and 10, got 11"),
        ({"train": 0}, "train must be a whole number"),
        ({"separation": -1.0}, "separation must not be negative"),
    ],
)
def test_settings_without_meaning_are_refused(given, message):
    with pytest.raises(SpecError, match=message):
        synthetic_population(**given)
