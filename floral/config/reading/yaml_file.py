"""YAML files: read with one parent each, written whole or not at all.

The scalars are those of YAML 1.2: ``1e-3`` is a number (YAML 1.1, PyYAML's own, reads text) and
``on``, ``off``, ``yes``, ``no`` and ``1:30`` are text (YAML 1.1 reads true, false and 90). What is
written is quoted so that both versions read it back as what it was.

Source: YAML 1.2.2, section 10.3, the core schema.
"""

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from floral.config.reading import packaged
from floral.config.reading.merge import merge
from floral.errors import ConfigError
from floral.files import touching

__all__ = ["dump", "load", "read_value", "write_atomically"]

_SUFFIXES = (".yaml", ".yml")
_SCALARS = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012  (replaces PyYAML's table of scalars)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True  # two equal values are written twice: an anchor would tie them together


for _name, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_name}",
            re.compile(rf"^(?:{_pattern})$"),
            [*_first, ""] if _name == "null" else list(_first),  # no text at all is null
        )

# Read as text, but written in quotes: a reader of YAML 1.1 merges under a bare ``<<``.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Escaped between double quotes: PyYAML writes a bare U+0085 that reads back as a space.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    lines: dict[str, int] = {}
    result = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key == "<<" and key_node.style is None:
            raise _at(key_node, "merge keys (<<) are no YAML 1.2; use extends, or write them out")
        line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise _at(key_node, f"a key must be text, got {key!r}; quote it")
        if key in lines:
            raise _at(key_node, f"the key {key!r} is already on line {lines[key]}")
        lines[key] = line
        result[key] = loader.construct_object(value_node, deep=True)
    return result


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(node.value)
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _at(node: yaml.Node, message: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=message, problem_mark=node.start_mark)


_CONSTRUCTORS: dict[str | None, Any] = {
    "tag:yaml.org,2002:map": _construct_mapping,
    # Built in one go, unlike PyYAML's own: so an alias inside its own anchor is an error.
    "tag:yaml.org,2002:seq": lambda loader, node: loader.construct_sequence(node, deep=True),
    "tag:yaml.org,2002:str": yaml.SafeLoader.construct_yaml_str,
    "tag:yaml.org,2002:null": yaml.SafeLoader.construct_yaml_null,
    "tag:yaml.org,2002:bool": yaml.SafeLoader.construct_yaml_bool,
    "tag:yaml.org,2002:int": _construct_int,
    "tag:yaml.org,2002:float": yaml.SafeLoader.construct_yaml_float,
    None: yaml.SafeLoader.construct_undefined,  # dates, sets and objects have no place here
}
_Loader.yaml_constructors = _CONSTRUCTORS


def read_value(text: str, *, where: str) -> Any:
    """The value that a piece of YAML stands for.

    Args:
      text: YAML, as ``0.1`` or ``{kind: sgd}``.
      where: what a message calls the text: an override, or a file.

    Raises:
      ConfigError: if it is not YAML, with the line if there are several.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None and "\n" in text.strip() else ""
        said = error.problem or error.context
        raise ConfigError(f"{where}{line}: not YAML: {said}") from error
    except RecursionError as error:
        raise ConfigError(f"{where}: not YAML that can be read: it is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise ConfigError(f"{where}: not YAML: {said}") from error


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping in a file, laid over that of the file it ``extends``.

    ``extends`` names one file, relative to the file that says so, or a packaged config; the key
    itself is gone from the result. `floral.config.reading.merge.merge` says how it is laid over.

    Args:
      path: a file, or the name of a packaged config, as ``quickstart``. A file comes first.

    Raises:
      ConfigError: if a file is missing, a folder, empty, no mapping, not YAML, or extends itself.
    """
    return _load(_located(Path(path), str(path)), ())


def _load(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in [child.resolve() for child in children]:
        chain = " -> ".join(map(str, (*children, path)))
        raise ConfigError(f"{children[0]}: a config cannot extend itself: {chain}")
    mapping = _read_file(path, children[-1] if children else None)
    parent = mapping.pop("extends", None)
    if parent is None:
        return mapping
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: extends: expected the path of one file, got {parent!r}")
    return merge(_load(_located(path.parent / parent, parent), (*children, path)), mapping)


def _located(path: Path, name: str) -> Path:
    """The file itself; where there is none, the packaged config of that name if there is one."""
    packaged_file = None if path.is_file() else packaged.found(name)
    return path if packaged_file is None else packaged_file


def _read_file(path: Path, child: Path | None) -> dict[str, Any]:
    said = f"{child}: extends:" if child else f"{path}:"
    if path.is_dir():
        raise ConfigError(f"{said} {str(path)!r} is a folder, not a YAML file{_inside(path)}")
    if not path.is_file():
        raise ConfigError(f"{said} there is no file {str(path)!r}{_nearest_file(path)}")
    try:
        with touching(path, "read"):
            text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text: {error}") from error
    value = read_value(text, where=str(path))
    if value is None:
        raise ConfigError(f"{path}: the file is empty; it must be a mapping, as 'seed: 0'")
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: the file must be a mapping, as 'seed: 0', got {value!r:.60}")
    return value


def _inside(folder: Path) -> str:
    """A config in a folder, or what a run folder is for."""
    if (folder / "config.yaml").is_file():
        return f"; did you mean {str(folder / 'config.yaml')!r}, or floral resume {folder}?"
    return ""


def _nearest_file(path: Path) -> str:
    # check imports jax, which this layer does without until something is wrong.
    from floral.check import nearest

    beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    known = {
        **{f"{name}.yaml": f"the packaged config {name!r}" for name in packaged.names()},
        **{
            file.name: repr(str(path.parent / file.name))
            for file in beside
            if file.suffix in _SUFFIXES
        },
    }
    name = path.name if path.suffix in _SUFFIXES else f"{path.name}.yaml"
    found = nearest(name, known, cutoff=0.7)
    if found:
        return f"; did you mean {known[found]}?"
    missing = "" if path.parent.is_dir() else f"; nor is there a folder {str(path.parent)!r}"
    return f"{missing}; floral new lists the packaged configs"


def dump(mapping: dict[str, Any]) -> str:
    """YAML that reads back as the same mapping: keys in their order, innermost ones on one line.

    Example:
      >>> print(dump({"seed": 0, "local": {"kind": "sgd", "learning_rate": 0.1}}), end="")
      seed: 0
      local: {kind: sgd, learning_rate: 0.1}
    """
    return yaml.dump(
        mapping,
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=None,
        allow_unicode=True,
        width=100,
    )


def write_atomically(path: str | os.PathLike[str], text: str | bytes) -> None:
    """Writes a file so that whoever reads it finds the old text or the new one, never a part.

    The text goes to a temporary name in the same folder, onto the disk, then takes the file's
    name in one step; a crash leaves at worst the temporary file.

    Raises:
      FileError: if it cannot be written, with the reason.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    with touching(target, "write"):
        try:
            with temporary.open("xb") as file:
                file.write(text.encode("utf-8") if isinstance(text, str) else text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name itself is only then on the disk
        finally:
            os.close(folder)
