"""The host loop: round, evaluate, record, save; and going on where a run stopped.

Several processes take the same steps: what each could decide for itself, the first decides.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from floral import check
from floral.errors import ConfigError
from floral.experiment import checkpoint, record
from floral.experiment.assess import assess, score
from floral.experiment.build import Experiment
from floral.experiment.environment import (
    check_alike,
    check_config,
    check_data,
    describe_environment,
)
from floral.experiment.processes import anyone, is_first, several, told
from floral.experiment.stopping import heeding_signals
from floral.simulate import SimulationState
from floral.simulate.table import copy_table, is_current, on_host
from floral.typing import PyTree

_BLOCK_SECONDS = 0.5

__all__ = ["Best", "Interrupted", "Tick", "run_method", "start_state"]

Tick = Callable[[int, Mapping[str, Any]], None]
"""``(rounds taken, numbers so far)``: called after every round."""


class Interrupted(KeyboardInterrupt):
    """The user stopped a run; its state is saved."""


class Best(NamedTuple):
    """The snapshot that validated best.

    Attributes:
      round: int32; 0 if none has been taken.
      score: float32, minus infinity at first.
      server: the server at that round.
      table: the clients' rows at that round; on the host, the next one that is best goes over them.
    """

    round: jax.Array
    score: jax.Array
    server: PyTree
    table: PyTree


def start_state(experiment: Experiment, source: PyTree = None) -> SimulationState:
    """The state before the first round.

    Args:
      experiment: what is run.
      source: another run's server, whose base, bank or models this one starts from.
    """
    seed = experiment.config["seed"]
    state = experiment.simulator.init(jax.random.key(seed))
    if source is not None:
        state = state._replace(server=_adopt(state.server, source))
    validates = "validation" in experiment.dataset.splits
    if not validates:
        return state
    minus_infinity = jnp.asarray(-jnp.inf, jnp.float32)
    # Rows on the host may be too many to copy before there is need; nothing reads those of round 0.
    empty = None if isinstance(state.round, Tracer) else experiment.simulator.new_table
    table = _copied(state.table) if empty is None else empty()
    none_yet = jnp.zeros((), jnp.int32)
    return state._replace(best=Best(none_yet, minus_infinity, _copied(state.server), table))


def _adopt(server: Any, source: Any) -> Any:
    """The server with every model part that the source has too; optimizer states stay new."""
    parts = ("base", "bank", "fixed", "models", "params", "stats", "active")
    shared = [part for part in parts if hasattr(server, part) and hasattr(source, part)]
    if not {"base", "bank", "models", "params"} & set(shared):
        raise ConfigError(
            f"start_from: a {type(source).__name__} has no part that a "
            f"{type(server).__name__} could start from"
        )
    taken = {part: getattr(source, part) for part in shared}
    for part, values in taken.items():
        check.same_structure(getattr(server, part), values, what=f"start_from: {part}")
    return server._replace(**taken)


def run_method(
    experiment: Experiment, folder: Path, *, source: PyTree = None, tick: Tick | None = None
) -> dict[str, Any]:
    """Runs one method from where its folder stands to its last round.

    Args:
      experiment: what is run.
      folder: the run folder, new or of an unfinished run.
      source: another run's server to start from.
      tick: told of every round.

    Returns:
      The summary, as ``summary.json`` has it.

    Raises:
      Interrupted: after Ctrl-C, once the state is saved.
      ConfigError: if the folder is of another experiment, or damaged.
    """
    checkpoints = folder / "checkpoints"
    check_alike(experiment)
    begun = told(lambda: _opened(experiment, folder))
    if begun is None:
        state = start_state(experiment, source)
    else:
        struct = jax.eval_shape(lambda: start_state(experiment))
        state = checkpoint.restore(checkpoints, begun, struct, experiment.simulator.new_table)
    record.cut_back(folder, begun or 0)
    return _Loop(experiment, folder, tick, state).run()


def _opened(experiment: Experiment, folder: Path) -> int | None:
    """The last saved round of a folder that is new, or of this experiment."""
    environment = describe_environment(experiment)
    if (folder / "environment.json").is_file():
        saved = record.read_json(folder / "environment.json")
        check_config(saved, experiment.config, folder)
        check_data(saved, environment, folder)
    else:
        record.write_json(folder / "environment.json", environment)
    return checkpoint.latest_round(folder / "checkpoints")


class _Loop:
    """A run while it goes on: where it stands, what it has yet to write, when it wrote last."""

    def __init__(
        self, experiment: Experiment, folder: Path, tick: Tick | None, state: SimulationState
    ):
        self.experiment = experiment
        self.folder = folder
        self.tick = tick
        self.state = state
        self.taken = int(state.round)
        self.saved = self.taken
        self.lines: list[dict[str, Any]] = []
        self.times: list[dict[str, Any]] = []
        self.clock = time.perf_counter()
        self.pace: float | None = None  # seconds of a round, once one was taken that compiled not

    def run(self) -> dict[str, Any]:
        stopped = False
        try:
            with heeding_signals(speak=is_first()) as asked:
                while self.taken < self.experiment.rounds and not stopped:
                    self._block()
                    stopped = anyone(asked()) and self.taken < self.experiment.rounds
        except KeyboardInterrupt:
            if several():  # the others are elsewhere, and none can save alone
                raise Interrupted(str(self.folder)) from None
            stopped = True
        if stopped:
            self._save_what_is_done()
            raise Interrupted(str(self.folder))
        return told(self._summarize)

    def _block(self) -> None:
        """Rounds in one compiled call, up to the next that something is due after."""
        count = told(self._rounds_at_once)
        self.state, sums = self.experiment.simulator.rounds(self.state, count)
        sums = jax.tree.map(np.asarray, sums)  # waits for the rounds
        new = [_train_line(self.taken + 1 + index, sums, index) for index in range(count)]
        taken = self.taken + count
        if self._due(taken, self.experiment.evaluation.every):
            numbers, table = assess(self.experiment, self.state)
            self.state = _keep_best(self.state, told(lambda: score(numbers)))
            new[-1]["evaluation"] = numbers
            record.write_clients(self.folder, taken, table)
        self._note(new)
        if self.tick is not None:
            for line in new:
                self.tick(line["round"], line)
        if self._due(taken, self._checkpoint_every):
            self._save()

    def _rounds_at_once(self) -> int:
        """One while the pace is unknown, then about half a second's worth, so that progress is
        seen; never beyond a round after which something is due."""
        left = min(
            every - self.taken % every
            for every in (self.experiment.evaluation.every, self._checkpoint_every)
        )
        left = min(left, self.experiment.rounds - self.taken)
        if self.pace is None:
            return 1
        return max(1, min(left, int(_BLOCK_SECONDS / max(self.pace, 1e-6))))

    def _save_what_is_done(self) -> None:
        """After an interrupt, which may have come at any line above, also amid a save.

        Where it came amid rounds, their start is gone with the memory they took or the rows they
        wrote, and the run goes on from its last checkpoint.
        """
        record.cut_lines(self.folder, self.saved)
        if not _is_whole(self.state):
            return
        if int(self.state.round) == self.taken > self.saved:
            self._save()

    @property
    def _metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def _checkpoint_every(self) -> int:
        return self.experiment.checkpointing.every or self.experiment.evaluation.every

    def _due(self, taken: int, every: int) -> bool:
        return taken % every == 0 or taken == self.experiment.rounds

    def _note(self, lines: list[dict[str, Any]]) -> None:
        """Rounds are done once this has noted them: stopped before, they are taken again."""
        now = time.perf_counter()
        each = (now - self.clock) / len(lines)
        if self.times or self.saved < self.taken:  # all but the first block, which compiles
            self.pace = each
        self.clock = now
        self.times += [{"round": line["round"], "seconds": each} for line in lines]
        self.lines += lines
        self.taken = lines[-1]["round"]

    def _save(self) -> None:
        """First the lines, then the state: what a checkpoint knows is always recorded."""
        record.append_lines(self._metrics, self.lines)
        record.append_lines(self.folder / "timing.jsonl", self.times)
        keep = self.experiment.checkpointing.keep
        checkpoint.save(self.folder / "checkpoints", self.state, keep=keep)
        self.saved = self.taken
        self.lines, self.times = [], []

    def _summarize(self) -> dict[str, Any]:
        evaluations = {
            line["round"]: line["evaluation"]
            for line in record.read_lines(self._metrics)
            if "evaluation" in line
        }
        seconds = [line["seconds"] for line in record.read_lines(self.folder / "timing.jsonl")]
        best = int(self.state.best.round) if self.state.best else 0  # 0: nothing was ever validated
        summary = {
            "rounds": self.experiment.rounds,
            "seed": self.experiment.config["seed"],
            "last": evaluations[self.experiment.rounds],
            "best": {"round": best, **evaluations[best]} if best else None,
            "costs": self.experiment.simulator.costs._asdict(),
            "seconds": sum(seconds),
        }
        record.write_json(self.folder / "summary.json", summary)
        return record.read_json(self.folder / "summary.json")


def _train_line(taken: int, sums: Mapping[str, np.ndarray], index: int) -> dict[str, Any]:
    examples = int(sums["examples"][index])
    return {
        "round": taken,
        "train": {
            "loss": float(sums["loss_sum"][index]) / max(examples, 1),
            "examples": examples,
            "clients": int(sums["cohort"][index]),
        },
    }


def _keep_best(state: SimulationState, value: float | None) -> SimulationState:
    if value is None or not state.best:
        return state
    score_now = jnp.asarray(value, jnp.float32)
    if not score_now > state.best.score:  # both rounded alike: of equal rounds the first is best
        return state
    if on_host(state.table):
        table = state.best.table
        copy_table(state.table, into=table)
    else:
        table = _copied(state.table)
    return state._replace(best=Best(_copied(state.round), score_now, _copied(state.server), table))


def _copied(tree: PyTree) -> PyTree:
    """A copy, which the next rounds will not take the memory of."""
    return jax.tree.map(jnp.copy, tree)


def _is_whole(state: SimulationState) -> bool:
    """Whether no round has taken the state's memory or written its rows."""
    arrays = [leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)]
    if any(array.is_deleted() for array in arrays):
        return False
    best_is = not state.best or is_current(state.best.table, state.best.round)
    return best_is and is_current(state.table, state.round)
