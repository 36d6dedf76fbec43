from __future__ import annotations

import json
import math
import os
import shutil
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray
from helpers import draw_batch, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import draw_layer, write_layers

import tsstore
from tsstore import Analysis, GroupedAnalysis
from tsstore.analysis.results.layer import layer_document
from tsstore.errors import (
    AccessError,
    DamageError,
    FormatError,
    NotAStoreError,
    StoreError,
    StoreExistsError,
    TsstoreError,
)
from tsstore.store.format.documents import attributes_checksum


def same_bits(one, other):
    """Whether two documents hold the same numbers, bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_bits(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same_bits, one, other))
    if isinstance(one, float):
        return type(other) is float and np.float64(one).tobytes() == np.float64(other).tobytes()
    return type(one) is type(other) and one == other


def check_same(one: Analysis, other: Analysis) -> None:
    assert same_bits(one.to_dict(), other.to_dict())
    assert (repr(one), one.dealt, one.provenance) == (repr(other), other.dealt, other.provenance)
    assert list(one) == list(other)
    for name, layer in one.items():
        loaded = other[name]
        assert layer.spectrum == loaded.spectrum
        assert layer.changes == loaded.changes
        for curve in (layer.rarefaction_curve(5), layer.richness(0.9), layer.interval(0.8)):
            assert curve is not None or layer.jackknifed is None
        assert repr(layer.rarefaction_curve(5)) == repr(loaded.rarefaction_curve(5))
        assert layer.interval(0.8) == loaded.interval(0.8)
        assert same_bits(layer_document(layer), layer_document(loaded))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("saving") / "run"
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        columns = {"id": np.arange(90), "label": rng.integers(0, 3, 90)}
        columns["prediction"] = rng.integers(0, 3, 90)
        positions = {"conv_1": rng.integers(0, 6, 90).tolist(), "fc.2": 1}
        write_run(path, [draw_batch(rng, 90, positions=positions, columns=columns)])
    return path


@pytest.fixture(scope="module")
def saved_once(run):
    analysis = tsstore.analyze(run)
    analysis.save(run.with_name("run.analysis.zarr"))
    return analysis, run.with_name("run.analysis.zarr")


@pytest.fixture
def saved(saved_once, tmp_path):
    analysis, path = saved_once
    return analysis, shutil.copytree(path, tmp_path / path.name)


def test_every_number_is_the_same_bit_for_bit(run, tmp_path):
    store = tsstore.open(run)
    for number, options in enumerate(
        ({}, {"intervals": False}, {"repeats": "each"}, {"dependent_by": "label"}, {"exact": True})
    ):
        analysis = tsstore.analyze(store, **options)
        analysis.save(tmp_path / f"{number}.zarr")
        loaded = Analysis.load(tmp_path / f"{number}.zarr")
        check_same(analysis, loaded)
        assert loaded.provenance.run_id == store.run.run_id
        assert loaded.provenance.layers == ("conv_1", "fc.2")
        assert {**loaded.provenance.arguments, **options} == loaded.provenance.arguments
        assert loaded.provenance.software["tsstore"] == tsstore.__version__
    first, last = (Analysis.load(tmp_path / f"{number}.zarr") for number in (0, 0))
    difference = tsstore.difference(first, last)
    assert difference.network.interval is None or difference.network.interval.estimate == 0


@settings(max_examples=8, deadline=None)
@given(
    widths=st.lists(st.integers(1, 20), min_size=3, max_size=3),
    distinct=st.integers(1, 60),
    intervals=st.booleans(),
)
def test_layers_of_any_width_come_back(tmp_path_factory, widths, distinct, intervals):
    folder = tmp_path_factory.mktemp("kept")
    layers = {f"L{n}/[:]": draw_layer(n + 1, 40, w, distinct, 3) for n, w in enumerate(widths)}
    analysis = tsstore.analyze(write_layers(folder / "run", layers), intervals=intervals)
    analysis.save(folder / "out.zarr")
    check_same(analysis, Analysis.load(folder / "out.zarr"))


def test_other_tools_open_it(saved):
    analysis, path = saved
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xarray.open_zarr(path, consolidated=False) as dataset:
            entries = sum(len(layer.spectrum) for layer in analysis.values())
            assert dataset["spectrum"].shape == (entries, 4)
    with pytest.raises(NotAStoreError, match=r"a saved analysis: load it with .*Analysis\.load"):
        tsstore.open(path)


def test_what_is_there_stays_and_what_cannot_be_written_leaves_nothing(saved, tmp_path):
    analysis, path = saved
    before = sorted(path.rglob("*"))
    with pytest.raises(StoreExistsError, match="exists already"):
        analysis.save(path)
    assert sorted(path.rglob("*")) == before
    with pytest.raises(AccessError, match="cannot be written"):
        analysis.save(tmp_path / "nowhere" / "out.zarr")
    with pytest.raises(StoreError, match="no local path"):
        analysis.save("s3://bucket/out.zarr")
    assert os.listdir(tmp_path) == [path.name]


def test_a_path_without_an_analysis_is_refused(run, tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(NotAStoreError, match="no saved analysis"):
            Analysis.load(path)
    with pytest.raises(NotAStoreError, match=r"is a run, and no saved analysis: tsstore\.analyze"):
        Analysis.load(run)


def test_a_byte_that_changes_is_noticed_or_means_nothing(saved):
    analysis, path = saved
    for file in filter(Path.is_file, sorted(path.rglob("*"))):
        data = file.read_bytes()
        for place in (0, len(data) // 2, len(data) - 2):
            changed = bytearray(data)
            changed[place] ^= 1
            file.write_bytes(changed)
            with suppress(TsstoreError):
                loaded = Analysis.load(path)
                assert same_bits(loaded.to_dict(), analysis.to_dict())
        file.write_bytes(data)
    check_same(analysis, Analysis.load(path))


@pytest.mark.parametrize("kind", ["spectrum", "changes", "groups"])
def test_a_table_that_is_gone_is_damage(saved, kind):
    _, path = saved
    (path / kind / "c" / "0" / "0").unlink()
    with pytest.raises(DamageError, match=f"{path.name}/{kind}"):
        Analysis.load(path)


def tampered(path, change):
    """Change what is said of the tables, with a checksum that vouches for it."""
    document = json.loads((path / "zarr.json").read_text())
    said = document["attributes"]["tsstore"]
    change(said)
    said["checksum"] = attributes_checksum("", said)
    (path / "zarr.json").write_text(json.dumps(document))


def one(said):
    return said["about"]["analyses"][0]


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.update(analysis=2),
        lambda said: said.pop("about"),
        lambda said: said["about"].update(kind="a cake"),
        lambda said: said["about"].update(analyses=3),
        lambda said: said["about"].update(analyses=[]),
        lambda said: said["about"]["analyses"].append(said["about"]["analyses"][0]),
        lambda said: one(said).update(layers=3),
        lambda said: one(said).update(samples=-1),
        lambda said: one(said).update(accuracy="much"),
        lambda said: one(said).update(dealt={"by": "id", "digests": [[1]]}),
        lambda said: one(said).update(provenance={"run_id": 3}),
        lambda said: one(said).update(has_answers=False, layers=one(said)["layers"][:1]),
        lambda said: one(said)["layers"][0].update(neurons=1),
        lambda said: one(said)["layers"][0].update(samples=1),
        lambda said: one(said)["layers"][0].update(collision_bound=None),
        lambda said: one(said)["layers"].reverse(),
        lambda said: said["tables"].update({"../x": said["tables"]["answers"]}),
        lambda said: said["tables"]["answers"].update(columns=1 << 40),
        lambda said: said["tables"]["answers"].update(rows=1 << 50),
        lambda said: said["tables"].update(spectrum=said["tables"]["groups"]),
        lambda said: said["tables"].pop("spectrum"),
        lambda said: said["tables"].pop("changes"),
    ],
)
def test_hostile_documents_are_refused(saved, change):
    _, path = saved
    tampered(path, change)
    with pytest.raises(TsstoreError):
        Analysis.load(path)


def test_the_run_it_came_from_may_be_gone(tmp_path):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 60, 2)})
    analysis = tsstore.analyze(store)
    analysis.save(tmp_path / "out.zarr")
    shutil.rmtree(tmp_path / "run")
    check_same(analysis, Analysis.load(tmp_path / "out.zarr"))
    assert math.isfinite(Analysis.load(tmp_path / "out.zarr").network_efficiency())
    unknown = replace(analysis, provenance=None)
    unknown.save(tmp_path / "unknown.zarr")
    assert Analysis.load(tmp_path / "unknown.zarr").provenance is None


def test_analyses_of_groups_come_back_as_well(tmp_path):
    columns = {
        "id": np.arange(120),
        "label": np.array([f"n{n % 3}" for n in range(120)], object),
        "loss": np.random.default_rng(1).random(120),
    }
    part = draw_layer(1, 120, 2, 40)
    store = write_layers(tmp_path / "run", {"a": part}, columns=columns)
    for number, asked in enumerate(
        ({"by": "label"}, {"by": "loss", "bins": 2}, {"window": 50}, {"by": "step"})
    ):
        grouped = tsstore.analyze(store, **asked)
        path = tmp_path / f"{number}.zarr"
        grouped.save(path)
        loaded = GroupedAnalysis.load(path)
        assert same_bits(loaded.to_dict(), grouped.to_dict())
        assert (str(loaded), loaded.values) == (str(grouped), grouped.values)
        assert list(map(type, loaded.values)) == list(map(type, grouped.values))
        assert loaded.to_frame().equals(grouped.to_frame())
        check_same(grouped.whole, loaded.whole)
        for (value, own), (other, again) in zip(grouped.items(), loaded.items(), strict=True):
            assert value == other
            check_same(own, again)
        assert loaded.provenance == grouped.provenance
        arguments = loaded.provenance.arguments
        assert {name: arguments[name] for name in asked} == asked
        with pytest.raises(FormatError, match="load it as what it is"):
            Analysis.load(path)
    tsstore.analyze(store).save(tmp_path / "plain.zarr")
    with pytest.raises(FormatError, match="load it as what it is"):
        GroupedAnalysis.load(tmp_path / "plain.zarr")


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.update(values=[]),
        lambda about: about.update(values=["n0", "n0", "n2"]),
        lambda about: about.update(values=["n0"]),
        lambda about: about.update(values=[{"left": 2, "right": 1, "closed": "left"}, 1, 2]),
        lambda about: about.update(values=[[1], 1, 2]),
        lambda about: about.update(ungrouped=-1),
        lambda about: about.update(by=None),
    ],
)
def test_hostile_groups_are_refused(tmp_path, change):
    columns = {"label": np.arange(60) % 3}
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 60, 2)}, columns=columns)
    tsstore.analyze(store, by="label", intervals=False).save(tmp_path / "out.zarr")
    tampered(tmp_path / "out.zarr", lambda said: change(said["about"]))
    with pytest.raises(FormatError):
        GroupedAnalysis.load(tmp_path / "out.zarr")
