"""The simulator: thousands of clients in one compiled round."""

from floral.simulate._grow import grow
from floral.simulate.assembly import make_simulator, sample_batch
from floral.simulate.evaluation.diagnose import Variances
from floral.simulate.evaluation.personalize import Personalization, personalization
from floral.simulate.machine.costs import Costs
from floral.simulate.machine.execution import Execution, execution
from floral.simulate.restarts import best_start, start_key
from floral.simulate.sampling import Sampler, fixed, full, scheduled
from floral.simulate.simulator import Simulator
from floral.simulate.state import SimulationState

__all__ = [
    "Costs",
    "Execution",
    "Personalization",
    "Sampler",
    "SimulationState",
    "Simulator",
    "Variances",
    "best_start",
    "execution",
    "fixed",
    "full",
    "grow",
    "make_simulator",
    "personalization",
    "sample_batch",
    "scheduled",
    "start_key",
]
