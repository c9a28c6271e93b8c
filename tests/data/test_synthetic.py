import numpy as np
import pytest

from floral import data
from floral.errors import SpecError

TASKS = {"linear": data.synthetic_linear, "mlp": data.synthetic_mlp}


def test_the_paper_s_tasks_have_the_paper_s_shapes():
    linear, mlp = data.synthetic_linear(), data.synthetic_mlp()
    assert linear.dataset.num_clients == 10
    assert linear.dataset.client(9)["train"]["x"].shape == (7, 10)
    assert linear.dataset.client(9)["test"]["y"].shape == (1, 3)
    assert mlp.dataset.num_clients == 20
    assert mlp.dataset.client(0)["train"]["x"].shape == (96, 10)
    assert mlp.dataset.client(0)["test"]["y"].shape == (24, 1)
    assert mlp.dataset.traits["cluster"].tolist() == [0, 1, 2, 3] * 5
    assert linear.dataset.num_classes is None
    assert list(linear.dataset.splits) == ["train", "test"]


@pytest.mark.parametrize("name", TASKS)
def test_without_noise_the_truth_explains_every_target(name):
    task = TASKS[name](seed=3)
    for k in range(task.dataset.num_clients):
        for split in task.dataset.client(k).values():
            truth = task.truth(split["x"], task.dataset.traits["cluster"][k])
            # float32 storage of numbers of about ten: 1e-5 is a few units in the last place.
            np.testing.assert_allclose(split["y"], truth, atol=1e-5)


def test_the_truth_is_the_stated_formula():
    task = data.synthetic_mlp(seed=1)
    x = np.random.default_rng(0).standard_normal((5, 10))
    p = task.parameters
    expected = np.maximum(x @ p["kernel"][2] + p["bias"], 0) @ p["head"]
    np.testing.assert_allclose(task.truth(x, 2), expected)


@pytest.mark.parametrize("rank", [1, 2])
def test_clusters_differ_by_a_matrix_of_rank_two_r(rank):
    kernel = data.synthetic_mlp(rank=rank, seed=5).parameters["kernel"]
    singular = np.linalg.svd(kernel[0] - kernel[1], compute_uv=False)
    assert (singular[: 2 * rank] > 1e-3).all()
    assert (singular[2 * rank :] < 1e-12).all()


def test_with_alpha_zero_all_clusters_are_one():
    kernel = data.synthetic_mlp(alpha=0.0).parameters["kernel"]
    np.testing.assert_array_equal(kernel, np.broadcast_to(kernel[:1], kernel.shape))


def test_parameters_have_the_stated_variances():
    task = data.synthetic_mlp(clients=60, clusters=60, dimension=40, train=1, test=1, rank=2)
    p = task.parameters
    offsets = p["kernel"] - p["kernel"].mean(axis=0)
    # Var(α Σ_r u v) = α² · r · (1/d)(1/r) = 4 / 40, short of 1/60 for the mean taken out. Each
    # offset has 160 numbers behind it, 60 of them: the variance is known to about 4 %.
    assert offsets.var() == pytest.approx(0.1 * 59 / 60, rel=0.15)
    assert p["bias"].var() == pytest.approx(1 / 40, rel=0.8)
    assert p["kernel"].mean(axis=0).var() == pytest.approx(1 / 40 + 0.1 / 60, rel=0.15)


def test_features_are_standard_normal():
    x = data.synthetic_mlp(train=500).dataset.splits["train"].examples["x"]
    assert abs(x.mean()) < 0.02
    assert x.std() == pytest.approx(1.0, abs=0.02)


def test_noise_moves_targets_by_its_deviation_and_features_not_at_all():
    clean, noisy = data.synthetic_mlp(), data.synthetic_mlp(noise=0.5)
    one, two = (task.dataset.splits["train"].examples for task in (clean, noisy))
    np.testing.assert_array_equal(one["x"], two["x"])
    assert (two["y"] - one["y"]).std() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_its_seed_s(name):
    one, same, other = (TASKS[name](seed=seed).dataset.fingerprint for seed in (0, 0, 1))
    assert one == same != other


def test_more_examples_leave_the_parameters_alone():
    small, large = data.synthetic_linear(), data.synthetic_linear(train=20, validation=3)
    np.testing.assert_array_equal(small.parameters["kernel"], large.parameters["kernel"])
    assert large.dataset.splits["validation"].sizes.tolist() == [3] * 10


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"outputs": 11}, "outputs must lie between 1 and 10, got 11"),
        ({"clusters": 11}, "clusters must lie between 1 and 10, got 11"),
        ({"train": 0}, "train must be a whole number"),
        ({"test": -1}, "test must not be negative"),
        ({"rank": 0}, "rank must be a whole number"),
        ({"noise": -0.1}, "noise must not be negative"),
        ({"seed": -1}, "seed must not be negative"),
    ],
)
def test_settings_without_meaning_are_refused(given, message):
    with pytest.raises(SpecError, match=message):
        data.synthetic_linear(**given)


def test_a_teachers_hidden_units_may_be_standardized():
    task = data.synthetic_mlp(seed=2, standardize_hidden=True)
    plain = data.synthetic_mlp(seed=2)
    p = task.parameters
    x = np.random.default_rng(0).standard_normal((400_000, 10))
    for cluster in range(4):
        hidden = np.maximum(x @ p["kernel"][cluster] + p["bias"], 0)
        # Moments of 400,000 examples: the errors of means are about 0.002.
        expected = (hidden - hidden.mean(axis=0)) / hidden.std(axis=0) @ p["head"]
        np.testing.assert_allclose(task.truth(x[:50], cluster), expected[:50], atol=0.03)
    for one, other in ((p, plain.parameters), *_features(task, plain)):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def _features(*tasks):
    yield tuple({"x": task.dataset.splits["train"].examples["x"]} for task in tasks)
