"""From the words of a command line to its exit status."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from floral.cli.interrupts import heard_everywhere
from floral.cli.parser import parse
from floral.cli.train import launch, resume, run

__all__ = ["main"]

_PIPE_CLOSED = 128 + 13  # as a shell says of a program that SIGPIPE has ended


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0 done, 1 refused, 130 stopped by Ctrl-C.

    What is refused, by floral or by the system (a file that cannot be written), is one sentence on
    the standard error. Where nobody reads on, as after ``| head -1``, it is silent.
    """
    try:
        try:
            with heard_everywhere():
                return _answered(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return _PIPE_CLOSED


def _answered(argv: Sequence[str] | None) -> int:
    arguments = parse(argv)
    from floral.errors import FloralError

    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's own factories, as kind: my_module:factory
    try:
        if arguments.command is launch:
            return launch(arguments)
        if "jax" not in sys.modules:
            from floral.processes.startup import prepare_jax, usable_cores

            prepare_jax(os.environ, cores=usable_cores())
            _import_jax()
        if arguments.command in (run, resume):
            return _together(arguments)
        return arguments.command(arguments)
    except FloralError as error:
        print(f"floral: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        from floral.files import sentence

        print(f"floral: {sentence(error)}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"floral: there is too little memory: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("floral: stopped", file=sys.stderr)
        return 130


def _import_jax() -> None:
    """Raises ConfigError if a variable of the environment has a value that JAX does not know."""
    try:
        import jax  # noqa: F401
    except ValueError as error:
        from floral.errors import ConfigError

        raise ConfigError(f"the environment: {error}") from error


def _drop_output() -> None:
    """What is still to be written goes nowhere, so that nothing complains at the very end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a stream without a file, as a notebook's
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _together(arguments: argparse.Namespace) -> int:
    """Runs a command in this process and, where it was started with others, with them."""
    from floral.processes.startup import join_processes, partners

    found = partners(os.environ)
    if found is None:
        return arguments.command(arguments)
    from floral.processes.launch import LAUNCH, leave

    try:
        join_processes(found, launched=LAUNCH in os.environ)
        return arguments.command(arguments)
    except Exception as error:  # whatever it is: the others would wait for this process forever
        leave(error)
