"""What must be set before JAX starts; the command line does it, the library never.

A CPU is one device to JAX, however many cores it has. As one device a core, each walking its own
clients, it trains about twice as fast on two cores as with XLA's own threads. What compiles is
kept on disk, so that the next run of the same config starts in a second.

Where a scheduler has started the program several times over, its processes join and take one run
together. From Python, ``jax.distributed.initialize`` before ``floral.run`` does the same.
"""

import importlib.util
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from floral.errors import ConfigError

__all__ = ["cache_folder", "join_processes", "partners", "prepare_jax", "usable_cores"]

_DEVICES = "--xla_force_host_platform_device_count"
_THREADS = "--xla_cpu_multi_thread_eigen"

_HEARTBEAT_SECONDS = 10  # a process that is silent for so long is dead; the others stop
_ORPHAN_SECONDS = 30  # what a process may take to save once its launcher is gone


def prepare_jax(environment: MutableMapping[str, str], *, cores: int, alone: bool = True) -> None:
    """Sets one CPU device a core, no threads within one, and a compilation cache.

    What the user has set is left as it is: ``JAX_NUM_CPU_DEVICES``, ``XLA_FLAGS`` and
    ``JAX_COMPILATION_CACHE_DIR`` (empty: no cache).

    Args:
      environment: ``os.environ``, before JAX is imported.
      cores: that this process may use.
      alone: whether no other process has a part of the same machine's cores; a single device then
        keeps XLA's threads.

    Example:
      >>> settings = {"JAX_COMPILATION_CACHE_DIR": ""}
      >>> prepare_jax(settings, cores=4)
      >>> settings["JAX_NUM_CPU_DEVICES"], settings["XLA_FLAGS"]
      ('4', '--xla_cpu_multi_thread_eigen=false')
    """
    flags = environment.get("XLA_FLAGS", "")
    if _DEVICES not in flags:
        devices = environment.setdefault("JAX_NUM_CPU_DEVICES", str(cores))
        if (devices != "1" or not alone) and _THREADS not in flags:
            environment["XLA_FLAGS"] = f"{flags} {_THREADS}=false".strip()
    if "JAX_COMPILATION_CACHE_DIR" not in environment:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache_folder(environment) / "xla")
        environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where this user's caches are: ``$XDG_CACHE_HOME/floral``, or ``~/.cache/floral``."""
    home = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "floral"


def usable_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def partners(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """What ``jax.distributed.initialize`` needs to find the other processes of this run.

    Looked for, in this order: ``JAX_NUM_PROCESSES`` with ``JAX_PROCESS_ID`` and
    ``JAX_COORDINATOR_ADDRESS`` (``floral launch`` sets them; so may anyone; 1 process is alone,
    whatever the scheduler says), then SLURM, Open MPI, an indexed job of Kubernetes, a TPU pod.

    Args:
      environment: as ``os.environ``.

    Returns:
      Keywords; None for a process that is alone.

    Raises:
      ConfigError: for several processes that cannot find one another.

    Example:
      >>> partners({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"}) is None
      True
    """
    if "JAX_NUM_PROCESSES" in environment:
        return _named(environment, "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    slurm = ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")
    if all(f"SLURM_{name}" in environment for name in slurm):
        several = int(environment["SLURM_NTASKS"]) > 1
        return {"cluster_detection_method": "slurm"} if several else None
    if int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        if "OMPI_MCA_orte_hnp_uri" in environment:  # newer ones do not say where process 0 is
            return {"cluster_detection_method": "ompi"}
        return _named(environment, "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")
    indexed = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= environment.keys()
    if indexed and importlib.util.find_spec("kubernetes"):
        return {}
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
    return {} if "," in hosts else None


def _named(environment: Mapping[str, str], count: str, index: str) -> dict[str, Any] | None:
    """Processes counted by two variables, of which the first is at an address that is given."""
    if environment[count] == "1":
        return None
    try:
        numbers = {
            "num_processes": int(environment[count]),
            "process_id": int(environment[index]),
        }
        address = environment["JAX_COORDINATOR_ADDRESS"]
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"{count}={environment[count]}: several processes find one another by {index} and "
            f"JAX_COORDINATOR_ADDRESS=host:port, the same for all; missing or no number: {error}"
        ) from None
    return {
        **numbers,
        "coordinator_address": address,
        "cluster_detection_method": "deactivate",
    }


def join_processes(found: Mapping[str, Any], *, launched: bool) -> None:
    """Makes this process one of several, before JAX has any devices.

    Args:
      found: as ``partners`` gives it.
      launched: whether a launcher of this machine watches the processes; heartbeats may then be
        slow, as on a machine that is busy, and the end of the launcher is the end of this process.
    """
    import jax

    _keep_stdout_to_python()
    if launched:
        threading.Thread(target=_outlive_no_launcher, daemon=True).start()
    jax.distributed.initialize(
        **found,
        heartbeat_timeout_seconds=100 if launched else _HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=_HEARTBEAT_SECONDS,
    )


def _keep_stdout_to_python() -> None:
    """The library below JAX that connects the processes says so on the standard output."""
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1, encoding=sys.stdout.encoding)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _outlive_no_launcher() -> None:
    """Reads the pipe that the launcher holds open; at its end, saves and stops as for SIGTERM."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_ORPHAN_SECONDS)
    os._exit(1)
