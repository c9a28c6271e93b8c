"""What a config amounts to, before anything is trained."""

from collections.abc import Mapping

import jax

from floral.adaptors import format_table, plan_table
from floral.experiment.build import Experiment
from floral.experiment.state import start_state
from floral.text_table import aligned

__all__ = ["described", "planned", "trace"]


def trace(experiment: Experiment) -> None:
    """Traces a whole round and every shape in it; computes nothing.

    Raises:
      FloralError: where parts do not fit.
    """
    state = jax.eval_shape(lambda: start_state(experiment))
    experiment.simulator.lower(state)


def described(experiments: Mapping[str, Experiment]) -> str:
    """The population, then for each distinct plan a table of its leaves."""
    first = next(iter(experiments.values()))
    sections = [first.dataset.describe(), f"fingerprint {first.dataset.fingerprint[:16]}"]
    shown: list[list] = []
    for name, experiment in experiments.items():
        if experiment.plan is None or experiment.adapted is None:
            continue
        rows = plan_table(experiment.plan, experiment.adapted.methods)
        if rows not in shown:
            shown.append(rows)
            sections.append(f"{name}\n{format_table(rows)}")
    return "\n\n".join(sections)


def planned(experiments: Mapping[str, Experiment]) -> str:
    """For each method what a client sends, receives and keeps, and the memory of a round.

    Memory is the compiler's own count of a round's arguments, outputs and temporaries on all
    devices of this process, with the population's data; compiling takes some seconds a method.
    """
    head = [
        "method",
        "model params",
        "sent params",
        "up B/round",
        "finding B/round",
        "down B/round",
        "down B once",
        "kept B/client",
        "server B",
        "side by side",
        "round memory MiB",
        "MFLOP/client",
    ]
    rows = [head]
    for name, experiment in experiments.items():
        costs = experiment.simulator.costs
        rows.append(
            [
                name,
                f"{costs.model_parameters:,}",
                f"{costs.uploaded_parameters:,}",
                f"{costs.upload_bytes:,}",
                f"{costs.finding_bytes:,}",
                f"{costs.download_bytes:,}",
                f"{costs.cached_bytes:,}",
                f"{costs.client_state_bytes:,}",
                f"{costs.server_state_bytes:,}",
                str(experiment.simulator.chunk),
                f"{experiment.simulator.memory().peak / 2**20:.1f}",
                f"{costs.operations / 1e6:,.1f}",
            ]
        )
    return aligned(rows, numbers=range(1, len(head)))
