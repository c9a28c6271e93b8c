"""Evaluations, compiled: clients in blocks of few sizes, whoever is asked for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from floral import check
from floral.metrics.base import Metric
from floral.simulate.clients import first_of, holdings
from floral.simulate.evaluation.evaluate import make_evaluate
from floral.simulate.evaluation.personalize import Personalization
from floral.simulate.evaluation.reach import How, Reach
from floral.simulate.shard import deal, replicate
from floral.simulate.state import SimulationState
from floral.typing import PyTree

__all__ = ["Evaluator"]

_LARGEST_SHARE = 256  # clients of a block on one device
_MOST_EXAMPLES = 2**31 - 1
_MOST_ROWS = 2**28  # bytes of their rows, where these come from the host


class Evaluator:
    """What clients' own models are worth; a simulator's own, made by ``make_simulator``."""

    def __init__(
        self,
        reach: Reach,
        metrics: Mapping[str, Metric],
        *,
        batch_size: int,
        side_by_side: Callable[[int], int],
        trained_together: int,
    ):
        self._reach = reach
        self._metrics = metrics
        self._batch_size = batch_size
        self._side_by_side = side_by_side
        self._trained_together = trained_together
        self._compiled: dict[tuple[str, How], Callable[..., Any]] = {}

    def evaluate(
        self,
        state: SimulationState,
        split: str = "test",
        clients: Sequence[int] | None = None,
        personalization: Personalization | None = None,
    ) -> dict[str, Any]:
        """Every asked client's metrics, in the order of their ids; all join anew by the
        personalization, where one is given."""
        check.one_of(self._reach.dataset.splits, split=split)
        if personalization is not None:
            check.instance_of(
                Personalization, "fl.simulate.personalization()", personalization=personalization
            )
        everyone = np.arange(self._reach.dataset.num_clients)
        ids = self._reach.known(everyone if clients is None else clients)
        state = self._reach.ready(state)
        groups: list[tuple[How, np.ndarray]] = [(personalization, ids)]
        if personalization is None:
            anew = self._reach.anew[ids]
            groups = [(None, ids[~anew]), (self._reach.personalization, ids[anew])]
        reports = [
            report
            for how, some in groups
            if some.size
            for report in self._in_blocks(state, split, how, some)
        ]
        joined = jax.tree.map(lambda *columns: np.concatenate(columns), *reports)
        order = np.argsort(joined["client"], kind="stable")
        return jax.tree.map(lambda column: column[order], joined)

    def _in_blocks(self, state: SimulationState, split: str, how: How, ids: np.ndarray):
        """Reports of clients of one kind: the largest first, in blocks as large as a power of two.

        Few sizes of blocks mean few compilations, whatever clients are asked for.
        """
        devices = self._reach.mesh.size
        each = -(-len(ids) // devices)
        largest = _LARGEST_SHARE
        if self._reach.row_bytes and how is None:
            largest = min(
                largest, 1 << max(0, (_MOST_ROWS // self._reach.row_bytes).bit_length() - 1)
            )
        share = min(largest, 1 << (each - 1).bit_length())
        block = share * devices
        together = min(self._together(split, how), share)
        sizes = np.append(self._reach.dataset.splits[split].sizes, 0)  # nobody has none
        ids = ids[np.argsort(-sizes[ids], kind="stable")]
        ahead = None  # no more than two blocks are on the devices
        for first in range(0, len(ids), block):
            some = ids[first : first + block]
            filled = np.full(block, self._reach.dataset.num_clients, np.int32)
            filled[: len(some)] = some
            filled = filled[deal(sizes[filled], devices, share, together)]
            following = filled, self._block(state, split, how, filled)
            if ahead is not None:
                yield self._reach.of_clients(*ahead)
            ahead = following
        if ahead is not None:
            yield self._reach.of_clients(*ahead)

    def _block(self, state: SimulationState, split: str, how: How, ids: np.ndarray) -> PyTree:
        # How many examples a client may use is an argument, so that curves over it compile once.
        kind, limit = (None, None) if how is None else (how._replace(limit=None), how.limit)
        limit = np.int32(_MOST_EXAMPLES if limit is None else limit)
        if (split, kind) not in self._compiled:
            self._compiled[split, kind] = self._compile(split, kind)
        trained = held = None
        if self._reach.feed is not None:
            held = self._reach.feed(split, ids)
            trained = None if how is None else self._reach.feed("train", ids)
        state = self._reach.with_rows(state, ids if how is None else None)
        return self._compiled[split, kind](
            state, self._reach.data, replicate(ids, self._reach.mesh), trained, held, limit
        )

    def _compile(self, split: str, how: How) -> Callable[..., Any]:
        evaluate = make_evaluate(
            self._reach.algorithm,
            self._metrics,
            self._reach.model_of(how),
            self._reach.mesh,
            batch_size=self._batch_of(split),
            max_size=self._reach.dataset.splits[split].max_size,
            chunk=self._together(split, how),
            by_place=self._reach.row_bytes is not None,
        )
        fed = self._reach.feed is not None

        def block(state, data, ids, trained, held, limit):
            if not fed:
                held = holdings(data, split, ids)
                trained = None if how is None else holdings(data, "train", ids)
            trained = None if trained is None else first_of(trained, limit)
            return evaluate(state, data, ids, trained, held, fed)

        return self._reach.compiled(block)

    def _together(self, split: str, how: How) -> int:
        """Clients side by side on a device, a power of two: those that train models, as there."""
        if how is None or how.trains == "own":
            return self._side_by_side(self._batch_of(split))
        return 1 << (self._trained_together.bit_length() - 1)

    def _batch_of(self, split: str) -> int:
        """Examples a step, so that the largest client's steps are alike in size."""
        most = max(1, self._reach.dataset.splits[split].max_size)
        return -(-most // -(-most // self._batch_size))
