"""Ctrl-C is heard wherever it comes."""

import _thread
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["heard_everywhere"]

_SOON = 0.001  # seconds until what dropped a Ctrl-C has mostly ended


@contextmanager
def heard_everywhere() -> Iterator[None]:
    """While it lasts, a Ctrl-C that Python would only print is raised again a moment later.

    Python drops what is raised inside of a destructor or of a callback of the garbage collector,
    where JAX has one: without this, a command would print a traceback and go on.
    """
    before = sys.unraisablehook
    dropped, over, ending = threading.Event(), threading.Event(), threading.Lock()

    def raise_again() -> None:
        wait = _SOON
        while dropped.wait() and not over.is_set():
            dropped.clear()
            time.sleep(wait)
            wait *= 1.5  # another rhythm than that of a collector that drops it time after time
            with ending:
                if not over.is_set():
                    _thread.interrupt_main()

    def hook(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            before(unraisable)
            return
        while not dropped.is_set():
            try:
                dropped.set()
            except KeyboardInterrupt:  # another one, amid the collector that this call has woken
                continue

    # It waits from the start: to start a thread within the hook may wake the collector again.
    sys.unraisablehook = hook
    threading.Thread(target=raise_again, name="floral-interrupts", daemon=True).start()
    try:
        yield
    finally:
        sys.unraisablehook = before
        with ending:
            over.set()
        dropped.set()
