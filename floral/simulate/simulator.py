"""What a simulator offers: a population of clients under one algorithm, compiled.

This is the layer for a user who keeps his own loop::

    simulator = make_simulator(algorithm, model, dataset, metrics={"accuracy": accuracy()})
    state = simulator.init(jax.random.key(0))
    state, metrics = simulator.round(state)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from floral.display import as_html
from floral.errors import SpecError
from floral.simulate.clients import DeviceData
from floral.simulate.machine.costs import Costs
from floral.simulate.machine.memory import Memory
from floral.simulate.state import SimulationState
from floral.typing import Array, Params, PyTree

__all__ = ["Simulator"]


class Simulator(NamedTuple):
    """A population of clients under one algorithm.

    Attributes:
      init: ``(key, params=None) -> SimulationState``; params replace the model's own start.
      round: ``(state) -> (state, metrics)``, compiled; metrics are what clients report, summed
        over them, and under ``uplink`` what the reducer reports. Where clients' rows live on the
        host they are written in place: the state that is given is then of no more use, and
        refused.
      rounds: ``(state, count) -> (state, metrics [count])``: so many rounds in one compiled call;
        one by one where data or rows live on the host.
      evaluate: ``(state, split="test", clients=None, personalization=None) -> {"client": [n],
        metric: [n], ...}``, each client's own model on its own data; clients that keep nothing, and
        unseen ones, personalize first, where there is anything to find. With a personalization
        given, all that are asked for join anew by it, whatever they keep. As a table of pandas:
        ``pandas.DataFrame({name: list(values) for name, values in report.items()})``, in which
        what is more than one number a client, as ``mixture`` [n, C], is one cell each.
      diagnose: ``(state, clients [n], groups [n], *, num_groups, split="train", examples=16) ->
        {"client": [n], "examples": [n], "loss": [n], "loss_alone": [n, C], "variances":
        Variances}``: the losses of clients' own models and of each adaptor alone on so many of
        their examples, and how the gradients of their training examples vary over the clients
        and within groups of them. For algorithms with ``diagnostics``.
      averaging_gap: ``(state, clients [n]) -> float``: how far the average of adaptors' factors is
        from that of their products, relative to the latter, were these clients the next cohort;
        None where the server averages no such pairs, or the uplink's reducer tells it every round.
      client: ``(state, client id) -> client state``, personalized where need be.
      predict: ``(state, client id, x [B, ...]) -> outputs`` of that client's own model.
      export: ``(state, client id) -> params`` of that model as one plain params tree.
      lower: ``(state or its structs) -> jax.stages.Lowered`` of a round, to compile and inspect.
      memory: ``() -> Memory``: bytes of a round as the compiler counts them; compiles it.
      new_table: ``() -> table`` of zeros for clients' rows on the host, as ``init`` fills one; None
        where rows live on the devices.
      costs: bytes, parameters and operations for each client and round.
      cohort: how many clients a round has room for.
      chunk: clients side by side on a device.
      devices: devices that share a cohort.
      data: the population on the devices, which another method's simulator may share.
      timings: seconds of a round by clients side by side on a device, where the walk is timed.
    """

    init: Callable[..., SimulationState]
    round: Callable[[SimulationState], tuple[SimulationState, dict[str, Array]]]
    rounds: Callable[[SimulationState, int], tuple[SimulationState, dict[str, Array]]]
    evaluate: Callable[..., dict[str, Any]]
    diagnose: Callable[..., dict[str, Any]]
    averaging_gap: Callable[[SimulationState, Sequence[int] | np.ndarray], float] | None
    client: Callable[[SimulationState, int], PyTree]
    predict: Callable[[SimulationState, int, Any], Any]
    export: Callable[[SimulationState, int], Params]
    lower: Callable[[SimulationState], Any]
    memory: Callable[[], Memory]
    new_table: Callable[[], PyTree] | None
    costs: Costs
    cohort: int
    chunk: int
    devices: int
    data: DeviceData
    timings: Mapping[int, float]

    def __reduce__(self) -> Any:
        raise SpecError(
            "a simulator holds compiled functions and cannot be pickled: make it anew where it is "
            "needed; fl.save(path, state) keeps its state, fl.load(path, like=state) reads it"
        )

    def __repr__(self) -> str:
        costs, devices = self.costs, f"{self.devices} device{'' if self.devices == 1 else 's'}"
        return (
            f"Simulator(cohort of {self.cohort}, {self.chunk} side by side on {devices}; "
            f"{costs.model_parameters:,} parameters; a client and round: "
            f"{costs.upload_bytes:,} bytes up, {costs.download_bytes:,} down)"
        )

    def _repr_html_(self) -> str:
        return as_html(repr(self))
