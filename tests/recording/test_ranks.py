"""Real processes that write one run: with torch.distributed, and with the environment only."""

from __future__ import annotations

import os
import signal
import time

import children
import numpy as np
import pytest
import torch
from watching import packed

import tsstore
from tsstore.errors import NotAStoreError

RUN = """
import sys, time, torch, tsstore
from torch import nn
from torch.nn.parallel import DistributedDataParallel

path, rank, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 4))
{set_up}
ids = list(range(count))[rank::2]
options = {options}
options |= dict(layers=("0", "2"), durable=False, commit_every=0.02)
with tsstore.capture(model, path, **options) as recorder:
    assert (recorder.rank, recorder.world_size) == (rank, 2)
    for id in recorder.missing(ids):
        with recorder.batch(id=[int(id)]):
            model(torch.sin(torch.arange(3) + 1.7 * torch.tensor([[float(id)]])))
        time.sleep({pause})
{tear_down}
"""
GLOO = {
    "set_up": """
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{path}.meeting", rank=rank, world_size=2
)
model = DistributedDataParallel(model)
""",
    "options": {},
    "pause": 0,
    "tear_down": "torch.distributed.destroy_process_group()",
}
ALONE = {"set_up": "", "options": {"resume": True}, "pause": 0, "tear_down": ""}
# In time to be killed, however late that is.
SLOWLY = ALONE | {"pause": "0.01 if id < 200 else 60"}
VARIABLES = ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_PROCID")


def start(path, rank, count, script, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    script = RUN.format(**script)
    return children.start(script, path, rank, count, pipes=["stderr"], env=environment | variables)


def finish(processes):
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


def check_run(path, ids):
    """The store reads as one, and each sample's rows are its own."""
    torch.manual_seed(0)
    first = torch.nn.Linear(3, 9)
    store = tsstore.open(path)
    found = store.column("id")
    assert sorted(found.tolist()) == list(range(ids))
    inputs = torch.sin(torch.arange(3) + 1.7 * torch.tensor(found).reshape(-1, 1).float())
    np.testing.assert_array_equal(store["0"][:], packed(first(inputs))[:, 0])
    return store


def test_two_processes_of_torch_distributed_write_one_run(tmp_path):
    path = tmp_path / "run"
    finish([start(path, rank, 21, GLOO) for rank in (0, 1)])
    store = check_run(path, 21)
    assert store.finished
    assert [part.samples for part in store.parts] == [11, 10]
    assert [part.attributes.rank for part in store.parts] == [0, 1]
    assert {part.attributes.world_size for part in store.parts} == {2}
    models = [part.attributes.model for part in store.parts]
    assert models[0] == models[1]
    assert len(store.run.run_id) == 32


def launch(path, script):
    return [
        start(path, rank, 400, script, RANK=str(rank), WORLD_SIZE="2", TORCHELASTIC_RUN_ID="job")
        for rank in (0, 1)
    ]


def has_commits_of_both(path):
    try:
        parts = tsstore.open(path).parts
    except NotAStoreError:
        return False
    return len(parts) == 2 and all(part.samples for part in parts)


def test_two_processes_are_killed_and_go_on(tmp_path):
    path = tmp_path / "run"
    killed = launch(path, SLOWLY)
    while not has_commits_of_both(path):
        assert all(process.poll() is None for process in killed)
        time.sleep(0.01)
    for process in killed:
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert 0 < tsstore.open(path).samples < 400
    finish(launch(path, ALONE))
    store = check_run(path, 400)
    assert store.run.run_id == "job"
    whys = ["resumed by rank 0 of 2", "closed", "resumed by rank 1 of 2", "closed"]
    assert [part.seal.why for part in store.parts] == whys


def test_one_rank_without_an_id_of_the_run_is_told_so(tmp_path):
    process = start(tmp_path / "run", 0, 2, ALONE, RANK="0", WORLD_SIZE="2")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "CaptureError: 2 processes write one run" in errors
    assert not (tmp_path / "run").exists()


LOADER = """
import sys, torch, tsstore
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(3, 9))


class Samples(Dataset):
    # Its workers inherit the hooks with the model, and call it.
    def __len__(self):
        return 40

    def __getitem__(self, index):
        model(torch.ones(1, 3))
        return index, torch.full((3,), float(index))


if __name__ == "__main__":
    closes = sys.argv[2] == "closed"
    options = {"commit_on_sigterm": closes, "commit_every": 0.05, "durable": False}
    recorder = tsstore.capture(model, sys.argv[1], layers="0", **options)
    loader = DataLoader(Samples(), 4, num_workers=2, persistent_workers=closes)
    with torch.no_grad():
        for ids, inputs in loader:
            with recorder.batch(id=ids):
                model(inputs)
    if closes:
        recorder.close()
"""


@pytest.mark.parametrize("end", ["closed", "never closed"])
def test_workers_of_a_data_loader_write_nothing_and_let_the_process_end(tmp_path, end):
    path = tmp_path / "run"
    done = children.run(LOADER, path, end)
    assert done.returncode == 0, done.stderr
    assert "outside of any batch" not in done.stderr
    store = tsstore.open(path)
    assert store.column("id").tolist() == list(range(40))
    assert len(store.parts) == 1
    assert store.parts[0].seal.why == end
    assert sorted(item.name for item in path.iterdir()) == ["part-00000-00000", "zarr.json"]
    assert list(path.rglob("*.partial")) == []
