"""What a run tells of its mixtures, beside predictions."""

import json

import jax
import numpy as np
import pytest

import floral
from floral.config.build import build
from floral.config.reading.resolve import methods, read
from floral.records.state import start_state
from floral.runs.assess import assess
from floral.runs.train import Interrupted

DIAGNOSED = {
    "regret",
    "cluster_regret",
    "base_variance",
    "base_variance_between",
    "base_variance_averaged",
    "adaptor_variance",
    "adaptor_variance_averaged",
    "averaging_gap",
}
FREE = {"clients_an_adaptor", "fewest_clients", "mismatch"}


@pytest.fixture(scope="module")
def remembered():
    return {}


@pytest.fixture
def made(diagnosing, remembered):
    """``(**changes) -> (experiment, state, numbers, table)`` of a bank in which adaptors differ,
    and of the method's own start where it has none."""

    def make(**changes):
        key = json.dumps(changes)
        if key not in remembered:
            remembered[key] = make_anew(**changes)
        return remembered[key]

    def make_anew(**changes):
        (own,) = methods(read(diagnosing(**changes))).values()
        experiment = build(own)
        state, _ = experiment.simulator.rounds(start_state(experiment), 2)
        if hasattr(state.server, "bank"):
            keys = iter(jax.random.split(jax.random.key(1), 50))
            bank = jax.tree.map(
                lambda leaf: leaf + jax.random.normal(next(keys), leaf.shape), state.server.bank
            )
            state = state._replace(server=state.server._replace(bank=bank))
        numbers, table = assess(experiment, state)
        return experiment, state, numbers["mixture"], table

    return make


def test_every_evaluation_of_floral_is_diagnosed(diagnosed):
    recorded = [
        json.loads(line) for line in (diagnosed.folder / "metrics.jsonl").read_text().splitlines()
    ]
    told = [line["evaluation"]["mixture"] for line in recorded if "evaluation" in line]
    assert len(told) == 5
    for numbers in told:
        assert numbers.keys() >= DIAGNOSED | FREE
        assert all(np.isfinite(numbers[name]) for name in DIAGNOSED | FREE)


def test_an_interrupted_run_is_diagnosed_alike(diagnosed, diagnosing, tmp_path, kept, watcher):
    with pytest.raises(Interrupted):
        floral.run(diagnosing(), out=tmp_path, name="run", progress=watcher(stop_at=5))
    floral.resume(tmp_path / "run")
    assert kept(tmp_path / "run") == kept(diagnosed.folder)


def test_to_ask_no_one_leaves_out_what_costs_and_changes_nothing_else(diagnosed, whole):
    for one, without in zip(
        *(
            (place.folder / "metrics.jsonl").read_text().splitlines()
            for place in (diagnosed, whole)
        ),
        strict=True,
    ):
        one, without = json.loads(one), json.loads(without)
        if "evaluation" in one:
            mixture = one["evaluation"]["mixture"]
            assert not without["evaluation"]["mixture"].keys() & DIAGNOSED
            one["evaluation"]["mixture"] = {
                name: number for name, number in mixture.items() if name not in DIAGNOSED
            }
        assert one == without


def test_regret_is_what_the_best_adaptor_alone_would_gain(made):
    experiment, state, told, table = made()
    seen = experiment.dataset.seen
    cluster = experiment.dataset.traits["cluster"][seen]
    said = experiment.simulator.diagnose(
        state, seen, cluster, num_groups=2, split="validation", examples=2
    )
    assert told["regret"] == pytest.approx(
        np.mean(said["loss"] - said["loss_alone"].min(axis=1)), rel=1e-5
    )
    own = table["validation_loss"][~table["unseen"]]  # of two examples, all that there are
    np.testing.assert_allclose(said["loss"], own, rtol=1e-5)
    assert told["regret"] >= told["cluster_regret"]


def test_an_oracle_of_clusters_regrets_nothing_beside_its_adaptors(made):
    _, _, told, _ = made(mixing={"kind": "known"})
    assert told["cluster_regret"] == pytest.approx(0, abs=1e-6)
    assert told["mismatch"] == 0
    assert told["clients_an_adaptor"] == told["fewest_clients"] == 2


def test_what_is_averaged_varies_less_by_the_effective_clients(made):
    _, _, told, _ = made(mixing={"kind": "known"})
    assert told["base_variance_averaged"] == pytest.approx(told["base_variance"] / 4)
    assert told["adaptor_variance_averaged"] == pytest.approx(told["adaptor_variance"] / 2)


def test_some_clients_may_be_asked_for_all(made):
    _, _, two, _ = made(evaluate={"diagnose_clients": 2})
    _, _, all_of_them, _ = made()
    assert two["regret"] != all_of_them["regret"]
    assert {name: two[name] for name in FREE} == {name: all_of_them[name] for name in FREE}


def test_methods_without_a_common_bank_tell_what_costs_nothing(made):
    _, _, numbers, _ = made(algorithm={"kind": "ensemble", "num_models": 2}, adaptors=[])
    assert numbers.keys() >= FREE
    assert not numbers.keys() & DIAGNOSED


def test_the_report_has_a_table_of_mixtures(diagnosed):
    text = diagnosed.report.read_text()
    assert "## Mixtures" in text
    assert "| method | adaptors used | adaptors unused | evenness |" in text
