"""Clients that never trained: what they reach, by how many examples and steps, training what.

    python experiments/floral/unseen.py configs/quickstart.yaml \\
        algorithm.mixture_learning_rate=1.0 --out unseen_digits --seeds 0 1 2 3 4 5 6 7 8 9
    python experiments/floral/unseen.py configs/floral/mnist_label_shift.yaml data.unseen=60 \\
        --seeds 0 1 2 --methods stateful stateless data known fedavg --out unseen_mnist

Each method trains once a seed, on clients that are not held out. Held-out clients then join by
three protocols: *zero-shot*, with no example; *own*, where what is shared is frozen and only the
mixture is found (k examples, s steps, or looked up where the mixing asks data or losses); and
*all*, where base, bank and mixture are then fine-tuned on the same k examples. Test data are the
held-out clients' own and are read for the curves alone: nothing is chosen by them.

Writes ``unseen.json``, by method and seed, which a further call with the same config adds to, and
``unseen.png``, whose bands are standard deviations over seeds. Prints what the goals are asked of:
unseen less trained clients, which are others with other data; *joined* less trained, which are the
same clients, once they forget their mixture and join like unseen ones; and each method less the
stateful one, among them the stateless, seed by seed. An oracle gives *known* clients their cluster.

Measured on the digits (the first command; MNIST is in ``explanations.md``), test accuracy in per
cent, mean ± standard deviation over ten seeds:

                 trained      unseen   unseen - trained   joined - trained   less stateful
    stateful   81.0 ± 8.2   80.6 ± 7.4      -0.3 ± 3.0         0.0 ± 0.5
    stateless  84.8 ± 2.8   84.3 ± 3.1      -0.5 ± 3.3         0.0 ± 0.0        3.8 ± 7.0
    data       85.8 ± 1.3   86.3 ± 2.8       0.4 ± 3.2         0.0 ± 0.0        4.9 ± 8.2
    losses     86.2 ± 0.8   86.2 ± 3.0       0.1 ± 3.1         0.0 ± 0.0        5.2 ± 8.3
    known      86.3 ± 1.0   86.9 ± 2.6       0.6 ± 3.0         0.0 ± 0.0        5.3 ± 8.2
    fedavg     22.9 ± 1.5   22.5 ± 3.2      -0.4 ± 3.5         0.0 ± 0.0      -58.1 ± 8.8
"""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from floral.config.build import build
from floral.config.reading.resolve import methods, read
from floral.config.reading.yaml_file import write_atomically
from floral.processes.startup import cache_folder
from floral.reports.plot import PALETTE, save_figure
from floral.simulate import personalization

EXAMPLES = (0, 1, 2, 5, 10, 20, None)
"""k; None is all that a client has."""
STEPS = (0, 1, 2, 5, 10, 20, 50)
FEW = 20
"""Steps where examples vary, and the most that the goal allows."""
BATCH = 10

Numbers = dict[str, Any]
"""``trained``, ``joined`` and by protocol ``examples`` and ``steps``: accuracies in per cent."""

STYLES = {
    ("stateful", "own"): ("mixture alone, by gradient", PALETTE[0], "o-"),
    ("stateful", "all"): ("base, bank and mixture", PALETTE[1], "s-"),
    ("data", "own"): ("mixture looked up by its data", PALETTE[2], "^-"),
    ("losses", "own"): ("mixture looked up by losses", PALETTE[3], "v-"),
    ("fedavg", "all"): ("FedAvg, fine-tuned", PALETTE[6], "d-"),
}
NAMES = {
    "stateful": "stateful",
    "stateless": "stateless",
    "data": "by data",
    "losses": "by losses",
    "known": "known",
    "fedavg": "FedAvg",
}


def variants(rounds: int) -> dict[str, Any]:
    """What each method changes in a config of FLoRAL."""
    gradient = {"mixing": {"kind": "softmax"}}
    learnt, given = ({"train": ["base", "bank", *more]} for more in (["mixture"], []))
    losses = {"random_rounds": max(3, rounds // 25), "balance": 0.3, "settle": rounds // 5}
    return {
        "stateful": {**gradient, "algorithm": learnt},
        "stateless": {**gradient, "algorithm": {**learnt, "stateful": False}},
        "data": {
            "mixing": {"kind": "discriminants", "size": 256, "survey_rounds": 5, "group_rounds": 5},
            "algorithm": given,
        },
        "losses": {
            "mixing": {"kind": "exponential_weights", "every": 5, **losses},
            "algorithm": given,
        },
        "known": {"mixing": {"kind": "known"}, "algorithm": given},
        "fedavg": {"algorithm": {"kind": "fedavg"}},
    }


def measure(method: Mapping[str, Any], name: str) -> Numbers:
    """One method of one seed, trained and then joined."""
    experiment = build(method, donate=True)
    simulator, dataset = experiment.simulator, experiment.dataset
    unseen = np.flatnonzero(dataset.unseen)
    state, _ = simulator.rounds(simulator.init(jax.random.key(method["seed"])), experiment.rounds)

    def accuracy(clients: np.ndarray, **settings: Any) -> float:
        how = personalization(batch_size=BATCH, **settings) if settings else None
        return 100 * float(simulator.evaluate(state, "test", clients, how)["accuracy"].mean())

    numbers: Numbers = {
        "trained": accuracy(dataset.seen),
        "joined": accuracy(dataset.seen, steps=FEW),
        "unseen": accuracy(unseen, steps=FEW),
    }
    for drawn, trains in STYLES:
        if drawn == name:
            numbers[trains] = {
                "examples": [
                    accuracy(unseen, trains=trains, steps=FEW, examples=k) for k in EXAMPLES
                ],
            }
    if name == "stateful":
        numbers["own"]["steps"] = [accuracy(unseen, steps=steps) for steps in STEPS]
    return numbers


def spread(values: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over seeds; 0 for one seed."""
    array = np.array(values)
    return array.mean(axis=0), array.std(axis=0, ddof=1) if len(array) > 1 else 0 * array[0]


def cell(values: list[float]) -> str:
    mean, sd = spread(values)
    return f"{mean:.1f} ± {sd:.1f}"


def report(results: Mapping[str, Mapping[str, Numbers]]) -> str:
    """The table, a line a method, means and standard deviations over seeds."""
    columns = ("trained", "unseen", "unseen - trained", "joined - trained", "less stateful")
    lines = [f"{'':10}" + "".join(f"{column:>18}" for column in columns)]
    for name, seeds in results.items():
        rows = list(seeds.values())
        cells = [[row["trained"] for row in rows], [row["unseen"] for row in rows]]
        cells += [[row[who] - row["trained"] for row in rows] for who in ("unseen", "joined")]
        stateful = results["stateful"]
        cells += [[row["trained"] - stateful[seed]["trained"] for seed, row in seeds.items()]]
        lines.append(f"{name:10}" + "".join(f"{cell(values):>18}" for values in cells))
    return "\n".join(lines)


def draw_curves(axes: Any, results: Mapping[str, Any], over: str, ticks: list[str]) -> None:
    """One protocol a line over what it may use; dashed, the trained clients of its method."""
    places = np.arange(len(ticks))
    for (name, trains), (label, color, marker) in STYLES.items():
        rows = [row[trains] for row in results.get(name, {}).values()]
        if not rows or over not in rows[0]:
            continue
        mean, sd = spread([row[over] for row in rows])
        axes.plot(places, mean, marker, color=color, label=label, markersize=4.5, linewidth=1.6)
        axes.fill_between(places, mean - sd, mean + sd, color=color, alpha=0.15, linewidth=0)
        if trains == "own":
            trained, _ = spread([row["trained"] for row in results[name].values()])
            axes.axhline(trained, color=color, linestyle="--", linewidth=1, zorder=1)
    axes.plot([], [], "--", color="0.35", linewidth=1, label="its method's trained clients")
    axes.set_xticks(places, ticks)
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)


def draw_methods(axes: Any, results: Mapping[str, Any]) -> None:
    """Trained and unseen clients side by side, a dot a seed."""
    names = [name for name in NAMES if name in results]
    for place, name in enumerate(names):
        rows = results[name].values()
        for side, who, filled in ((-0.2, "trained", True), (0.2, "unseen", False)):
            values = [row[who] for row in rows]
            mean, sd = spread(values)
            color = "0.35" if filled else PALETTE[0]
            axes.bar(
                place + side,
                mean,
                0.36,
                yerr=sd,
                color=color,
                alpha=0.85,
                ecolor="black",
                capsize=2,
                label=f"{who} clients" if place == 0 else None,
            )
            offsets = np.linspace(-0.08, 0.08, len(values))
            axes.scatter(
                place + side + offsets,
                values,
                s=9,
                color="white",
                edgecolors="black",
                linewidths=0.6,
                zorder=3,
            )
            axes.text(place + side, 2, f"{mean:.1f}", ha="center", color="white", fontsize=7)
    axes.set_xticks(range(len(names)), [NAMES[name] for name in names], fontsize=8)
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8, loc="upper center", ncols=2, frameon=False)


def figure_of(results: Mapping[str, Any], title: str) -> Any:
    """Three panels: over examples, over steps, and the methods side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15.6, 4.4), layout="constrained")
    by_examples, by_steps, by_method = figure.subplots(1, 3)
    draw_curves(
        by_examples, results, "examples", ["all" if k is None else str(k) for k in EXAMPLES]
    )
    draw_curves(by_steps, results, "steps", [str(steps) for steps in STEPS])
    draw_methods(by_method, results)
    by_examples.set(xlabel="examples of an unseen client", ylabel="test accuracy (%)")
    by_examples.set_title(f"By examples, {FEW} steps (0: zero-shot)", fontsize=10)
    by_steps.set(xlabel=f"steps of {BATCH} examples", ylabel="test accuracy (%)")
    by_steps.set_title("By steps, all examples", fontsize=10)
    by_method.set(ylabel="test accuracy (%)")
    by_method.set_title(f"Mixtures kept or found anew, {FEW} steps (a dot a seed)", fontsize=10)
    by_examples.legend(fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config", type=Path, help="of FLoRAL, with clients held out")
    parser.add_argument("overrides", nargs="*", help="such as data.unseen=60")
    parser.add_argument("--out", type=Path, required=True, help="a folder, made if need be")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=NAMES, default=list(NAMES))
    arguments = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(cache_folder(os.environ) / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

    arguments.out.mkdir(parents=True, exist_ok=True)
    place = arguments.out / "unseen.json"
    config = read(arguments.config, [*arguments.overrides, "compare=null"])
    told = json.loads(place.read_text()) if place.exists() else {"config": config, "results": {}}
    if told["config"] != config:
        parser.error(f"{place} is of another config; give --out another folder")
    results: dict[str, dict[str, Numbers]] = told["results"]
    for seed in map(str, arguments.seeds):
        whole = methods({**config, "seed": int(seed), "compare": variants(config["rounds"])})
        for name in arguments.methods:
            seeds = results.setdefault(name, {})
            if seed not in seeds:
                seeds[seed] = measure(whole[name], name)
                print(f"seed {seed}, {name}: {seeds[seed]['unseen']:.1f} %", flush=True)
                write_atomically(place, json.dumps(told, indent=1))
    print(report(results))
    title = f"Clients that never trained: {config['data']['source']['kind']}"
    save_figure(figure_of(results, title), arguments.out / "unseen.png")


if __name__ == "__main__":
    main()
