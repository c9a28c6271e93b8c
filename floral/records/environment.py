"""What a run stood on: commit, versions, device, data, walk.

A run goes on with the config, data and walk that it began with. Commit, versions and device are
recorded for the reader: on others, its numbers go on the same up to the rounding of floats.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from floral.config.build import Experiment
from floral.config.reading.file_paths import without_paths
from floral.errors import ConfigError, DataError
from floral.processes.agreement import anyone, broadcast_from_first, is_distributed
from floral.records.provenance import commit_of

__all__ = [
    "check_alike",
    "check_config",
    "check_data",
    "checkout_commit",
    "describe_environment",
]

_PACKAGES = ("floral", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def describe_environment(experiment: Experiment) -> dict[str, Any]:
    """As ``environment.json`` has it; ``config`` is a digest of all that changes results."""
    device = jax.devices()[0]
    return {
        "config": _digest(experiment.config),
        "data": experiment.dataset.fingerprint,
        "chunk": experiment.simulator.chunk,
        "chunk_seconds": dict(experiment.simulator.timings) or None,
        "device": f"{device.platform}: {device.device_kind}",
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "commit": checkout_commit(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in _PACKAGES},
    }


def checkout_commit() -> str | None:
    """The commit of the checkout that this package is imported from, as `commit_of` says it.

    ``-dirty`` stands behind it only if files of the package were changed. None where the package is
    installed, or where git is not there to ask.
    """
    root = Path(__file__).parents[2]
    return commit_of(root, within="floral") if (root / ".git").exists() else None


def check_alike(experiment: Experiment) -> None:
    """Refuses to train together on data that differ from process to process.

    Raises:
      DataError: on every process, if any has other data than the first.
    """
    if not is_distributed():
        return
    own = experiment.dataset.fingerprint
    if anyone(broadcast_from_first(lambda: own) != own):
        raise DataError(
            f"process {jax.process_index()} of {jax.process_count()} has data with fingerprint "
            f"{own[:12]}, but not all have the same; a run needs the same data on every machine"
        )


def check_config(saved: Mapping[str, Any], config: Mapping[str, Any], folder: Path) -> None:
    """Refuses to go on with another config.

    Raises:
      ConfigError: if the config was changed in more than its rounds or checkpoints.
    """
    if saved["config"] != _digest(config):
        raise ConfigError(
            f"{folder / 'config.yaml'}: the config is not the one this run began with; only "
            "rounds, checkpoint and where files lie may change; start a new run for anything else"
        )


def check_data(saved: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Refuses to go on with other data.

    Raises:
      DataError: if the data are not those of the run's beginning.
    """
    if saved["data"] != now["data"]:
        raise DataError(
            f"{folder}: the data have fingerprint {now['data'][:12]}, the run began with "
            f"{saved['data'][:12]}; a run goes on only with the data it began with"
        )


def _digest(config: Mapping[str, Any]) -> str:
    """Of all that changes results; files may move, and their data have a fingerprint."""
    meaning = {
        key: value
        for key, value in without_paths(config).items()
        if key not in ("rounds", "checkpoint")
    }
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()
