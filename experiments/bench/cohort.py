"""What it takes to draw a cohort, to order its examples and to look them up.

    taskset -c 0 python experiments/bench/cohort.py     # some seconds; a Markdown table

Medians on one core for 100 clients of 1,000, 60 examples of MNIST's shape each, in shuffled batches
of 20. In a round nothing is gathered at once: each step looks up its own batch, and the copy stays
in cache. Gathering the whole cohort into one array (``fl.data.gather``), as below, is the dearer
way.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from local_step import population

import floral as fl
from floral.text_table import markdown

_CLIENTS, _COHORT = 1_000, 100


def table(figures: dict[str, dict[str, float]]) -> str:
    """A Markdown table of milliseconds."""
    rows = [
        [name, f"{row['median']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}"]
        for name, row in figures.items()
    ]
    return markdown(["of a cohort of 100", "ms", "10th to 90th percentile"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    train = population(_CLIENTS).splits["train"]
    examples = {name: jax.device_put(np.asarray(array)) for name, array in train.examples.items()}
    offsets = jax.device_put(train.offsets.astype(np.int32))
    batching = fl.data.batching(batch_size=20)
    cohort = fl.simulate.fixed(size=_COHORT)

    @jax.jit
    def sample(key):
        ids, _ = cohort.sample(key, 0, jnp.arange(_CLIENTS))
        return ids

    @jax.jit
    def order(key, offsets, ids):
        starts, sizes = fl.data.locate(offsets, ids)
        return fl.data.schedule(ids, starts, sizes, key, batching, max_size=train.max_size)

    @jax.jit
    def gather(key, offsets, ids, examples):
        return fl.data.gather(examples, offsets, ids, key, batching, max_size=train.max_size)

    key = jax.random.key(0)
    ids = sample(key)
    parts = {
        "sampling": lambda: sample(key),
        "ordering": lambda: order(key, offsets, ids),
        "ordering and gathering": lambda: gather(key, offsets, ids, examples),
    }
    figures = {}
    for name, part in parts.items():
        jax.block_until_ready(part())
        took = []
        for _ in range(arguments.repeats):
            begun = time.perf_counter()
            jax.block_until_ready(part())
            took.append(1e3 * (time.perf_counter() - begun))
        low, high = np.quantile(took, [0.1, 0.9])
        figures[name] = {"median": statistics.median(took), "low": low, "high": high}
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
