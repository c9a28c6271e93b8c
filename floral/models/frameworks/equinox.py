"""Models of ``equinox`` modules of one example, mapped over the batch.

Floating-point arrays are the params. Other arrays are constants, as ``make`` gives them.
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from floral.check import described
from floral.errors import SpecError
from floral.models.base import Model
from floral.typing import Key

__all__ = ["from_equinox"]


def from_equinox(make: Callable[[Key], Any]) -> Model:
    """A model of an ``equinox`` module of one example, mapped over the batch.

    A module whose call takes ``key`` gets one for every example of every step in training, and
    ``eqx.nn.inference_mode`` switches its dropout off in evaluation. Arrays of integers and
    booleans are constants: those that ``make`` gives for ``jax.random.key(0)``, whatever key the
    params are drawn from.

    Args:
      make: builds the module from a key, as in ``lambda key: eqx.nn.Linear(3, 2, key=key)``.

    Raises:
      SpecError: for no maker; when initialised, for a module with a state (``eqx.nn.State``, as
        batch norm keeps it), with keys of its own, or with dropout and no ``key`` in its call; if
        equinox is not installed.
    """
    try:
        import equinox as eqx
    except ImportError as error:
        raise SpecError(
            "from_equinox needs the package equinox, which is not installed: pip install equinox"
        ) from error

    if isinstance(make, eqx.Module) or not callable(make):
        raise SpecError(
            "from_equinox takes a maker, as lambda key: eqx.nn.Linear(3, 2, key=key), got "
            f"{described(make)}; give a maker of it"
        )

    @cache
    def constants() -> Any:
        with jax.ensure_compile_time_eval():
            return eqx.filter(make(jax.random.key(0)), _is_constant)

    def skeleton() -> tuple[Any, bool]:
        """The module as structs, and whether its call takes a key."""
        made = eqx.filter_eval_shape(make, jax.random.key(0))
        _check_module(made)
        return made, "key" in inspect.signature(type(made).__call__).parameters

    def init(key, batch):
        made, takes_key = skeleton()
        dropouts = [
            leaf
            for leaf in jax.tree.leaves(made, is_leaf=lambda m: isinstance(m, eqx.nn.Dropout))
            if isinstance(leaf, eqx.nn.Dropout) and leaf.p > 0
        ]
        if dropouts and not takes_key:
            raise SpecError(
                f"from_equinox: {type(made).__name__} has dropout, and its call takes no 'key' to "
                "draw from: write __call__(self, x, key=None) and pass the key on"
            )
        return eqx.filter(make(key), eqx.is_inexact_array), ()

    def apply(params, stats, batch, *, key=None, train=False):
        made, takes_key = skeleton()
        static = eqx.filter(made, lambda leaf: not hasattr(leaf, "shape"))
        parts = [params, static]
        if any(_is_constant(leaf) for leaf in jax.tree.leaves(made)):
            parts.append(constants())
        draw_from = key if train and takes_key else None
        module = eqx.nn.inference_mode(eqx.combine(*parts), value=draw_from is None)
        x = batch["x"]
        if draw_from is None:
            return jax.vmap(module)(x), stats
        keys = jax.vmap(lambda index: jax.random.fold_in(draw_from, index))(jnp.arange(x.shape[0]))
        return jax.vmap(lambda one, key: module(one, key=key))(x, keys), stats

    return Model(init=init, apply=apply)


def _is_constant(leaf: Any) -> bool:
    """Whether a leaf is an array that is neither trained nor a key."""
    if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
        return False
    kinds = (jnp.inexact, jax.dtypes.prng_key)
    return not any(jnp.issubdtype(leaf.dtype, kind) for kind in kinds)


def _check_module(made: Any) -> None:
    import equinox as eqx

    if not isinstance(made, eqx.Module) or not callable(made):
        hint = "; a state (eqx.nn.State) is not handled" if isinstance(made, tuple) else ""
        raise SpecError(
            f"from_equinox: make must return one callable module, got {described(made)}{hint}"
        )
    indices = jax.tree.leaves(made, is_leaf=lambda leaf: isinstance(leaf, eqx.nn.StateIndex))
    if any(isinstance(leaf, eqx.nn.StateIndex) for leaf in indices):
        raise SpecError(
            f"from_equinox: {type(made).__name__} keeps a state (eqx.nn.State), as batch norm "
            "does, which is not handled; use GroupNorm or LayerNorm"
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(made):
        if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise SpecError(
                f"from_equinox: {jax.tree_util.keystr(path)}: a random key is neither trained nor "
                "kept; take it as the 'key' of the module's call"
            )
