"""Build what a user would install, and try it where nothing else is, without torch.

usage: python .ci/release.py FOLDER PYTHON…

The wheel goes into an environment of each Python that is named, with the newest versions; the sdist
into one of this Python, with the oldest that are allowed. There the command line must come to the
numbers that are kept of a stored run, and write its page.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STORES = ROOT / "tests" / "data" / "format_1"
STORE = "plain"


def main() -> None:
    """Build, then try everything at once."""
    folder, *pythons = sys.argv[1:]
    dist = Path(folder).resolve() / "dist"
    dist.parent.mkdir(parents=True, exist_ok=True)
    run(sys.executable, "-m", "build", "--outdir", str(dist), str(ROOT), cwd=dist.parent)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    for built in (wheel, sdist):
        print(f"{built.name}: {built.stat().st_size:,} bytes", flush=True)
    newest, oldest = "constraints.txt", "constraints-oldest.txt"
    tried = [(python, wheel, newest) for python in pythons]
    tried.append((sys.executable, sdist, oldest))
    with ThreadPoolExecutor() as pool:
        for line in pool.map(lambda each: try_out(dist.parent, *each), tried):
            print(line, flush=True)


def try_out(folder: Path, python: str, built: Path, constraints: str) -> str:
    """Install what was built into an environment of its own, and use it there."""
    version = run(python, "-c", "import platform; print(platform.python_version())").strip()
    here = folder / f"{version}-{constraints.removesuffix('.txt')}"
    run(python, "-m", "venv", str(here))
    run(here / "bin" / "pip", "install", "-q", "-c", str(ROOT / constraints), f"{built}[report]")
    # From elsewhere: what is imported is what was installed.
    command, store = here / "bin" / "tsstore", str(STORES / STORE)
    said = run(command, "--version", cwd=here).strip()
    assert said == f"tsstore {built.name.split('-')[1].removesuffix('.tar.gz')}", said
    kept = json.loads((STORES / "answers.json").read_text(encoding="utf-8"))[STORE]
    assert "24 samples" in run(command, "info", store, cwd=here)
    found = json.loads(run(command, "analyze", store, "--json", cwd=here))["layers"]
    for name, layer in kept["layers"].items():
        distinct = sum(layer["multiplicity, incidence, states"][2])
        assert (found[name]["rows"], found[name]["distinct"]) == (layer["rows"], distinct), name
    run(command, "report", store, "-o", "report.html", cwd=here)
    assert (here / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    failed = subprocess.run([command, "demo"], cwd=here, capture_output=True, text=True)
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1), failed.stderr
    return f"{built.name} works with Python {version} and {constraints}"


def run(*words: str | Path, cwd: Path | None = None) -> str:
    """Run a command; return what it printed, or end with what it said."""
    done = subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
