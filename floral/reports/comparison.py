"""Methods over several seeds, as Markdown: means, intervals, and differences pair by pair."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from floral.config.reading.yaml_file import write_atomically
from floral.errors import ConfigError
from floral.metrics import between_clients, between_seeds, over_clients, over_seeds
from floral.records.intact import last_clients
from floral.reports.plot import save_figure
from floral.reports.seed_figure import seed_curves, seeds_figure
from floral.reports.seeds import FinishedRun, collect, unfinished
from floral.text_table import latex, markdown

__all__ = ["compare", "probability"]

_NONE = "–"


def compare(
    folders: Iterable[str | Path],
    *,
    against: str | None = None,
    at: str = "last",
    number: str = "mean",
    confidence: float = 0.95,
    out: str | Path | None = None,
    figure: str | Path | None = None,
) -> str:
    """Run folders side by side, a table a task: runs that differ in their seeds alone are a row.

    Where runs of a method differ in other settings too, each group of equal settings is a row of
    its own, called by those settings. A table with several seeds of any method has Student's t
    intervals, and differences paired by seed; a row of one seed has none. A table of single seeds
    has bootstraps over clients, which say how its numbers would differ with other clients, and not
    with another seed.

    Args:
      folders: run folders, as ``floral run`` makes them, of one or of several tasks.
      against: the method to compare the others with; by default each task's first.
      at: which evaluation counts: ``last``, ``best`` on validation data, or ``last_bin``.
      number: which number over clients: ``mean``, ``of_examples``, ``worst_decile``, ….
      confidence: of the intervals.
      out: a file to write it to as well, whole or not at all; as LaTeX tables if it ends in
        ``.tex``.
      figure: a file for learning curves over rounds, with bands over seeds: ``.png``, ``.pdf`` or
        ``.svg``.

    Returns:
      Markdown.

    Raises:
      ConfigError: as ``seeds.collect``; also if no run is finished, no task has the method, or the
        figure has another suffix.
    """
    places = [Path(folder) for folder in folders]
    tasks = collect(places, at=at, number=number, variants=True)
    if not tasks:
        raise ConfigError("no finished run in these folders; go on with them by floral resume")
    known = list(dict.fromkeys(method for methods in tasks.values() for method in methods))
    if against is not None and against not in known:
        raise ConfigError(f"against: no run of {against!r}, but of {', '.join(known)}")
    # Per-client tables are read at the last evaluation, and resampled where it is what counts.
    by_client = number if at == "last" and number in ("mean", "of_examples") else None
    tables = {
        task: _table(methods, against, by_client, confidence) for task, methods in tasks.items()
    }
    parts = [f"## {task}\n\n{markdown(*table)}\n" for task, table in tables.items()]
    if missing := unfinished(places):
        parts.append(f"Not finished, and left out: {', '.join(missing)}.\n")
    text = "\n".join([*parts, _legend(at, number, confidence)])
    if figure is not None:
        save_figure(seeds_figure(seed_curves(tasks, number), number=number), Path(figure))
    if out is not None:
        tex = "\n\n".join(f"% {task}\n{latex(*table)}" for task, table in tables.items()) + "\n"
        write_atomically(Path(out), tex if Path(out).suffix == ".tex" else text)
    return text


def _table(
    methods: Mapping[str, dict[int, FinishedRun]],
    against: str | None,
    by_client: str | None,
    confidence: float,
) -> tuple[list[str], list[list[str]]]:
    base = next(iter(methods)) if against is None or against not in methods else against
    quantity = next(iter(methods[base].values())).quantity
    if any(len(seeds) > 1 for seeds in methods.values()):
        by_client = None  # one kind of interval a column
    head = ["method", "seeds", f"test {quantity}", "interval", "groups found"]
    head += [f"difference to `{base}`", "its interval", "p"]
    rows = [
        [
            f"`{name}`",
            f"{len(seeds)} ({', '.join(map(str, sorted(seeds)))})",
            *_own(seeds, by_client, confidence),
            _agreement(seeds),
            *([_NONE] * 3 if name == base else _less(seeds, methods[base], by_client, confidence)),
        ]
        for name, seeds in methods.items()
    ]
    return head, rows


def _own(seeds: Mapping[int, FinishedRun], by_client: str | None, confidence: float) -> list[str]:
    """Mean, with the deviation over seeds, and its interval."""
    ends = list(seeds.values())
    scale, places = _unit(ends[0])
    if len(ends) > 1:
        found = over_seeds([scale * end.value for end in ends], confidence=confidence)
        return [f"{found.mean:{places}} ± {found.sd:{places}}", _span(found, places)]
    shown = f"{scale * ends[0].value:{places}}"
    if by_client is None:
        return [shown, _NONE]
    values, examples = _of_clients(ends[0])
    weights = examples if by_client == "of_examples" else None
    found = over_clients(scale * values, seed=0, examples=weights, confidence=confidence)
    return [shown, f"{_span(found, places)} over clients"]


def _less(
    seeds: Mapping[int, FinishedRun],
    base: Mapping[int, FinishedRun],
    by_client: str | None,
    confidence: float,
) -> list[str]:
    """A method less the one it is compared with, over what both have: mean, interval and p."""
    both = sorted(seeds.keys() & base.keys())
    if not both:
        return [_NONE] * 3
    scale, places = _unit(seeds[both[0]])
    if len(both) > 1:
        mine, theirs = ({s: scale * ends[s].value for s in both} for ends in (seeds, base))
        found = between_seeds(mine, theirs, confidence=confidence)
        shown = f"{found.mean:+{places}} ± {found.sd:{places}}"
        return [shown, _span(found, f"+{places}"), probability(found.p)]
    one, other = seeds[both[0]], base[both[0]]
    shown = f"{scale * (one.value - other.value):+{places}}"
    if by_client is None:
        return [shown, _NONE, _NONE]
    (mine, examples), (theirs, _) = _of_clients(one), _of_clients(other)
    if len(mine) != len(theirs):
        return [shown, _NONE, _NONE]
    weights = examples if by_client == "of_examples" else None
    found = between_clients(
        scale * mine, scale * theirs, seed=0, examples=weights, confidence=confidence
    )
    return [shown, f"{_span(found, f'+{places}')} over clients", _NONE]


def _unit(end: FinishedRun) -> tuple[float, str]:
    """Accuracies are shown in per cent."""
    return (100.0, ".1f") if end.quantity == "accuracy" else (1.0, ".3g")


def _span(found, places: str) -> str:
    return f"[{found.low:{places}}, {found.high:{places}}]"


def probability(p: float) -> str:
    """A p-value as it is shown."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _agreement(seeds: Mapping[int, FinishedRun]) -> str:
    found = [end.agreement for end in seeds.values() if end.agreement is not None]
    return f"{np.mean(found):.0%}" if found else _NONE


def _of_clients(end: FinishedRun) -> tuple[np.ndarray, np.ndarray]:
    """What each client that trained came to in the last evaluation, and on how many examples."""
    table = last_clients(end.place)
    values = table[f"test_{end.quantity}"].astype(float)
    examples = table["test_examples"]
    kept = ~table["unseen"] & np.isfinite(values) & (examples > 0)
    return values[kept], examples[kept]


def _legend(at: str, number: str, confidence: float) -> str:
    when = {
        "last": "the last round",
        "best": "the round that validated best",
        "last_bin": "the last of 50 bins of rounds",
    }[at]
    return (
        f"Each client's own model on its own test data at {when}, `{number}` over clients: mean ± "
        f"standard deviation over seeds, accuracies in per cent. Intervals hold {confidence:.0%}: "
        "Student's t over seeds, paired seed by seed for differences, with the p-value of the "
        "paired t test; of one seed a bootstrap over clients.\n"
    )
