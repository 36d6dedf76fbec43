"""Run what needs torch with the oldest versions that are allowed, or with the newest there are.

usage: python .ci/versions.py FOLDER oldest|newest [TESTS…]

By hand, before a release: an environment takes 6 GB, of which most are torch's CUDA libraries. In
FOLDER/oldest are the versions of constraints-oldest.txt, in FOLDER/newest those of no constraints;
there the demo is captured and analysed, and tests of what is given run, or of what records.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("tests/recording", "tests/integrations", "tests/test_tensorstate.py")
OLDEST = (
    *("-c", "constraints-oldest.txt", "-e", ".[torch,cluster,parquet,s3,report,xarray]"),
    *("pytest", "pytest-xdist", "hypothesis", "mpmath", "psutil", "lightning", "transformers"),
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
    run(here / "bin" / "tsstore", "demo", "--overwrite", "-o", here / "demo.zarr")
    run(here / "bin" / "python", "-m", "pytest", "-q", *(tests or TESTS))


def run(*words: str | Path) -> None:
    """Run a command in the checkout; end where it fails."""
    done = subprocess.run([*map(str, words)], cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
