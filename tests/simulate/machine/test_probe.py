"""A timed walk is the fastest of those that were tried, and changes no more than any walk does."""

import itertools

import jax
import pytest

from floral import simulate
from floral.errors import SpecError
from floral.simulate.machine.probe import trial_chunks

TIMED = simulate.execution(walk="timed")


def clock_of(costs):
    """A clock by which the rounds of the numbers that are tried take so long, turn after turn."""
    now = 0.0

    def readings():
        nonlocal now
        for cost in itertools.cycle(costs):
            yield now
            now += cost
            yield now

    return readings().__next__


@pytest.mark.parametrize("fastest", [0, 1, 2])
def test_the_fastest_walk_is_taken(fastest, build, simulator):
    costs = [3.0, 3.0, 3.0]
    costs[fastest] = 2.0
    sim = simulator(
        build("floral"), execution=TIMED, timings=lambda probe: probe.measure(clock_of(costs))
    )
    assert sim.timings == dict(zip((1, 3, 5), costs, strict=True))
    assert sim.chunk == (1, 3, 5)[fastest]


def test_one_slow_turn_does_not_decide(build, simulator):
    """The first reading of each compiles and does not count; of three turns the median does."""
    turns = [[9.0, 1.0, 1.0], [2.0, 3.0, 4.0], [50.0, 3.0, 4.0], [2.0, 3.0, 4.0]]
    costs = [cost for turn in turns for cost in turn]
    sim = simulator(
        build("fedavg"), execution=TIMED, timings=lambda probe: probe.measure(clock_of(costs))
    )
    assert sim.timings == {1: 2.0, 3: 3.0, 5: 4.0}


@pytest.mark.parametrize(
    ("rows", "home"),
    [
        ("device", "device"),
        ("host", "host"),
        pytest.param("device", "host", marks=pytest.mark.slow),
        pytest.param("host", "device", marks=pytest.mark.slow),
    ],
)
def test_timing_leaves_no_trace_in_a_run(rows, home, build, simulator, same):
    """Rounds after a probe are those of the walk that it chose, bit for bit."""
    settings = {"rows": rows, "population": home}
    timed = simulator(
        build("local_adaptor"),
        donate=True,
        execution=simulate.execution(walk="timed", **settings),
        timings=lambda probe: probe.measure(clock_of([2.0, 1.0, 2.0])),
    )
    chosen = simulator(
        build("local_adaptor"),
        donate=True,
        execution=simulate.execution(walk="chunk", chunk=3, **settings),
    )
    states = [sim.init(jax.random.key(0)) for sim in (timed, chosen)]
    for _ in range(2):
        states = [sim.round(s)[0] for sim, s in zip((timed, chosen), states, strict=True)]
    same(*states)


def test_without_timings_the_walk_is_that_of_auto(build, simulator):
    sim = simulator(build("fedavg"), execution=TIMED, timings=lambda probe: {})
    assert sim.timings == {}
    assert sim.chunk == simulator(build("fedavg")).chunk


def test_a_real_clock_measures_every_number(build, simulator):
    sim = simulator(build("floral"), execution=TIMED)
    assert list(sim.timings) == [1, 3, 5]
    assert all(0 < seconds < 60 for seconds in sim.timings.values())
    assert sim.timings[sim.chunk] == min(sim.timings.values())


def test_what_does_not_fit_is_not_tried(build, simulator):
    def device(chunk):
        execution = simulate.execution(walk="chunk", chunk=chunk)
        return simulator(build("floral"), execution=execution).memory().device

    needed = {chunk: device(chunk) for chunk in (1, 3, 5)}
    limit = (min(needed.values()) + max(needed.values())) / 2
    fits = [chunk for chunk, size in needed.items() if size <= limit]
    assert 0 < len(fits) < 3
    timed = simulate.execution(walk="timed", memory=limit / 2**30)
    assert list(simulator(build("floral"), execution=timed).timings) == fits
    with pytest.raises(SpecError, match=r"execution.memory: a round of one client .* 0.0 MiB"):
        simulator(build("floral"), execution=simulate.execution(walk="timed", memory=1e-6))


def test_a_program_is_told_from_others(build, simulator):
    """By the round, by who takes part in it, and by the limit; not by what its numbers are."""

    def program(algorithm, execution=TIMED, **options):
        seen = []

        def note(probe):
            seen.append(probe.program)
            return {}

        simulator(build(algorithm), execution=execution, timings=note, **options)
        return seen.pop()

    one = program("floral")
    assert program("floral") == one
    others = {
        program("fedavg"),
        program("floral", cohort=simulate.fixed(size=3)),
        program("floral", execution=simulate.execution(walk="timed", memory=1.0)),
        program("floral", execution=simulate.execution(walk="timed", devices=2)),
        one,
    }
    assert len(others) == 5


@pytest.mark.parametrize("share", [1, 2, 4, 5, 16, 17, 50, 1000])
def test_trials_begin_with_one_and_end_with_all(share):
    chunks = trial_chunks(share)
    assert (chunks[0], chunks[-1]) == (1, share)
    assert list(chunks) == sorted(set(chunks))
    for chunk in chunks:  # the last chunk lacks fewer places than there are chunks
        assert -share % chunk < -(-share // chunk)
