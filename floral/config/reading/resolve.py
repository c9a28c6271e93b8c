"""A whole config: read, overridden, checked, and unfolded into the methods that it compares."""

import re
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

from floral.check import brief, did_you_mean
from floral.config.areas import EXPERIMENT, SCHEMA, TOP_LEVEL
from floral.config.reading.merge import merge
from floral.config.reading.overrides import Override, Setting, keywords, override, parse
from floral.config.reading.plain import plain
from floral.config.reading.yaml_file import load
from floral.errors import ConfigError

__all__ = ["listed", "main_method", "methods", "read"]


def read(
    config: str | PathLike[str] | Mapping[str, Any],
    overrides: Iterable[str] = (),
    *,
    settings: Mapping[str, Any] | None = None,
    without: str | Iterable[str] = (),
) -> dict[str, Any]:
    """A config with its parents and overrides, checked as a whole, defaults not written out.

    Args:
      config: a YAML file, the name of a packaged config, or a mapping as a file would have it;
        NumPy's and JAX's numbers, paths, tuples and enums in it become plain values.
      overrides: as on the command line, ``algorithm.num_adaptors=8``.
      settings: further overrides by dotted name; of two for one place these win.
      without: methods to leave out, as a list or one text with commas.

    Raises:
      ConfigError: with one line for each thing that is wrong, in any of the methods that are run.
    """
    if not isinstance(config, str | PathLike | Mapping):
        raise ConfigError(f"config: expected a YAML file or a mapping, got {brief(config)}")
    mapping = plain(config) if isinstance(config, Mapping) else load(config)
    given = [*map(parse, overrides), *keywords(plain(settings or {}))]
    _check_removals(mapping, given)
    mapping = plain(override(mapping, given, known=TOP_LEVEL))
    if isinstance(compared := mapping.get("compare"), Mapping):
        kept = {name: changes for name, changes in compared.items() if changes is not None}
        mapping["compare"] = kept or None
    _check_one_seed(mapping)
    SCHEMA.validate(EXPERIMENT, mapping, where="")
    if left_out := listed(without):
        _check_known("without", left_out, mapping)
        chosen = listed(mapping.get("only")) or _names(mapping)
        mapping["only"] = [name for name in chosen if name not in left_out]
    methods(mapping)
    return mapping


def listed(names: str | Iterable[str] | None) -> list[str]:
    """Names of methods, given as a list or as one text with commas between them."""
    texts = names.split(",") if isinstance(names, str) else names or ()
    return [text.strip() for text in texts]


def main_method(config: Mapping[str, Any]) -> str:
    """The name of a config's own method: its algorithm's kind."""
    return str(config["algorithm"]["kind"]).rpartition(":")[2]


_LONGEST_NAME = 100
_FILES = (".json", ".jsonl", ".md", ".png", ".yaml")
_FOLDERS = ("checkpoints", "clients")


def _check_method_name(name: str, others: Iterable[str]) -> None:
    """Raises ConfigError for a name whose folder would be another's, or one of the run's files."""
    if len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"compare.{name[:20]}…: a method's name has at most {_LONGEST_NAME} letters, "
            f"this one {len(name)}"
        )
    if name.lower().endswith(_FILES) or name.lower() in _FOLDERS:
        raise ConfigError(
            f"compare.{name}: a run folder keeps files of its own under such a name; choose another"
        )
    for other in others:
        if other.casefold() == name.casefold():
            raise ConfigError(
                f"compare.{name}: there is a method {other!r} already, and on some disks both "
                "would be one folder; choose another name"
            )


def methods(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each method's own whole config by name, defaults written out; the config's own first.

    A config's ``only`` leaves out the methods that it does not name.

    Raises:
      ConfigError: if a method's config is wrong, or ``only`` names none.
    """
    own = {name: value for name, value in config.items() if name not in ("compare", "only")}
    unfolded = {main_method(config): own}
    for name, changes in (config.get("compare") or {}).items():
        if name in unfolded:
            raise ConfigError(
                f"compare.{name}: the config's own method is called {name!r} already; "
                "give this one another name"
            )
        if not isinstance(changes, Mapping):
            raise ConfigError(f"compare.{name}: expected a mapping of changes, got {changes!r}")
        for inner in ("compare", "only"):
            if inner in changes:
                raise ConfigError(f"compare.{name}.{inner}: comparisons do not nest")
        if not re.fullmatch(r"\w[\w.+=-]*", name):
            raise ConfigError(f"compare.{name}: a method's name must be usable as a folder's")
        _check_method_name(name, unfolded)
        unfolded[name] = merge(own, changes)
    checked: dict[str, dict[str, Any]] = {}
    for name, mapping in _chosen(config, unfolded).items():
        where = f"compare.{name}" if name in (config.get("compare") or {}) else ""
        whole = SCHEMA.validate(EXPERIMENT, mapping, where=where)
        _check_numbers(whole, f"{where}." if where else "")
        if whole["data"]["seed"] is None:
            whole["data"]["seed"] = whole["seed"]
        if "seed" in whole["data"]["source"] and "seed" not in mapping["data"]["source"]:
            whole["data"]["source"]["seed"] = whole["data"]["seed"]  # a synthetic task is data too
        checked[name] = {
            key: value for key, value in whole.items() if key not in ("compare", "only")
        }
    return checked


def _names(config: Mapping[str, Any]) -> list[str]:
    return [main_method(config), *(config.get("compare") or {})]


def _chosen(
    config: Mapping[str, Any], unfolded: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The methods that ``only`` leaves."""
    if config.get("only") is None:
        return {**unfolded}
    only = listed(config["only"])
    _check_known("only", only, config)
    chosen = {name: mapping for name, mapping in unfolded.items() if name in only}
    if not chosen:
        raise ConfigError(f"only: no method is left to run; there are {', '.join(unfolded)}")
    for name, mapping in chosen.items():
        start = mapping.get("start_from")
        if start in unfolded and start not in chosen:
            raise ConfigError(
                f"only: {name!r} starts from {start!r}, which is left out; name both, or set "
                "start_from to a run folder"
            )
    return chosen


def _check_known(setting: str, names: Iterable[str], config: Mapping[str, Any]) -> None:
    known = _names(config)
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
            raise ConfigError(f"{setting}: no method is called {name!r}{hint}")


def _check_removals(config: Mapping[str, Any], given: Iterable[Override | Setting]) -> None:
    """Raises ConfigError for ``compare.NAME=null`` where there is no such method."""
    compared = config.get("compare")
    known = list(compared) if isinstance(compared, Mapping) else []
    for each in given:
        if len(each.path) == 2 and each.path[0] == "compare" and each.value is None:
            name = each.path[1]
            if name not in known:
                hint = did_you_mean(name, known) or f"; there are {', '.join(known) or 'none'}"
                raise ConfigError(f"{each.place}: no method to compare is called {name!r}{hint}")


def _check_one_seed(config: Mapping[str, Any]) -> None:
    for place, section in (("seed", config), ("data.seed", config.get("data"))):
        seed = section.get("seed") if isinstance(section, Mapping) else None
        if isinstance(seed, list | tuple) or (isinstance(seed, str) and "," in seed):
            raise ConfigError(
                f"{place}: a run has one seed, got {seed!r}; run each seed by itself (for seed in "
                "0 1 2; do floral run x.yaml seed=$seed; done), then put them side by side with "
                "floral report runs/x runs/x-2 runs/x-3"
            )


def _check_numbers(whole: Mapping[str, Any], prefix: str) -> None:
    if whole["rounds"] < 1:
        raise ConfigError(
            f"{prefix}rounds: expected a whole number of at least 1, got {whole['rounds']}"
        )
