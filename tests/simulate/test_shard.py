"""A cohort over several devices, and many rounds in one call, change nothing but sums' order."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floral import simulate
from floral.errors import SpecError
from floral.simulate.shard import AXIS, deal, share_of, summed_as_one
from floral.uplink.base import Reducer, Uplink
from floral.uplink.mean import weighted_mean

TWO = simulate.execution(devices=2)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40), st.integers(1, 4))
def test_clients_are_dealt_by_size_so_that_devices_finish_together(sizes, devices):
    share = share_of(len(sizes), devices)
    padded = jnp.asarray([*sizes, *[0] * (share * devices - len(sizes))])
    order = np.asarray(deal(padded, devices, share))
    np.testing.assert_array_equal(deal(np.asarray(padded), devices, share), order)
    assert sorted(order) == list(range(share * devices))
    dealt = np.asarray(padded)[order].reshape(devices, share)
    assert (np.diff(dealt, axis=1) <= 0).all()  # neighbours are alike
    totals = dealt.sum(axis=1)
    assert totals.max() - totals.min() <= max(sizes)


def test_arrays_summed_as_one_are_summed():
    tree = {
        "weights": jnp.arange(12.0).reshape(2, 2, 3),
        "count": jnp.asarray([3, 4]),
        "bank": (jnp.ones((2, 4)), jnp.zeros((2, 0)), jnp.asarray([0.5, 2.0])),
    }
    found = jax.vmap(summed_as_one, axis_name=AXIS, out_axes=None)(tree)
    expected = jax.tree.map(lambda leaf: leaf.sum(axis=0), tree)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    types = jax.tree.map(lambda leaf: leaf.dtype, (found, expected))
    assert types[0] == types[1]


@pytest.mark.parametrize(
    ("name", "walk"),
    [("fedavg", "scan"), ("floral", "vmap"), ("floral", "chunk"), ("ensemble", "scan")],
)
def test_two_devices_are_one(name, walk, build, simulator, after, near):
    """Five ragged clients on two devices: one place is empty."""
    chunk = 2 if walk == "chunk" else None
    one, two = (
        simulator(
            build(name), execution=simulate.execution(walk=walk, chunk=chunk, devices=devices)
        )
        for devices in (1, 2)
    )
    assert (one.devices, two.devices) == (1, 2)
    ends = [after(sim, 3) for sim in (one, two)]
    near(*(end._replace(key=()) for end in ends))
    near(one.round(ends[0])[1], two.round(ends[1])[1])
    near(*(sim.evaluate(end) for sim, end in zip((one, two), ends, strict=True)))


def test_a_state_goes_from_few_devices_to_many_and_back(build, simulator, after, near, same):
    one, two = simulator(build("floral")), simulator(build("floral"), execution=TWO)
    half = after(one, 2)
    end, _ = two.round(half)
    near(end._replace(key=()), after(one, 1, state=half)._replace(key=()))
    same(one.evaluate(end)["client"], two.evaluate(end)["client"])


def test_a_reducer_that_needs_every_update_gets_them_from_all_devices(build, simulator, near):
    mean = weighted_mean()
    whole = Reducer(mean.init, mean.reduce, fold=None)
    identity = optax.with_extra_args_support(optax.identity())

    def uplink(reducer):
        return Uplink(identity, reducer, identity)

    sims = [simulator(build("fedavg"), uplink=uplink(r), execution=TWO) for r in (mean, whole)]
    state = sims[0].init(jax.random.key(0))
    near(*(sim.round(state)[0]._replace(key=()) for sim in sims))


def test_more_devices_than_there_are_say_how_to_have_them(build, simulator):
    with pytest.raises(SpecError, match=r'99 asked for, 2 present.*"jax_num_cpu_devices", 99'):
        simulator(build("fedavg"), execution=simulate.execution(devices=99))


@pytest.mark.parametrize("execution", [simulate.execution(), TWO], ids=["one", "two"])
def test_many_rounds_in_one_call_are_as_many_calls(execution, build, simulator, near):
    sim = simulator(build("floral"), execution=execution)
    start = sim.init(jax.random.key(0))
    state, each = start, []
    for _ in range(5):
        state, metrics = sim.round(state)
        each.append(metrics)
    fused, together = sim.rounds(start, 5)
    near(fused._replace(key=()), state._replace(key=()))
    near(together, jax.tree.map(lambda *values: jnp.stack(values), *each))


def test_blocks_of_rounds_cut_anywhere_are_the_same_bit_for_bit(build, simulator, same):
    sim = simulator(build("floral"))
    start = sim.init(jax.random.key(0))
    whole, metrics = sim.rounds(start, 200)  # more than one call has room for
    assert metrics["examples"].shape == (200,)
    half, _ = sim.rounds(start, 77)
    same(sim.rounds(half, 123)[0], whole)


def test_a_donated_state_is_gone_and_its_best_snapshot_is_not(build, simulator):
    sim = simulator(build("floral"), donate=True)
    start = sim.init(jax.random.key(0))
    best = jax.tree.map(jnp.copy, start.server)
    state, _ = sim.rounds(start._replace(best=best), 2)
    state, _ = sim.round(state)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(start.table))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state.best))


@pytest.mark.parametrize(("devices", "chunk"), [(1, 1), (2, 1), (1, 8), (2, 8), (4, 4)])
def test_little_of_the_work_is_padding_and_no_device_waits_long(devices, chunk):
    sizes = np.random.default_rng(0).integers(1, 400, 100)  # 1 to 20 steps of 20
    share = share_of(100, devices, chunk)
    padded = np.append(sizes, np.zeros(share * devices - 100, int))
    dealt = padded[np.asarray(deal(jnp.asarray(padded), devices, share, chunk))]
    steps = -(-dealt // 20).reshape(devices, -1, chunk)
    rounds = steps.max(axis=2)  # a chunk is as long as its longest client
    assert 1 - steps.sum() / (chunk * rounds.sum()) < 0.15
    waiting = 1 - rounds.sum() / (devices * rounds.sum(axis=1).max())
    assert waiting < 0.15
