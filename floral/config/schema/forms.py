"""Areas, sections and the form that each kind's mapping has to fill in.

A form is made from signatures alone: the settings of the factory, then those of the area's
extras, as one pydantic model.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from floral.config.schema.annotations import FieldType, field_type, problem, problems
from floral.config.schema.signature import Factory, Parameter, parameters, summary
from floral.errors import SpecError

__all__ = ["UNSET", "Area", "Form", "Named", "Place", "Section", "imported", "make_form"]

UNSET: Any = object()
"""Stands for a default that is a Python object: the factory fills it in by itself."""


@dataclass(frozen=True, eq=False)
class Area:
    """A place in a config where one of several factories is chosen by its ``kind``.

    Attributes:
      name: what one of its products is called in a message, as ``algorithm``.
      load: gives the factories by kind; called when the area is first used, not before.
      extra: gives further callables whose keyword-only parameters share the mapping with every
        kind's own. Each takes what was made so far positionally and returns what it makes of it:
        ``def rule(adaptor, *, match: str) -> Rule``.
      ready: gives the types whose values may stand in a module in place of a factory.
    """

    name: str
    load: Callable[[], Mapping[str, Factory]]
    extra: Callable[[], Sequence[Factory]] = tuple
    ready: Callable[[], tuple[type, ...]] = tuple


@dataclass(frozen=True, eq=False)
class Named:
    """A place in a config where one of several functions is chosen by its name alone, as text.

    Attributes:
      name: what it is called in a message, as ``loss``.
      load: gives the functions by name; called when the place is first used. One's own is
        ``package.module:name``.
    """

    name: str
    load: Callable[[], Mapping[str, Factory]]


@dataclass(frozen=True, eq=False)
class Section:
    """A place in a config with the settings of one function, without a ``kind``.

    Attributes:
      name: what it is called in a message, as ``evaluate``.
      load: gives the function; called when the section is first used.
    """

    name: str
    load: Callable[[], Factory]


Place: TypeAlias = Area | Named | Section


class Form(NamedTuple):
    """Everything known of one kind.

    Attributes:
      kind: its name; None for a section.
      title: what a message calls it.
      summary: the first line of the factory's docstring.
      parts: the factory and the extras, each with the names of its own settings.
      fields: the settings, in order.
      python_only: settings that no YAML value can express; they keep their default.
      model: the pydantic model of the whole mapping.
    """

    kind: str | None
    title: str
    summary: str
    parts: tuple[tuple[Factory, tuple[str, ...]], ...]
    fields: Mapping[str, tuple[Parameter, FieldType]]
    python_only: frozenset[str]
    model: type[BaseModel]

    def read(self, mapping: Mapping[str, Any]) -> dict[str, Any]:
        """The checked settings, defaults included where a YAML value can express them.

        Raises:
          ValidationError: with the places relative to this mapping and our words as messages.
        """
        try:
            checked = self.model.model_validate(mapping)
        except ValidationError as error:
            raise self._in_words(error, mapping) from None
        values = {name: getattr(checked, _attribute(name)) for name in self.fields}
        return {name: value for name, value in values.items() if value is not UNSET}

    def _in_words(self, error: ValidationError, mapping: Mapping[str, Any]) -> ValidationError:
        found: list[tuple[tuple[str | int, ...], str, Any]] = []
        mistyped = {self._nearest(name) for name in mapping if name not in self._names}
        for detail in error.errors():
            place, name = detail["loc"], detail["loc"][-1]
            sentence = detail["msg"]
            if detail["type"] == "missing":
                if name in mistyped:
                    continue  # the misspelt line says it already
                sentence = f"{self.title} needs {self.fields[str(name)][1].words} here"
            elif detail["type"] in ("extra_forbidden", "invalid_key"):
                sentence = self._unknown(name)
            found.append((place, sentence, detail["input"]))
        return problems(found)

    @property
    def _names(self) -> tuple[str, ...]:
        return (*(("kind",) if self.kind is not None else ()), *self.fields)

    def _nearest(self, name: Any) -> str | None:
        # check imports jax, which this layer does without until something is wrong.
        from floral.check import nearest

        return nearest(name, self._names)

    def _unknown(self, name: Any) -> str:
        if name in self.python_only:
            return f"{self.title} takes {name!r} from Python only, not from a config"
        close = self._nearest(name)
        known = ", ".join(self._names) or "nothing"
        hint = f"did you mean {close!r}?" if close else f"it takes {known}"
        return f"{self.title} takes no {name!r}; {hint}"


def make_form(
    kind: str | None,
    title: str,
    factories: Sequence[Factory],
    nested: Callable[[str], FieldType | None],
    names: Sequence[str],
) -> Form:
    """The form of a factory (the first) and the extras that share its mapping.

    Args:
      kind: None for a section.
      title: what messages call it.
      factories: whose keyword-only parameters make up the mapping.
      nested: looks the name of a type up among the areas.
      names: all type names that ``nested`` knows.

    Raises:
      SpecError: if a parameter cannot be a setting: no annotation, a type that YAML cannot
        express and no default, a name taken twice.
    """
    fields: dict[str, tuple[Parameter, FieldType]] = {}
    parts: list[tuple[Factory, tuple[str, ...]]] = []
    python_only: set[str] = set()
    for factory in factories:
        own: list[str] = []
        for name, parameter in parameters(factory, names).items():
            if name in fields or name in python_only or (name == "kind" and kind is not None):
                raise SpecError(f"{title}: two parts of one mapping both take {name!r}")
            typed = field_type(parameter.annotation, nested)
            if typed is not None:
                fields[name] = (parameter, typed)
                own.append(name)
            elif parameter.required:
                raise SpecError(
                    f"{title}: the setting {name!r} has no default and its type "
                    f"{inspect.formatannotation(parameter.annotation)} cannot come from a config"
                )
            else:
                python_only.add(name)
        parts.append((factory, tuple(own)))
    return Form(
        kind,
        title,
        summary(factories[0]),
        tuple(parts),
        fields,
        frozenset(python_only),
        _make_model(kind, title, fields),
    )


def imported(path: str, *place: str, ready: tuple[type, ...] = ()) -> Factory:
    """The user's own factory behind ``package.module:name``.

    Args:
      path: the module and the name.
      place: what errors are filed under.
      ready: types whose values are taken as they are: the factory returns the value.

    Raises:
      ValidationError: if there is none.
    """
    from floral.check import did_you_mean

    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise problem(f"cannot import {module_name!r}: {error}", path, *place) from error
    factory = getattr(module, name, None)
    if isinstance(factory, ready):
        return lambda: factory
    if not callable(factory):
        found = "is not a function" if hasattr(module, name) else "does not exist"
        hint = did_you_mean(name, [known for known in vars(module) if known != name])
        raise problem(f"{name!r} {found} in {module_name!r}{hint}", path, *place)
    return cast(Factory, factory)


def _make_model(
    kind: str | None, title: str, fields: Mapping[str, tuple[Parameter, FieldType]]
) -> type[BaseModel]:
    definitions: dict[str, Any] = {}
    if kind is not None:
        definitions["kind_"] = (Literal[kind], Field(alias="kind"))
    for name, (parameter, typed) in fields.items():
        description = parameter.description or None
        field: Any
        if parameter.required:
            field = Field(alias=name, description=description)
        elif _is_plain(parameter.default):
            # Checked like a written value, so that a default comes out in the same form.
            field = Field(
                parameter.default, alias=name, description=description, validate_default=True
            )
        else:
            field = Field(default_factory=lambda: UNSET, alias=name, description=description)
        definitions[_attribute(name)] = (typed.type, field)
    config = ConfigDict(extra="forbid", protected_namespaces=())
    return create_model(title, __config__=config, **definitions)


def _attribute(name: str) -> str:
    return f"{name}_"  # a setting called ``copy`` or ``json`` must not hide a method of pydantic's


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, bool | int | float | str)
