"""Settings are given by name; the first of a factory may also be given by place."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from floral.errors import SpecError

__all__ = ["first_by_place"]

T = TypeVar("T")


def first_by_place(factory: Callable[..., T]) -> Callable[..., T]:
    """The factory of keyword-only settings, whose first one may stand alone, without its name.

    Its signature stays as it is: a config reads the settings from it.

    Raises:
      SpecError: when called with more by place, or with the first one twice.

    Example:
      >>> @first_by_place
      ... def natural(*, field): return field
      >>> natural("site"), natural(field="site")
      ('site', 'site')
    """
    names = list(inspect.signature(factory).parameters)

    @functools.wraps(factory)
    def called(*given: Any, **settings: Any) -> T:
        if len(given) > 1 or (given and names[0] in settings):
            others = f", then {', '.join(f'{name}=...' for name in names[1:])}" * bool(names[1:])
            raise SpecError(
                f"{factory.__name__} takes {names[0]} alone by place{others}, got "
                f"{len(given)} values by place"
            )
        return factory(**dict(zip(names, given, strict=False)), **settings)

    return called
