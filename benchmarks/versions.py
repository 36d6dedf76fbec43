"""What a benchmark ran on: its first lines."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version


def print_versions(*packages: str) -> None:
    """Print the machine, how busy it is, and the versions of Python and of some packages."""
    cores, busy = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    python = platform.python_version()
    print(f"{platform.machine()}, {cores} cores, load average {busy:.1f}, Python {python}")
    print(", ".join(f"{name} {version(name)}" for name in packages))
