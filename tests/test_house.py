"""The house: who may import whom, which options kernels have, and what every public object tells its user."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import fastbp
from fastbp import reference
from fastbp.kernels.activations import ACTIVATIONS
from fastbp.kernels.losses import LOSSES
from fastbp.kernels.updates import UPDATES

# Floors of the house, from the top: a module imports from its own floor and from those below.
FLOORS = [
    ["fastbp", "fastbp.__main__"],
    ["fastbp.cli"],
    ["fastbp.demo"],
    ["fastbp.sklearn", "fastbp.nielsen", "fastbp.network", "fastbp.plotting"],
    ["fastbp.fitting"],
    ["fastbp.training", "fastbp.lbfgs", "fastbp.measures"],
    ["fastbp.session"],
    ["fastbp.callbacks"],
    ["fastbp.optimizers", "fastbp.inputs", "fastbp.targets"],
    ["fastbp.schedules"],
    ["fastbp.monitors"],
    ["fastbp.history"],
    ["fastbp.initializers", "fastbp.serialization", "fastbp.published"],
    ["fastbp.engine"],
    ["fastbp.architecture"],
    ["fastbp.arguments"],
    ["fastbp.kernels"],
]
HERMITS = ["fastbp.reference", "fastbp.datasets"]  # know nobody
ONLY = {  # what only some may import
    "numba": ["fastbp.kernels"],
    "llvmlite": ["fastbp.kernels"],
    "sklearn": ["fastbp.sklearn"],
    "fastbp.reference": ["fastbp.reference", "fastbp.demo"],
}
REQUIRED = {"numpy", "tqdm", "numba", "llvmlite"}  # what every installation has; anything else is imported late


def read_sources() -> dict[str, str]:
    """Return the source of every module of the installed package."""
    root = Path(fastbp.__file__).parent
    sources = {}
    for path in sorted(root.rglob("*.py")):
        parts = ("fastbp", *path.relative_to(root).with_suffix("").parts)
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return sources


SOURCES = read_sources()
TREES = {module: ast.parse(source) for module, source in SOURCES.items()}
PACKAGES = {module for module in SOURCES if any(other.startswith(module + ".") for other in SOURCES)}


def imports_of(module: str, tree: ast.AST, modules: set[str], packages: set[str]) -> Iterator[tuple[str, int]]:
    """Yield (imported module, line) wherever it stands: at the top, in a function, under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")[: None if module in packages else -1]
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield (inner if inner in modules else base), node.lineno


def all_imports() -> Iterator[tuple[str, str, str]]:
    """Yield (module, imported module, a place to look at) over the whole package."""
    for module, tree in TREES.items():
        for imported, line in imports_of(module, tree, set(SOURCES), PACKAGES):
            yield module, imported, f"{module}, line {line}: imports {imported}"


def is_within(module: str, package: str) -> bool:
    return module == package or (package != "fastbp" and module.startswith(package + "."))


def floor_of(module: str) -> int | None:
    found = [i for i, names in enumerate(FLOORS) if any(is_within(module, name) for name in names)]
    return found[0] if found else None


def is_own(module: str) -> bool:
    return module.split(".")[0] == "fastbp"


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """Return modules that import each other in a ring, or nothing."""
    finished: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return []
        for imported in sorted(graph.get(module, ())):
            if ring := visit(imported, [*path, module]):
                return ring
        finished.add(module)
        return []

    return next((ring for module in sorted(graph) if (ring := visit(module, []))), [])


def test_the_package_is_read():
    assert {"fastbp", "fastbp.network", "fastbp.engine.run", "fastbp.kernels.minibatch", "fastbp.reference"} < set(
        SOURCES
    )


def test_every_module_has_its_place():
    lost = [module for module in SOURCES if floor_of(module) is None and not any(is_within(module, h) for h in HERMITS)]
    assert not lost, "say in FLOORS of this test where they stand"


def test_imports_point_one_way():
    wrong = []
    for module, imported, place in all_imports():
        here, there = floor_of(module), floor_of(imported)
        if is_own(imported) and here is not None and there is not None and there < here and imported != "fastbp":
            wrong.append(place)
    assert not wrong


def test_only_the_front_imports_the_package_itself():
    front = ("fastbp.__main__", "fastbp.cli", "fastbp.demo")
    assert not [place for module, imported, place in all_imports() if imported == "fastbp" and module not in front]


@pytest.mark.parametrize("hermit", HERMITS)
def test_who_knows_nobody(hermit):
    wrong = [
        place
        for module, imported, place in all_imports()
        if is_within(module, hermit) and is_own(imported) and not is_within(imported, hermit)
    ]
    assert not wrong


@pytest.mark.parametrize("guarded", ONLY)
def test_who_alone_imports(guarded):
    wrong = [
        place
        for module, imported, place in all_imports()
        if is_within(imported, guarded) and not any(is_within(module, allowed) for allowed in ONLY[guarded])
    ]
    assert not wrong


def test_no_rings():
    graph: dict[str, set[str]] = {module: set() for module in SOURCES}
    for module, imported, _ in all_imports():
        if is_own(imported) and imported != module:
            graph[module].add(imported)
    assert cycle_in(graph) == []


def test_what_is_not_always_installed_is_imported_late():
    """At the top of a module stand only the standard library, what every installation has, and fastbp itself."""
    wrong = []
    for module, tree in TREES.items():
        if is_within(module, "fastbp.sklearn"):
            continue
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom) and not (isinstance(node, ast.ImportFrom) and node.level):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                for name in names:
                    root = str(name).split(".")[0]
                    if root not in {"fastbp", *REQUIRED, *sys.stdlib_module_names}:
                        wrong.append(f"{module}, line {node.lineno}: imports {name}")
    assert not wrong


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b", ["a.b"]),
        ("from fastbp import network", ["fastbp.network"]),
        ("from fastbp.network import Network", ["fastbp.network"]),
        ("if TYPE_CHECKING:\n    from fastbp.network import Network", ["fastbp.network"]),
        ("def f():\n    import numba", ["numba"]),
        ("from . import network", ["fastbp.network"]),
        ("from .network import Network", ["fastbp.network"]),
        ("from .kernels import layers", ["fastbp.kernels.layers"]),
    ],
)
def test_the_parser_of_imports(source, expected):
    modules = {"fastbp", "fastbp.network", "fastbp.kernels", "fastbp.kernels.layers", "fastbp.history"}
    packages = {"fastbp", "fastbp.kernels"}
    assert [name for name, _ in imports_of("fastbp.history", ast.parse(source), modules, packages)] == expected


def test_the_search_for_rings():
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": set(), "d": {"b", "c"}}) == []
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


# What kernels and all others must not do


def forbidden(tree: ast.AST) -> Iterator[str]:
    """Yield what loosens arithmetic, hands the loop to Numba's thread pool, or swallows everything."""
    for node in ast.walk(tree):
        line = f"line {getattr(node, 'lineno', 0)}: "
        if isinstance(node, ast.keyword) and node.arg in ("fastmath", "parallel"):
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                yield f"line {node.value.lineno}: {node.arg}="
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                loose = isinstance(key, ast.Constant) and key.value in ("fastmath", "parallel")
                if loose and not (isinstance(value, ast.Constant) and value.value is False):
                    yield line + ast.unparse(node)
        elif isinstance(node, ast.Name | ast.Attribute | ast.alias):
            name = {ast.Name: "id", ast.Attribute: "attr", ast.alias: "name"}[type(node)]
            if getattr(node, name).split(".")[-1] == "prange":
                yield line + "prange"
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            yield line + "bare except"


@pytest.mark.parametrize("module", TREES)
def test_nothing_forbidden(module):
    assert list(forbidden(TREES[module])) == []


@pytest.mark.parametrize(
    "source",
    [
        "njit(fastmath=True)",
        "njit(fastmath={'reassoc'})",
        "njit(parallel=True)",
        "OPTIONS = {'fastmath': True}",
        "from numba import prange",
        "for i in numba.prange(3): pass",
        "try:\n    f()\nexcept:\n    pass",
    ],
)
def test_what_is_forbidden_is_found(source):
    assert len(list(forbidden(ast.parse(source)))) == 1
    assert not list(
        forbidden(ast.parse("njit(fastmath=False, parallel=False)\ntry:\n    f()\nexcept OSError:\n    g()"))
    )


# The tables of kernels and of the reference have the same rows


def test_activations_have_a_twin_in_the_reference():
    assert list(ACTIVATIONS) == list(reference.ACTIVATIONS)
    assert sorted(row.code for row in ACTIVATIONS.values()) == list(range(len(ACTIVATIONS)))


def reference_takes(loss: str, output: str) -> bool:
    """Whether the reference's loss has a cost and a delta at that output."""
    z = np.array([[0.25, -0.5]])
    a, y = reference.ACTIVATIONS[output].sigma(z), np.array([[0.0, 1.0]])
    try:
        reference.LOSSES[loss].cost(z, a, y, output)
        reference.LOSSES[loss].delta(a, y, output)
    except ValueError:
        return False
    return True


def test_losses_have_a_twin_in_the_reference_and_go_with_the_same_outputs():
    assert list(LOSSES) == list(reference.LOSSES)
    for loss, outputs in LOSSES.items():
        assert set(outputs) == {output for output in reference.ACTIVATIONS if reference_takes(loss, output)}, loss


def test_updates_have_a_twin_in_the_reference_with_as_much_state():
    rows = {name: row.slots for name, row in UPDATES.items()}
    assert rows == {name: row.n_states for name, row in reference.UPDATES.items()}
    assert sorted(row.code for row in UPDATES.values()) == list(range(1, len(UPDATES) + 1))


# What a user reads

PUBLIC = [(name, getattr(fastbp, name)) for name in fastbp.__all__]
OBJECTS = [(name, item) for name, item in PUBLIC if not isinstance(item, ModuleType)]


def test_all_is_what_it_says():
    assert len(set(fastbp.__all__)) == len(fastbp.__all__)
    assert {"SGD", "Adam", "History", "Network", "datasets", "get_num_threads", "set_num_threads"} <= set(
        fastbp.__all__
    )
    for name, item in PUBLIC:
        if isinstance(item, ModuleType):
            assert item.__name__ == f"fastbp.{name}"
            assert set(item.__all__) <= set(dir(item))


@pytest.mark.parametrize(("name", "item"), OBJECTS, ids=[name for name, _ in OBJECTS])
def test_public_object_has_a_docstring_with_an_example(name, item):
    text = item.__doc__ or ""
    assert "Examples\n" in inspect.cleandoc(text), f"{name} shows no example"
    assert ">>> " in text


def public_members() -> Iterator[tuple[str, object]]:
    for name, item in PUBLIC:
        if isinstance(item, ModuleType):
            yield name, item
            yield from ((f"{name}.{inner}", getattr(item, inner)) for inner in item.__all__)
        elif inspect.isclass(item):
            for inner, member in vars(item).items():
                if not inner.startswith("_") and (callable(member) or isinstance(member, property | classmethod)):
                    yield f"{name}.{inner}", member


@pytest.mark.parametrize(("name", "item"), list(public_members()), ids=[name for name, _ in public_members()])
def test_public_member_has_a_docstring(name, item):
    assert inspect.getdoc(item), name


@pytest.mark.parametrize("module", [name for name in SOURCES if not name.endswith("__main__")])
def test_module_says_what_it_is(module):
    assert importlib.import_module(module).__doc__


@pytest.mark.parametrize("script", ["peers", "grid", "peak", "dependable"])
def test_measurements_can_be_imported(script):
    folder = Path(__file__).resolve().parents[1] / "asv_benchmarks"
    program = f"import sys; sys.path.insert(0, sys.argv[1]); import {script}; assert {script}.__doc__ and {script}.main"
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True, timeout=120)
