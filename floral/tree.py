"""The few tree operations that everything shares.

A *path string* names a leaf: the keys on the way to it joined by ``/`` (``params/Dense_0/kernel``).
A *prefix* of a tree has a leaf where the tree may have a whole subtree, as in ``jax.vmap``'s
``in_axes``.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from floral.errors import SpecError
from floral.typing import Array, PyTree

__all__ = [
    "add",
    "all_finite",
    "combine",
    "glob_hint",
    "map_with_path",
    "matching",
    "nearest_step",
    "num_bytes",
    "num_parameters",
    "path_string",
    "paths",
    "prefix_map",
    "select",
    "split",
    "subtract",
    "zeros_like",
]


def path_string(key_path: tuple[Any, ...]) -> str:
    """The path string of a key path as ``jax.tree_util`` gives it."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def paths(tree: PyTree) -> dict[str, Any]:
    """Every leaf by its path string, in the tree's order.

    Raises:
      SpecError: for two leaves of one path: a key with a slash in it reads as two keys. Also for
        a mapping whose keys cannot be put in order.

    Example:
      >>> paths({"Dense_0": {"kernel": 1.0, "bias": 2.0}})
      {'Dense_0/bias': 2.0, 'Dense_0/kernel': 1.0}
    """
    try:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
    except ValueError as error:  # of keys that Python cannot compare
        raise SpecError(f"a tree needs mappings whose keys are all text: {error}") from error
    found = {path_string(path): leaf for path, leaf in leaves}
    if len(found) < len(leaves):
        names = [path_string(path) for path, _ in leaves]
        twice = next(name for name in names if names.count(name) > 1)
        raise SpecError(f"two leaves have the path {twice!r}: leave slashes out of keys")
    return found


def map_with_path(fn: Callable[[str, Any], Any], tree: PyTree) -> PyTree:
    """``fn(path string, leaf)`` at every leaf; the tree's structure is kept."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: fn(path_string(path), leaf), tree)


def prefix_map(fn: Callable[..., Any], prefix: PyTree, *trees: PyTree) -> PyTree:
    """``fn(prefix leaf, leaf, …)`` at every leaf of the trees, the prefix leaf standing for all
    the leaves below it.

    Example:
      >>> prefix_map(lambda w, x: w * x, {"base": 2, "bank": 3}, {"base": [1, 1], "bank": 1})
      {'bank': 3, 'base': [2, 2]}
    """
    first = trees[0]
    return jax.tree.map(fn, jax.tree.broadcast(prefix, first), *trees)


def _pattern(glob: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", glob)
    wild = {"**": ".*", "*": "[^/]*"}
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts) + "(/.*)?")


def matching(tree: PyTree, globs: Sequence[str]) -> PyTree:
    """True at every leaf whose path, or a parent of it, matches one of the globs.

    ``*`` stands for one step of a path or a part of it, ``**`` for any number of steps.

    Example:
      >>> matching({"base": {"w": 1}, "bank": {"w": {"a": 1, "b": 2}}}, ["bank/**/b"])
      {'bank': {'w': {'a': False, 'b': True}}, 'base': {'w': False}}
    """
    patterns = [_pattern(glob) for glob in globs]
    return map_with_path(lambda path, _: any(p.fullmatch(path) for p in patterns), tree)


def glob_hint(glob: str, known: Sequence[str]) -> str:
    """``"; did you mean '…'?"`` for a path glob that matches nothing, else some paths there are.

    What is suggested was tried: it matches, and it means as much as was written. A layer's name
    alone becomes that layer wherever it stands, never one of its leaves.

    Args:
      glob: what was given.
      known: the paths.

    Example:
      >>> glob_hint("Dense_1", ["params/Dense_1/kernel", "params/Dense_1/bias"])
      "; did you mean '**/Dense_1'?"
      >>> glob_hint("parms/Dense_1", ["params/Dense_1/kernel", "params/Dense_1/bias"])
      "; did you mean 'params/Dense_1'?"
    """
    steps = {step for path in known for step in path.split("/")}
    as_glob = re.sub(r"\.\*|\\d\+", "*", glob.strip("^$")).replace("\\", "")
    spelt = "/".join(nearest_step(step, steps) for step in as_glob.split("/"))
    tries = [f"**/{glob}"]
    for text in (as_glob, spelt):
        tries += [re.sub(r"^\*/", "**/", text), f"**/{text}"]
    for suggestion in tries:
        pattern = _pattern(suggestion)
        if suggestion != glob and any(pattern.fullmatch(path) for path in known):
            return f"; did you mean {suggestion!r}?"
    return f"; there are {', '.join(known[:5])}{', …' if len(known) > 5 else ''}"


def nearest_step(step: str, known: Iterable[str]) -> str:
    """The step of a path most like one that was written; itself if none is, or if it is a glob."""
    if "*" in step:
        return step
    found = difflib.get_close_matches(step, sorted(known), n=1, cutoff=0.6)
    return found[0] if found else step


def split(tree: PyTree, mask: PyTree) -> tuple[PyTree, PyTree]:
    """The leaves where the mask of Python booleans is True, and the others.

    Both keep the tree's shape, with None (an empty subtree) where a leaf is in the other one.
    """
    chosen = jax.tree.map(lambda keep, leaf: leaf if keep else None, mask, tree)
    others = jax.tree.map(lambda keep, leaf: None if keep else leaf, mask, tree)
    return chosen, others


def combine(*trees: PyTree) -> PyTree:
    """Undoes ``split``: at every place the first leaf that is not None.

    Example:
      >>> combine({"a": 1, "b": None}, {"a": None, "b": 2})
      {'a': 1, 'b': 2}
    """
    return jax.tree.map(
        lambda *leaves: next((leaf for leaf in leaves if leaf is not None), None),
        *trees,
        is_leaf=lambda leaf: leaf is None,
    )


def add(left: PyTree, right: PyTree) -> PyTree:
    """Leaf by leaf, ``left + right``."""
    return jax.tree.map(jnp.add, left, right)


def all_finite(tree: PyTree) -> Array:
    """Whether no leaf holds an infinity or NaN, bool []; whole numbers and keys always count.

    Example:
      >>> bool(all_finite({"w": jnp.ones(2), "n": 3})), bool(all_finite(jnp.array([1.0, jnp.inf])))
      (True, False)
    """
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]
    found = jnp.ones((), bool)
    for leaf in floats:
        found &= jnp.all(jnp.isfinite(leaf))
    return found


def subtract(left: PyTree, right: PyTree) -> PyTree:
    """Leaf by leaf, ``left - right``."""
    return jax.tree.map(jnp.subtract, left, right)


def zeros_like(tree: PyTree) -> PyTree:
    """The same tree of zeros."""
    return jax.tree.map(jnp.zeros_like, tree)


def select(condition: Array | bool, on_true: PyTree, on_false: PyTree) -> PyTree:
    """Leaf by leaf ``on_true`` where the condition holds, bit for bit.

    Args:
      condition: a boolean array; its axes lead those of every leaf (a scalar fits all).
    """

    def choose(yes: Array, no: Array) -> Array:
        trailing = jnp.ndim(yes) - jnp.ndim(condition)
        return jnp.where(jnp.reshape(condition, jnp.shape(condition) + (1,) * trailing), yes, no)

    return jax.tree.map(choose, on_true, on_false)


def num_parameters(tree: PyTree) -> int:
    """How many numbers the tree holds."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(tree))


def num_bytes(tree: PyTree) -> int:
    """How many bytes the tree's arrays take (arrays or ShapeDtypeStructs; keys by their data)."""

    def size(leaf: Any) -> int:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = jax.eval_shape(jax.random.key_data, leaf)
            return int(data.size) * data.dtype.itemsize
        return int(leaf.size) * leaf.dtype.itemsize

    return sum(size(leaf) for leaf in jax.tree.leaves(tree))
