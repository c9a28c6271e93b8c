"""What can go wrong, by whose hand.

Everything is raised on the host before anything is compiled or trained. A message is one sentence
that names the place, the value given, what was expected and the nearest right answer; an error of
several faults has one sentence for each.
"""

__all__ = ["ConfigError", "DataError", "FloralError", "PrivacyError", "SpecError"]

_LONGEST = 600


class FloralError(Exception):
    """The parent of every error that a user of floral can cause.

    Args:
      *sentences: what is wrong, one for each fault. Each is shown on one line of at most 600
        letters, whatever it quotes: line breaks become spaces, and a longer sentence loses its
        middle, so that the place at its start and the answer at its end remain.

    Example:
      >>> str(SpecError("rank must be one number, got [[1 2]\\n [3 4]]"))
      'rank must be one number, got [[1 2] [3 4]]'
    """

    def __init__(self, *sentences: object):
        super().__init__(*(_one_line(str(sentence)) for sentence in sentences))

    def __str__(self) -> str:
        return "\n".join(self.args)


class ConfigError(FloralError):
    """A config, an override or a run folder that does not say what it must."""


class SpecError(FloralError):
    """Parts that do not fit: a rule without a leaf, a model an algorithm cannot train."""


class DataError(FloralError):
    """Client data that cannot be trained on: a missing file, NaN, an empty client."""


class PrivacyError(FloralError):
    """A privacy promise that the parts as configured do not keep."""


def _one_line(sentence: str) -> str:
    text = " ".join(line.strip() for line in sentence.splitlines())
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2 - 2
    return f"{text[:half]} … {text[-half:]}"
