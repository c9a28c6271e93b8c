"""Reading and writing files: what the system refuses becomes one sentence that names the file."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from floral.errors import ConfigError

__all__ = ["FileError", "file_error", "in_words", "sentence", "touching"]

_REASONS = {
    errno.EACCES: "there is no permission",
    errno.EPERM: "there is no permission",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than is allowed",
    errno.EROFS: "the file system is read-only",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "the name is too long",
}
_MENDS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit (ulimit -f)",
    errno.EACCES: "give yourself permission",
    errno.EPERM: "give yourself permission",
    errno.EROFS: "make the file system writable",
}


class FileError(ConfigError):
    """A file or folder that cannot be read or written.

    Attributes:
      mend: what the user may do before trying again, as "free some space".
    """

    mend = "mend that"


@contextmanager
def touching(path: str | os.PathLike[str], verb: Literal["read", "write"]) -> Iterator[None]:
    """While it lasts, an ``OSError`` becomes a `FileError` that names the path.

    Example:
      >>> with touching("no/such/folder/report.md", "write"):
      ...     open("no/such/folder/report.md", "w")
      Traceback (most recent call last):
      floral.files.FileError: cannot write 'no/such/folder/report.md': there is no folder
      'no/such/folder'
    """
    try:
        yield
    except OSError as error:
        words = f"cannot {verb} {os.fspath(path)!r}: {in_words(error, path)}"
        raise file_error(error, words) from error


def file_error(error: OSError, words: str | None = None) -> FileError:
    """What the system refused, as a `FileError` that knows what may mend it."""
    told = FileError(sentence(error) if words is None else words)
    told.mend = _MENDS.get(error.errno or 0, told.mend)
    return told


def sentence(error: OSError) -> str:
    """What an ``OSError`` says, as a message has it.

    Example:
      >>> sentence(FileNotFoundError(2, "No such file or directory", "no/such/folder/d.npz"))
      "'no/such/folder/d.npz': there is no folder 'no/such/folder'"
    """
    if error.filename is None:
        return in_words(error)
    return f"{os.fsdecode(error.filename)!r}: {in_words(error)}"


def in_words(error: OSError, path: str | os.PathLike[str] | None = None) -> str:
    """Why the system refused.

    Args:
      error: what it raised.
      path: the file that was meant; by default the one that the error names.
    """
    path = error.filename if path is None else path
    if path is not None and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EEXIST):
        place = Path(os.fsdecode(path))
        parents = place.parents
        file = next((found for found in (place, *parents) if found.is_file()), None)
        if file is not None:
            return f"{str(file)!r} is a file and no folder"
        if parents and not parents[0].is_dir():
            return f"there is no folder {str(parents[0])!r}"
        if error.errno == errno.ENOENT:
            return "there is no such file"
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)
