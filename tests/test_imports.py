"""Who may import whom: imports point down, there is no circle, and what must start fast imports
nothing heavy.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import hssl_search.errors

PACKAGE = Path(hssl_search.errors.__file__).parent

LAYERS = [
    {"errors", "version", "bundled", "configfile", "output", "interrupts", "scratch"},
    {"heads", "backbones", "data"},
    {"methods", "evaluation", "discrepancy", "spaces"},
    {"training"},
    {"engine"},
    {"reporting", "export"},
    {"", "api", "cli", "session", "__main__"},
]
"""The files and folders of the package, lowest first; "" is `hssl_search/__init__.py`, the public
API."""

DECISIONS = (
    "engine.controller",
    "engine.phases",
    "engine.planning",
    "engine.candidates",
    "engine.statistics",
    "engine.budget",
    "engine.verdict",
    "engine.execution.jobs",
    "engine.execution.machine",
)
"""What decides, and is tested in milliseconds: it needs neither ray nor torch."""

HEAVY = {"torch", "torchvision", "timm", "ray", "optuna", "pandas", "pyarrow", "plotly", "sklearn"}


def layer(unit: str) -> int:
    return next((index for index, units in enumerate(LAYERS) if unit in units), len(LAYERS))


@cache
def modules() -> dict[str, Path]:
    """Return every module of the package by its name within it: `engine.planning.plan`; a folder's
    `__init__` has the folder's name.
    """
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(node: ast.AST) -> Iterator[str]:
    """Yield the modules of the package that a statement imports, by their names within it; a bare
    `import hssl_search` only asks where it is.
    """
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [
            f"{node.module}.{alias.name}" for alias in node.names if alias.name != "__version__"
        ]
    for name in names:
        top, _, rest = name.partition(".")
        if top == PACKAGE.name and rest:
            yield rest if rest in modules() else rest.rpartition(".")[0]


def statements(node: ast.AST, deferred: bool) -> Iterator[ast.AST]:
    """Yield everything below a node; without `deferred`, only what runs when the module is
    imported.
    """
    for child in ast.iter_child_nodes(node):
        in_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        if deferred or not (in_function or for_types):
            yield child
            yield from statements(child, deferred)


def imports(module: str, deferred: bool) -> set[str]:
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
    return {name for node in statements(tree, deferred) for name in imported(node)} - {module}


def unit(module: str) -> str:
    return module.partition(".")[0]


def loaded_after(code: str) -> set[str]:
    """Return the names of the top-level modules that a fresh interpreter has loaded after running
    the code.
    """
    command = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent)
    assert run.returncode == 0, run.stderr
    return {name.partition(".")[0] for name in run.stdout.split()}


def decisions() -> list[str]:
    return [name for name in modules() if name.startswith(DECISIONS)]


def test_every_file_and_folder_has_a_layer() -> None:
    known = set().union(*LAYERS)
    assert {unit(module) for module in modules()} <= known, "say in LAYERS where the new one stands"


@pytest.mark.parametrize("module", modules())
def test_imports_point_down(module: str) -> None:
    upwards = {
        name for name in imports(module, deferred=True) if layer(unit(name)) > layer(unit(module))
    }
    assert not upwards, f"hssl_search.{module} imports from a layer above it"


def test_no_folders_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for module in modules():
        graph.setdefault(unit(module), set()).update(
            unit(name) for name in imports(module, deferred=True) if unit(name) != unit(module)
        )
    assert_no_circle(graph)


def test_no_modules_import_each_other_in_a_circle() -> None:
    # A package's __init__ that re-exports from its own modules is no circle; what it needs of
    # others is.
    assert_no_circle(
        {
            module: {
                name
                for name in imports(module, deferred=False)
                if not module.startswith(f"{name}.")
            }
            for module in modules()
        }
    )


def assert_no_circle(graph: dict[str, set[str]]) -> None:
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", decisions())
def test_decisions_need_neither_ray_nor_torch(module: str) -> None:
    assert not loaded_after(f"import hssl_search.{module}") & {"ray", "torch"}


@pytest.mark.parametrize(
    "statement",
    [
        "from hssl_search.heads.config import HeadConfig; HeadConfig(family='hybrid')",
        "from hssl_search.spaces.space import Space; Space.read('default').size()",
        "import benchmarks.simulation.search",
    ],
)
def test_heads_are_known_and_searches_simulated_without_torch(statement: str) -> None:
    assert not loaded_after(statement) & {"ray", "torch", "timm"}


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    assert not loaded_after("import hssl_search.cli") & HEAVY


def test_the_package_itself_starts_without_the_heavy_libraries() -> None:
    assert not loaded_after("import hssl_search") & HEAVY


def test_a_warning_is_printed_only_where_the_caller_asked_for_it() -> None:
    code = 'import hssl_search, logging; logging.getLogger("hssl_search.api").warning("told")'
    asked = f"import logging; logging.basicConfig(); {code}"
    silent, told = (
        subprocess.run([sys.executable, "-c", each], capture_output=True, text=True, check=True)
        for each in (code, asked)
    )
    assert (silent.stdout, silent.stderr) == ("", "")
    assert told.stderr == "WARNING:hssl_search.api:told\n"
