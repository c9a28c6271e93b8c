"""The simulator: thousands of clients in one compiled round."""

from floral.simulate.costs import Costs
from floral.simulate.evaluate import Personalization
from floral.simulate.sampling import Sampler, fixed, full
from floral.simulate.simulator import Simulator, make_simulator, sample_batch
from floral.simulate.state import SimulationState
from floral.simulate.walk import Walk, walk

__all__ = [
    "Costs",
    "Personalization",
    "Sampler",
    "SimulationState",
    "Simulator",
    "Walk",
    "fixed",
    "full",
    "make_simulator",
    "sample_batch",
    "walk",
]
