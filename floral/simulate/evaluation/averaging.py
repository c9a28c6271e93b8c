"""What averaging factors would lose of products, were some clients the next cohort."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from floral.data import Batching
from floral.simulate.evaluation.reach import Reach
from floral.simulate.round import Cohort, make_round
from floral.simulate.shard import replicate, sharded, share_of
from floral.simulate.state import SimulationState
from floral.simulate.table import read_rows
from floral.uplink import Uplink, factor_mean

__all__ = ["make_averaging_gap"]


def make_averaging_gap(
    reach: Reach, uplink: Uplink, batching: Batching, *, chunk: int
) -> Callable[[SimulationState, Sequence[int] | np.ndarray], float] | None:
    """The function that takes a round with some clients, for what its average is off by.

    Args:
      reach: where clients are.
      uplink: what happens to their updates on the way.
      batching: how their examples become batches.
      chunk: clients side by side on a device.

    Returns:
      ``(state, clients [n]) -> averaging_gap``, as ``uplink.factor_mean`` tells it, of the round
      that comes next if these clients were its cohort; the state stays as it is, and so do rows.
      None where the server averages no pairs of factors that are products of two matrices.
    """
    factored = reach.algorithm.factored
    if factored is None or not factored.pairs:
        return None
    if any(adaptor.product is None for adaptor in factored.pairs.values()):
        return None
    by_place = reach.row_bytes is not None
    fit = factor_mean().fit
    assert fit is not None  # it reduces the pairs of one algorithm
    take = make_round(
        reach.algorithm,
        uplink._replace(reduce=fit(factored)),
        None,
        batching,
        reach.mesh,
        max_size=reach.dataset.splits["train"].max_size,
        chunk=chunk,
        by_place=by_place,
    )
    # All of a round that the gap does not need is left out as it is compiled.
    measure = reach.compiled(lambda *given: take(*given)[1]["uplink"]["averaging_gap"])

    def averaging_gap(state: SimulationState, clients: Sequence[int] | np.ndarray) -> float:
        ids = reach.known(clients)
        places = share_of(len(ids), reach.mesh.size, chunk) * reach.mesh.size
        nobody = np.full(places - len(ids), reach.dataset.num_clients)
        ids = np.append(ids, nobody).astype(np.int32)
        held = None if reach.feed is None else reach.feed("train", ids)
        ready = reach.ready(state)
        if by_place:
            rows = jax.device_put(read_rows(ready.table, ids), sharded(reach.mesh))
            ready = ready._replace(table=rows)
        return float(measure(ready, reach.data, Cohort(replicate(ids, reach.mesh), held)))

    return averaging_gap
