from __future__ import annotations

from tsstore.analysis.cluster import Cluster
from tsstore.analysis.running import Scheduler, task_keys
from tsstore.analysis.schedulers import Local


def test_tasks_are_told_from_constants():
    graph = {"a": 1, "b": (max, "a", 2), ("c", 0): (min, 1, 2), "d": [1]}
    assert task_keys(graph) == {"b", ("c", 0)}
    assert task_keys({}) == set()


def test_threads_and_a_cluster_have_all_that_an_analysis_needs(client):
    schedulers: list[Scheduler] = [Local(2), Cluster(client)]
    needed = {name for name in vars(Scheduler) if not name.startswith("_")}
    needed |= Scheduler.__annotations__.keys()
    assert len(needed) == 7
    assert all(hasattr(each, name) for each in schedulers for name in needed)
