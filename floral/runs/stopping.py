"""Ctrl-C and SIGTERM as a wish to stop: the rounds in progress are finished and saved first."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["heeding_signals"]


@contextmanager
def heeding_signals(*, speak: bool = True) -> Iterator[Callable[[], bool]]:
    """While it lasts, the first Ctrl-C or SIGTERM only sets what the yielded function returns.

    A second one acts as it did before. Signals that are ignored stay ignored, and outside of the
    main thread, where Python takes no signals, nothing is changed.

    Args:
      speak: whether to say on the standard error that the wish was heard.

    Example:
      >>> with heeding_signals() as asked:
      ...     before = asked()
      >>> before
      False
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    heeded = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    ]
    before = {number: signal.getsignal(number) for number in heeded}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: object) -> None:
        asked.set()
        restore()
        if speak:
            sys.stderr.write(
                "\nfloral: saving after the rounds in progress; again to stop at once\n"
            )

    for number in heeded:
        signal.signal(number, note)
    try:
        yield asked.is_set
    finally:
        if not asked.is_set():
            restore()
