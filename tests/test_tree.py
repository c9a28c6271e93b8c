from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floral import tree
from floral.errors import SpecError

VALUES = {"base": {"w": 1.0, "b": 2.0}, "bank": {"params/Dense_0/kernel": {"a": 3.0, "b": 4.0}}}

shapes = st.recursive(
    st.integers(0, 9).map(float),
    lambda children: (
        st.dictionaries(st.sampled_from("abcd"), children, min_size=1, max_size=3)
        | st.lists(children, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


class Pair(NamedTuple):
    left: float
    right: tuple


def test_a_path_joins_keys_indices_and_field_names_by_slashes():
    assert list(tree.paths({"x": Pair(1.0, (2.0, 3.0))})) == ["x/left", "x/right/0", "x/right/1"]


def test_a_key_that_holds_slashes_reads_as_a_path():
    assert "bank/params/Dense_0/kernel/a" in tree.paths(VALUES)


def test_map_with_path_visits_every_leaf_once_and_keeps_the_structure():
    named = tree.map_with_path(lambda path, leaf: (path, leaf), VALUES["base"])
    assert named == {"w": ("w", 1.0), "b": ("b", 2.0)}


def test_a_prefix_leaf_stands_for_everything_below_it():
    scaled = tree.prefix_map(lambda w, x: w * x, {"base": 10, "bank": 2}, VALUES)
    assert scaled["base"] == {"w": 10.0, "b": 20.0}
    assert scaled["bank"]["params/Dense_0/kernel"] == {"a": 6.0, "b": 8.0}


def _chosen(*globs):
    return [path for path, hit in tree.paths(tree.matching(VALUES, globs)).items() if hit]


def test_a_glob_matches_whole_steps_and_everything_below_them():
    assert _chosen("base") == ["base/b", "base/w"]
    assert _chosen("bank/**/b") == ["bank/params/Dense_0/kernel/b"]
    assert _chosen("base/*") == ["base/b", "base/w"]
    assert _chosen("bank/*/Dense_*/kernel/a") == ["bank/params/Dense_0/kernel/a"]
    assert _chosen("bas") == []
    assert _chosen("b") == []


def test_a_glob_is_no_regular_expression():
    assert tree.matching({"a.b": 1, "axb": 1}, ["a.b"]) == {"a.b": True, "axb": False}


def test_several_globs_match_what_any_of_them_matches():
    assert _chosen("base/w", "**/a") == ["bank/params/Dense_0/kernel/a", "base/w"]


@given(shapes, st.data())
def test_combine_undoes_split(values, data):
    mask = jax.tree.map(lambda _: data.draw(st.booleans()), values)
    chosen, others = tree.split(values, mask)
    assert tree.combine(chosen, others) == values
    assert tree.combine(others, chosen) == values
    total = len(jax.tree.leaves(values))
    assert len(jax.tree.leaves(chosen)) + len(jax.tree.leaves(others)) == total
    assert len(jax.tree.leaves(chosen)) == sum(jax.tree.leaves(mask))


def test_combine_takes_the_first_that_is_there():
    assert tree.combine({"a": 1, "b": None}, {"a": 9, "b": 2}) == {"a": 1, "b": 2}


def test_subtract_undoes_add_and_zeros_are_neutral(same):
    left = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}
    right = {"a": jnp.array([0.5, 4.0]), "b": jnp.array(-1.0)}
    same(tree.subtract(tree.add(left, right), right), left)
    same(tree.add(left, tree.zeros_like(left)), left)


def test_select_copies_bits_even_beside_a_nan(same):
    good = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "count": jnp.array([5, 6])}
    bad = {"w": jnp.full((2, 2), jnp.nan), "count": jnp.array([-1, -1])}
    picked = tree.select(jnp.array([True, False]), good, bad)
    np.testing.assert_array_equal(picked["w"], [[1.0, 2.0], [np.nan, np.nan]])
    assert picked["count"].tolist() == [5, -1]
    same(tree.select(jnp.array(True), good, bad), good)


def test_sizes_count_numbers_and_bytes_of_arrays_structs_and_keys():
    values = {"a": jnp.zeros((2, 3), jnp.bfloat16), "b": jax.ShapeDtypeStruct((4,), jnp.int32)}
    assert tree.num_parameters(values) == 10
    assert tree.num_bytes(values) == 2 * 6 + 4 * 4
    assert tree.num_bytes({"key": jax.random.key(0)}) == 8
    assert tree.num_bytes(()) == tree.num_parameters(()) == 0


def test_keys_of_unlike_kinds_are_refused_where_paths_are_read():
    with pytest.raises(SpecError, match="mappings whose keys are all text"):
        tree.paths({"a": 0, 1: 0})
