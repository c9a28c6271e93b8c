"""A bank that grows while it trains."""

import jax
import numpy as np
import optax
import pytest

from floral import mixtures, simulate
from floral.errors import SpecError

KEY = jax.random.key(7)
COUNT = {"floral": "num_adaptors", "ensemble": "num_models"}
PARTS = {"floral": "bank", "ensemble": "models"}


@pytest.fixture(scope="module", params=["floral", "ensemble"])
def grown(request, build, simulator, after):
    """``(name, state with two, simulator with four, that state grown)``; client 2 never trained."""
    name = request.param
    small, large = (simulator(build(name, **{COUNT[name]: count})) for count in (2, 4))
    state = after(small, 3)
    table = state.table["client"]
    table = {**table, "mixture": table["mixture"].at[2].set(0.0)}
    state = state._replace(table={**state.table, "client": table})
    return name, small, state, large, simulate.grow(state, large, KEY)


def test_all_that_was_there_is_kept_bit_for_bit(grown, same):
    name, _, state, large, after = grown
    part = PARTS[name]
    same(
        jax.tree.map(lambda leaf: leaf[:2], getattr(after.server, part)),
        getattr(state.server, part),
    )
    same((after.round, after.key), (state.round, state.key))
    if name == "floral":
        same(after.server.base, state.server.base)
    assert jax.tree.structure(after) == jax.tree.structure(large.init(KEY))
    assert after.server.active.tolist() == [True] * 4


def test_clients_with_a_mixture_predict_as_before(grown, population):
    _, small, state, large, after = grown
    x = population.client(0)["test"]["x"]
    for client in (0, 1, 3, 4):
        np.testing.assert_array_equal(
            large.client(after, client)["mixture"][:2], small.client(state, client)["mixture"]
        )
        np.testing.assert_allclose(
            large.predict(after, client, x), small.predict(state, client, x), rtol=1e-6, atol=1e-7
        )


def test_a_client_that_knows_nothing_starts_in_the_middle_of_all(grown):
    *_, large, after = grown
    assert large.client(after, 2)["mixture"].tolist() == [0.0] * 4


@pytest.fixture(scope="module")
def banks(build, simulator, after):
    """``(state of two adaptors, simulator with four)``."""
    small, large = (simulator(build("floral", num_adaptors=count)) for count in (2, 4))
    return after(small, 3), large


def test_new_adaptors_change_nothing_yet_and_are_not_alike(banks):
    added = jax.tree.map(lambda leaf: leaf[2:], simulate.grow(*banks, KEY).server.bank)
    assert not any(
        np.any(one[name]) for one in added.values() for name in {"b", "offset"} & one.keys()
    )
    factors = [one["a"] for one in added.values() if "a" in one]
    assert factors
    assert all(np.any(a[0] != a[1]) for a in factors)


def test_new_adaptors_have_the_share_that_is_asked(banks):
    grown = simulate.grow(*banks, KEY, share=0.2)
    weights = jax.nn.softmax(grown.table["client"]["mixture"])
    np.testing.assert_allclose(weights[:, 2:], 0.1, rtol=1e-5)
    before = jax.nn.softmax(banks[0].table["client"]["mixture"])
    np.testing.assert_allclose(weights[:, :2], 0.8 * before, rtol=1e-5)


def test_newcomers_start_on_the_new_adaptors_alone_and_train_them(banks):
    state, large = banks
    grown = simulate.grow(state, large, KEY, newcomers=[1, 4])
    weights = np.asarray(jax.nn.softmax(grown.table["client"]["mixture"]))
    np.testing.assert_array_equal(weights[[1, 4]], [[0, 0, 0.5, 0.5]] * 2)
    assert not weights[[0, 2, 3], 2:].any()
    trained, _ = large.round(grown)
    pairs = zip(*map(jax.tree.leaves, (trained.server.bank, grown.server.bank)), strict=True)
    assert all(np.any(new[2:] != old[2:]) for new, old in pairs if not np.any(old[2:]))


def test_mixtures_of_layers_and_optimizers_of_adaptors_grow_too(build, simulator):
    settings = {"mixture_per": "layer", "server_optimizer": optax.adam(0.1)}
    small, large = (simulator(build("floral", num_adaptors=c, **settings)) for c in (2, 3))
    grown = simulate.grow(small.init(KEY), large, KEY)
    large.lower(grown)
    assert {leaf.shape for leaf in jax.tree.leaves(grown.table["client"]["mixture"])} == {(5, 3)}


@pytest.mark.parametrize(
    ("options", "settings", "match"),
    [
        ({"num_adaptors": 2}, {}, "has 2 adaptors, the state 2; give it more"),
        ({"num_adaptors": 3}, {"share": 1.0}, "a share of 1 leaves nothing"),
        ({"num_adaptors": 3}, {"share": -0.1}, "share"),
        ({"num_adaptors": 3}, {"newcomers": [9]}, "there is no client 9; ids are 0 to 4"),
        ({"num_adaptors": 3, "mixture_per": "layer"}, {}, "has other parts"),
    ],
    ids=["no more", "whole share", "negative share", "no such client", "other mixtures"],
)
def test_what_cannot_grow_is_refused(options, settings, match, build, simulator):
    state = simulator(build("floral")).init(jax.random.key(0))
    with pytest.raises(SpecError, match=match):
        simulate.grow(state, simulator(build("floral", **options)), KEY, **settings)


def test_what_has_no_adaptors_or_finds_groups_once_is_refused(build, simulator):
    fedavg = simulator(build("fedavg"))
    with pytest.raises(SpecError, match="has no adaptors or models"):
        simulate.grow(fedavg.init(KEY), fedavg, KEY)
    groups = mixtures.discriminants(size=6, survey_rounds=1, group_rounds=1)
    found = simulator(build("floral", mixing=groups)).init(KEY)
    with pytest.raises(SpecError, match="find their groups once"):
        simulate.grow(found, simulator(build("floral", mixing=groups, num_adaptors=3)), KEY)
    by_losses = build("floral", mixing=mixtures.exponential_weights(), num_adaptors=3)
    grown = simulate.grow(found, simulator(by_losses), KEY)
    assert grown.server.inference.prices.shape == (3,)
    held = simulator(build("floral", num_adaptors=3), execution=simulate.execution(rows="host"))
    with pytest.raises(SpecError, match="rows stay on the host"):
        simulate.grow(simulator(build("floral")).init(KEY), held, KEY)
