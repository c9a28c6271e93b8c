"""The server optimizer that is the bank's own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import mixtures, simulate
from floral.errors import SpecError


@pytest.fixture(scope="module")
def trained(build, simulator, after):
    """``(rounds, **settings) -> server`` of FLoRAL."""
    return lambda rounds, **settings: after(simulator(build("floral", **settings)), rounds).server


def test_none_and_an_sgd_of_rate_one_are_the_same_bit_for_bit(trained, same):
    plain, own = trained(2), trained(2, bank_server_optimizer=optax.sgd(1.0))
    same((own.base, own.bank), (plain.base, plain.bank))


def test_none_leaves_the_bank_to_the_server_optimizer(trained, same):
    adam = optax.adam(0.01)
    same(
        trained(2, server_optimizer=adam),
        trained(2, server_optimizer=adam, bank_server_optimizer=adam),
    )


def test_a_rate_of_zero_keeps_the_bank_and_moves_the_base_as_ever(trained, same):
    start, kept, plain = trained(0), trained(1, bank_server_optimizer=optax.sgd(0.0)), trained(1)
    same(kept.bank, start.bank)
    same(kept.base, plain.base)


def test_a_rate_moves_every_adaptor_that_much_of_the_way_to_its_mean(trained, near):
    start, plain = trained(0), trained(1)
    slow = trained(1, bank_server_optimizer=optax.sgd(0.1))
    expected = jax.tree.map(lambda old, mean: old + 0.1 * (mean - old), start.bank, plain.bank)
    near(slow.bank, expected)
    moved = jax.tree.map(lambda new, old: np.max(np.abs(new - old)), slow.bank, start.bank)
    assert max(jax.tree.leaves(moved)) > 1e-3  # so that near tells the rates apart


def test_the_base_never_meets_the_optimizer_of_the_bank(trained, same):
    plain, adam = trained(1), trained(1, bank_server_optimizer=optax.adam(0.1))
    same((adam.base, adam.base_optimizer), (plain.base, plain.base_optimizer))


def test_an_adaptor_without_clients_keeps_its_value_and_its_optimizer_state(
    build, simulator, after, same
):
    def only_cluster_zero(key, round_index, clients):
        return jnp.array([0, 2]), jnp.ones(2, bool)

    cohort = simulate.Sampler(capacity=lambda population: 2, sample=only_cluster_zero)
    own = optax.adam(0.1)
    algorithm = build("floral", mixing=mixtures.known(), bank_server_optimizer=own)
    state = after(simulator(algorithm), 1)
    moved = after(simulator(algorithm, cohort=cohort), 2, state=state)
    for part in ("bank", "bank_optimizer"):
        before, now = getattr(state.server, part), getattr(moved.server, part)
        same(*(jax.tree.map(lambda leaf: leaf[1], t) for t in (now, before)))
        zeroth = [jax.tree.leaves(jax.tree.map(lambda leaf: leaf[0], t)) for t in (now, before)]
        assert any(np.any(new != old) for new, old in zip(*zeroth, strict=True))


@pytest.mark.parametrize(
    "settings", [{"private": ("bank",)}, {"train": ("base", "mixture")}], ids=["private", "frozen"]
)
def test_it_is_refused_where_no_adaptor_is_averaged(settings, build):
    with pytest.raises(SpecError, match=r"no adaptor is both trained and averaged .*leave it out"):
        build("floral", bank_server_optimizer=optax.sgd(0.1), **settings)
