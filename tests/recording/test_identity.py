"""Which process of a job this is: given, told by torch.distributed, or by the environment."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from tsstore.errors import CaptureError
from tsstore.recording.identity import Job, find_job, fingerprint

VARIABLES = ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
VARIABLES += ("SLURM_NTASKS", "SLURM_JOB_ID", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Take away what a cluster would set; return a function that sets variables."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)

    def set_variables(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    return set_variables


@pytest.fixture
def distributed(monkeypatch):
    """Return a function that sets up a torch.distributed in which rank 0 sends an id."""

    def set_up(rank, world_size, available=True, initialized=True):
        module = types.SimpleNamespace(
            is_available=lambda: available,
            is_initialized=lambda: initialized,
            get_rank=lambda: rank,
            get_world_size=lambda: world_size,
            sent=[],
        )

        def broadcast(held, src):
            assert src == 0
            module.sent.append(held[0])
            held[0] = held[0] or "from rank 0"

        module.broadcast_object_list = broadcast
        monkeypatch.setitem(sys.modules, "torch.distributed", module)
        return module

    return set_up


def test_a_process_of_its_own():
    assert find_job() == Job(0, 1, None)


def test_what_is_given_wins(environment, distributed):
    environment(RANK=1, WORLD_SIZE=2, TORCHELASTIC_RUN_ID="found")
    distributed(0, 5)
    assert find_job(3, 4, "given") == Job(3, 4, "given")
    assert find_job(np.int64(3), np.int32(4)) == Job(3, 4, "found")
    assert type(find_job(np.int64(3), 4).rank) is int
    assert find_job(rank=4) == Job(4, 5, "found")
    assert find_job(world_size=7) == Job(0, 7, "found")


def test_torch_distributed_comes_before_the_environment(environment, distributed):
    environment(RANK=0, WORLD_SIZE=3, SLURM_JOB_ID=77)
    group = distributed(1, 2)
    assert find_job() == Job(1, 2, "77")
    assert group.sent == []


@pytest.mark.parametrize("state", [{"available": False}, {"initialized": False}])
def test_a_torch_distributed_that_is_not_in_use_does_not_count(distributed, state):
    distributed(1, 2, **state)
    assert find_job() == Job(0, 1, None)


def test_a_torch_without_distributed(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch.distributed", raising=False)
    assert find_job() == Job(0, 1, None)
    assert "torch.distributed" not in sys.modules


@pytest.mark.parametrize(
    "names",
    [
        ("RANK", "WORLD_SIZE"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ],
)
def test_environment_variables(environment, names):
    environment(**dict(zip(names, (2, 4), strict=True)), SLURM_JOB_ID=5)
    assert find_job() == Job(2, 4, "5")


def test_torchrun_within_a_slurm_step(environment):
    environment(SLURM_PROCID=1, SLURM_STEP_NUM_TASKS=2, SLURM_JOB_ID=5)
    environment(RANK=6, WORLD_SIZE=8, TORCHELASTIC_RUN_ID="elastic")
    assert find_job() == Job(6, 8, "elastic")


def test_a_batch_script_is_one_process_whatever_it_may_start(environment):
    environment(SLURM_PROCID=0, SLURM_NTASKS=16, SLURM_JOB_ID=5)
    assert find_job() == Job(0, 1, "5")


def test_half_of_a_pair_says_nothing(environment):
    environment(RANK=3, SLURM_PROCID="", SLURM_STEP_NUM_TASKS=4)
    assert find_job() == Job(0, 1, None)


@pytest.mark.parametrize("nothing", ["", "none"])
def test_a_run_id_that_is_none(environment, nothing):
    environment(TORCHELASTIC_RUN_ID=nothing)
    assert find_job().run_id is None
    environment(SLURM_JOB_ID=9)
    assert find_job().run_id == "9"


def test_rank_0_makes_up_a_run_id_and_sends_it(distributed):
    group = distributed(0, 2)
    made_up = find_job().run_id
    assert group.sent == [made_up]
    assert len(made_up) == 32
    distributed(1, 2)
    assert find_job() == Job(1, 2, "from rank 0")


def test_nothing_is_sent_where_nobody_may_listen(distributed):
    group = distributed(0, 2)
    for given in ({"rank": 0, "world_size": 3}, {"world_size": 3}):
        with pytest.raises(CaptureError, match="pass run_id="):
            find_job(**given)
    assert find_job(run_id="given").run_id == "given"
    alone = distributed(0, 1)
    assert find_job() == Job(0, 1, None)
    assert group.sent == alone.sent == []


def test_several_processes_need_a_run_id(environment):
    environment(RANK=0, WORLD_SIZE=2, TORCHELASTIC_RUN_ID="none")
    with pytest.raises(CaptureError, match=r"2 processes write one run.* none of TORCH.*run_id"):
        find_job()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "x", "WORLD_SIZE": 2}, "RANK is 'x'; expected an integer"),
        ({"RANK": 0, "WORLD_SIZE": "2.5"}, "WORLD_SIZE is '2.5'; expected an integer"),
        ({"RANK": 2, "WORLD_SIZE": 2}, "RANK is 2 and WORLD_SIZE is 2; expected a rank from 0"),
        ({"RANK": -1, "WORLD_SIZE": 2}, "RANK is -1 and WORLD_SIZE is 2"),
        ({"SLURM_PROCID": 0, "SLURM_STEP_NUM_TASKS": 0}, "SLURM_STEP_NUM_TASKS is 0"),
        ({"OMPI_COMM_WORLD_RANK": 9, "OMPI_COMM_WORLD_SIZE": 3}, "OMPI_COMM_WORLD_RANK is 9"),
    ],
)
def test_nonsense_in_the_environment(environment, variables, message):
    environment(**variables)
    with pytest.raises(CaptureError, match=message):
        find_job(run_id="run")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rank": 1}, "rank is 1 and world_size is 1; .*pass rank= and world_size="),
        ({"rank": 1.0, "world_size": 2}, "rank is 1.0; expected an integer"),
        ({"rank": True, "world_size": 2}, "rank is True; expected an integer"),
        ({"world_size": 0}, "world_size is 0"),
        ({"run_id": ""}, "run_id is ''; expected text"),
        ({"run_id": 7}, "run_id is 7; expected text"),
    ],
)
def test_nonsense_that_is_given(given, message):
    with pytest.raises(CaptureError, match=message):
        find_job(**given)


def build(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.Linear(30, 2))


def test_it_names_class_and_size():
    found = fingerprint(build())
    assert found["class"] == "Sequential"
    assert found["parameters"] == 20 * 30 + 30 + 2 * 30 + 30 * 2 + 2
    assert len(found["sha256"]) == 64


def test_equal_models_are_equal_and_others_are_not():
    assert fingerprint(build()) == fingerprint(build())
    hashes = {fingerprint(build(seed))["sha256"] for seed in range(4)}
    half = build().half()
    renamed = nn.ModuleDict(dict(zip("abc", build(), strict=True)))
    for model in (half, renamed, build()[:2]):
        hashes.add(fingerprint(model)["sha256"])
    assert len(hashes) == 7


def test_training_changes_it():
    model = build()
    before = fingerprint(model)["sha256"]
    model(torch.randn(4, 20))
    moved = fingerprint(model)["sha256"]
    assert moved != before, "batch norm's buffers have moved"
    with torch.no_grad():
        model[0].weight += 0.001
    assert fingerprint(model)["sha256"] != moved


def test_wrappers_change_nothing():
    assert fingerprint(torch.compile(build(), backend="eager")) == fingerprint(build())


def test_it_leaves_the_model_as_it_is():
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fingerprint(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_odd_parameters():
    model = nn.Module()
    model.lazy = nn.LazyLinear(3)
    model.register_buffer("scalar", torch.tensor(1.5))
    model.register_buffer("empty", torch.empty(0, 3))
    model.register_buffer("complex", torch.ones(2, dtype=torch.complex64))
    model.register_buffer("flags", torch.ones(100, dtype=torch.bool))
    model.register_buffer("sparse", torch.eye(3).to_sparse())
    model.meta = nn.Linear(2, 2, device="meta")
    assert fingerprint(model)["parameters"] == 6
    assert fingerprint(model) == fingerprint(model)
    assert fingerprint(nn.ReLU())["parameters"] == 0


def hash_of(values):
    """The hash of a model that has nothing but these values."""
    model = nn.Module()
    model.register_buffer("values", values)
    return fingerprint(model)["sha256"]


@pytest.mark.parametrize("size", [1, 63, 64, 65, 127, 128, 1000])
def test_the_sample_is_spread_over_all_values(size):
    values = torch.zeros(size)
    whole = hash_of(values)
    if size > 64:
        values[1] = 1
        assert hash_of(values) == whole, "some are enough"
    values[size - -(-size // 64) :] = 1
    assert hash_of(values) != whole, "the last of them count, too"


def test_the_order_in_memory_changes_nothing():
    values = torch.randn(30, 50)
    assert hash_of(values.t().contiguous().t()) == hash_of(values)
    conjugate = torch.randn(9, dtype=torch.complex64).conj()
    assert hash_of(conjugate) == hash_of(conjugate.resolve_conj())
    assert hash_of(conjugate.imag) == hash_of(conjugate.imag.resolve_neg())


@pytest.mark.filterwarnings("ignore:DTensor random operators:UserWarning")
def test_parameters_that_are_spread_over_processes(tmp_path):
    tensor = pytest.importorskip("torch.distributed.tensor")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1
    )
    try:
        model = build()
        before = fingerprint(model)
        mesh = tensor.init_device_mesh("cpu", (1,))
        weight = tensor.distribute_tensor(model[0].weight.detach(), mesh, [tensor.Shard(0)])
        model[0].weight = nn.Parameter(weight)
        found = fingerprint(model)
        assert found["parameters"] == before["parameters"]
        assert found["sha256"] != before["sha256"]
        assert fingerprint(model) == found
    finally:
        torch.distributed.destroy_process_group()
