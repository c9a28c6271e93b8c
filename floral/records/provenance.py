"""Who trained in a run folder: the command, when, where, and from which commit."""

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["commit_of", "described_command"]

_SECONDS = 10  # that git may take; a slow network file system must not hold up a run


def described_command(overrides: Sequence[str]) -> dict[str, Any]:
    """A line of ``commands.jsonl``; the commit is that of the folder where the command was given.

    The commit of floral's own checkout, and all versions, are in each method's
    ``environment.json``.
    """
    return {
        "command": _command(),
        "overrides": list(overrides),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "folder": os.getcwd(),
        "commit": commit_of(Path.cwd()),
    }


def commit_of(folder: Path, *, within: str = ":/") -> str | None:
    """The commit that a folder's checkout stands at, ``-dirty`` if tracked files differ from it.

    None outside of a checkout, or where git is not there to ask.

    Args:
      folder: any of the checkout.
      within: git's path of the files that count as changed; by default of the whole checkout.
    """
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", within)
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *asked: str) -> str:
    said = subprocess.run(
        ["git", "--no-optional-locks", "-C", str(folder), *asked],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=True,
    )
    return said.stdout.strip()


def _command() -> str:
    """The command line of this process, with ``floral`` for the path of the program."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    return shlex.join(["floral" if program == "__main__.py" else program, *sys.argv[1:]])
