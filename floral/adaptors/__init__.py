"""Adaptors: how the leaves of a params tree may change, in banks that clients mix.

Rules and params make a plan, a plan makes a bank of C adaptors, and a mixture over the bank is a
client's personal model: `merge` defines it, `adapted` computes it without building it.
"""

from floral.adaptors._additive import additive
from floral.adaptors._center import center, check_centers
from floral.adaptors._conv import conv
from floral.adaptors._low_rank import embedding, low_rank
from floral.adaptors._precondition import precondition
from floral.adaptors.bank import (
    add_adaptors,
    bank_parameters,
    concatenate,
    init_bank,
    merge,
    permute,
    remove_adaptors,
    select,
    truncate,
    weights_at,
)
from floral.adaptors.base import Adaptor, Bank, Factored, Op, Plan, Product, Rule, Weights
from floral.adaptors.fast.apply import AdaptedModel, adapt, adapted
from floral.adaptors.plan import PlanRow, format_table, make_plan, plan_table
from floral.adaptors.product import best_pair, best_pair_of_sum, factor_pairs
from floral.adaptors.similarity import cosines, likeness

__all__ = [
    "AdaptedModel",
    "Adaptor",
    "Bank",
    "Factored",
    "Op",
    "Plan",
    "PlanRow",
    "Product",
    "Rule",
    "Weights",
    "adapt",
    "adapted",
    "add_adaptors",
    "additive",
    "bank_parameters",
    "best_pair",
    "best_pair_of_sum",
    "center",
    "check_centers",
    "concatenate",
    "conv",
    "cosines",
    "embedding",
    "factor_pairs",
    "format_table",
    "init_bank",
    "likeness",
    "low_rank",
    "make_plan",
    "merge",
    "permute",
    "plan_table",
    "precondition",
    "remove_adaptors",
    "select",
    "truncate",
    "weights_at",
]
