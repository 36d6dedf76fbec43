"""Rows on their way from a GPU; without one, that nothing is done, and what would be."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from watching import pack

import tsstore
from tsstore.recording.packing import packed as module
from tsstore.recording.packing.packed import Form, Packed, Transfer

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_rows_in_the_cpus_memory_stay_where_they_are():
    packed = pack(torch.randn(3, 9), 0.0, 1, 0)
    assert Transfer().start(packed) is packed
    assert packed.arrived is None
    assert packed.in_memory() is packed.rows


class Log(list):
    """Stands for torch and a device, and notes what they are asked for, in order."""

    def __init__(self):
        super().__init__()
        main, side = self._stream("main"), self._stream("side")
        self.torch = SimpleNamespace(
            empty=lambda *_, **options: self.note(f"empty {options['pin_memory']}", self.buffer()),
            cuda=SimpleNamespace(
                current_stream=lambda device: main,
                Stream=lambda device: self.note("new stream", side),
                stream=self._within,
            ),
        )

    def note(self, what, result=None):
        self.append(what)
        return result

    def _stream(self, name):
        def event():
            synchronize = lambda: self.note(f"wait for {name}")  # noqa: E731
            return self.note(f"event {name}", SimpleNamespace(name=name, synchronize=synchronize))

        wait = lambda event: self.note(f"{name} waits for {event.name}")  # noqa: E731
        return SimpleNamespace(name=name, record_event=event, wait_event=wait)

    @contextmanager
    def _within(self, stream):
        self.append(f"on {stream.name}")
        yield
        self.append(f"off {stream.name}")

    def rows(self):
        keep = lambda stream: self.note(f"keep for {stream.name}")  # noqa: E731
        return SimpleNamespace(
            is_cuda=True, device="cuda:0", shape=(2, 1, 1), dtype=torch.uint8, record_stream=keep
        )

    def buffer(self):
        filled = torch.full((2, 1, 1), 7, dtype=torch.uint8)
        copy = lambda rows, non_blocking: self.note(f"copy {non_blocking}")  # noqa: E731
        return SimpleNamespace(copy_=copy, cpu=lambda: filled)


def test_the_copy_waits_for_the_rows_and_whoever_reads_them_for_the_copy(monkeypatch):
    log = Log()
    monkeypatch.setattr(module, "torch", log.torch)
    transfer = Transfer()
    once = [
        "on side", "side waits for main", "empty True", "copy True", "keep for side", "event side",
        "off side",
    ]  # fmt: skip
    packed = Packed(log.rows(), Form(8, 2, (), "float32", 0.0, 1, 0))
    moved = transfer.start(packed)
    assert log == ["event main", "new stream", *once]
    log.clear()
    transfer.start(packed)
    assert log == ["event main", *once]
    log.clear()
    assert moved.in_memory().tolist() == [[[7]], [[7]]]
    assert log == ["wait for side"]


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 21, 3), nn.ReLU(inplace=True), nn.Conv2d(21, 64, 3), nn.ReLU(inplace=True)
    )


class Replay(nn.Module):
    """Gives tensors that were kept, batch after batch."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen
        self.layers = nn.ModuleDict({name: nn.Identity() for name in seen})

    def forward(self, number):
        for name, tensors in self.seen.items():
            self.layers[name](tensors[number].cpu())


DEVICES = ["cpu", pytest.param("cuda", marks=gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("options", [{}, {"positions": 5}])
def test_rows_of_a_device_are_those_of_its_tensors_bit_for_bit(tmp_path, device, options):
    """Its tensors are kept and captured on the CPU: another device gives other sums."""
    model, seen = convolutions().to(device), {"0": [], "2": []}
    for name, kept in seen.items():
        keep = lambda _, __, output, kept=kept: kept.append(output.clone())  # noqa: E731
        model.get_submodule(name).register_forward_hook(keep)
    options = {"durable": False, **options}
    there, here = tmp_path / "there", tmp_path / "here"
    with tsstore.capture(model, there, layers=("0", "2"), **options), torch.no_grad():
        for number in range(20):
            model(torch.randn(16 + number, 3, 16, 16, device=device))
    replay = Replay(seen)
    names = ("layers.0", "layers.2")
    with tsstore.capture(replay, here, layers=names, neuron_axis=1, **options) as recorder:
        for number in range(20):
            with recorder.batch(16 + number):
                replay(number)
    for name in seen:
        found, expected = tsstore.open(there)[name], tsstore.open(here)[f"layers.{name}"]
        assert len(found) > 1000
        np.testing.assert_array_equal(found[:], expected[:])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_rows_arrive_while_the_network_goes_on():
    transfer, tensor = Transfer(), torch.randn(64, 64, 56, 56, device="cuda")
    expected = pack(tensor.cpu(), 0.0, 1, 0).rows
    for _ in range(30):
        moved = transfer.start(pack(tensor, 0.0, 1, 0))
        assert moved.rows.is_pinned()
        # What follows on the network's stream may take the memory of the rows.
        scratch = torch.full((1 << 22,), 255, dtype=torch.uint8, device="cuda")
        np.testing.assert_array_equal(moved.in_memory(), expected)
        del scratch
