"""Which classes which clients have, in a few lines of text."""

import numpy as np

from floral.data import FederatedDataset
from floral.text_table import aligned

__all__ = ["label_skew"]

_CLIENTS, _CLASSES, _COUNTED = 8, 10, 1000


def label_skew(dataset: FederatedDataset) -> str:
    """How training labels differ from client to client; empty where targets are not classes.

    A line over at most 1,000 clients, then counts of up to ten classes at up to eight of them,
    evenly spaced by id.
    """
    classes = dataset.num_classes
    split = dataset.splits["train"]
    if classes is None or split.examples["y"].ndim != 1:
        return ""
    asked = np.unique(np.linspace(0, dataset.num_clients - 1, _COUNTED).astype(int))
    counts = np.stack([
        np.bincount(np.asarray(split.client(int(k))["y"]), minlength=classes) for k in asked
    ])  # fmt: skip
    sizes = np.maximum(counts.sum(axis=1), 1)
    held = (counts > 0).sum(axis=1)
    most = (counts.max(axis=1) / sizes).mean()
    of = "" if len(asked) == dataset.num_clients else f" (of {len(asked):,} clients)"
    summary = (
        f"labels{of}: a client has {held.mean():.1f} of {classes} classes "
        f"({held.min()} to {held.max()}); its most frequent is {most:.0%} of its training examples"
    )
    shown = np.unique(np.linspace(0, len(asked) - 1, _CLIENTS).astype(int))
    columns = min(classes, _CLASSES)
    head = ["client", *(f"{_name(dataset, c)}" for c in range(columns))]
    if classes > columns:
        head.append("others")
    rows = [head]
    for row in shown:
        numbers = [str(n) for n in counts[row, :columns]]
        rest = [str(counts[row, columns:].sum())] if classes > columns else []
        rows.append([str(asked[row]), *numbers, *rest])
    return f"{summary}\n{aligned(rows, numbers=range(1, len(head)))}"


def _name(dataset: FederatedDataset, label: int) -> str:
    names = dataset.class_names
    return str(label) if names is None else names[label][:6]
