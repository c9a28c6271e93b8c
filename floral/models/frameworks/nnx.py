"""Models of ``flax.nnx`` modules: parameters are trained, batch statistics carried, keys given.

NNX modules keep their mode and their random streams as attributes. Both are set anew at every
call: ``module.train()`` or ``module.eval()``, and in training streams of the step's own key. So is
the mask of batch norms: NNX intercepts no calls, so each ``nnx.BatchNorm`` of the copy that is
called becomes one of a subclass that passes the mask on.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from floral import check
from floral.check import described
from floral.errors import SpecError
from floral.models.base import Model
from floral.models.frameworks.calls import check_call, training_arguments
from floral.typing import Array, Key, PyTree

__all__ = ["from_nnx"]


def from_nnx(
    make: Callable[[Any], Any], *, train_argument: str | None = None, mask: bool = False
) -> Model:
    """A model of a ``flax.nnx`` module called on ``batch["x"]``.

    ``nnx.Param`` variables are the params, ``nnx.BatchStat`` variables the stats. Dropout and other
    random layers draw from a key of each step in training. Batch norms (``nnx.BatchNorm``) get the
    batch's mask by themselves, so that padding never enters their moments.

    Args:
      make: builds the module from ``nnx.Rngs``, as in ``lambda rngs: nnx.Linear(3, 2, rngs=rngs)``.
      train_argument: a keyword of the module's call that says whether it trains; None if it has
        none. ``module.train()`` and ``module.eval()`` are called in any case.
      mask: whether the module's call takes ``mask=[B]``. Required of a module that keeps
        statistics other than those of ``nnx.BatchNorm``: padding must not enter them either.

    Raises:
      SpecError: for no maker; when initialised, for variables of other kinds, for statistics that
        padding would enter, or for a call that lacks an argument.

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
        params, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
        if stats and not mask:
            _check_statistics(module)
            masked = batch | {"mask": jnp.ones(jnp.shape(batch["x"])[:1], bool)}
            key = jax.random.key(0)
            jax.eval_shape(lambda: apply(params, stats, masked, key=key, train=True))
        return params, stats or ()

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
        if stats and not mask and "mask" in batch:
            _mask_norms(module, batch["mask"])
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


def _mask_norms(module: Any, mask: Array) -> None:
    """Has every batch norm of the module, which is called once and dropped, pass the mask on."""
    for path, norm in nnx.iter_modules(module):
        if _can_be_masked(norm):
            _mask_norm(norm, mask, "/".join(map(str, path)) or "the module")


def _mask_norm(norm: Any, mask: Array, path: str) -> None:
    norm.floral_mask = lambda: mask  # an array would be a variable, for nnx.scan to split
    norm.floral_path = path
    object.__setattr__(norm, "__class__", _masked(type(norm)))


def _can_be_masked(module: Any) -> bool:
    """Whether the module is a batch norm whose call is NNX's own, which takes a mask."""
    return isinstance(module, nnx.BatchNorm) and type(module).__call__ is nnx.BatchNorm.__call__


@cache
def _masked(kind: type) -> type:
    """The subclass of a batch norm that passes on the mask it was given, if called with none."""

    def call(self, x, use_running_average=None, *, mask=None):
        if mask is None:
            own = self.floral_mask()
            if jnp.shape(x)[:1] != jnp.shape(own):
                raise SpecError(
                    f"{self.floral_path}: this batch norm sees an array of shape {jnp.shape(x)}, "
                    f"whose first axis is not the batch's {own.shape[0]} examples, so padding "
                    "cannot be kept out of it: give the module a 'mask' argument and pass "
                    "from_nnx(..., mask=True)"
                )
            mask = jnp.broadcast_to(own.reshape(-1, *(1,) * (x.ndim - 1)), x.shape)
        return kind.__call__(self, x, use_running_average, mask=mask)

    return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


def _check_statistics(module: Any) -> None:
    """Raises SpecError for statistics that are not those of a batch norm that can be masked."""
    nodes = list(nnx.iter_graph(module))
    norms = [node for _, node in nodes if _can_be_masked(node)]
    known = {id(stat) for norm in norms for stat in (norm.mean, norm.var)}
    for path, node in nodes:
        if isinstance(node, nnx.BatchStat) and id(node) not in known:
            raise SpecError(
                f"from_nnx: {type(module).__name__} keeps the statistic "
                f"{'/'.join(map(str, path))!r}, which the examples that pad a batch would enter: "
                "give its call a 'mask' argument and pass from_nnx(..., mask=True), or use "
                "nnx.BatchNorm, GroupNorm or LayerNorm"
            )
