"""What the toolkit knows of a model: two pure functions.

A model's params are any pytree. Linen's stay as linen gives them (``{"params": {...}}``), so a
path rule reads ``params/Dense_0/kernel``; NNX's and equinox's become plain trees.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from floral.check import described
from floral.display import functions
from floral.errors import SpecError
from floral.random import stream
from floral.typing import Batch, Key, Params, PyTree

__all__ = [
    "Apply",
    "Model",
    "augmented",
    "from_function",
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
      >>> import jax
      >>> import jax.numpy as jnp
      >>> double = from_function(lambda key, x: (), lambda params, x: 2 * x)
      >>> noisy = augmented(double, lambda key, batch: {"x": batch["x"] + 1})
      >>> batch, key = {"x": jnp.ones(1)}, jax.random.key(0)
      >>> [noisy.apply((), (), batch, key=key, train=train)[0].item() for train in (True, False)]
      [4.0, 2.0]
    """

    if not isinstance(model, Model):
        raise SpecError(f"augmented takes a Model, as fl.models.mlp(10), got {described(model)}")
    if not callable(augment):
        raise SpecError(f"augment must be a function of (key, batch), got {described(augment)}")

    def apply(params, stats, batch, *, key=None, train=False):
        if train and key is not None:
            batch = augment(stream(key, "augment"), batch)
        return model.apply(params, stats, batch, key=key, train=train)

    return model._replace(apply=apply)


def from_function(init: Callable[[Key, Any], Params], apply: Callable[[Params, Any], Any]) -> Model:
    """A model of ``init(key, x) -> params`` and ``apply(params, x) -> outputs``.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> model = from_function(
      ...     lambda key, x: {"w": jnp.ones((x.shape[-1], 2))}, lambda params, x: x @ params["w"]
      ... )
      >>> batch = {"x": jnp.ones((4, 3))}
      >>> params, stats = model.init(jax.random.key(0), batch)
      >>> model.apply(params, stats, batch)[0].shape
      (4, 2)
    """

    for name, function in (("init", init), ("apply", apply)):
        if not callable(function):
            raise SpecError(
                f"from_function: {name} must be a function, got {described(function)}; a flax "
                "module is wrapped by from_linen or from_nnx"
            )

    def model_apply(params, stats, batch, *, key=None, train=False):
        return apply(params, batch["x"]), stats

    return Model(init=lambda key, batch: (init(key, batch["x"]), ()), apply=model_apply)
