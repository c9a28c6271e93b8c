"""The configs that come with the package, by name: ``quickstart``, ``floral/mnist_rotate``.

In a source tree they stand in ``configs/`` at its top; a wheel carries the same folder inside the
package. A name is a file's path in that folder without its suffix.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import floral
from floral.errors import ConfigError
from floral.files import touching

__all__ = ["create", "found", "names", "summaries"]


def names() -> list[str]:
    """The names of all packaged configs that can be run, the quickstart first."""
    every = [name for name, text in _texts() if f"floral run configs/{name}.yaml" in text]
    return sorted(every, key=lambda name: (name.count("/"), name))


def summaries() -> dict[str, str]:
    """The first sentence of each config's head, by name."""
    texts = dict(_texts())
    return {name: _first_sentence(texts[name]) for name in names()}


def found(name: str) -> Path | None:
    """The file of a packaged config; None if there is none of that name.

    Args:
      name: as ``quickstart``, with or without its suffix.
    """
    folder = _folder()
    if folder is None or not re.fullmatch(r"\w+(/\w+)*(\.yaml)?", name):
        return None
    path = folder / f"{name.removesuffix('.yaml')}.yaml"
    return path if path.is_file() else None


def create(target: Path, name: str) -> Path:
    """Writes a packaged config as a file of the user's own, to be changed.

    Its head names the new file, and what it extends is named so that it is found from anywhere.

    Args:
      target: the file, which must not exist.
      name: of the packaged config.

    Returns:
      The file.

    Raises:
      ConfigError: if there is no such config, or the file cannot be made.
    """
    path, folder = found(name), _folder()
    if path is None or folder is None:
        from floral.check import did_you_mean

        hint = did_you_mean(name, names()) or f"; there are {', '.join(names())}"
        raise ConfigError(f"no packaged config is called {name!r}{hint}")
    if target.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{target}: a config is a YAML file; call it {target}.yaml")
    text = path.read_text(encoding="utf-8")
    own = path.relative_to(folder).as_posix()
    text = text.replace(f"floral run configs/{own}", f"floral run {target}")

    def by_name(line: re.Match[str]) -> str:
        parent = (path.parent / line[1]).resolve().relative_to(folder.resolve())
        return f"extends: {parent.with_suffix('').as_posix()}"

    text = re.sub(r"^extends: (\S+)", by_name, text, flags=re.MULTILINE)
    if target.exists():
        raise ConfigError(f"{target} exists already and is not overwritten")
    with touching(target, "write"), target.open("x", encoding="utf-8") as file:
        file.write(text)
    return target


def _folder() -> Path | None:
    package = Path(floral.__file__).parent
    installed, tree = package / "configs", package.parent
    if installed.is_dir():
        return installed
    return tree / "configs" if (tree / "pyproject.toml").is_file() else None


def _texts() -> Iterator[tuple[str, str]]:
    folder = _folder()
    if folder is None:
        return
    for path in sorted(folder.rglob("*.yaml")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        yield name, path.read_text(encoding="utf-8")


def _first_sentence(text: str) -> str:
    lines = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
    prose = " ".join(lines[lines.index("") + 1 :]) if "" in lines else ""
    return re.split(r"(?<=\.) ", prose, maxsplit=1)[0].rstrip(".")
