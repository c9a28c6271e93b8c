"""Trees of arrays in one file: params, a state, or anything else of arrays that is to be kept.

The file is NumPy's npz: one array a leaf, named by the leaf's path as ``params/Dense_0/kernel``, so
that any program reads them; how they nest is written in JSON beside them. Types that NumPy lacks,
as bfloat16, are kept as their bits, and random keys as their numbers.
"""

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from floral import check
from floral.config.reading.yaml_file import write_atomically
from floral.errors import DataError, SpecError
from floral.files import touching
from floral.typing import FilePath, PyTree

__all__ = ["load", "save"]

_TREE = "floral.json"  # how the arrays nest, as bytes


def save(path: FilePath, tree: PyTree) -> None:
    """Writes a tree into one file, whole or not at all; what is there already is replaced.

    Args:
      path: the file, as ``"params.npz"``.
      tree: dicts, lists, tuples and named tuples of arrays, random keys, words, numbers and None.

    Raises:
      SpecError: for what cannot be kept; nothing is written.
      FileError: if the file cannot be written.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save(f"{folder}/params.npz", {"w": jnp.ones(2, jnp.bfloat16), "step": 3})
      ...     load(f"{folder}/params.npz")
      {'w': array([1, 1], dtype=bfloat16), 'step': 3}
    """
    arrays: dict[str, np.ndarray] = {_TREE: np.zeros(0, np.uint8)}
    form = json.dumps(_form(tree, (), arrays))
    arrays[_TREE] = np.frombuffer(form.encode(), np.uint8)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    write_atomically(path, held.getvalue())


def load(path: FilePath, *, like: PyTree = None) -> PyTree:
    """The tree that ``save`` wrote, bit for bit.

    Args:
      path: the file.
      like: a tree, or structs (``jax.eval_shape``), of the same structure, shapes and dtypes: named
        tuples then come back as what they were, and arrays as JAX's where these are. None gives
        NumPy's arrays, and a dict for each named tuple.

    Raises:
      FileError: if the file cannot be read.
      DataError: if it is no file of ``save``, or damaged.
      SpecError: if it holds another tree than ``like``.
    """
    try:
        with touching(path, "read"), zipfile.ZipFile(Path(path)) as file:

            def array(name: str) -> np.ndarray:
                with file.open(f"{name}.npy") as entry:
                    return np.lib.format.read_array(entry, allow_pickle=False)

            tree = _made(json.loads(array(_TREE).tobytes()), array)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{os.fspath(path)!r} is no whole file of fl.save: {reason}") from error
    return tree if like is None else _as(like, tree, (), os.fspath(path))


def _form(node: Any, place: tuple[str, ...], arrays: dict[str, np.ndarray]) -> Any:
    """How a tree nests, in lists that JSON keeps; its arrays are added to ``arrays``."""

    def below(name: Any, child: Any) -> Any:
        return _form(child, (*place, str(name)), arrays)

    if node is None or type(node) in (bool, int, float, str):
        return ["value", node]
    if type(node) is dict:
        wrong = [key for key in node if type(key) not in (str, int)]
        if wrong:
            raise SpecError(f"{_at(place)}: a key must be a word or an int, got {wrong[0]!r}")
        return ["dict", [[key, below(key, child)] for key, child in node.items()]]
    fields = getattr(node, "_fields", None) if isinstance(node, tuple) else None
    if fields is not None:
        return ["fields", [[name, below(name, getattr(node, name))] for name in fields]]
    if type(node) in (list, tuple):
        return [type(node).__name__, [below(i, child) for i, child in enumerate(node)]]
    if not isinstance(node, np.ndarray | np.generic | jax.Array) or isinstance(
        node, Tracer | np.ma.MaskedArray
    ):
        raise SpecError(
            f"{_at(place)}: fl.save keeps dicts, lists, tuples, arrays, numbers, words and None, "
            f"got {check.described(node)}"
        )
    key, held = "", node
    if isinstance(node, jax.Array) and jnp.issubdtype(node.dtype, jax.dtypes.prng_key):
        key, held = str(jax.random.key_impl(node)), jax.random.key_data(node)
    array = np.asarray(held)
    if array.dtype.kind not in "biufcUS" and array.dtype.isbuiltin != 2:
        raise SpecError(
            f"{_at(place)}: fl.save keeps arrays of numbers and of words, got dtype "
            f"{array.dtype}; astype(str) makes words of objects"
        )
    name = "/".join(place) or "array"
    while name in arrays:
        name += "'"
    plain = array.dtype.isbuiltin != 2  # those of other packages are kept as bits
    arrays[name] = array if plain else array.view(f"u{array.dtype.itemsize}")
    return ["array", name, "" if plain else array.dtype.name, key]


def _made(form: Any, array: Any) -> Any:
    kind, held = form[0], form[1]
    if kind == "value":
        return held
    if kind in ("dict", "fields"):
        return {key: _made(child, array) for key, child in held}
    if kind in ("list", "tuple"):
        children = [_made(child, array) for child in held]
        return children if kind == "list" else tuple(children)
    if kind != "array":
        raise ValueError(f"{kind!r} is no kind of node")
    found = array(held)
    if form[2]:
        found = found.view(jnp.dtype(form[2]))
    return jax.random.wrap_key_data(jnp.asarray(found), impl=form[3]) if form[3] else found


def _as(like: Any, found: Any, place: tuple[str, ...], path: str) -> Any:
    """What was found, in the structure and of the kinds of ``like``."""

    def refused(wanted: str) -> SpecError:
        return SpecError(f"{path!r} holds {_shown(found)} at {_at(place)}, not {wanted}")

    if isinstance(like, dict) or hasattr(like, "_fields"):
        wanted = like if isinstance(like, dict) else like._asdict()
        if not isinstance(found, dict) or found.keys() != wanted.keys():
            raise refused(f"keys {', '.join(map(str, wanted)) or 'none'}")
        held = {k: _as(wanted[k], found[k], (*place, str(k)), path) for k in wanted}
        return held if isinstance(like, dict) else type(like)(**held)
    if isinstance(like, list | tuple):
        if type(found) is not type(like) or len(found) != len(like):
            raise refused(f"a {type(like).__name__} of {len(like)}")
        pairs = enumerate(zip(like, found, strict=True))
        return type(like)([_as(one, other, (*place, str(i)), path) for i, (one, other) in pairs])
    if not hasattr(like, "dtype"):
        if type(found) is not type(like):
            raise refused(_shown(like))
        return found
    if _shown(found) != _shown(like):
        raise refused(_shown(like))
    return found if isinstance(like, np.ndarray | np.generic) else jnp.asarray(found)


def _shown(node: Any) -> str:
    if hasattr(node, "dtype"):
        return f"{node.dtype}{list(node.shape)}"
    return (
        f"keys {', '.join(map(str, node)) or 'none'}"
        if isinstance(node, dict)
        else (
            f"a {type(node).__name__} of {len(node)}"
            if isinstance(node, list | tuple)
            else repr(node)
        )
    )


def _at(place: tuple[str, ...]) -> str:
    return "/".join(place) or "the tree's top"
