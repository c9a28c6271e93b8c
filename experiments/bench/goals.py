"""What the simulator was asked to reach, and what was measured: one row for each bar.

``goals`` reads the files that ``results.py`` keeps; every number beside a bar is computed from
them. Ratios are between figures of one run, taken in turns on one machine.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["SOURCES", "Goal", "goals"]

Data = Mapping[str, Any]

# Seconds a round of the authors' own FLoRAL, all clients in one process, evaluation of all
# included, measured once on a machine like this one when the bars were set.
AUTHORS = {"linear": 0.56, "mlp": 2.3, "images": 2.1}
PEERS = {
    "jax_by_hand": "JAX by hand",
    "torch_loop": "PyTorch loop",
    "fedjax": "FedJAX",
    "pfl": "pfl",
    "fluke": "fluke",
    "flower": "Flower, Ray",
}


class Goal(NamedTuple):
    """A bar and what was measured.

    Attributes:
      work: what is measured.
      bar: the number to reach.
      measured: the number reached.
      most: whether the bar is the most that may be, rather than the least that must.
      unit: of both.
    """

    work: str
    bar: float
    measured: float
    most: bool
    unit: str = "×"

    @property
    def reached(self) -> bool:
        """Whether the bar is met."""
        return self.measured <= self.bar if self.most else self.measured >= self.bar

    def cells(self) -> list[str]:
        """What a table shows of it: the work, the bar, what was measured, whether it is met."""
        sign = "≤" if self.most else "≥"
        verdict = "yes" if self.reached else "**no**"
        asked, measured = (f"{_number(value)} {self.unit}" for value in (self.bar, self.measured))
        return [self.work, f"{sign} {asked}", measured, verdict]


def goals(data: Data) -> Iterator[Goal]:
    """Every bar for which there is a file.

    Args:
      data: what the files of ``results`` hold, by their names.
    """
    for name, found in SOURCES.items():
        if name in data:
            yield from found(data[name])


def _toolkits(table: Data) -> Iterator[Goal]:
    bars = {
        "mlp": ({"fedjax": 5, "pfl": 5, "fluke": 8, "flower": 50, "torch_loop": 3.5}, 4),
        "cnn": ({"torch_loop": 1.15, "fluke": 1.15, "pfl": 1.5, "fedjax": 3, "flower": 3}, 2.5),
    }
    for model, (peers, most) in bars.items():
        found = table[f"{model}, 2"]
        ours = found["floral"]["round"]["median"]
        for peer, least in peers.items():
            times = found[peer]["round"]["median"] / ours
            yield Goal(
                f"FedAvg, {model}, two cores: times as fast as {PEERS[peer]}", least, times, False
            )
        least_seconds = table["floors"][f"{model}, 2"]
        work = f"FedAvg, {model}, two cores: over its products alone"
        yield Goal(work, most, ours / least_seconds, True)
    found = table["mlp, 2"]
    ours = found["floral"]["evaluate"]["median"]
    yield Goal("evaluation of 1,000 clients with 60 images, mlp", 0.25, ours, True, "s")
    for peer, least in (("fedjax", 4), ("fluke", 20), ("flower", 20)):
        times = found[peer]["evaluate"]["median"] / ours
        yield Goal(f"evaluation, mlp: times as fast as {PEERS[peer]}", least, times, False)
    share = ours / 10 / found["floral"]["round"]["median"]
    yield Goal("evaluation, mlp: over FedAvg's round on as many images", 0.31, share, True)


def _hand(table: Data) -> Iterator[Goal]:
    for model in ("mlp", "cnn"):
        one, two = (
            {name: found["round"]["median"] for name, found in table[f"{model}, {cores}"].items()}
            for cores in (1, 2)
        )
        work = f"FedAvg, {model}, two cores: over a loop written by hand"
        yield Goal(work, 1.1, two["floral"] / two["jax_by_hand"], True)
        work = f"FedAvg, {model}: two devices, times as fast as one"
        yield Goal(work, 1.7, one["floral"] / two["floral"], False)


def _local_step(walk: str, bars: Mapping[str, float]) -> Callable[[Data], Iterator[Goal]]:
    def found(figures: Data) -> Iterator[Goal]:
        for method, most in bars.items():
            work = f"{method}, C = 4, 1 %, {walk}: over FedAvg's round"
            yield Goal(work, most, figures[method]["time"], True)

    return found


def _many_adaptors(figures: Data) -> Iterator[Goal]:
    for method in ("floral", "floral, preconditioned"):
        own = figures[method]["time"] / figures[method]["operations"]
        yield Goal(f"{method}, C = 10, 10 %: over what its operations ask", 1.5, own, True)


def _authors(figures: Data) -> Iterator[Goal]:
    for (task, seconds), least in zip(AUTHORS.items(), (100, 100, 20), strict=True):
        times = seconds / figures[task]["evaluated"]
        yield Goal(
            f"FLoRAL's tasks, {task}: times as fast as the authors' code", least, times, False
        )


def _cohort(figures: Data) -> Iterator[Goal]:
    took = figures["sampling"]["median"] + figures["ordering and gathering"]["median"]
    yield Goal("sampling, ordering and gathering for 100 clients", 3, took, True, "ms")


def _first_round(figures: Data) -> Iterator[Goal]:
    for model, most in (("mlp", 5), ("cnn", 10)):
        yield Goal(f"first round, {model}", most, figures[model]["cold"], True, "s")
        yield Goal(f"first round, {model}, compiled before", 2, figures[model]["warm"], True, "s")


def _scaling(measured: Data) -> Iterator[Goal]:
    sweeps = measured["sweeps"]
    for method in ("fedavg", "floral", "floral, stateless"):
        seconds = [row["seconds"] for row in sweeps["population"] if row["method"] == method]
        work = f"{method}: a round of 10^6 clients' population over one of 10^3"
        yield Goal(work, 1.2, seconds[-1] / seconds[0], True)
    for method in ("fedavg", "floral"):
        rows = [row for row in sweeps["cohort"] if row["method"] == method]
        each = [row["seconds"] / row["cohort"] for row in rows]
        work = f"{method}: a client's time in a cohort of 10^4 over one of 10^2"
        yield Goal(work, 1.2, each[-1] / each[0], True)
        work = f"{method}: memory of a cohort of 10^4 over its data, two models and a chunk's"
        models = (2 + rows[-1]["chunk"]) * 4 * rows[-1]["parameters"]
        yield Goal(work, 1.3, rows[-1]["peak"] / (rows[-1]["expected"] + models), True)


def _memory(measured: Data) -> Iterator[Goal]:
    for model in ("mlp", "cnn", "resnet", "vit"):
        errors = [
            abs(row["without"]["rise"] / row["without"]["expected"] - 1)
            for row in measured["rows"]
            if row["model"] == model
        ]
        if errors:
            within = sum(error <= 0.2 for error in errors)
            work = f"memory, {model}: cases of {len(errors)} predicted within 20 %"
            yield Goal(work, len(errors), within, False, "cases")


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


SOURCES: dict[str, Callable[[Data], Iterator[Goal]]] = {
    "toolkits": _toolkits,
    "by_hand": _hand,
    "local_step": _local_step("one after another", {"floral": 1.4, "floral, preconditioned": 1.5}),
    "local_step_auto": _local_step(
        "as `auto` walks", {"floral, bank and mixture": 0.6, "floral, mixture alone": 0.43}
    ),
    "local_step_10": _many_adaptors,
    "authors_tasks": _authors,
    "cohort": _cohort,
    "first_round": _first_round,
    "scaling": _scaling,
    "memory": _memory,
}
"""What each file of figures says of bars."""
