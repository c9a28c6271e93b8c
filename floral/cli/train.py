"""The commands that train: run, resume, launch."""

import argparse
import os
import sys
from pathlib import Path

__all__ = ["chosen_methods", "launch", "resume", "run", "walks_file"]


def run(arguments: argparse.Namespace) -> int:
    from floral.processes.launch import tell_launcher
    from floral.runs.profile import Profiled
    from floral.runs.progress import Console
    from floral.runs.run import run as train

    console = Console(tell_launcher)
    return _reported(
        lambda: train(
            arguments.config,
            *arguments.overrides,
            out=arguments.out,
            name=arguments.name,
            without=arguments.without or (),
            **chosen_methods(arguments),
            walks=walks_file(),
            progress=Profiled(console) if arguments.profile else console,
        )
    )


def resume(arguments: argparse.Namespace) -> int:
    from floral.processes.launch import tell_launcher
    from floral.runs.progress import Console
    from floral.runs.run import resume as go_on

    return _reported(
        lambda: go_on(
            arguments.folder,
            *arguments.overrides,
            progress=Console(tell_launcher),
            walks=walks_file(),
        )
    )


def chosen_methods(arguments: argparse.Namespace) -> dict[str, str]:
    """The setting that ``--only`` stands for."""
    return {} if arguments.only is None else {"only": arguments.only}


def walks_file():
    """The file that remembers what timed walks took."""
    from floral.processes.startup import cache_folder

    return cache_folder(os.environ) / "walks.json"


def launch(arguments: argparse.Namespace) -> int:
    from floral.cli.parser import make_parser, parse
    from floral.processes.launch import launch as start

    if not arguments.rest or arguments.rest[0] not in ("run", "resume"):
        make_parser().error("launch: expected run or resume after --processes N")
    parse(arguments.rest)  # what is wrong is said once
    return start(arguments.rest, processes=arguments.processes)


def _reported(work) -> int:
    from floral.processes.agreement import is_first
    from floral.records.record import has_begun
    from floral.reports.screen import show_end
    from floral.runs.train import Interrupted

    try:
        result = work()
    except Interrupted as stopped:
        if is_first():
            folder = Path(str(stopped))
            saved = any(map(has_begun, (folder, *folder.glob("*/"))))
            said = "stopped and saved" if saved else "stopped before anything was saved"
            print(f"\n{said}; go on with: {_again()} {folder}", file=sys.stderr)
        return 130
    if not is_first():
        return 0
    show_end(result.folder, result.summaries, report=result.report, figure=result.figure)
    return 0


def _again() -> str:
    """The command that goes on with a run as it was started."""
    from floral.processes.launch import LAUNCH

    launched = (
        f"launch --processes {os.environ['JAX_NUM_PROCESSES']} " if LAUNCH in os.environ else ""
    )
    return f"floral {launched}resume"
