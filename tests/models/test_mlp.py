import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral import models
from floral.errors import SpecError


def layers(**settings):
    """By name, the first layers of a net of 400 inputs and 500 hidden units."""
    model = models.mlp(10, hidden=(500,), **settings)
    params, _ = model.init(jax.random.key(0), {"x": jnp.zeros((1, 20, 20))})
    return params["params"]


@pytest.mark.parametrize(("layer", "fan_in"), [("Dense_0", 400), ("Dense_1", 500)])
def test_pytorch_draws_kernels_and_biases_uniformly_by_the_inputs_of_a_unit(layer, fan_in):
    leaves, bound = layers(init="pytorch")[layer], fan_in**-0.5
    kernel, bias = np.asarray(leaves["kernel"]), np.asarray(leaves["bias"])
    assert np.abs(kernel).max() <= bound
    assert np.abs(bias).max() <= bound
    # 5,000 uniform numbers: their deviation is known to 1 %, their largest to 1 in 1,000.
    np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.03)
    assert np.abs(kernel).max() > 0.99 * bound
    assert np.abs(bias).max() > 0.5 * bound


def test_flax_draws_kernels_of_three_times_that_variance_and_no_biases():
    leaves = layers()["Dense_0"]
    np.testing.assert_allclose(np.std(leaves["kernel"]), 400**-0.5, rtol=0.01)
    assert not np.any(leaves["bias"])


def test_another_way_to_draw_is_refused():
    with pytest.raises(SpecError, match="init must be one of lecun_normal, pytorch"):
        models.mlp(10, init="torch")
