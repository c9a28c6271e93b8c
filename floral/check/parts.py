"""Other settings: one of some words, paths, mappings, globs, what a factory makes, functions."""

import errno
import inspect
import os
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from floral.check.words import brief, described, did_you_mean
from floral.errors import SpecError

__all__ = ["globs", "instance_of", "mapping", "one_of", "path", "takes"]


def one_of(options: Iterable[Any], **named: Any) -> None:
    """Raises SpecError unless every value is one of the options; names the nearest one."""
    options = list(options)
    for name, value in named.items():
        comparable = isinstance(value, Hashable) and not isinstance(value, jax.Array)
        if not comparable or value not in options:
            known = ", ".join(map(str, options))
            raise SpecError(
                f"{name} must be one of {known}; got {brief(value)}{did_you_mean(value, options)}"
            )


def path(**named: Any) -> None:
    """Raises SpecError unless every value may be a path of a file or folder, there or not."""
    for name, value in named.items():
        if not isinstance(value, str | os.PathLike):
            raise SpecError(f"{name} must be the path of a file or folder, got {described(value)}")
        try:
            os.stat(value)
        except ValueError:
            raise SpecError(f"{name}: no path has such letters: {brief(value)}") from None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise SpecError(f"{name} is too long for a path: {brief(value)}") from None


def mapping(example: str, **named: Any) -> None:
    """Raises SpecError unless every value is a mapping by text; the message gives the example."""
    for name, value in named.items():
        if not isinstance(value, Mapping):
            raise SpecError(f"{name} must be a mapping, as {example}, got {described(value)}")
        for key in value:
            if not isinstance(key, str):
                raise SpecError(f"{name}: expected text for names, as {example}, got {brief(key)}")


def globs(**named: Any) -> None:
    """Raises SpecError unless every value is a list of path globs, which are text."""
    for name, value in named.items():
        listed = isinstance(value, Iterable) and not isinstance(value, np.ndarray | jax.Array)
        if isinstance(value, str) or not listed:
            example = value if isinstance(value, str) else "**/Dense_1"
            raise SpecError(
                f"{name} must be a list of path globs, as [{brief(example)}], "
                f"got {described(value)}"
            )
        for glob in value:
            if not isinstance(glob, str):
                raise SpecError(f"{name}: a path glob must be text, got {described(glob)}")


def instance_of(kind: type, made_by: str, **named: Any) -> None:
    """Raises SpecError unless every value is of the kind.

    Args:
      kind: the type that is expected.
      made_by: the call that makes one, for the message: ``"fl.data.batching(batch_size=32)"``.
      **named: the values.
    """
    for name, value in named.items():
        if not isinstance(value, kind):
            raise SpecError(
                f"{name}: expected {kind.__name__}, as {made_by} makes, got {described(value)}"
            )


def takes(count: int, function: Any) -> bool:
    """Whether a function can be called with so many positional arguments, as far as it says."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # some built-in functions do not say what they take
        return True
    return True
