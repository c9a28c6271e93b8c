import jax.numpy as jnp
import numpy as np
import pytest

from floral import check
from floral.errors import FloralError, SpecError

REFUSED = [
    (check.positive, 0.0, "x must be positive, got 0.0"),
    (check.positive, -1, "x must be positive, got -1"),
    (check.positive, float("nan"), "x must be finite, got nan"),
    (check.positive, float("inf"), "x must be finite, got inf"),
    (check.positive, "1", "x must be a number, got '1'"),
    (check.positive, True, "x must be a number, got True"),
    (check.positive, None, "x must be a number, got None"),
    (check.non_negative, -1e-9, "x must not be negative, got -1e-09"),
    (check.non_negative, float("nan"), "x must be finite, got nan"),
    (check.positive_int, 0, "x must be a whole number of at least 1, got 0"),
    (check.positive_int, 2.0, "x must be a whole number of at least 1, got 2.0"),
    (check.positive_int, True, "x must be a whole number of at least 1, got True"),
]


@pytest.mark.parametrize(("checked", "value", "message"), REFUSED)
def test_a_wrong_number_is_refused_by_name(checked, value, message):
    with pytest.raises(SpecError) as caught:
        checked(x=value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("checked", "value"),
    [
        (check.positive, 1e-30),
        (check.positive, np.float32(2)),
        (check.non_negative, 0),
        (check.positive_int, np.int64(1)),
    ],
)
def test_a_right_number_passes(checked, value):
    assert checked(x=value) is None


def test_a_range_includes_its_ends_and_names_them():
    check.in_range(0.0, 1.0, share=0.0, other=1.0)
    with pytest.raises(SpecError, match=r"share must lie between 0\.0 and 1\.0, got 1\.5"):
        check.in_range(0.0, 1.0, share=1.5)


def test_several_values_are_checked_and_the_wrong_one_is_named():
    with pytest.raises(SpecError, match=r"^second must be positive"):
        check.positive(first=1, second=0)


def test_an_unknown_option_gets_the_known_ones_and_the_nearest():
    check.one_of(["scan", "vmap"], walk="scan")
    with pytest.raises(SpecError) as caught:
        check.one_of(["scan", "vmap"], walk="vmpa")
    assert str(caught.value) == "walk must be one of scan, vmap; got 'vmpa'; did you mean 'vmap'?"


def test_nothing_is_suggested_where_nothing_is_alike():
    assert check.nearest("zzz", ["scan", "vmap"]) is None
    assert check.did_you_mean("zzz", ["scan", "vmap"]) == ""


def test_letter_case_does_not_matter_to_a_suggestion():
    assert check.nearest("DENSE_0", ["Dense_0", "Conv_0"]) == "Dense_0"


def test_equal_structures_pass_and_each_difference_is_named():
    expected = {"Dense_0": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}}
    check.same_structure(expected, expected, what="params")
    for given, message in [
        ({"Dense_0": {"kernel": jnp.zeros((3, 2))}}, "params lacks 'Dense_0/bias'"),
        ({"Dense_0": {**expected["Dense_0"], "scale": jnp.zeros(2)}}, "unknown 'Dense_0/scale'"),
        (
            {"Dense_0": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(2)}},
            r"'Dense_0/kernel' has shape \(2, 3\), expected \(3, 2\)",
        ),
    ]:
        with pytest.raises(SpecError, match=message):
            check.same_structure(expected, given, what="params")


def test_every_refusal_can_be_caught_as_the_librarys_own():
    assert issubclass(SpecError, FloralError)
