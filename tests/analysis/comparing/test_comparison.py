"""Two runs beside each other, against plain NumPy on decoded states."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from helpers import draw_batch, rewrite_attributes, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import layer as layer_of
from synthetic import write_layers
from typer.testing import CliRunner

import tsstore
from tsstore.commands.app import app
from tsstore.errors import AnalysisError, MemoryTooSmallError, UnknownLayerError
from tsstore.store.format.attributes import PartAttributes

LAYERS = {"conv_1": 5, "fc": 70}


def write(path, rng, ids, *, positions, neurons=LAYERS, parts=2, threshold=0.0):
    """Write a run of samples with these ids, in parts; rows by sample are those of the id."""
    for rank, own in enumerate(np.array_split(np.asarray(ids), parts)):
        rows = {"conv_1": [positions[value] for value in own.tolist()]}
        batch = draw_batch(rng, len(own), neurons=neurons, positions=rows, columns={"id": own})
        part = PartAttributes(rank=rank, world_size=parts)
        write_run(path, [batch], neurons=neurons, part=part, threshold=threshold)
    return tsstore.open(path)


def rows_by_id(store, layer):
    """Return each sample's decoded rows by id, those of the first sample of an id."""
    states = store[layer]
    ends = np.cumsum(states.read_positions())
    found = {}
    for value, rows in zip(store.column("id"), np.split(states.decode(), ends[:-1]), strict=True):
        found.setdefault(int(value), rows)
    return found


def expected(first, second, layer):
    """Return the rows of both runs that are compared, and how many samples have other numbers."""
    one, other = rows_by_id(first, layer), rows_by_id(second, layer)
    both = [value for value in one if value in other]
    equal = [value for value in both if len(one[value]) == len(other[value])]
    pairs = [(one[value], other[value]) for value in equal if len(one[value])]
    return pairs, len(both) - len(equal)


def check(first, second, found):
    for name, layer in found.items():
        pairs, unequal = expected(first, second, name)
        assert layer.unequal == unequal
        assert layer.samples == len(pairs)
        if not pairs:
            assert layer.flips is None
            continue
        differing = np.concatenate([one != other for one, other in pairs])
        assert np.allclose(layer.flips.rate, differing.mean(axis=0), rtol=1e-15)
        assert layer.share == pytest.approx(differing.mean(), rel=1e-12)
        assert layer.flips.dead.tolist() == np.flatnonzero(~differing.any(axis=0)).tolist()


def test_samples_of_parts_without_rows_have_other_numbers_of_rows(tmp_path):
    """Of nine samples, a part each, four have rows in the second run alone, one in neither."""
    rng, ids = np.random.default_rng(0), np.arange(9)
    few = {value: int(value < 4) for value in range(9)}
    more = {value: 1 + int(value > 3) for value in range(9)} | {8: 0}
    runs = [
        write(tmp_path / name, rng, ids, positions=positions, parts=9)
        for name, positions in (("first", few), ("second", more))
    ]
    found = tsstore.compare(*runs, efficiency=False)
    check(*runs, found)
    assert found["conv_1"].unequal == 4
    assert "conv_1: 4 samples left out, which had other numbers of rows." in str(found)


@settings(max_examples=15)
@given(st.data())
def test_bits_that_differ_are_those_that_numpy_finds(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("comparison")
    ids = st.lists(st.integers(0, 40), min_size=2, max_size=30)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    stores = []
    for name in ("first", "second"):
        positions = dict(enumerate(rng.integers(0, 4, 41).tolist()))
        if data.draw(st.booleans()):
            positions = dict.fromkeys(range(41), 3)
        parts = data.draw(st.integers(1, 2))
        drawn = data.draw(ids)
        stores.append(write(folder / name, rng, drawn, positions=positions, parts=parts))
    for store in stores:
        if not store["conv_1"].rows:
            return
    found = tsstore.compare(*stores, efficiency=False, scheduler="synchronous")
    check(*stores, found)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of mostly the same samples, in another order, and in one part and two."""
    folder = tmp_path_factory.mktemp("comparisons")
    rng = np.random.default_rng(0)
    positions = dict.fromkeys(range(400), 4)
    first = write(folder / "first", rng, np.arange(300), positions=positions)
    ids = rng.permutation(np.arange(100, 400))
    return first, write(folder / "second", rng, ids, positions=positions, parts=1)


def test_runs_in_other_orders_are_joined_by_ids_on_threads(runs):
    found = tsstore.compare(*runs)
    check(*runs, found)
    assert found["fc"].samples == 200
    assert found.efficiency.paired
    assert list(found.efficiency) == ["conv_1", "fc"]


def test_a_run_does_not_differ_from_itself(runs):
    found = tsstore.compare(runs[0], runs[0], efficiency=False)
    assert [layer.share for layer in found.values()] == [0, 0]
    assert found["fc"].samples == 300
    assert len(found["fc"].flips.dead) == 70


def test_views_are_compared_as_what_they_show(runs):
    first = runs[0].filter(runs[0].samples_frame()["id"] % 2 == 0)
    found = tsstore.compare(first, runs[1], "f*", efficiency=False)
    assert list(found) == ["fc"]
    assert found["fc"].samples == 100
    check(first, runs[1], found)
    check(runs[1], first, tsstore.compare(runs[1], first, efficiency=False))


def test_other_widths_are_refused_and_other_thresholds_told(runs, tmp_path):
    rng = np.random.default_rng(0)
    positions = dict.fromkeys(range(9), 1)
    narrow = {"conv_1": 4, "fc": 70}
    other = write(tmp_path / "narrow", rng, range(9), positions=positions, neurons=narrow)
    with pytest.raises(AnalysisError, match=r"conv_1 has 5 neurons in .* 4 neurons in "):
        tsstore.compare(runs[0], other)
    raised = write(tmp_path / "raised", rng, range(9), positions=positions, threshold=0.5)
    found = tsstore.compare(runs[0], raised, "fc", efficiency=False)
    assert found.warnings == ["fc: on is above 0 and 0.5: what differs may be the threshold alone."]
    with pytest.raises(UnknownLayerError, match="has no layer 'fc_9'"):
        tsstore.compare(*runs, "fc_9")


def test_without_ids_rows_are_not_compared_and_it_says_why(runs, tmp_path):
    batch = draw_batch(np.random.default_rng(0), 20, neurons=LAYERS)
    write_run(tmp_path / "run.zarr", [batch], neurons=LAYERS)
    found = tsstore.compare(runs[0], tmp_path / "run.zarr", efficiency=False)
    assert found["fc"].flips is None
    assert "has no ids that tell which samples are the same" in found.sentences[0]
    assert found.to_frame().empty
    assert "not compared" in repr(found["fc"])


def test_too_little_memory_says_how_much_is_needed(runs):
    for options in ({"efficiency": False}, {}, {"novelty": True}):
        with pytest.raises(MemoryTooSmallError, match="give at least memory='") as error:
            tsstore.compare(*runs, memory="1KiB", **options)
        least = int(re.search(r"at least memory='(\d+)KiB'", str(error.value))[1])
        assert error.value.needed == pytest.approx(1024 * least, abs=1024)
        assert set(tsstore.compare(*runs, memory=f"{least}KiB", **options))
        with pytest.raises(MemoryTooSmallError, match=f"give at least memory='{least}KiB'"):
            tsstore.compare(*runs, memory=f"{least - 1}KiB", **options)


def test_runs_without_ids_take_nothing_for_rows_that_are_not_compared(tmp_path):
    ones, rows = np.ones(1 << 16, np.int64), np.zeros((1 << 16, 1), np.uint8)
    stores = [write_layers(tmp_path / name, {"a": layer_of(rows, ones)}) for name in "ab"]
    # Beside the rows there would be 24 bytes for each sample of both.
    found = tsstore.compare(*stores, efficiency=False, memory="1MiB")
    assert found["a"].flips is None


def test_ids_that_take_more_than_rows_are_refused_as_such(tmp_path):
    many = 1 << 17
    rows = {"a": layer_of(np.zeros((many, 1), np.uint8))}
    run = write_layers(tmp_path / "run", rows, columns={"id": np.arange(many)})
    with pytest.raises(MemoryTooSmallError, match="join the ids of 262,144 samples; give at least"):
        tsstore.compare(run, run, memory="1MiB", efficiency=False)


def test_what_was_found_is_a_table_a_document_and_a_picture(runs):
    found = tsstore.compare(*runs, efficiency=False)
    frame = found.to_frame()
    assert frame.loc["fc"].shape == (70, 3)
    assert (frame["lower"] <= frame["share"]).all()
    assert (frame["share"] <= frame["upper"]).all()
    document = json.loads(found.to_json())
    assert document["layers"]["fc"]["samples"] == 200
    assert "bits that differ" in repr(found)
    assert "fc" in found._repr_html_()
    assert "differs" in found.plot().get_xlabel()


def test_the_command_prints_both_tables(runs):
    arguments = ["compare", runs[0].path, runs[1].path, "--layer", "fc"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "network efficiency" in shown.stdout
    assert "bits that differ" in shown.stdout
    assert "200" in shown.stdout
    result = CliRunner().invoke(app, [*arguments, "--no-efficiency", "--json"])
    assert json.loads(result.stdout)["efficiency"] is None


def test_ids_of_other_types_are_told_apart_to_the_last_bit(tmp_path):
    stores = []
    for dtype in (np.int64, np.uint64):
        ids = (2**53 + np.arange(4)).astype(dtype)
        batch = draw_batch(np.random.default_rng(0), 4, neurons=LAYERS, columns={"id": ids})
        write_run(tmp_path / np.dtype(dtype).name, [batch], neurons=LAYERS)
        stores.append(tsstore.open(tmp_path / np.dtype(dtype).name))
    found = tsstore.compare(*stores, efficiency=False)
    assert [layer.samples for layer in found.values()] == [4, 4]
    assert [layer.share for layer in found.values()] == [0, 0]


def test_parts_of_both_types_of_ids_are_joined_to_the_last_bit(tmp_path):
    ids = [
        (2**53 + np.arange(4)).astype(np.int64),
        np.arange(4, dtype=np.uint64) + np.uint64(2**63),
    ]
    stores = []
    for name, order in (("first", (0, 1)), ("second", (1, 0))):
        for rank, number in enumerate(order):
            rng, part = np.random.default_rng(number), PartAttributes(rank=rank, world_size=2)
            batch = draw_batch(rng, 4, neurons=LAYERS, columns={"id": ids[number]})
            write_run(tmp_path / name, [batch], neurons=LAYERS, part=part)
        stores.append(tsstore.open(tmp_path / name))
    for options in ({"efficiency": False}, {"novelty": True}):
        found = tsstore.compare(*stores, **options)
        assert [(layer.samples, layer.share) for layer in found.values()] == [(8, 0), (8, 0)]


def test_of_two_analyses_the_efficiencies_are_compared(runs):
    analyses = [tsstore.analyze(run) for run in runs]
    found = tsstore.compare(*analyses)
    assert found.efficiency.to_dict() == tsstore.difference(*analyses).to_dict()
    assert (len(found), found.overlap) == (0, None)
    assert "bits that differ" not in repr(found) + found._repr_html_()
    with pytest.raises(AnalysisError, match="two runs, or two analyses"):
        tsstore.compare(analyses[0], runs[1])


def test_other_shapes_of_positions_are_told(tmp_path):
    stores = []
    for shape in ((2, 3), (3, 2), ()):
        path = tmp_path / str(shape)
        rng, columns = np.random.default_rng(0), {"id": np.arange(4)}
        batch = draw_batch(rng, 4, neurons=LAYERS, positions={"conv_1": 6}, columns=columns)
        write_run(path, [batch], neurons=LAYERS)
        node = next(item for item in path.glob("*/layers/0000-conv_1"))
        rewrite_attributes(path, str(node.relative_to(path)), {"position_shape": list(shape)})
        stores.append(tsstore.open(path))
    found = tsstore.compare(*stores[:2], efficiency=False)
    assert found.warnings == [
        "conv_1: positions are 2×3 and 3×2: rows may be of other places in a sample."
    ]
    assert not tsstore.compare(stores[0], stores[2], efficiency=False).warnings


def test_the_command_chooses_samples_of_both_runs_or_of_the_other_one(runs):
    paths = [run.path for run in runs]
    both = ["compare", *paths, "--no-efficiency", "--json", "--filter", "id=150"]
    other = [*both, "--other-filter", "id=151"]
    found = [json.loads(CliRunner().invoke(app, given).stdout) for given in (both, other)]
    assert [one["layers"]["fc"]["samples"] for one in found] == [1, 0]
