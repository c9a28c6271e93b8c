import numpy as np
import pytest

from floral import data
from floral.errors import DataError, SpecError


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def images():
    """Six clients of two training images and one test image, 5 × 5 × 1, four classes."""
    x = rng().random((18, 5, 5, 1))
    examples = {"x": x, "y": np.arange(18) % 4}
    rows = np.arange(18).reshape(6, 3)
    splits = {"train": rows[:, :2].tolist(), "test": rows[:, 2:].tolist()}
    return data.federated(examples, splits, num_classes=4)


SHIFTS = {
    "rotate": data.rotate(clusters=3),
    "permute": data.permute(clusters=3),
    "label_shift": data.label_shift(clusters=3),
    "noise": data.noise(std=0.5, clusters=3),
}


@pytest.mark.parametrize("name", SHIFTS)
def test_client_k_is_of_cluster_k_mod_c(images, name):
    shifted = SHIFTS[name](images, rng())
    assert shifted.traits["cluster"].tolist() == [0, 1, 2, 0, 1, 2]
    assert shifted.fingerprint == SHIFTS[name](images, rng()).fingerprint
    assert shifted.fingerprint != images.fingerprint


@pytest.mark.parametrize("factory", [data.rotate, data.permute, data.label_shift])
def test_clusters_may_be_of_unlike_sizes(images, factory):
    uneven = factory(clusters=2, sizes=[3, 1])(images, rng())
    assert uneven.traits["cluster"].tolist() == [0, 0, 0, 1, 0, 0]
    even, given = (factory(clusters=3, sizes=sizes)(images, rng()) for sizes in (None, [1, 1, 1]))
    assert even.fingerprint == given.fingerprint
    for k in range(6):
        same = all(
            np.array_equal(images.client(k)["train"][field], values)
            for field, values in uneven.client(k)["train"].items()
        )
        assert same == (k != 3)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [([3, 1, 1], "one for each of the 2 clusters, got 3"), ([3, 0], "sizes.1 must be")],
)
def test_sizes_that_make_no_clusters_are_refused(sizes, message):
    with pytest.raises(SpecError, match=message):
        data.rotate(clusters=2, sizes=sizes)


@pytest.mark.parametrize("name", ["rotate", "permute", "label_shift"])
def test_cluster_zero_keeps_the_data_as_stored_and_others_do_not(images, name):
    before = images.fingerprint
    shifted = SHIFTS[name](images, rng())
    for k in range(6):
        for split in ("train", "test"):
            old, new = images.client(k)[split], shifted.client(k)[split]
            same = all(np.array_equal(old[field], new[field]) for field in old)
            assert same == (k % 3 == 0)
    assert images.fingerprint == before


@pytest.mark.parametrize("name", SHIFTS)
def test_every_cluster_is_shifted_in_its_own_way_and_its_clients_alike(name):
    image = rng().random((1, 5, 5, 1))
    alike = data.from_clients([{"train": {"x": image, "y": [1]}}] * 6, num_classes=4)
    shifted = SHIFTS[name](alike, rng())
    shown = [
        np.concatenate([values.ravel() for values in shifted.client(k)["train"].values()])
        for k in range(6)
    ]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not np.allclose(shown[one], shown[other])
    if name != "noise":  # which every client draws for itself
        np.testing.assert_array_equal(shown[1], shown[4])


def test_no_shift_is_no_change(images):
    assert data.none()(images, rng()).fingerprint == images.fingerprint


@pytest.mark.parametrize("name", SHIFTS)
def test_one_cluster_is_no_shift(images, name):
    factory = getattr(data, name)
    shifted = factory(clusters=1, **({"std": 0.0} if name == "noise" else {}))(images, rng())
    for split in images.splits:
        for field, array in images.splits[split].examples.items():
            np.testing.assert_array_equal(shifted.splits[split].examples[field], array)


def test_four_clusters_turn_by_quarters_without_touching_a_value(images):
    shifted = data.rotate(clusters=4)(images, rng())
    for k in range(6):
        old, new = images.client(k)["train"]["x"], shifted.client(k)["train"]["x"]
        np.testing.assert_array_equal(new, np.rot90(old, k % 4, axes=(1, 2)))


def test_interpolated_turns_go_the_same_way_as_exact_ones(images):
    # Eight clusters turn cluster 2 by 90 degrees exactly and cluster 1 by half of that: turning
    # a smooth image by 45 degrees twice must come near turning it by 90, up to the blur of
    # interpolating twice (0.06 here; turning the other way is off by more than 0.3).
    grid = np.linspace(-1, 1, 21)
    smooth = np.exp(-8 * ((grid[:, None] - 0.4) ** 2 + (grid[None] - 0.1) ** 2))
    one = {"train": {"x": smooth[None, :, :, None], "y": [0]}}
    turned = data.rotate(clusters=8)(data.from_clients([one] * 3), rng())
    half, quarter = (turned.client(k)["train"]["x"] for k in (1, 2))
    again = data.rotate(clusters=8)(
        data.from_clients([one, {"train": {"x": half, "y": [0]}}]), rng()
    ).client(1)["train"]["x"]
    assert np.abs(again - quarter).max() < 0.1
    assert np.abs(half - quarter).max() > 0.3


def test_images_that_are_not_square_keep_their_shape():
    one = {"train": {"x": np.ones((1, 4, 6)), "y": [0]}}
    turned = data.rotate(clusters=4)(data.from_clients([one] * 4), rng())
    np.testing.assert_array_equal(turned.client(2)["train"]["x"], np.ones((1, 4, 6)))
    assert turned.client(1)["train"]["x"].shape == (1, 4, 6)


def test_a_permutation_moves_pixels_and_not_channels():
    x = rng().random((1, 3, 3, 2))
    shifted = data.permute(clusters=2)(
        data.from_clients([{"train": {"x": x, "y": [0]}}] * 4), rng()
    )
    one, three = (shifted.client(k)["train"]["x"] for k in (1, 3))
    np.testing.assert_array_equal(one, three)
    pixels = {tuple(pixel) for pixel in one.reshape(9, 2).tolist()}
    assert pixels == {tuple(pixel) for pixel in x.astype(np.float32).reshape(9, 2).tolist()}


def test_labels_shift_round_the_classes(images):
    shifted = data.label_shift(clusters=3)(images, rng())
    for k in range(6):
        old, new = images.client(k)["test"]["y"], shifted.client(k)["test"]["y"]
        np.testing.assert_array_equal(new, (old + k % 3) % 4)
        assert new.dtype == old.dtype


def test_label_shift_of_bytes_does_not_wrap_at_256():
    y = np.full(2, 250, np.uint8)
    one = {"train": {"x": np.zeros((2, 1)), "y": y}}
    shifted = data.label_shift(clusters=9)(data.from_clients([one] * 9, num_classes=251), rng())
    assert shifted.client(8)["train"]["y"].tolist() == [7, 7]


def test_noise_grows_from_client_to_client():
    one = {"train": {"x": np.zeros((4000, 1)), "y": np.zeros(4000)}}
    noisy = data.noise(std=0.4)(data.from_clients([one] * 4), rng())
    measured = [noisy.client(k)["train"]["x"].std() for k in range(4)]
    # The standard deviation of 4000 draws is known to about 1.1 %; five times that is allowed.
    np.testing.assert_allclose(measured, [0.1, 0.2, 0.3, 0.4], rtol=0.06)
    np.testing.assert_allclose(noisy.traits["noise_std"], [0.1, 0.2, 0.3, 0.4])
    assert "cluster" not in noisy.traits


def test_clusters_that_disagree_with_known_ones_are_refused(images):
    known = images._replace(traits={"cluster": np.array([0, 0, 1, 1, 2, 2])})
    with pytest.raises(
        DataError, match="have 3 clusters already, and a shift that deals clients to 3 in turn"
    ):
        data.rotate(clusters=3)(known, rng())
    twice = data.label_shift(clusters=3)(data.rotate(clusters=3)(images, rng()), rng())
    assert twice.traits["cluster"].tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("shift", "message"),
    [
        (data.rotate(), r"rotate needs images \[M, H, W\] or \[M, H, W, C\], got \[1, 1\]"),
        (data.label_shift(), "label_shift needs labels of classes; the source has num_classes=Non"),
        (data.noise(), "noise needs features that are floats, got int32"),
    ],
)
def test_a_shift_that_does_not_fit_the_data_says_so(shift, message):
    one = {"train": {"x": np.ones((1, 1), np.int64), "y": [0]}}
    with pytest.raises(DataError, match=message):
        shift(data.from_clients([one] * 4), rng())


def test_more_shifts_than_classes_are_refused(images):
    with pytest.raises(DataError, match="5 clusters repeat with 4 classes"):
        data.label_shift(clusters=5)(images, rng())


@pytest.mark.parametrize("factory", [data.rotate, data.permute, data.label_shift, data.noise])
def test_settings_without_meaning_are_refused(factory):
    with pytest.raises(SpecError, match="clusters must be a whole number"):
        factory(clusters=0)


@pytest.mark.parametrize(
    ("clusters", "turns"), [(1, [0] * 6), (2, [0, 2] * 3), (4, [0, 1, 2, 3, 0, 1])]
)
def test_examples_may_keep_the_quarter_turns_they_took(images, clusters, turns):
    turned = data.rotate(clusters=clusters, keep_turns=True)(images, rng())
    plain = data.rotate(clusters=clusters)(images, rng())
    for k in range(6):
        client = turned.client(k)["train"]
        assert client["turns"].tolist() == [turns[k]] * 2
        np.testing.assert_array_equal(client["x"], plain.client(k)["train"]["x"])
        stored = np.rot90(client["x"], -turns[k], axes=(1, 2))
        np.testing.assert_array_equal(stored, images.client(k)["train"]["x"])
    with pytest.raises(SpecError, match="keep_turns needs 1, 2 or 4 clusters, got 3"):
        data.rotate(clusters=3, keep_turns=True)
