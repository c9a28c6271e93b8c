"""Figures from tables: nothing is computed here but places on the page."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from floral.config.reading.yaml_file import write_atomically
from floral.errors import ConfigError

__all__ = [
    "FORMATS",
    "PALETTE",
    "ClientValues",
    "MixturePanel",
    "axis_label",
    "comparison_figure",
    "line_styles",
    "rounds_before",
    "save_figure",
    "scaled",
]

FORMATS = ("png", "pdf", "svg")

PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#F0E442",
)
"""Okabe and Ito's colours, told apart by colour-blind readers too."""


class MixturePanel(NamedTuple):
    """What the picture of mixtures shows.

    Attributes:
      method: whose mixtures.
      weights: [N, C].
      clusters: [N] true clusters, sorted; None if unknown.
      adaptors: [C] which adaptor each column is.
    """

    method: str
    weights: np.ndarray
    clusters: np.ndarray | None
    adaptors: np.ndarray


class ClientValues(NamedTuple):
    """One number a client, of those that trained and those that never did, and on how many
    examples it rests."""

    seen: np.ndarray
    unseen: np.ndarray
    seen_examples: np.ndarray
    unseen_examples: np.ndarray


def comparison_figure(
    curves: Mapping[str, Mapping[str, np.ndarray]],
    clients: Mapping[str, ClientValues],
    mixtures: MixturePanel | None,
    *,
    quantity: str,
    split: str = "test",
    starts: Mapping[str, str] | None = None,
) -> Any:
    """Three panels: learning curves, clients at the end, mixtures; one legend beneath them.

    Args:
      curves: by method ``round``, and over clients ``mean``.
      clients: by method one number a client, at the last round.
      mixtures: the third panel; None leaves it out.
      quantity: ``accuracy`` (shown in per cent) or ``loss``.
      split: the split that the numbers are of.
      starts: by method the one whose end it starts from; its curve is dotted, and drawn after the
        other's rounds.

    Returns:
      A ``matplotlib.figure.Figure``, tied to no window.
    """
    from matplotlib.figure import Figure

    styles = line_styles(curves, starts or {})
    panels = 2 if mixtures is None else 3
    figure = Figure(figsize=(5.2 * panels, 5.0), layout="constrained")
    axes = figure.subplots(1, panels)
    ends = {name: int(max(curve["round"], default=0)) for name, curve in curves.items()}
    before = rounds_before(ends, starts or {})
    moved = {
        name: {**c, "round": np.asarray(c["round"]) + before[name]} for name, c in curves.items()
    }
    _draw_curves(axes[0], moved, styles, quantity, split)
    _draw_clients(axes[1], clients, styles, quantity, split)
    if mixtures is not None:
        _draw_mixtures(figure, axes[2], mixtures)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False
    )
    return figure


def line_styles(methods: Iterable[str], starts: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """By method its ``color``, ``linestyle`` and ``label``: dotted where it starts from another,
    dashed where the colours begin anew."""
    styles: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(methods):
        again = "--" if index >= len(PALETTE) else "-"
        styles[name] = {
            "color": PALETTE[index % len(PALETTE)],
            "linestyle": ":" if name in starts else again,
            "label": f"{name} (starts from {starts[name]})" if name in starts else name,
        }
    return styles


def rounds_before(ends: Mapping[str, int], starts: Mapping[str, str]) -> dict[str, int]:
    """By method the rounds behind it when it begins: those of the method that it starts from, and
    those behind that one.

    Args:
      ends: by method its last round.
      starts: by method what it starts from; what is not drawn here has no place, and counts as 0.

    Example:
      >>> rounds_before({"a": 10, "b": 5, "c": 5}, {"b": "a", "c": "b"})
      {'a': 0, 'b': 10, 'c': 15}
    """

    def behind(name: str) -> int:
        taken, passed, start = 0, {name}, starts.get(name, "")
        while start in ends and start not in passed:
            taken += ends[start]
            passed.add(start)
            start = starts.get(start, "")
        return taken

    return {name: behind(name) for name in ends}


def save_figure(figure: Any, path: Path) -> Path:
    """Writes a figure whole or not at all, in the format of its suffix (``.png``, ``.pdf``,
    ``.svg``); returns its path.

    Raises:
      ConfigError: for another suffix, or if it cannot be written.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise ConfigError(
            f"{path}: a figure ends in one of {', '.join(f'.{known}' for known in FORMATS)}"
        )
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=150, format=kind)
    write_atomically(path, drawn.getvalue())
    return path


def scaled(values: np.ndarray, quantity: str) -> np.ndarray:
    return 100 * values if quantity == "accuracy" else values


def axis_label(quantity: str, split: str) -> str:
    return f"{split} accuracy (%)" if quantity == "accuracy" else f"{split} loss"


def _draw_curves(
    axes: Any, curves: Mapping[str, Any], styles: Any, quantity: str, split: str
) -> None:
    for name, curve in curves.items():
        marker = "o" if len(curve["round"]) < 3 else None
        axes.plot(curve["round"], scaled(curve["mean"], quantity), marker=marker, **styles[name])
    axes.set(
        title="Learning: mean over clients", xlabel="round", ylabel=axis_label(quantity, split)
    )
    axes.title.set_fontsize(10)
    axes.set_xlim(left=0)
    _set_scale(axes, quantity, [curve["mean"] for curve in curves.values()])
    axes.grid(alpha=0.3)


def _draw_clients(
    axes: Any, clients: Mapping[str, ClientValues], styles: Any, quantity: str, split: str
) -> None:
    names = list(clients)
    most = max(
        (
            max(v.seen_examples.max(initial=1), v.unseen_examples.max(initial=1))
            for v in clients.values()
        ),
        default=1,
    )
    for place, name in enumerate(names):
        own, color = clients[name], styles[name]["color"]
        for values, examples, look in (
            (own.seen, own.seen_examples, {"color": color, "linewidths": 0, "alpha": 0.8}),
            (own.unseen, own.unseen_examples, {"facecolors": "none", "edgecolors": color}),
        ):
            order = np.argsort(values)
            sizes = 4 + 18 * examples[order] / most
            axes.scatter(
                _beside(place, len(values)), scaled(values[order], quantity), s=sizes, **look
            )
        if len(own.seen):
            mean = scaled(own.seen.mean(), quantity)
            axes.hlines(mean, place - 0.36, place + 0.36, color=color, linewidth=2.5)
    axes.set(
        title="Last round: a dot a client, sized by its examples\n(hollow: unseen), bar the mean",
        ylabel=axis_label(quantity, split),
    )
    axes.title.set_fontsize(10)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    _set_scale(axes, quantity, [np.concatenate([v.seen, v.unseen]) for v in clients.values()])
    axes.grid(axis="y", alpha=0.3)


def _set_scale(axes: Any, quantity: str, drawn: Sequence[np.ndarray]) -> None:
    """Losses on a log scale, where there are any: a run may evaluate nothing, or diverge."""
    values = np.concatenate(drawn)
    if quantity == "loss" and np.any(np.isfinite(values) & (values > 0)):
        axes.set_yscale("log")


def _beside(place: int, count: int) -> np.ndarray:
    return place + (np.linspace(-0.28, 0.28, count) if count > 1 else np.zeros(count))


def _draw_mixtures(figure: Any, axes: Any, panel: MixturePanel) -> None:
    image = axes.imshow(
        panel.weights, aspect="auto", cmap="cividis", vmin=0, vmax=1, interpolation="nearest"
    )
    figure.colorbar(image, ax=axes, label="weight", shrink=0.9)
    axes.set(title=f"Mixtures of {panel.method}: a row a client", xlabel="adaptor")
    axes.title.set_fontsize(10)
    axes.set_xticks(range(panel.weights.shape[1]), [str(adaptor) for adaptor in panel.adaptors])
    if panel.clusters is None:
        axes.set_ylabel("client")
        return
    edges = np.flatnonzero(np.diff(panel.clusters)) + 0.5
    for edge in edges:
        axes.axhline(edge, color="white", linewidth=1.2)
    bounds = np.concatenate([[-0.5], edges, [len(panel.clusters) - 0.5]])
    middles = (bounds[:-1] + bounds[1:]) / 2
    axes.set_yticks(middles, [str(c) for c in np.unique(panel.clusters)])
    axes.set_ylabel("clients by true cluster")
