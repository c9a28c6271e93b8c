"""Figures from tables: nothing is computed here but places on the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["PALETTE", "ClientValues", "MixturePanel", "comparison_figure", "save_figure"]

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
    """

    method: str
    weights: np.ndarray
    clusters: np.ndarray | None


class ClientValues(NamedTuple):
    """One number a client: those that trained, and those that never did."""

    seen: np.ndarray
    unseen: np.ndarray


def comparison_figure(
    curves: Mapping[str, Mapping[str, np.ndarray]],
    clients: Mapping[str, ClientValues],
    mixtures: MixturePanel | None,
    *,
    quantity: str,
    split: str = "test",
) -> Any:
    """Three panels: learning curves, clients at the end, mixtures.

    Args:
      curves: by method ``round``, and over clients ``mean``.
      clients: by method one number a client, at the last round.
      mixtures: the third panel; None leaves it out.
      quantity: ``accuracy`` (shown in per cent) or ``loss``.
      split: the split that the numbers are of.

    Returns:
      A ``matplotlib.figure.Figure``, tied to no window.
    """
    from matplotlib.figure import Figure

    colors = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(curves)}
    panels = 2 if mixtures is None else 3
    figure = Figure(figsize=(5.2 * panels, 4.4), layout="constrained")
    axes = figure.subplots(1, panels)
    _draw_curves(axes[0], curves, colors, quantity, split)
    _draw_clients(axes[1], clients, colors, quantity, split)
    if mixtures is not None:
        _draw_mixtures(figure, axes[2], mixtures)
    return figure


def save_figure(figure: Any, path: Path) -> Path:
    """Writes a PNG whole or not at all; returns its path."""
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, dpi=150, format="png")
    temporary.replace(path)
    return path


def _scaled(values: np.ndarray, quantity: str) -> np.ndarray:
    return 100 * values if quantity == "accuracy" else values


def _label(quantity: str, split: str) -> str:
    return f"{split} accuracy (%)" if quantity == "accuracy" else f"{split} loss"


def _draw_curves(
    axes: Any, curves: Mapping[str, Any], colors: Any, quantity: str, split: str
) -> None:
    for name, curve in curves.items():
        marker = "o" if len(curve["round"]) < 3 else None
        mean = _scaled(curve["mean"], quantity)
        axes.plot(curve["round"], mean, color=colors[name], label=name, marker=marker)
    axes.set(title="Learning: mean over clients", xlabel="round", ylabel=_label(quantity, split))
    axes.title.set_fontsize(10)
    _set_scale(axes, quantity, [curve["mean"] for curve in curves.values()])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _draw_clients(
    axes: Any, clients: Mapping[str, ClientValues], colors: Any, quantity: str, split: str
) -> None:
    names = list(clients)
    for place, name in enumerate(names):
        seen, unseen = (_scaled(np.sort(values), quantity) for values in clients[name])
        axes.scatter(_beside(place, len(seen)), seen, s=10, color=colors[name], linewidths=0)
        axes.scatter(
            _beside(place, len(unseen)), unseen, s=16, facecolors="none", edgecolors=colors[name]
        )
        if len(seen):
            axes.hlines(seen.mean(), place - 0.36, place + 0.36, color=colors[name], linewidth=2.5)
    axes.set(
        title="Last round: a dot a client (hollow: unseen), bar the mean",
        ylabel=_label(quantity, split),
    )
    axes.title.set_fontsize(10)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    _set_scale(axes, quantity, [np.concatenate(values) for values in clients.values()])
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
    axes.set_xticks(range(panel.weights.shape[1]))
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
