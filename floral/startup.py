"""What must be set before JAX starts; the command line does it, the library never.

A CPU is one device to JAX, however many cores it has. As one device a core, each walking its own
clients, it trains about twice as fast on two cores as with XLA's own threads. What compiles is
kept on disk, so that the next run of the same config starts in a second.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path

__all__ = ["cache_folder", "prepare_jax", "usable_cores"]

_DEVICES = "--xla_force_host_platform_device_count"
_THREADS = "--xla_cpu_multi_thread_eigen"


def prepare_jax(environment: MutableMapping[str, str], *, cores: int) -> None:
    """Sets one CPU device a core, no threads within one, and a compilation cache.

    What the user has set is left as it is: ``JAX_NUM_CPU_DEVICES``, ``XLA_FLAGS`` and
    ``JAX_COMPILATION_CACHE_DIR`` (empty: no cache).

    Args:
      environment: ``os.environ``, before JAX is imported.
      cores: that this process may use.

    Example:
      >>> settings = {"JAX_COMPILATION_CACHE_DIR": ""}
      >>> prepare_jax(settings, cores=4)
      >>> settings["JAX_NUM_CPU_DEVICES"], settings["XLA_FLAGS"]
      ('4', '--xla_cpu_multi_thread_eigen=false')
    """
    flags = environment.get("XLA_FLAGS", "")
    if _DEVICES not in flags:
        devices = environment.setdefault("JAX_NUM_CPU_DEVICES", str(cores))
        if devices != "1" and _THREADS not in flags:
            environment["XLA_FLAGS"] = f"{flags} {_THREADS}=false".strip()
    if "JAX_COMPILATION_CACHE_DIR" not in environment:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache_folder(environment) / "xla")
        environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def cache_folder(environment: MutableMapping[str, str]) -> Path:
    """Where this user's caches are: ``$XDG_CACHE_HOME/floral``, or ``~/.cache/floral``."""
    home = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "floral"


def usable_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
