"""What a factory's signature says: which settings it takes, of which type, and what they mean.

A factory takes wiring (other parts of the experiment) positionally and configuration by keyword
only. So its keyword-only parameters, their annotations and the ``Args:`` of its docstring are a
complete description of what a config may say, and no second one has to be kept in step.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeAlias

from floral.errors import SpecError

__all__ = [
    "Factory",
    "Parameter",
    "argument_descriptions",
    "exported",
    "parameters",
    "summary",
    "takes_wiring",
]

Factory: TypeAlias = Callable[..., Any]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Parameter(NamedTuple):
    """One setting of a factory.

    Attributes:
      annotation: its type, with strings already resolved.
      default: ``inspect.Parameter.empty`` where the setting is required.
      description: what the docstring says of it, on one line; empty if nothing.
    """

    annotation: Any
    default: Any
    description: str

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


def parameters(factory: Factory, names: Collection[str] = ()) -> dict[str, Parameter]:
    """The keyword-only parameters of a factory, in order.

    Args:
      factory: the function.
      names: type names that an annotation written as a string may use without its module
        importing them: a module that must not import jax can still say ``"Model | None"``.

    Raises:
      SpecError: if a keyword has no annotation or one that cannot be resolved.
    """
    described = argument_descriptions(factory)
    return {
        name: Parameter(
            _resolve(factory, name, given.annotation, names),
            given.default,
            _in_yaml(described.get(name, "")),
        )
        for name, given in inspect.signature(factory).parameters.items()
        if given.kind is inspect.Parameter.KEYWORD_ONLY
    }


def takes_wiring(factory: Factory) -> bool:
    """Whether a factory cannot be called before it is handed other parts positionally."""
    return any(
        given.kind in _POSITIONAL and given.default is inspect.Parameter.empty
        for given in inspect.signature(factory).parameters.values()
    )


def summary(factory: Factory) -> str:
    """The first line of a factory's docstring; empty if it has none."""
    return (inspect.getdoc(factory) or "").partition("\n")[0].strip()


def argument_descriptions(factory: Factory) -> dict[str, str]:
    """The ``Args:`` section of a Google-style docstring, each description on one line."""
    lines = (inspect.getdoc(factory) or "").splitlines()
    found: dict[str, str] = {}
    name, inside, indent = "", False, 0
    for line in lines:
        if not inside:
            inside = line.strip() == "Args:"
            continue
        if line.strip() and not line.startswith(" "):
            break  # the next section
        entry = re.match(r"( +)(\w+)(?: \([^)]*\))?: *(.*)", line)
        if entry and (not found or len(entry[1]) <= indent):
            indent, name = len(entry[1]), entry[2]
            found[name] = entry[3].strip()
        elif name and line.strip():
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def exported(module: str, *, returns: str) -> Callable[[], Mapping[str, Factory]]:
    """A loader of the factories in a module's ``__all__`` that return one type.

    Nothing is imported before the loader is called.

    Args:
      module: dotted name of the module.
      returns: name of the type; what is exported beside the factories (types, helpers) is told
        apart by its return annotation.

    Example:
      >>> loader = exported("fractions", returns="Fraction")
      >>> dict(loader())
      {}
    """

    def load() -> Mapping[str, Factory]:
        loaded = importlib.import_module(module)
        public = {name: getattr(loaded, name) for name in loaded.__all__}
        return {name: made for name, made in public.items() if _returns(made, returns)}

    return load


def _in_yaml(description: str) -> str:
    """A description as a reader of configs knows its words: no markup, null for None."""
    words = {"None": "null", "True": "true", "False": "false"}
    plain = description.replace("``", "")
    return re.sub(r"\b(None|True|False)\b", lambda word: words[word[0]], plain)


def _returns(candidate: Any, name: str) -> bool:
    if not inspect.isfunction(candidate):
        return False
    annotation = inspect.signature(candidate).return_annotation
    if isinstance(annotation, str):
        return annotation.rpartition(".")[2] == name
    return getattr(annotation, "__name__", None) == name


def _resolve(factory: Factory, name: str, annotation: Any, names: Collection[str]) -> Any:
    place = f"{getattr(factory, '__qualname__', factory)}: the setting {name!r}"
    if annotation is inspect.Parameter.empty:
        raise SpecError(f"{place} has no annotation, so a config cannot set it")
    if not isinstance(annotation, str):
        return annotation
    module = sys.modules.get(getattr(inspect.unwrap(factory), "__module__", ""))
    stand_ins = {known: type(known, (), {}) for known in names}
    try:
        # The module's own names win: a stand-in only fills the gap of an import it avoids.
        return eval(annotation, {**stand_ins, **(vars(module) if module else {})})
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise SpecError(
            f"{place} has the annotation {annotation!r}, which does not resolve: {error}"
        ) from error
