"""What clients and the reducer report of a round: which names and shapes a run can show."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from floral.errors import SpecError
from floral.messages import Upload
from floral.typing import PyTree
from floral.uplink.base import Uplink

__all__ = ["check_reported", "reported_by_reducer", "shown_name"]

_SIMULATORS_OWN = ("cohort", "uplink", "non_finite", "first_non_finite", "dropped")
_RUNS_OWN = ("clients",)


def shown_name(name: str) -> str:
    """The name by which a run shows what clients report: that of the mean for a sum over examples.

    Example:
      >>> shown_name("loss_sum"), shown_name("examples")
      ('loss', 'examples')
    """
    return name.removesuffix("_sum")


def check_reported(metrics: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Refuses what cannot be summed over clients and shown in a round's line.

    Args:
      metrics: structs of what ``client_update`` reports of one client.
      told: structs of what the reducer reports of a round.

    Raises:
      SpecError: for metrics that are no mapping, a value that is not one real number, a name that
        the simulator or the line has for something else, two names that are shown as one, and
        sums over examples without their count.
    """
    if not isinstance(metrics, Mapping):
        raise SpecError(
            "client_update: expected its metrics as {name: one number}, got "
            f"{type(metrics).__name__}"
        )
    _check_numbers("client_update", metrics)
    _check_numbers("uplink.reduce", told)
    shown: dict[str, str] = {}
    for name in metrics:
        if name in _SIMULATORS_OWN or shown_name(name) in _RUNS_OWN:
            raise SpecError(
                f"client_update: the metric {name!r} has a name that a round's line uses for "
                "something else; give it another"
            )
        if (other := shown.setdefault(shown_name(name), name)) != name:
            raise SpecError(
                f"client_update: the metrics {other!r} and {name!r} would both be shown as "
                f"{shown_name(name)!r}; give one another name"
            )
        if shown_name(name) != name and "examples" not in metrics:
            raise SpecError(
                f"client_update: the metric {name!r} is a sum over examples, and there is no "
                "metric 'examples' to divide it by"
            )


def reported_by_reducer(uplink: Uplink, upload: Upload, server: PyTree, *, room: int) -> PyTree:
    """Structs of what the reducer reports of a round; nothing is computed.

    Args:
      uplink: how updates become one.
      upload: structs of what one client sends.
      server: structs of the server's state.
      room: clients in a cohort.
    """

    def told(upload, server):
        if uplink.reduce.fold is not None:
            sums = uplink.reduce.fold.zero(upload.update, upload.weight)
            return uplink.reduce.fold.finish(sums, server).diagnostics or {}
        everyone = jax.tree.map(
            lambda leaf: jnp.zeros((room, *leaf.shape), leaf.dtype), (upload.update, upload.weight)
        )
        state = uplink.reduce.init(upload.update)
        reduced, _ = uplink.reduce.reduce(*everyone, state, key=jax.random.key(0), server=server)
        return reduced.diagnostics or {}

    return jax.eval_shape(told, upload, server)


def _check_numbers(who: str, metrics: Mapping[str, Any]) -> None:
    for name, value in metrics.items():
        if _is_real_number(value):
            continue
        kind = type(value).__name__
        got = f"{value.dtype}{list(value.shape)}" if hasattr(value, "dtype") else kind
        raise SpecError(
            f"{who}: the metric {name!r} must be one real number that is summed over clients, got "
            f"{got}; report its parts under names of their own"
        )


def _is_real_number(value: Any) -> bool:
    if not hasattr(value, "dtype") or value.shape != ():
        return False
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    return any(jnp.issubdtype(value.dtype, kind) for kind in kinds)
