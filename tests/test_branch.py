"""A branch that lanes take each its own way: what it gives, what it costs, and when it is taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral.branch import cond_any

SHARED = jnp.arange(12.0).reshape(4, 3)


def looked_up(shared, at):
    return {"row": shared[at], "sum": jnp.sum(shared[at])}


OLD = {"row": jnp.full(3, -1.0), "sum": jnp.float32(-2.0)}


def chosen(asked, at):
    return cond_any(asked, looked_up, OLD, SHARED, at)


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_alone_it_is_a_branch(asked, transform, same):
    same(transform(chosen)(asked, jnp.int32(2)), looked_up(SHARED, 2) if asked else OLD)


@pytest.mark.parametrize(
    "asked", [[True, False, True], [False] * 3, [True] * 3], ids=["some", "none", "all"]
)
def test_side_by_side_each_lane_has_what_it_would_have_alone(asked, same):
    asked, at = jnp.array(asked), jnp.array([3, 0, 1])
    alone = [chosen(*one) for one in zip(asked, at, strict=True)]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    same(jax.jit(jax.vmap(chosen))(asked, at), expected)


def test_lanes_within_lanes(same):
    asked = jnp.array([[True, False], [False, False], [True, True]])
    at = jnp.array([[0, 1], [2, 3], [3, 2]])
    flat = jax.vmap(chosen)(asked.ravel(), at.ravel())
    nested = jax.vmap(jax.vmap(chosen))(asked, at)
    same(jax.tree.map(lambda leaf: leaf.reshape(6, *leaf.shape[2:]), nested), flat)


def test_lanes_may_differ_in_what_is_old_or_asked_alone(same):
    old = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 5]), OLD)
    given = jax.vmap(lambda old: cond_any(jnp.array(False), looked_up, old, SHARED, 1))(old)
    same(given, old)
    asked = jax.vmap(lambda asked: chosen(asked, 1))(jnp.array([True, False]))
    same(jax.tree.map(lambda leaf: leaf[1], asked), OLD)
    same(jax.tree.map(lambda leaf: leaf[0], asked), looked_up(SHARED, 1))


def test_what_lanes_share_is_not_copied_and_nothing_runs_unless_a_lane_asks():
    lanes, ran = 5, []

    def counted(shared, at):
        jax.debug.callback(lambda: ran.append(None))
        return looked_up(shared, at)

    def each(asked, at):
        return cond_any(asked, counted, OLD, SHARED, at)

    side_by_side = jax.jit(jax.vmap(each))
    at = jnp.arange(lanes) % 4
    assert "tensor<4x3xf32>" in side_by_side.lower(at > 0, at).as_text()
    assert "x4x3xf32>" not in side_by_side.lower(at > 0, at).as_text()
    jax.block_until_ready(side_by_side(at > 9, at))
    jax.effects_barrier()
    assert not ran
    given = jax.block_until_ready(side_by_side(at > 2, at))
    jax.effects_barrier()
    assert ran
    np.testing.assert_array_equal(given["sum"] == -2.0, at <= 2)
