"""The method's claims, one by one: what must hold, what was measured, and what measures it again.

    python experiments/floral/claims.py --list
    python experiments/floral/claims.py --run 4.22
    python experiments/floral/claims.py

A claim is known by its number. Its figure is read from kept results (``results/``,
``../bench/results``), which say what made them; ``--run`` runs what makes them anew, a script's
further seeds included. Without options ``CLAIMS.md`` is written. A figure that misses what is asked
is marked; what waits for a part of the toolkit that is not there says "not yet".
"""

import argparse
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import bed
import choose
import faults
import faulty_groups
import late_group
from kept import read_cells
from provenance import cells_in, traceable

from floral.config.reading.yaml_file import write_atomically
from floral.metrics import between_seeds, over_seeds
from floral.records.record import read_json
from floral.text_table import markdown

__all__ = ["CLAIMS", "Claim", "page"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS, BENCH = HERE / "results", ROOT / "experiments/bench/results"
PAGE = HERE / "CLAIMS.md"

Figure = tuple[str, bool | None]
"""What was measured, and whether it is what is asked; None where nothing is asked of a number."""


class Claim(NamedTuple):
    """One claim.

    Attributes:
      id: its number.
      says: the claim.
      asked: what must be shown.
      command: what measures it, from the root of the repository; None: not yet.
      source: the kept file of the figure, relative to the root, or the tests; empty: none is kept.
      figure: reads it; None where there is none to read.
      why: where it misses, by how much and for what cause.
    """

    id: str
    says: str
    asked: str
    command: str | None = None
    source: str = ""
    figure: Callable[[], Figure] | None = None
    why: Callable[[], str] | None = None


def seeds_of(name: str) -> list[Mapping[str, Any]]:
    """The kept seeds of a single claim's script."""
    return list(bed.kept(name).values())


def spread(values: Sequence[float], digits: int = 1, sign: str = "") -> str:
    """Mean ± standard deviation over seeds."""
    if len(values) < 2:
        return f"{values[0]:{sign}.{digits}f}"
    one = over_seeds(values)
    return f"{one.mean:{sign}.{digits}f} ± {one.sd:.{digits}f}"


def less(section: str, one: str, other: str) -> dict[str, float]:
    """By task the difference of two methods in points, mean over the seeds that both have."""
    found = {}
    for task, methods in read_cells(RESULTS / f"{section}.json").items():
        left, right = (
            {seed: 100 * run["accuracy"] for seed, run in methods.get(name, {}).items()}
            for name in (one, other)
        )
        if left.keys() & right.keys():
            found[task] = between_seeds(left, right).mean
    return found


def quickstart() -> Mapping[str, Any]:
    """By method and seed, the kept quickstart."""
    return read_cells(RESULTS / "quickstart.json")["quickstart"]


def paired(one: Mapping[int, Any], other: Mapping[int, Any], key: str, other_key: str = "") -> list:
    """Differences in points, seed by seed."""
    return [100 * (one[s][key] - other[s][other_key or key]) for s in one if s in other]


def local_state() -> Figure:
    kept = {run["kept"] for run in quickstart()["floral"].values()}
    return f"{', '.join(map(str, kept))} bytes at C = 4, float32", kept == {16}


def traffic() -> Figure:
    (one,) = seeds_of("traffic")
    cells = {rank: one[f"rank {rank}"] for rank in (1, 2, 4)}
    ratios = {rank: cell["counted"] / one["fedavg"] for rank, cell in cells.items()}
    exact = all(c["counted"] - 4 * c["formula"] == 4 * (1 + 4) for c in cells.values())
    text = ", ".join(f"rank {rank}: {ratio:.2f}" for rank, ratio in ratios.items())
    share = cells[1]["counted"] / one["ensemble"]
    formula = "by formula, but for five weights" if exact else "not by formula"
    return (
        f"over FedAvg's {text}; over four models' {share:.2f} at rank 1; {formula}",
        exact and ratios[1] <= 1.2,
    )


def beside_ensembles() -> Figure:
    ensemble, local, fedavg = (
        less("ours", "floral", name) for name in ("ensemble", "local_adaptor", "fedavg")
    )
    sent = {
        name: next(iter(quickstart()[name].values()))["sent"] for name in ("floral", "ensemble")
    }
    worst = min(ensemble.values())
    return (
        f"{len(ensemble)} tasks: less the ensemble {worst:+.1f} to {max(ensemble.values()):+.1f}, "
        f"less the Local Adaptor {min(local.values()):+.1f} or more, less FedAvg "
        f"{min(fedavg.values()):+.1f} or more; {sent['floral'] / sent['ensemble']:.2f} of the "
        "ensemble's bytes (quickstart)",
        worst >= 0 and min(local.values()) > 0 and min(fedavg.values()) > 0,
    )


def below_ensembles() -> str:
    apart = {name: less("ours", name, "ensemble") for name in ("floral", "known_clusters", "wide")}
    worst = {name: min(tasks.values()) for name, tasks in apart.items()}
    below = ", ".join(
        f"{task} {gap:+.1f}" for task, gap in sorted(apart["floral"].items()) if gap < 0
    )
    turned, named = (
        [gap for task, gap in apart["floral"].items() if shift in task]
        for shift in ("rotate", "label_shift")
    )
    quick = quickstart()
    return (
        f"Below the ensemble in {below}; in the quickstart by "
        f"{spread(paired(quick['floral'], quick['ensemble'], 'accuracy'), sign='+')}. "
        "It is no matter of finding groups: with known groups the worst task is "
        f"{worst['known_clusters']:+.1f}. It is what a group has of its own: adaptors in the last "
        "layer leave one hidden layer to all groups, which costs where images are turned "
        f"({min(turned):+.1f} to {max(turned):+.1f}) and hardly where labels are "
        f"({min(named):+.1f} to {max(named):+.1f}). Adaptors of 10 % in both layers bring the "
        f"worst task to {worst['wide']:+.1f}."
    )


def few_samples() -> Figure:
    found = less("ours", "floral", "local_adaptor")
    pairs = {task: (found[task], found[f"{task}, 5%"]) for task in found if f"{task}, 5%" in found}
    text = "; ".join(f"{task}: {all_:+.1f} → {few:+.1f}" for task, (all_, few) in pairs.items())
    return (
        f"less the Local Adaptor, 200 → 10 images a client: {text}",
        all(few > all_ for all_, few in pairs.values()),
    )


def variances() -> Figure:
    cells = [one["variances"] for one in seeds_of("theory")]
    ratios = {c: [one[c]["ratio"] for one in cells] for c in cells[0]}
    off = max(abs(int(c) * ratio - 1) for c, seeds in ratios.items() for ratio in seeds)
    several = [one[c] for one in cells for c in one if int(c) > 1]
    left, without = (
        [abs(cell[name] / cell["between_in_closed_form"]) for cell in several]
        for name in ("between_with_adaptors", "between_with_one_model")
    )
    text = ", ".join(f"C = {c}: {spread(seeds, 4)}" for c, seeds in ratios.items())
    return (
        f"base over adaptors, {len(cells)} seeds: {text}, at most {100 * off:.1f} % from 1/C; of "
        f"what varies between clusters with one model adaptors leave {100 * max(left):.1f} % at "
        f"most (with one model {spread(without, 2)} of the closed form)",
        off <= 0.05 and max(left) <= 0.01,
    )


def convergence() -> Figure:
    found = seeds_of("convergence")

    def rounds(name: str, method: str) -> list[float | None]:
        return [one[name]["near the noise"][method] for one in found]

    clustered, fedavg = rounds("clustered", "losses"), rounds("clustered", "fedavg")
    there = [taken for taken in clustered if taken is not None]
    never = sum(taken is None for taken in fedavg)
    apart = [
        own - other
        for own, other in zip(rounds("iid", "losses"), rounds("iid", "fedavg"), strict=True)
        if own is not None and other is not None
    ]
    gradient = [taken for taken in rounds("clustered", "gradient") if taken is not None]
    return (
        f"to twice the noise, {len(found)} seeds: clustered {spread(there)} in {len(there)} "
        f"(mixtures by gradient {spread(gradient)} in {len(gradient)}), FedAvg never in {never}; "
        f"iid {spread(apart, sign='+')} rounds less FedAvg's",
        len(there) == len(found) == never and abs(statistics.mean(apart)) <= 2,
    )


def groups_found() -> Figure:
    shares = {
        task: statistics.mean(run["agreement"] for run in methods["floral"].values())
        for task, methods in read_cells(RESULTS / "ours.json").items()
    }
    quick = [run["agreement"] for run in quickstart()["floral"].values()]
    least = 100 * min(shares.values())
    return (
        f"{least:.0f} % of clients in the least of {len(shares)} tasks; quickstart: all groups in "
        f"{sum(one == 1 for one in quick)} of {len(quick)} seeds",
        least >= 95 and statistics.mean(quick) >= 0.95,
    )


def unseen() -> Figure:
    floral = quickstart()["floral"]
    gap = paired(floral, floral, "unseen", "accuracy")
    return (
        f"quickstart, {len(gap)} seeds: unseen less trained {spread(gap, sign='+')}",
        statistics.mean(gap) >= -2,
    )


def stateless() -> Figure:
    gap = paired(quickstart()["stateless"], quickstart()["floral"], "accuracy")
    kept = {run["kept"] for run in quickstart()["stateless"].values()}
    return (
        f"quickstart, {len(gap)} seeds: less stateful {spread(gap, sign='+')}; "
        f"{', '.join(map(str, kept))} bytes kept",
        abs(statistics.mean(gap)) <= 2 and kept == {0},
    )


def sharing() -> Figure:
    found = seeds_of("sharing")
    ratios = {
        samples: [one[samples]["shared"] / one[samples]["independent"] for one in found]
        for samples in found[0]
        if samples.isdecimal()
    }
    text = ", ".join(f"{samples}: {spread(values, 2)}" for samples, values in ratios.items())
    means = [statistics.mean(values) for values in ratios.values()]
    return (
        f"shared over independent, by samples a cluster, {len(found)} seeds: {text}; by theory "
        "0.30 for many",
        means[0] == min(means) and abs(means[-1] - 0.298) <= 0.05,
    )


def grid() -> Figure:
    rows = []
    for task, methods in read_cells(RESULTS / "grid.json").items():
        means = {
            name: 100 * statistics.mean(run["accuracy"] for run in seeds.values())
            for name, seeds in methods.items()
            if name.startswith("c")
        }
        best = max(means, key=lambda name: means[name])
        rows.append(f"{task}: best {best} ({means[best]:.1f}), {means['c8_10']:.1f} at C = 8")
    return "; ".join(rows), None


def automatic() -> Figure:
    rows, met = [], True
    for task, methods in read_cells(choose.CHOSEN).items():
        seeds = methods["choice"].values()
        gaps = [one["test"] - one["oracle_test"] for one in seeds]
        cost = statistics.mean(one["cost"] for one in seeds)
        rows.append(
            f"{task}, {len(gaps)} seeds: {spread(gaps, sign='+')} from the best cell at "
            f"{100 * cost:.0f} % of the grid's operations"
        )
        met = met and statistics.mean(gaps) >= -1 and cost <= 0.4
    return "; ".join(rows), met


def mixings() -> Figure:
    rows = []
    for task, methods in read_cells(RESULTS / "mixtures.json").items():
        means = {
            name: 100 * statistics.mean(run["accuracy"] for run in seeds.values())
            for name, seeds in methods.items()
        }
        learnt = [name for name in means if name not in ("known_clusters", "random_groups")]
        low = min(learnt, key=lambda name: means[name])
        rows.append(
            f"{task}: {len(learnt)} ways from {means[low]:.1f} ({low}) to "
            f"{max(means[name] for name in learnt):.1f}; default {means['floral']:.1f}"
        )
    return "; ".join(rows), None


def harmed() -> Figure:
    found = seeds_of("faults")

    def costs(fault: str, method: str) -> list[float]:
        return [faults.cost(one, fault, method, healthy=True) for one in found]

    rows = [
        f"{fault}: {spread(costs(fault, 'fedavg'), sign='+')} with FedAvg, "
        f"{spread(costs(fault, 'floral'), sign='+')} with FLoRAL"
        for fault in faults.FAULTS[1:]
    ]
    worst = min(
        statistics.mean(costs(fault, "floral"))
        for fault in ("noise", "missing", "crash", "dropped")
    )
    return (
        f"points of healthy clients, {len(found)} seeds: {'; '.join(rows)}; no robust rule but "
        "clip and dropping is there yet",
        worst >= -2,
    )


def fifth_group() -> str:
    found = bed.kept("faulty_groups")
    if not found:
        return "`python experiments/floral/faulty_groups.py` tells why; it has kept nothing yet."
    ones = list(found.values())

    def costs(way: str) -> str:
        faulty = [
            f"{fault} {spread([faulty_groups.cost(one, way, fault) for one in ones], sign='+')}"
            for fault in faulty_groups.FAULTS[1:]
        ]
        return ", ".join(faulty)

    def own(way: str, fault: str) -> str:
        share = statistics.mean(one[way][fault]["agreement"] for one in ones)
        return f"{100 * share:.0f} % with {fault}"

    lost = spread([faulty_groups.cost(one, "absent", "none") for one in ones], sign="+")
    groups = ", ".join(own("four adaptors", fault) for fault in faulty_groups.FAULTS)
    count = "1 seed" if len(ones) == 1 else f"{len(ones)} seeds"
    return (
        f"The grouping is disturbed, more than the bank ({count} of `faulty_groups.py`, points of "
        "healthy clients). Broken clients are a fifth group to discriminants, so that two healthy "
        f"groups share one of four adaptors: {costs('four adaptors')}; healthy clients with their "
        f"own group's adaptor: {groups}. With known groups the bank alone is disturbed: "
        f"{costs('known groups')}. Where the broken clients never train, so that their data are "
        f"lost, it is {lost}. Five adaptors: {costs('five adaptors')}. Six, of which as many train "
        f"as the data show groups (`find_count`): {costs('counted')}. Chosen among these on "
        f"validation data: {faulty_groups.chosen(found)}. `uplink.non_finite: drop` changes "
        "nothing, as these updates are finite."
    )


def late() -> Figure:
    found = seeds_of("late_group")
    lost = [one["grown"]["old"] - one["without it"]["old"] for one in found]
    same = [one["same bank"]["old"] - one["without it"]["old"] for one in found]
    new = [one["grown"]["new"] for one in found]
    whole = [one["from the start"]["new"] for one in found]
    return (
        f"{len(found)} seeds: old groups {spread(lost, sign='+')} (without growing "
        f"{spread(same, sign='+')}), the new one {spread(new)}, {spread(whole)} had it been there "
        f"from the start ({late_group.BEFORE + late_group.AFTER} rounds)",
        statistics.mean(lost) > -1,
    )


def step() -> Figure:
    found = read_json(BENCH / "local_step.json")
    plain, ours = (found[name] for name in ("floral", "floral, preconditioned"))
    return (
        f"{plain['time']:.2f} × FedAvg's, preconditioned {ours['time']:.2f} ×; memory "
        f"{plain['memory']:.2f} ×",
        plain["time"] <= 1.3,
    )


def many_clients() -> Figure:
    rows = [
        row
        for row in read_json(BENCH / "scaling.json")["sweeps"]["population"]
        if row["method"] == "floral"
    ]
    text = ", ".join(
        f"{row['clients']:,}: {row['cohort'] / row['seconds']:,.0f} clients/s" for row in rows
    )
    return f"MLP, 2 cores, population of {text}", None


OURS = "experiments/floral/results/ours.json"
QUICK = "experiments/floral/results/quickstart.json"
RERUN = "python experiments/floral/rerun.py --only"
HEADLINE = "floral run configs/quickstart.yaml"
CLAIMS = (
    Claim(
        "4.1",
        "A client's model is a common base, low-rank adaptors and its own mixture of them, in "
        "linear, convolution, embedding and norm layers.",
        "Its outputs equal those of the merged weights to 1e-5; the mixture is on the simplex.",
        "python -m pytest -n 0 -q tests/adaptors/fast/test_apply.py tests/adaptors/test_bank.py "
        "tests/mixtures/test_mixtures.py",
        "tests/adaptors/fast/test_apply.py",
    ),
    Claim(
        "4.2",
        "The mixture alone is local.",
        "A client keeps 4 C bytes and nothing else.",
        HEADLINE,
        QUICK,
        local_state,
    ),
    Claim(
        "4.3",
        "Adaptors save memory and traffic against whole models a cluster.",
        "The bytes of a CNN by formula, and at most 1.2 × FedAvg's at C = 4 and a small rank.",
        "python experiments/floral/traffic.py",
        "experiments/floral/results/claims/traffic.json",
        traffic,
    ),
    Claim(
        "4.4",
        "FLoRAL is better than local adaptors, ensembles of whole models and FedAvg.",
        "At least the ensemble's accuracy at half its bytes or fewer; above local adaptors and "
        "FedAvg.",
        f"{RERUN} ours",
        OURS,
        beside_ensembles,
        below_ensembles,
    ),
    Claim(
        "4.5",
        "It holds with few samples a client.",
        "The margin over local adaptors grows as data shrink.",
        f"{RERUN} ours",
        OURS,
        few_samples,
    ),
    Claim(
        "4.6",
        "The base's gradients vary less between clients.",
        "With right adaptors what varies between clusters vanishes; the ratio is the analytic one "
        "to 5 %.",
        "python experiments/floral/theory.py",
        "experiments/floral/results/claims/theory.json",
        variances,
    ),
    Claim(
        "4.7",
        "It converges faster and more steadily.",
        "Fewer rounds to a target loss than FedAvg on clustered data, as many (within 2) on iid "
        "data.",
        "python experiments/floral/convergence.py",
        "experiments/floral/results/claims/convergence.json",
        convergence,
    ),
    Claim(
        "4.8",
        "Mixtures recover the clusters.",
        "At least 95 % of clients in their true group, up to the numbering of adaptors.",
        f"{RERUN} ours",
        OURS,
        groups_found,
    ),
    Claim(
        "4.9",
        "Clients that join late are served by learning a mixture alone.",
        "Within 2 points of trained clients after at most 20 local steps.",
        HEADLINE,
        QUICK,
        unseen,
    ),
    Claim(
        "4.10",
        "Clients may be stateless.",
        "Within 2 points of stateful ones; nothing kept.",
        f"{HEADLINE} algorithm.stateful=false compare=null",
        QUICK,
        stateless,
    ),
    Claim(
        "4.11",
        "Sharing regularizes, as in multi-task learning.",
        "Excess risk, shared over independent, follows the samples a cluster.",
        "python experiments/floral/sharing.py",
        "experiments/floral/results/claims/sharing.json",
        sharing,
    ),
    Claim(
        "4.12",
        "The number of adaptors and their rank trade off.",
        "A table over both.",
        f"{RERUN} grid",
        "experiments/floral/results/grid.json",
        grid,
    ),
    Claim(
        "4.13",
        "Both can be chosen automatically.",
        "Within 1 point of the grid's best cell at 40 % of its cost or less.",
        "python experiments/floral/choose.py",
        "experiments/floral/results/claims/choose.json",
        automatic,
    ),
    Claim("4.14", "Adaptors can be protected by differential privacy.", "An accountant."),
    Claim("4.15", "And by secure aggregation.", "Equal to the plain sum up to quantization."),
    Claim(
        "4.16",
        "How and when mixtures are found matters.",
        "A table of ways, and a default that is told.",
        f"{RERUN} mixtures",
        "experiments/floral/results/mixtures.json",
        mixings,
    ),
    Claim("4.17", "Updates may be asynchronous.", "Within 2 points at half the time."),
    Claim("4.18", "Devices may hold ranks or subsets of their own.", "Tiers of devices."),
    Claim(
        "4.19",
        "Broken sensors and faulty clients harm themselves alone.",
        "Healthy clients lose at most 2 points by noise, missing features, lost updates and a "
        "client that is not finite (with the uplink that drops it).",
        "python experiments/floral/faults.py",
        "experiments/floral/results/claims/faults.json",
        harmed,
        fifth_group,
    ),
    Claim("4.20", "It fits other frameworks.", "Export to peft, a client of Flower."),
    Claim("4.21", "A pilot takes weeks, its return can be told.", "A pilot and its report."),
    Claim(
        "4.22",
        "Adaptors can be added over time.",
        "A new group is absorbed with less than 1 point lost by the old ones.",
        "python experiments/floral/late_group.py",
        "experiments/floral/results/claims/late_group.json",
        late,
    ),
    Claim(
        "4.23",
        "It is cheap to run on weak devices.",
        "At most 1.3 × FedAvg's step at C = 4 and a small rank.",
        "python experiments/bench/local_step.py",
        "experiments/bench/results/local_step.json",
        step,
    ),
    Claim(
        "4.24",
        "It is evaluated at large scale.",
        "Clients a second on 2 cores with 10^4 to 10^5 clients.",
        "python experiments/bench/scaling.py",
        "experiments/bench/results/scaling.json",
        many_clients,
    ),
)


def row(claim: Claim) -> list[str]:
    """What a table shows of a claim."""
    if claim.command is None:
        return [claim.id, claim.says, claim.asked, "not yet", "", ""]
    if claim.figure is None:
        measured = "held by tests" if claim.source else "run it"
        return [claim.id, claim.says, claim.asked, measured, "", f"`{claim.command}`"]
    path = ROOT / claim.source
    if not path.is_file():
        return [claim.id, claim.says, claim.asked, "not kept", "", f"`{claim.command}`"]
    text, met = claim.figure()
    cells = list(cells_in(read_json(path)))
    mark = "" if not cells or all(map(traceable, cells)) else " °"
    verdict = {True: "yes", False: "**no**", None: "–"}[met]
    return [claim.id, claim.says, claim.asked, text + mark, verdict, f"`{claim.command}`"]


def misses(claims: Sequence[Claim]) -> str:
    """A line for each claim whose figure misses what is asked: by how much, and why."""
    lines = []
    for claim in claims:
        if claim.figure is None or not (ROOT / claim.source).is_file():
            continue
        if claim.figure()[1] is False:
            lines.append(
                f"* **{claim.id}.** {claim.why() if claim.why else 'The cause is not known.'}"
            )
    return "\n".join(lines) or "None."


def page(claims: Sequence[Claim] = CLAIMS) -> str:
    """CLAIMS.md."""
    head = ["id", "claim", "asked", "measured", "met", "measured again by"]
    return "\n\n".join(
        [
            "# The method's claims",
            "Made by `python experiments/floral/claims.py` from kept results. Accuracies in per "
            "cent, differences in points, mean ± standard deviation over seeds.",
            markdown(head, [row(claim) for claim in claims], texts=len(head)),
            "° some of it was run before commit, config digest, versions and command were kept.",
            "## What misses, by how much and why",
            misses(claims),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="print the claims and their figures")
    parser.add_argument("--run", metavar="ID", help="run what measures a claim")
    arguments = parser.parse_args()
    if arguments.list:
        for claim in CLAIMS:
            _, says, _, measured, verdict, _ = row(claim)
            print(f"{claim.id:5} {says}\n      {measured}{f' ({verdict})' if verdict else ''}")
    elif arguments.run:
        found = {claim.id: claim for claim in CLAIMS}.get(arguments.run)
        if found is None:
            parser.error(f"there is no claim {arguments.run!r}; ids are 4.1 to 4.24")
        if found.command is None:
            parser.error(f"{found.id}: not yet")
        words = shlex.split(found.command)
        words = [sys.executable if word == "python" else word for word in words]
        raise SystemExit(subprocess.run(words, cwd=ROOT, check=False).returncode)
    else:
        write_atomically(PAGE, page() + "\n")


if __name__ == "__main__":
    main()
