"""The signature is the schema: from a mapping to a factory's arguments, with exact errors.

An `Area` is a choice among factories (``algorithm: {kind: fedprox, mu: 0.1}``), a `Section` one
function without a choice (``evaluate: {every: 10}``). A `Schema` knows which type is produced by
which area, so that a parameter annotated ``GradientTransformation | None`` is itself an area.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, ValidationError, WithJsonSchema

from floral.config.schema.annotations import FieldType, problem, show
from floral.config.schema.forms import Area, Form, Named, Place, Section, imported, make_form
from floral.config.schema.signature import Factory, takes_wiring
from floral.errors import ConfigError, SpecError

__all__ = ["Area", "Call", "Schema", "Section"]


class Call(NamedTuple):
    """A factory with its configuration, waiting for its wiring.

    What the factory refuses (SpecError, ValueError), and what it has no memory for, becomes a
    ConfigError that names the place.
    """

    factory: Factory
    settings: Mapping[str, Any]
    where: str

    def __call__(self, *wiring: Any) -> Any:
        try:
            return self.factory(*wiring, **self.settings)
        except (SpecError, ValueError, OverflowError, MemoryError) as error:
            raise ConfigError(f"{self.where}: {error}") from error


class _Filled(NamedTuple):
    """A form with its checked settings; a nested area's value is again one of these."""

    form: Form
    settings: Mapping[str, Any]


class Schema:
    """Reads mappings by the signatures of factories.

    Args:
      areas: by the name of the type that each produces: a keyword parameter annotated with that
        type is read as that area.

    Example:
      >>> def sgd(*, learning_rate: float, momentum: float = 0.0) -> str:
      ...     return f"sgd({learning_rate}, {momentum})"
      >>> optimizers = Area("optimizer", lambda: {"sgd": sgd})
      >>> schema = Schema({})
      >>> schema.validate(optimizers, {"kind": "sgd", "learning_rate": 1})
      {'kind': 'sgd', 'learning_rate': 1.0, 'momentum': 0.0}
      >>> schema.construct(optimizers, {"kind": "sgd", "learning_rate": 1})
      'sgd(1.0, 0.0)'
      >>> schema.validate(optimizers, {"kind": "sgd", "lerning_rate": 1})
      Traceback (most recent call last):
      floral.errors.ConfigError: optimizer.lerning_rate: sgd takes no 'lerning_rate'; did you mean
      'learning_rate'?
    """

    def __init__(self, areas: Mapping[str, Place]):
        places = set(areas.values())
        if len({place.name for place in places}) < len(places):
            raise SpecError("two areas have the same name, so messages would not tell them apart")
        self._types = {name: self._nested_type(place) for name, place in areas.items()}
        self._loaded: dict[Place, Mapping[str | None, Factory]] = {}
        self._forms: dict[tuple[Place, str | None], Form] = {}

    def validate(self, place: Place, mapping: Any, *, where: str | None = None) -> dict[str, Any]:
        """The mapping with every default written out, as plain lists, dicts and scalars.

        Validating the result again gives the same. A default that is a Python object is left out.

        Args:
          place: the area or section that the mapping belongs to.
          mapping: what the config says.
          where: prefix of the places in messages; the area's name if None, nothing if ``""``.

        Raises:
          ConfigError: with one line for each thing that is wrong.
        """
        return _plain(self._checked(place, mapping, where))

    def construct(self, place: Place, mapping: Any, *wiring: Any, where: str | None = None) -> Any:
        """What the chosen factory, then each extra, makes of the wiring and the mapping.

        Nested areas are made first. One whose factory needs wiring of its own arrives as a
        function of that wiring, since only the enclosing factory can provide it.

        Raises:
          ConfigError: if the mapping is wrong or a factory refuses it.
        """
        return _chain(self.bind(place, mapping, where=where))(*wiring)

    def bind(self, place: Place, mapping: Any, *, where: str | None = None) -> tuple[Call, ...]:
        """The factory and each extra with their settings, for a caller that wires them itself."""
        filled = self._checked(place, mapping, where)
        return _calls(filled, place.name if where is None else where)

    def paths(self, place: Place, mapping: Any) -> dict[tuple[str, ...], bool]:
        """Where a mapping names files and folders, as the annotations of its factories say.

        Returns:
          By place, as ``("data", "source", "path")``, whether the value may be a name as well. An
          entry of a list has its number as text.

        Raises:
          ConfigError: if the mapping is wrong.
        """
        return dict(_paths(self._checked(place, mapping, ""), ()))

    def kinds(self, place: Place) -> list[str | None]:
        """The kinds of an area in the order of its loader; of a section, None alone."""
        return list(self._factories(place))

    def form(self, place: Place, kind: str | None) -> Form:
        """What is known of one kind, or of a section under None.

        Raises:
          ValidationError: filed under ``kind``, if the area has no such kind.
        """
        if (place, kind) not in self._forms:
            factory = self._factories(place).get(kind)
            if factory is None and isinstance(kind, str) and ":" in kind:
                ready = place.ready() if isinstance(place, Area) else ()
                factory = imported(kind, "kind", ready=ready)
            if factory is None:
                known = [name for name in self._factories(place) if name is not None]
                raise problem(_unknown_kind(place, kind, known), kind, "kind")
            extra = place.extra() if isinstance(place, Area) else ()
            title = place.name if kind is None else kind
            self._forms[place, kind] = make_form(
                kind, title, [factory, *extra], self._types.get, list(self._types)
            )
        return self._forms[place, kind]

    def function(self, place: Named, name: Any) -> Factory:
        """The function of a name; one's own by ``package.module:name``.

        Raises:
          ValidationError: if there is none.
        """
        known = self._factories(place)
        if isinstance(name, str) and ":" in name:
            return imported(name)
        if not isinstance(name, str) or name not in known:
            raise problem(_unknown_kind(place, name, list(known)), name)
        return known[name]

    def _factories(self, place: Place) -> Mapping[str | None, Factory]:
        if place not in self._loaded:
            self._loaded[place] = (
                {None: place.load()} if isinstance(place, Section) else {**place.load()}
            )
        return self._loaded[place]

    def _nested_type(self, place: Place) -> FieldType:
        def parse(value: Any) -> _Filled:
            if isinstance(place, Named):
                self.function(place, value)
                return value
            return value if isinstance(value, _Filled) else self._fill(place, value)

        # Looked up by its name when the JSON Schema is put together: areas may nest in a circle.
        kind = Annotated[Any, BeforeValidator(parse), WithJsonSchema({"place": place})]
        if isinstance(place, Named):
            return FieldType(kind, f"the name of a {place.name}", f"names of {place.name}", parse)
        return FieldType(kind, f"a mapping for the {place.name}", f"{place.name} mappings", parse)

    def _fill(self, place: Place, mapping: Any) -> _Filled:
        """Raises ValidationError with places relative to the mapping."""
        if isinstance(place, Section):
            if not isinstance(mapping, Mapping):
                raise problem(f"expected a mapping, got {show(mapping)}", mapping)
            form = self.form(place, None)
            return _Filled(form, form.read(mapping))
        known = self.kinds(place)
        if not isinstance(mapping, Mapping):
            example = mapping if mapping in known else next(iter(known), "...")
            sentence = f"expected a mapping as {{kind: {example}}}, got {show(mapping)}"
            raise problem(sentence, mapping)
        if "kind" not in mapping:
            options = " or ".join(map(str, known))
            raise problem(f"say which {place.name}: {options}", mapping, "kind")
        kind = mapping["kind"]
        if not isinstance(kind, str):
            raise problem(_unknown_kind(place, kind, known), kind, "kind")
        form = self.form(place, kind)
        return _Filled(form, form.read(mapping))

    def _checked(self, place: Place, mapping: Any, where: str | None) -> _Filled:
        try:
            return self._fill(place, mapping)
        except ValidationError as error:
            prefix = place.name if where is None else where
            raise ConfigError(
                *(
                    f"{_join(prefix, *found['loc']) or place.name}: {found['msg']}"
                    for found in error.errors()
                )
            ) from None


def _unknown_kind(place: Place, kind: Any, known: list[Any]) -> str:
    # check imports jax, which this layer does without until something is wrong.
    from floral.check import did_you_mean

    hint = did_you_mean(kind, known) or f"; known are {', '.join(known)}"
    return f"no {place.name} is called {show(kind)}{hint}"


def _join(*place: str | int) -> str:
    return ".".join(str(part) for part in place if part != "")


def _plain(value: Any) -> Any:
    if isinstance(value, _Filled):
        kind = {} if value.form.kind is None else {"kind": value.form.kind}
        return {**kind, **{name: _plain(inner) for name, inner in value.settings.items()}}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return str(value) if isinstance(value, Path) else value


def _paths(value: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The places of paths in a form's settings, those of the areas inside it included."""
    if isinstance(value, _Filled):
        for name, inner in value.settings.items():
            kind = value.form.fields[name][1].path
            if kind and isinstance(inner, list | tuple):
                yield from (((*place, name, str(i)), kind != "path") for i in range(len(inner)))
            elif kind and inner is not None:
                yield (*place, name), kind != "path"
            else:
                yield from _paths(inner, (*place, name))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _paths(inner, (*place, str(index)))
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _paths(inner, (*place, name))


def _calls(filled: _Filled, where: str) -> tuple[Call, ...]:
    made = {name: _made(value, _join(where, name)) for name, value in filled.settings.items()}
    return tuple(
        Call(factory, {name: made[name] for name in own if name in made}, where)
        for factory, own in filled.form.parts
    )


def _made(value: Any, where: str) -> Any:
    if isinstance(value, _Filled):
        make = _chain(_calls(value, where))
        return make if takes_wiring(value.form.parts[0][0]) else make()
    if isinstance(value, list | tuple):
        return type(value)(_made(inner, _join(where, i)) for i, inner in enumerate(value))
    if isinstance(value, dict):
        return {name: _made(inner, _join(where, name)) for name, inner in value.items()}
    return value


def _chain(calls: tuple[Call, ...]) -> Callable[..., Any]:
    def make(*wiring: Any) -> Any:
        product = calls[0](*wiring)
        for extra in calls[1:]:
            product = extra(product)
        return product

    return make
