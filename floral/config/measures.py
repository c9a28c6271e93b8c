"""The loss and the metrics of a config: those of the library, and one's own by module:name."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax

from floral import losses
from floral.config import areas as places
from floral.config.areas import SCHEMA
from floral.config.schema.signature import takes_wiring
from floral.data import FederatedDataset
from floral.errors import ConfigError, SpecError
from floral.metrics import Metric, accuracy, from_per_example
from floral.simulate.checks.fit import as_metrics
from floral.typing import Batch, Loss, PyTree

__all__ = ["check_one_number", "loss_of", "metrics_of", "smaller_is_better"]

_ALWAYS = ("loss", "accuracy")
_ERRORS = ("mae", "rmse")


def loss_of(name: str, dataset: FederatedDataset) -> Loss:
    """The loss of a config.

    A function of one's own without positional arguments is a factory, which is called.

    Raises:
      ConfigError: for cross_entropy without classes, or a factory that makes no function.
    """
    if name == "auto":
        return losses.squared_error if dataset.num_classes is None else losses.cross_entropy
    if name == "cross_entropy" and dataset.num_classes is None:
        raise ConfigError("loss: cross_entropy needs classes, but the data's targets are numbers")
    function = SCHEMA.function(places.LOSS, name)
    made: Any = function if takes_wiring(function) else function()
    if not callable(made):
        raise ConfigError(
            f"loss: {name} must be a function of (outputs, batch), or make one, got "
            f"{type(made).__name__}"
        )
    return cast(Loss, made)


def metrics_of(
    config: Mapping[str, Any], loss: Loss, dataset: FederatedDataset
) -> dict[str, Metric]:
    """The loss, the accuracy where there are classes, and the metrics of a config.

    Raises:
      ConfigError: for a name that cannot head a column or is always there, or what is no metric.
    """
    always = {"loss": from_per_example(loss)}
    if dataset.num_classes is not None:
        always["accuracy"] = accuracy()
    asked = config["metrics"] or {}
    for name in asked:
        if name in _ALWAYS:
            raise ConfigError(
                f"metrics.{name}: the loss, and the accuracy of classes, are always measured; "
                "choose another name"
            )
        if not re.fullmatch(r"[A-Za-z]\w*", name):
            raise ConfigError(
                f"metrics: {name!r} heads a column of tables; choose a name of letters, digits "
                "and underscores"
            )
    try:
        return as_metrics(always | {name: _made(name, asked[name]) for name in asked})
    except SpecError as error:
        raise ConfigError(str(error)) from error


def smaller_is_better(config: Mapping[str, Any], asked: tuple[str, ...]) -> frozenset[str]:
    """The names of metrics whose largest values are the worst.

    Args:
      config: with its metrics.
      asked: ``evaluate.smaller_is_better``.

    Raises:
      ConfigError: for a name that no metric has.
    """
    kinds = {name: chosen["kind"] for name, chosen in (config["metrics"] or {}).items()}
    for name in asked:
        if name not in (*kinds, "loss"):
            known = ", ".join(kinds) or "none but the loss"
            raise ConfigError(
                f"evaluate.smaller_is_better: no metric is called {name!r}; there are {known}"
            )
    errors = (name for name, kind in kinds.items() if kind in _ERRORS)
    return frozenset({"loss", *errors, *asked})


def check_one_number(
    metrics: Mapping[str, Metric],
    apply: Callable[..., Any],
    params: PyTree,
    stats: PyTree,
    batch: Batch,
) -> None:
    """Raises ConfigError for a metric of more than one number a client; nothing is computed."""
    outputs, _ = jax.eval_shape(lambda *given: apply(*given), params, stats, batch)
    for name, metric in metrics.items():
        sums = jax.eval_shape(metric.from_outputs, outputs, batch)
        value = jax.eval_shape(metric.compute, sums)
        if getattr(value, "shape", None) != ():
            got = "a tree" if not hasattr(value, "shape") else f"shape {value.shape}"
            raise ConfigError(f"metrics.{name}: expected one number a client, got {got}")


def _made(name: str, mapping: Mapping[str, Any]) -> Any:
    """A metric, or a function of (outputs, batch)."""
    (call,) = SCHEMA.bind(places.METRIC, mapping, where=f"metrics.{name}")
    if takes_wiring(call.factory):
        return functools.partial(call.factory, **call.settings)
    return call()
