"""The tables of a run's end, as text: five columns for a terminal, everything for the report."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "accuracy_table",
    "bytes_table",
    "headline_table",
    "mixture_table",
    "quantity_of",
    "seconds_table",
    "split_of",
    "tested",
]

Summaries = Mapping[str, Mapping[str, Any]]
"""By method, what ``summary.json`` has."""

Table = tuple[list[str], list[list[str]]]
"""The head, and the rows."""

_NONE = "–"
_ROUNDING = 1e-7


def tested(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """The last numbers on test data, or where there are none on validation data."""
    return summary["last"].get("test") or summary["last"].get("validation") or {}


def split_of(summaries: Summaries) -> str:
    """The split that a comparison is shown on."""
    some = next(iter(summaries.values()))
    return "test" if some["last"].get("test") else "validation"


def quantity_of(summaries: Summaries) -> str:
    """What a comparison is shown by: ``accuracy``, or ``loss`` where none was measured."""
    return "accuracy" if "accuracy" in tested(next(iter(summaries.values()))) else "loss"


def headline_table(summaries: Summaries, *, narrow: bool = False) -> Table:
    """What a person looks at first: accuracy (± over clients), worst decile, unseen, MB sent.

    Args:
      summaries: by method.
      narrow: for 40 columns; short titles, and no units in the cells.
    """
    kind = quantity_of(summaries)
    unit = " %" if kind == "accuracy" else ""
    if narrow:
        head = ["method", f"{kind}{unit}", "low\n10 %", "un-\nseen", "MB\nsent"]
        if kind == "accuracy":
            head[1] = "acc. %"
    else:
        head = [
            "method",
            f"{split_of(summaries)} {kind}{unit}",
            "worst 10 %",
            "unseen",
            "MB sent a round",
        ]
    rows = []
    for name, summary in summaries.items():
        last = tested(summary).get(kind, {})
        unseen = summary["last"].get("unseen", {}).get(kind, {})
        mean, deviation = (_number(last.get(which), kind) for which in ("mean", "std"))
        spread = f"{mean}±{deviation}" if narrow else f"{mean} ± {deviation}"
        rows.append(
            [
                name,
                mean if mean == _NONE or deviation == _NONE else spread,
                _number(last.get("worst_decile"), kind),
                _number(unseen.get("mean"), kind),
                _megabytes(summary["costs"]["upload_bytes"]),
            ]
        )
    return head, rows


def accuracy_table(summaries: Summaries) -> Table:
    """All accuracies (or losses) of the last round, and that of the round that validated best."""
    kind, split = quantity_of(summaries), split_of(summaries)
    unit = " (%)" if kind == "accuracy" else ""
    head = [
        "method",
        f"{split} {kind}{unit}",
        "spread over clients",
        "over all examples",
        "worst 10 % of clients",
        "unseen clients",
        "global model",
        "at the best round",
        "best round",
        "groups found",
    ]
    rows = [_accuracy_row(name, summary, kind) for name, summary in summaries.items()]
    return _without_empty(head, rows)


def _accuracy_row(name: str, summary: Mapping[str, Any], kind: str) -> list[str]:
    last, best = tested(summary).get(kind, {}), summary["best"]
    numbers = summary["last"]
    chosen = {} if best is None else tested({"last": best}).get(kind, {})
    found = numbers.get("mixture", {}).get("agreement")
    return [
        name,
        _number(last.get("mean"), kind),
        _number(last.get("std"), kind),
        _number(last.get("of_examples"), kind),
        _number(last.get("worst_decile"), kind),
        _number(numbers.get("unseen", {}).get(kind, {}).get("mean"), kind),
        _number(numbers.get("global", {}).get(kind, {}).get("mean"), kind),
        _number(chosen.get("mean"), kind),
        _NONE if best is None else str(best["round"]),
        _NONE if found is None else f"{found:.0%}",
    ]


def bytes_table(summaries: Summaries) -> Table:
    """What one client sends, receives and keeps, and the whole server."""
    head = [
        "method",
        "sent a round",
        "received a round",
        "received once",
        "sent while groups are found",
        "kept by a client",
        "kept by the server",
    ]
    names = (
        "upload_bytes",
        "download_bytes",
        "cached_bytes",
        "sums_bytes",
        "client_state_bytes",
        "server_state_bytes",
    )
    rows = [
        [name, *(_bytes(summary["costs"].get(cost)) for cost in names)]
        for name, summary in summaries.items()
    ]
    return _without_empty(head, rows, empty=(_NONE, "0"))


def seconds_table(summaries: Summaries) -> Table:
    """Where the seconds went; runs of former versions know the total alone."""
    head = ["method", "compile", "train", "evaluate", "total", "rounds a second"]
    rows = []
    for name, summary in summaries.items():
        parts = summary.get("timing", {})
        rows.append(
            [
                name,
                *(_seconds(parts.get(part)) for part in ("compile", "train", "evaluate")),
                _seconds(summary["seconds"]),
                _plain(parts.get("rounds_per_second")),
            ]
        )
    return head, rows


def mixture_table(summaries: Summaries, decays: Mapping[str, float | None]) -> Table:
    """What mixtures came to, a row for each method that has them.

    Args:
      summaries: by method.
      decays: by method, the power by which the distance to the true groups falls.
    """
    head = [
        "method",
        "adaptors used",
        "adaptors unused",
        "evenness",
        "clients per adaptor",
        "fewest",
        "loss above the best adaptor",
        "distance to true groups",
        "its decay",
        "gradient variance, base",
        "of it between groups",
        "left after averaging (base)",
        "gradient variance, adaptors",
        "left after averaging (adaptors)",
        "averaging gap",
    ]
    rows = []
    for name, summary in summaries.items():
        numbers = summary["last"].get("mixture")
        if not numbers:
            continue
        gap = numbers.get("averaging_gap", summary.get("uplink", {}).get("averaging_gap"))
        rows.append(
            [
                name,
                _plain(numbers.get("adaptors")),
                _plain(numbers.get("unused")),
                _plain(numbers.get("uniformity")),
                _plain(numbers.get("clients_an_adaptor")),
                _plain(numbers.get("fewest_clients")),
                _plain(numbers.get("regret")),
                _plain(numbers.get("mismatch")),
                _plain(decays.get(name)),
                _plain(numbers.get("base_variance")),
                _share_between(numbers),
                _plain(numbers.get("base_variance_averaged")),
                _plain(numbers.get("adaptor_variance")),
                _plain(numbers.get("adaptor_variance_averaged")),
                _plain(gap),
            ]
        )
    return _without_empty(head, rows)


def _share_between(numbers: Mapping[str, Any]) -> str:
    """An unbiased estimate may come out below zero where there is nothing between groups."""
    whole, between = numbers.get("base_variance"), numbers.get("base_variance_between")
    if not whole or between is None:
        return _NONE
    return f"{max(0.0, between / whole):.0%}"


def _without_empty(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, empty: Sequence[str] = (_NONE,)
) -> Table:
    """Without the columns in which no method has anything, the first two aside."""
    kept = [i for i in range(len(head)) if i < 2 or any(row[i] not in empty for row in rows)]
    return [head[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _number(value: float | None, kind: str) -> str:
    """Accuracies in per cent."""
    if value is None:
        return _NONE
    return f"{100 * value:.1f}" if kind == "accuracy" else _plain(value)


def _plain(value: float | None) -> str:
    """Three digits; what float32 sums leave of a zero is shown as zero."""
    if value is None:
        return _NONE
    return "0" if abs(value) < _ROUNDING else f"{value:.3g}"


def _seconds(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1f}"


def _bytes(value: float | None) -> str:
    return _NONE if value is None else f"{value:,}"


def _megabytes(value: int) -> str:
    """Three digits, of 10^6 bytes.

    Example:
      >>> _megabytes(752_988), _megabytes(0), _megabytes(44_700_000), _megabytes(12)
      ('0.753', '0', '44.7', '<0.001')
    """
    megabytes = value / 1e6
    if 0 < megabytes < 5e-4:
        return "<0.001"
    if megabytes >= 100:
        return f"{megabytes:,.0f}"
    return f"{megabytes:.3g}" if megabytes >= 1 else f"{megabytes:.3f}".rstrip("0").rstrip(".")
