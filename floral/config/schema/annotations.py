"""From an annotation to what pydantic checks and to the words a message uses for it.

Pydantic does the checking; the words are ours, so that a message reads ``expected a number, got
'fast'`` and never names a Python type. YAML has already decided what is a number and what is text,
so nothing is coerced, but for whole numbers where any number will do.
"""

import math
import os
import types
from collections import abc
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BeforeValidator,
    Strict,
    ValidationError,
    WrapValidator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

PathKind: TypeAlias = Literal["", "path", "path or name"]

_NO_PATH: PathKind = ""

__all__ = ["FieldType", "field_type", "problem", "problems", "show"]


class FieldType(NamedTuple):
    """How one setting is checked and spoken of.

    Attributes:
      type: what pydantic validates.
      words: as in ``expected a number``.
      plural: as in ``expected a list of numbers``.
      parse: for a nested area, the function that reads its mapping; None for plain values.
      path: whether the value, or each entry of the list, is a file or folder; or may be a name.
    """

    type: Any
    words: str
    plural: str
    parse: Callable[[Any], Any] | None = None
    path: PathKind = ""


def field_type(annotation: Any, nested: Callable[[str], FieldType | None]) -> FieldType | None:
    """The type of a setting with this annotation; None if no YAML value can have it.

    Of a union only the members that YAML can express are kept: ``float | Schedule`` is a number
    in a file, and a schedule from Python.

    Args:
      annotation: a resolved annotation.
      nested: looks the name of a type up among the areas that produce one.
    """
    annotation = getattr(annotation, "__value__", annotation)  # a ``type X = ...`` alias
    area = nested(getattr(annotation, "__name__", ""))
    if area is not None:
        return area
    if annotation is Any:
        return FieldType(Any, "anything", "values")
    for scalar, plain in _SCALARS:
        if annotation is scalar:
            return plain
    origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if origin is os.PathLike:
        return _PATH
    if origin is Annotated:
        marked = _MARKED.get(str(arguments[1]))
        return marked or field_type(arguments[0], nested)  # bounds are the factory's to check
    if origin is Literal:
        options = " or ".join(map(show, arguments))
        return FieldType(_checked(annotation, options, arguments), options, options)
    if origin in (Union, types.UnionType):
        return _union([field_type(member, nested) for member in arguments])
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return _row([field_type(item, nested) for item in arguments])
    if origin in (list, tuple, abc.Sequence, abc.Collection, abc.Iterable):
        return _list(field_type(arguments[0] if arguments else Any, nested), origin)
    if origin in (dict, abc.Mapping, abc.MutableMapping):
        return _mapping(field_type(arguments[1] if arguments else Any, nested))
    return None


def problem(sentence: str, value: Any, *place: str | int) -> ValidationError:
    """An error that pydantic files under ``place`` inside whatever is being validated."""
    return problems([(place, sentence, value)])


def problems(found: Iterable[tuple[tuple[str | int, ...], str, Any]]) -> ValidationError:
    """Several at once, each as ``(place, sentence, value)``."""
    return ValidationError.from_exception_data(
        "floral",
        [
            InitErrorDetails(
                type=PydanticCustomError("floral", "{sentence}", {"sentence": sentence}),
                loc=place,
                input=value,
            )
            for place, sentence, value in found
        ],
    )


def show(value: Any) -> str:
    """A value as a message quotes it: null, true and false as in YAML, long ones shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _checked(base: Any, words: str, options: Iterable[Any] = ()) -> Any:
    def check(value: Any, validate: Callable[[Any], Any]) -> Any:
        try:
            return validate(value)
        except ValidationError:
            infinite = isinstance(value, float) and not math.isfinite(value)
            sentence = f"expected {'a finite number' if infinite else words}, got {show(value)}"
            raise problem(sentence + _suggestion(value, options), value) from None

    return Annotated[base, WrapValidator(check)]


def _suggestion(value: Any, options: Iterable[Any]) -> str:
    # check imports jax, which this layer does without until something is wrong.
    from floral.check import did_you_mean

    return did_you_mean(value, [option for option in options if isinstance(option, str)])


def _scalar(base: Any, words: str, plural: str) -> FieldType:
    return FieldType(_checked(Annotated[base, Strict()], words), words, plural)


def _bounded(plain: FieldType, low: float, high: float) -> FieldType:
    """The same within what arrays of 32 bits hold: beyond, numbers would be cut or overflow once
    they are used."""

    def check(value: Any) -> Any:
        if isinstance(value, int | float) and math.isfinite(value) and not low <= value <= high:
            bound = f"most {high}" if value > high else f"least {low}"
            raise problem(f"expected {plain.words} of at {bound}, got {show(value)}", value)
        return value

    return plain._replace(type=Annotated[plain.type, BeforeValidator(check)])


_INT = _scalar(int, "a whole number", "whole numbers")
_LARGEST = 2**31 - 1
_LARGEST_SEED = 2**32 - 1
_LARGEST_FLOAT = 3.4028234e38
_FLOAT = _scalar(Annotated[float, AllowInfNan(False)], "a number", "numbers")
_SEED = _bounded(_INT, 0, _LARGEST_SEED)
_PATH = _scalar(str, "a path", "paths")._replace(path="path")
_MARKED = {  # as floral.typing marks Seed and FileOrName
    "a seed": _SEED,
    "or a name": _PATH._replace(path="path or name", words="a path or a name"),
}
_SCALARS = (
    (bool, _scalar(bool, "true or false", "true or false")),
    (int, _bounded(_INT, -_LARGEST - 1, _LARGEST)),
    (float, _bounded(_FLOAT, -_LARGEST_FLOAT, _LARGEST_FLOAT)),
    (str, _scalar(str, "text", "texts")),
    (Path, _PATH._replace(type=Annotated[_PATH.type, AfterValidator(lambda text: Path(text))])),
    # Bare, so that pydantic sees ``X | None`` as a nullable X, whose errors are all X's own.
    (None, FieldType(None, "null", "null")),
    (types.NoneType, FieldType(None, "null", "null")),
)


def _union(members: list[FieldType | None]) -> FieldType | None:
    known = [member for member in members if member is not None]
    values = [member for member in known if member.words != "null"]
    if any(member.path for member in values):  # the text of a path, not any text
        values = [member for member in values if member.words != "text"]
        known = [member for member in known if member.words != "text"]
    if not values:
        return None
    words = " or ".join(member.words for member in [*values, *(set(known) - set(values))])
    plural = " or ".join(member.plural for member in values)
    every = Union[tuple(member.type for member in known)]  # noqa: UP007
    parse = next((member.parse for member in values if member.parse is not None), None)
    paths: list[PathKind] = [member.path for member in values if member.path]
    path = paths[0] if paths else _NO_PATH
    if len(values) == 1:  # the one type's own message is the most exact
        return FieldType(every, words, plural, parse, path)

    def choose(value: Any, validate: Callable[[Any], Any]) -> Any:
        if parse is not None and isinstance(value, Mapping):
            return parse(value)  # keeps the places of the errors inside it
        return validate(value)

    return FieldType(
        Annotated[_checked(every, words), WrapValidator(choose)], words, plural, parse, path
    )


def _list(item: FieldType | None, origin: Any) -> FieldType | None:
    if item is None:
        return None
    words = f"a list of {item.plural}"
    base = tuple[item.type, ...] if origin is tuple else list[item.type]
    plural = f"lists of {item.plural}"
    return FieldType(_container(base, words, (list, tuple)), words, plural, path=item.path)


def _row(items: list[FieldType | None]) -> FieldType | None:
    known = [item for item in items if item is not None]
    if len(known) < len(items):
        return None
    words = f"[{', '.join(item.words for item in known)}]"
    base = Annotated[tuple[tuple(item.type for item in known)], Strict(False)]
    return FieldType(_checked(base, words), words, f"rows of {words}")


def _mapping(value: FieldType | None) -> FieldType | None:
    if value is None:
        return None
    base = dict[Annotated[str, Strict()], value.type]
    return FieldType(_container(base, "a mapping", (Mapping,)), "a mapping", "mappings")


def _container(base: Any, words: str, accepted: tuple[type, ...]) -> Any:
    """Only the container itself is checked here: its entries keep their own places."""

    def check(value: Any) -> Any:
        if not isinstance(value, accepted):
            raise problem(f"expected {words}, got {show(value)}", value)
        return value

    return Annotated[Annotated[base, Strict(False)], BeforeValidator(check)]
