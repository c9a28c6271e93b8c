"""What a config may say, for an editor (JSON Schema) and for a reader (a listing)."""

from collections.abc import Iterator, Mapping
from typing import Any

from floral.config.schema.annotations import show
from floral.config.schema.arguments import Schema
from floral.config.schema.forms import Area, Form, Named, Place, Section

__all__ = ["config_schema", "json_schema", "listing"]


def config_schema(schema: Schema, whole: Section) -> dict[str, Any]:
    """The JSON Schema of a config file: as ``json_schema``, and it may extend another file.

    What a file must say may then be said by the other one.
    """
    made = json_schema(schema, whole)
    extends = {"type": "string", "description": "a file, beside this one, that this one changes."}
    return {
        **made,
        "properties": {"extends": extends, **made["properties"]},
        "required": [],
        "anyOf": [{"required": ["extends"]}, {"required": made["required"]}],
    }


def json_schema(schema: Schema, whole: Section) -> dict[str, Any]:
    """The JSON Schema of a whole config, from which an editor completes keys and kinds.

    Every area becomes one definition, a choice by ``kind``; every kind another. Loads the
    factories of all areas that the section leads to.

    Args:
      schema: the areas.
      whole: the section that describes the top level.
    """
    definitions: dict[str, Any] = {}
    top = _form_schema(schema.form(whole, None), waiting := [])
    while waiting:
        place = waiting.pop()
        if place.name not in definitions:
            definitions[place.name] = {}
            definitions.update(_place_schemas(schema, place, waiting))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": whole.name,
        **top,
        "$defs": dict(sorted(definitions.items())),
    }


def listing(schema: Schema, place: Place) -> str:
    """Every kind of an area with its settings, their defaults, types and meaning, as plain text."""
    return "\n\n".join(
        "\n".join(_listing_lines(schema.form(place, kind))) for kind in schema.kinds(place)
    )


def _place_schemas(schema: Schema, place: Place, waiting: list[Place]) -> Iterator[tuple[str, Any]]:
    if isinstance(place, Section):
        yield place.name, _form_schema(schema.form(place, None), waiting)
        return
    if isinstance(place, Named):
        names = {"enum": schema.kinds(place)}
        own = {"type": "string", "pattern": _PATTERN, "description": _OWN_FUNCTION}
        yield place.name, {"anyOf": [names, own]}
        return
    choices: list[dict[str, Any]] = []
    for kind in schema.kinds(place):
        name = f"{place.name}.{kind}"
        yield name, _form_schema(schema.form(place, kind), waiting)
        choices.append({"$ref": f"#/$defs/{name}"})
    own = {"kind": {"type": "string", "pattern": _PATTERN, "description": _OWN}}
    choices.append({"type": "object", "properties": own, "required": ["kind"]})
    yield place.name, {"oneOf": choices, "discriminator": {"propertyName": "kind"}}


_PATTERN = r"^[\w.]+:\w+$"
_OWN_FUNCTION = "A function of your own, as package.module:name."
_OWN = "A factory of your own, as package.module:name."


def _form_schema(form: Form, waiting: list[Place]) -> dict[str, Any]:
    made = _linked(form.model.model_json_schema(), waiting)
    return {**made, "description": form.summary} if form.summary else made


def _linked(node: Any, waiting: list[Place]) -> Any:
    """The schema with nested areas as references, and without pydantic's made-up titles."""
    if isinstance(node, list):
        return [_linked(item, waiting) for item in node]
    if not isinstance(node, Mapping):
        return node
    result = {}
    for key, value in node.items():
        if key == "place" and isinstance(value, Area | Named | Section):
            waiting.append(value)
            result["$ref"] = f"#/$defs/{value.name}"
        elif key == "properties":
            result[key] = {name: _linked(inner, waiting) for name, inner in value.items()}
        elif key in ("default", "const", "enum", "required"):
            result[key] = value
        elif not (key == "title" and isinstance(value, str)):
            result[key] = _linked(value, waiting)
    return result


def _listing_lines(form: Form) -> Iterator[str]:
    yield f"{form.title}  {form.summary}".replace("``", "").rstrip()
    rows = [
        (
            name if parameter.required else f"{name} = {_default(parameter.default)}",
            parameter,
            words,
        )
        for name, (parameter, (_, words, *_)) in form.fields.items()
    ]
    width = max((len(head) for head, _, _ in rows), default=0)
    for head, parameter, words in rows:
        required = ", required" if parameter.required else ""
        yield f"  {head:<{width}}  {words}{required}. {parameter.description}".rstrip()


def _default(value: Any) -> str:
    return show(list(value) if isinstance(value, tuple) else value)
