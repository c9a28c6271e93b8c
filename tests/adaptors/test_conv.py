import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from floral.adaptors import Rule, conv, make_plan
from floral.adaptors._conv import LAYOUTS
from floral.errors import SpecError
from floral.models.frameworks.linen import from_linen
from floral.tree import num_parameters

KEY = jax.random.key(0)


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(
    ("layout", "rank"), [("separable", 30), ("in", 35), ("balanced", 35), ("out", 12)]
)
def test_rank_by_budget_is_the_papers(layout, rank):
    assert conv(layout=layout, budget=0.1).rank(struct(3, 3, 128, 512)) == rank


@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (5, 2, 4, 6), (2, 5, 4, 6), (5, 2, 6, 4)])
def test_parameters_per_unit_of_rank_are_those_of_the_table(shape):
    k1, k2, c_in, c_out = shape
    c_min, c_max = sorted((c_in, c_out))
    k_min, k_max = sorted((k1, k2))
    expected = {
        "in": k1 * k2 * c_in + c_out,
        "out": c_in + k1 * k2 * c_out,
        "reshaped": c_in + k1 * k2 * c_out,
        "balanced": k1 * k2 * c_min + c_max,
        "separable": c_min * k_max + c_max * k_min,
        "filter_wise": (c_in * k1 + c_out * k2) * c_out,
    }
    given = {
        layout: num_parameters(
            jax.eval_shape(conv(layout=layout, rank=1).init, KEY, struct(*shape))[0]
        )
        for layout in LAYOUTS
    }
    assert given == expected


def test_a_square_separable_kernel_gives_a_the_first_axis():
    trained, _ = jax.eval_shape(conv(rank=4).init, KEY, struct(3, 3, 16, 32))
    assert jax.tree.map(jnp.shape, trained) == {"a": (3, 1, 16, 4), "b": (1, 3, 4, 32)}


def test_delta_is_the_sum_over_the_middle_channels():
    shape = (3, 2, 4, 5)
    for layout in LAYOUTS:
        adaptor = conv(layout=layout, rank=1, alpha=0.5)
        trained, fixed = jax.eval_shape(adaptor.init, KEY, struct(*shape))
        trained = jax.tree.map(lambda x: normal(*x.shape), trained)
        a, b = (np.asarray(trained[name], np.float64) for name in "ab")
        expected = np.zeros(shape)
        for i, j in itertools.product(range(3), range(2)):
            left = a[i % a.shape[0], j % a.shape[1]]
            expected[i, j] = 0.5 * left @ b[i % b.shape[0], j % b.shape[1]]
        np.testing.assert_allclose(adaptor.delta(trained, fixed), expected, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rank_masks_the_directions_beyond_it(layout):
    adaptor = conv(layout=layout, rank=3 if layout != "filter_wise" else 1)
    wide = conv(layout=layout, rank=2 if layout != "filter_wise" else 1)
    leaf = struct(3, 3, 4, 4)
    trained = jax.tree.map(lambda x: normal(*x.shape), jax.eval_shape(adaptor.init, KEY, leaf)[0])
    size = jax.eval_shape(wide.init, KEY, leaf)[0]["a"].shape[-1]
    cut = {"a": trained["a"][..., :size], "b": trained["b"][..., :size, :]}
    masked = jax.jit(lambda rank: adaptor.delta(trained, (), rank))(wide.rank(leaf))
    np.testing.assert_allclose(masked, wide.delta(cut, ()), atol=1e-5)
    assert not np.any(adaptor.delta(trained, (), 0))


class SixConvolutions(nn.Module):
    """The same convolution once for every layout of adaptor, so that one program tests them all."""

    settings: dict

    @nn.compact
    def __call__(self, x):
        kinds = [
            layout
            for layout in LAYOUTS
            if len(self.settings["kernel_size"]) == 2 or layout in ONE_D
        ]
        return sum(nn.Conv(name=layout, **self.settings)(x) for layout in kinds)


ONE_D = ("separable", "in", "out", "balanced", "reshaped")


def six_adaptors(model, batch):
    params, _ = jax.eval_shape(model.init, KEY, batch)
    rules = [
        Rule(f".*/{layout}/kernel", conv(layout=layout, rank=1 if layout == "filter_wise" else 2))
        for layout in params["params"]
    ]
    return make_plan(rules, params)


@pytest.mark.parametrize(
    ("kernel", "settings"),
    [
        ((3, 3), {}),
        ((3, 2), {"strides": 2}),
        ((2, 3), {"strides": (1, 2), "padding": "VALID"}),
        ((3, 2), {"padding": "VALID", "kernel_dilation": 2}),
        ((1, 3), {"strides": (2, 3), "kernel_dilation": (1, 2)}),
        ((3, 1), {"strides": 2, "padding": 1}),
        ((1, 1), {"strides": 2, "padding": ((1, 0), (0, 2))}),
        ((3, 4), {"strides": (3, 2), "padding": ((0, 2), (1, 1)), "kernel_dilation": (2, 1)}),
        ((3, 2), {"strides": 2, "padding": "CIRCULAR", "kernel_dilation": (1, 2)}),
        ((2, 3), {"padding": "REFLECT", "strides": (1, 2)}),
        ((3, 2), {"padding": (1, 2), "strides": None, "kernel_dilation": None}),
        ((3,), {"padding": "CAUSAL", "kernel_dilation": 2}),
        ((4,), {"strides": 3}),
        ((2,), {"strides": 2, "padding": "CIRCULAR"}),
    ],
)
def test_merged_is_factored(merged_is_factored, kernel, settings):
    x = normal(*(2, 7, 6)[: len(kernel) + 1], 3)
    model = from_linen(SixConvolutions({"features": 5, "kernel_size": kernel, **settings}))
    methods = merged_is_factored(model, six_adaptors(model, {"x": x}), {"x": x}, gradients=False)
    assert set(methods.values()) == {"fast"}


def test_gradients_of_merged_and_factored_are_equal(merged_is_factored):
    settings = {"features": 2, "kernel_size": (3, 2), "strides": 2, "kernel_dilation": (1, 2)}
    x = normal(2, 6, 5, 3)
    model = from_linen(SixConvolutions(settings))
    methods = merged_is_factored(model, six_adaptors(model, {"x": x}), {"x": x})
    assert set(methods.values()) == {"fast"}


@pytest.mark.parametrize("batch_shape", [(), (2, 2)])
def test_any_number_of_batch_axes_will_do(merged_is_factored, batch_shape):
    x = normal(*batch_shape, 5, 4, 3)
    model = from_linen(nn.Conv(4, (3, 3)))
    params, _ = jax.eval_shape(model.init, KEY, {"x": x})
    plan = make_plan([Rule(".*/kernel", conv(rank=2))], params)
    assert merged_is_factored(model, plan, {"x": x}) == {"params/kernel": "fast"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"feature_group_count": 2}, "grouped convolution"),
        ({"input_dilation": 2, "padding": 1}, "input dilation"),
        ({"mask": np.tril(np.ones((3, 3, 4, 4)))}, "masked kernel"),
        ({"conv_general_dilated": jax.lax.conv_general_dilated}, "custom conv_general_dilated"),
    ],
)
def test_unusual_convolutions_are_merged(merged_is_factored, settings, reason):
    x = normal(1, 5, 4, 4)
    model = from_linen(nn.Conv(4, (3, 3), **settings))
    params, _ = jax.eval_shape(model.init, KEY, {"x": x})
    plan = make_plan([Rule(".*/kernel", conv(rank=2))], params)
    methods = merged_is_factored(model, plan, {"x": x}, gradients=False)
    assert methods == {"params/kernel": f"merged: {reason}"}


@pytest.mark.parametrize(
    ("settings", "shape", "message"),
    [
        ({"rank": 1}, (8, 4), r"needs a kernel \[\*spatial, c_in, c_out\], got shape \(8, 4\)"),
        ({"rank": 1, "layout": "filter_wise"}, (3, 4, 4), "splits two spatial axes, got 1"),
        ({"rank": 1}, (3, 3, 3, 4, 4), "splits two spatial axes, got 3 .*layout='balanced'"),
        ({"rank": 13}, (3, 3, 4, 8), r"rank 13 is above 12"),
    ],
)
def test_leaves_that_do_not_fit_are_named(settings, shape, message):
    with pytest.raises(SpecError, match=f"does not fit 'conv/kernel': .*{message}"):
        make_plan([Rule(".*", conv(**settings))], {"conv": {"kernel": struct(*shape)}})


def test_an_unknown_kind_is_refused():
    with pytest.raises(SpecError, match="did you mean 'separable'"):
        conv(layout="separated", rank=1)


@pytest.mark.parametrize("layout", ["separable", "in", "out"])
def test_a_budget_of_channels_is_the_authors_rule_whatever_the_layout(layout):
    kernel = jax.ShapeDtypeStruct((3, 3, 128, 512), jnp.float32)
    adaptor = conv(layout=layout, budget=0.1, budget_of="channels")
    assert adaptor.rank(kernel) == int(0.1 * (2 * 128) * (2 * 512) / (2 * 128 + 2 * 512))
