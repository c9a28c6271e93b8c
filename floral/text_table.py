"""Tables in plain text, and in Markdown."""

from collections.abc import Collection, Sequence

__all__ = ["aligned", "latex", "markdown"]


def aligned(rows: Sequence[Sequence[str]], *, numbers: Collection[int]) -> str:
    """The rows as lines, with columns as wide as their widest cell and two spaces between them.

    Args:
      rows: cells, as many in each row; the head is a row like any other.
      numbers: the columns whose cells stand to the right.

    Example:
      >>> print(aligned([("name", "bytes"), ("base", "1,024"), ("bank", "8")], numbers=[1]))
      name  bytes
      base  1,024
      bank      8
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return "\n".join(map(line, rows))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """A table in Markdown.

    Args:
      head: its titles.
      rows: cells, as many in each row.
      texts: how many of the first columns are texts; the others are numbers and stand to the right.

    Example:
      >>> print(markdown(["name", "bytes"], [["base", "1,024"]]))
      | name | bytes |
      | --- | ---: |
      | base | 1,024 |
    """
    rule = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))


def latex(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    r"""A table in LaTeX, for the package booktabs; titles and cells are escaped.

    Args:
      head: its titles.
      rows: cells, as many in each row.
      texts: how many of the first columns are texts; the others are numbers and stand to the right.

    Example:
      >>> print(latex(["name", "share"], [["low_rank", "5 %"]]))
      \begin{tabular}{lr}
      \toprule
      name & share \\
      \midrule
      low\_rank & 5 \% \\
      \bottomrule
      \end{tabular}
    """
    columns = "l" * texts + "r" * (len(head) - texts)
    first, *others = (" & ".join(map(_in_latex, line)) + r" \\" for line in (head, *rows))
    return "\n".join(
        (
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            first,
            r"\midrule",
            *others,
            r"\bottomrule",
            r"\end{tabular}",
        )
    )


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "_": r"\_",
        "#": r"\#",
        "$": r"\$",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": "$<$",
        "±": r"$\pm$",
        "–": "--",
        "`": "",
    }
)


def _in_latex(cell: str) -> str:
    return cell.translate(_LATEX)
