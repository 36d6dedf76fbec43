"""How large the package is, what imports what, and what one must open to follow a thing through it.

Reads the code of a checkout, traces a tiny run of it, and imports it in fresh processes::

    python benchmarks/house.py
    python benchmarks/house.py --root ../another-checkout
    python benchmarks/house.py --list          names the modules on both ways as well

``code`` are lines that hold more than a comment or a docstring; ``circles`` are groups of modules
that import each other, one way or another, and ``upward`` are imports of a room by one that may not
know of it (see ARCHITECTURE.md). What only a type checker or a function imports counts like any
other import. Modules on a way are those of which a function runs: from `analyze()` to a layer's
spectrum, and from a call of the model to its rows on disk, in all threads, for a batch and a commit
in the midst of a run.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PACKAGE = "tsstore"
BASE = frozenset({"bits", "charts", "errors", "numba_tools", "text"})
"""Rooms that know nothing of the others; what a stranger calls utilities."""
STATISTICS = BASE | {"counting", "statistics"}
RECORDING = BASE | {"store"}
BELOW = {
    **dict.fromkeys(BASE, BASE),
    "store": BASE,
    "counting": BASE,
    "statistics": BASE,
    "recording": RECORDING,
    "analysis": STATISTICS | {"store"},
    "tensorstate": STATISTICS | {"store", "recording", "analysis"},
    "integrations": RECORDING | {"recording", "analysis"},
    "demo": STATISTICS | {"store", "recording", "analysis"},
    "reporting": STATISTICS | {"store", "analysis"},
    "commands": STATISTICS | {"store", "recording", "analysis", "reporting", "demo"},
    "cli": BASE | {"commands"},
}
"""What each room may import of the others."""


class Import(NamedTuple):
    """One module that another imports, and where it says so."""

    importer: str
    imported: str
    line: int


@dataclass(frozen=True)
class Module:
    """A file of the package, by its dotted name, and its syntax."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def room(self) -> str:
        """The first folder or module below the package; "" is the package's own face."""
        return self.name.removeprefix(PACKAGE).lstrip(".").partition(".")[0]

    @property
    def lines(self) -> int:
        """How many lines there are."""
        return len(self.path.read_text(encoding="utf-8").splitlines())

    @property
    def docstrings(self) -> int:
        """How many lines docstrings take."""
        return len(docstring_lines(self.tree))

    @property
    def code(self) -> int:
        """How many lines there are of code, imports among them."""
        return len(lines_of_code(self.path) - docstring_lines(self.tree))

    @property
    def imports(self) -> int:
        """How many lines imports take."""
        return sum(1 + (node.end_lineno or 0) - node.lineno for node in imports_in(self.tree))


def read_modules(root: Path) -> dict[str, Module]:
    """Return all modules of a checkout's package by their names, but for empty ones."""
    modules = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if tree.body:
            modules[name] = Module(name, path, tree)
    return modules


def lines_of_code(path: Path) -> set[int]:
    """Return the numbers of the lines that hold more than a comment, docstrings among them."""
    empty = {tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type not in empty | {tokenize.ENCODING, tokenize.ENDMARKER}:
                lines |= set(range(token.start[0], token.end[0] + 1))
    return lines


def docstring_lines(tree: ast.Module) -> set[int]:
    """Return the numbers of the lines of all docstrings, those of constants and fields as well."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for text in body if isinstance(body, list) else []:
            is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            if is_text and isinstance(text.value.value, str):
                lines |= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return lines


def imports_in(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield all statements that import something, wherever they stand."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        inner = getattr(node, name, None)
        for each in inner if isinstance(inner, list) else []:
            yield from imports_in(each)


def imported_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the dotted name of each thing that is imported, and the line."""
    for node in imports_in(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        else:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def find_imports(modules: dict[str, Module]) -> list[Import]:
    """Return what modules import of each other; the package's own face imports nothing.

    Its names are imported when they are first used, so that it stands above all rooms and may
    be imported by all of them for its version.
    """
    found = []
    for module in modules.values():
        if module.room:
            for name, line in imported_names(module.tree):
                target = name if name in modules else name.rpartition(".")[0]
                if target in modules and target not in (PACKAGE, module.name):
                    found.append(Import(module.name, target, line))
    return found


def find_circles(imports: Iterable[Import]) -> list[list[str]]:
    """Return the groups of modules each of which reaches all others of its group by imports."""
    reached: dict[str, set[str]] = {}
    for each in imports:
        reached.setdefault(each.importer, set()).add(each.imported)
    changed = True
    while changed:
        changed = False
        for mine in reached.values():
            more = set().union(*(reached.get(name, set()) for name in mine)) - mine
            mine |= more
            changed |= bool(more)
    circles = {
        tuple(sorted(other for other in mine if name in reached.get(other, ())))
        for name, mine in reached.items()
        if name in mine
    }
    return [list(circle) for circle in sorted(circles)]


def find_upward(imports: Iterable[Import], modules: dict[str, Module]) -> list[Import]:
    """Return the imports of a room by one that may not know of it."""
    rooms = {name: module.room for name, module in modules.items()}
    return [
        each
        for each in imports
        if rooms[each.importer] != rooms[each.imported]
        and rooms[each.imported] not in BELOW.get(rooms[each.importer], ())
    ]


TRACE = """
import json, os, sys, tempfile, threading
import torch, tsstore

entered, switch = {}, []
root = os.path.dirname(os.path.abspath(tsstore.__file__)) + os.sep


def look(frame, event, _):
    if switch and event == "call" and frame.f_code.co_filename.startswith(root):
        entered.setdefault(switch[-1], set()).add(
            (frame.f_code.co_filename[len(root):], frame.f_code.co_qualname)
        )


threading.setprofile(look)
sys.setprofile(look)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Conv2d(1, 20, 3), torch.nn.ReLU())
path = os.path.join(sys.argv[1], "run.zarr")
with tsstore.capture(model, path, layers="0", durable=False) as recorder, torch.no_grad():
    for number in range(8):
        if number == 1:
            recorder.commit()
            switch.append("hook to file")
        model(torch.randn(8, 1, 6, 6))
        if number == 1:
            recorder.commit()
            switch.clear()
tsstore.analyze(path)["0"].spectrum
switch.append("analyze to spectrum")
assert tsstore.analyze(path)["0"].spectrum.rows == 1024
switch.clear()
sys.setprofile(None)
names = {
    way: sorted({file.removesuffix(".py").replace(os.sep, ".") for file, _ in pairs})
    for way, pairs in entered.items()
}
print(json.dumps([names, {way: len(pairs) for way, pairs in entered.items()}]))
"""


def trace(root: Path) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Return the modules on each way through the package, and the number of functions."""
    with tempfile.TemporaryDirectory() as folder:
        names, functions = json.loads(run_python(root, TRACE, folder))
    return names, functions


def run_python(root: Path, script: str, *arguments: str) -> str:
    """Return what a script prints in a fresh process that has the checkout's package."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    return done.stdout


IMPORT = """
import os, time
begun = time.perf_counter()
import tsstore
tsstore.{name}
times = os.times()
print(time.perf_counter() - begun, times.user + times.system)
"""


def time_import(root: Path, name: str, tries: int = 3) -> tuple[float, float]:
    """Return the least seconds, and of the processor, that a public name takes to be there."""
    told = [run_python(root, IMPORT.format(name=name)).split() for _ in range(tries)]
    seconds, processor = zip(*((float(wall), float(cpu)) for wall, cpu in told), strict=True)
    return min(seconds), min(processor)


def print_size(modules: dict[str, Module]) -> None:
    """Print what is there, in all and by room."""
    rooms: dict[str, list[Module]] = {}
    for module in modules.values():
        rooms.setdefault(module.room or "__init__", []).append(module)
    counts = ("lines", "code", "docstrings", "imports")
    print(f"{'':14}{'modules':>9}" + "".join(f"{name:>12}" for name in (*counts, "longest")))
    for room, some in [*sorted(rooms.items()), ("all", list(modules.values()))]:
        sums = [sum(getattr(module, name) for module in some) for name in counts]
        sums.append(max(module.lines for module in some))
        print(f"{room:14}{len(some):9,}" + "".join(f"{number:12,}" for number in sums))


def print_imports(modules: dict[str, Module]) -> None:
    """Print circles and imports that go up."""
    imports = find_imports(modules)
    circles = find_circles(imports)
    print(f"circles {len(circles)}")
    for circle in circles:
        print("   ", " ".join(circle))
    upward = find_upward(imports, modules)
    print(f"upward {len(upward)}")
    for each in upward:
        print(f"    {each.importer}:{each.line} imports {each.imported}")


def main() -> None:
    """Parse, look, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--list", action="store_true", help="name the modules on both ways")
    options = parser.parse_args()
    root = options.root.resolve()
    modules = read_modules(root)
    print_size(modules)
    print_imports(modules)
    names, functions = trace(root)
    for way, entered in names.items():
        print(f"{way}: {len(entered)} modules, {functions[way]} functions")
        if options.list:
            print("   ", " ".join(entered))
    for name in ("open", "analyze", "capture"):
        seconds, processor = time_import(root, name)
        print(f"import tsstore; tsstore.{name}: {seconds:.2f} s, {processor:.2f} s of processor")


if __name__ == "__main__":
    main()
