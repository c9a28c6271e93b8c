"""Whether a sampler and an uplink give what a round needs: traced before anything is compiled."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from floral import check
from floral.errors import SpecError
from floral.messages import Reduced, Upload
from floral.simulate.checks.traced import shapes, struct_of
from floral.simulate.sampling import Sampler
from floral.typing import PyTree
from floral.uplink import Uplink

__all__ = ["check_sampler", "check_uplink", "room_of"]


def room_of(cohort: Sampler, population: int) -> int:
    """How many clients a round has room for.

    Raises:
      SpecError: unless the sampler's capacity is a whole number of at least one.
    """
    room = cohort.capacity(population)
    check.positive_int(**{"the capacity of cohort": room})
    return room


def check_sampler(cohort: Sampler, *, population: int, room: int) -> None:
    """Raises SpecError unless ``sample`` gives ids [K] and who is active, [K] bool.

    Args:
      cohort: how cohorts are drawn.
      population: clients that may be drawn.
      room: K.
    """
    number = jax.ShapeDtypeStruct((), jnp.int32)
    clients = jax.ShapeDtypeStruct((population,), jnp.int32)
    drawn = struct_of(
        "cohort.sample", "(key, round, clients)", cohort.sample, jax.random.key(0), number, clients
    )
    expected = f"cohort.sample: expected a pair of ids int[{room}] and active bool[{room}]"
    if not isinstance(drawn, tuple) or len(drawn) != 2:
        raise SpecError(f"{expected}, got {check.described(drawn)}")
    ids, active = drawn
    if (
        shapes(active) != f"bool[{room}]"
        or getattr(ids, "shape", None) != (room,)
        or not jnp.issubdtype(ids.dtype, jnp.integer)
    ):
        raise SpecError(f"{expected}, got {shapes(ids)} and {shapes(active)}")


def check_uplink(uplink: Uplink, upload: Upload, server: PyTree, *, room: int) -> None:
    """Raises SpecError unless what comes out of each stage has the shapes of an update.

    Args:
      uplink: client transforms, reducer and server transforms.
      upload: structs of what one client sends.
      server: structs of the server's state.
      room: clients in a cohort.
    """
    update, weight = upload.update, upload.weight
    key = jax.random.key(0)

    def transformed(transform: Any) -> Callable[[PyTree], tuple[PyTree, PyTree, PyTree]]:
        def run(update):
            before = transform.init(update)
            update, after = transform.update(update, before, key=key)
            return update, before, after

        return run

    for name, transform in (("client", uplink.client), ("server", uplink.server)):
        what = f"uplink.{name}"
        new, before, after = struct_of(what, "(update, state)", transformed(transform), update)
        _same(f"{what}: a transform", update, new)
        _same(f"{what}: a transform's state", before, after)

    def reduced(update, weight, server):
        if uplink.reduce.fold is not None:
            return (
                uplink.reduce.fold.finish(uplink.reduce.fold.zero(update, weight), server),
                (),
                (),
            )
        everyone = jax.tree.map(
            lambda leaf: jnp.zeros((room, *leaf.shape), leaf.dtype), (update, weight)
        )
        before = uplink.reduce.init(update)
        pair = uplink.reduce.reduce(*everyone, before, key=key, server=server)
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], Reduced):
            raise SpecError(
                "uplink.reduce: expected reduce to give a pair of a Reduced and the next state, "
                f"got {check.described(pair)}"
            )
        return pair[0], before, pair[1]

    takes = "(updates [K, ...], weights [K, ...], state)"
    found, before, after = struct_of("uplink.reduce", takes, reduced, update, weight, server)
    _same("uplink.reduce: the reduced update", update, found.update)
    _same("uplink.reduce: the state", before, after)


def _same(what: str, expected: PyTree, found: PyTree) -> None:
    """Raises SpecError unless both have one structure, and leaves of one shape and dtype."""
    if jax.tree.structure(expected) != jax.tree.structure(found):
        raise SpecError(
            f"{what} must keep the structure {jax.tree.structure(expected)}, got "
            f"{jax.tree.structure(found)}"
        )
    wrong = [
        (one, other)
        for one, other in zip(
            jax.tree.leaves(shapes(expected)), jax.tree.leaves(shapes(found)), strict=True
        )
        if one != other
    ]
    if wrong:
        raise SpecError(
            f"{what} must keep shapes and dtypes, expected {wrong[0][0]}, got {wrong[0][1]}"
        )
