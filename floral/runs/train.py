"""The host loop: round, evaluate, record, save; and going on where a run stopped.

Several processes take the same steps: what each could decide for itself, the first decides.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from floral.config.build import Experiment
from floral.config.early_stopping import has_stopped
from floral.processes.agreement import anyone, broadcast_from_first, is_distributed, is_first
from floral.records import checkpoint, record
from floral.records.environment import (
    check_alike,
    check_config,
    check_data,
    describe_environment,
)
from floral.records.history import score, validation_scores
from floral.records.intact import read_environment
from floral.records.state import is_whole, keep_best, start_state
from floral.runs.assess import assess
from floral.runs.clocks import Clocks
from floral.runs.restarts import chosen_start
from floral.runs.round_line import round_line
from floral.runs.stopping import heeding_signals
from floral.runs.summary import summarize
from floral.simulate import SimulationState
from floral.typing import PyTree

_BLOCK_SECONDS = 0.5

__all__ = ["Interrupted", "Tick", "run_method"]

Tick = Callable[[int, Mapping[str, Any]], None]
"""``(rounds taken, numbers so far)``: called after every round."""


class Interrupted(KeyboardInterrupt):
    """The user stopped a run; its state is saved."""


def run_method(
    experiment: Experiment,
    folder: Path,
    *,
    source: PyTree = None,
    tick: Tick | None = None,
    evaluating: Callable[[int], None] = lambda taken: None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Runs one method from where its folder stands to its last round.

    Args:
      experiment: what is run.
      folder: the run folder, new or of an unfinished run.
      source: another run's server to start from.
      tick: told of every round.
      evaluating: told of the rounds taken before an evaluation begins.
      say: told, in a line, of what happens before the first.

    Returns:
      The summary, as ``summary.json`` has it.

    Raises:
      Interrupted: after Ctrl-C, once the state is saved.
      ConfigError: if the folder is of another experiment, or damaged.
    """
    checkpoints = folder / "checkpoints"
    check_alike(experiment)
    begun = broadcast_from_first(lambda: _opened(experiment, folder))
    if begun is None:
        start = chosen_start(experiment, folder, source, say)
        state = start_state(experiment, source, start=start)
    else:
        struct = jax.eval_shape(lambda: start_state(experiment))
        state = checkpoint.restore(checkpoints, begun, struct, experiment.simulator.new_table)
    record.cut_back(folder, _last_kept(begun))
    return _Loop(experiment, folder, tick, evaluating, state).run()


def _opened(experiment: Experiment, folder: Path) -> int | None:
    """The last saved round of a folder that is new, or of this experiment."""
    environment = describe_environment(experiment)
    if (folder / "environment.json").is_file():
        saved = read_environment(folder)
        check_config(saved, experiment.config, folder)
        check_data(saved, environment, folder)
    else:
        record.write_json(folder / "environment.json", environment)
    return checkpoint.latest_round(folder / "checkpoints")


def _last_kept(saved: int | None) -> int:
    """The last round whose lines are kept: without a checkpoint not even round 0's, which is
    recorded anew."""
    return saved or -1


class _Loop:
    """A run while it goes on: where it stands, what it has yet to write, when it wrote last."""

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        tick: Tick | None,
        evaluating: Callable[[int], None],
        state: SimulationState,
    ):
        self.experiment = experiment
        self.folder = folder
        self.tick = tick
        self.evaluating = evaluating
        self.state = state
        self.taken = int(state.round)
        self.saved = self.taken
        self.lines: list[dict[str, Any]] = []
        self.times: list[dict[str, Any]] = []
        self.clock = time.perf_counter()
        self.parts = Clocks()
        recorded = broadcast_from_first(lambda: record.read_lines(folder / "metrics.jsonl"))
        self.scores = validation_scores(recorded)
        self.pace: float | None = None  # seconds of a round without compilation, once one was taken

    def run(self) -> dict[str, Any]:
        stopped = False
        try:
            with heeding_signals(speak=is_first()) as asked, self.parts.running():
                self._evaluate_start()
                while not self._ended() and not stopped:
                    self._block()
                    stopped = anyone(asked()) and not self._ended()
        except KeyboardInterrupt:
            if is_distributed():  # the others are elsewhere, and none can save alone
                raise Interrupted(str(self.folder)) from None
            stopped = True
        if stopped:
            self._save_what_is_done()
            raise Interrupted(str(self.folder))
        return broadcast_from_first(lambda: summarize(self.experiment, self.folder, self.state))

    def _evaluate_start(self) -> None:
        """The line of round 0, if it is asked for: it is neither scored nor kept as the best."""
        if self.taken == 0 and self.experiment.evaluation.at_start:
            self.lines = [{"round": 0, "evaluation": self._evaluated(0)}]

    def _evaluated(self, taken: int) -> dict[str, Any]:
        """The numbers of an evaluation, whose table of clients is written."""
        self.evaluating(taken)
        with self.parts.of("evaluate"):
            numbers, table = assess(self.experiment, self.state)
        record.write_clients(self.folder, taken, table)
        return numbers

    def _block(self) -> None:
        """Rounds in one compiled call, up to the next that something is due after."""
        count = broadcast_from_first(self._rounds_at_once)
        with self.parts.of("train"):
            self.state, sums = self.experiment.simulator.rounds(self.state, count)
            sums = jax.tree.map(np.asarray, sums)  # waits for the rounds
        new = [round_line(self.taken + 1 + index, sums, index) for index in range(count)]
        taken = self.taken + count
        if self._due(taken, self.experiment.evaluation.every):
            numbers = new[-1]["evaluation"] = self._evaluated(taken)
            self.scores.append(broadcast_from_first(lambda: score(numbers)))
            self.state = keep_best(self.state, self.scores[-1])
        self._note(new)
        if self.tick is not None:
            for line in new:
                self.tick(line["round"], line)
        if self._due(taken, self._checkpoint_every) or self._ended():
            self._save()

    def _ended(self) -> bool:
        """Whether no round is left, or the validation score has stopped the run."""
        if self.taken >= self.experiment.rounds:
            return True
        return has_stopped(self.scores, self.experiment.stopping)

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
        record.cut_lines(self.folder, _last_kept(self.saved))
        if not is_whole(self.state):
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
        self.clock = now
        parts = self.parts.take()
        self.pace = parts.get("train", 0.0) / len(lines)
        times = [{"round": line["round"], "seconds": each, "train": self.pace} for line in lines]
        times[-1] |= {part: spent for part, spent in parts.items() if part != "train"}
        self.times += times
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
