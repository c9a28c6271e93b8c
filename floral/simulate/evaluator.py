"""Evaluations, compiled: clients in blocks of few sizes, whoever is asked for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from floral import check
from floral.algorithms.base import FederatedAlgorithm
from floral.data import FederatedDataset
from floral.errors import SpecError
from floral.metrics.base import Metric
from floral.simulate.clients import DeviceData, first_of, holdings
from floral.simulate.diagnose import make_diagnose
from floral.simulate.evaluate import make_evaluate
from floral.simulate.feed import Feed
from floral.simulate.personalize import (
    ModelOf,
    OwnModel,
    Personalization,
    given_model,
    kept_model,
    new_model,
)
from floral.simulate.shard import deal, replicate, replicated, sharded
from floral.simulate.state import SimulationState
from floral.simulate.table import check_current, read_rows
from floral.typing import Params, PyTree

__all__ = ["Evaluator"]

_How = Personalization | None
"""What clients do before they predict; None predicts with the row that is kept."""

_LARGEST_SHARE = 256  # clients of a block on one device
_MOST_EXAMPLES = 2**31 - 1
_MOST_ROWS = 2**28  # bytes of their rows, where these come from the host


class Evaluator:
    """What clients' own models are worth; a simulator's own, made by ``make_simulator``."""

    def __init__(
        self,
        algorithm: FederatedAlgorithm,
        metrics: Mapping[str, Metric],
        personalization: Personalization,
        dataset: FederatedDataset,
        mesh: Mesh,
        data: DeviceData,
        feed: Feed | None,
        *,
        batch_size: int,
        anew: np.ndarray,
        row_bytes: int | None,
        side_by_side: Callable[[int], int],
        trained_together: int,
        prepare: Callable[[Callable[..., Any]], Callable[..., Any]],
    ):
        self._algorithm = algorithm
        self._metrics = metrics
        self._dataset = dataset
        self._mesh = mesh
        self._data = data
        self._feed = feed
        self._batch_size = batch_size
        self._side_by_side = side_by_side
        self._prepare = prepare
        self._trained_together = trained_together
        self._personalization = personalization
        self._anew = anew
        # Bytes of a client's row where rows live on the host; None where they do not.
        self._row_bytes = row_bytes
        self._own_model: dict[_How, Callable[..., OwnModel]] = {}
        self._compiled: dict[tuple[str, _How], Callable[..., Any]] = {}
        self._asking: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def evaluate(
        self,
        state: SimulationState,
        split: str = "test",
        clients: Sequence[int] | None = None,
        personalization: Personalization | None = None,
    ) -> dict[str, Any]:
        """Every asked client's metrics, in the order of their ids; all join anew by the
        personalization, where one is given."""
        check.one_of(self._dataset.splits, split=split)
        everyone = np.arange(self._dataset.num_clients)
        ids = self._known(everyone if clients is None else clients)
        state = self._ready(state)
        groups: list[tuple[_How, np.ndarray]] = [(personalization, ids)]
        if personalization is None:
            anew = self._anew[ids]
            groups = [(None, ids[~anew]), (self._personalization, ids[anew])]
        reports = [
            report
            for how, some in groups
            if some.size
            for report in self._in_blocks(state, split, how, some)
        ]
        joined = jax.tree.map(lambda *columns: np.concatenate(columns), *reports)
        order = np.argsort(joined["client"], kind="stable")
        return jax.tree.map(lambda column: column[order], joined)

    def diagnose(
        self,
        state: SimulationState,
        clients: Sequence[int],
        groups: Sequence[int],
        *,
        num_groups: int,
        split: str = "train",
        examples: int = 16,
    ) -> dict[str, Any]:
        """What these clients lose with each adaptor alone, and how their gradients vary.

        Args:
          state: to look at.
          clients: [n] ids, of clients that train or of those that never do.
          groups: [n] integers from 0, the group of each.
          num_groups: how many there are.
          split: whose examples losses are of; gradients are of training examples.
          examples: how many a client shows of each at most, evenly spaced over what it has.

        Raises:
          SpecError: for an algorithm without diagnostics, and for clients of both kinds.
        """
        check.one_of(self._dataset.splits, split=split)
        check.positive_int(examples=examples, num_groups=num_groups)
        if self._algorithm.diagnostics is None:
            raise SpecError("this algorithm has no bank that clients share and mix to diagnose")
        ids = self._known(clients)
        anew = bool(self._anew[ids[0]])
        if np.any(self._anew[ids] != anew):
            raise SpecError("clients: those that train and those that never do are asked apart")
        devices = self._mesh.size
        empty = -len(ids) % devices
        ids = np.append(ids, np.full(empty, self._dataset.num_clients)).astype(np.int32)
        group = np.append(np.asarray(groups), np.zeros(empty)).astype(np.int32)
        settings = (split, examples, num_groups, anew)
        if settings not in self._asking:
            self._asking[settings] = self._compile_asking(*settings)
        trained = held = None
        if self._feed is not None:
            trained, held = self._feed("train", ids), self._feed(split, ids)
        state = self._with_rows(self._ready(state), None if anew else ids)
        ids_there, group_there = replicate((ids, group), self._mesh)
        told = self._asking[settings](state, self._data, ids_there, group_there, trained, held)
        variances = jax.tree.map(np.asarray, told.pop("variances"))
        return {**self._of_clients(ids, told), "variances": variances}

    def client(self, state: SimulationState, client_id: int) -> PyTree:
        """A client's state, personalized where need be."""
        return self._model(self._ready(state), client_id).row

    def predict(self, state: SimulationState, client_id: int, x: Any) -> Any:
        """The outputs of a client's own model."""
        inputs = replicate(jnp.asarray(x), self._mesh)
        mask = replicate(jnp.ones((inputs.shape[0],), bool), self._mesh)
        model = self._model(self._ready(state), client_id)
        return self._algorithm.predict(*model, {"x": inputs, "mask": mask})

    def export(self, state: SimulationState, client_id: int) -> Params:
        """A client's own model as one plain params tree.

        Raises:
          SpecError: for an algorithm whose clients' models are no single params tree.
        """
        if self._algorithm.export is None:
            raise SpecError(
                "this algorithm mixes outputs, not parameters: there is no single model to "
                "export; use predict"
            )
        return self._algorithm.export(*self._model(self._ready(state), client_id))

    def _model(self, state: SimulationState, client_id: int) -> OwnModel:
        """What a client predicts with, of a state that is ready."""
        (known,) = self._known([client_id])
        how = self._personalization if self._anew[known] else None
        ids = np.full(self._mesh.size, known, np.int32)
        held = self._feed("train", ids) if how is not None and self._feed is not None else None
        if how not in self._own_model:
            one = self._prepare(self._one_model(self._model_of(how)))
            self._own_model[how] = jax.jit(one, out_shardings=replicated(self._mesh))
        state = self._with_rows(state, ids if how is None else None)
        return self._own_model[how](state, self._data, held, np.int32(0), np.int32(known))

    def _model_of(self, how: _How) -> ModelOf:
        if how is not None:
            max_size = self._dataset.splits["train"].max_size
            return new_model(self._algorithm, how, max_size=max_size)
        return kept_model if self._row_bytes is None else given_model

    def _ready(self, state: SimulationState) -> SimulationState:
        """The state on the devices, without the best snapshot, which nothing here reads, and with
        rows that live on the host left there."""
        check_current(state, host=self._row_bytes is not None)
        if self._row_bytes is None:
            return replicate(state._replace(best=()), self._mesh)
        ready = replicate(state._replace(best=(), table=()), self._mesh)
        return ready._replace(table=state.table)

    def _with_rows(self, state: SimulationState, ids: np.ndarray | None) -> SimulationState:
        """The state with the rows of these clients alone, where rows live on the host."""
        if self._row_bytes is None:
            return state
        if ids is None:
            return state._replace(table=())
        client = read_rows({"client": state.table["client"]}, ids)
        return state._replace(table=jax.device_put(client, sharded(self._mesh)))

    def _known(self, clients: Any) -> np.ndarray:
        ids = np.asarray(clients)
        count = self._dataset.num_clients
        if ids.size == 0 or ids.min() < 0 or ids.max() >= count:
            raise SpecError(f"clients must be ids from 0 to {count - 1}, got {clients!r}")
        return ids

    def _in_blocks(self, state: SimulationState, split: str, how: _How, ids: np.ndarray):
        """Reports of clients of one kind: the largest first, in blocks as large as a power of two.

        Few sizes of blocks mean few compilations, whatever clients are asked for.
        """
        devices = self._mesh.size
        each = -(-len(ids) // devices)
        largest = _LARGEST_SHARE
        if self._row_bytes and how is None:
            largest = min(largest, 1 << max(0, (_MOST_ROWS // self._row_bytes).bit_length() - 1))
        share = min(largest, 1 << (each - 1).bit_length())
        block = share * devices
        together = min(self._together(split, how), share)
        sizes = np.append(self._dataset.splits[split].sizes, 0)  # nobody has none
        ids = ids[np.argsort(-sizes[ids], kind="stable")]
        ahead = None  # no more than two blocks are on the devices
        for first in range(0, len(ids), block):
            some = ids[first : first + block]
            filled = np.full(block, self._dataset.num_clients, np.int32)
            filled[: len(some)] = some
            filled = filled[deal(sizes[filled], devices, share, together)]
            following = filled, self._block(state, split, how, filled)
            if ahead is not None:
                yield self._of_clients(*ahead)
            ahead = following
        if ahead is not None:
            yield self._of_clients(*ahead)

    def _of_clients(self, filled: np.ndarray, report: PyTree) -> dict[str, Any]:
        """A block's report on the host, without its empty places."""
        real = filled < self._dataset.num_clients
        report = jax.tree.map(lambda leaf: np.asarray(leaf)[real], report)
        return {"client": filled[real], **report}

    def _block(self, state: SimulationState, split: str, how: _How, ids: np.ndarray) -> PyTree:
        # How many examples a client may use is an argument, so that curves over it compile once.
        kind, limit = (None, None) if how is None else (how._replace(limit=None), how.limit)
        limit = np.int32(_MOST_EXAMPLES if limit is None else limit)
        if (split, kind) not in self._compiled:
            self._compiled[split, kind] = self._compile(split, kind)
        trained = held = None
        if self._feed is not None:
            held = self._feed(split, ids)
            trained = None if how is None else self._feed("train", ids)
        state = self._with_rows(state, ids if how is None else None)
        return self._compiled[split, kind](
            state, self._data, replicate(ids, self._mesh), trained, held, limit
        )

    def _compile(self, split: str, how: _How) -> Callable[..., Any]:
        evaluate = make_evaluate(
            self._algorithm,
            self._metrics,
            self._model_of(how),
            self._mesh,
            batch_size=self._batch_of(split),
            max_size=self._dataset.splits[split].max_size,
            chunk=self._together(split, how),
            by_place=self._row_bytes is not None,
        )
        fed = self._feed is not None

        def block(state, data, ids, trained, held, limit):
            if not fed:
                held = holdings(data, split, ids)
                trained = None if how is None else holdings(data, "train", ids)
            trained = None if trained is None else first_of(trained, limit)
            return evaluate(state, data, ids, trained, held, fed)

        # Every process sees the whole report.
        return jax.jit(self._prepare(block), out_shardings=replicated(self._mesh))

    def _compile_asking(
        self, split: str, examples: int, num_groups: int, anew: bool
    ) -> Callable[..., Any]:
        ask = make_diagnose(
            self._algorithm,
            self._model_of(self._personalization if anew else None),
            self._mesh,
            examples=examples,
            groups=num_groups,
            by_place=self._row_bytes is not None,
        )
        fed = self._feed is not None

        def all_of_them(state, data, ids, group, trained, held):
            if not fed:
                trained, held = holdings(data, "train", ids), holdings(data, split, ids)
            return ask(state, data, ids, group, trained, held, fed)

        return jax.jit(self._prepare(all_of_them), out_shardings=replicated(self._mesh))

    def _together(self, split: str, how: _How) -> int:
        """Clients side by side on a device, a power of two: those that train models, as there."""
        if how is None or how.trains == "own":
            return self._side_by_side(self._batch_of(split))
        return 1 << (self._trained_together.bit_length() - 1)

    def _batch_of(self, split: str) -> int:
        """Examples a step, so that the largest client's steps are alike in size."""
        most = max(1, self._dataset.splits[split].max_size)
        return -(-most // -(-most // self._batch_size))

    def _one_model(self, model_of: ModelOf) -> Callable[..., OwnModel]:
        def model(state, data, held, place, client):
            if held is None and data.examples:
                held = holdings(data, "train", client[None])
            return model_of(state, data, held, place, client)

        return model
