"""Models of ``flax.nnx`` modules: parameters are trained, batch statistics carried, keys given.

NNX modules keep their mode and their random streams as attributes. Here both are set anew at every
call: ``module.train()`` or ``module.eval()``, and in training streams of the step's own key.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from floral import check
from floral.check import described
from floral.errors import SpecError
from floral.models.base import Model
from floral.models.calls import check_call, training_arguments
from floral.typing import Key, PyTree

__all__ = ["from_nnx"]


def from_nnx(
    make: Callable[[Any], Any], *, train_argument: str | None = None, mask: bool = False
) -> Model:
    """A model of a ``flax.nnx`` module called on ``batch["x"]``.

    ``nnx.Param`` variables are the params, ``nnx.BatchStat`` variables the stats. Dropout and other
    random layers draw from a key of each step in training.

    Args:
      make: builds the module from ``nnx.Rngs``, as in ``lambda rngs: nnx.Linear(3, 2, rngs=rngs)``.
      train_argument: a keyword of the module's call that says whether it trains; None if it has
        none. ``module.train()`` and ``module.eval()`` are called in any case.
      mask: whether the module's call takes ``mask=[B]``. Required of a module with batch
        statistics: the examples that pad a batch must not enter them, as by
        ``nnx.BatchNorm(…)(x, mask=…)``.

    Raises:
      SpecError: for no maker; when initialised, for variables of other kinds, for batch statistics
        without a mask, or for a call that lacks an argument.

    Example:
      >>> model = from_nnx(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
      >>> params, stats = model.init(jax.random.key(0), {"x": jnp.ones((4, 3))})
      >>> sorted(params), stats
      (['bias', 'kernel'], ())
    """
    check.boolean(mask=mask)
    if isinstance(make, nnx.Module) or not callable(make):
        raise SpecError(
            "from_nnx takes a maker, as lambda rngs: nnx.Linear(3, 2, rngs=rngs), got "
            f"{described(make)}; give a maker of it"
        )

    def init(key, batch):
        module = make(nnx.Rngs(key))
        _, params, stats, _, rest = _parts(module)
        check_call("from_nnx", type(module), train_argument, mask)
        if others := list(nnx.to_pure_dict(rest)):
            raise SpecError(
                f"from_nnx: {type(module).__name__} holds variables that are neither nnx.Param nor "
                f"nnx.BatchStat ({', '.join(map(str, others))}), and nothing would carry them"
            )
        stats = nnx.to_pure_dict(stats)
        if stats and not mask:
            raise SpecError(
                f"from_nnx: {type(module).__name__} keeps the batch statistics "
                f"{', '.join(map(str, stats))}, which the examples that pad a batch would enter: "
                "give its call a 'mask' argument for nnx.BatchNorm and pass from_nnx(..., "
                "mask=True), or use GroupNorm or LayerNorm"
            )
        return nnx.to_pure_dict(params), stats or ()

    def apply(params, stats, batch, *, key=None, train=False):
        abstract = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
        graph, param_state, stat_state, streams, rest = _parts(abstract)
        nnx.replace_by_pure_dict(param_state, params)
        if stats:
            nnx.replace_by_pure_dict(stat_state, stats)
        streams = _streams(streams, key if train else None)
        module = nnx.merge(graph, param_state, stat_state, streams, rest)
        module.train() if train else module.eval()
        given = training_arguments(train_argument, train)
        given |= {"mask": batch["mask"]} if mask else {}
        before = _counts(module)
        outputs = module(batch["x"], **given)
        if (key is None or not train) and any(
            one is not other for one, other in zip(before, _counts(module), strict=True)
        ):
            raise SpecError(
                f"from_nnx: {type(module).__name__} draws random numbers "
                + (
                    "in training, and has no key"
                    if train
                    else "in evaluation; a prediction must not: let module.eval() switch them off"
                )
            )
        if not stats or not train:
            return outputs, stats
        return outputs, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

    return Model(init=init, apply=apply)


def _parts(module: Any) -> tuple[Any, Any, Any, Any, Any]:
    """``(graph, params, batch statistics, random streams, the rest)``."""
    graph, params, stats, streams, rest = nnx.split(
        module, nnx.Param, nnx.BatchStat, nnx.RngState, ...
    )
    return graph, params, stats, streams, rest


def _streams(state: PyTree, key: Key | None) -> PyTree:
    """Random streams from their start: each with a key of its own, drawn from the given one."""
    key = jax.random.key(0) if key is None else key  # of no consequence: no draw goes unnoticed
    leaves, structure = jax.tree.flatten(state)

    def fresh(index: int, leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.fold_in(key, index)
        return jnp.zeros(leaf.shape, leaf.dtype)

    return jax.tree.unflatten(structure, [fresh(i, leaf) for i, leaf in enumerate(leaves)])


def _counts(module: Any) -> list[Any]:
    """How often each stream was drawn from, as the very objects that the module holds."""
    return jax.tree.leaves(nnx.state(module, nnx.RngCount))
