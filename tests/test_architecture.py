"""What ARCHITECTURE.md says of the package's rooms is so; read from the code, nothing is run."""

from __future__ import annotations

import ast
import re
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
HOUSE = runpy.run_path(str(ROOT / "benchmarks" / "house.py"))

OUTSIDE = {
    "torch": {"recording", "tensorstate", "integrations", "demo", "commands.models"},
    "lightning": {"integrations"},
    "transformers": {"integrations"},
    "dask": {"analysis", "store.reading.layer", "store.reading.dataset"},
    "distributed": {
        "analysis.client",
        "analysis.cluster",
        "analysis.execution.record_holder",
        "analysis.execution.worker_records",
    },
    "zarr": {"store.reading", "analysis.states"},
    "numcodecs": {"store.chunked"},
    "obstore": {"store.files"},
    "numba": {"numba_tools"},
    "llvmlite": {"numba_tools"},
    "typer": {"cli", "commands"},
    "rich": {"commands"},
}
"""Which rooms, or modules, may import what others have made."""
KERNELS = {"counting", "recording.packing", "numba_tools", "bits"}
"""Where loops are compiled."""


@cache
def modules() -> dict[str, Any]:
    """Return all modules, by name; read once it is asked for, not by all who collect tests."""
    return HOUSE["read_modules"](ROOT)


@cache
def imports() -> list[Any]:
    """Return what they import of each other."""
    return HOUSE["find_imports"](modules())


def lies_in(module: str, places: set[str]) -> bool:
    name = module.removeprefix("tsstore.")
    return any(name == place or name.startswith(f"{place}.") for place in places)


def test_no_modules_import_each_other_in_a_circle():
    assert HOUSE["find_circles"](imports()) == []


def test_a_circle_is_found_however_long_it_is():
    edges = [HOUSE["Import"](a, b, 1) for a, b in ("ab", "bc", "ca", "cd", "de", "ed", "fa")]
    assert HOUSE["find_circles"](edges) == [["a", "b", "c"], ["d", "e"]]


def test_no_room_imports_one_that_it_may_not_know_of():
    assert HOUSE["find_upward"](imports(), modules()) == []
    assert {module.room for module in modules().values()} <= {"", *HOUSE["BELOW"]}


def test_what_a_room_may_import_may_not_import_it():
    below = HOUSE["BELOW"]
    base = HOUSE["BASE"]
    assert [(a, b) for a in below for b in below[a] - base if a in below[b]] == []


@pytest.mark.parametrize("package", OUTSIDE)
def test_packages_of_others_are_imported_in_few_places(package):
    found = {
        module.name
        for module in modules().values()
        for name, _ in HOUSE["imported_names"](module.tree)
        if name.partition(".")[0] == package
    }
    assert found
    assert {name for name in found if not lies_in(name, OUTSIDE[package])} == set()


def test_loops_are_compiled_in_few_places():
    decorators = "tsstore.numba_tools.decorators"
    found = {each.importer for each in imports() if each.imported == decorators}
    assert len(found) > 10
    assert {name for name in found if not lies_in(name, KERNELS)} == set()


@cache
def imported_at_once(name: str) -> frozenset[str]:
    """Return what a module imports when it is imported: not in a function, nor for types only."""
    found, bodies = set(), [modules()[name].tree.body]
    for body in bodies:
        for node in body:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                bodies.append(node.orelse)
            elif isinstance(node, ast.If | ast.Try | ast.With):
                bodies.append(node.body)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                module = ast.Module([node], [])
                found |= {name for name, _ in HOUSE["imported_names"](module)}
    return frozenset(found)


def reached_at_once(name: str) -> set[str]:
    """Return all that is imported with a module, of this package and of others."""
    reached, left = set(), [name]
    while left:
        name = left.pop()
        if name in reached:
            continue
        reached.add(name)
        home = name if name in modules() else name.rpartition(".")[0]
        if home in modules() and home != "tsstore":
            left.extend({home} if home != name else imported_at_once(home))
    return {name.partition(".")[0] if "tsstore" not in name else name for name in reached}


@pytest.mark.parametrize(
    ("home", "never"),
    [
        ("recording.capture", {"zarr", "dask", "distributed", "pandas", "scipy", "typer"}),
        ("analysis.analyze", {"zarr", "torch", "distributed", "typer", "rich"}),
        ("store.reading.store", {"zarr", "torch", "dask", "numba", "pandas", "scipy"}),
    ],
)
def test_what_is_imported_with_a_public_name_is_what_it_needs(home, never):
    reached = reached_at_once(f"tsstore.{home}")
    assert "numpy" in reached
    assert len([name for name in reached if name.startswith("tsstore.")]) > 10
    assert reached & never == set()


def test_each_folder_and_what_lies_beside_them_has_its_line():
    (drawn,) = re.findall(r"^tsstore/\n(.*?)^\w", TEXT, re.MULTILINE | re.DOTALL)
    said, room = set(), ""
    for indent, name in re.findall(r"^( +)([\w.]+/?)  ", drawn, re.MULTILINE):
        room = room if len(indent) == 4 else name
        said.add(name if len(indent) == 2 else room + name)
    package = ROOT / "tsstore"
    folders = {path.parent.relative_to(package) for path in package.rglob("*.py")} - {Path()}
    files = {path.name for path in package.glob("*.py")}
    assert said - {"demo/data/"} == {f"{folder}/" for folder in folders} | files


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w./]+(?:/|\.py|\.md))`", TEXT))))
def test_what_is_named_is_there(name):
    assert any((root / name).exists() for root in (ROOT, ROOT / "tsstore"))


def test_what_rooms_may_import_is_what_is_said():
    said = {}
    for line in re.findall(r"^\| (`\w+`.*?) \| (.*?) \|$", TEXT, re.MULTILINE):
        rooms, below = (set(re.findall(r"`(\w+)`", cell)) for cell in line)
        said |= dict.fromkeys(rooms, below)
    base = HOUSE["BASE"]
    assert said.keys() == HOUSE["BELOW"].keys()
    for room, below in said.items():
        assert below == HOUSE["BELOW"][room] - HOUSE["BASE"], room
        assert base <= said.keys()
