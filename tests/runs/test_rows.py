"""Runs whose clients' rows live on the host: saved beside the checkpoint, restored to anywhere."""

import shutil

import jax
import numpy as np
import pytest

import floral
from floral.config.build import build
from floral.config.reading.resolve import methods, read
from floral.errors import ConfigError
from floral.records import checkpoint, rows
from floral.records.state import keep_best, start_state
from floral.reports.inspect import planned, trace
from floral.runs.prepare import build_all
from floral.runs.train import Interrupted

HOST = {"algorithm": {"kind": "local_adaptor"}, "execution": {"rows": "host"}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """``(config) -> folder`` of a run with rows on the host that nothing interrupts."""
    made = []

    def run(config):
        if not made:
            made.append(floral.run(config(**HOST), out=tmp_path_factory.mktemp("rows")).folder)
        return made[0]

    return run


def last(folder):
    taken = checkpoint.latest_round(folder / "checkpoints")
    saved = folder / "checkpoints" / "rows" / str(taken)
    return {path.name: path.read_bytes() for path in saved.iterdir()}


def test_resume_is_bitwise(whole, config, tmp_path, kept, watcher):
    """After interrupts at the first round, at an evaluation, and between two of them."""
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        floral.run(config(**HOST), out=tmp_path, name="run", progress=watcher(stop_at=1))
    for at in (4, 7):
        with pytest.raises(Interrupted):
            floral.resume(folder, progress=watcher(stop_at=at))
        assert at <= checkpoint.latest_round(folder / "checkpoints") < 10
    floral.resume(folder)
    assert kept(folder) == kept(whole(config))
    assert last(folder) == last(whole(config))


def test_a_run_keeps_the_rows_of_its_checkpoints_alone(whole, config):
    checkpoints = whole(config) / "checkpoints"
    assert {entry.name for entry in checkpoints.iterdir()} == {"10", "rows"}
    assert [entry.name for entry in (checkpoints / "rows").iterdir()] == ["10"]


def test_the_best_round_is_kept_and_read_back(whole, config, same):
    experiment, state = floral.load_run(whole(config), best=True)
    assert isinstance(state.table["round"], np.ndarray)
    assert 0 < int(state.round) == int(state.table["round"]) <= 10
    _, end = floral.load_run(whole(config))
    same(end.best.table, state.table)
    again, _ = experiment.simulator.round(end)
    same(end.best.table, state.table)  # which later rounds leave alone
    assert int(again.round) == 11


def one(config, rows):
    execution = {"rows": rows}
    (settings,) = methods(read(config(**{**HOST, "execution": execution}))).values()
    return build(settings)


@pytest.mark.parametrize(("saved", "restored"), [("host", "device"), ("device", "host")])
def test_rows_are_restored_wherever_they_now_live(saved, restored, config, tmp_path, same):
    before, after = (one(config, home) for home in (saved, restored))
    state, _ = before.simulator.rounds(start_state(before), 2)
    state, _ = before.simulator.rounds(keep_best(state, 0.5), 1)  # whose rows go on from the best
    checkpoint.save(tmp_path, state, keep=1)
    struct = jax.eval_shape(lambda: start_state(after))
    found = checkpoint.restore(tmp_path, 3, struct, after.simulator.new_table)
    for column in ("client", "uplink"):
        same(found.table[column], state.table[column])
        same(found.best.table[column], state.best.table[column])
    same((found.server, found.best.server), (state.server, state.best.server))
    now, best = (jax.tree.leaves(table["client"]) for table in (found.table, found.best.table))
    assert any(np.any(one != other) for one, other in zip(now, best, strict=True))
    assert (int(found.best.round), float(found.best.score)) == (2, 0.5)
    assert int(after.simulator.round(found)[0].round) == 4


def test_a_damaged_file_of_rows_is_named(whole, config, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole(config), folder)
    path = next((folder / "checkpoints/rows/10").glob("table.client.*"))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ConfigError, match="checkpoints/10: the checkpoint is damaged"):
        floral.load_run(folder)


def test_a_save_that_breaks_off_leaves_what_was_there(tmp_path, monkeypatch):
    columns = {"a": np.arange(4, dtype=np.float32), "b": np.ones((4, 2), np.float32)}
    rows.save_rows(tmp_path / "rows/3", columns)

    def broken(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(OSError, match="no space left"):
        rows.save_rows(tmp_path / "rows/3", jax.tree.map(np.zeros_like, columns))
    monkeypatch.undo()
    assert [entry.name for entry in (tmp_path / "rows").iterdir()] == ["3"]
    np.testing.assert_array_equal(rows.load_rows(tmp_path / "rows/3", columns)["a"], columns["a"])
    rows.drop_rows(tmp_path / "rows", [])
    assert not list((tmp_path / "rows").iterdir())


def test_every_dtype_of_rows_is_kept(tmp_path):
    columns = {
        "half": np.asarray(jax.numpy.arange(6, dtype=jax.numpy.bfloat16).reshape(3, 2)),
        "flags": np.array([True, False, True]),
        "counts": np.arange(3, dtype=np.int32),
        "nothing": np.zeros((3, 0), np.float32),
    }
    rows.save_rows(tmp_path / "1", columns)
    found = rows.load_rows(tmp_path / "1", columns)
    for name, column in columns.items():
        assert found[name].dtype == column.dtype
        np.testing.assert_array_equal(found[name], column)


def test_a_plan_is_made_and_a_round_is_traced(config):
    built = build_all(read(config(**HOST)))
    for experiment in built.values():
        trace(experiment)
    assert " kept " in planned(built)
