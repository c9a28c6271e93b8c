"""What a config amounts to, before anything is trained."""

import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from floral.adaptors import format_table, plan_table
from floral.config.build import Experiment
from floral.records.state import start_state
from floral.reports.label_skew import label_skew
from floral.text_table import aligned

__all__ = ["described", "planned", "trace"]

_TIMED_OPERATIONS = 1e11
"""Rounds of fewer take some seconds at most."""


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
    skew = label_skew(first.dataset)
    sections = [first.dataset.describe(), *([skew] if skew else [])]
    sections.append(f"fingerprint {first.dataset.fingerprint[:16]}")
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
    """What a client of each method sends, receives and keeps, then what the whole run takes.

    Memory is the compiler's own count of a round's arguments, outputs and temporaries on all
    devices of this process, with the population's data; compiling takes some seconds a method.
    A round of each method is timed, and thrown away, if it has fewer than 10^11 operations; of
    larger rounds the time is the operations divided by the rate at which this machine multiplies
    large matrices, which no run can beat. Compiling and evaluation come on top.
    """
    a_client = [
        ["a client", "model", "sent", "up", "groups", "down", "once", "kept", "server"],
        ["", "params", "params", "/round", "/round", "/round", "", "", ""],
    ]
    whole = [["the run", "rounds", "clients", "at once", "up", "down", "memory", "ops", "time"]]
    rate = None
    for name, experiment in experiments.items():
        costs, simulator = experiment.simulator.costs, experiment.simulator
        a_client.append(
            [
                _short(name),
                *map(
                    _count,
                    (
                        costs.model_parameters,
                        costs.uploaded_parameters,
                        costs.upload_bytes,
                        costs.sums_bytes,
                        costs.download_bytes,
                        costs.cached_bytes,
                        costs.client_state_bytes,
                        costs.server_state_bytes,
                    ),
                ),
            ]
        )
        turns = experiment.rounds * simulator.cohort
        operations = costs.operations * turns
        timed = costs.operations * simulator.cohort < _TIMED_OPERATIONS
        if timed:
            seconds = experiment.rounds * _round_seconds(experiment)
        else:
            rate = rate or _operations_per_second()
            seconds = operations / rate
        whole.append(
            [
                _short(name),
                f"{experiment.rounds:,}",
                f"{simulator.cohort:,}",
                f"{simulator.chunk:,}",
                _count(costs.upload_bytes * turns),
                _count(costs.download_bytes * turns),
                _count(simulator.memory().peak),
                _count(operations),
                f"{'≈' if timed else '≥'} {_time(seconds)}",
            ]
        )
    numbers = range(1, 9)
    return (
        f"{aligned(a_client, numbers=numbers)}\n\n{aligned(whole, numbers=numbers)}\n\n"
        "up, down, once, kept, server and memory in bytes; k, M, G, T: thousands to\n"
        "trillions; clients in a round; time without compiling and evaluation, ≈: of a\n"
        "timed round, ≥: at the rate of large products"
    )


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"


def _count(value: float) -> str:
    """Three digits and a letter for the power of a thousand.

    Example:
      >>> _count(16), _count(752_988), _count(12_345_678)
      ('16', '753k', '12.3M')
    """
    for letter in ("", "k", "M", "G", "T", "P"):
        if value < 999.5 or letter == "P":
            break
        value /= 1000
    return f"{value:.0f}{letter}" if not letter or value >= 99.95 else f"{value:.3g}{letter}"


def _time(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _round_seconds(experiment: Experiment) -> float:
    """Of the second round from a state that is thrown away."""
    state, _ = experiment.simulator.round(start_state(experiment))
    jax.block_until_ready(state)
    start = time.perf_counter()
    jax.block_until_ready(experiment.simulator.round(state))
    return time.perf_counter() - start


def _operations_per_second(size: int = 1024) -> float:
    """Of a product of two square matrices of float32 on all devices, the best of three."""
    matrix = jnp.ones((size, size))
    multiply = jax.jit(jnp.matmul)
    multiply(matrix, matrix).block_until_ready()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        multiply(matrix, matrix).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds) * jax.device_count()
