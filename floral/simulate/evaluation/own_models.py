"""One client's own model: what it keeps, what it predicts, and its params to take away."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from floral import check
from floral.errors import SpecError
from floral.simulate.clients import holdings
from floral.simulate.evaluation.personalize import ModelOf, OwnModel
from floral.simulate.evaluation.reach import How, Reach
from floral.simulate.shard import replicate
from floral.simulate.state import SimulationState
from floral.typing import Array, Params, PyTree

__all__ = ["OwnModels"]


class OwnModels:
    """The models of single clients; a simulator's own, made by ``make_simulator``."""

    def __init__(self, reach: Reach):
        self._reach = reach
        self._own_model: dict[How, Callable[..., OwnModel]] = {}

    def client(self, state: SimulationState, client_id: int) -> PyTree:
        """A client's state, personalized where need be."""
        return self._model(self._reach.ready(state), client_id).row

    def predict(self, state: SimulationState, client_id: int, x: Any) -> Any:
        """The outputs of a client's own model on inputs [B, ...].

        Raises:
          SpecError: for inputs of another shape or kind of number than the examples.
        """
        inputs = replicate(self._inputs(x), self._reach.mesh)
        mask = replicate(jnp.ones((inputs.shape[0],), bool), self._reach.mesh)
        model = self._model(self._reach.ready(state), client_id)
        return self._reach.algorithm.predict(*model, {"x": inputs, "mask": mask})

    def export(self, state: SimulationState, client_id: int) -> Params:
        """A client's own model as one plain params tree.

        Raises:
          SpecError: for an algorithm whose clients' models are no single params tree.
        """
        if self._reach.algorithm.export is None:
            raise SpecError(
                "this algorithm mixes outputs, not parameters: there is no single model to "
                "export; use predict"
            )
        return self._reach.algorithm.export(*self._model(self._reach.ready(state), client_id))

    def _inputs(self, x: Any) -> Array:
        """The inputs as the model takes them; lists of whole numbers are floats where examples are.

        Whole numbers in an array are refused there: they are often bytes, on another scale.
        """
        examples = self._reach.dataset.splits["train"].examples["x"]
        shape, dtype = tuple(examples.shape[1:]), np.dtype(examples.dtype)
        expected = f"x: expected inputs {check.shown(('B', *shape))} as the examples have"
        try:
            given = x if hasattr(x, "dtype") else np.asarray(x)
        except ValueError:
            raise SpecError("x: expected inputs [B, ...], got rows of unlike shapes") from None
        if given.dtype.kind in "OUSMm":
            raise SpecError(f"{expected}, of {dtype}, got {check.described(x)}")
        if np.ma.is_masked(given):
            raise SpecError("x: some of its numbers are masked; fill them, as x.filled(0.0)")
        if not hasattr(x, "dtype") and given.dtype.kind in "iu" and dtype.kind == "f":
            given = given.astype(dtype)
        if given.ndim != len(shape) + 1 or tuple(given.shape[1:]) != shape:
            hint = "; add the batch axis, as x[None]" if tuple(given.shape) == shape else ""
            raise SpecError(f"{expected}, got {check.shown(given.shape)}{hint}")
        if not _same_kind(given.dtype, dtype):
            raise SpecError(
                f"{expected}, of {dtype}, got {given.dtype}; cast and scale them as the training "
                "data were"
            )
        if not isinstance(given, jax.Array):
            given = _cast(given, dtype, expected)
        return jnp.asarray(given, dtype)

    def _model(self, state: SimulationState, client_id: int) -> OwnModel:
        """What a client predicts with, of a state that is ready."""
        (known,) = self._reach.known([client_id])
        how = self._reach.personalization if self._reach.anew[known] else None
        ids = np.full(self._reach.mesh.size, known, np.int32)
        held = (
            self._reach.feed("train", ids)
            if how is not None and self._reach.feed is not None
            else None
        )
        if how not in self._own_model:
            one = _one_model(self._reach.model_of(how))
            self._own_model[how] = self._reach.compiled(one)
        state = self._reach.with_rows(state, ids if how is None else None)
        return self._own_model[how](state, self._reach.data, held, np.int32(0), np.int32(known))


def _same_kind(one: Any, other: Any) -> bool:
    """Whether both are floats, whole numbers or booleans, of any width."""
    if np.dtype(one) == np.dtype(other):
        return True
    for kind in (jnp.floating, jnp.integer):
        if jnp.issubdtype(one, kind) and jnp.issubdtype(other, kind):
            return True
    return False


def _cast(given: np.ndarray, dtype: np.dtype, expected: str) -> np.ndarray:
    """The numbers in the examples' dtype; SpecError for one that it cannot hold."""
    with np.errstate(over="ignore", invalid="ignore"):
        cast = given.astype(dtype)
    if dtype.kind in "iu":
        wrong = np.asarray(cast != given)
    else:
        wrong = np.isfinite(given) & ~np.isfinite(cast)
    if wrong.any():
        raise SpecError(f"{expected}, of {dtype}, which cannot hold {given[wrong][0]}")
    return cast


def _one_model(model_of: ModelOf) -> Callable[..., OwnModel]:
    def model(state, data, held, place, client):
        if held is None and data.examples:
            held = holdings(data, "train", client[None])
        return model_of(state, data, held, place, client)

    return model
