import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from floral.errors import SpecError
from floral.metrics import accuracy, from_per_example, gini, jain, top_k_accuracy, worst_share

LOGITS = jnp.array([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0], [1.0, 2.0, 3.0], [9.0, 0.0, 0.0]])
LABELS = jnp.array([0, 2, 0, 0])


def _batch(labels, mask):
    return {"y": jnp.asarray(labels), "mask": jnp.asarray(mask, bool)}


def _value(metric, outputs, batch):
    return float(metric.compute(metric.from_outputs(outputs, batch)))


def test_accuracy_counts_live_examples_alone():
    assert _value(accuracy(), LOGITS, _batch(LABELS, [1, 1, 1, 1])) == 0.5
    assert _value(accuracy(), LOGITS, _batch(LABELS, [1, 1, 0, 0])) == 0.5
    assert _value(accuracy(), LOGITS, _batch(LABELS, [1, 0, 0, 0])) == 1.0


def test_top_one_is_accuracy_and_top_all_is_certain():
    batch = _batch(LABELS, [1, 1, 1, 1])
    assert _value(top_k_accuracy(k=1), LOGITS, batch) == _value(accuracy(), LOGITS, batch)
    assert _value(top_k_accuracy(k=2), LOGITS, batch) == 0.75
    assert _value(top_k_accuracy(k=3), LOGITS, batch) == 1.0
    with pytest.raises(SpecError):
        top_k_accuracy(k=0)


@given(st.integers(1, 3))
def test_batches_of_any_split_merge_to_the_whole(cut):
    metric = from_per_example(lambda outputs, batch: outputs[:, 0])
    mask = [1, 0, 1, 1]
    parts = [
        metric.from_outputs(LOGITS[rows], _batch(LABELS[rows], mask[rows]))
        for rows in (slice(0, cut), slice(cut, 4))
    ]
    whole = metric.compute(metric.merge(*parts))
    assert float(whole) == pytest.approx((3 + 1 + 9) / 3)


def test_a_nan_in_the_padding_does_not_count():
    metric = from_per_example(lambda outputs, batch: outputs)
    assert _value(metric, jnp.array([2.0, jnp.nan]), _batch([0, 0], [1, 0])) == 2.0


def test_nothing_counted_is_nan():
    assert np.isnan(_value(accuracy(), LOGITS, _batch(LABELS, [0, 0, 0, 0])))


def test_metrics_can_be_mapped_and_compiled():
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), _batch(LABELS, [1, 1, 0, 0]))
    sums = jax.jit(jax.vmap(accuracy().from_outputs))(jnp.stack([LOGITS, LOGITS]), batch)
    assert sums["count"].tolist() == [2, 2]


values = st.lists(st.floats(0, 100), min_size=1, max_size=20).map(np.array)


@given(values, st.floats(0.125, 8))
def test_gini_and_jain_do_not_depend_on_the_unit(some, scale):
    # Denormal numbers lose digits when scaled; measure from a millionth up.
    some = np.where(some < 1e-6, 0.0, some)
    assert gini(some * scale) == pytest.approx(gini(some), abs=1e-9)
    assert jain(some * scale) == pytest.approx(jain(some), abs=1e-9)


@given(values)
def test_gini_and_jain_stay_in_their_ranges(some):
    some = np.where(some < 1e-6, 0.0, some)
    assert -1e-9 <= gini(some) <= 1 - 1 / len(some) + 1e-9
    assert 1 / len(some) - 1e-9 <= jain(some) <= 1 + 1e-9


def test_one_who_has_all_and_all_who_have_the_same_are_the_ends():
    one, same = np.array([0.0, 0, 0, 7]), np.full(4, 3.0)
    assert (gini(one), jain(one)) == (0.75, 0.25)
    assert (gini(same), jain(same)) == (0.0, 1.0)


def test_the_worst_share_is_small_accuracies_or_large_losses():
    some = np.arange(20.0)
    assert worst_share(some) == 0.5
    assert worst_share(some, largest=True) == 18.5
    assert worst_share(some[:3]) == 0.0  # never fewer than one client


@pytest.mark.parametrize(
    ("clients", "share", "count"),
    [
        *((1, 0.1, 1), (3, 0.1, 1), (7, 0.1, 1), (10, 0.1, 1), (19, 0.1, 1), (25, 0.1, 2)),
        # As floats, the products of these three lie just below a whole number.
        *((100, 0.29, 29), (50, 0.58, 29), (90, 0.7, 63), (30, 0.1, 3), (4, 1.0, 4), (4, 0.0, 1)),
    ],
)
def test_the_worst_share_is_of_so_many_clients_rounded_down(clients, share, count):
    some = np.random.default_rng(clients).permutation(clients) ** 2.0
    squares = np.arange(clients) ** 2.0
    assert worst_share(some, share=share) == pytest.approx(squares[:count].mean())
    assert worst_share(some, share=share, largest=True) == pytest.approx(squares[-count:].mean())


@pytest.mark.parametrize("summary", [worst_share, gini, jain])
def test_a_summary_of_a_nan_is_nan_whichever_values_are_bad(summary):
    """Sorted, a NaN comes last: it would pass for the best of all accuracies."""
    some = np.append(np.arange(19.0), np.nan)
    assert np.isnan(summary(some))
    assert np.isnan(worst_share(some, largest=True))


def test_losses_of_which_one_is_infinite_are_as_bad_as_can_be_and_of_no_evenness():
    some = np.append(np.arange(9.0), np.inf)
    assert worst_share(some, largest=True) == np.inf
    assert (worst_share(some), np.isnan(gini(some)), np.isnan(jain(some))) == (0.0, True, True)


@given(values)
def test_gini_is_the_mean_difference_of_all_pairs_over_twice_the_mean(some):
    some = np.where(some < 1e-6, 0.0, some)
    assume(some.any())
    pairs = np.abs(some[:, None] - some[None]).mean()
    assert gini(some) == pytest.approx(pairs / (2 * some.mean()), abs=1e-9)


@pytest.mark.parametrize("summary", [gini, jain])
def test_the_evenness_of_values_below_zero_is_refused(summary):
    """Of -1 and 1 both would come out as 0: all alike by one, less than possible by the other."""
    with pytest.raises(
        SpecError, match=rf"{summary.__name__}: values must not be negative, got -1"
    ):
        summary(np.array([1.0, -1.0]))
    assert worst_share(np.array([1.0, -1.0])) == -1.0
