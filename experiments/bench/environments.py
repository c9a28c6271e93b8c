"""One virtual environment for each peer, from pinned requirements, made when first asked for.

    python experiments/bench/environments.py                 # makes all of them: about 6 GB
    python experiments/bench/environments.py fedjax pfl

They are kept outside the repository and made again when a peer's file in ``requirements/`` or this
Python changes. ``jax_by_hand`` has none: it runs in the environment floral is installed in. PyTorch
needs its CPU build only; where pip knows no index that has it, plain ``torch`` brings several GB of
a GPU's libraries, so name one, with PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import task

__all__ = ["SCRIPTS", "PeerEnvironmentError", "python"]

HERE = Path(__file__).parent
SCRIPTS = {
    "jax_by_hand": "jax_by_hand.py",
    "torch_loop": "torch_loop.py",
    "fedjax": "fedjax_run.py",
    "pfl": "pfl_run.py",
    "fluke": "fluke_run.py",
    "flower": "flower_run.py",
}


class PeerEnvironmentError(RuntimeError):
    """An environment that could not be made."""


def python(name: str, folder: Path = task.CACHE) -> Path:
    """The interpreter of a peer's environment, which is made first if it is not there.

    Args:
      name: a key of ``SCRIPTS``.
      folder: where environments are kept, below ``venvs``.

    Raises:
      PeerEnvironmentError: if pip fails; says what it said last.
    """
    requirements = HERE / "requirements" / f"{name}.txt"
    if not requirements.exists():
        return Path(sys.executable)
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    home = folder / "venvs" / name
    stamp, interpreter = home / "requirements.sha256", home / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(home, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(home))
        _run(str(interpreter), "-m", "pip", "install", "--quiet", "-r", str(requirements))
        stamp.write_text(wanted)
    return interpreter


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise PeerEnvironmentError(f"{' '.join(command)!r} failed:\n{said}")


def _environment() -> dict[str, str]:
    """The caller's, without what would point pip into the caller's own environment."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def main() -> None:
    parser = argparse.ArgumentParser(description="makes the environments of the benchmark's peers")
    parser.add_argument("peers", nargs="*", default=list(SCRIPTS))
    parser.add_argument("--folder", type=Path, default=task.CACHE)
    given = parser.parse_args()
    for name in given.peers:
        print(f"{name}: {python(name, given.folder)}", flush=True)


if __name__ == "__main__":
    main()
