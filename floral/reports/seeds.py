"""Finished runs of several seeds, gathered by task, method and seed."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from floral import check
from floral.config.reading.resolve import main_method
from floral.config.reading.yaml_file import load
from floral.errors import ConfigError
from floral.records.history import CHOICES
from floral.records.intact import finished_lines, read_summary

__all__ = ["FinishedRun", "Tasks", "collect", "unfinished", "without_seed"]


class FinishedRun(NamedTuple):
    """What a method's run came to.

    Attributes:
      place: its folder.
      quantity: ``accuracy``, or ``loss`` where none was measured.
      value: the asked number over clients of it on test data.
      agreement: the share of clients in their true group; None where that is unknown.
      seconds: how long it took.
    """

    place: Path
    quantity: str
    value: float
    agreement: float | None
    seconds: float


Tasks = dict[str, dict[str, dict[int, FinishedRun]]]
"""By task, method and seed."""


def collect(
    folders: Iterable[Path],
    *,
    at: str = "last",
    number: str = "mean",
    name: Callable[[Mapping[str, Any], Path], str] | None = None,
    variants: bool = False,
) -> Tasks:
    """What the finished methods of run folders came to; ``unfinished`` names the others.

    Args:
      folders: run folders, as ``floral run`` makes them.
      at: a key of ``history.CHOICES``: which evaluation counts.
      number: which number over clients, such as ``mean``, ``of_examples`` or ``worst_decile``.
      name: of a run's config and folder the task that it is of; by default runs of equal ``data``
        are of one, which is called as the first one's folder.
      variants: whether runs of a method may differ in more than their seeds; each group of equal
        settings is then a method of its own, called by the settings in which the groups differ, as
        ``floral algorithm.num_adaptors=4``.

    Raises:
      SpecError: for another ``at``.
      ConfigError: for a folder that is no run's, for a number that was not recorded or is not
        finite, as of a run that diverged, and if two runs of a method have the same seed and
        settings, or differ in more than their seeds where variants are not asked for.
    """
    check.one_of(CHOICES, at=at)
    grouped: dict[str, dict[str, list[_Variant]]] = {}
    name = _first_of_equal_data() if name is None else name
    for folder in folders:
        if not (folder / "config.yaml").is_file():
            raise ConfigError(f"{folder}: no run folder, it has no config.yaml")
        config = load(folder / "config.yaml")  # not checked: also runs of former versions count
        task = name(config, folder)
        for method, path in _finished(folder, config):
            place, seed = path.parent, read_summary(path.parent, short=True)["seed"]
            known = grouped.setdefault(task, {}).setdefault(method, [])
            variant = _variant_of(known, place, variants=variants)
            if seed in variant.seeds:
                raise ConfigError(
                    f"{place}: there is another run of {task} with seed {seed} and the same "
                    f"settings, {variant.seeds[seed].place}"
                )
            variant.seeds[seed] = _ended(place, at, number)
    return {task: _labelled(methods) for task, methods in grouped.items()}


class _Variant(NamedTuple):
    """Runs of one method with equal settings: those settings, the first folder, and by seed."""

    settings: dict[str, Any]
    place: Path
    seeds: dict[int, FinishedRun]


def _variant_of(known: list[_Variant], place: Path, *, variants: bool) -> _Variant:
    """The group of a run, a new one if there is none of its settings."""
    settings = without_seed(load(place / "config.yaml"))
    for variant in known:
        if variant.settings == settings:
            return variant
    if known and not variants:
        first = known[0]
        other = [key for key in settings if settings[key] != first.settings.get(key)]
        raise ConfigError(
            f"{place}: differs from {first.place} in {', '.join(other) or 'its keys'}, and not "
            "in its seed alone; make a table of each"
        )
    known.append(_Variant(settings, place, {}))
    return known[-1]


def _labelled(methods: Mapping[str, list[_Variant]]) -> dict[str, dict[int, FinishedRun]]:
    """By the method's name, with the settings in which its groups differ, if there are several."""
    labelled = {}
    for method, variants in methods.items():
        flat = [_flat(variant.settings) for variant in variants]
        keys = dict.fromkeys(key for settings in flat for key in settings)
        differing = [key for key in keys if len({repr(s.get(key, _ABSENT)) for s in flat}) > 1]
        for variant, settings in zip(variants, flat, strict=True):
            words = [f"{key}={_word(settings.get(key, _ABSENT))}" for key in differing]
            labelled[" ".join([method, *words])] = variant.seeds
    return labelled


_ABSENT = object()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their dotted paths."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _word(value: Any) -> str:
    if value is _ABSENT:
        return "(none)"
    return "null" if value is None else str(value).replace(" ", "")


def unfinished(folders: Iterable[Path]) -> list[str]:
    """The folders of methods that were begun or asked for and are not finished."""
    missing = []
    for folder in folders:
        config = load(folder / "config.yaml")
        compared = config.get("compare") or {}
        if not compared:
            places = [folder]
        else:
            own = [main_method(config)] if "algorithm" in config else []
            places = [folder / name for name in (*own, *compared)]
        missing += [str(p) for p in places if not (p / "summary.json").is_file()]
    return missing


def without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what differs from seed to seed: the data's seed follows the run's."""
    return {
        key: without_seed(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in ("seed", "start_from")
    }


def _first_of_equal_data() -> Callable[[Mapping[str, Any], Path], str]:
    """Names a run as the first one that had its data."""
    known: list[tuple[Any, str]] = []

    def name(config: Mapping[str, Any], folder: Path) -> str:
        data = without_seed(config["data"])
        for other, given in known:
            if other == data:
                return given
        known.append((data, folder.name))
        return folder.name

    return name


def _finished(folder: Path, config: Mapping[str, Any]) -> list[tuple[str, Path]]:
    """A run's methods and their summaries; a run of one method is its own folder."""
    if (folder / "summary.json").is_file():
        return [(main_method(config), folder / "summary.json")]
    paths = {path.parent.name: path for path in sorted(folder.glob("*/summary.json"))}
    compared = list(config.get("compare") or {})
    order = {name: compared.index(name) if name in compared else -1 for name in paths}
    return [(name, paths[name]) for name in sorted(paths, key=lambda name: order[name])]


def _ended(place: Path, at: str, number: str) -> FinishedRun:
    summary = read_summary(place, short=True)
    lines = finished_lines(place)
    try:
        numbers = CHOICES[at](lines)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
    if "test" not in numbers:
        raise ConfigError(f"{place}: recorded no test data, but {', '.join(numbers)}")
    tested = numbers["test"]
    quantity = "accuracy" if "accuracy" in tested else "loss"
    if number not in tested[quantity]:
        known = ", ".join(tested[quantity])
        raise ConfigError(f"{place}: recorded no {number!r}, but {known}")
    if tested[quantity][number] is None:
        raise ConfigError(
            f"{place}: {number} of its test {quantity} is not finite at {at!r}, as of a run that "
            "diverged; leave that folder out, or take another number, or another at: "
            f"{', '.join(CHOICES)}"
        )
    agreement = (numbers.get("mixture") or {}).get("agreement")
    return FinishedRun(place, quantity, tested[quantity][number], agreement, summary["seconds"])
