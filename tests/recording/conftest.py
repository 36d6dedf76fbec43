"""Fixtures of tests that record."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a place for a run."""
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def seed() -> None:
    """Let random numbers be the same in each run, whatever tests come before."""
    import torch

    torch.manual_seed(0)
