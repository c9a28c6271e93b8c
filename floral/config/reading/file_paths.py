"""The files and folders that a config names: where it does, and what they are from any folder."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from floral.config.areas import EXPERIMENT, SCHEMA
from floral.config.reading.merge import merge
from floral.config.reading.resolve import methods

__all__ = ["path_places", "value_at", "with_absolute_paths", "without_paths"]

Location = tuple[str, ...]
"""The keys to a setting, as ``("adaptors", "0", "rank")``."""


def path_places(config: Mapping[str, Any]) -> dict[Location, bool]:
    """Where a config, and each of the methods it compares, names files and folders.

    The annotations of factories say so (``floral.typing.FilePath``), one's own factories included.

    Returns:
      By place, as ``("data", "source", "path")``, whether the value may be a name as well. Places
      of a compared method begin with ``"compare"`` and its name, and are those that it sets itself.
    """
    found: dict[Location, bool] = {}
    for name, whole in methods(config).items():
        compared = name in (config.get("compare") or {})
        prefix = ("compare", name) if compared else ()
        for place, or_name in SCHEMA.paths(EXPERIMENT, whole).items():
            if value_at(config, (*prefix, *place)) is not None:
                found[*prefix, *place] = or_name
    return found


def with_absolute_paths(
    config: Mapping[str, Any], only: Collection[Location] | None = None
) -> dict[str, Any]:
    """The config with its files and folders fixed, so that it means the same from any folder.

    What may also be a name (of a data set on a hub, of another method of the comparison) becomes a
    path only where there is a file or folder of that name.

    Args:
      config: as ``read`` gives it.
      only: the places to fix; None is all.
    """
    known = methods(config)
    result = merge({}, config)
    for place, or_name in path_places(config).items():
        value = value_at(result, place)
        if only is not None and place not in only:
            continue
        if place[-1] == "start_from" and value in known:
            continue
        _put(result, place, _absolute(value, or_name))
    return result


def without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """One method's config with null for its files and folders: what it means wherever they lie."""
    result = merge({}, config)
    for place in SCHEMA.paths(EXPERIMENT, config):
        _put(result, place, None)
    return result


def value_at(mapping: Any, place: Location) -> Any:
    """What a nested mapping holds at a place; None if nothing."""
    for key in place:
        if isinstance(mapping, Mapping):
            mapping = mapping.get(key)
        elif isinstance(mapping, list) and key.isdecimal() and int(key) < len(mapping):
            mapping = mapping[int(key)]
        else:
            return None
    return mapping


def _put(mapping: Any, place: Location, value: Any) -> None:
    """Sets what is there already."""
    holder, key = value_at(mapping, place[:-1]), place[-1]
    holder[int(key) if isinstance(holder, list) else key] = value


def _absolute(text: str, or_name: bool) -> str:
    path = Path(text)
    if text.startswith("~"):
        try:
            path = path.expanduser()
        except RuntimeError:  # there is no such user: a folder may have that name
            path = Path(text)
    return text if or_name and not path.exists() else str(path.absolute())
