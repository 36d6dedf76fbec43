from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numba.core.caching import CacheImpl
from torch import nn
from torch._subclasses import FakeTensorMode
from watching import pack, packed

from tsstore.errors import OutputError
from tsstore.recording.axes.layer import LayerAxes
from tsstore.recording.axes.tensor import Axes
from tsstore.recording.packing import kernels
from tsstore.recording.packing import packer as module
from tsstore.recording.packing.packed import RowMemory, check_packable, form_of, rounded_threshold
from tsstore.recording.packing.packer import Packer, Reading, pack_by_torch, reading_of

SPECIAL = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 0.1, -0.1, 1.0, 1e-40, 1e-300]
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
SMALL_FLOATS = [
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
]
INTEGERS = [
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.uint32,
    torch.int64,
]
THRESHOLDS = [0.0, -0.0, 0.1, -0.1, 1.0, -1.5, 1e-41, -1e-41, 126.5, -129.0, 2.0**31, -(2.0**70)]
KERNELS = (
    "pack_channels_first", "_pack_tiles", "_join", "_interleave", "_interleave_lines", "_spread",
    "pack_channels_last", "_pack_line", "_pack_cut", "_line_up", "_cut", "_word_of",
)  # fmt: skip


def threshold_for(dtype, threshold):
    """The threshold as the dtype holds it, or 0 where it cannot."""
    try:
        return rounded_threshold(threshold, dtype)
    except OutputError:
        return 0.0


def draw_values(generator, dtype, threshold, shape):
    """Any bit patterns, half of them near the threshold or at the ends of the dtype."""
    if dtype == torch.bool:
        return torch.from_numpy(generator.integers(0, 2, shape).astype(bool))
    count = 1 << (8 * dtype.itemsize)
    if dtype.is_floating_point:
        edges = torch.tensor([threshold, 0.0, -0.0, math.inf, -math.inf, math.nan]).to(dtype)
        edges = [int.from_bytes(bytes(edge), "little") for edge in as_bytes(edges)]
    else:
        edges = [torch.iinfo(dtype).min, torch.iinfo(dtype).max, 0, math.floor(threshold)]
    near = [(edge + n) % count for edge in edges for n in (-1, 0, 1)]
    words = np.array(near, np.uint64)[generator.integers(0, len(near), shape)]
    anything = generator.integers(0, count, shape, dtype=np.uint64)
    words = np.where(generator.integers(0, 2, shape), words, anything)
    buffer = bytearray(words.astype(f"u{dtype.itemsize}").tobytes())
    return torch.frombuffer(buffer, dtype=dtype).reshape(shape)


def as_bytes(values):
    return values.view(torch.uint8).reshape(len(values), -1).tolist()


def laid_out(generator, values):
    """The same values in memory of another order, with gaps, repeats or an offset."""
    order = generator.permutation(values.ndim).tolist()
    steps = generator.choice([1, 1, 2, 3], values.ndim).tolist()
    extra = generator.choice([0, 0, 1], values.ndim).tolist()
    sizes = [n * step + more for n, step, more in zip(values.shape, steps, extra, strict=True)]
    memory = torch.zeros([sizes[axis] for axis in order], dtype=values.dtype)
    view = memory.permute(np.argsort(order).tolist())
    for axis, (size, step, more) in enumerate(zip(values.shape, steps, extra, strict=True)):
        view = view.narrow(axis, more, size * step)
        view = view[(slice(None),) * axis + (slice(None, None, step),)]
    return view.copy_(values)


def rows_in_python(tensor, threshold, neuron_axis, sample_axis):
    """Rows by Python's own comparison, which is exact, and NumPy's packing."""
    on = [value > threshold for value in tensor.flatten().tolist()]
    on = np.moveaxis(np.reshape(on, tensor.shape), (sample_axis, neuron_axis), (0, -1))
    on = on.reshape(on.shape[0], math.prod(on.shape[1:-1]), on.shape[-1])
    return np.packbits(on, axis=-1, bitorder="little")


@given(
    dtype=st.sampled_from([torch.bool, *FLOATS, *SMALL_FLOATS, *INTEGERS]),
    others=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    neurons=st.integers(1, 40) | st.integers(1, 300),
    threshold=st.sampled_from(THRESHOLDS),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_rows_are_the_same_by_kernels_by_torch_and_in_python(
    dtype, others, neurons, threshold, seed, data
):
    generator = np.random.default_rng(seed)
    used = threshold_for(dtype, threshold)
    neuron_axis = data.draw(st.integers(0, len(others)))
    sample_axis = data.draw(
        st.sampled_from([n for n in range(len(others) + 1) if n != neuron_axis])
    )
    shape = (*others[:neuron_axis], neurons, *others[neuron_axis:])
    values = draw_values(generator, dtype, used, shape)
    expected = rows_in_python(values, used, neuron_axis, sample_axis)
    for tensor in (values, laid_out(generator, values)):
        found = pack(tensor, used, neuron_axis, sample_axis).rows
        np.testing.assert_array_equal(found, expected)
        by_torch = pack_by_torch(tensor, used, neuron_axis, sample_axis)
        np.testing.assert_array_equal(by_torch.numpy(), expected)


@pytest.mark.parametrize("positions", [(4100,), (90, 91), (3, 37, 41), (8200,)])
@pytest.mark.parametrize("neurons", [3, 17, 70])
def test_many_positions_are_packed_tile_by_tile(positions, neurons):
    tensor = torch.randn(2, neurons, *positions)
    np.testing.assert_array_equal(pack(tensor, 0.0, 1, 0).rows, packed(tensor))
    last = tensor.movedim(1, -1).contiguous()
    rows = pack(last, 0.0, last.ndim - 1, 0).rows
    np.testing.assert_array_equal(rows, packed(tensor))


@pytest.mark.parametrize("neurons", [1, 3, 7, 9, 20, 63, 65, 100, 129, 1001])
@pytest.mark.parametrize("positions", [2, 7, 8, 9, 17, 130, 700])
def test_neighbours_without_a_gap_are_cut_into_rows(neurons, positions):
    tensor = torch.randn(3, positions, neurons)
    np.testing.assert_array_equal(pack(tensor, 0.0, 2, 0).rows, packed(tensor, 2))
    wide = torch.randn(2, positions + 1, neurons, dtype=torch.float16)[:, 1:]
    np.testing.assert_array_equal(pack(wide, 0.0, 2, 0).rows, packed(wide, 2))


@pytest.mark.parametrize("neurons", [4095, 4096, 4097, 9001])
def test_many_neurons_are_packed_line_by_line(neurons):
    tensor = torch.randn(2, 3, neurons)
    np.testing.assert_array_equal(pack(tensor, 0.0, 2, 0).rows, packed(tensor, 2))
    np.testing.assert_array_equal(pack(tensor, 0.0, 2, 1).rows, packed(tensor, 2, 1))


@pytest.mark.parametrize(
    ("shape", "neurons", "samples", "memory_format"),
    [
        ((3, 20, 25), 1, 0, torch.contiguous_format),
        ((3, 20, 5, 5), 1, 0, torch.contiguous_format),
        ((3, 20, 2, 2, 2), 1, 0, torch.contiguous_format),
        ((3, 20, 5, 5), 1, 0, torch.channels_last),
        ((3, 20, 2, 2, 2), 1, 0, torch.channels_last_3d),
        ((3, 7, 20), 2, 0, torch.contiguous_format),
        ((7, 3, 20), 2, 1, torch.contiguous_format),
        ((3, 20), 1, 0, torch.contiguous_format),
        ((20, 30), 0, 1, torch.contiguous_format),
    ],
)
def test_usual_layouts_are_read_where_they_lie(shape, neurons, samples, memory_format, monkeypatch):
    tensor = torch.randn(shape).to(memory_format=memory_format)
    expected = packed(tensor, neurons, samples)
    monkeypatch.setattr(torch.Tensor, "contiguous", None, raising=False)
    np.testing.assert_array_equal(pack(tensor, 0.0, neurons, samples).rows, expected)


def test_kernels_run_as_plain_python_with_the_same_result(monkeypatch):
    shapes = [(1, 3, 5), (2, 8, 3, 2), (2, 13, 7), (2, 70, 7), (2, 30, 21), (1, 9, 26)]
    tensors = [torch.randn(shape).to(dtype) for shape in shapes for dtype in (*FLOATS, torch.int8)]
    tensors += [tensor.movedim(1, -1).contiguous().movedim(-1, 1) for tensor in tensors]
    tensors += [torch.randn(2, 4, 40)[:, :, :20], torch.randn(2, 3, 40)[:, :, :20].mT]
    tensors += [torch.randn(1, neurons, 4) for neurons in range(1, 73, 8)]
    compiled = [pack(tensor, 0.5, 1, 0).rows for tensor in tensors]
    for name in KERNELS:
        monkeypatch.setattr(kernels, name, getattr(kernels, name).py_func)
    for name in ("pack_channels_first", "pack_channels_last"):
        monkeypatch.setattr(module, name, getattr(module, name).py_func)
    for tile in (6, 16, 25):
        monkeypatch.setattr(kernels, "_TILE", tile)
        monkeypatch.setattr(kernels, "_LINE", 8 * tile)
        with np.errstate(over="ignore"):  # unsigned numbers wrap around on purpose
            for tensor, expected in zip(tensors, compiled, strict=True):
                np.testing.assert_array_equal(pack(tensor, 0.5, 1, 0).rows, expected)


def test_kernels_run_without_the_gil():
    own = {name for name, value in vars(kernels).items() if hasattr(value, "py_func")}
    assert own == set(KERNELS)
    for name in KERNELS:
        assert getattr(kernels, name).targetoptions["nogil"]


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 18, 19, 31, 32, 33, 511, 512, 513, 700])
@pytest.mark.parametrize("neurons", [1, 7, 8, 9, 24, 25, 64, 65, 100, 128])
def test_planes_of_any_size_and_number(size, neurons):
    tensor = torch.randn(3, neurons, size)
    for same in (tensor, torch.randn(3, neurons, size + 3)[..., 2:-1].copy_(tensor)):
        np.testing.assert_array_equal(pack(same, 0.0, 1, 0).rows, packed(tensor))


class GivenMemory(RowMemory):
    def __init__(self, memory):
        self.memory = memory

    def empty(self, shape):
        return self.memory[64 : 64 + math.prod(shape)].reshape(shape)


def test_rows_fill_the_memory_that_they_are_given_and_nothing_else():
    for neurons in (3, 20, 60, 70, 100):
        for shape in ((2, neurons, 40), (2, neurons, 600), (2, 40, neurons)):
            tensor = torch.randn(shape)
            axis = shape.index(neurons)
            memory = np.full(1 << 16, 7, np.uint8)
            rows = pack(tensor, 0.0, axis, 0, GivenMemory(memory)).rows
            np.testing.assert_array_equal(rows, packed(tensor, axis))
            assert rows.base is memory
            assert (memory[:64] == 7).all()
            assert (memory[64 + rows.size :] == 7).all()


def test_a_reading_holds_for_all_tensors_alike():
    for make in (lambda: torch.randn(4, 20, 5, 5), lambda: torch.randn(4, 20)):
        form = form_of(make(), 0.0, 1, 0)
        reading = reading_of(make(), form)
        for _ in range(3):
            tensor = make()
            rows = reading.rows_at(tensor.data_ptr(), RowMemory())
            np.testing.assert_array_equal(rows, packed(tensor))
        assert reading.fits(1 << 20)
        assert not reading.fits(0)
        assert not reading.fits((1 << 20) + 2)


@pytest.mark.parametrize(
    ("tensor", "threshold"),
    [
        (torch.randn(3, 11), -1.0),
        (torch.zeros(3, 11, dtype=torch.float8_e5m2), 0.0),
        (torch.zeros(0, 11), 0.0),
        (torch.zeros(3, 11, dtype=torch.bool), 2.0),
        (torch.randn(3, 11, 2, 3)[..., :2], 0.0),
        (torch.complex(torch.zeros(3, 11), torch.ones(3, 11)).conj().imag, 0.0),
        (torch.zeros(3, 11, device="meta"), 0.0),
    ],
)
def test_what_takes_more_than_one_look_has_no_reading(tensor, threshold):
    assert reading_of(tensor, form_of(tensor, threshold, 1, 0)) is None


def test_a_machine_without_a_folder_for_machine_code_compiles_each_time(monkeypatch):
    def add(first, second):
        return first + second

    kept = kernels.inlined(add)
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    compiled = kernels.inlined(add)
    assert compiled(1, 2) == 3
    assert compiled.signatures
    assert kept.stats.cache_path
    assert compiled.stats.cache_path is None


@given(
    shape=st.lists(st.integers(1, 20), min_size=2, max_size=5),
    data=st.data(),
    dtype=st.sampled_from(FLOATS),
)
def test_rows_are_those_of_numpy_whatever_the_axes(shape, data, dtype):
    neurons, samples = data.draw(st.permutations(range(len(shape))))[:2]
    picks = np.random.default_rng(sum(shape)).integers(0, len(SPECIAL), shape)
    tensor = torch.tensor(np.array(SPECIAL)[picks]).to(dtype)
    found = pack(tensor, 0.0, neurons, samples)
    np.testing.assert_array_equal(found.rows, packed(tensor, neurons, samples))
    rest = [n for axis, n in enumerate(shape) if axis not in (neurons, samples)]
    form = found.form
    assert form.position_shape == tuple(rest)
    assert (form.neurons, form.samples) == (shape[neurons], shape[samples])
    assert (form.neuron_axis, form.sample_axis) == (neurons, samples)


@pytest.mark.parametrize("neurons", [1, 7, 8, 9, 63, 64, 65, 300])
def test_pad_bits_are_zero(neurons):
    last = pack(torch.ones(2, 3, neurons), 0.0, 2, 0).rows
    second = pack(torch.ones(2, neurons, 3), 0.0, 1, 0).rows
    expected = np.packbits(np.ones(neurons, bool), bitorder="little")
    assert last.shape == second.shape == (2, 3, len(expected))
    assert (last == expected).all()
    assert (second == expected).all()


def test_memory_layout_does_not_matter():
    tensor = torch.randn(3, 11, 4, 5)
    expected = packed(tensor)
    odd = torch.randn(6, 22, 4, 5)[::2, ::2].copy_(tensor)
    for same in (tensor.to(memory_format=torch.channels_last), odd):
        np.testing.assert_array_equal(pack(same, 0.0, 1, 0).rows, expected)
    expanded = torch.randn(3, 11, 1, 1).expand(3, 11, 4, 5)
    np.testing.assert_array_equal(pack(expanded, 0.0, 1, 0).rows, packed(expanded))


def test_subnormal_numbers_are_greater_than_zero_where_torch_flushes_them():
    tensor = torch.full((3, 11), 1e-40)
    torch.set_flush_denormal(True)
    try:
        rows = pack(tensor, 0.0, 1, 0).rows
    finally:
        torch.set_flush_denormal(False)
    np.testing.assert_array_equal(rows, packed(torch.ones(3, 11)))


def test_rows_are_no_view_and_the_tensor_stays_as_it_was():
    tensor = torch.randn(3, 8, requires_grad=True)
    before = tensor.detach().clone()
    rows = pack(tensor, 0.0, 1, 0).rows
    kept = rows.copy()
    assert torch.equal(tensor.detach(), before)
    with torch.no_grad():
        tensor.fill_(1.0)
    np.testing.assert_array_equal(rows, kept)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 7), (5, 3), (2, 16, 6), (1, 1)])
def test_rows_take_no_more_memory_than_they_need(shape):
    for neurons in range(1, len(shape)):
        rows = pack(torch.randn(shape), 0.0, neurons, 0).rows
        assert rows.base is None
        assert rows.flags.c_contiguous


@pytest.mark.parametrize("shape", [(0, 5), (0, 5, 4, 4), (2, 5, 0, 4), (0, 3, 5)])
def test_no_samples_or_no_positions_give_no_rows(shape):
    for neurons in range(1, len(shape)):
        if shape[neurons]:
            found = pack(torch.empty(shape), 0.0, neurons, 0)
            others = itertools.compress(shape[1:], [a != neurons for a in range(1, len(shape))])
            positions = int(np.prod([*others], dtype=int))
            assert found.rows.shape == (shape[0], positions, -(-shape[neurons] // 8))


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_threshold_is_rounded_to_the_tensors_dtype(dtype):
    used = rounded_threshold(0.1, dtype)
    same = torch.tensor([0.1], dtype=dtype)
    above = torch.nextafter(same, torch.ones_like(same)) if dtype != torch.float16 else same * 1.01
    assert used == same.double().item()
    assert not pack(same[None], used, 1, 0).rows.item()
    assert pack(above[None], used, 1, 0).rows.item() == 1


def test_a_threshold_beyond_the_dtype_is_refused():
    assert rounded_threshold(1e5, torch.float32) == 1e5
    with pytest.raises(OutputError, match=r"100000.0 is beyond what torch.float16 can hold"):
        rounded_threshold(1e5, torch.float16)
    with pytest.raises(OutputError, match="beyond"):
        rounded_threshold(-1e300, torch.float32)


@pytest.mark.parametrize(
    "dtype",
    [torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64],
)
@pytest.mark.parametrize(
    "threshold", [0.0, 0.1, -0.1, -1.0, 1.5, 255.0, -129.0, 2.0**40, -(2.0**70)]
)
def test_integers_are_compared_exactly(dtype, threshold):
    info = torch.iinfo(dtype)
    values = [info.min, 0, 1, 2, info.max - 1, info.max]
    used = rounded_threshold(threshold, dtype)
    rows = pack(torch.tensor([values]).to(dtype), used, 1, 0).rows
    expected = sum((value > threshold) << bit for bit, value in enumerate(values))
    assert rows.item() == expected


def test_large_integers_are_not_rounded():
    values = torch.tensor([[2**53, 2**53 + 1, 2**24 + 1]])
    assert pack(values, float(2**53), 1, 0).rows.item() == 0b010
    assert pack(values, float(2**24), 1, 0).rows.item() == 0b111


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, 0b10), (0.5, 0b10), (1.0, 0), (-0.5, 3)])
def test_bools(threshold, expected):
    used = rounded_threshold(threshold, torch.bool)
    assert pack(torch.tensor([[False, True]]), used, 1, 0).rows.item() == expected


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_floats_of_8_bits(dtype):
    values = torch.tensor([[-1.0, 0.0, 0.5, float("nan")]]).to(dtype)
    found = pack(values, rounded_threshold(0.0, dtype), 1, 0)
    assert found.rows.item() == 0b0100
    assert found.form.dtype == str(dtype).removeprefix("torch.")


def test_any_byte_but_zero_is_true():
    tensor = torch.tensor([[0, 1, 2, 255]], dtype=torch.uint8).view(torch.bool)
    assert pack(tensor, 0.0, 1, 0).rows.item() == 0b1110


def test_values_that_begin_between_two_words_of_memory():
    buffer = bytearray(1) + np.arange(-40, 40, dtype=np.float32).tobytes()
    tensor = torch.frombuffer(buffer, dtype=torch.float32, offset=1).view(2, 40)
    assert tensor.data_ptr() % 4
    np.testing.assert_array_equal(pack(tensor, 0.0, 1, 0).rows, packed(tensor.clone()))


def test_parameters_subclasses_negated_views_and_inference_tensors():
    class Tagged(torch.Tensor):
        pass

    values = torch.randn(3, 11)
    with torch.inference_mode():
        inferred = values.to(torch.bfloat16)
        within = pack(inferred, 0.0, 1, 0).rows
    expected = packed(values)
    for same in (torch.nn.Parameter(values), values.as_subclass(Tagged), inferred):
        rows = pack(same, 0.0, 1, 0).rows
        assert type(rows) is np.ndarray
        np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(within, expected)
    negated = torch.complex(torch.zeros(3, 11), values).conj().imag
    assert negated.is_neg()
    np.testing.assert_array_equal(pack(negated, 0.0, 1, 0).rows, packed(-values))


def test_a_default_device_changes_nothing():
    values = torch.randn(3, 11)
    with torch.device("meta"):
        threshold = rounded_threshold(0.0, torch.float32)
        rows = pack(values, threshold, 1, 0).rows
        nothing = pack(values[:0], threshold, 1, 0).rows
    np.testing.assert_array_equal(rows, packed(values))
    assert type(nothing) is np.ndarray


def test_tensors_without_values_are_refused_with_advice():
    found = []

    def look(tensor):
        with pytest.raises(OutputError, match=r"within torch.func.vmap.*exclude the layer") as info:
            pack(tensor, 0.0, 1, 0)
        found.append(info)
        return tensor.sum()

    values = torch.randn(2, 3, 4)
    torch.vmap(look)(values)
    torch.func.grad(look)(values)
    look(values.to("meta"))
    with FakeTensorMode():
        look(torch.zeros(2, 3))
    assert "found a FakeTensor" in str(found.pop().value)
    assert len(found) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.zeros(2, 3, dtype=torch.complex64), "complex64"),
        (lambda: torch.zeros(2, 3).to_sparse(), "torch.sparse_coo tensor"),
        (lambda: torch.zeros(2, 3, dtype=torch.uint64), "uint64"),
        (lambda: torch.quantize_per_tensor(torch.zeros(2, 3), 0.1, 0, torch.qint8), "qint8"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
def test_tensors_that_cannot_be_compared_are_refused(make, message):
    with pytest.raises(OutputError, match=rf"found a .*{message}.*expected a dense one"):
        check_packable(make())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors_are_refused_with_advice():
    nested = torch.nested.nested_tensor([torch.zeros(2, 3), torch.zeros(4, 3)])
    with pytest.raises(OutputError, match="enable_nested_tensor=False"):
        check_packable(nested)


def test_a_tensor_without_neurons_is_refused():
    with pytest.raises(OutputError, match=r"\(2, 0\), expected at least one neuron"):
        pack(torch.empty(2, 0), 0.0, 1, 0)


def convolution(threshold=0.0, **options):
    return Packer(threshold, LayerAxes(Axes("conv", nn.Identity(), 1)), **options)


def check(packer, tensor):
    found = packer.pack(tensor)
    np.testing.assert_array_equal(found.in_memory(), packed(tensor))
    return found


def test_tensors_alike_have_one_form():
    packer = convolution()
    first, second = (check(packer, torch.randn(3, 20, 5, 4)) for _ in range(2))
    assert first.form is second.form
    assert (first.form.samples, first.form.neurons) == (3, 20)
    assert first.form.position_shape == (5, 4)
    others = [
        torch.randn(2, 20, 5, 4),
        torch.randn(3, 20, 4, 5),
        torch.randn(3, 20, 5, 4, dtype=torch.float64),
        torch.randn(3, 20, 5, 4).to(memory_format=torch.channels_last),
        torch.randn(3, 20, 5, 8)[..., :4],
    ]
    forms = [check(packer, tensor).form for tensor in others]
    assert len({id(form) for form in [first.form, *forms]}) == 6
    assert [check(packer, tensor).form for tensor in others] == forms


@given(
    shape=st.lists(st.integers(1, 6), min_size=4, max_size=4),
    order=st.permutations(range(4)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.bool, torch.int8, torch.float64]),
    threshold=st.sampled_from([0.0, 0.3, -0.3]),
)
def test_the_second_time_is_like_the_first(shape, order, dtype, threshold):
    packer = convolution(threshold)
    for _ in range(3):
        tensor = torch.randn(shape).permute(order).contiguous().to(dtype)
        tensor = tensor.permute(np.argsort(order).tolist())
        limit = packer.form_of(tensor).threshold
        on = tensor.double() > limit
        np.testing.assert_array_equal(packer.pack(tensor).in_memory(), packed(on))


def test_rows_lie_in_the_memory_that_was_given_the_second_time_as_well():
    given_shapes = []

    class Memory(RowMemory):
        def empty(self, shape):
            given_shapes.append(shape)
            return np.full(shape, 255, np.uint8)

    packer = convolution(memory=Memory())
    for tensor in (torch.randn(3, 20, 5, 4), torch.randn(3, 20, 1, 1)):
        for _ in range(2):
            check(packer, tensor)
    for _ in range(2):
        assert packer.pack(torch.randn(2, 20, 0, 4)).rows.shape == (2, 0, 3)
        assert packer.pack(torch.randn(0, 20, 5, 4)).rows.shape == (0, 20, 3)
    shapes = [(3, 20, 3)] * 2 + [(3, 1, 3)] * 2 + [(2, 0, 3), (0, 20, 3)] * 2
    assert given_shapes == shapes


def test_later_tensors_are_read_where_they_lie_and_by_nothing_but_the_kernel(monkeypatch):
    packer = convolution()
    check(packer, torch.randn(3, 20, 5, 4))
    for name in ("check_packable", "form_of", "rows_of"):
        monkeypatch.setattr(module, name, None)
    check(packer, torch.randn(3, 20, 5, 4))
    check(packer, torch.randn(3, 20, 5, 4, requires_grad=True))
    with torch.inference_mode():
        check(packer, torch.randn(3, 20, 5, 4))


def test_what_only_seems_alike_is_looked_at():
    class Tagged(torch.Tensor):
        pass

    packer = convolution()
    values = torch.randn(3, 20, 5, 4)
    for _ in range(2):
        check(packer, values)
        check(packer, values.as_subclass(Tagged))
        check(packer, nn.Parameter(values))
        negated = torch.complex(torch.zeros(values.shape), values).conj().imag
        assert negated.is_neg()
        np.testing.assert_array_equal(packer.pack(negated).in_memory(), packed(-values))


def test_values_between_two_words_are_moved_first():
    packer = convolution()
    values = np.random.default_rng(0).standard_normal((2, 20, 4, 5)).astype(np.float32)
    check(packer, torch.from_numpy(values))
    shifted = torch.frombuffer(bytearray(1) + values.tobytes(), dtype=torch.float32, offset=1)
    assert shifted.data_ptr() % 4
    check(packer, shifted.view(values.shape))


def test_tensors_that_stand_for_others_are_refused_though_one_like_them_was_not():
    packer = convolution()
    for plain in (torch.randn(3, 20, 5, 4), torch.randn(3, 20, 1, 4)[:, ::2]):
        check(packer, plain)
        check(packer, plain)
        seen = []

        def look(tensor, seen=seen):
            with pytest.raises(OutputError, match=r"within torch.func.vmap.*exclude the layer"):
                packer.pack(tensor)
            seen.append(tensor)
            return tensor.sum()

        torch.vmap(look)(plain[None].expand(2, *plain.shape))
        torch.func.grad(look)(plain)
        torch.func.functionalize(look)(plain)
        look(plain.to("meta"))
        with FakeTensorMode() as mode:
            look(mode.from_tensor(plain))
        assert len(seen) == 5


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning"
)
def test_traced_tensors_are_refused_though_one_like_them_was_not():
    packer = convolution()

    class Packs(nn.Module):
        def forward(self, tensor):
            packer.pack(tensor)
            return tensor * 2

    values = torch.randn(3, 20, 5, 4)
    Packs()(values)
    with pytest.raises(OutputError, match=r"torch.jit.trace"):
        torch.jit.trace(Packs(), values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.zeros(2, 3, 4, 4, dtype=torch.complex64), "complex64"),
        (lambda: torch.zeros(2, 3, 4, 4).to_sparse(), "torch.sparse_coo tensor"),
        (lambda: torch.zeros(3), "at least a sample axis"),
        (lambda: torch.zeros(2, 0, 4, 4), "expected at least one neuron"),
    ],
)
def test_what_cannot_be_packed_is_refused_each_time(make, message):
    packer = convolution()
    for _ in range(2):
        with pytest.raises(OutputError, match=message):
            packer.pack(make())


def test_plans_are_not_kept_without_end(monkeypatch):
    monkeypatch.setattr(module, "_MOST_PLANS", 3)
    packer = convolution()
    for width in range(1, 9):
        check(packer, torch.randn(2, 5, 3, width))
        assert 1 <= len(packer._plans) <= 3
    assert all(isinstance(plan.reading, Reading) for plan in packer._plans.values())
