"""What this process takes of memory, as Linux counts it."""

from pathlib import Path

__all__ = ["memory"]


def memory(name: str) -> int:
    """Bytes of this process: ``VmRSS`` resident now, ``VmHWM`` at most since it was reset."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {name}; this script needs Linux")
