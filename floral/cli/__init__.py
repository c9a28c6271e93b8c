"""The command line: ``floral run | resume | launch | check | describe | plan | new | report |
schema``.

Nothing but argparse is imported before a command is known, so that help answers at once.
"""

from floral.cli.entry import main

__all__ = ["main"]
