"""Where evaluations find clients: their rows, their examples, and what each predicts with."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from floral.algorithms.base import FederatedAlgorithm
from floral.data import FederatedDataset
from floral.simulate.clients import DeviceData
from floral.simulate.evaluation.personalize import (
    ModelOf,
    Personalization,
    given_model,
    kept_model,
    new_model,
)
from floral.simulate.feed import Feed
from floral.simulate.shard import replicate, replicated, sharded
from floral.simulate.state import SimulationState
from floral.simulate.table import check_current, read_rows
from floral.typing import PyTree

__all__ = ["How", "Reach"]

How = Personalization | None
"""What clients do before they predict; None predicts with the row that is kept."""


class Reach:
    """All that the evaluations of one simulator share.

    Args:
      algorithm: what a client's own model is.
      personalization: what a client that keeps no row does before it predicts.
      dataset: the population.
      mesh: the devices that share clients.
      data: the population on them.
      feed: gives examples that live on the host; None where they do not.
      struct: the simulator's state as structs, all rows on the devices.
      anew: [N] bool, who keeps no row of use.
      row_bytes: of a client's row where rows live on the host; None where they do not.
      prepare: changes a function before it is compiled.
    """

    def __init__(
        self,
        algorithm: FederatedAlgorithm,
        personalization: Personalization,
        dataset: FederatedDataset,
        mesh: Mesh,
        data: DeviceData,
        feed: Feed | None,
        struct: SimulationState,
        *,
        anew: np.ndarray,
        row_bytes: int | None,
        prepare: Callable[[Callable[..., Any]], Callable[..., Any]],
    ):
        self.algorithm = algorithm
        self.personalization = personalization
        self.dataset = dataset
        self.mesh = mesh
        self.data = data
        self.feed = feed
        self._struct = struct
        self.anew = anew
        self.row_bytes = row_bytes
        self._prepare = prepare

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, compiled; every process sees the whole of what it returns."""
        return jax.jit(self._prepare(function), out_shardings=replicated(self.mesh))

    def model_of(self, how: How) -> ModelOf:
        """What a client predicts with."""
        if how is not None:
            max_size = self.dataset.splits["train"].max_size
            return new_model(self.algorithm, how, max_size=max_size)
        return kept_model if self.row_bytes is None else given_model

    def ready(self, state: SimulationState) -> SimulationState:
        """The state on the devices, without the best snapshot, which nothing here reads, and with
        rows that live on the host left there."""
        check_current(state, self._struct, host=self.row_bytes is not None)
        if self.row_bytes is None:
            return replicate(state._replace(best=()), self.mesh)
        ready = replicate(state._replace(best=(), table=()), self.mesh)
        return ready._replace(table=state.table)

    def with_rows(self, state: SimulationState, ids: np.ndarray | None) -> SimulationState:
        """The state with the rows of these clients alone, where rows live on the host."""
        if self.row_bytes is None:
            return state
        if ids is None:
            return state._replace(table=())
        client = read_rows({"client": state.table["client"]}, ids)
        return state._replace(table=jax.device_put(client, sharded(self.mesh)))

    def known(self, clients: Any) -> np.ndarray:
        """The ids of clients, by id, name or mask; raises SpecError for one that there is not."""
        return self.dataset.ids_of(clients)

    def of_clients(self, filled: np.ndarray, report: PyTree) -> dict[str, Any]:
        """A block's report on the host, without its empty places."""
        real = filled < self.dataset.num_clients
        report = jax.tree.map(lambda leaf: np.asarray(leaf)[real], report)
        return {"client": filled[real], **report}
