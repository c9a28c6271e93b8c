"""Build-time validation: every setting is checked by name, once, before anything is traced.

Each function takes its values as keywords, so that the message can name them:
``positive(learning_rate=-1.0)`` raises ``learning_rate must be positive, got -1.0``.
"""

from floral.check.arrays import array, numbers, per_example, same_structure
from floral.check.parts import globs, instance_of, mapping, one_of, path, takes
from floral.check.scalars import (
    boolean,
    in_range,
    non_negative,
    positive,
    positive_int,
    positive_ints,
    seed,
    whole,
)
from floral.check.words import brief, described, did_you_mean, nearest, shown

__all__ = [
    "MOST_CLUSTERS",
    "array",
    "boolean",
    "brief",
    "described",
    "did_you_mean",
    "globs",
    "in_range",
    "instance_of",
    "mapping",
    "nearest",
    "non_negative",
    "numbers",
    "one_of",
    "path",
    "per_example",
    "positive",
    "positive_int",
    "positive_ints",
    "same_structure",
    "seed",
    "shown",
    "takes",
    "whole",
]

MOST_CLUSTERS = 2**20
"""Clusters are counted in tables as long as their largest number, so that has a bound."""
