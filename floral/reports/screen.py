"""What a person sees at the end of a run: five columns, advice, and where everything is."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from floral.reports.advice import advised, told_non_finite
from floral.reports.tables import headline_table

__all__ = ["show_end"]

_NARROW = 64  # columns; the wide table of methods with long names takes so many
_WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def show_end(
    folder: Path,
    summaries: Mapping[str, Mapping[str, Any]],
    *,
    report: Path,
    figure: Path,
    console: Any = None,
) -> None:
    """Prints the table, advice and paths, in whatever width there is.

    Args:
      folder: of the run.
      summaries: by method.
      report: where everything is, as Markdown.
      figure: where the picture is.
      console: a ``rich.console.Console``; None prints to standard output.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console() if console is None else console
    narrow = console.width < _NARROW
    head, rows = headline_table(summaries, narrow=narrow)
    table = Table(
        title=None if narrow else f"{folder}: means over clients, last round",
        title_justify="left",
        box=None if narrow else box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0) if narrow else (0, 1),
        pad_edge=False,
    )
    for index, title in enumerate(head):
        table.add_column(
            title,
            justify="left" if index == 0 else "right",
            no_wrap=index > 0,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for style, lines in (("bold", told_non_finite(summaries)), ("", advised(summaries))):
        for line in lines:
            said = textwrap.fill(
                line, console.width, initial_indent="- ", subsequent_indent="  ", **_WORDS
            )
            console.print(Text(said, style=style))
    # Paths are printed whole: a terminal breaks them where it must, and they can be copied.
    for what, place in (("report", report), ("figure", figure)):
        console.print(Text(f"{what}  {place}"), soft_wrap=True)
