"""The shared network written out, and quadratics of which everything is known in closed form."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import algorithms, data, losses, models, simulate


class Quadratics(NamedTuple):
    """``f_k(w) = (s_k w - t_k)^2`` of one number w, with ``n_k`` equal examples.

    Attributes:
      run: ``(name, rounds=1, steps=1, rate=0.1, wiring=(), **settings) -> (simulator, state)``:
        that many rounds of as many full-batch local steps, from w = 0.
      shares: [K], of the examples.
      curvature, slope: [K], so that ``f_k' = curvature w - slope``.
    """

    run: Any
    shares: np.ndarray
    curvature: np.ndarray
    slope: np.ndarray

    @property
    def minimum(self):
        """Of the clients' common loss."""
        return np.sum(self.shares * self.slope) / np.sum(self.shares * self.curvature)


def _outputs(params, x):
    first, second = params["params"]["Dense_0"], params["params"]["Dense_1"]
    hidden = jnp.maximum(x @ first["kernel"] + first["bias"][None], 0)
    return hidden @ second["kernel"] + second["bias"][None]


@pytest.fixture(scope="session")
def outputs_of():
    """``(params, x [n, 3]) -> [n, 2]``: the shared network, written out."""
    return jax.jit(_outputs)


@pytest.fixture(scope="session")
def slope_of():
    """``(params, batch, shares=None) -> gradient`` of the network's mean squared error, each
    example's multiplied by its own of the shares [n]."""

    def loss(params, batch, shares):
        errors = jnp.mean((_outputs(params, batch["x"]) - batch["y"]) ** 2, axis=1)
        return jnp.mean(shares * errors)

    gradient = jax.jit(jax.grad(loss))

    def slope(params, batch, shares=None):
        shares = np.ones(len(batch["x"]), np.float32) if shares is None else shares
        return jax.tree.map(np.asarray, gradient(params, batch, shares))

    return slope


@pytest.fixture(scope="session")
def quadratics():
    sizes, scales, targets = [1, 2, 4], [0.5, 1.0, 1.5], [1.0, -2.0, 3.0]
    clients = [
        {split: {"x": np.full((n, 1), s), "y": np.full((n, 1), t)} for split in ("train", "test")}
        for n, s, t in zip(sizes, scales, targets, strict=True)
    ]
    population = data.from_clients(clients)
    model = models.from_function(
        lambda key, x: {"w": jnp.zeros(1)}, lambda params, x: x * params["w"][None]
    )

    def run(name, *, rounds=1, steps=1, rate=0.1, wiring=(), cohort=None, **settings):
        local = algorithms.local_solver(optax.sgd, learning_rate=rate)
        factory = getattr(algorithms, name)
        algorithm = factory(model, losses.squared_error, local, *wiring, **settings)
        sim = simulate.make_simulator(
            algorithm,
            model,
            population,
            metrics={},
            batching=data.batching(batch_size=4, steps=steps, shuffle=False),
            cohort=simulate.full() if cohort is None else cohort,
            execution=simulate.execution(devices=1),
        )
        state = sim.init(jax.random.key(0))
        for _ in range(rounds):
            state, _ = sim.round(state)
        return sim, state

    return Quadratics(
        run=run,
        shares=np.array(sizes) / np.sum(sizes),
        curvature=2 * np.square(scales),
        slope=2 * np.multiply(scales, targets),
    )
