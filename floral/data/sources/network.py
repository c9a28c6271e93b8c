"""Whether there is a way to the hub of data sets, and how to do without."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["hub_answers", "offline"]

_PATIENCE_SECONDS = 5


def hub_answers() -> bool:
    """Whether there is a way to the hub, asked once: its own library would ask five times, for half
    a minute, before it looks for what is on disk."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS):
            return True
    except urllib.error.HTTPError:  # an answer, if not a kind one
        return True
    except (OSError, http.client.HTTPException):
        return False


@contextmanager
def offline() -> Iterator[None]:
    """While it lasts, the hub's libraries look on disk alone, as with ``HF_HUB_OFFLINE=1``."""
    from datasets import config
    from huggingface_hub import constants

    before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
