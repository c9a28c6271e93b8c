"""What a method reports of a round: where it arrives, and what is refused before anything runs."""

import json

import jax.numpy as jnp
import pytest

import floral
from floral.errors import SpecError

CONFIG = {
    "rounds": 2,
    "evaluate": {"every": 1, "diagnose_clients": 0},
    "model": {"kind": "linear"},
    "data": {
        "source": {"kind": "synthetic_linear", "clients": 4, "train": 4, "test": 2, "dimension": 3}
    },
    "local": {"kind": "sgd", "learning_rate": 0.1, "batch_size": 4},
}
EXAMPLES, CLIENTS = 16, 4


def reporting(base, **metrics):
    """The algorithm, whose clients report these numbers beside the usual ones."""

    def client_update(*args):
        *rest, own = base.client_update(*args)
        return (*rest, {**own, **metrics})

    return base._replace(client_update=client_update)


@pytest.fixture
def method(monkeypatch, tmp_path):
    """A module of one's own whose ``probe`` reports a sum, a count and a whole number."""
    (tmp_path / "own_probe.py").write_text(
        "import jax.numpy as jnp\n"
        "import floral\n"
        "def probe(model, loss, local, *, vector: bool = False):\n"
        "    base = floral.algorithms.fedavg(model, loss, local)\n"
        "    drift = jnp.ones(2) if vector else jnp.full((), 8.0)\n"
        "    def client_update(*args):\n"
        "        *rest, own = base.client_update(*args)\n"
        "        more = {'drift_sum': drift, 'steps': jnp.ones((), jnp.int32)}\n"
        "        return (*rest, own | more)\n"
        "    return base._replace(client_update=client_update)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "own_probe:probe"


def test_what_clients_report_is_shown_under_train_and_nowhere_else(method, tmp_path):
    result = floral.run({**CONFIG, "algorithm": {"kind": method}}, out=tmp_path)
    lines = [json.loads(s) for s in (result.folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line["train"]["drift"] == 8.0 * CLIENTS / EXAMPLES
        assert line["train"]["steps"] == CLIENTS
        assert isinstance(line["train"]["steps"], int)
        assert line["evaluation"].keys() == {"test"}
        assert "uplink" not in line
    assert "mixtures" not in result.report.read_text()


def test_a_vector_is_refused_by_a_config_before_a_folder_exists(method, tmp_path):
    config = {**CONFIG, "algorithm": {"kind": method, "vector": True}}
    with pytest.raises(SpecError, match=r"'drift_sum' must be one real number .*float32\[2\]"):
        floral.run(config, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        pytest.param({"pair": jnp.ones(2)}, r"'pair' must be one real number", id="vector"),
        pytest.param({"one": jnp.ones((1,))}, r"float32\[1\]", id="vector of one"),
        pytest.param({"tree": {"a": jnp.ones(())}}, r"got dict; report its parts", id="mapping"),
        pytest.param({"wave": jnp.ones((), jnp.complex64)}, r"complex64\[\]", id="complex"),
        pytest.param({"cohort": jnp.ones(())}, r"'cohort' has a name that", id="own name"),
        pytest.param({"clients_sum": jnp.ones(())}, r"'clients_sum' has a name", id="shown name"),
        pytest.param({"loss": jnp.ones(())}, r"both be shown as 'loss'", id="shown twice"),
    ],
)
def test_what_no_line_can_show_is_refused_when_a_simulator_is_made(build, simulator, metrics, said):
    with pytest.raises(SpecError, match=said):
        simulator(reporting(build("fedavg"), **metrics))


def test_a_sum_without_its_count_is_refused(build, simulator):
    base = build("fedavg")

    def client_update(*args):
        *rest, own = base.client_update(*args)
        return (*rest, {"loss_sum": own["loss_sum"]})

    with pytest.raises(SpecError, match="'loss_sum' is a sum over examples, and there is no"):
        simulator(base._replace(client_update=client_update))


def test_a_reducer_that_reports_a_vector_is_refused(build, simulator):
    reduce = floral.uplink.weighted_mean()
    finish = reduce.fold.finish

    def telling(sums, server=None):
        return finish(sums, server)._replace(diagnostics={"norms": jnp.ones(3)})

    uplink = floral.uplink.uplink(reduce=reduce._replace(fold=reduce.fold._replace(finish=telling)))
    with pytest.raises(SpecError, match=r"uplink.reduce: the metric 'norms' must be one real"):
        simulator(build("fedavg"), uplink=uplink)
