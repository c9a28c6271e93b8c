"""The commands and their options."""

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from floral.cli import look, reports, train

__all__ = ["COMMANDS", "make_parser", "parse"]

COMMANDS = ("run", "resume", "launch", "check", "describe", "plan", "new", "report", "schema")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, with the command's function as ``command``.

    As ``parse_args``, but overrides may also follow an option, and what is missing or misspelt is
    answered with what to type.
    """
    parser = make_parser()
    words = sys.argv[1:] if argv is None else argv
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        near = get_close_matches(words[0], COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}"
        parser.error(f"no command is called {words[0]!r}; {hint}")
    arguments, rest = parser.parse_known_args(words)
    if rest:
        overrides = getattr(arguments, "overrides", None)
        if overrides is None or any(text.startswith("-") for text in rest):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        arguments.overrides = [*overrides, *rest]
    if getattr(arguments, "config", "") is None:
        arguments.parser.error(
            "which config? Name a YAML file or a packaged config, as quickstart; floral new lists "
            "those"
        )
    return arguments


class _Version(argparse.Action):
    """Prints the version, which is only looked up then."""

    def __call__(self, parser, namespace, values, option_string=None):
        import floral

        print(f"floral {floral.__version__}")
        parser.exit()


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="floral",
        description="Personalized federated learning with mixtures of low-rank adaptors.",
        epilog="Overrides are dotted: floral run quickstart algorithm.num_adaptors=8 seed=3",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and stop")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="train a config's methods into a new run folder")
    _config_arguments(run)
    run.add_argument("--out", default="runs", help="where run folders are made (default: runs)")
    run.add_argument("--name", help="the run folder's name (default: the config's)")
    run.add_argument(
        "--profile", action="store_true", help="profile some rounds of each method, too"
    )
    run.set_defaults(command=train.run)
    resume = commands.add_parser("resume", help="go on with a run that was stopped")
    resume.add_argument("folder", help="a run folder, as runs/quickstart")
    resume.add_argument("overrides", nargs="*", metavar="rounds=N", help="train longer")
    resume.set_defaults(command=train.resume)
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
    launch.set_defaults(command=train.launch)
    for name, command, words in (
        ("check", look.check, "build everything and trace all shapes; train nothing"),
        ("describe", look.describe, "the data, and for every parameter its adaptor"),
        ("plan", look.plan, "parameters, bytes and memory of every method"),
    ):
        parser_of = commands.add_parser(name, help=words)
        _config_arguments(parser_of)
        parser_of.set_defaults(command=command)
    new = commands.add_parser(
        "new",
        help="a config of your own from a packaged one; without a name, lists the packaged ones",
    )
    new.add_argument("file", nargs="?", help="the new file, as mine.yaml; never overwritten")
    new.add_argument(
        "--from",
        dest="source",
        default="quickstart",
        metavar="NAME",
        help="the packaged config to copy (default: quickstart)",
    )
    new.set_defaults(command=look.new)
    report = commands.add_parser(
        "report",
        help="runs side by side, over seeds and settings, with intervals and paired differences",
        description="Prints Markdown: a table a task, and in it a row for each method and for each "
        "of the settings in which its runs differ, with their seeds inside.",
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
    report.add_argument("--out", help="also write it to this file; LaTeX tables if it ends in .tex")
    report.add_argument(
        "--figure", help="also draw learning curves, with bands over seeds: a .png, .pdf or .svg"
    )
    report.set_defaults(command=reports.report)
    schema = commands.add_parser("schema", help="the JSON Schema of a config, or one area's kinds")
    schema.add_argument(
        "area",
        nargs="?",
        help="list the settings of the top level (experiment), or the kinds of one area, as "
        "algorithm",
    )
    schema.set_defaults(command=look.schema)
    return parser


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", nargs="?", help="a YAML file, or the name of a packaged config, as quickstart"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as seed=3")
    parser.add_argument("--only", metavar="A,B", help="only these of the config's methods")
    parser.add_argument("--without", metavar="A,B", help="all of the config's methods but these")
    parser.set_defaults(parser=parser)
