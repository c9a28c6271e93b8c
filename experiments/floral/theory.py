"""The figure of FLoRAL's theory: what averaging evens out, and how fast mixtures come right.

    python experiments/floral/theory.py
    python experiments/floral/theory.py --figure runs/theory

On the synthetic linear task, ten seeds, data included; bars are standard deviations over seeds,
bands span them around the mean of logarithms. What is measured is kept in
``results/claims/theory.json``; ``--figure`` writes ``theory.png`` into a folder.

Left: at the true parameters, one adaptor of full shape a cluster, the variance of the averaged
gradient of the base over that of the adaptors. Every client's gradient is noise of one variance,
which the base averages over all K clients and an adaptor over K/C: 1/C (appendix C of the paper).

Middle: how much of the variance of the base's gradients is between clusters. With right adaptors
there is none; with one model for all, at the mean of the clusters' parameters, it is in closed form
``4/m² mean_c ‖W_c - W‖²`` for m outputs and inputs of unit covariance.

Right: the squared aggregation mismatch of mixtures that follow their gradient, and of exponential
weights, in training; the powers β of rounds by which it falls are fitted as in a run's report.

Source: Almansoori, Horváth, Takáč, "Collaborative and Efficient Personalization with Mixtures of
Adaptors", section 4, appendices B, C and D.1.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bed
import jax
import jax.numpy as jnp
import numpy as np
import optax

import floral as fl
from floral.records.history import mismatch_decay
from floral.reports.plot import PALETTE, save_figure
from floral.text_table import markdown

CLUSTERS = (1, 2, 4, 8)
CLIENTS, EXAMPLES, NOISE = 1024, 16, 1.0  # of the constructed cases
RESOLVED = 1e-6  # a mismatch below is what float32 weights round, and drawn as this
RATE, ROUNDS = 0.1, 3000  # of training, on the right
SETTINGS = {
    "clusters": CLUSTERS,
    "clients": CLIENTS,
    "examples": EXAMPLES,
    "noise": NOISE,
    "rate": RATE,
    "rounds": ROUNDS,
}
SHOWN = {
    "ratio": "base over adaptors",
    "between_with_adaptors": "between clusters, right adaptors",
    "between_with_one_model": "with one model",
    "between_in_closed_form": "in closed form",
}
"""What is printed of the variances."""
MIXINGS = {
    "gradient": (fl.mixtures.softmax(), ("base", "bank", "mixture")),
    "exponential weights": (fl.mixtures.exponential_weights(), ("base", "bank")),
}


def simulated(task: Any, mixing: fl.mixtures.Mixing, kernel: Any, **settings: Any) -> Any:
    """FLoRAL on a task, with such adaptors of the kernel and offsets of the bias."""
    model = fl.models.linear(task.parameters["bias"].shape[0])
    rules = [
        fl.adaptors.Rule(".*/kernel", kernel),
        fl.adaptors.Rule(".*/bias", fl.adaptors.additive()),
    ]
    algorithm = fl.algorithms.floral(
        fl.adaptors.adapt(model, rules, fl.simulate.sample_batch(task.dataset)),
        fl.losses.squared_error,
        fl.algorithms.local_solver(optax.sgd, learning_rate=RATE),
        mixing,
        num_adaptors=task.parameters["kernel"].shape[0],
        **settings,
    )
    return fl.simulate.make_simulator(
        algorithm,
        model,
        task.dataset,
        metrics={},
        batching=fl.data.batching(batch_size=4, shuffle=False),
    )


def variances(seed: int, clusters: int, *, clients: int = CLIENTS) -> dict[str, float]:
    """What gradients vary by at the truth, and with the mean of the true models for everyone."""
    task = fl.data.synthetic_linear(
        clients=clients, clusters=clusters, train=EXAMPLES, noise=NOISE, seed=seed
    )
    kernels = task.parameters["kernel"]  # [C, d, m]
    mean = kernels.mean(axis=0)
    sim = simulated(task, fl.mixtures.known(), fl.adaptors.additive())
    start = sim.init(jax.random.key(seed))
    cluster = task.dataset.traits["cluster"]

    def asked(offsets: np.ndarray) -> fl.simulate.Variances:
        base = {"params": {"Dense_0": {"kernel": mean, "bias": task.parameters["bias"]}}}
        bank = dict(start.server.bank)
        bank["params/Dense_0/kernel"] = {"offset": jnp.asarray(offsets, jnp.float32)}
        base = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), base)
        state = start._replace(server=start.server._replace(base=base, bank=bank))
        told = sim.diagnose(
            state, np.arange(clients), cluster, num_groups=clusters, examples=EXAMPLES
        )
        return told["variances"]

    right, one = asked(kernels - mean), asked(np.zeros_like(kernels))
    # Of clients of one size, p(k) is 1/K and p(k|c) is C/K.
    ratio = (right.base / clients) / np.mean(right.bank * clusters / clients)
    closed = 4 / mean.shape[1] ** 2 * np.mean(np.square(kernels - mean).sum(axis=(1, 2)))
    return {
        "ratio": float(ratio),
        "between_with_adaptors": float(right.base - right.within),
        "between_with_one_model": float(one.base - one.within),
        "between_in_closed_form": float(closed),
        "within_with_one_model": float(one.within),
    }


def decay(seed: int, name: str, rounds: Sequence[int]) -> dict[str, Any]:
    """The mismatch of mixtures at these rounds, and the power by which its square falls."""
    task = fl.data.synthetic_linear(seed=seed)
    mixing, train = MIXINGS[name]
    sim = simulated(task, mixing, fl.adaptors.low_rank(rank=1), train=train)
    state = sim.init(jax.random.key(seed))
    sizes, clusters = task.dataset.splits["train"].sizes, task.dataset.traits["cluster"]
    lines: list[dict[str, Any]] = []
    for mark in rounds:
        state, _ = sim.rounds(state, mark - int(state.round))
        weights = sim.evaluate(state)["mixture"]
        mismatch = fl.mixtures.aggregation_mismatch(weights, sizes, clusters)
        lines.append({"round": mark, "evaluation": {"mixture": {"mismatch": mismatch}}})
    return {
        "mismatch": [line["evaluation"]["mixture"]["mismatch"] for line in lines],
        "beta": mismatch_decay(lines),
    }


def measure(seed: int) -> dict[str, Any]:
    """All numbers of a seed."""
    return {
        "variances": {str(c): variances(seed, c) for c in CLUSTERS},
        "decay": {name: decay(seed, name, marks(ROUNDS)) for name in MIXINGS},
    }


def drawn(found: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers of all seeds as the figure takes them, seed by seed in each."""
    ones = list(found.values())
    return {
        "seeds": list(found),
        "rounds": marks(ROUNDS),
        "variances": {str(c): [one["variances"][str(c)] for one in ones] for c in CLUSTERS},
        "decay": {name: [one["decay"][name] for one in ones] for name in MIXINGS},
    }


def marks(last: int) -> list[int]:
    """Rounds to look at, evenly spaced in their logarithms."""
    return sorted({round(mark) for mark in np.geomspace(1, last, 40)})


def spread(cells: Mapping[str, Sequence[Mapping[str, float]]], name: str) -> np.ndarray:
    """Mean and standard deviation over seeds of one number, [2, clusters]."""
    values = np.array([[cell[name] for cell in cells[str(c)]] for c in CLUSTERS])
    return np.stack([values.mean(axis=1), values.std(axis=1, ddof=min(1, values.shape[1] - 1))])


def figure_of(found: Mapping[str, Any]) -> Any:
    """Three panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.5, 4.0), layout="constrained")
    ratio, between, mismatch = figure.subplots(1, 3)
    cells = found["variances"]

    mean, sd = spread(cells, "ratio")
    ratio.plot(CLUSTERS, [1 / c for c in CLUSTERS], color="0.6", label="1/C")
    ratio.errorbar(CLUSTERS, mean, sd, fmt="o", capsize=4, color=PALETTE[0], label="measured")
    ratio.set_yscale("log", base=2)
    ratio.set(ylabel="variance of averaged gradients:\nbase over adaptors")
    ratio.yaxis.set_major_formatter("{x:g}")
    ratio.set_title("Averaging over all clients", fontsize=10)

    for place, _ in enumerate(found["seeds"]):  # tasks differ by far more than what is measured
        of_seed = [cells[str(c)][place] for c in CLUSTERS]
        label = None if place else "one model, closed form"
        closed = [cell["between_in_closed_form"] for cell in of_seed]
        between.plot(CLUSTERS, closed, color="0.6", label=label)
        for color, name, what in (
            (PALETTE[1], "between_with_one_model", "one model, measured"),
            (PALETTE[0], "between_with_adaptors", "right adaptors, measured"),
        ):
            label, values = None if place else what, [cell[name] for cell in of_seed]
            between.plot(CLUSTERS, values, "o", color=color, label=label)
    between.set(ylabel="variance between clusters\nof the base's gradients, by seed")
    between.set_title("What adaptors take from the base", fontsize=10)
    for axes in (ratio, between):
        axes.set_xscale("log", base=2)
        axes.set_xticks(CLUSTERS, [str(c) for c in CLUSTERS])
        axes.set(xlabel="clusters, C")

    rounds = np.array(found["rounds"])
    for color, (name, seeds) in zip(PALETTE[1:], found["decay"].items(), strict=False):
        curves = 2 * np.log10(np.maximum([seed["mismatch"] for seed in seeds], RESOLVED))
        beta = np.array([seed["beta"] for seed in seeds], float)
        label = f"{name}, β = {beta.mean():.2f} ± {beta.std(ddof=min(1, len(seeds) - 1)):.2f}"
        mismatch.plot(rounds, 10 ** curves.mean(axis=0), color=color, label=label)
        low, high = 10 ** curves.min(axis=0), 10 ** curves.max(axis=0)
        mismatch.fill_between(rounds, low, high, color=color, alpha=0.2, linewidth=0)
    mismatch.set(xscale="log", yscale="log", xlabel="round", ylabel="squared mismatch ‖δ‖²")
    mismatch.set_ylim(bottom=RESOLVED**2 * 1e-3)  # the legend's place
    mismatch.set_title("How fast mixtures come right, C = 2", fontsize=10)
    for axes in (ratio, between, mismatch):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes, place in ((ratio, "upper right"), (between, "upper left"), (mismatch, "lower left")):
        axes.legend(fontsize=8, frameon=False, loc=place)
    return figure


def report(found: Mapping[int, Mapping[str, Any]]) -> str:
    """A row a number of clusters, and the powers."""
    cells = drawn(found)
    rows = []
    for place, c in enumerate(CLUSTERS):
        columns = {name: spread(cells["variances"], name)[:, place] for name in SHOWN}
        rows.append(
            [str(c), f"{1 / c:.4f}"]
            + [f"{mean:.4f} ± {sd:.4f}" for mean, sd in map(tuple, columns.values())]
        )
    powers = "; ".join(
        f"{name}, β = {np.mean(betas):.2f} ± {np.std(betas, ddof=min(1, len(betas) - 1)):.2f}"
        for name, seeds in cells["decay"].items()
        for betas in [[seed["beta"] for seed in seeds]]
    )
    return f"{markdown(['C', '1/C', *SHOWN.values()], rows)}\n\n{powers}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--figure", type=Path, help="a folder for the figure")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--out", type=Path, default=bed.FOLDER, help="a folder for the numbers")
    arguments = parser.parse_args()
    found = bed.measured("theory", arguments.seeds, measure, SETTINGS, folder=arguments.out)
    if arguments.figure is not None:
        arguments.figure.mkdir(parents=True, exist_ok=True)
        save_figure(figure_of(drawn(found)), arguments.figure / "theory.png")
    print(report(found))


if __name__ == "__main__":
    main()
