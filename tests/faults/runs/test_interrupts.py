"""Ctrl-C stops a command wherever it comes."""

import gc
import signal
import sys
import time

import pytest

from floral.cli import main
from floral.runs.train import Interrupted


def test_a_ctrl_c_amid_the_garbage_collector_stops_the_command(monkeypatch, capsys):
    """Python only prints what is raised there."""
    before = sys.unraisablehook
    left = 2

    def interrupt(phase, info):
        nonlocal left
        if phase == "start" and left:
            left -= 1
            signal.raise_signal(signal.SIGINT)

    def schema(arguments):
        for _ in range(200):
            gc.collect()
            time.sleep(0.01)
        return 0

    monkeypatch.setattr("floral.cli.look.schema", schema)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.callbacks.append(interrupt)
    try:
        assert main(["schema"]) == 130
    finally:
        gc.callbacks.remove(interrupt)
        signal.signal(signal.SIGINT, handler)
    assert capsys.readouterr().err == "floral: stopped\n"
    assert sys.unraisablehook is before


@pytest.mark.parametrize(
    ("made", "said"),
    [([], "stopped before anything was saved; go on with"), (["checkpoints"], "stopped and saved")],
    ids=["nothing saved", "saved"],
)
def test_a_stopped_run_says_whether_anything_was_saved(made, said, tmp_path, monkeypatch, capsys):
    def stopped(*arguments, **settings):
        for name in made:
            (tmp_path / name).mkdir()
        raise Interrupted(str(tmp_path))

    monkeypatch.setattr("floral.runs.run.run", stopped)
    assert main(["run", "quickstart"]) == 130
    assert said in capsys.readouterr().err
