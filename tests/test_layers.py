"""Who may import whom: a module imports from the layers below its own and from its own folder.

So that parts meet only through types: a data set knows no algorithm, an algorithm no execution.
"""

import ast
import importlib
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import floral

ROOT = Path(floral.__file__).parent
LAYERS = (
    {
        "typing",
        "errors",
        "files",
        "check",
        "display",
        "tree",
        "branch",
        "first_argument",
        "random",
        "messages",
        "operations",
        "targets",
        "text_table",
    },
    {"losses", "mixtures", "models", "adaptors", "data", "metrics"},
    {"algorithms", "uplink"},
    {"simulate"},
    {"processes"},
    {"config"},
    {"records"},
    {"reports"},
    {"runs"},
    {"cli", "__init__", "__main__"},
)
BESIDE = {"adaptors": {"models"}}
"""What may be imported from the same layer; nothing else may, but in layers 0 and 5."""

HEAVY = {
    "datasets",
    "equinox",
    "matplotlib",
    "orbax",
    "pyarrow",
    "rich",
    "tensorflow_datasets",
}
"""Imported inside the functions that need them: most users never call those."""

MODULES = sorted(ROOT.rglob("*.py"))


def area(path):
    """The top-level module or folder that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def layer(name):
    (found,) = (index for index, names in enumerate(LAYERS) if name in names)
    return found


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(tree):
    """``(node, dotted name)`` of every import in a tree, of a module or of a name in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def areas_imported(path):
    for _, name in imported(parsed(path)):
        package, _, rest = name.partition(".")
        if package == "floral" and rest:
            yield rest.partition(".")[0]


def may_import(importer, imports):
    above, below = layer(importer), layer(imports)
    if importer == imports or below < above or imports in BESIDE.get(importer, ()):
        return True
    return below == above and above in (0, len(LAYERS) - 1)


def test_every_module_has_a_layer():
    assert {area(path) for path in MODULES} == set.union(*LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_layers_below(path):
    wrong = {name for name in areas_imported(path) if not may_import(area(path), name)}
    assert not wrong, f"{path.name} of layer {layer(area(path))} imports {wrong}"


@pytest.mark.parametrize(
    "package",
    sorted(ROOT.rglob("__init__.py")),
    ids=lambda path: str(path.parent.relative_to(ROOT)),
)
def test_no_module_is_hidden_by_a_name_that_its_folder_exports(package):
    if package.parent == ROOT:
        return  # its names are its modules
    dotted = ".".join(("floral", *package.parent.relative_to(ROOT).parts))
    exported = getattr(importlib.import_module(dotted), "__all__", ())
    modules = {path.stem for path in package.parent.iterdir() if path.name[0] not in "._"}
    assert not modules & set(exported)


def is_heavy(name):
    return name.partition(".")[0] in HEAVY


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_packages_are_imported_where_they_are_used(path):
    tree = parsed(path)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {node for function in functions for node in ast.walk(function)}
    heavy = [name for node, name in imported(tree) if node not in inside and is_heavy(name)]
    assert not heavy


def test_only_the_edge_reads_yaml():
    readers = {
        area(path) for path in MODULES for _, name in imported(parsed(path)) if name == "yaml"
    }
    assert readers == {"config"}


def loaded(code, names):
    """Which of the modules a new interpreter has loaded after some code."""
    code = f"import sys\n{code}\nprint(*[name for name in {sorted(names)} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return said.stdout.split()


def test_importing_floral_imports_nothing_heavy():
    names = HEAVY | {"jax", "flax", "numpy", "optax", "pydantic", "scipy"}
    assert loaded("import floral", names) == []


def test_using_the_library_imports_no_heavy_package():
    code = "import floral\nfor name in floral.__all__: getattr(floral, name)"
    assert loaded(code, HEAVY - {"rich"}) == []  # flax brings rich


def test_the_library_imports_only_what_its_core_installs_but_equinox():
    """What a core dependency needs itself is installed too, as pydantic-core is."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    core = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    theirs = [Requirement(line) for name in core for line in requires(name) or []]
    installed = core | {canonicalize_name(one.name) for one in theirs if one.marker is None}
    imports = {name.partition(".")[0] for path in MODULES for _, name in imported(parsed(path))}
    found = packages_distributions()
    beyond = {
        name
        for name in imports - {*sys.stdlib_module_names, "floral"}
        if not installed & {canonicalize_name(package) for package in found[name]}
    }
    assert beyond == {"equinox"}
