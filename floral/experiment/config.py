"""A whole config: read, overridden, checked, and unfolded into the methods that it compares."""

import re
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

from floral.errors import ConfigError
from floral.experiment.merge import merge
from floral.experiment.overrides import override
from floral.experiment.places import EXPERIMENT, SCHEMA, TOP_LEVEL
from floral.experiment.yaml_file import load

__all__ = ["main_method", "methods", "read"]


def read(
    config: str | PathLike[str] | Mapping[str, Any], overrides: Iterable[str] = ()
) -> dict[str, Any]:
    """A config with its parents and overrides, checked as a whole, defaults not written out.

    Args:
      config: a YAML file, or a mapping as a file would have it.
      overrides: as on the command line, ``algorithm.num_adaptors=8``.

    Raises:
      ConfigError: with one line for each thing that is wrong, in any of the compared methods.
    """
    mapping = dict(config) if isinstance(config, Mapping) else load(config)
    mapping = override(mapping, overrides, known=TOP_LEVEL)
    SCHEMA.validate(EXPERIMENT, mapping, where="")
    methods(mapping)
    return mapping


def main_method(config: Mapping[str, Any]) -> str:
    """The name of a config's own method: its algorithm's kind."""
    return str(config["algorithm"]["kind"]).rpartition(":")[2]


def methods(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each method's own whole config by name, defaults written out; the config's own first.

    Raises:
      ConfigError: if a method's config is wrong.
    """
    own = {name: value for name, value in config.items() if name != "compare"}
    unfolded = {main_method(config): own}
    for name, changes in (config.get("compare") or {}).items():
        if name in unfolded:
            raise ConfigError(
                f"compare.{name}: the config's own method is called {name!r} already; "
                "give this one another name"
            )
        if not isinstance(changes, Mapping):
            raise ConfigError(f"compare.{name}: expected a mapping of changes, got {changes!r}")
        if "compare" in changes:
            raise ConfigError(f"compare.{name}.compare: comparisons do not nest")
        if not re.fullmatch(r"\w[\w.+=-]*", name):
            raise ConfigError(f"compare.{name}: a method's name must be usable as a folder's")
        unfolded[name] = merge(own, changes)
    checked: dict[str, dict[str, Any]] = {}
    for name, mapping in unfolded.items():
        where = f"compare.{name}" if name in (config.get("compare") or {}) else ""
        whole = SCHEMA.validate(EXPERIMENT, mapping, where=where)
        _check_numbers(whole, f"{where}." if where else "")
        if whole["data"]["seed"] is None:
            whole["data"]["seed"] = whole["seed"]
        if "seed" in whole["data"]["source"] and "seed" not in mapping["data"]["source"]:
            whole["data"]["source"]["seed"] = whole["data"]["seed"]  # a synthetic task is data too
        checked[name] = {key: value for key, value in whole.items() if key != "compare"}
    return checked


def _check_numbers(whole: Mapping[str, Any], prefix: str) -> None:
    for name, least in (("rounds", 1), ("seed", 0)):
        if whole[name] < least:
            raise ConfigError(
                f"{prefix}{name}: expected a whole number of at least {least}, got {whole[name]}"
            )
