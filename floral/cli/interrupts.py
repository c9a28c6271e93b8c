"""Ctrl-C is heard wherever it comes."""

import _thread
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["heard_everywhere"]

_SECONDS = 0.02  # until what ignored a Ctrl-C has surely ended


@contextmanager
def heard_everywhere() -> Iterator[None]:
    """While it lasts, a Ctrl-C that Python would only print is raised again a moment later.

    Python drops what is raised inside of a destructor or of a callback of the garbage collector,
    where JAX has one: without this, a command would print a traceback and go on.
    """
    before = sys.unraisablehook

    def hook(dropped: Any) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            again = threading.Timer(_SECONDS, _thread.interrupt_main)
            again.daemon = True
            again.start()
        else:
            before(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
