"""What tests of analyses share."""

from __future__ import annotations

import pytest

from tsstore.analysis.schedulers import LocalScheduler


@pytest.fixture(params=["threads", "synchronous", "through files", "processes", "workers hold"])
def place(request, monkeypatch, tmp_path):
    """Where it is counted, and where records go: workers of processes hold them for each other."""
    scratch = None if request.param == "workers hold" else tmp_path
    if request.param in ("processes", "workers hold"):
        return {"scheduler": request.getfixturevalue("client"), "scratch": scratch}
    if request.param == "through files":
        monkeypatch.setattr(LocalScheduler, "shared_memory", False)
    scheduler = "synchronous" if request.param == "synchronous" else "threads"
    return {"scheduler": scheduler, "scratch": scratch}
