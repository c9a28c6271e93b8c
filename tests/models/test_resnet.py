import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral import models, tree
from floral.errors import SpecError
from floral.models._resnet import BasicBlock

KEY = jax.random.key(0)


def structs(model, *shape):
    batch = {"x": jax.ShapeDtypeStruct(shape, jnp.float32)}
    return jax.eval_shape(model.init, KEY, batch)[0]


def counted(stages, width, channels, outputs, stem_kernel):
    """The parameters by hand: convolutions without bias, two numbers a channel for every norm."""

    def normed(kernel, c_in, c_out):
        return kernel**2 * c_in * c_out + 2 * c_out

    total, c_in = normed(stem_kernel, channels, width), width
    for stage, blocks in enumerate(stages):
        c_out = width * 2**stage
        for _ in range(blocks):
            total += normed(3, c_in, c_out) + normed(3, c_out, c_out)
            total += normed(1, c_in, c_out) if c_in != c_out else 0
            c_in = c_out
    return total + (c_in + 1) * outputs


@pytest.mark.parametrize(
    ("outputs", "settings", "shape", "published"),
    [
        (10, {}, (1, 32, 32, 3), 11_173_962),
        (100, {}, (1, 24, 24, 3), 11_220_132),
        # torchvision's resnet18 and resnet34, whose batch norms train as many numbers.
        (1000, {"stem": "imagenet"}, (1, 224, 224, 3), 11_689_512),
        (1000, {"stem": "imagenet", "stages": (3, 4, 6, 3)}, (1, 224, 224, 3), 21_797_672),
        (3, {"stages": (1, 2), "width": 4}, (1, 28, 28, 1), None),
    ],
)
def test_the_parameters_are_as_many_as_published_and_as_counted(
    outputs, settings, shape, published
):
    stem_kernel = 7 if settings.get("stem") == "imagenet" else 3
    stages, width = settings.get("stages", (2, 2, 2, 2)), settings.get("width", 64)
    expected = counted(stages, width, shape[-1], outputs, stem_kernel)
    assert published in (None, expected)
    params = structs(models.resnet(outputs, **settings), *shape)
    assert tree.num_parameters(params) == expected


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_stages_after_the_first_halve_the_sides_and_round_up(stem):
    model = models.resnet(2, stages=(1, 1, 1), width=2, stem=stem)
    batch = {"x": jnp.zeros((1, 30, 33, 3))}
    text = str(jax.make_jaxpr(lambda: model.apply(*model.init(KEY, batch), batch)[0])())
    sides = {"cifar": [(30, 33), (15, 17), (8, 9)], "imagenet": [(8, 9), (4, 5), (2, 3)]}[stem]
    for stage, (height, width) in enumerate(sides):
        assert f"f32[1,{height},{width},{2 * 2**stage}]" in text


def test_a_block_without_its_convolutions_is_its_shortcut(jit):
    block, x = BasicBlock(4, 1, 2), np.random.default_rng(0).random((2, 5, 5, 4), np.float32)
    params = jit(block.init)(KEY, x)["params"]
    assert "shortcut" not in params
    params["second"]["GroupNorm_0"]["scale"] = jnp.zeros(4)
    np.testing.assert_array_equal(jit(block.apply)({"params": params}, x), x)  # x is not negative


def test_a_norm_takes_the_channels_of_a_group_together(init, jit):
    """Scaling one group's weights in the stem changes nothing; scaling part of a group does."""
    model = models.resnet(2, stages=(1,), width=4, groups=2)
    batch = {"x": np.random.default_rng(0).standard_normal((2, 6, 6, 1)).astype(np.float32)}
    params, stats = init(model, batch)

    @jit
    def outputs(scale):
        kernel = params["params"]["stem"]["Conv_0"]["kernel"] * scale
        stem = {**params["params"]["stem"], "Conv_0": {"kernel": kernel}}
        return model.apply({"params": {**params["params"], "stem": stem}}, stats, batch)[0]

    plain, whole, part = (
        outputs(np.array(scale, np.float32).reshape(1, 1, 1, 4))
        for scale in ([1, 1, 1, 1], [3, 3, 1, 1], [3, 1, 1, 1])
    )
    np.testing.assert_allclose(whole, plain, atol=1e-3)  # up to the norm's epsilon
    assert np.max(np.abs(part - plain)) > 1e-2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": 5}, "groups=5 does not divide width=64; the nearest that does: groups=4"),
        ({"stages": ()}, "stages must hold the blocks of at least one stage"),
        ({"stages": (2, 0)}, "stages.1 must be a whole number of at least 1, got 0"),
        ({"stem": "cifar10"}, "stem must be one of cifar, imagenet; .* did you mean 'cifar'"),
        ({"width": 0}, "width must be a whole number"),
    ],
)
def test_a_setting_that_does_not_fit_is_named_with_one_that_does(settings, message):
    with pytest.raises(SpecError, match=message):
        models.resnet(10, **settings)


@pytest.mark.parametrize("shape", [(2, 10), (2, 3, 8, 8, 3), (2, 0, 8, 3)])
def test_inputs_that_are_no_images_are_refused_when_initialised(shape):
    with pytest.raises(SpecError, match=r"resnet: expected images .* got inputs of shape \(2, "):
        structs(models.resnet(10), *shape)
