"""From files and command lines to one resolved mapping of plain values."""
