"""Tables in plain text."""

from collections.abc import Collection, Sequence

__all__ = ["aligned"]


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
