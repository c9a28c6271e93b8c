import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral import data
from floral.errors import SpecError

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def batch():
    """Forty images of 6 × 6 × 2, no number of which is zero."""
    x = np.random.default_rng(0).random((40, 6, 6, 2)) + 1
    return {
        "x": x.astype(np.float32),
        "y": np.arange(40, dtype=np.int32) % 4,
        "mask": np.arange(40) < 37,
    }


def test_inputs_keep_their_shape_and_all_else_is_untouched(batch, same):
    augmented = data.flip_crop(padding=2)(KEY, batch)
    assert augmented["x"].shape == batch["x"].shape
    assert augmented["x"].dtype == np.float32
    assert np.any(augmented["x"] != batch["x"])
    same({**augmented, "x": 0}, {**batch, "x": 0})


def test_a_key_decides_all(batch, same):
    augment = data.flip_crop(padding=2)
    same(augment(KEY, batch), jax.jit(augment)(KEY, batch))
    assert np.any(augment(KEY, batch)["x"] != augment(jax.random.key(1), batch)["x"])


def test_neither_flipped_nor_cropped_is_the_batch_itself(batch, same):
    same(data.flip_crop(flip=False, padding=0)(KEY, batch), batch)


def test_about_half_of_the_images_are_mirrored_left_to_right(batch):
    x = np.asarray(data.flip_crop(padding=0)(KEY, batch)["x"])
    kept = [np.array_equal(new, old) for new, old in zip(x, batch["x"], strict=True)]
    mirrored = [np.array_equal(new, old[:, ::-1]) for new, old in zip(x, batch["x"], strict=True)]
    assert [one or other for one, other in zip(kept, mirrored, strict=True)] == [True] * 40
    assert 10 < sum(mirrored) < 30


@pytest.mark.parametrize("channels", [True, False])
def test_a_crop_is_a_window_of_the_padded_image(batch, channels):
    given = batch["x"] if channels else batch["x"][..., 0]
    x = np.asarray(data.flip_crop(flip=False, padding=2)(KEY, {"x": given})["x"])
    places = set()
    for new, old in zip(x, given, strict=True):
        padded = np.pad(old, [(2, 2), (2, 2), (0, 0)][: old.ndim])
        windows = {(i, j): padded[i : i + 6, j : j + 6] for i in range(5) for j in range(5)}
        (place,) = [place for place, window in windows.items() if np.array_equal(window, new)]
        places.add(place)
    assert {i for i, _ in places} == {j for _, j in places} == set(range(5))


def test_a_turned_image_is_mirrored_about_its_own_upright_axis(batch):
    """So that turning and mirroring may come in either order."""
    flip = data.flip_crop(padding=0)
    upright = flip(KEY, batch)["x"]
    for turns in range(4):
        turned = {"x": np.rot90(batch["x"], turns, axes=(1, 2)), "turns": jnp.full(40, turns)}
        expected = np.rot90(upright, turns, axes=(1, 2))
        np.testing.assert_array_equal(flip(KEY, turned)["x"], expected)


def test_what_is_no_image_is_refused():
    with pytest.raises(SpecError, match=r"flip_crop: expected images .* of shape \(4, 7\)"):
        data.flip_crop()(KEY, {"x": jnp.zeros((4, 7))})
    with pytest.raises(SpecError, match="padding must not be negative, got -1"):
        data.flip_crop(padding=-1)


def test_rows_and_columns_are_cropped_independently_of_each_other():
    image = np.arange(1.0, 10.0, dtype=np.float32).reshape(1, 3, 3, 1)
    batch = {"x": jnp.tile(image, (400, 1, 1, 1)), "y": jnp.zeros(400, jnp.int32)}
    crops = data.flip_crop(flip=False, padding=1)(jax.random.key(0), batch)["x"]
    assert len(np.unique(np.asarray(crops).reshape(400, -1), axis=0)) == 9
