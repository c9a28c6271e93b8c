"""What finished runs came to: cells of a table, by task, method and seed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from floral.errors import ConfigError
from floral.experiment.history import CHOICES
from floral.experiment.record import read_json, read_lines
from floral.experiment.yaml_file import load

__all__ = ["Cells", "Seeds", "accuracies", "collect"]

Seeds = dict[int, dict[str, float]]
"""By seed: accuracy, the seconds that the run took and, with mixtures, agreement."""

Cells = dict[str, dict[str, Seeds]]
"""By task and method."""


def collect(folders: Iterable[Path], *, at: str = "last", number: str = "mean") -> Cells:
    """What the finished methods of run folders came to.

    Raises:
      ConfigError: if two runs of a cell have the same seed, or differ in more than their seeds.
    """
    cells: Cells = {}
    kept: dict[tuple[str, str], tuple[Path, dict[str, Any]]] = {}
    for folder in folders:
        name = task(load(folder / "config.yaml"))
        for path in sorted(folder.glob("*/summary.json")):
            place, seed = path.parent, read_json(path)["seed"]
            settings = but_seed(load(place / "config.yaml"))
            first, expected = kept.setdefault((name, place.name), (place, settings))
            if settings != expected:
                other = [key for key in settings if settings[key] != expected.get(key)]
                raise ConfigError(
                    f"{place}: differs from {first} in {', '.join(other) or 'its keys'}, and not "
                    "in its seed alone; make a table of each"
                )
            seeds = cells.setdefault(name, {}).setdefault(place.name, {})
            if seed in seeds:
                raise ConfigError(f"{place}: there is another run of {name} with seed {seed}")
            seeds[seed] = ended(place, at, number)
    return cells


def but_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what differs from seed to seed: the data's seed follows the run's."""
    return {
        key: but_seed(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in ("seed", "start_from")
    }


def ended(place: Path, at: str, number: str) -> dict[str, float]:
    """A method's accuracy, seconds and agreement."""
    try:
        numbers = CHOICES[at](read_lines(place / "metrics.jsonl"))
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
    accuracy = numbers["test"]["accuracy"]
    if number not in accuracy:
        raise ConfigError(f"{place}: recorded no {number!r}, but {', '.join(accuracy)}")
    agreement = (numbers.get("mixture") or {}).get("agreement")
    seconds = read_json(place / "summary.json")["seconds"]
    found = {} if agreement is None else {"agreement": agreement}
    return {"accuracy": accuracy[number], "seconds": seconds, **found}


def task(config: Mapping[str, Any]) -> str:
    """A name for what a config trains on."""
    data = config["data"]
    images = data["source"].get("variant", "digits")
    kept = data.get("keep", 1.0)
    return f"{images}, {data['shift']['kind']}" + ("" if kept == 1.0 else f", {kept:.0%}")


def accuracies(seeds: Seeds) -> dict[int, float]:
    """By seed, in per cent."""
    return {seed: 100 * numbers["accuracy"] for seed, numbers in seeds.items()}
