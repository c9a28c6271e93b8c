import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floral.data import as_batches, batching, gather
from floral.errors import SpecError

KEY = jax.random.key(7)
compiled = jax.jit(
    gather,
    static_argnums=4,
    static_argnames=("max_size", "limit"),
    compiler_options={"xla_backend_optimization_level": 0},  # quick: it only moves rows
)


def cohort(data, ids, plan, *, key=KEY, max_size=7, limit=None):
    split = data.splits["train"]
    batches = compiled(
        split.examples, split.offsets, jnp.array(ids), key, plan, max_size=max_size, limit=limit
    )
    return jax.tree.map(np.asarray, batches)


def shown(batches, j):
    """The labels that client j of the cohort shows, in order."""
    return batches["y"][j][batches["mask"][j]].tolist()


def own(data, k):
    return data.client(k)["train"]["y"].tolist()


@pytest.mark.parametrize(
    ("batch_size", "shuffle"), [(3, True), (8, True), (1, False), (3, False), (4, False)]
)
def test_every_epoch_shows_every_example_exactly_once(ragged, batch_size, shuffle):
    plan = batching(batch_size=batch_size, epochs=3, shuffle=shuffle)
    batches = cohort(ragged, range(5), plan)
    for k in range(5):
        steps = -(-len(own(ragged, k)) // batch_size)
        for epoch in range(3):
            rows = slice(epoch * steps, (epoch + 1) * steps)
            seen = batches["y"][k][rows][batches["mask"][k][rows]]
            assert sorted(seen.tolist()) == own(ragged, k)


def test_features_labels_and_mask_stay_together(ragged):
    batches = cohort(ragged, range(5), batching(batch_size=3, epochs=3))
    x, y, mask = batches["x"], batches["y"], batches["mask"]
    assert x.shape == (5, 9, 3, 2)
    assert y.shape == mask.shape == (5, 9, 3)
    np.testing.assert_array_equal(x[..., 0], y.astype(np.float32))
    np.testing.assert_array_equal(x[..., 1], -y.astype(np.float32))


@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_masked_places_hold_a_live_example_of_the_batch_or_another_of_the_client(
    ragged, shuffle, steps
):
    batches = cohort(ragged, range(5), batching(batch_size=4, shuffle=shuffle, steps=steps))
    for k in range(5):
        for shown_y, live in zip(batches["y"][k], batches["mask"][k], strict=True):
            allowed = shown_y[live].tolist() or own(ragged, k)
            assert set(shown_y.tolist()) <= set(allowed)


def test_live_steps_come_first_and_none_beyond_what_is_needed(ragged):
    batches = cohort(ragged, range(5), batching(batch_size=3, epochs=3))
    needed = 3 * np.array([2, 1, 3, 1, 2])  # epochs times ceil(n / 3)
    expected = np.arange(9)[None] < needed[:, None]
    np.testing.assert_array_equal(batches["mask"].any(axis=2), expected)


def test_padding_changes_no_bit(ragged):
    plan = batching(batch_size=4)
    for k, size in [(1, 1), (2, 7), (4, 5)]:
        tight = cohort(ragged, [k], plan, max_size=size)
        padded = cohort(ragged, [k], plan, max_size=29)
        steps = tight["mask"].shape[1]
        for name in ("x", "y", "mask"):
            np.testing.assert_array_equal(padded[name][:, :steps], tight[name])
        assert not padded["mask"][:, steps:].any()


@given(ids=st.lists(st.integers(0, 4), min_size=3, max_size=3))
@settings(max_examples=10, deadline=None)
def test_the_rest_of_the_cohort_is_irrelevant(ragged, ids):
    plan = batching(batch_size=3, epochs=3)
    whole = cohort(ragged, range(5), plan)
    part = cohort(ragged, ids, plan)
    for j, k in enumerate(ids):
        for name in whole:
            np.testing.assert_array_equal(part[name][j], whole[name][k])


def test_a_fresh_order_each_epoch_and_each_key(ragged):
    plan = batching(batch_size=7, epochs=2)
    order = shown(cohort(ragged, [2], plan), 0)
    assert order[:7] != order[7:]
    assert order != shown(cohort(ragged, [2], plan, key=jax.random.key(8)), 0)
    assert order == shown(cohort(ragged, [2], plan), 0)


def test_clients_of_equal_size_have_orders_of_their_own():
    offsets, plan = np.arange(0, 49, 8), batching(batch_size=8)
    y = {"y": np.tile(np.arange(8), 6)}
    batches = compiled(y, offsets, jnp.arange(6), KEY, plan, max_size=8)
    assert len({tuple(order) for order in batches["y"].reshape(6, 8).tolist()}) == 6


def test_every_order_is_equally_likely(ragged):
    keys = jax.random.split(jax.random.key(0), 3000)
    split, plan = ragged.splits["train"], batching(batch_size=3)

    def order(key):
        ids = jnp.array([3])
        batches = gather(split.examples, split.offsets, ids, key, plan, max_size=3)
        return batches["y"][0, 0]

    orders = np.asarray(jax.jit(jax.vmap(order))(keys))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    # 500 expected of each; 5 standard deviations of a binomial(3000, 1/6) are 102.
    assert abs(counts - 500).max() < 102


def test_without_shuffle_the_stored_order_is_walked(ragged):
    batches = cohort(ragged, [2, 4], batching(batch_size=4, epochs=2, shuffle=False))
    assert shown(batches, 0) == own(ragged, 2) * 2
    assert shown(batches, 1) == own(ragged, 4) * 2


@pytest.mark.parametrize("shuffle", [True, False])
def test_steps_are_all_live_and_walk_whole_epochs(ragged, shuffle):
    batches = cohort(ragged, range(5), batching(batch_size=3, steps=6, shuffle=shuffle))
    assert batches["mask"].any(axis=2).all()
    for k, an_epoch in enumerate([2, 1, 3, 1, 2]):
        for start in range(0, 6, an_epoch):
            rows = slice(start, start + an_epoch)
            seen = batches["y"][k][rows][batches["mask"][k][rows]]
            assert sorted(seen.tolist()) == own(ragged, k)


def test_as_many_steps_as_one_epoch_needs_are_that_epoch(ragged):
    by_epoch = cohort(ragged, [2], batching(batch_size=3))
    by_steps = cohort(ragged, [2], batching(batch_size=3, steps=3))
    np.testing.assert_array_equal(by_epoch["y"], by_steps["y"])


@pytest.mark.parametrize("steps", [None, 3])
def test_a_client_of_padding_is_all_masked(ragged, steps):
    plan = batching(batch_size=2, steps=steps, shuffle=steps is None)
    batches = cohort(ragged, [5, 99, -1, 0], plan)
    assert not batches["mask"][:3].any()
    assert np.isin(batches["y"][:3], ragged.splits["train"].examples["y"]).all()
    assert batches["mask"][3].any()


def test_a_limit_uses_the_first_examples_only(ragged):
    batches = cohort(ragged, [2, 1], batching(batch_size=2), limit=3)
    assert sorted(shown(batches, 0)) == own(ragged, 2)[:3]
    assert shown(batches, 1) == own(ragged, 1)
    assert batches["mask"].shape == (2, 2, 2)


def test_a_limit_of_none_and_a_large_one_agree(ragged):
    plan = batching(batch_size=2)
    for with_limit, without in zip(
        cohort(ragged, [2], plan, limit=100).values(),
        cohort(ragged, [2], plan).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(with_limit, without)


def test_an_empty_split_gives_masked_batches():
    empty = {"x": np.zeros((0, 3), np.float32)}
    batches = compiled(
        empty, np.zeros(3, np.int64), jnp.array([0, 1]), KEY, batching(batch_size=2), max_size=2
    )
    assert batches["x"].shape == (2, 1, 2, 3)
    assert not batches["mask"].any()


def test_other_kinds_of_keys_keep_the_padding_promise(ragged):
    key = jax.random.key(3, impl="rbg")
    alone = cohort(ragged, [4], batching(batch_size=4), key=key, max_size=5)
    among = cohort(ragged, [0, 4], batching(batch_size=4), key=key, max_size=8)
    np.testing.assert_array_equal(alone["y"][0], among["y"][1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"steps": -1}, "steps must be a whole number"),
        ({"steps": 3, "epochs": 2}, "give epochs or steps, not both"),
    ],
)
def test_settings_without_meaning_are_refused(given, message):
    with pytest.raises(SpecError, match=message):
        batching(**given)


def test_batches_looked_up_step_by_step_are_those_looked_up_at_once():
    rng = np.random.default_rng(0)
    mask = np.arange(12).reshape(3, 4) < 9
    given = {
        "x": rng.normal(size=(3, 4, 5)).astype(np.float32),
        "y": rng.integers(0, 9, (3, 4)),
        "mask": mask,
    }
    batches = as_batches(given)
    assert as_batches(batches) is batches
    for name, expected in given.items():
        np.testing.assert_array_equal(batches.steps()[name][mask], expected[mask])
    for step in range(3):
        for name, leaf in batches.step(step).items():
            np.testing.assert_array_equal(leaf, batches.steps()[name][step])


def test_what_a_mapping_holds_where_nothing_is_live_is_never_shown():
    mask = np.array([[False, True, False], [False, False, False]])
    batches = as_batches({"x": np.where(mask, 2.0, np.nan), "mask": mask})
    np.testing.assert_array_equal(batches.steps()["x"], np.full((2, 3), 2.0))
    np.testing.assert_array_equal(batches.step(1)["mask"], np.zeros(3))
