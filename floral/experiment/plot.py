"""Figures from tables: nothing is computed here but places on the page."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

__all__ = ["PALETTE", "MixturePanel", "comparison_figure"]

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


def comparison_figure(
    curves: Mapping[str, Mapping[str, np.ndarray]],
    clients: Mapping[str, np.ndarray],
    mixtures: MixturePanel | None,
    *,
    quantity: str,
) -> Any:
    """Three panels: learning curves, clients at the end, mixtures.

    Args:
      curves: by method ``round``, and over clients ``mean``, ``p10``, ``p90``.
      clients: by method one number a client, at the last round.
      mixtures: the third panel; None leaves it out.
      quantity: ``accuracy`` (shown in per cent) or ``loss``.

    Returns:
      A ``matplotlib.figure.Figure``, tied to no window.
    """
    from matplotlib.figure import Figure

    colors = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(curves)}
    panels = 2 if mixtures is None else 3
    figure = Figure(figsize=(5.2 * panels, 4.4), layout="constrained")
    axes = figure.subplots(1, panels)
    _draw_curves(axes[0], curves, colors, quantity)
    _draw_clients(axes[1], clients, colors, quantity)
    if mixtures is not None:
        _draw_mixtures(figure, axes[2], mixtures)
    return figure


def _scaled(values: np.ndarray, quantity: str) -> np.ndarray:
    return 100 * values if quantity == "accuracy" else values


def _label(quantity: str) -> str:
    return "test accuracy (%)" if quantity == "accuracy" else "test loss"


def _draw_curves(axes: Any, curves: Mapping[str, Any], colors: Any, quantity: str) -> None:
    for name, curve in curves.items():
        rounds = curve["round"]
        mean, low, high = (_scaled(curve[key], quantity) for key in ("mean", "p10", "p90"))
        marker = "o" if len(rounds) < 3 else None
        axes.plot(rounds, mean, color=colors[name], label=name, marker=marker)
        axes.fill_between(rounds, low, high, color=colors[name], alpha=0.12, linewidth=0)
    axes.set(
        title="Learning: mean over clients, band 10th to 90th percentile",
        xlabel="round",
        ylabel=_label(quantity),
    )
    axes.title.set_fontsize(10)
    if quantity == "loss":
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _draw_clients(axes: Any, clients: Mapping[str, np.ndarray], colors: Any, quantity: str) -> None:
    names = list(clients)
    for place, name in enumerate(names):
        values = _scaled(np.sort(clients[name]), quantity)
        spread = np.linspace(-0.28, 0.28, len(values)) if len(values) > 1 else np.zeros(1)
        axes.scatter(place + spread, values, s=9, color=colors[name], alpha=0.6, linewidths=0)
        axes.hlines(values.mean(), place - 0.36, place + 0.36, color=colors[name], linewidth=2.5)
    axes.set(title="Last round: each dot a client, bar the mean", ylabel=_label(quantity))
    axes.title.set_fontsize(10)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    if quantity == "loss":
        axes.set_yscale("log")
    axes.grid(axis="y", alpha=0.3)


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
