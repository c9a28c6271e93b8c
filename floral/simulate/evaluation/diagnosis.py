"""What evaluations ask of clients beside their predictions, compiled once for each way to ask."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from floral import check
from floral.errors import SpecError
from floral.simulate.clients import holdings
from floral.simulate.evaluation.diagnose import make_diagnose
from floral.simulate.evaluation.reach import Reach
from floral.simulate.shard import replicate
from floral.simulate.state import SimulationState

__all__ = ["Diagnosis"]


class Diagnosis:
    """Losses by adaptor, and gradients; a simulator's own, made by ``make_simulator``."""

    def __init__(self, reach: Reach):
        self._reach = reach
        self._asking: dict[tuple[Any, ...], Callable[..., Any]] = {}

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
          SpecError: for an algorithm without diagnostics, clients of both kinds, and groups that
            are not as many as clients or not below ``num_groups``.
        """
        check.one_of(self._reach.dataset.splits, split=split)
        check.positive_int(examples=examples, num_groups=num_groups)
        if self._reach.algorithm.diagnostics is None:
            raise SpecError("this algorithm has no bank that clients share and mix to diagnose")
        ids = self._reach.known(clients)
        anew = bool(self._reach.anew[ids[0]])
        if np.any(self._reach.anew[ids] != anew):
            raise SpecError("clients: those that train and those that never do are asked apart")
        if len(groups) != len(ids) or not all(0 <= group < num_groups for group in groups):
            raise SpecError(
                f"groups: expected one of 0 to {num_groups - 1} for each of {len(ids)} clients, "
                f"got {check.brief(groups)}"
            )
        empty = -len(ids) % self._reach.mesh.size
        ids = np.append(ids, np.full(empty, self._reach.dataset.num_clients)).astype(np.int32)
        group = np.append(np.asarray(groups), np.zeros(empty)).astype(np.int32)
        settings = (split, examples, num_groups, anew)
        if settings not in self._asking:
            self._asking[settings] = self._compile_asking(*settings)
        trained = held = None
        if self._reach.feed is not None:
            trained, held = self._reach.feed("train", ids), self._reach.feed(split, ids)
        state = self._reach.with_rows(self._reach.ready(state), None if anew else ids)
        ids_there, group_there = replicate((ids, group), self._reach.mesh)
        told = self._asking[settings](
            state, self._reach.data, ids_there, group_there, trained, held
        )
        variances = jax.tree.map(np.asarray, told.pop("variances"))
        return {**self._reach.of_clients(ids, told), "variances": variances}

    def _compile_asking(
        self, split: str, examples: int, num_groups: int, anew: bool
    ) -> Callable[..., Any]:
        ask = make_diagnose(
            self._reach.algorithm,
            self._reach.model_of(self._reach.personalization if anew else None),
            self._reach.mesh,
            examples=examples,
            groups=num_groups,
            by_place=self._reach.row_bytes is not None,
        )
        fed = self._reach.feed is not None

        def all_of_them(state, data, ids, group, trained, held):
            if not fed:
                trained, held = holdings(data, "train", ids), holdings(data, split, ids)
            return ask(state, data, ids, group, trained, held, fed)

        return self._reach.compiled(all_of_them)
