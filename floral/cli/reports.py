"""The commands that read finished runs."""

import argparse

__all__ = ["report"]


def report(arguments: argparse.Namespace) -> int:
    from floral.reports.comparison import compare

    settings = {
        name: getattr(arguments, name) for name in ("against", "at", "number", "out", "figure")
    }
    print(compare(arguments.folders, **settings))
    return 0
