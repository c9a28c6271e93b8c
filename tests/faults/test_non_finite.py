"""Values that are not finite are counted in the round's metrics, and dropped where asked."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import data, simulate
from floral.config.areas import SCHEMA, UPLINK
from floral.errors import SpecError
from floral.uplink import uplink


def _clients(*broken):
    """Five regressions 3 -> 2; the squared loss of the broken ones overflows float32."""
    rng = np.random.default_rng(0)
    clients = []
    for client in range(5):
        x = rng.standard_normal((4, 3)).astype("f") * (1e30 if client in broken else 1)
        clients.append({"train": {"x": x, "y": x[:, :2]}})
    return data.from_clients(clients)


def _without(*absent):
    """Everyone but these clients, at everyone's places."""
    ids = jnp.arange(5)
    here = ~jnp.isin(ids, jnp.array(absent))
    return simulate.Sampler(capacity=lambda _: 5, sample=lambda *_: (ids, here))


@pytest.mark.parametrize("walk", [{"walk": "scan"}, {"walk": "chunk", "chunk": 2}, {"devices": 2}])
def test_clients_with_a_loss_that_is_not_finite_are_counted_and_the_first_is_named(
    walk, build, simulator
):
    broken = _clients(3, 1)
    sim = simulator(build("fedavg"), broken, execution=simulate.execution(**walk))
    _, metrics = sim.round(sim.init(jax.random.key(0)))
    assert int(metrics["non_finite"]) == 2
    assert int(metrics["first_non_finite"]) == 1
    assert "dropped" not in metrics


def test_where_all_is_finite_nobody_is_counted(build, simulator):
    sim = simulator(build("fedavg"), uplink=uplink(non_finite="drop"))
    _, metrics = sim.round(sim.init(jax.random.key(0)))
    assert (int(metrics["non_finite"]), int(metrics["first_non_finite"])) == (0, -1)
    assert int(metrics["dropped"]) == 0


def _to_infinity():
    """An uplink transform that loses the update itself, after a finite loss."""
    return optax.with_extra_args_support(optax.scale(jnp.inf))


@pytest.mark.parametrize(("non_finite", "dropped"), [("keep", None), ("drop", 5)])
def test_an_update_that_is_not_finite_is_seen_though_every_loss_is(
    non_finite, dropped, build, simulator
):
    sent = uplink(client=[_to_infinity()], non_finite=non_finite)
    sim = simulator(build("fedavg"), uplink=sent)
    start = sim.init(jax.random.key(0))
    after, metrics = sim.round(start)
    assert int(metrics["non_finite"]) == (dropped or 1)
    assert metrics.get("dropped") == dropped
    if dropped:
        jax.tree.map(np.testing.assert_array_equal, after.server.params, start.server.params)


@pytest.mark.parametrize("name", ["fedavg", "scaffold", "ditto", "floral"])
def test_a_round_that_drops_clients_is_the_round_without_them(name, build, simulator, near):
    population = _clients(1, 3)
    dropping = simulator(build(name), population, uplink=uplink(non_finite="drop"))
    without = simulator(build(name), population, cohort=_without(1, 3))
    start = dropping.init(jax.random.key(0))
    dropped, metrics = dropping.round(start)
    expected, of_others = without.round(start)
    near(dropped._replace(key=()), expected._replace(key=()))
    assert int(metrics.pop("dropped")) == int(metrics.pop("non_finite")) == 2
    assert int(metrics.pop("first_non_finite")) == 1
    assert int(metrics.pop("cohort")) == 5
    near(metrics, {name: of_others[name] for name in metrics})


def test_a_config_drops_them_too_and_another_word_is_refused():
    assert SCHEMA.construct(UPLINK, {"non_finite": "drop"}).non_finite == "drop"
    with pytest.raises(SpecError, match="non_finite"):
        uplink(non_finite="ignore")
