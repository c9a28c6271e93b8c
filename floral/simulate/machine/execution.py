"""How clients are executed: side by side, in chunks or one by one, and on which devices.

Nothing here changes results beyond the reassociation of float sums.
"""

import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from floral import check, tree
from floral.data import FederatedDataset
from floral.data.storage.lazy import is_plain
from floral.errors import SpecError
from floral.simulate.machine.host_memory import device_memory, free_memory
from floral.typing import FilePath, PyTree

__all__ = [
    "Execution",
    "chosen_devices",
    "chunk_size",
    "evaluated_together",
    "execution",
    "folder_of_rows",
    "rows_on_host",
    "stays_on_host",
]

_LARGEST_CHUNK = 1024
_LARGEST_CHUNK_OF_CONVOLUTIONS = 64  # of own kernels: on an H100 256 take five times as long
_LARGEST_CHUNK_ON_CPU = 20
_EVALUATED = 16
_EXAMPLES_ON_CPU = 64  # predicted at once; what is computed of more leaves the cache
_SHARE_OF_DEVICE = 1 / 4  # a round holds a table twice, and the best snapshot once more
_SHARE_OF_STEP = 1 / 2  # of a device, for what a step's products read and write
_SHARE_OF_HOST = 1 / 2

WalkKind = Literal["auto", "timed", "vmap", "chunk", "scan"]
Home = Literal["auto", "device", "host"]


class _Execution(NamedTuple):
    walk: WalkKind = "auto"
    chunk: int | None = None
    devices: int | None = None
    population: Home = "auto"
    memory: float | None = None
    rows: Home = "auto"
    rows_folder: FilePath | None = None


class Execution(_Execution):
    """How clients are executed; ``execution`` says what each setting does.

    Raises:
      SpecError: for settings that ``execution`` refuses.
    """

    __slots__ = ()

    def __new__(cls, *args: Any, **settings: Any) -> "Execution":
        made = super().__new__(cls, *args, **settings)
        _check(*made)
        return made


def execution(
    *,
    walk: WalkKind = "auto",
    chunk: int | None = None,
    devices: int | None = None,
    population: Home = "auto",
    memory: float | None = None,
    rows: Home = "auto",
    rows_folder: FilePath | None = None,
) -> Execution:
    """How clients are executed.

    Args:
      walk: on each device: vmap (its whole share of the cohort side by side), chunk (so many at a
        time), scan (one after another), auto, which looks at the device and at what clients
        train, or timed, which tries 1, 4, 16, ... and the whole share, each on a few rounds of a
        state that is thrown away, and takes the fastest; a run of the command line remembers what
        it found for a program, and to check, describe or plan a config nothing is timed.
      chunk: clients side by side on each device, for "chunk".
      devices: how many devices share a cohort; all by default. A CPU is one device unless JAX is
        told otherwise before it starts: ``jax.config.update("jax_num_cpu_devices", 2)``. Several
        processes give as many each.
      population: where the clients' data live: device (whole, on every device), host (each
        round's cohort is fetched while the round before it trains, by each process what its own
        devices need), or auto, which is host for data that are mapped from files or generated, and
        wherever several processes share a cohort.
      memory: GiB of a device that a round may need, by the compiler's count. With walk "auto" as
        many clients go side by side as fit, on a CPU no more than without it: a rule of thumb.
        With walk "timed" no more than fit are tried; without it they may take half of a device.
      rows: where the state that clients keep between rounds lives: device (everyone's, on every
        device), host (a round is handed its cohort's rows and gives them back, one round in each
        call), or auto, which is host where the rows of all take more than a quarter of a device's
        memory (of the machine's, for a CPU). Several processes keep them on their devices.
      rows_folder: a folder with room for the rows, for rows on the host: they then lie there in
        files that are mapped into memory. Without it they lie in memory, unless they take more
        than half of what is free; then in the system's folder for temporary files.

    Raises:
      SpecError: if chunk is missing where it is needed, or given where it is not; or for a
        rows_folder that is none.
    """
    return Execution(walk, chunk, devices, population, memory, rows, rows_folder)


def _check(
    walk: Any, chunk: Any, devices: Any, population: Any, memory: Any, rows: Any, rows_folder: Any
) -> None:
    """Raises SpecError for settings that do not go together, or are out of range."""
    check.one_of(("auto", "timed", "vmap", "chunk", "scan"), walk=walk)
    check.one_of(("auto", "device", "host"), population=population)
    if (chunk is not None) != (walk == "chunk"):
        raise SpecError(
            f"chunk belongs to walk = 'chunk' and to no other; got walk = {walk!r}, "
            f"chunk = {check.brief(chunk)}"
        )
    if chunk is not None:
        check.positive_int(chunk=chunk)
    if devices is not None:
        check.positive_int(devices=devices)
    if memory is not None:
        check.positive(memory=memory)
        if walk not in ("auto", "timed"):
            raise SpecError(
                f"memory belongs to walk = 'auto' or 'timed' and to no other; got walk = {walk!r}"
            )
    check.one_of(("auto", "device", "host"), rows=rows)
    if rows_folder is not None:
        if rows == "device":
            raise SpecError("rows_folder belongs to rows = 'host' or 'auto'; got rows = 'device'")
        if not isinstance(rows_folder, (str, Path)) or not Path(rows_folder).is_dir():
            raise SpecError(
                f"rows_folder: expected a folder that is there, got {check.brief(rows_folder)}"
            )


def chosen_devices(execution: Execution) -> list[Any]:
    """The devices that share a cohort.

    Raises:
      SpecError: if more are asked for than there are, for a CPU it says how to have more; or if
        processes cannot give as many each.
    """
    present = jax.devices()
    processes = jax.process_count()
    wanted = len(present) if execution.devices is None else execution.devices
    if wanted > len(present):
        hint = (
            f'; call jax.config.update("jax_num_cpu_devices", {wanted}) before JAX starts'
            if present[0].platform == "cpu"
            else ""
        )
        raise SpecError(f"execution.devices: {wanted} asked for, {len(present)} present{hint}")
    if wanted % processes:
        raise SpecError(
            f"execution.devices: expected a multiple of the {processes} processes, got {wanted}"
        )
    return [
        device
        for process in range(processes)
        for device in jax.local_devices(process_index=process)[: wanted // processes]
    ]


def chunk_size(
    execution: Execution,
    share: int,
    *,
    own_weights: bool,
    convolves: bool,
    step_bytes: float,
    device: Any,
) -> int:
    """How many clients go side by side on one device.

    On a CPU a client that trains weights of its own is fastest alone: its weights stay in cache. So
    is one that convolves: kernels of several clients would make grouped convolutions, which a CPU
    is slow at. Clients that share frozen weights are fastest a few at a time, while what they
    compute stays in cache. On an accelerator all are fastest side by side, as many as surely fit;
    grouped convolutions up to a number (``experiments/bench/accelerator.py`` measures both).

    Args:
      execution: what the user asked for.
      share: clients of a cohort on one device.
      own_weights: whether each client trains a copy of the model's weights.
      convolves: whether a client's turn has convolutions.
      step_bytes: read and written by the products of one local step of one client: a little more
        than a client side by side adds to a round's memory.
      device: one that the cohort is walked on.
    """
    if execution.walk == "chunk":
        return min(execution.chunk or share, share)
    if execution.walk in ("auto", "timed"):
        if device.platform != "cpu":
            fitting = int(_SHARE_OF_STEP * device_memory(device) / max(1.0, step_bytes))
            most = _LARGEST_CHUNK_OF_CONVOLUTIONS if convolves else _LARGEST_CHUNK
            return _alike(share, max(1, min(fitting, most)))
        return 1 if own_weights or convolves else _alike(share, _LARGEST_CHUNK_ON_CPU)
    return 1 if execution.walk == "scan" else share


def _alike(share: int, most: int) -> int:
    """The size of as few chunks as there can be, alike in size, lest the last is mostly empty."""
    chunks = -(-share // most)
    return -(-share // max(1, chunks))


def evaluated_together(examples: int, *, convolves: bool, backend: str) -> int:
    """How many clients are evaluated side by side on one device, a power of two.

    Args:
      examples: of one client, predicted at once.
      convolves: whether a client's turn has convolutions.
      backend: as ``jax.default_backend()`` names it.
    """
    if backend != "cpu":
        return _EVALUATED
    if convolves:
        return 1
    few = max(1, _EXAMPLES_ON_CPU // examples)
    return min(_EVALUATED, 1 << (few.bit_length() - 1))


def stays_on_host(execution: Execution, dataset: FederatedDataset) -> bool:
    """Whether clients' examples are fetched for each cohort rather than put on the devices.

    Automatically they are where an array is no plain array in memory, but a mapped file or
    something that makes rows when it is indexed, and where a process would hold what others walk.
    """
    if execution.population != "auto":
        return execution.population == "host"
    return jax.process_count() > 1 or any(
        not is_plain(array)
        for split in dataset.splits.values()
        for array in split.examples.values()
    )


def rows_on_host(execution: Execution, struct: PyTree, device: Any) -> bool:
    """Whether clients' rows are handed to each round rather than kept on the devices.

    Args:
      execution: what the user asked for.
      struct: the table of rows, as structs; one without leaves is always on the devices.
      device: one that the cohort is walked on.

    Raises:
      SpecError: where they shall be on the host and cannot be.
    """
    leaves = jax.tree.leaves(struct)
    keys = any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves)
    several = jax.process_count() > 1
    if execution.rows == "host":
        if keys:
            raise SpecError("execution.rows: a row with a random key in it cannot be on the host")
        if several:
            raise SpecError(
                f"execution.rows: rows on the host are one process's, here are "
                f"{jax.process_count()}; set it to device"
            )
        return bool(leaves)
    if execution.rows == "device" or keys or several:
        return False
    return tree.num_bytes(struct) > _SHARE_OF_DEVICE * device_memory(device)


def folder_of_rows(execution: Execution, struct: PyTree) -> Path | None:
    """Where the files of rows on the host are to lie; None where memory holds the rows."""
    if execution.rows_folder is not None:
        return Path(execution.rows_folder)
    large = tree.num_bytes(struct) > _SHARE_OF_HOST * free_memory()
    return Path(tempfile.gettempdir()) if large else None
