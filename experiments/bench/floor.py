"""How long a round must take at the least: its operations over the rate of a large product.

    python experiments/bench/floor.py

Counts the multiplications and additions of matrix products and convolutions, forward, for the
weights' gradients and for the inputs' (of every layer but the first), over all clients and steps of
a round; what is done number by number is left out. The rate is that of XLA's float32 product of two
1024 x 1024 matrices on one core, best of several, and is taken to double on two cores. A round at
twice its floor spends half its time on something else, or on products too small for that rate.
"""

import argparse
import json
import os
import subprocess
import sys

import numpy as np
import task

__all__ = ["floor_seconds", "operations", "product_rate"]

_SIDE = 1024
# Positions each kernel is applied at, for one image; a dense layer has one.
_POSITIONS = {"mlp/dense_0": 1, "mlp/dense_1": 1, "cnn/conv_0": 28 * 28, "cnn/conv_1": 14 * 14}
_PRODUCT = """
import os, time
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
import jax
x = jax.random.normal(jax.random.key(0), ({side}, {side}))
product = jax.jit(lambda a: a @ a)
best = float("inf")
for _ in range({repeats}):
    begun = time.perf_counter()
    jax.block_until_ready(product(x))
    best = min(best, time.perf_counter() - begun)
print(best)
"""


def operations(model: str, *, clients: int = task.COHORT, samples: int = task.SAMPLES) -> int:
    """Floating-point operations of one round.

    Args:
      model: a key of ``task.MODELS``.
      clients: in the cohort.
      samples: of each client, every one trained on once.
    """
    total = 0
    for place, (layer, shape) in enumerate(task.MODELS[model].items()):
        forward = 2 * int(np.prod(shape)) * _POSITIONS.get(f"{model}/{layer}", 1)
        total += forward * (2 if place == 0 else 3)
    return total * clients * samples


def product_rate(*, repeats: int = 50) -> float:
    """Operations a second of XLA's large float32 product, in a process bound to one core."""
    code = _PRODUCT.format(side=_SIDE, repeats=repeats)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    return 2 * _SIDE**3 / float(done.stdout)


def floor_seconds(model: str, *, cores: int, rate: float) -> float:
    """The least seconds of a round at a rate of operations for each core."""
    return operations(model) / (cores * rate)


def main() -> None:
    parser = argparse.ArgumentParser(description="the least time a round can take here")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--json", action="store_true", help="print one JSON line instead")
    arguments = parser.parse_args()
    rate = product_rate(repeats=arguments.repeats)
    rows = {
        model: {
            "operations": operations(model),
            **{
                f"seconds_{cores}": floor_seconds(model, cores=cores, rate=rate) for cores in (1, 2)
            },
        }
        for model in task.MODELS
    }
    if arguments.json:
        print(json.dumps({"rate": rate, **rows}))
        return
    print(f"{rate / 1e9:.0f} GFLOP/s on one core\n")
    print("| model | operations a round | floor, 1 core, ms | 2 cores, ms |")
    print("| --- | ---: | ---: | ---: |")
    for model, row in rows.items():
        milliseconds = [f"{1e3 * row[f'seconds_{cores}']:.1f}" for cores in (1, 2)]
        print(f"| {model} | {row['operations'] / 1e9:.2f} G | {' | '.join(milliseconds)} |")


if __name__ == "__main__":
    main()
