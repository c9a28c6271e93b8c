"""The quickstart over ten seeds: the head of its config and README's table.

    for seed in $(seq 0 9); do
        floral run configs/quickstart.yaml seed=$seed --out runs/headline
        floral run configs/quickstart.yaml seed=$seed algorithm.stateful=false compare=null \\
            --out runs/headline/stateless
    done
    python experiments/floral/headline.py --keep runs/headline/quickstart* runs/headline/stateless/*
    python experiments/floral/headline.py --write

Seeds 0 to 9, data included; a seed that failed stays in the means. ``--keep`` writes what finished
runs came to into ``results/quickstart.json``, with what made it. Prints both texts from that file;
``--write`` puts them into the config and README, where a test compares them.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cells import Seeds
from kept import keep, read_cells
from provenance import made_by_run
from table import spread

from floral.config.reading.yaml_file import load, write_atomically
from floral.records.record import read_json, read_lines
from floral.text_table import markdown

__all__ = ["METHODS", "collect", "config_head", "readme_table"]

HERE = Path(__file__).parent
KEPT = HERE / "results/quickstart.json"
CONFIG, README = (HERE.parents[1] / name for name in ("configs/quickstart.yaml", "README.md"))
STATELESS = "stateless"
METHODS = {
    "floral": "",
    STATELESS: "clients keep nothing and find their mixture anew",
    "known_clusters": "an oracle tells each client its group",
    "gradient": "mixtures that follow their gradient, as the paper's",
    "fedavg": "one model for all",
    "local_adaptor": "a shared base, an adaptor of one's own",
    "ensemble": "four whole models, outputs mixed as floral's adaptors",
    "mixture_only": "floral's base and bank, frozen",
}
"""What README says of each."""


def collect(folders: Iterable[Path]) -> dict[str, Seeds]:
    """By method and seed what finished runs came to, in per cent and bytes, and what made it."""
    methods: dict[str, Seeds] = {}
    for folder in folders:
        for place in sorted(path.parent for path in folder.glob("**/summary.json")):
            config, summary = load(place / "config.yaml"), read_json(place / "summary.json")
            stateless = config["algorithm"].get("stateful") is False
            name = STATELESS if stateless else place.name
            (told,) = (at for at in (place, place.parent) if (at / "commands.jsonl").is_file())
            overrides = next(iter(read_lines(told / "commands.jsonl")))["overrides"]
            command = " ".join(["floral run configs/quickstart.yaml", *overrides])
            cell = {**numbers(summary), "made": made_by_run(place, command)}
            methods.setdefault(name, {})[summary["seed"]] = cell
    return methods


def numbers(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a run."""
    last, costs = summary["last"], summary["costs"]
    agreement = last.get("mixture", {}).get("agreement")
    return {
        "accuracy": last["test"]["accuracy"]["mean"],
        "worst_decile": last["test"]["accuracy"]["worst_decile"],
        "unseen": last["unseen"]["accuracy"]["mean"],
        "validation": last["validation"]["accuracy"]["mean"],
        **({} if agreement is None else {"agreement": agreement}),
        "sent": costs["upload_bytes"],
        "kept": costs["client_state_bytes"],
        "seconds": summary["seconds"],
    }


def config_head(methods: Mapping[str, Seeds]) -> str:
    """The lines of the config's head, a method a line."""
    lines = [f"{'':16}{'trained clients':>17}{'unseen clients':>17}   clients in their true group"]
    for name in METHODS:
        seeds = methods[name]
        columns = "".join(f"{per_cent(seeds, key):>17}" for key in ("accuracy", "unseen"))
        lines.append(f"{name:16}{columns}   {groups(name, seeds)}")
    return "\n".join(f"#   {line}".rstrip() for line in lines)


def readme_table(methods: Mapping[str, Seeds]) -> str:
    """README's table, in Markdown."""
    head = ["method", "test accuracy", "worst 10 %", "unseen clients", "all groups found"]
    rows = []
    for name, about in METHODS.items():
        seeds = methods[name]
        found = [cell["agreement"] == 1 for cell in seeds.values() if "agreement" in cell]
        text = f"{sum(found)} of {len(found)}" if found else "–"
        rows.append(
            [f"`{name}`" + (f": {about}" if about else "")]
            + [f"{per_cent(seeds, key)} %" for key in ("accuracy", "worst_decile", "unseen")]
            + ["(given)" if name == "known_clusters" else text]
            + [f"{one(seeds, key):,}" for key in ("sent", "kept")]
        )
    return markdown([*head, "sent, bytes a round", "kept, bytes"], rows)


def per_cent(seeds: Seeds, key: str) -> str:
    """Mean and standard deviation over seeds."""
    return spread(100 * cell[key] for cell in seeds.values())


def groups(name: str, seeds: Seeds) -> str:
    """The clients in their true group, seed by seed, in per cent."""
    found = [f"{100 * cell['agreement']:.0f}" for cell in seeds.values() if "agreement" in cell]
    if name == "known_clusters" or not found:
        return "given" if found else ""
    return f"{found[0]} in all" if len(set(found)) == 1 else ", ".join(found)


def one(seeds: Seeds, key: str) -> Any:
    """A number that all seeds share."""
    (value,) = {cell[key] for cell in seeds.values()}
    return value


def replaced(text: str, new: str, first: str) -> str:
    """The text with a new block of lines: that which begins with the line that starts so, and ends
    where a line does not start as all of its lines do."""
    lines, mark = text.split("\n"), new[0]
    start = next(i for i, line in enumerate(lines) if line.startswith(first))
    end = next(
        i for i in range(start, len(lines)) if not lines[i].startswith(mark) or lines[i] == mark
    )
    return "\n".join([*lines[:start], *new.split("\n"), *lines[end:]])


def written(methods: Mapping[str, Seeds]) -> dict[Path, str]:
    """The config and README with the kept numbers in their places."""
    places: Sequence[tuple[Path, str, str]] = (
        (CONFIG, config_head(methods), f"#   {'':16}{'trained clients':>17}"),
        (README, readme_table(methods), "| method | test accuracy |"),
    )
    return {
        path: replaced(path.read_text(encoding="utf-8"), new, first) for path, new, first in places
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keep", nargs="+", type=Path, default=[], help="finished run folders")
    parser.add_argument("--write", action="store_true", help="into the config and README")
    arguments = parser.parse_args()
    if arguments.keep:
        keep(KEPT, {"quickstart": collect(arguments.keep)})
    methods = read_cells(KEPT)["quickstart"]
    if arguments.write:
        for path, text in written(methods).items():
            write_atomically(path, text)
    print(config_head(methods), readme_table(methods), sep="\n\n")


if __name__ == "__main__":
    main()
