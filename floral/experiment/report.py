"""The end of a run: one table over its methods and one picture, read from the run folders alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from floral.experiment import record
from floral.experiment.history import mismatch_decay
from floral.experiment.plot import ClientValues, MixturePanel, comparison_figure, save_figure
from floral.experiment.yaml_file import write_atomically
from floral.text_table import markdown

__all__ = ["advice", "mixture_rows", "table_rows", "write_report"]

_NONE = "–"

_MIXTURE_NOTES = (
    "Mixtures at the last round. Adaptors: how many are used, effectively. Regret: what the mean "
    "client loses beyond the best single adaptor for it, on validation examples, or where there "
    "are none on training examples. Clients an adaptor: how many of equal weight would average as "
    "well. Mismatch: how far adaptors are from averaging the true clusters, 0 to 2; decay: the "
    "power of rounds by which its square falls. Variance: of clients' gradients, of which so much "
    "between clusters; averaged: what is left of it in the mean over all clients. Averaging gap: "
    "what the average of factors misses of that of products, relative to the latter.\n"
)


def table_rows(summaries: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of the table, as text.

    Accuracies are of the last round, means over clients, and over all their examples; "best" is the
    first at the round that validated best.
    """
    some = next(iter(summaries.values()))
    kind = "accuracy" if "accuracy" in _tested(some) else "loss"
    head = [
        "method",
        f"{_shown_split(some)} {kind}",
        "of examples",
        "± clients",
        "worst 10 %",
        "best (round)",
        "unseen",
        "clusters found",
        "up B",
        "down B",
        "once B",
        "kept B",
        "seconds",
    ]
    return head, [_row(name, summary, kind) for name, summary in summaries.items()]


def advice(summary: Mapping[str, Any]) -> str | None:
    """What a run found wrong with its own settings, in a sentence; None if nothing."""
    mixture = summary["last"].get("mixture", {})
    groups, bank = mixture.get("groups", 0), mixture.get("bank", 0)
    if groups <= bank:
        return None
    return (
        f"the clients' data show {groups:.0f} groups, and there are {bank:.0f} adaptors or models "
        f"to serve them: set algorithm.num_adaptors or num_models to {groups:.0f}"
    )


def _shown_split(summary: Mapping[str, Any]) -> str:
    return "test" if summary["last"].get("test") else "validation"


def _tested(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    return summary["last"].get("test") or summary["last"].get("validation") or {}


def _row(name: str, summary: Mapping[str, Any], kind: str) -> list[str]:
    show = _percent if kind == "accuracy" else _plain
    last, costs = _tested(summary).get(kind, {}), summary["costs"]
    best = summary["best"]
    chosen = {} if best is None else _tested({"last": best})[kind]
    unseen = summary["last"].get("unseen", {}).get(kind, {})
    found = summary["last"].get("mixture", {}).get("agreement")
    return [
        name,
        show(last.get("mean")),
        show(last.get("of_examples")),
        show(last.get("std")),
        show(last.get("worst_decile")),
        _NONE if best is None else f"{show(chosen['mean'])} ({best['round']})",
        show(unseen.get("mean")),
        _NONE if found is None else f"{found:.0%}",
        f"{costs['upload_bytes']:,}",
        f"{costs['download_bytes']:,}",
        f"{costs['cached_bytes']:,}",
        f"{costs['client_state_bytes']:,}",
        f"{summary['seconds']:.1f}",
    ]


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.1f} %"


def _plain(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3g}"


def mixture_rows(
    summaries: Mapping[str, Mapping[str, Any]], folders: Mapping[str, Path]
) -> tuple[list[str], list[list[str]]]:
    """The same of the table of mixtures, with a row for each method that has them."""
    head = [
        "mixtures of",
        "adaptors",
        "regret",
        "clients an adaptor (fewest)",
        "mismatch",
        "decay",
        "base variance (between)",
        "averaged",
        "adaptor variance",
        "averaged",
        "averaging gap",
    ]
    rows = []
    for name, summary in summaries.items():
        numbers = summary["last"].get("mixture")
        if numbers:
            decay = mismatch_decay(record.read_lines(folders[name] / "metrics.jsonl"))
            rows.append(_mixture_row(name, numbers, decay))
    return head, rows


def _mixture_row(name: str, numbers: Mapping[str, Any], decay: float | None) -> list[str]:
    def show(number: str) -> str:
        return _plain(numbers.get(number))

    return [
        name,
        show("adaptors"),
        show("regret"),
        f"{show('clients_an_adaptor')} ({show('fewest_clients')})",
        show("mismatch"),
        _plain(decay),
        f"{show('base_variance')} ({show('base_variance_between')})",
        show("base_variance_averaged"),
        show("adaptor_variance"),
        show("adaptor_variance_averaged"),
        show("averaging_gap"),
    ]


def write_report(
    folder: Path, summaries: Mapping[str, Mapping[str, Any]], folders: Mapping[str, Path]
) -> tuple[Path, Path]:
    """Writes ``report.md`` and ``figure.png`` into the folder; returns their paths."""
    text = markdown(*table_rows(summaries))
    notes = (
        "Numbers are means over the clients of each client's own model on its own data, at "
        "the last round; *of examples* counts every example alike, not every client; *best* is the "
        "first at the round that validated best. Clusters found: "
        "clients whose largest weight names their true cluster. Up and down: bytes a client sends "
        "and receives a round; once: bytes it receives a single time, since they never change; "
        "kept: bytes it keeps between rounds. Seconds include compilation.\n"
    )
    for name, summary in summaries.items():
        if beside := summary["costs"].get("finding_bytes", 0):  # runs of old have none
            notes += (
                f"\n`{name}` sends {beside:,} bytes beside in each of its first rounds, while "
                "groups are found.\n"
            )
    told = [(name, advice(summary)) for name, summary in summaries.items()]
    notes += "".join(f"\n`{name}`: {what}.\n" for name, what in told if what)
    head, rows = mixture_rows(summaries, folders)
    if rows:
        notes += f"\n{markdown(head, rows)}\n\n{_MIXTURE_NOTES}"
    report = folder / "report.md"
    write_atomically(report, f"# {folder.name}\n\n{text}\n\n{notes}\n![]({'figure.png'})\n")
    figure = comparison_figure(
        {name: _curve(place) for name, place in folders.items()},
        {name: _per_client(place) for name, place in folders.items()},
        _mixtures(folders),
        quantity="accuracy" if "accuracy" in _tested(next(iter(summaries.values()))) else "loss",
        split=_shown_split(next(iter(summaries.values()))),
    )
    return report, save_figure(figure, folder / "figure.png")


def _curve(place: Path) -> dict[str, np.ndarray]:
    """``round``, and the ``mean`` over clients of test accuracy or loss."""
    points = []
    for line in record.read_lines(place / "metrics.jsonl"):
        if "evaluation" in line:
            numbers = _tested({"last": line["evaluation"]})
            if numbers:
                points.append((line["round"], numbers.get("accuracy") or numbers["loss"]))
    return {
        "round": np.array([index for index, _ in points]),
        "mean": np.array([numbers["mean"] for _, numbers in points], float),
    }


def _last_table(place: Path) -> dict[str, np.ndarray]:
    import pyarrow.parquet

    *_, newest = record.client_tables(place)
    table = pyarrow.parquet.read_table(newest)
    return {name: table[name].to_numpy() for name in table.column_names}


def _per_client(place: Path) -> ClientValues:
    """The last test accuracy (or loss) of every client that was evaluated."""
    table = _last_table(place)
    names = ("test_accuracy", "test_loss", "validation_accuracy", "validation_loss")
    nothing = np.full(len(table["unseen"]), np.nan)
    values = next((table[name] for name in names if name in table), nothing)
    tested = ~np.isnan(values)
    return ClientValues(values[tested & ~table["unseen"]], values[tested & table["unseen"]])


def _mixtures(folders: Mapping[str, Path]) -> MixturePanel | None:
    """The first method's last mixtures (of its first layer, where each has its own), clients sorted
    by true cluster where it is known."""
    for name, place in folders.items():
        table = _last_table(place)
        columns = [column for column in table if column.startswith("mixture")]
        columns = [c for c in columns if c.rpartition("_")[0] == columns[0].rpartition("_")[0]]
        if columns:
            weights = np.stack([table[column] for column in columns], axis=1)
            clusters = table.get("cluster")
            if clusters is None:
                return MixturePanel(name, weights, None)
            order = np.argsort(clusters, kind="stable")
            return MixturePanel(name, weights[order], clusters[order])
    return None
