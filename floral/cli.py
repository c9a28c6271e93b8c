"""The command line: ``floral run | resume | launch | check | describe | plan | schema``.

Nothing but argparse is imported before a command is known, so that help answers at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0 done, 1 refused, 130 stopped by Ctrl-C."""
    arguments = _arguments(_parser(), argv)
    from floral.errors import FloralError

    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's own factories, as kind: my_module:factory
    try:
        if arguments.command is _launch:
            return _launch(arguments)
        if "jax" not in sys.modules:
            from floral.startup import prepare_jax, usable_cores

            prepare_jax(os.environ, cores=usable_cores())
        if arguments.command in (_run, _resume):
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


def _arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """As ``parse_args`` gives them, but overrides may follow an option, where argparse has done
    with them."""
    arguments, rest = parser.parse_known_args(argv)
    if not rest:
        return arguments
    overrides = getattr(arguments, "overrides", None)
    if overrides is None or any(text.startswith("-") for text in rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.overrides = [*overrides, *rest]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="floral",
        description="Personalized federated learning with mixtures of low-rank adaptors.",
        epilog="Overrides are dotted: floral run x.yaml algorithm.num_adaptors=8 seed=3",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="train a config's methods into a new run folder")
    _config_arguments(run)
    run.add_argument("--out", default="runs", help="where run folders are made (default: runs)")
    run.add_argument("--name", help="the run folder's name (default: the config's)")
    run.add_argument(
        "--profile", action="store_true", help="profile some rounds of each method, too"
    )
    run.set_defaults(command=_run)
    resume = commands.add_parser("resume", help="go on with a run that was stopped")
    resume.add_argument("folder", help="a run folder, as runs/quickstart")
    resume.add_argument("overrides", nargs="*", metavar="rounds=N", help="train longer")
    resume.set_defaults(command=_resume)
    launch = commands.add_parser(
        "launch",
        help="run or resume as several processes of this machine",
        description="Takes one run in several processes of this machine, each with its share of "
        "the cores and only its own clients' data in a round. Elsewhere no launcher is needed: "
        "floral run and floral resume join the other processes that SLURM, Open MPI, an indexed "
        "Kubernetes job or a TPU pod has started, or that JAX_NUM_PROCESSES, JAX_PROCESS_ID and "
        "JAX_COORDINATOR_ADDRESS name; JAX_NUM_PROCESSES=1 keeps a process alone.",
    )
    launch.add_argument("--processes", type=int, required=True, help="how many")
    launch.add_argument(
        "rest", nargs=argparse.REMAINDER, metavar="run|resume ...", help="as without launch"
    )
    launch.set_defaults(command=_launch)
    for name, command, words in (
        ("check", _check, "build everything and trace all shapes; train nothing"),
        ("describe", _describe, "the data, and for every parameter its adaptor"),
        ("plan", _plan, "parameters, bytes and memory of every method"),
    ):
        parser_of = commands.add_parser(name, help=words)
        _config_arguments(parser_of)
        parser_of.set_defaults(command=command)
    report = commands.add_parser(
        "report",
        help="runs of several seeds side by side, with intervals and paired differences",
        description="Prints Markdown: a table a task, runs that differ in their seeds in one row.",
    )
    report.add_argument("folders", nargs="+", help="run folders, as runs/quickstart")
    report.add_argument("--against", help="the method to subtract (default: the first)")
    report.add_argument(
        "--at",
        default="last",
        help="which evaluation counts: last, best (on validation data) or last_bin (default: last)",
    )
    report.add_argument(
        "--number",
        default="mean",
        help="over clients: mean, of_examples, worst_decile, p10, std, gini (default: mean)",
    )
    report.add_argument("--out", help="also write it to this file")
    report.set_defaults(command=_report)
    schema = commands.add_parser("schema", help="the JSON Schema of a config, or one area's kinds")
    schema.add_argument("area", nargs="?", help="list the kinds of one area, as algorithm")
    schema.set_defaults(command=_schema)
    return parser


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as seed=3")


def _run(arguments: argparse.Namespace) -> int:
    from floral.experiment.profile import Profiled
    from floral.experiment.progress import Console
    from floral.experiment.runs import run
    from floral.launch import tell_launcher

    console = Console(tell_launcher)
    return _reported(
        lambda: run(
            arguments.config,
            *arguments.overrides,
            out=arguments.out,
            name=arguments.name,
            walks=_walks(),
            progress=Profiled(console) if arguments.profile else console,
        )
    )


def _resume(arguments: argparse.Namespace) -> int:
    from floral.experiment.progress import Console
    from floral.experiment.runs import resume
    from floral.launch import tell_launcher

    return _reported(
        lambda: resume(
            arguments.folder,
            *arguments.overrides,
            progress=Console(tell_launcher),
            walks=_walks(),
        )
    )


def _walks():
    """The file that remembers what timed walks took."""
    from floral.startup import cache_folder

    return cache_folder(os.environ) / "walks.json"


def _launch(arguments: argparse.Namespace) -> int:
    from floral.launch import launch

    parser = _parser()
    if not arguments.rest or arguments.rest[0] not in ("run", "resume"):
        parser.error("launch: expected run or resume after --processes N")
    _arguments(parser, arguments.rest)  # what is wrong is said once
    return launch(arguments.rest, processes=arguments.processes)


def _reported(work) -> int:
    from rich.console import Console
    from rich.table import Table

    from floral.experiment.processes import is_first
    from floral.experiment.report import table_rows
    from floral.experiment.run import Interrupted

    try:
        result = work()
    except Interrupted as stopped:
        if is_first():
            print(f"\nstopped and saved; go on with: {_again()} {stopped}", file=sys.stderr)
        return 130
    if not is_first():
        return 0
    head, rows = table_rows(result.summaries)
    table = Table(title=str(result.folder))
    for index, title in enumerate(head):
        table.add_column(title, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
    print(f"report  {result.report}\nfigure  {result.figure}")
    return 0


def _again() -> str:
    """The command that goes on with a run as it was started."""
    from floral.launch import LAUNCH

    launched = (
        f"launch --processes {os.environ['JAX_NUM_PROCESSES']} " if LAUNCH in os.environ else ""
    )
    return f"floral {launched}resume"


def _built(arguments: argparse.Namespace):
    from floral.experiment.config import read
    from floral.experiment.prepare import build_all
    from floral.experiment.walks import recalled

    return build_all(
        read(arguments.config, arguments.overrides), timings=lambda name: recalled(_walks())
    )


def _check(arguments: argparse.Namespace) -> int:
    from floral.experiment.inspect import trace

    for name, experiment in _built(arguments).items():
        trace(experiment)
        print(f"{name}: ok")
    return 0


def _describe(arguments: argparse.Namespace) -> int:
    from floral.experiment.inspect import described

    print(described(_built(arguments)))
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from floral.experiment.inspect import planned

    print(planned(_built(arguments)))
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from floral.experiment.comparison import compare

    settings = {name: getattr(arguments, name) for name in ("against", "at", "number", "out")}
    print(compare(arguments.folders, **settings))
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    import json

    from floral import check
    from floral.experiment import places
    from floral.experiment.describe import config_schema, listing

    if arguments.area is None:
        print(json.dumps(config_schema(places.SCHEMA, places.EXPERIMENT), indent=2))
        return 0
    areas = {area.name: area for area in places.AREAS}
    check.one_of(areas, area=arguments.area)
    print(listing(places.SCHEMA, areas[arguments.area]))
    return 0
