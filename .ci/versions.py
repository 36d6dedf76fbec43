"""Run what needs torch with the oldest versions that are allowed, or with the newest there are.

usage: python .ci/versions.py FOLDER oldest|newest [TESTS…]

By hand, before a release: an environment takes 6 GB, of which most are torch's CUDA libraries. In
FOLDER/oldest are the versions of constraints-oldest.txt, in FOLDER/newest those of no constraints;
there the demo is captured and analysed, and tests of what is given run, or of what records. At the
end it says which versions were not tried, since something holds them back here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("tests/recording", "tests/integrations", "tests/test_tensorstate.py")
OLDEST = (
    *("-c", "constraints-oldest.txt", "-e", ".[torch,cluster,parquet,s3,report,xarray]"),
    *("pytest", "pytest-xdist", "hypothesis", "mpmath", "psutil"),
    *("lightning", "transformers", "accelerate"),
)
INSTALLED = {"oldest": OLDEST, "newest": ("--upgrade", "-e", ".[dev]")}


def main() -> None:
    """Install, capture, analyse, test."""
    folder, which, *tests = sys.argv[1:]
    here = Path(folder).resolve() / which
    run(sys.executable, "-m", "venv", here)
    run(here / "bin" / "pip", "install", "-q", *INSTALLED[which])
    # Loops that other versions of Numba have compiled are not mixed with the checkout's.
    os.environ["NUMBA_CACHE_DIR"] = str(here / "numba")
    try:
        run(here / "bin" / "tsstore", "demo", "--overwrite", "-o", here / "demo.zarr")
        run(here / "bin" / "python", "-m", "pytest", "-q", *(tests or TESTS))
    finally:
        print("Not tried:", ", ".join(not_tried(here / "bin" / "pip", which)) or "nothing is left")


def not_tried(pip: Path, which: str) -> list[str]:
    """Return the versions that were to be tried, and are not there, with those that are."""
    constraints = "constraints-oldest.txt" if which == "oldest" else "constraints.txt"
    text = (ROOT / constraints).read_text(encoding="utf-8")
    named = dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))
    if which == "oldest":
        there = {own["name"].lower(): own["version"].split("+")[0] for own in listed(pip)}
        missing = [(name, there.get(name, "none")) for name in named]
        return [f"{name} {named[name]} ({own})" for name, own in missing if own != named[name]]
    later = [own for own in listed(pip, "--outdated") if own["name"].lower() in named]
    return [f"{own['name']} {own['latest_version']} ({own['version']})" for own in later]


def listed(pip: Path, *words: str) -> list[dict[str, str]]:
    """Return what pip lists."""
    command = [str(pip), "list", "--format", "json", *words]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found: list[dict[str, str]] = json.loads(said.stdout)
    return found


def run(*words: str | Path) -> None:
    """Run a command in the checkout; end where it fails."""
    done = subprocess.run([*map(str, words)], cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
