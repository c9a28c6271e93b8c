"""How much memory a device and its machine have, and what is free; a container has its limit."""

import os
from pathlib import Path
from typing import Any

__all__ = ["device_memory", "free_memory", "whole_memory"]

_LIMIT = Path("/sys/fs/cgroup/memory.max")
_MEMINFO = Path("/proc/meminfo")


def device_memory(device: Any) -> int:
    """Bytes that a device has for arrays; for a CPU, the machine's."""
    own = (device.memory_stats() or {}).get("bytes_limit")
    return whole_memory() if own is None else own


def whole_memory() -> int:
    """Bytes of memory that this process may use at most."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    said = _LIMIT.read_text().strip() if _LIMIT.is_file() else ""
    return min(machine, int(said)) if said.isdecimal() else machine


def free_memory() -> int:
    """Bytes that are free now, with what the system would give up for them; all if it tells not."""
    if not _MEMINFO.is_file():
        return whole_memory()
    said = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
    return min(whole_memory(), int(said["MemAvailable"].split()[0]) * 1024)
