"""Batch norm in the models that offer it, and VGG's sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral import models
from floral.errors import SpecError
from floral.tree import num_parameters, paths

X = np.random.default_rng(0).standard_normal((6, 8, 8, 2)).astype(np.float32)
MASK = np.array([True, True, False, True, False, True])
MODELS = {
    "mlp": models.mlp(3, hidden=[5, 4], norm="batch"),
    "vgg": models.vgg(3, channels=[4, 5], hidden=[6], dropout=0.0, norm="batch"),
}


def parameters(model):
    batch = {"x": jax.ShapeDtypeStruct((2, 32, 32, 3), np.float32), "mask": np.ones(2, bool)}
    return map(num_parameters, jax.eval_shape(model.init, jax.random.key(0), batch))


def test_vgg_8_has_the_papers_parameters():
    assert [*parameters(models.vgg(100))] == [1_264_388, 0]
    channels = 16 + 32 + 64 + 128 + 512  # a scale and an offset each; a mean and a variance
    assert [*parameters(models.vgg(100, norm="batch"))] == [1_264_388 + 2 * channels, 2 * channels]


def test_an_mlp_has_a_norm_behind_each_hidden_layer(init):
    params, stats = init(MODELS["mlp"], {"x": X, "mask": MASK})
    assert {path: leaf.shape for path, leaf in paths(params).items() if "Norm" in path} == {
        "params/BatchNorm_0/bias": (5,),
        "params/BatchNorm_0/scale": (5,),
        "params/BatchNorm_1/bias": (4,),
        "params/BatchNorm_1/scale": (4,),
    }
    assert len(jax.tree.leaves(stats)) == 4


@pytest.mark.parametrize("name", MODELS)
def test_padding_enters_no_moment(name, init, jit, near):
    model = MODELS[name]
    params, stats = init(model, {"x": X, "mask": MASK})
    train = jit(lambda x, mask: model.apply(params, stats, {"x": x, "mask": mask}, train=True))
    outputs, new = train(X, MASK)
    poisoned = np.where(MASK[:, None, None, None], X, 1e3).astype(np.float32)
    others, also = train(poisoned, MASK)
    near(also, new)
    near(others[MASK], outputs[MASK])
    alone, too = train(X[MASK], MASK[MASK])
    near(too, new)
    near(alone, outputs[MASK])


@pytest.mark.parametrize("name", MODELS)
def test_training_sees_the_batch_and_evaluation_the_running_moments(name, init, jit, near):
    model = MODELS[name]
    batch = {"x": X, "mask": np.ones(6, bool)}
    params, stats = init(model, batch)
    apply = {
        train: jit(lambda stats, train=train: model.apply(params, stats, batch, train=train))
        for train in (True, False)
    }
    outputs, new = apply[True](stats)
    kept, unchanged = apply[False](stats)
    near(unchanged, stats)
    assert np.any(np.abs(kept - outputs) > 1e-3)
    for _ in range(200):  # running moments keep nine tenths of themselves
        _, new = apply[True](new)
    near(apply[False](new)[0], outputs, tolerance=1e-3)


def test_dropout_draws_by_key_and_in_training_alone(init, jit):
    model = models.vgg(3, channels=[4], hidden=[64], dropout=0.5)
    params, stats = init(model, {"x": X})

    @jit
    def apply(key):
        return [model.apply(params, stats, {"x": X}, key=key, train=t)[0] for t in (True, False)]

    (one, kept), (other, also) = (apply(jax.random.key(seed)) for seed in (0, 1))
    assert np.any(one != other)
    np.testing.assert_array_equal(kept, also)
    without_key = jit(lambda: model.apply(params, stats, {"x": X}, train=True)[0])()
    np.testing.assert_allclose(without_key, kept, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.vgg(3, dropout=1.0), "dropout must be below 1, got 1.0; 0.5 is usual"),
        (lambda: models.vgg(3, norm="group"), "norm must be one of none, batch; got 'group'"),
        (lambda: models.mlp(3, norm="layer"), "norm must be one of none, batch; got 'layer'"),
        (lambda: models.vgg(3, channels=[4, 0]), r"channels\.1 must be a whole number of at least"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def test_images_too_small_for_the_poolings_are_refused():
    model = models.vgg(3, channels=[4, 4, 4])
    with pytest.raises(SpecError, match=r"vgg: images of 7×9 pixels .* must be 8×8 at least"):
        jax.eval_shape(model.init, jax.random.key(0), {"x": jnp.zeros((1, 7, 9, 1))})
