import jax
import jax.numpy as jnp
import pytest

from floral import models
from floral.errors import SpecError


def traced(model, height, width):
    batch = {"x": jax.ShapeDtypeStruct((2, height, width, 1), jnp.float32)}
    params, stats = jax.eval_shape(model.init, jax.random.key(0), batch)
    return jax.eval_shape(model.apply, params, stats, batch)[0].shape


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({}, 14),
        ({"padding": "SAME"}, 6),
        ({"channels": [2], "kernels": [3], "pools": [2]}, 4),
        ({"channels": [2, 2, 2], "kernels": [1, 2, 3], "pools": [1, 2, 3]}, 11),
        ({"channels": [], "kernels": [], "pools": []}, 1),
    ],
    ids=["default", "same", "one", "three", "none"],
)
def test_images_are_refused_only_where_no_pixel_is_left(settings, least):
    """Just as large as the message asks for, they are taken."""
    model = models.cnn(3, **settings)
    assert traced(model, least, least) == traced(model, least, least + 5) == (2, 3)
    if least == 1:
        return
    message = rf"cnn: images of {least - 1}×{least} pixels .* must be {least}×{least} at least"
    with pytest.raises(SpecError, match=message):
        traced(model, least - 1, least)


def test_a_hidden_layer_needs_a_width():
    with pytest.raises(SpecError, match=r"hidden\.1 must be a whole number of at least 1, got 0"):
        models.cnn(3, hidden=[4, 0])
