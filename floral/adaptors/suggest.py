"""Adaptor rules for the params at hand, as the line of a config that a message can print."""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from floral.adaptors._additive import additive
from floral.adaptors._conv import conv
from floral.adaptors._low_rank import low_rank
from floral.errors import SpecError
from floral.tree import paths
from floral.typing import Params

__all__ = ["fitting_kind", "suggested_rules"]

_BY_AXES = {1: ("additive", additive), 2: ("low_rank", low_rank), 4: ("conv", conv)}


def suggested_rules(params: Params, *, budget: float = 0.05) -> str:
    """YAML that adapts every matrix, convolution and vector of the params: ``adaptors: [...]``.

    Every rule decides leaves that its adaptor fits; leaves of other shapes are left alone.

    Args:
      params: arrays or ShapeDtypeStructs.
      budget: share of a leaf's parameters that an adaptor of a matrix or convolution may have.

    Example:
      >>> shapes = {"Dense_0": {"kernel": (8, 4), "bias": (4,)}}
      >>> structs = jax.tree.map(
      ...     lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32), shapes,
      ...     is_leaf=lambda node: isinstance(node, tuple))
      >>> suggested_rules(structs)
      "adaptors: [{match: '.*/bias', kind: additive}, {match: '.*/kernel', kind: low_rank, budget:
      0.05}]"
    """
    kinds = {
        path: kind
        for path, leaf in paths(params).items()
        if (kind := fitting_kind(leaf, budget=budget))
    }
    patterns: dict[str, str] = {}
    for path, kind in kinds.items():
        patterns.setdefault(_pattern(path, kinds, paths(params)), kind)
    rules = [
        f"{{match: '{pattern}', kind: {kind}{'' if kind == 'additive' else f', budget: {budget}'}}}"
        for pattern, kind in patterns.items()
    ]
    return f"adaptors: [{', '.join(rules)}]"


def fitting_kind(leaf: jax.ShapeDtypeStruct, *, budget: float = 0.05) -> str | None:
    """The kind of adaptor for a leaf of this shape; None if there is none."""
    struct = jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))
    if len(struct.shape) not in _BY_AXES or not jnp.issubdtype(struct.dtype, jnp.floating):
        return None
    name, make = _BY_AXES[len(struct.shape)]
    adaptor = make() if name == "additive" else make(budget=budget)
    try:
        jax.eval_shape(adaptor.init, jax.random.key(0), struct)
    except SpecError:
        return None
    return name


def _pattern(path: str, kinds: Mapping[str, str], leaves: Mapping[str, object]) -> str:
    """The widest pattern that holds leaves of this one's kind alone: by its name, by its layer and
    name, or the path itself."""
    layer, _, name = path.rpartition("/")
    numbered = re.sub(r"\d+", "[0-9]+", re.escape(layer.rpartition("/")[2]))
    for pattern in (f".*/{re.escape(name)}", f".*/{numbered}/{re.escape(name)}"):
        held = [other for other in leaves if re.fullmatch(pattern, other)]
        if path in held and all(kinds.get(other) == kinds[path] for other in held):
            return pattern
    return re.escape(path)
