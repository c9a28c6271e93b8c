"""Cells: what they add up, and the groups that are found among them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral.mixtures.clustering.cells import Cells, add_to, anchors_of, empty_cells, grouped

KEY = jax.random.key(0)


def filled(places, weights, anchors):
    """The cells with all clients, one after another."""
    cells = empty_cells(len(anchors), places.shape[1])
    return jax.lax.fori_loop(
        0,
        len(places),
        lambda k, cells: add_to(cells, anchors, places[k], weights[k]),
        cells,
    )


def sought(cells, count, *, of=None, scale=None):
    """The centroids of so many groups, of a bank of more."""
    used = jnp.arange(count if of is None else of) < count
    scale = jnp.array([2.0, 2.0]) if scale is None else scale
    return grouped(KEY, cells, used, scale=scale, chance=jnp.float32(0.05), starts=32)


@pytest.fixture
def crowd():
    """Places [80, 2] of groups of 70, 5 and 5 around three centers, weights and groups."""
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], [70, 5, 5])
    centers = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 8.0]])
    places = centers[group] + 0.5 * rng.standard_normal((80, 2))
    return jnp.asarray(places), jnp.asarray(rng.integers(1, 9, 80), jnp.float32), group


def test_a_client_adds_to_the_nearest_anchors_cell_alone():
    anchors = jnp.array([[0.0, 0.0], [3.0, 0.0]])
    cells = add_to(empty_cells(2, 2), anchors, jnp.array([2.0, 1.0]), jnp.float32(4.0))
    np.testing.assert_array_equal(cells.sums, [[0, 0], [8, 4]])
    np.testing.assert_array_equal(cells.squares, [0, 20])
    np.testing.assert_array_equal(cells.weights, [0, 4])


def test_cells_lose_no_weight_and_no_place(crowd):
    places, weights, _ = crowd
    cells = filled(places, weights, anchors_of(KEY, jnp.std(places, axis=0), 512))
    assert float(cells.weights.sum()) == pytest.approx(float(weights.sum()))
    expected = np.sum(weights[:, None] * places, axis=0)
    np.testing.assert_allclose(cells.sums.sum(axis=0), expected, rtol=1e-5)
    assert np.sum(np.asarray(cells.weights) > 0) > 10


def test_centroids_are_the_weighted_means_of_groups_of_unlike_sizes(crowd):
    places, weights, group = crowd
    cells = filled(places, weights, anchors_of(KEY, jnp.std(places, axis=0), 512))
    found = np.asarray(sought(cells, 3))
    means = [np.average(places[group == g], axis=0, weights=weights[group == g]) for g in range(3)]
    nearest = [found[np.argmin(np.square(found - mean).sum(-1))] for mean in means]
    np.testing.assert_allclose(nearest, means, atol=1e-4)


def test_only_those_that_are_asked_for_are_sought(crowd):
    places, weights, _ = crowd
    cells = filled(places, weights, anchors_of(KEY, jnp.std(places, axis=0), 512))
    found, alone = np.asarray(sought(cells, 3, of=5))[:3], np.asarray(sought(cells, 3))

    def in_order(centroids):
        return centroids[np.lexsort(centroids.T)]

    np.testing.assert_allclose(in_order(found), in_order(alone), atol=1e-4)


def test_fewer_cells_than_groups_leave_numbers():
    one = Cells(jnp.array([[2.0, 4.0], [0.0, 0.0]]), jnp.array([10.0, 0.0]), jnp.array([2.0, 0.0]))
    found = sought(one, 3)
    assert np.isfinite(found).all()
    assert np.square(np.asarray(found) - [1.0, 2.0]).sum(-1).min() < 1e-10
    assert np.isfinite(sought(empty_cells(4, 2), 3)).all()


def test_no_centroid_is_spent_on_a_client_that_is_like_no_other(crowd):
    places, weights, group = crowd
    places = jnp.concatenate([places, jnp.array([[-12.0, -9.0]])])
    weights = jnp.append(weights, 5.0)
    cells = filled(places, weights, anchors_of(KEY, jnp.std(places, axis=0), 2048))
    found = np.asarray(sought(cells, 3, scale=jnp.std(places, axis=0)))
    means = [np.asarray(places)[:-1][group == g].mean(axis=0) for g in range(3)]
    away = [np.sqrt(np.square(found - mean).sum(-1)).min() for mean in means]
    assert max(away) < 0.5
