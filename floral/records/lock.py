"""One command at a time writes into a run folder.

Two that go on with one run would mix their rounds in ``metrics.jsonl`` and remove each other's
checkpoints. So whoever writes holds a lock on the file ``.lock`` of the folder. The system keeps
it and gives it up when the process ends, however it ends: ``kill -9`` leaves no lock behind. The
file stays and says who held it last.

Source: flock(2). Over NFS, Linux locks between hosts too. Where a file system has no locks (ENOLCK,
EOPNOTSUPP, as some Lustre mounts; Windows), a warning says so and the run goes on unguarded.
"""

import errno
import json
import os
import socket
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from floral.errors import ConfigError
from floral.files import touching
from floral.processes.agreement import is_first

__all__ = ["Locks"]

_NAME = ".lock"
_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class Locks(ExitStack):
    """The run folders that this process alone may write to, until the ``with`` block ends.

    Of several processes of one run the first holds the locks for all of them.
    """

    def hold(self, folder: Path) -> None:
        """Locks a folder.

        Raises:
          ConfigError: if another command writes to it; names the process and its host.
        """
        if not is_first():
            return
        path = folder / _NAME
        with touching(path, "write"):
            file = self.enter_context(path.open("ab", buffering=0))
        try:
            _lock(file)
        except BlockingIOError:
            raise ConfigError(
                f"{folder} is in use: {_holder(path)}; wait for it or stop it"
            ) from None
        except (ImportError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
                raise
            warnings.warn(
                f"{folder}: this file system has no locks ({error}), so nothing keeps a second "
                "command from writing there too",
                stacklevel=2,
            )
        with touching(path, "write"):
            file.truncate(0)
            holder = {"process": os.getpid(), "host": socket.gethostname()}
            file.write((json.dumps(holder) + "\n").encode())  # unbuffered: closing writes no more


def _lock(file: IO[bytes]) -> None:
    """Raises BlockingIOError if another open file holds the lock."""
    import fcntl  # Windows has none

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(path: Path) -> str:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return f"process {said['process']} on host {said['host']} is training there"
    except (OSError, ValueError, KeyError, TypeError):  # it has not said so yet
        return "another process is training there"
