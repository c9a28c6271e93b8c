"""The commands that train nothing: check, describe, plan, schema."""

import argparse

from floral.cli.train import walks_file

__all__ = ["check", "describe", "plan", "schema"]


def _built(arguments: argparse.Namespace):
    from floral.experiment.config import read
    from floral.experiment.prepare import build_all
    from floral.experiment.walks import recalled

    return build_all(
        read(arguments.config, arguments.overrides), timings=lambda name: recalled(walks_file())
    )


def check(arguments: argparse.Namespace) -> int:
    from floral.experiment.inspect import trace

    for name, experiment in _built(arguments).items():
        trace(experiment)
        print(f"{name}: ok")
    return 0


def describe(arguments: argparse.Namespace) -> int:
    from floral.experiment.inspect import described

    print(described(_built(arguments)))
    return 0


def plan(arguments: argparse.Namespace) -> int:
    from floral.experiment.inspect import planned

    print(planned(_built(arguments)))
    return 0


def schema(arguments: argparse.Namespace) -> int:
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
