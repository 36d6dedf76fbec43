"""Fixtures of tests that record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import nn


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a place for a run."""
    return tmp_path / "run"


@pytest.fixture
def model() -> nn.Module:
    """Give a model with layers "0" and "2", of 9 and 4 neurons."""
    from torch import nn

    return nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 4))


@pytest.fixture
def nothing_is_left(model: nn.Module) -> Iterator[None]:
    """Check that after a test no hook of ours is on the model, and no writer's thread lives."""
    from watching import hook_count, writers

    threads = writers()
    yield
    assert hook_count(model) == 0
    assert writers() <= threads
