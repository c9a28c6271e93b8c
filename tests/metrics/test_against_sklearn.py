"""The metrics of classes and numbers are those of scikit-learn, however batches are cut."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

from floral import metrics


@pytest.fixture
def merged(jit):
    """``(metric, outputs, labels) -> value`` over four batches, padded by rubbish to one size."""

    def measure(metric, outputs, labels):
        count = len(labels)
        width = count // 2
        cuts = [0, width, width + 1, count - 2, count] if count > 4 else [0, count]
        of_batch = jit(metric.from_outputs)
        parts = []
        for start, end in itertools.pairwise(cuts):
            rows = np.resize(np.arange(start, end), max(width, count if count <= 4 else 0))
            live = np.arange(len(rows)) < end - start
            rubbish = np.where(live, 1.0, np.nan).astype(np.float32)
            seen = outputs[rows] * rubbish.reshape(-1, *(1,) * (outputs.ndim - 1))
            parts.append(of_batch(seen, {"y": labels[rows], "mask": live}))
        return np.asarray(jit(metric.compute)(functools.reduce(jit(metric.merge), parts)))

    return measure


@pytest.fixture(params=[2, 5], ids=["two classes", "five classes"])
def drawn(request):
    """Logits of 60 examples that know something of their labels, the last class a rare one."""
    rng = np.random.default_rng(request.param)
    labels = rng.integers(0, request.param, 60)
    labels[labels == request.param - 1] *= rng.random(np.sum(labels == request.param - 1)) > 0.6
    logits = rng.normal(size=(60, request.param)) + 1.5 * np.eye(request.param)[labels]
    return logits.astype(np.float32), labels.astype(np.int32)


REFERENCES = {
    "accuracy": (metrics.accuracy, reference.accuracy_score),
    "balanced accuracy": (metrics.balanced_accuracy, reference.balanced_accuracy_score),
    "macro F1": (metrics.macro_f1, functools.partial(reference.f1_score, average="macro")),
    "confusion": (metrics.confusion, reference.confusion_matrix),
}


@pytest.mark.parametrize(("ours", "theirs"), REFERENCES.values(), ids=REFERENCES)
def test_metrics_of_classes_are_those_of_scikit_learn(ours, theirs, drawn, merged):
    logits, labels = drawn
    expected = theirs(labels, logits.argmax(-1))
    np.testing.assert_allclose(merged(ours(), logits, labels), expected, rtol=1e-6)


def test_classes_that_never_occur_are_left_out_as_scikit_learn_does(merged):
    logits = np.eye(6, dtype=np.float32)[[0, 0, 1, 3, 1] * 5]
    labels = np.array([0, 1, 1, 0, 1] * 5)
    expected = reference.balanced_accuracy_score(labels, logits.argmax(-1))
    assert merged(metrics.balanced_accuracy(), logits, labels) == pytest.approx(expected)
    expected = reference.f1_score(labels, logits.argmax(-1), average="macro")
    assert merged(metrics.macro_f1(), logits, labels) == pytest.approx(expected)


def test_the_area_of_each_class_against_the_rest_is_that_of_scikit_learn(drawn, merged):
    logits, labels = drawn
    shares = np.asarray(jax.nn.softmax(logits.astype(np.float32)), float)
    shares /= shares.sum(1, keepdims=True)
    if logits.shape[1] == 2:
        expected = reference.roc_auc_score(labels, shares[:, 1])
    else:
        expected = reference.roc_auc_score(labels, shares, multi_class="ovr", average="macro")
    assert merged(metrics.auc(), logits, labels) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("shape", [(60,), (60, 1)], ids=["B", "B, 1"])
def test_the_area_of_a_single_output_is_off_by_no_more_than_half_the_pairs_of_one_bin(shape, drawn):
    logits, labels = drawn
    labels = (labels > 0).astype(np.int32)
    scores = logits[:, 0]
    expected = reference.roc_auc_score(labels, scores)
    for bins in (2, 16, 64, 4096):
        metric = metrics.auc(bins=bins)
        batch = {"y": jnp.asarray(labels), "mask": jnp.ones(60, bool)}
        sums = metric.from_outputs(jnp.asarray(scores.reshape(shape)), batch)
        tied = np.sum(np.asarray(sums["positive"]) * np.asarray(sums["negative"]))
        bound = tied / labels.sum() / (1 - labels).sum() / 2
        assert abs(float(metric.compute(sums)) - expected) <= bound + 1e-6


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4], ids=["small", "plain", "large"])
def test_the_area_does_not_depend_on_the_scale_of_the_scores(scale, merged):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    scores = (labels + rng.normal(size=500)).astype(np.float32)
    expected = reference.roc_auc_score(labels, scores)
    assert merged(metrics.auc(), scores * np.float32(scale), labels) == pytest.approx(
        expected, abs=2e-3
    )


def test_log_odds_of_a_certain_class_still_rank(merged):
    """A softmax of float32 gives one to both examples of the first class."""
    logits = np.array([[40, 0, 0], [60, 0, 0], [50, 0, 0], [0, 9, 0], [0, 0, 9]], np.float32)
    labels = np.array([0, 0, 1, 1, 2])
    area = merged(metrics.auc(), logits, labels)
    # 5 of the 6 pairs of class 0, 3 + 1 halves of the 6 of class 1, and all of class 2.
    assert area == pytest.approx(np.mean([5 / 6, 4 / 6, 1.0]), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_a_client_without_some_class_is_measured_on_the_classes_that_it_has(seed, merged):
    """By hand: scikit-learn gives no area where a class is missing. Whole logits, a pair of which
    is equal or far apart, so that no two scores share a bin by chance."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 3], 9)  # of four classes
    logits = rng.integers(-3, 4, (9, 4)).astype(np.float32)
    predicted = logits.argmax(1)
    odds = np.stack(
        [
            z - np.log(np.exp(np.delete(logits.astype(float), c, axis=1)).sum(1))
            for c, z in enumerate(logits.astype(float).T)
        ],
        axis=1,
    )
    recalls, f1s, areas = [], [], []
    for c in range(4):
        named, said = labels == c, predicted == c
        if named.any():
            recalls.append((named & said).sum() / named.sum())
        if named.any() or said.any():
            f1s.append(2 * (named & said).sum() / (named.sum() + said.sum()))
        if named.any() and not named.all():
            apart = np.round(odds[named, c][:, None] - odds[~named, c][None], 9)
            areas.append(np.mean((apart > 0) + (apart == 0) / 2))
    assert 2 not in labels
    assert merged(metrics.balanced_accuracy(), logits, labels) == pytest.approx(np.mean(recalls))
    assert merged(metrics.macro_f1(), logits, labels) == pytest.approx(np.mean(f1s))
    area = merged(metrics.auc(bins=2**16), logits, labels)
    assert area == pytest.approx(np.mean(areas), abs=1e-6)


def test_one_class_alone_has_no_area(merged):
    logits = np.ones((20, 3), np.float32)
    assert np.isnan(merged(metrics.auc(), logits, np.zeros(20, int)))


@pytest.mark.parametrize("outputs", [(60,), (60, 1), (60, 3)], ids=str)
def test_errors_are_those_of_scikit_learn(outputs, merged):
    rng = np.random.default_rng(1)
    found = rng.normal(size=outputs).astype(np.float32)
    wanted = rng.normal(size=(60, 3) if outputs == (60, 3) else 60).astype(np.float32)
    flat = found.reshape(wanted.shape).ravel(), wanted.ravel()
    assert merged(metrics.mae(), found, wanted) == pytest.approx(
        reference.mean_absolute_error(*flat), rel=1e-5
    )
    assert merged(metrics.rmse(), found, wanted) == pytest.approx(
        reference.root_mean_squared_error(*flat), rel=1e-5
    )


BROKEN = {
    "NaN": [np.nan, np.nan, np.nan],
    "one NaN": [np.nan, 1.0, 0.0],
    "infinite": [np.inf, 0.0, 0.0],
    "all minus infinite": [-np.inf, -np.inf, -np.inf],
}


@pytest.mark.parametrize("logits", BROKEN.values(), ids=BROKEN)
def test_outputs_that_are_not_finite_are_never_correct(logits):
    outputs = jnp.array([logits] * 6, jnp.float32)
    batch = {"y": jnp.array([0, 1, 2] * 2), "mask": jnp.ones(6, bool)}
    value = {
        name: np.asarray(metric.compute(metric.from_outputs(outputs, batch)))
        for name, metric in {
            "accuracy": metrics.accuracy(),
            "top": metrics.top_k_accuracy(k=3),
            "balanced": metrics.balanced_accuracy(),
            "f1": metrics.macro_f1(),
            "confusion": metrics.confusion(),
        }.items()
    }
    assert {name: float(np.sum(found)) for name, found in value.items()} == dict.fromkeys(value, 0)


def test_the_area_of_scores_that_are_nan_is_nan():
    outputs = jnp.array([0.1, jnp.nan, 0.3, 0.4])
    batch = {"y": jnp.array([0, 1, 0, 1]), "mask": jnp.ones(4, bool)}
    metric = metrics.auc()
    assert np.isnan(metric.compute(metric.from_outputs(outputs, batch)))


def test_a_class_that_is_ruled_out_by_minus_infinity_may_be_right_about_the_rest():
    outputs = jnp.array([[2.0, -jnp.inf, 1.0], [0.0, -jnp.inf, 1.0]])
    batch = {"y": jnp.array([0, 1]), "mask": jnp.ones(2, bool)}
    for metric in (metrics.accuracy(), metrics.top_k_accuracy(k=3)):
        assert float(metric.compute(metric.from_outputs(outputs, batch))) == 0.5


def test_several_labels_an_example_count_each_or_as_a_share(merged):
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(8, 4, 3)).astype(np.float32)
    labels = rng.integers(0, 3, (8, 4))
    flat = labels.ravel(), logits.reshape(-1, 3).argmax(-1)
    accuracy = merged(metrics.accuracy(), logits, labels)
    assert accuracy == pytest.approx(reference.accuracy_score(*flat))
    f1 = merged(metrics.macro_f1(), logits, labels)
    assert f1 == pytest.approx(reference.f1_score(*flat, average="macro"))
    cells = merged(metrics.confusion(), logits, labels)
    np.testing.assert_array_equal(cells, reference.confusion_matrix(*flat))
