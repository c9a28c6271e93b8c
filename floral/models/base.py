"""What the toolkit knows of a model: two pure functions, and adapters from the usual libraries.

A model's params are any pytree. Linen's stay as linen gives them (``{"params": {...}}``), so a
path rule reads ``params/Dense_0/kernel``; NNX's and equinox's become plain trees.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from floral.display import functions
from floral.errors import SpecError
from floral.random import stream
from floral.typing import Batch, Key, Params, PyTree

__all__ = [
    "Apply",
    "Model",
    "augmented",
    "from_equinox",
    "from_function",
    "from_linen",
    "from_nnx",
]


class Apply(Protocol):
    """``(params, stats, batch, *, key=None, train=False) -> (outputs [B, ...], stats)``."""

    def __call__(
        self,
        params: Params,
        stats: PyTree,
        batch: Batch,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[Any, PyTree]: ...


class Model(NamedTuple):
    """A model as two pure functions.

    Attributes:
      init: ``(key, batch) -> (params, stats)``. Stats hold what is carried but not trained, such
        as batch norm's running moments; ``()`` if there are none.
      apply: see ``Apply``. Where ``stats`` is not ``()``, padded examples (``batch["mask"]``
        False) must not enter them.
      features: ``(params, stats, batch) -> [B, d]``, the representation before the last layer;
        None for a model that does not say.
    """

    init: Callable[[Key, Batch], tuple[Params, PyTree]]
    apply: Apply
    features: Callable[[Params, PyTree, Batch], Any] | None = None

    def __repr__(self) -> str:
        return functions(self, "Model", self._fields)


def augmented(model: Model, augment: Callable[[Key, Batch], Batch]) -> Model:
    """The model that sees augmented inputs in training, and the inputs themselves in evaluation.

    Every algorithm trains a model with ``train=True`` and the step's own key, so that each step
    draws anew, whoever walks the clients and in whatever order.

    Args:
      model: any model.
      augment: ``(key, batch) -> batch``, as ``floral.data.flip_crop()``; the loss still sees
        the batch as it was.

    Example:
      >>> import jax.numpy as jnp
      >>> double = from_function(lambda key, x: (), lambda params, x: 2 * x)
      >>> noisy = augmented(double, lambda key, batch: {"x": batch["x"] + 1})
      >>> batch, key = {"x": jnp.ones(1)}, jax.random.key(0)
      >>> [noisy.apply((), (), batch, key=key, train=train)[0].item() for train in (True, False)]
      [4.0, 2.0]
    """

    def apply(params, stats, batch, *, key=None, train=False):
        if train and key is not None:
            batch = augment(stream(key, "augment"), batch)
        return model.apply(params, stats, batch, key=key, train=train)

    return model._replace(apply=apply)


def from_function(init: Callable[[Key, Any], Params], apply: Callable[[Params, Any], Any]) -> Model:
    """A model of ``init(key, x) -> params`` and ``apply(params, x) -> outputs``.

    Example:
      >>> import jax.numpy as jnp
      >>> model = from_function(
      ...     lambda key, x: {"w": jnp.ones((x.shape[-1], 2))}, lambda params, x: x @ params["w"]
      ... )
      >>> batch = {"x": jnp.ones((4, 3))}
      >>> params, stats = model.init(jax.random.key(0), batch)
      >>> model.apply(params, stats, batch)[0].shape
      (4, 2)
    """

    def model_apply(params, stats, batch, *, key=None, train=False):
        return apply(params, batch["x"]), stats

    return Model(init=lambda key, batch: (init(key, batch["x"]), ()), apply=model_apply)


def from_linen(
    module: Any,
    *,
    train_argument: str | None = None,
    mask: bool = False,
    features_argument: str | None = None,
) -> Model:
    """A model of a ``flax.linen`` module called on ``batch["x"]``.

    Collections other than ``params`` become the model's stats. A dropout key is passed in
    training as the rng ``dropout``.

    Args:
      module: the linen module.
      train_argument: the keyword of ``module.__call__`` that says whether it trains
        (``"train"``); None if it has none.
      mask: whether ``module.__call__`` takes ``mask=[B]``. Required of a module that keeps
        batch statistics: the examples that pad a batch must not enter them.
      features_argument: the keyword of ``module.__call__`` that, set to True, has it return what
        its last layer would see, ``[B, d]``; None if it has none.

    Raises:
      SpecError: when initialised, if the module keeps statistics and takes no mask.
    """

    def arguments(batch: Batch, train: bool) -> dict[str, Any]:
        given: dict[str, Any] = {} if train_argument is None else {train_argument: train}
        return given | {"mask": batch["mask"]} if mask else given

    def init(key, batch):
        params_key, dropout_key = jax.random.split(key)
        variables = dict(
            module.init(
                {"params": params_key, "dropout": dropout_key},
                batch["x"],
                **arguments(batch, train=False),
            )
        )
        params = {"params": variables.pop("params", {})}
        if variables and not mask:
            raise SpecError(
                f"{type(module).__name__} keeps the statistics {sorted(variables)}, which the "
                "examples that pad a batch would enter: give the module a 'mask' argument and "
                "pass from_linen(..., mask=True), or use GroupNorm or LayerNorm"
            )
        return params, variables or ()

    def apply(params, stats, batch, *, key=None, train=False):
        rngs = {"dropout": key} if train and key is not None else {}
        variables = params | (stats or {})
        given = arguments(batch, train)
        if not stats or not train:
            return module.apply(variables, batch["x"], rngs=rngs, **given), stats
        return module.apply(variables, batch["x"], rngs=rngs, mutable=list(stats), **given)

    def features(params, stats, batch):
        asked = arguments(batch, train=False) | {str(features_argument): True}
        return module.apply(params | (stats or {}), batch["x"], **asked)

    return Model(init=init, apply=apply, features=features if features_argument else None)


def from_nnx(make: Callable[[Any], Any]) -> Model:
    """A model of a ``flax.nnx`` module that holds only parameters.

    Args:
      make: builds the module from ``nnx.Rngs``, as in ``lambda rngs: nnx.Linear(3, 2, rngs=rngs)``.

    Raises:
      SpecError: when initialised, if the module holds variables other than ``nnx.Param``
        (batch statistics, dropout keys).
    """
    from flax import nnx

    def init(key, batch):
        _, params, rest = nnx.split(make(nnx.Rngs(key)), nnx.Param, ...)
        others = list(nnx.to_pure_dict(rest))
        if others:
            raise SpecError(
                f"the NNX module holds more than parameters ({others}): its statistics and keys "
                "are not handled; use GroupNorm or LayerNorm, and no dropout"
            )
        return nnx.to_pure_dict(params), ()

    def apply(params, stats, batch, *, key=None, train=False):
        graph, abstract = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
        nnx.replace_by_pure_dict(abstract, params)
        return nnx.merge(graph, abstract)(batch["x"]), stats

    return Model(init=init, apply=apply)


def from_equinox(make: Callable[[Key], Any]) -> Model:
    """A model of an ``equinox`` module of one example, mapped over the batch.

    Args:
      make: builds the module from a key, as in ``lambda key: eqx.nn.Linear(3, 2, key=key)``.
    """
    import equinox as eqx

    def init(key, batch):
        return eqx.filter(make(key), eqx.is_inexact_array), ()

    def apply(params, stats, batch, *, key=None, train=False):
        skeleton = eqx.filter_eval_shape(make, jax.random.key(0))
        static = eqx.filter(skeleton, lambda leaf: not hasattr(leaf, "shape"))
        return jax.vmap(eqx.combine(params, static))(batch["x"]), stats

    return Model(init=init, apply=apply)
