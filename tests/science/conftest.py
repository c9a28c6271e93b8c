"""How the scientific tests train: several seeds of a synthetic task in one compiled loop."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest

from floral import adaptors, algorithms, data, losses, metrics, mixtures, simulate, uplink
from floral.simulate.round import make_draw, make_round
from floral.simulate.shard import make_mesh


class Trained(NamedTuple):
    """A method after its rounds, on several seeds of a task."""

    tasks: list[data.SyntheticTask]
    simulators: list[simulate.Simulator]
    states: list[simulate.SimulationState]

    def evaluate(self) -> list[dict[str, Any]]:
        return [sim.evaluate(s) for sim, s in zip(self.simulators, self.states, strict=True)]


def _algorithm(
    method,
    model,
    dataset,
    *,
    learning_rate,
    mixture_learning_rate,
    num_adaptors,
    precondition_epsilon=None,
):
    local = algorithms.local_solver(optax.sgd, learning_rate=learning_rate)
    if method == "fedavg":
        return algorithms.fedavg(model, losses.squared_error, local)
    batch = simulate.sample_batch(dataset)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), batch)
    rules = [
        adaptors.Rule(".*/kernel", adaptors.low_rank(budget=0.01)),
        adaptors.Rule(".*/bias", adaptors.additive()),
    ]
    return algorithms.floral(
        adaptors.adapted(model, adaptors.make_plan(rules, params), batch),
        losses.squared_error,
        local,
        mixtures.known() if method == "known" else mixtures.softmax(),
        num_adaptors=num_adaptors,
        mixture_learning_rate=mixture_learning_rate,
        precondition_epsilon=precondition_epsilon,
    )


def _train(
    make_task: Callable[[int], data.SyntheticTask],
    model: Any,
    method: str,
    *,
    rounds: int,
    batching: Any,
    seeds: range,
    **settings: Any,
) -> Trained:
    """Trains all seeds side by side: one compilation, and the tiny steps share their overhead."""
    tasks = [make_task(seed) for seed in seeds]
    algorithm = _algorithm(method, model, tasks[0].dataset, **settings)
    simulators = [
        simulate.make_simulator(
            algorithm,
            model,
            task.dataset,
            metrics={"loss": metrics.from_per_example(losses.squared_error)},
            batching=batching,
        )
        for task in tasks
    ]
    chunk = tasks[0].dataset.num_clients
    take_round = make_round(
        algorithm,
        uplink.uplink(),
        make_draw(simulate.full(), devices=1, chunk=chunk),
        batching,
        make_mesh(jax.devices()[:1]),
        max_size=tasks[0].dataset.splits["train"].max_size,
        chunk=chunk,
    )

    @jax.jit
    @jax.vmap
    def train(state, data):
        return jax.lax.fori_loop(0, rounds, lambda _, state: take_round(state, data)[0], state)

    starts = [sim.init(jax.random.key(seed)) for sim, seed in zip(simulators, seeds, strict=True)]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    populations = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[sim.data for sim in simulators])
    ends = train(states, populations)
    return Trained(
        tasks,
        simulators,
        [jax.tree.map(lambda leaf, i=i: leaf[i], ends) for i in range(len(tasks))],
    )


@pytest.fixture(scope="session")
def train():
    return _train
