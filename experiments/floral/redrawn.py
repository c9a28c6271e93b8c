"""What the scarce tasks come to if clients draw their few images anew on the way.

    python experiments/floral/redrawn.py --task label_shift --methods floral_known --seeds 0 1 2

The authors' code draws each client's 5 per cent from a generator that no seed sets: a run that is
interrupted and resumed goes on with other images, and has seen more of them at its end. Here
methods of ``configs/floral/as_released/bank_rate_and_noise_5.yaml``, such as ``floral_known``, are
trained in as many parts as ``--parts`` says, each on the next ten of a client's own images; with
one part that is the config as it is. Printed is the test accuracy after each part, clients weighted
by their test examples, mean ± standard deviation over seeds. A run takes about twenty seconds on
one core.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from table import spread

import floral as fl
from floral.config import areas as places
from floral.config.areas import SCHEMA
from floral.config.build import Experiment, build, build_dataset
from floral.config.reading.resolve import methods, read
from floral.text_table import markdown

__all__ = ["accuracies", "next_images"]

CONFIG = Path(__file__).parents[2] / "configs/floral/as_released/bank_rate_and_noise_5.yaml"


def next_images(
    few: fl.data.FederatedDataset, whole: fl.data.FederatedDataset, part: int
) -> fl.data.FederatedDataset:
    """The population that trains on other images of each client's own, as many as before.

    Args:
      few: the population whose clients train on some of their images.
      whole: the same with all of them.
      part: 0 for those images themselves, 1 for the first others, and so on.

    Raises:
      ValueError: if a client has too few images for so many parts.
    """
    if part == 0:
        return few
    train, every = few.splits["train"], whole.splits["train"]
    rows = []
    for client, count in enumerate(train.sizes):
        seen = {image.tobytes() for image in _images(train, client)}
        others = [
            place + every.offsets[client]
            for place, image in enumerate(_images(every, client))
            if image.tobytes() not in seen
        ]
        if len(others) < part * count:
            raise ValueError(
                f"client {client} has no part {part} of its {every.sizes[client]} images"
            )
        rows += others[(part - 1) * count : part * count]
    examples = {name: np.asarray(array)[rows] for name, array in every.examples.items()}
    return few._replace(splits={**few.splits, "train": train._replace(examples=examples)})


def _images(split: Any, client: int) -> np.ndarray:
    return np.asarray(split.examples["x"][split.offsets[client] : split.offsets[client + 1]])


def accuracies(config: Mapping[str, Any], parts: int) -> list[float]:
    """Test accuracy after each part of the config's rounds, in per cent."""
    experiment = build(config)
    whole = build_dataset({**config, "data": {**config["data"], "keep": 1.0}})
    found = []
    state = experiment.simulator.init(jax.random.key(config["seed"]))
    for part in range(parts):
        simulator = _trained_on(experiment, next_images(experiment.dataset, whole, part))
        taken = 0
        while taken < config["rounds"] // parts:
            step = min(100, config["rounds"] // parts - taken)
            state, _ = simulator.rounds(state, step)
            taken += step
        report = simulator.evaluate(state, "test")
        found.append(100 * float(np.average(report["accuracy"], weights=report["examples"])))
    return found


def _trained_on(experiment: Experiment, dataset: fl.data.FederatedDataset) -> fl.simulate.Simulator:
    config = experiment.config
    return fl.simulate.make_simulator(
        experiment.algorithm,
        experiment.model,
        dataset,
        metrics={"accuracy": fl.metrics.accuracy()},
        cohort=SCHEMA.construct(places.COHORT, config["cohort"]),
        batching=SCHEMA.construct(places.LOCAL, config["local"]).batching,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", choices=("rotate", "label_shift"), default="label_shift")
    parser.add_argument("--methods", nargs="+", default=["floral", "floral_known"])
    parser.add_argument("--parts", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    rows = []
    for method in given.methods:
        ended = []
        for seed in given.seeds:
            whole = read(CONFIG, [f"data.shift.kind={given.task}", f"seed={seed}"])
            ended.append(accuracies(methods(whole)[method], given.parts))
            print(method, seed, *(f"{value:.1f}" for value in ended[-1]), flush=True)
        rows.append([f"`{method}`", *(spread(values) for values in zip(*ended, strict=True))])
    rounds = whole["rounds"] // given.parts
    head = ["method", *(f"after round {rounds * (part + 1)}" for part in range(given.parts))]
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
