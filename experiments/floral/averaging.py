"""Four ways to average the factors of adaptors, on the quickstart's digits with long local work.

    python experiments/floral/averaging.py --out runs/averaging --seeds 0 1 2

The paper averages a and b apart, which loses what they vary together over clients. The more steps
clients take alone, the more that is: they take ``--epochs`` passes over their data, where the
quickstart has two. All forms begin alike and train on the same batches; the table has the mean over
clients of each client's own model on its own test data, and how far the mean of products is from
the product of means, relative to the former, at the first evaluation and at the last.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import floral as fl
from floral.experiment.record import read_lines
from floral.experiment.yaml_file import load
from floral.metrics import over_seeds

CONFIG = Path(__file__).parents[2] / "configs/quickstart.yaml"
FROZEN = ["base", "bank/**/b", "bank/**/offset", "mixture"]
FORMS: dict[str, dict[str, Any]] = {
    "product_mean": {"uplink": {"reduce": {"kind": "product_mean"}}},
    "residual_mean": {"uplink": {"reduce": {"kind": "residual_mean"}}},
    "a_frozen": {"uplink": None, "algorithm": {"train": FROZEN}},
}
"""By name, what each changes in ``floral``, which is ``factor_mean``."""

Numbers = dict[str, float]


def trained(seed: int, *, epochs: int, rounds: int, out: Path) -> dict[str, Numbers]:
    """Every form's numbers for one seed, in per cent."""
    config = load(CONFIG)
    config |= {"compare": FORMS, "rounds": rounds, "seed": seed}
    config["uplink"] = {"reduce": {"kind": "factor_mean"}}
    config["local"]["epochs"] = epochs
    result = fl.run(config, out=out, name=f"seed-{seed}")
    return {
        "factor_mean" if name == "floral" else name: numbers(result.folder / name)
        for name in result.summaries
    }


def numbers(folder: Path) -> Numbers:
    """What one run came to."""
    evaluations = [
        line["evaluation"] for line in read_lines(folder / "metrics.jsonl") if "evaluation" in line
    ]
    first, last = evaluations[0], evaluations[-1]
    found = {
        "test": last["test"]["accuracy"]["mean"],
        "worst 10 %": last["test"]["accuracy"]["worst_decile"],
        "unseen": last["unseen"]["accuracy"]["mean"],
        "groups found": last["mixture"]["agreement"],
        "first gap": first["mixture"].get("averaging_gap", 0.0),
        "last gap": last["mixture"].get("averaging_gap", 0.0),
    }
    return {name: 100 * value for name, value in found.items()}


def table(seeds: Mapping[str, Mapping[str, Numbers]]) -> str:
    """The Markdown table: mean ± standard deviation over seeds, in per cent."""
    forms = next(iter(seeds.values()))
    names = list(next(iter(forms.values())))
    lines = [["form", *names], ["---", *["---:"] * len(names)]]
    for form in forms:
        values = [[seed[form][name] for seed in seeds.values()] for name in names]
        lines.append([f"`{form}`", *map(spread, values)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation; the value itself of one seed."""
    if len(values) < 2:
        return f"{values[0]:.1f}"
    found = over_seeds(values)
    return f"{found.mean:.1f} ± {found.sd:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/averaging"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    seeds = {}
    for seed in arguments.seeds:
        settings = {"epochs": arguments.epochs, "rounds": arguments.rounds}
        seeds[str(seed)] = trained(seed, out=arguments.out, **settings)
        text = table(seeds)
        (arguments.out / "averaging.md").write_text(text + "\n", encoding="utf-8")
        content = json.dumps({**settings, "seeds": seeds}, indent=1)
        (arguments.out / "averaging.json").write_text(content + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
