"""A job of several ranks on one host, each in a process that was forked or spawned."""

from __future__ import annotations

import multiprocessing
from typing import Any

import torch

import tsstore

LAYER = "1"


def model() -> torch.nn.Module:
    """Return a small network with weights that are the same everywhere."""
    made = torch.nn.Sequential(torch.nn.Linear(3, 9), torch.nn.ReLU())
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape))
    return made


def inputs(ids: Any) -> torch.Tensor:
    """Return what samples of these ids look like."""
    return torch.sin(torch.as_tensor(ids).float()[:, None] * torch.arange(1, 4))


def record(path: str, rank: int, ranks: int, count: int, **options: Any) -> None:
    """Record a rank's share of so many samples, in batches of five."""
    torch.set_num_threads(1)
    settings = {"layers": [LAYER], "durable": False, "resume": True, "commit_every": 0.01}
    settings |= {"rank": rank, "world_size": ranks, "run_id": "of this job", **options}
    network = model()
    with torch.inference_mode(), tsstore.capture(network, path, **settings) as recorder:
        missing = recorder.missing(range(rank, count, ranks))
        for start in range(0, len(missing), 5):
            ids = missing[start : start + 5]
            with recorder.batch(id=ids):
                network(inputs(ids))


def record_all(method: str, path: str, ranks: int, count: int) -> None:
    """Let a process of its own, forked or spawned, be each rank."""
    context = multiprocessing.get_context(method)
    processes = [
        context.Process(target=record, args=(path, rank, ranks, count)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
