"""Operations are those of the program."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from floral.operations import work_of


def convolve(x, w, groups=1):
    return lax.conv_general_dilated(
        x,
        w,
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: convolve(x, w),
        lambda x, w: jnp.einsum("bhwc,klcd->bhwkld", x, w),
        lambda x, w: convolve(x, jnp.concatenate([w, w], axis=3)[:, :, :2], 2),
    ],
    ids=["convolution", "einsum", "grouped"],
)
def test_operations_are_the_compilers(function):
    x, w = jnp.ones((2, 6, 6, 4)), jnp.ones((3, 3, 4, 5))
    counted = work_of(function, x, w).operations
    compiled = jax.jit(function).lower(x, w).cost_analysis()["flops"]
    assert counted == pytest.approx(compiled)
    assert counted > 0


def test_gradients_of_a_convolution_cost_what_it_costs():
    x, w = jnp.ones((2, 6, 6, 4)), jnp.ones((3, 3, 4, 5))
    forward = work_of(convolve, x, w).operations
    gradient = jax.grad(lambda w, x: jnp.sum(convolve(x, w) ** 2))
    assert work_of(gradient, w, x).operations == 2 * forward
    assert work_of(gradient, w, x).of_convolutions == 2 * forward
    assert work_of(lambda x, w: x @ w, x, w[0, 0]).of_convolutions == 0


def test_loops_count_as_often_as_they_run():
    x = jnp.ones((8, 8))
    once = work_of(lambda x: x @ x, x)

    def known(x):
        return lax.fori_loop(0, 7, lambda _, y: y @ x, x)

    def unknown(x, count):
        return lax.fori_loop(0, count, lambda _, y: y @ x, x)

    assert work_of(known, x).operations == 7 * once.operations
    assert work_of(unknown, x, jnp.int32(3), trips=3).operations == 3 * once.operations
    branches = work_of(lambda x: lax.cond(x[0, 0] > 0, lambda y: y @ y, lambda y: y, x), x)
    assert branches == once
