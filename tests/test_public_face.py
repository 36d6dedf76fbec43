from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import children
import pytest

import tsstore

HEAVY = ("torch", "zarr", "dask", "distributed", "numba", "pandas", "scipy", "typer", "rich")


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(tsstore.__file__).parents[1])},
    )
    return done.stdout


@pytest.mark.parametrize("name", tsstore.__all__)
def test_every_public_name_is_there(name):
    value = getattr(tsstore, name)
    assert value is getattr(tsstore, name)
    assert name in dir(tsstore)
    assert value.__doc__


def test_public_names_are_sorted_and_each_there_once():
    assert len(set(tsstore.__all__)) == len(tsstore.__all__)
    assert tsstore.__all__ == sorted(tsstore.__all__)
    assert set(tsstore._HOMES) | {"__version__"} == set(tsstore.__all__)


def test_no_public_name_is_also_a_submodule_s():
    modules = {module.name for module in pkgutil.iter_modules(tsstore.__path__)}
    assert {"store", "recording", "analysis", "statistics", "errors"} <= modules
    assert not modules & set(tsstore.__all__)


def test_public_names_are_the_objects_of_their_modules():
    for name, home in tsstore._HOMES.items():
        module = import_module(f"tsstore.{home}")
        assert getattr(tsstore, name) is getattr(module, tsstore._NAMES_AT_HOME.get(name, name))


def test_what_is_no_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'tsstore' has no attribute 'analyse'"):
        _ = tsstore.analyse
    assert not hasattr(tsstore, "numpy")


def test_star_imports_give_the_public_names():
    script = "from tsstore import *; print(sorted(n for n in dir() if not n.startswith('__')))"
    names = children.run(script, strict=True).stdout
    assert eval(names) == sorted(set(tsstore.__all__) - {"__version__"})


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert tsstore.__version__ == version("tsstore")


def test_importing_imports_nothing_heavy():
    found = run(
        "import sys, time; start = time.perf_counter(); import tsstore; "
        "print(time.perf_counter() - start); print(sorted({m.split('.')[0] for m in sys.modules}))"
    )
    seconds, modules = found.splitlines()
    print(f"import tsstore: {float(seconds) * 1000:.1f} ms")
    assert not set(eval(modules)) & {*HEAVY, "numpy"}


def test_opening_a_store_imports_neither_torch_nor_what_counts():
    modules = run("import sys, tsstore; tsstore.open; print(sorted(sys.modules))")
    assert not set(eval(modules)) & {"torch", "dask", "numba", "pandas", "scipy", "distributed"}


def test_what_looks_after_a_store_imports_neither_torch_nor_what_counts():
    names = run(
        "import sys, tsstore; print([tsstore.verify, tsstore.repair, tsstore.compact] and "
        "sorted(sys.modules))"
    )
    assert not set(eval(names)) & {"torch", "dask", "numba", "pandas", "scipy", "distributed"}


def test_errors_that_call_for_an_answer_are_public():
    assert issubclass(tsstore.ResumeError, tsstore.TsstoreError)
    assert issubclass(tsstore.AccessError, tsstore.TsstoreError)
    assert issubclass(tsstore.AccessError, OSError)


def test_analysing_imports_no_torch():
    modules = run("import sys, tsstore; tsstore.analyze; print(sorted(sys.modules))")
    assert not set(eval(modules)) & {"torch", "distributed", "typer", "rich"}


def test_all_places_tell_the_same_version():
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    assert project["version"] == tsstore.__version__
    assert f"\nversion: {tsstore.__version__}\n" in citation


@pytest.mark.parametrize(
    "place",
    ["CITATION.cff", "README.md", "docs/index.md", "pyproject.toml", "tsstore/reporting/page.html"],
)
def test_both_papers_and_what_came_before_are_cited(place):
    text = (Path(__file__).parents[1] / place).read_text(encoding="utf-8")
    for cited in ("2006.02909", "10.3390/app131810286", "github.com/Nicholas-Schaub/TensorState"):
        assert cited in text
