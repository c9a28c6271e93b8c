"""What can go wrong, by whose hand.

Everything is raised on the host before anything is compiled or trained. A message is one sentence
that names the place, the value given, what was expected and the nearest right answer.
"""

__all__ = ["ConfigError", "DataError", "FloralError", "PrivacyError", "SpecError"]


class FloralError(Exception):
    """The parent of every error that a user of floral can cause."""


class ConfigError(FloralError):
    """A config, an override or a run folder that does not say what it must."""


class SpecError(FloralError):
    """Parts that do not fit: a rule without a leaf, a model an algorithm cannot train."""


class DataError(FloralError):
    """Client data that cannot be trained on: a missing file, NaN, an empty client."""


class PrivacyError(FloralError):
    """A privacy promise that the parts as configured do not keep."""
