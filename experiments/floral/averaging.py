"""Four ways to average the factors of adaptors, on the quickstart's digits with long local work.

    python experiments/floral/averaging.py --out runs/averaging --seeds 0 1 2

The paper averages a and b apart, which loses what they vary together over clients. The more steps
clients take alone, the more that is: they take ``--epochs`` passes over their data, where the
quickstart has two. Mixtures follow the gradient, as the paper's do, or with ``--mixing known``
an oracle tells each client its group, so that nothing but the averages differs. All forms begin
alike and train on the same batches; the table has the mean over clients of each client's own model
on its own test data, and how far the mean of products is from the product of means, relative to the
former, at the first evaluation and at the last.
Seeds whose runs are in ``--out`` are not trained again.

Per cent, mean ± standard deviation over the seeds 0 to 2: forms that train both factors differ by
less than seeds do.

| form | known groups, 20 rounds | its gap | learned mixtures, 40 rounds | its gap |
| --- | ---: | ---: | ---: | ---: |
| `factor_mean` | 86.7 ± 0.4 | 0.5 → 0.1 | 73.9 ± 11.1 | 7.5 → 0.1 |
| `product_mean` | 86.7 ± 0.3 | 0.4 → 0.0 | 73.8 ± 12.3 | 7.2 → 0.1 |
| `residual_mean` | 86.8 ± 0.2 | 0.6 → 0.1 | 73.9 ± 11.5 | 7.5 → 0.1 |
| `a_frozen` | 58.3 ± 1.1 | 0 | 24.8 ± 1.8 | 0 |
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from table import spread

import floral as fl
from floral.config.reading.yaml_file import load, write_atomically
from floral.records.record import read_lines
from floral.text_table import markdown

CONFIG = Path(__file__).parents[2] / "configs/quickstart.yaml"
PAIR, B_ALONE = ["bank"], ["bank/**/b", "bank/**/offset"]

Numbers = dict[str, float]


def settings(seed: int, *, mixing: str, epochs: int, rounds: int) -> dict[str, Any]:
    """The config of all forms; its own method, ``floral``, is ``factor_mean``."""
    logits = [] if mixing == "known" else ["mixture"]
    config = load(CONFIG)
    config |= {"seed": seed, "rounds": rounds, "mixing": {"kind": mixing}}
    config["uplink"] = {"reduce": {"kind": "factor_mean"}}
    config["algorithm"] |= {"train": ["base", *PAIR, *logits], "mixture_learning_rate": 1.0}
    config["local"]["epochs"] = epochs
    config["compare"] = {
        "product_mean": {"uplink": {"reduce": {"kind": "product_mean"}}},
        "residual_mean": {"uplink": {"reduce": {"kind": "residual_mean"}}},
        "a_frozen": {"uplink": None, "algorithm": {"train": ["base", *B_ALONE, *logits]}},
    }
    return config


def trained(config: dict[str, Any], out: Path) -> dict[str, Numbers]:
    """Every form's numbers for one seed, in per cent."""
    folder = out / f"seed-{config['seed']}"
    result = fl.resume(folder) if folder.is_dir() else fl.run(config, out=out, name=folder.name)
    return {
        "factor_mean" if name == "floral" else name: numbers(result.folder / name)
        for name in result.summaries
    }


def numbers(folder: Path) -> Numbers:
    """What one run came to."""
    evaluated = [line for line in read_lines(folder / "metrics.jsonl") if "evaluation" in line]
    last = evaluated[-1]["evaluation"]
    first_gap, last_gap = (
        line["evaluation"]["mixture"].get("averaging_gap")  # measured, or reported by the reducer
        or line.get("uplink", {}).get("averaging_gap", 0.0)
        for line in (evaluated[0], evaluated[-1])
    )
    found = {
        "test": last["test"]["accuracy"]["mean"],
        "worst 10 %": last["test"]["accuracy"]["worst_decile"],
        "unseen": last["unseen"]["accuracy"]["mean"],
        "groups found": last["mixture"]["agreement"],
        "first gap": first_gap,
        "last gap": last_gap,
    }
    return {name: 100 * value for name, value in found.items()}


def table(seeds: Mapping[str, Mapping[str, Numbers]]) -> str:
    """The Markdown table: mean ± standard deviation over seeds, in per cent."""
    forms = next(iter(seeds.values()))
    names = list(next(iter(forms.values())))
    rows = [
        [f"`{form}`", *(spread(seed[form][name] for seed in seeds.values()) for name in names)]
        for form in forms
    ]
    return markdown(["form", *names], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/averaging"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--mixing", choices=("softmax", "known"), default="softmax")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    given = {name: getattr(arguments, name) for name in ("mixing", "epochs", "rounds")}
    seeds = {}
    for seed in arguments.seeds:
        seeds[str(seed)] = trained(settings(seed, **given), arguments.out)
        text = table(seeds)
        write_atomically(arguments.out / "averaging.md", text + "\n")
        content = json.dumps({**given, "seeds": seeds}, indent=1)
        write_atomically(arguments.out / "averaging.json", content + "\n")
    print(text)


if __name__ == "__main__":
    main()
