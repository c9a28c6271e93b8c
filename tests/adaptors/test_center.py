"""Centering moves what adaptors have in common to the base, and changes nobody's model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral import adaptors, mixtures
from floral.errors import SpecError

BASE = {"kernel": jnp.zeros((4, 3)), "conv": jnp.zeros((3, 3, 2, 3)), "bias": jnp.zeros(3)}


def _bank(ranks, seed=0, num_adaptors=3):
    rules = [
        adaptors.Rule("kernel", adaptors.low_rank(rank=ranks[0], alpha=0.5)),
        adaptors.Rule("conv", adaptors.conv(layout="in", rank=ranks[1])),
        adaptors.Rule("bias", adaptors.additive(alpha=2.0)),
    ]
    plan = adaptors.make_plan(rules, BASE)
    bank = adaptors.init_bank(jax.random.key(seed), plan, num_adaptors)
    rng = np.random.default_rng(seed)
    trained = jax.tree.map(
        lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), jnp.float32), bank.trained
    )
    return plan, bank._replace(trained=trained)


def _mean_delta(plan, bank):
    zeros = jax.tree.map(jnp.zeros_like, BASE)
    return adaptors.merge(zeros, bank, jnp.full(3, 1 / 3), plan)


def test_with_full_ranks_every_mixture_keeps_its_model(near):
    plan, bank = _bank((3, 3))
    base, centered = adaptors.center(BASE, bank, plan, jnp.ones(3, bool))
    for weights in (jnp.array([0.2, 0.3, 0.5]), jnp.array([0.0, 1.0, 0.0])):
        near(
            adaptors.merge(base, centered, weights, plan),
            adaptors.merge(BASE, bank, weights, plan),
        )
    for leaf in jax.tree.leaves(_mean_delta(plan, centered)):
        np.testing.assert_allclose(leaf, 0.0, atol=1e-5)


def test_with_a_smaller_rank_each_adaptor_is_the_nearest_pair_of_its_rank(near):
    plan, bank = _bank((1, 1))
    base, centered = adaptors.center(BASE, bank, plan, jnp.ones(3, bool))
    near(base, _mean_delta(plan, bank))
    factors = bank.trained["kernel"]
    products = np.einsum("crm,crn->cmn", factors["a"], factors["b"])
    for c in range(3):
        left, values, right = np.linalg.svd(products[c] - products.mean(axis=0))
        nearest = values[0] * np.outer(left[:, 0], right[0])
        own = centered.trained["kernel"]
        near(own["a"][c].T @ own["b"][c], np.float32(nearest))


def test_adaptors_that_are_not_in_use_have_no_say_in_the_mean(near):
    plan, bank = _bank((3, 3))
    base, centered = adaptors.center(BASE, bank, plan, jnp.array([True, True, False]))
    pair = jnp.array([0.5, 0.5, 0.0])
    near(base, adaptors.merge(BASE, bank, pair, plan))
    near(
        adaptors.merge(base, centered, jnp.array([0.9, 0.1, 0.0]), plan),
        adaptors.merge(BASE, bank, jnp.array([0.9, 0.1, 0.0]), plan),
    )


def test_floral_centers_after_every_round_in_which_someone_trains(build, simulator, after, near):
    """Full ranks: the models after a round are those without centering, the bank is centered."""
    plain = simulator(build("floral", mixing=mixtures.known()))
    sim = simulator(build("floral", mixing=mixtures.known(), center_adaptors=True))
    one, other = after(plain, 1), after(sim, 1)
    offsets = other.server.bank["params/Dense_1/bias"]["offset"]
    np.testing.assert_allclose(np.asarray(offsets).sum(axis=0), 0.0, atol=1e-6)
    assert (
        np.abs(np.asarray(one.server.bank["params/Dense_1/bias"]["offset"]).sum(axis=0)).max() > 0
    )
    for client in (0, 1):
        for layer in ("Dense_0", "Dense_1"):
            near(
                sim.export(other, client)["params"][layer]["bias"],
                plain.export(one, client)["params"][layer]["bias"],
            )


@pytest.mark.parametrize(
    "settings",
    [{"train": ["bank", "mixture"]}, {"private": ["mixture", "bank/**/b"]}],
    ids=["a frozen base", "a private factor"],
)
def test_centering_what_clients_do_not_train_together_is_refused(build, settings):
    with pytest.raises(SpecError, match=r"center_adaptors moves .* clients do not train together"):
        build("floral", center_adaptors=True, **settings)
