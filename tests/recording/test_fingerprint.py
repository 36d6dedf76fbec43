from __future__ import annotations

import pytest
import torch
from torch import nn

from tsstore.recording.identity import SAMPLE, _sample, fingerprint


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


@pytest.mark.parametrize("size", [1, 63, 64, 65, 127, 128, 1000])
def test_the_sample_is_spread_over_all_values(size):
    values = torch.zeros(size)
    whole = _sample(values)
    assert 0 < len(whole) // 4 <= SAMPLE
    values[size - -(-size // SAMPLE) :] = 1
    assert _sample(values) != whole, "the last of them count, too"


def test_the_order_in_memory_changes_nothing():
    values = torch.randn(30, 50)
    assert _sample(values.t().contiguous().t()) == _sample(values)
    conjugate = torch.randn(9, dtype=torch.complex64).conj()
    assert _sample(conjugate) == _sample(conjugate.resolve_conj())
    assert _sample(conjugate.imag) == _sample(conjugate.imag.resolve_neg())


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
