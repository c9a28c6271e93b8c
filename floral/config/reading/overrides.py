"""Settings from the command line: ``algorithm.num_adaptors=8 adaptors.0.budget=1e-2``.

An override is a config file of one line: the dotted path says where, the rest is a YAML value,
and it is laid over the config by the same rule as a file that extends another.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from floral.config.reading.merge import merge
from floral.config.reading.yaml_file import read_value
from floral.errors import ConfigError

__all__ = ["Override", "Setting", "keywords", "override", "parse"]


class Override(NamedTuple):
    """One override: ``("adaptors", "0", "budget")`` and the text after the equals sign."""

    path: tuple[str, ...]
    text: str

    @property
    def place(self) -> str:
        return ".".join(self.path)

    @property
    def value(self) -> Any:
        """What the text means as YAML.

        Raises:
          ConfigError: if it means nothing.
        """
        if not self.text.strip():
            raise ConfigError(
                f"{self.place}=: there is no value; write {self.place}=null for none and "
                f"{self.place}=\"''\" for empty text"
            )
        return read_value(self.text, where=repr(f"{self.place}={self.text}"))


class Setting(NamedTuple):
    """One setting from Python: ``("algorithm", "num_adaptors")`` and its value."""

    path: tuple[str, ...]
    value: Any

    @property
    def place(self) -> str:
        return ".".join(self.path)


def parse(text: str) -> Override:
    """Splits ``path.to.setting=value`` at its first equals sign.

    Raises:
      ConfigError: if it is no text, there is no equals sign or a part of the path is empty.
    """
    if not isinstance(text, str):
        from floral.check import brief

        raise ConfigError(
            f"expected an override as 'rounds=2', got {brief(text)}; settings from Python are "
            "keywords, as rounds=2"
        )
    path, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{text!r} sets nothing; write {text.strip() or 'setting'}=value")
    return Override(_parts(path, f"{text!r} has an empty name before '='"), value)


def keywords(settings: Mapping[str, Any]) -> list[Setting]:
    """Settings given from Python, by dotted names: ``{"rounds": 2, "local.epochs": 1}``.

    Raises:
      ConfigError: if a part of a name is empty.
    """
    return [
        Setting(_parts(name, f"the keyword {name!r} has an empty part"), value)
        for name, value in settings.items()
    ]


def _parts(path: str, wrong: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in path.split("."))
    if not all(parts):
        raise ConfigError(f"{wrong}; write it as algorithm.num_adaptors=8")
    return parts


def override(
    mapping: Mapping[str, Any],
    texts: Iterable[str | Override | Setting],
    *,
    known: Collection[str] | None = None,
) -> dict[str, Any]:
    """The mapping with every override laid over it; the mapping itself is not changed.

    Their order does not matter, but for two that set the same place, where the later one wins:
    an outer place is set before an inner one, and a ``kind`` before its neighbours, so that
    changing a kind cannot drop what another override says.

    Args:
      mapping: the config so far.
      texts: overrides as written or as parsed, and settings from Python.
      known: the top-level keys there are; None lets every key pass.

    Raises:
      ConfigError: naming the override that is wrong.

    Example:
      >>> override({"algorithm": {"kind": "fedavg"}, "seed": 0}, ["seed=3", "algorithm.mu=1e-2"])
      {'algorithm': {'kind': 'fedavg', 'mu': 0.01}, 'seed': 3}
    """
    result = merge({}, mapping)
    for each in sorted(_parsed(texts), key=_outer_first):
        if known is not None and each.path[0] not in known:
            raise ConfigError(f"{each.place}: {_unknown(each.path[0], known)}")
        result = _laid_over(result, each.path, each.value, each)
    return result


def _parsed(texts: Iterable[str | Override | Setting]) -> list[Override | Setting]:
    return [text if isinstance(text, Override | Setting) else parse(text) for text in texts]


def _outer_first(each: Override | Setting) -> tuple[int, bool]:
    return len(each.path), each.path[-1] != "kind"


def _laid_over(current: Any, path: tuple[str, ...], value: Any, each: Override | Setting) -> Any:
    """``current`` with the value at the rest of the path."""
    if not path:
        if isinstance(current, Mapping) and isinstance(value, Mapping):
            return merge(current, value)
        return value
    name, rest = path[0], path[1:]
    above = ".".join(each.path[: len(each.path) - len(path)])
    if isinstance(current, list):
        index = _index(name, len(current), above, each)
        return [
            _laid_over(entry, rest, value, each) if i == index else entry
            for i, entry in enumerate(current)
        ]
    if current is None and name.isdecimal():
        raise ConfigError(f"{each.place}: {above} is no list, so it has no entry {name}")
    if current is not None and not isinstance(current, Mapping):
        raise ConfigError(f"{each.place}: {above} is {current!r}, so it has no setting {name!r}")
    # Merged rather than assigned, so that a new kind drops the settings of the old one.
    below = (current or {}).get(name)
    if not rest:
        return merge(current or {}, {name: value})
    return {**(current or {}), name: _laid_over(below, rest, value, each)}


def _index(name: str, length: int, above: str, each: Override | Setting) -> int:
    if not name.isdecimal():
        raise ConfigError(
            f"{each.place}: {above} is a list; expected the number of an entry, got {name!r}"
        )
    if int(name) >= length:
        entries = "is empty" if not length else f"has the entries 0 to {length - 1}"
        raise ConfigError(f"{each.place}: there is no entry {name}; {above} {entries}")
    return int(name)


def _unknown(name: str, known: Collection[str]) -> str:
    # check imports jax, which this layer does without until something is wrong.
    from floral.check import did_you_mean

    hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
    return f"no top-level key is called {name!r}{hint}"
