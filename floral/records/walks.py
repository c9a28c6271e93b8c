"""What timed walks took, remembered from run to run in one small file.

Of several processes the first reads and writes it; all measure together.
"""

import json
import math
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path

from floral.config.reading.yaml_file import write_atomically
from floral.files import FileError
from floral.processes.agreement import broadcast_from_first, on_first_process
from floral.simulate.machine.probe import Probe, Timings

__all__ = ["recalled", "remembered", "said"]

Say = Callable[[str], None]


def recalled(path: str | PathLike[str] | None) -> Timings:
    """What was timed before, and nothing where nothing was: a look at a config times no rounds.

    Args:
      path: the file; None remembers nothing.
    """
    file = None if path is None else Path(path)
    return lambda probe: _known(file, probe, lambda line: None)


def remembered(path: str | PathLike[str] | None, say: Say) -> Timings:
    """What was timed before; what was not is timed now, and noted.

    Args:
      path: the file; None remembers nothing. One that is damaged is said to be, and made anew.
      say: is told in a line what was found.
    """

    file = None if path is None else Path(path)

    def timings(probe: Probe) -> Mapping[int, float]:
        known = _known(file, probe, say)
        if known:
            say(f"walk: {said(known)}, as timed before")
            return known
        say("walk: timing a few rounds")
        seconds = probe.measure()
        say(f"walk: {said(seconds)}")
        if file is not None:
            on_first_process(_note)(file, probe.program, seconds, say)
        return seconds

    return timings


def said(seconds: Mapping[int, float]) -> str:
    """Timings in words.

    Example:
      >>> said({1: 0.31, 4: 0.204, 10: 0.25})
      '4 side by side; with 1, 4, 10 a round took 310, 204, 250 ms'
    """
    best = min(seconds, key=seconds.__getitem__)
    chunks = ", ".join(map(str, seconds))
    times = ", ".join(f"{1e3 * time:.3g}" for time in seconds.values())
    return f"{best} side by side; with {chunks} a round took {times} ms"


def _known(path: Path | None, probe: Probe, say: Say) -> Mapping[int, float]:
    return (
        {}
        if path is None
        else broadcast_from_first(lambda: _read(path, say).get(probe.program, {}))
    )


def _read(path: Path, say: Say) -> dict[str, dict[int, float]]:
    """All timings of a file, by program; none where there is no file, or no whole one."""
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        say(f"{path}: no timings of walks ({error}); they are made anew")
        return {}


def _parsed(text: str) -> dict[str, dict[int, float]]:
    """Raises ValueError for anything but ``{program: {clients side by side: seconds}}``."""
    programs = json.loads(text)
    if not isinstance(programs, dict):
        raise ValueError("expected an object of programs")
    for program, seconds in programs.items():
        if not isinstance(seconds, dict) or not seconds:
            raise ValueError(f"expected timings of program {program[:12]}, got {seconds!r}")
        for chunk, time in seconds.items():
            whole = chunk.isdecimal() and int(chunk) > 0
            if not whole or not isinstance(time, float) or not math.isfinite(time):
                raise ValueError(f"program {program[:12]}: {time!r} seconds for {chunk!r} clients")
    return {
        program: {int(chunk): time for chunk, time in seconds.items()}
        for program, seconds in programs.items()
    }


def _note(path: Path, program: str, seconds: Mapping[int, float], say: Say) -> None:
    programs = {**_read(path, lambda line: None), program: dict(seconds)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(programs, indent=1, sort_keys=True) + "\n")
    except (OSError, FileError) as error:
        say(f"{path}: timings of walks cannot be written there ({error})")
