"""Rules meet params: which leaf has which adaptor, checked before anything is trained.

A plan that silently misses a layer trains the wrong thing for hours, so a rule that decides
nothing is an error, and so is an adaptor that does not fit its leaf.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from floral import check
from floral.adaptors.base import Adaptor, Plan, Rule
from floral.adaptors.suggest import fitting_kind, suggested_rules
from floral.errors import SpecError
from floral.text_table import aligned
from floral.tree import nearest_step, num_parameters, paths
from floral.typing import Params

__all__ = ["PlanRow", "format_table", "make_plan", "plan_table"]


_MAKER = "fl.adaptors.make_plan(rules, params)"


def make_plan(rules: Sequence[Rule], params: Params) -> Plan:
    """Gives every leaf the adaptor of the first rule that matches its whole path.

    Args:
      rules: in order of precedence. A rule with adaptor None leaves its leaves alone on purpose;
        leaves that no rule matches are left alone too.
      params: the tree to adapt, arrays or ShapeDtypeStructs.

    Raises:
      SpecError: if a rule is no regular expression, matches nothing, or matches only what earlier
        rules have taken; if an adaptor does not fit a leaf it is given.

    Example:
      >>> from floral.adaptors import Rule, additive, low_rank
      >>> params = {"Dense_0": {"kernel": jnp.ones((8, 4)), "bias": jnp.ones(4)}}
      >>> plan = make_plan([Rule(".*/kernel", low_rank(rank=2)), Rule(".*", additive())], params)
      >>> {path: adaptor.kind for path, adaptor in plan.adaptors.items()}
      {'Dense_0/bias': 'additive', 'Dense_0/kernel': 'low_rank'}
    """
    leaves = {path: _struct(leaf, path) for path, leaf in paths(params).items()}
    decided: dict[str, Rule] = {}
    for rule in _checked(rules):
        matched = _matches(rule, leaves)
        untaken = [path for path in matched if path not in decided]
        if not untaken:
            path = matched[0]
            raise SpecError(
                f"rule {rule.match!r} decides nothing: all its {len(matched)} parameters are taken "
                f"by earlier rules, {path!r} by {decided[path].match!r}"
            )
        decided |= dict.fromkeys(untaken, rule)
    adaptors = {
        path: adaptor
        for path in leaves
        if path in decided and (adaptor := decided[path].adaptor) is not None
    }
    for path, adaptor in adaptors.items():
        try:
            _check_fit(path, adaptor, leaves[path])
        except SpecError as error:
            if fitting_kind(leaves[path]) in (None, adaptor.kind.partition(" ")[0]):
                raise
            fitting = suggested_rules(params)
            raise SpecError(f"{error}; rules that fit these params: {fitting}") from error
    return Plan(adaptors=adaptors, leaves=leaves)


class PlanRow(NamedTuple):
    """One leaf of the params, as a plan treats it.

    Attributes:
      path: its path string.
      shape: its shape.
      adaptor: its adaptor's kind, ``-`` if it has none.
      rank: its adaptor's rank, None if it has none.
      parameters: what one adaptor trains there.
      share: the same as a share of the leaf's size.
      method: ``fast``, ``merged: why``, or ``-`` for leaves without an adaptor and where unknown;
        what is fast may be merged while the leaf itself is trained.
    """

    path: str
    shape: tuple[int, ...]
    adaptor: str
    rank: int | None
    parameters: int
    share: float
    method: str


def plan_table(plan: Plan, methods: Mapping[str, str] | None = None) -> list[PlanRow]:
    """One row a leaf, in the params' order.

    Args:
      plan: what to tabulate.
      methods: ``adapted(...).methods``, if known: how each adapted leaf is applied.
    """
    check.instance_of(Plan, _MAKER, plan=plan)
    if methods is not None:
        check.mapping("adapted(...).methods", methods=methods)
    return [_row(plan, path, dict(methods or {})) for path in plan.leaves]


def format_table(rows: Sequence[PlanRow]) -> str:
    """The rows as aligned plain text, with a line of totals.

    Example:
      >>> from floral.adaptors import Rule, low_rank
      >>> params = {"Dense_0": {"kernel": jnp.ones((8, 4)), "bias": jnp.ones(4)}}
      >>> print(format_table(plan_table(make_plan([Rule(".*/kernel", low_rank(rank=2))], params))))
      path            shape  adaptor   rank  parameters  share  method
      Dense_0/bias    4      -         -              0   0.0%  -
      Dense_0/kernel  8×4    low_rank  2             24  75.0%  -
      total                                          24  66.7%
    """
    size = sum(math.prod(row.shape) for row in rows)
    parameters = sum(row.parameters for row in rows)
    cells = [PlanRow._fields, *map(_cells, rows)]
    share = f"{parameters / max(size, 1):.1%}"
    cells.append(("total", "", "", "", f"{parameters:,}", share, ""))
    numbers = [PlanRow._fields.index(name) for name in ("parameters", "share")]
    return aligned(cells, numbers=numbers)


def _struct(leaf: Any, path: str) -> jax.ShapeDtypeStruct:
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        leaf = check.numbers(leaf, what=f"params: {path!r}")
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _checked(rules: Any) -> Sequence[Rule]:
    """The rules; SpecError unless they are a list of rules, each of an adaptor or None."""
    example = "[fl.adaptors.Rule('.*/kernel', fl.adaptors.low_rank(rank=2))]"
    if isinstance(rules, Rule) or not isinstance(rules, Sequence):
        raise SpecError(f"rules: expected a list, as {example}, got {check.described(rules)}")
    for rule in rules:
        if not isinstance(rule, Rule) or not isinstance(rule.match, str):
            raise SpecError(f"rules: expected rules, as {example}, got {check.described(rule)}")
        if rule.adaptor is not None and not isinstance(rule.adaptor, Adaptor):
            called = callable(rule.adaptor) and hasattr(rule.adaptor, "__name__")
            hint = f"; call it: {getattr(rule.adaptor, '__name__', '')}(...)" * called
            raise SpecError(
                f"rule {rule.match!r}: expected an adaptor, as fl.adaptors.low_rank(rank=2) makes, "
                f"or None, got {check.described(rule.adaptor)}{hint}"
            )
    return rules


def _matches(rule: Rule, leaves: Mapping[str, Any]) -> list[str]:
    try:
        pattern = re.compile(rule.match)
    except re.error as error:
        hint = _rule_hint(rule.match, leaves)
        raise SpecError(f"rule {rule.match!r} is no regular expression: {error}{hint}") from error
    matched = [path for path in leaves if pattern.fullmatch(path)]
    if not matched:
        hint = _rule_hint(rule.match, leaves)
        raise SpecError(f"rule {rule.match!r} matched none of {len(leaves)} parameters{hint}")
    return matched


def _rule_hint(match: str, leaves: Mapping[str, Any]) -> str:
    """A rule that matches, nearest to one that does not: tried before it is suggested."""
    steps = {step for path in leaves for step in path.split("/")}
    glob = re.sub(r"(?<![.\])])\*+", lambda stars: ".*" if len(stars[0]) > 1 else "[^/]*", match)
    spelt = "/".join(step if "*" in step else nearest_step(step, steps) for step in glob.split("/"))
    for text in (glob, spelt):
        for suggestion in (text, f".*/{text}", f"{text}/.*", f".*/{text}/.*"):
            try:
                pattern = re.compile(suggestion)
            except re.error:
                continue
            if suggestion != match and any(map(pattern.fullmatch, leaves)):
                return f"; did you mean {suggestion!r}?"
    return f"; there are {', '.join(list(leaves)[:5])}{', …' if len(leaves) > 5 else ''}"


def _check_fit(path: str, adaptor: Adaptor, leaf: jax.ShapeDtypeStruct) -> None:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise SpecError(
            f"{path!r} is of dtype {leaf.dtype}: an adaptor needs a floating-point leaf"
        )
    try:
        trained, fixed = jax.eval_shape(adaptor.init, jax.random.key(0), leaf)
    except SpecError as error:
        raise SpecError(f"{adaptor.kind} does not fit {path!r}: {error}") from error
    shape = jax.eval_shape(adaptor.delta, trained, fixed).shape
    if shape != leaf.shape:
        raise SpecError(
            f"{adaptor.kind} does not fit {path!r}: its delta has shape {shape}, "
            f"the leaf {leaf.shape}"
        )


def _row(plan: Plan, path: str, methods: Mapping[str, str]) -> PlanRow:
    leaf = plan.leaves[path]
    if path not in plan.adaptors:
        return PlanRow(path, tuple(leaf.shape), "-", None, 0, 0.0, "-")
    adaptor = plan.adaptors[path]
    trained, _ = jax.eval_shape(adaptor.init, jax.random.key(0), leaf)
    parameters = num_parameters(trained)
    return PlanRow(
        path=path,
        shape=tuple(leaf.shape),
        adaptor=adaptor.kind,
        rank=None if adaptor.rank is None else adaptor.rank(leaf),
        parameters=parameters,
        share=parameters / max(leaf.size, 1),
        method=methods.get(path, "-"),
    )


def _cells(row: PlanRow) -> tuple[str, ...]:
    return (
        row.path,
        "×".join(map(str, row.shape)) or "scalar",
        row.adaptor,
        "-" if row.rank is None else str(row.rank),
        f"{row.parameters:,}",
        f"{row.share:.1%}",
        row.method,
    )
