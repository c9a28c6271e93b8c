"""The commands that train nothing: check, describe, plan, new, schema."""

import argparse

from floral.cli.train import chosen_methods, walks_file

__all__ = ["check", "describe", "new", "plan", "schema"]


def _built(arguments: argparse.Namespace):
    from floral.config.reading.resolve import read
    from floral.records.walks import recalled
    from floral.runs.prepare import build_all

    config = read(
        arguments.config,
        arguments.overrides,
        settings=chosen_methods(arguments),
        without=arguments.without or (),
    )
    return build_all(config, timings=lambda name: recalled(walks_file()))


def check(arguments: argparse.Namespace) -> int:
    from floral.reports.advice import facts_of, missing_splits
    from floral.reports.inspect import trace

    for name, experiment in _built(arguments).items():
        trace(experiment)
        print(f"{name}: ok")
        for line in missing_splits(facts_of(experiment)):
            print(f"{name}: {line}")
    return 0


def describe(arguments: argparse.Namespace) -> int:
    from floral.reports.inspect import described

    print(described(_built(arguments)))
    return 0


def plan(arguments: argparse.Namespace) -> int:
    from floral.reports.inspect import planned

    print(planned(_built(arguments)))
    return 0


def new(arguments: argparse.Namespace) -> int:
    import shutil
    import textwrap
    from pathlib import Path

    from floral.config.reading import packaged

    if arguments.file is None:
        said = packaged.summaries()
        name_width = max(map(len, said))
        width = max(shutil.get_terminal_size().columns - name_width - 2, 20)
        for name, sentence in said.items():
            print(f"{name:{name_width}}  {textwrap.shorten(sentence, width, placeholder='…')}")
        print(
            "\nfloral new mine.yaml --from NAME makes a file of your own; floral run NAME runs one"
        )
        return 0
    path = packaged.create(Path(arguments.file), arguments.source)
    print(f"{path}: a copy of {arguments.source}; floral run {path}")
    return 0


def schema(arguments: argparse.Namespace) -> int:
    import json

    from floral import check
    from floral.config import areas as places
    from floral.config.describe import config_schema, listing

    if arguments.area is None:
        print(json.dumps(config_schema(places.SCHEMA, places.EXPERIMENT), indent=2))
        return 0
    areas = {area.name: area for area in (places.EXPERIMENT, *places.AREAS)}
    check.one_of(areas, area=arguments.area)
    print(listing(places.SCHEMA, areas[arguments.area]))
    return 0
