"""What a person reads at the end of a run: five columns at any width, and advice that is earned."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from floral.reports.advice import Facts, advice_for, advised, missing_splits, told_non_finite
from floral.reports.report import ordered_mixtures
from floral.reports.screen import show_end
from floral.reports.tables import headline_table
from floral.runs.progress import Pace

COSTS = {"upload_bytes": 752_988, "client_state_bytes": 16}


def accuracy(mean, loss=0.5):
    return {"accuracy": {"mean": mean, "std": 0.079, "worst_decile": 0.73}, "loss": {"mean": loss}}


def ended(validation=0.9, best=0.9, mixture=None, **more):
    """The summary of a good run, but for what is given."""
    return {
        "last": {
            "validation": accuracy(validation),
            "test": accuracy(0.87),
            "unseen": accuracy(0.848),
            "mixture": {"uniformity": 0.3, "unused": 0.0} | (mixture or {}),
        },
        "best": {"round": 12, "validation": accuracy(best)},
        "costs": COSTS,
        **more,
    }


CONFIG = {"algorithm": {"kind": "floral", "num_adaptors": 4, "stateful": True}}
FACTS = Facts(CONFIG, rounds_a_client=40.0, test_examples=25.0, validation_examples=600)
FALLING = [{"round": t, "train": {"loss": 1 / t}} for t in range(1, 41)]


def test_a_good_run_needs_no_advice():
    assert advice_for(FACTS, ended(), FALLING) == []


def rising(last):
    return [*FALLING, *({"round": t, "train": {"loss": last}} for t in range(41, 61))]


@pytest.mark.parametrize(
    ("facts", "summary", "lines", "said"),
    [
        ({}, ended(mixture={"uniformity": 0.998}), FALLING, "try mixing.kind=discriminants"),
        (
            {},
            ended(mixture={"unused": 1.0}),
            FALLING,
            "1 of 4 adaptors or models is .*num_adaptors=3",
        ),
        ({}, ended(mixture={"groups": 4.0, "bank": 2.0}), FALLING, "num_models to 4"),
        ({"rounds_a_client": 4.9}, ended(), FALLING, "4.9 rounds each; .*stateful=false"),
        ({"test_examples": 4.0}, ended(), FALLING, "tested on 4 examples"),
        ({"test_examples": 0.0}, ended(), FALLING, "data.split.test=0.2"),
        ({"validation_examples": 0}, ended(best=0.9), FALLING, "data.split.validation=0.1"),
        ({}, ended(validation=0.8, best=0.9), FALLING, "fell from 90.0% at round 12 to 80.0%"),
        ({}, ended(), rising(1.0), "the training loss rose from"),
    ],
    ids=[
        "uniform mixtures",
        "an adaptor nobody uses",
        "more groups than adaptors",
        "clients that took part too seldom",
        "a handful of test examples",
        "no test data",
        "no validation data",
        "best far from last",
        "a loss that rises",
    ],
)
def test_each_piece_of_advice_is_given_where_it_is_earned(facts, summary, lines, said):
    (line,) = advice_for(FACTS._replace(**facts), summary, lines)
    assert re.search(said, line)


@pytest.mark.parametrize(
    ("facts", "summary", "lines"),
    [
        ({}, ended(mixture={"uniformity": 0.94}), FALLING),
        ({}, ended(mixture={"unused": 1.0, "groups": 3.0, "bank": 4.0}), FALLING),
        ({"rounds_a_client": 5.0}, ended(), FALLING),
        ({"rounds_a_client": 1.0}, ended(costs=COSTS | {"client_state_bytes": 0}), FALLING),
        ({"rounds_a_client": 1.0}, ended(costs=COSTS | {"upload_bytes": 0}), FALLING),
        ({"test_examples": 5.0}, ended(), FALLING),
        ({"validation_examples": 50}, ended(validation=0.8, best=0.9), FALLING),
        ({}, ended(validation=0.88, best=0.9), FALLING),
        ({}, ended(), rising(0.03)),
        ({}, ended(), [{"round": 1, "train": {"loss": 1.0}}, {"round": 2, "train": {"loss": 9.0}}]),
    ],
)
def test_no_advice_is_given_short_of_its_threshold(facts, summary, lines):
    assert advice_for(FACTS._replace(**facts), summary, lines) == []


def test_what_cannot_exist_is_known_before_a_run():
    assert missing_splits(FACTS) == []
    assert len(missing_splits(FACTS._replace(test_examples=0.0, validation_examples=0))) == 2


def test_methods_with_the_same_advice_are_named_together():
    some = {"a": {"advice": ["x"]}, "b": {"advice": ["x", "y"]}, "c": {}}
    assert advised(some) == ["a, b: x", "b: y"]
    assert advised({"a": {"advice": ["x"]}, "b": {"advice": ["x"]}}) == ["all methods: x"]


def test_a_run_that_diverged_names_the_round_and_the_client():
    found = {"round": 2, "what": "loss", "client": 0}
    (said,) = told_non_finite({"fedavg": {"non_finite": found}, "floral": {}})
    assert said.startswith("fedavg: round 2: the loss is not finite (first by client 0);")


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("terminal", [True, False])
def test_every_number_is_readable_at_any_width(tmp_path, width, terminal):
    names = ("floral", "known_clusters", "fedavg", "local_adaptor", "ensemble", "mixture_only")
    page = io.StringIO()
    console = Console(file=page, width=width, force_terminal=terminal, color_system=None)
    place = tmp_path / "report.md"
    show_end(tmp_path, dict.fromkeys(names, ended()), report=place, figure=place, console=console)
    rows = [line.split() for line in page.getvalue().splitlines()]
    for name in names:
        (row,) = (row for row in rows if row and row[0] == name)
        assert row[-3:] == ["73.0", "84.8", "0.753"]
        assert "".join(row[1:-3]) == "87.0±7.9"
    assert "…" not in page.getvalue()


def test_without_a_number_a_dash_is_shown():
    nothing = {"last": {}, "best": None, "costs": {"upload_bytes": 0}}
    _, rows = headline_table({"fedavg": nothing})
    assert rows == [["fedavg", "–", "–", "–", "0"]]


def test_the_time_to_go_is_told_in_short_too():
    seconds = iter([0.0, 10.0, 3614.0, 3700.0])
    pace = Pace(5, 20, now=lambda: next(seconds))
    assert pace.clock(6, short=True) == "0:10"
    assert pace.clock(19, short=True) == "1:00:14<4:37"
    assert pace.clock(20, short=True) == "1:01:40"


def test_the_time_to_go_counts_down_while_clients_are_evaluated():
    seconds = iter([0.0, 10.0, 14.0, 16.0, 60.0])
    pace = Pace(0, 10, now=lambda: next(seconds))
    told = [pace.clock(taken, short=True) for taken in (1, 5, 5, 5)]
    assert told == ["0:10", "0:14<0:05", "0:16<0:03", "1:00<0:00"]


def test_groups_show_as_blocks_of_ordered_mixtures():
    weights = np.eye(3)[[2, 0, 1, 2, 0, 1]] * 0.9 + 0.1 / 3
    clusters = np.array([0, 1, 2, 0, 1, 2])
    panel = ordered_mixtures("floral", weights, clusters)
    assert panel.adaptors.tolist() == [2, 0, 1]
    assert np.argmax(panel.weights, axis=1).tolist() == [0, 0, 1, 1, 2, 2]
    assert panel.clusters.tolist() == [0, 0, 1, 1, 2, 2]
    unknown = ordered_mixtures("floral", weights, None)
    assert np.argmax(unknown.weights, axis=1).tolist() == [0, 0, 1, 1, 2, 2]
