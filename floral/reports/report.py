"""The end of a run: tables over its methods, advice and one picture, read from the folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from floral.config.reading.yaml_file import load, write_atomically
from floral.records.history import mismatch_decay
from floral.records.intact import finished_lines, last_clients
from floral.reports.advice import advised, told_non_finite
from floral.reports.glossary import glossary
from floral.reports.plot import ClientValues, MixturePanel, comparison_figure, save_figure
from floral.reports.tables import (
    accuracy_table,
    bytes_table,
    mixture_table,
    quantity_of,
    seconds_table,
    split_of,
    tested,
)
from floral.text_table import markdown

__all__ = ["ordered_mixtures", "write_report"]


def write_report(
    folder: Path, summaries: Mapping[str, Mapping[str, Any]], folders: Mapping[str, Path]
) -> tuple[Path, Path]:
    """Writes ``report.md`` and ``figure.png`` into the folder; returns their paths."""
    decays = {name: mismatch_decay(finished_lines(place)) for name, place in folders.items()}
    tables = {
        "Accuracy" if quantity_of(summaries) == "accuracy" else "Loss": accuracy_table(summaries),
        "Bytes": bytes_table(summaries),
        "Seconds": seconds_table(summaries),
        "Mixtures": mixture_table(summaries, decays),
    }
    sections = [f"# {folder.name}"]
    if said := [f"- {line}" for line in [*told_non_finite(summaries), *advised(summaries)]]:
        sections += ["## Advice", "\n".join(said)]
    for title, (head, rows) in tables.items():
        if rows:
            sections += [f"## {title}", markdown(head, rows)]
    sections.append("![](figure.png)")
    titles = [title for head, rows in tables.values() if rows for title in head]
    sections += ["## Words", glossary(titles)]
    report = folder / "report.md"
    write_atomically(report, "\n\n".join(sections) + "\n")
    figure = comparison_figure(
        {name: _curve(place) for name, place in folders.items()},
        {name: _per_client(place) for name, place in folders.items()},
        _mixtures(folders),
        quantity=quantity_of(summaries),
        split=split_of(summaries),
        starts=_starts(folders),
    )
    return report, save_figure(figure, folder / "figure.png")


def _starts(folders: Mapping[str, Path]) -> dict[str, str]:
    """By method the one that it starts from, where it is another of the comparison."""
    starts: dict[str, str] = {}
    for name, place in folders.items():
        start = load(place / "config.yaml").get("start_from")
        if start in folders:
            starts[name] = str(start)
    return starts


def _curve(place: Path) -> dict[str, np.ndarray]:
    """``round``, and the ``mean`` over clients of test accuracy or loss."""
    points = []
    for line in finished_lines(place):
        if "evaluation" in line:
            numbers = tested({"last": line["evaluation"]})
            if numbers:
                points.append((line["round"], numbers.get("accuracy") or numbers["loss"]))
    return {
        "round": np.array([index for index, _ in points]),
        "mean": np.array([numbers["mean"] for _, numbers in points], float),
    }


def _per_client(place: Path) -> ClientValues:
    """The last test accuracy (or loss) of every client that was evaluated."""
    table = last_clients(place)
    names = ("test_accuracy", "test_loss", "validation_accuracy", "validation_loss")
    name = next((name for name in names if name in table), None)
    if name is None:
        nothing = np.zeros(0)
        return ClientValues(nothing, nothing, nothing, nothing)
    values, examples = table[name], table[f"{name.partition('_')[0]}_examples"]
    known = ~np.isnan(values)
    seen, unseen = known & ~table["unseen"], known & table["unseen"]
    return ClientValues(values[seen], values[unseen], examples[seen], examples[unseen])


def _mixtures(folders: Mapping[str, Path]) -> MixturePanel | None:
    """The first method's last mixtures (of its first layer, where each has its own)."""
    for name, place in folders.items():
        table = last_clients(place)
        columns = [column for column in table if column.startswith("mixture")]
        columns = [c for c in columns if c.rpartition("_")[0] == columns[0].rpartition("_")[0]]
        if columns:
            weights = np.stack([table[column] for column in columns], axis=1)
            return ordered_mixtures(name, weights, table.get("cluster"))
    return None


def ordered_mixtures(method: str, weights: np.ndarray, clusters: np.ndarray | None) -> MixturePanel:
    """Clients and adaptors in an order in which groups show as blocks along the diagonal.

    Args:
      method: whose mixtures.
      weights: [N, C].
      clusters: [N] true clusters; where they are unknown, clients stand by their main adaptor.
    """
    main = np.argmax(weights, axis=1)
    groups = main if clusters is None else clusters
    values = np.unique(groups)
    means = np.stack([weights[groups == group].mean(axis=0) for group in values])
    first = np.argmax(means, axis=0)  # the group that uses an adaptor most
    adaptors = np.lexsort((-means.max(axis=0), first))
    clients = np.lexsort((-weights[np.arange(len(weights)), main], main, groups))
    return MixturePanel(
        method,
        weights[clients][:, adaptors],
        None if clusters is None else clusters[clients],
        adaptors,
    )
