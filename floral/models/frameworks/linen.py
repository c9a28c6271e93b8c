"""Models of ``flax.linen`` modules: dropout that drops, statistics that padding never enters.

A linen module says by arguments, attributes and random streams how training differs from
evaluation. Whatever would make the two alike by oversight is refused when params are first made:
an argument that nobody passes, a dropout that never drops, random numbers in predictions.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import errors
from flax import linen as nn

from floral import check
from floral.check import described
from floral.errors import SpecError
from floral.models.base import Model
from floral.models.frameworks.calls import check_call, training_arguments
from floral.random import stream
from floral.tree import paths
from floral.typing import Array, Batch, Key, PyTree

__all__ = ["from_linen"]


def from_linen(
    module: Any,
    *,
    train_argument: str | None = None,
    mask: bool = False,
    features_argument: str | None = None,
) -> Model:
    """A model of a ``flax.linen`` module called on ``batch["x"]``.

    Collections other than ``params`` become the model's stats. In training every random stream
    that the module asks for has a key; in evaluation none has. Batch norms (``nn.BatchNorm``) get
    the batch's mask by themselves, so that padding never enters their moments.

    Args:
      module: the linen module.
      train_argument: the keyword of ``module.__call__`` that says whether it trains: ``"train"``,
        or ``"deterministic"`` and ``"use_running_average"``, which are passed the opposite. None
        if it has none.
      mask: whether ``module.__call__`` takes ``mask=[B]``. Required of a module that keeps
        statistics other than those of ``nn.BatchNorm``: padding must not enter them either.
      features_argument: the keyword of ``module.__call__`` that, set to True, has it return what
        its last layer would see, ``[B, d]``; None if it has none.

    Raises:
      SpecError: for no linen module, or an argument that it does not take or that nobody passes;
        when initialised, for a dropout that never drops, for random numbers in evaluation, and for
        statistics that padding would enter.

    Example:
      >>> class Net(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, x, train=False):
      ...         return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))
      >>> from_linen(Net())
      Traceback (most recent call last):
      floral.errors.SpecError: from_linen: Net takes 'train', which nobody passes; give ...
      >>> model = from_linen(Net(), train_argument="train")
    """
    if not isinstance(module, nn.Module):
        raise SpecError(
            f"from_linen takes a flax.linen module, made, as nn.Dense(3), got {described(module)}"
        )
    check.boolean(mask=mask)
    check_call("from_linen", type(module), train_argument, mask, features_argument)

    def arguments(batch: Batch, train: bool) -> dict[str, Any]:
        given = training_arguments(train_argument, train)
        return given | {"mask": batch["mask"]} if mask else given

    def call(variables, batch, train, rngs, **settings):
        given = arguments(batch, train) | settings.pop("also", {})
        if mask or "mask" not in batch:
            return module.apply(variables, batch["x"], rngs=rngs, **given, **settings)
        with nn.intercept_methods(_masked(batch["mask"])):
            return module.apply(variables, batch["x"], rngs=rngs, **given, **settings)

    def made(key: Key, batch: Batch) -> dict[str, Any]:
        params_key, dropout_key = jax.random.split(key)
        rngs = {"params": params_key, "dropout": dropout_key}
        return dict(module.init(rngs, batch["x"], **arguments(batch, train=False)))

    @cache
    def check_once(shapes: tuple[tuple[str, tuple[int, ...], Any], ...]) -> None:
        batch = {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape, dtype in shapes}
        _check_modes(module, made, call, batch, mask=mask, named=train_argument)

    def init(key, batch):
        check_once(tuple((name, jnp.shape(v), jnp.result_type(v)) for name, v in batch.items()))
        variables = made(key, batch)
        return {"params": variables.pop("params", {})}, variables or ()

    def apply(params, stats, batch, *, key=None, train=False):
        rngs = _streams(key) if train and key is not None else {}
        variables = params | (stats or {})
        if not stats or not train:
            return call(variables, batch, train, rngs), stats
        return call(variables, batch, train, rngs, mutable=list(stats))

    def features(params, stats, batch):
        variables = params | (stats or {})
        return call(variables, batch, False, {}, also={str(features_argument): True})

    return Model(init=init, apply=apply, features=features if features_argument else None)


def _streams(key: Key) -> dict[str, Key]:
    """Keys of all streams: linen takes that of ``params`` where a stream has none of its own."""
    return {"dropout": key, "params": stream(key, "streams")}


def _masked(mask: Array) -> Callable[..., Any]:
    """An interceptor that gives batch norms the mask [B] of the batch."""

    def give(layer_call, args, kwargs, context):
        layer = context.module
        if not isinstance(layer, nn.BatchNorm) or context.method_name != "__call__":
            return layer_call(*args, **kwargs)
        if kwargs.get("mask") is None:
            x = args[0]
            if jnp.shape(x)[:1] != jnp.shape(mask):
                raise SpecError(
                    f"{'/'.join(layer.path)}: this batch norm sees an array of shape "
                    f"{tuple(x.shape)}, whose first axis is not the batch's {mask.shape[0]} "
                    "examples, so padding cannot be kept out of it: give the module a 'mask' "
                    "argument and pass from_linen(..., mask=True)"
                )
            one_an_example = mask.reshape(-1, *(1,) * (x.ndim - 1))
            kwargs = kwargs | {"mask": jnp.broadcast_to(one_an_example, x.shape)}
        return layer_call(*args, **kwargs)

    return give


class _Seen(NamedTuple):
    """What layers do in one mode.

    Attributes:
      drops: by path of a dropout, whether it drops.
      norms: the paths of batch norms.
    """

    drops: dict[str, bool]
    norms: set[str]


def _check_modes(
    module: nn.Module,
    made: Callable[[Key, Batch], dict[str, Any]],
    call: Callable[..., Any],
    batch: Mapping[str, jax.ShapeDtypeStruct],
    *,
    mask: bool,
    named: str | None,
) -> None:
    """Traces the module in training and in evaluation, and refuses what does not fit its mode."""
    name = type(module).__name__
    variables = jax.eval_shape(made, jax.random.key(0), dict(batch))
    stats = {kind: values for kind, values in variables.items() if kind != "params"}
    mutable: dict[str, Any] = {"mutable": list(stats)} if stats else {}

    def seen(train: bool) -> _Seen:
        found = _Seen({}, set())
        key = jax.random.key(0)

        def run(variables, batch):
            with nn.intercept_methods(_watching(found)):
                rngs = _streams(key) if train else {}
                return call(variables, batch, train, rngs, **(mutable if train else {}))

        jax.eval_shape(run, variables, dict(batch))
        return found

    try:
        seen(train=False)
    except errors.InvalidRngError as error:
        asked = re.search(r'for "(\w+)"', str(error))
        raise SpecError(
            f"from_linen: {name} draws random numbers in evaluation"
            + (f", from the stream {asked[1]!r}" if asked else "")
            + "; a prediction must not: let it draw in training alone and pass train_argument="
        ) from error
    except errors.ModifyScopeVariableError as error:
        raise SpecError(
            f"from_linen: {name} moves its statistics in evaluation too; let it be told whether it "
            "trains, as by nn.BatchNorm(use_running_average=not train), and pass train_argument="
        ) from error
    training = seen(train=True)
    still = sorted(path for path, drops in training.drops.items() if not drops)
    if still:
        argument = f"through {named!r} " if named else ""
        raise SpecError(
            f"from_linen: the dropout {still[0]!r} of {name} drops nothing in training; let it be "
            f"told {argument}whether the module trains, or set its rate to 0"
        )
    if not mask:
        _check_statistics(name, stats, training.norms)


def _watching(found: _Seen) -> Callable[..., Any]:
    def watch(layer_call, args, kwargs, context):
        layer, path = context.module, "/".join(context.module.path)
        if context.method_name == "__call__":
            if isinstance(layer, nn.Dropout) and layer.rate > 0:
                given = args[1] if len(args) > 1 else kwargs.get("deterministic")
                still = layer.deterministic if given is None else given
                found.drops[path] = found.drops.get(path, False) or not still
            if isinstance(layer, nn.BatchNorm):
                found.norms.add(path)
        return layer_call(*args, **kwargs)

    return watch


def _check_statistics(name: str, stats: PyTree, norms: set[str]) -> None:
    """Raises SpecError for statistics that are not a batch norm's."""
    for path in paths(stats):
        owner = path.partition("/")[2].rpartition("/")[0]
        if owner not in norms:
            raise SpecError(
                f"from_linen: {name} keeps the statistic {path!r}, which the examples that pad a "
                "batch would enter: give the module a 'mask' argument and pass "
                "from_linen(..., mask=True), or use nn.BatchNorm, GroupNorm or LayerNorm"
            )
