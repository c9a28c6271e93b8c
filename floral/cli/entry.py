"""From the words of a command line to its exit status."""

import argparse
import os
import sys
from collections.abc import Sequence

from floral.cli.parser import parse
from floral.cli.train import launch, resume, run

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0 done, 1 refused, 130 stopped by Ctrl-C."""
    arguments = parse(argv)
    from floral.errors import FloralError

    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's own factories, as kind: my_module:factory
    try:
        if arguments.command is launch:
            return launch(arguments)
        if "jax" not in sys.modules:
            from floral.startup import prepare_jax, usable_cores

            prepare_jax(os.environ, cores=usable_cores())
        if arguments.command in (run, resume):
            return _together(arguments)
        return arguments.command(arguments)
    except FloralError as error:
        print(f"floral: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("floral: stopped", file=sys.stderr)
        return 130


def _together(arguments: argparse.Namespace) -> int:
    """Runs a command in this process and, where it was started with others, with them."""
    from floral.startup import join_processes, partners

    found = partners(os.environ)
    if found is None:
        return arguments.command(arguments)
    from floral.launch import LAUNCH, leave

    try:
        join_processes(found, launched=LAUNCH in os.environ)
        return arguments.command(arguments)
    except Exception as error:  # whatever it is: the others would wait for this process forever
        leave(error)
