"""What mixtures make of averaging."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floral import mixtures

SIZES = np.array([4.0, 1.0, 7.0, 4.0, 7.0, 3.0])


def simplex(seed, clients=6, count=3):
    return np.random.default_rng(seed).dirichlet(np.full(count, 0.5), clients)


@given(st.integers(0, 1000))
def test_shares_of_an_adaptor_sum_to_one(seed):
    shares = mixtures.aggregation_weights(simplex(seed), SIZES)
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-12)


@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_the_unit_of_sizes_means_nothing(seed, unit):
    np.testing.assert_allclose(
        mixtures.effective_clients(simplex(seed), SIZES),
        mixtures.effective_clients(simplex(seed), unit * SIZES),
    )


@given(st.integers(0, 1000))
def test_effective_clients_lie_between_one_and_all(seed):
    found = mixtures.effective_clients(simplex(seed), SIZES)
    assert np.all((found >= 1 - 1e-9) & (found <= 6 + 1e-9))


def test_clients_of_one_size_in_hard_groups_count_each():
    weights = np.eye(3)[[0, 0, 0, 1, 1, 0]]
    np.testing.assert_allclose(mixtures.effective_clients(weights, np.full(6, 9.0)), [4, 2, 0])


def test_a_client_with_nearly_all_examples_counts_alone():
    sizes = np.array([1e6, 1.0, 1.0])
    (found,) = mixtures.effective_clients(np.ones((3, 1)), sizes)
    assert found == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_uniform_mixtures_over_equal_clusters_are_wrong_by_the_closed_form(count):
    clusters = np.arange(4 * count) % count
    uniform = np.full((4 * count, count), 1 / count)
    found = mixtures.aggregation_mismatch(uniform, np.ones(4 * count), clusters)
    assert found == pytest.approx(2 * (1 - 1 / count))


def test_true_mixtures_mismatch_nothing_however_numbered():
    clusters = np.array([0, 1, 2, 0, 1, 2])
    weights = np.eye(3)[np.array([2, 0, 1])[clusters]]
    assert mixtures.aggregation_mismatch(weights, SIZES, clusters) == 0


def test_wrong_mixtures_mismatch_all_of_it():
    """Adaptors that average nothing of the cluster that they are said to stand for."""
    clusters = np.array([0, 0, 0, 1, 1, 1])
    swapped = mixtures.aggregation_mismatch(
        np.eye(2)[1 - clusters], SIZES, clusters, cluster_of=np.array([0, 1])
    )
    assert swapped == pytest.approx(2)


@given(st.integers(0, 1000), st.floats(0.0, 1.0))
def test_mismatch_shrinks_in_proportion_on_the_way_to_the_truth_for_equal_groups(seed, way):
    """Mixtures between uniform and true ones: equal clusters keep adaptors equally used."""
    clusters = np.random.default_rng(seed).permutation(np.arange(6) % 3)
    weights = (1 - way) / 3 + way * np.eye(3)[clusters]
    found = mixtures.aggregation_mismatch(weights, np.ones(6), clusters, cluster_of=np.arange(3))
    assert found == pytest.approx((1 - way) * 4 / 3)


def test_adaptors_that_no_one_uses_and_those_without_a_cluster_do_not_count():
    clusters = np.array([0, 0, 0, 1, 1, 1])
    resting = np.pad(np.eye(2)[clusters], ((0, 0), (0, 1)))
    assert mixtures.aggregation_mismatch(resting, SIZES, clusters) == 0
    nobody = mixtures.aggregation_mismatch(
        resting, SIZES, clusters, cluster_of=np.array([-1, -1, 0])
    )
    assert np.isnan(nobody)
