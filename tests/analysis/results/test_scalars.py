from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from synthetic import layer, numbered_rows, write_layers

import tsstore
from tsstore.errors import AnalysisError


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    """An analysis with a good layer, and one with too few samples."""
    rng = np.random.default_rng(1)
    samples, layers = 900, {}
    layers["few"] = layer(numbered_rows(rng.integers(0, 4, samples), 1))
    layers["many"] = layer(numbered_rows(rng.integers(0, 1 << 60, samples), 8))
    columns = {"label": np.arange(samples) % 2, "prediction": np.arange(samples) % 3 % 2}
    store = write_layers(tmp_path_factory.mktemp("scalars") / "run", layers, columns=columns)
    return tsstore.analyze(store)


def test_scalars_are_flat_and_finite_numbers(analysis):
    scalars = analysis.to_scalars()
    assert all(type(value) is float and np.isfinite(value) for value in scalars.values())
    few, many = analysis["few"], analysis["many"]
    interval = few.efficiency_interval()
    assert scalars["few/efficiency"] == few.efficiency()
    assert scalars["few/efficiency_lower"] == interval.lower
    assert scalars["few/efficiency_upper"] == interval.upper
    assert scalars["few/distinct"] == few.distinct
    assert many.sample_limited
    assert "many/efficiency" not in scalars
    assert scalars["many/efficiency_lower_bound"] == many.efficiency_lower_bound
    assert scalars["network_efficiency_lower_bound"] == analysis.network_efficiency()
    assert "network_efficiency" not in scalars
    assert scalars["accuracy"] == analysis.accuracy
    assert scalars["aiq"] == analysis.aiq()
    assert analysis.to_scalars("a/") == {f"a/{name}": value for name, value in scalars.items()}


def test_the_network_has_an_interval_where_all_layers_do(tmp_path):
    rows = numbered_rows(np.random.default_rng(1).integers(0, 4, 900), 1)
    found = tsstore.analyze(write_layers(tmp_path / "run", {"a": layer(rows)}))
    scalars = found.to_scalars()
    assert scalars["network_efficiency"] == found.network_efficiency()
    assert scalars["network_efficiency_lower"] == found.network_interval().lower
    assert "accuracy" not in scalars
    plain = tsstore.analyze(tmp_path / "run", intervals=False).to_scalars()
    assert "a/efficiency_lower" not in plain


def test_the_first_columns_make_a_papers_table(analysis):
    frame = analysis.to_frame()
    assert list(frame)[:8] == [
        "neurons", "samples", "distinct", "efficiency", "efficiency_interval_lower",
        "efficiency_interval_upper", "efficiency_lower_bound", "verdict",
    ]  # fmt: skip
    assert set(frame) > {"rows", "entropy_bits", "richness", "threshold", "reason"}
    assert len(set(frame)) == len(list(frame))
    assert frame.iloc[:, :8].to_csv().splitlines()[1].startswith("few,8,900,4,")


def test_a_dataset_has_the_numbers_by_layer(analysis):
    dataset = analysis.to_xarray()
    frame = analysis.to_frame()
    assert dataset["layer"].values.tolist() == ["few", "many"]
    for name in ("neurons", "efficiency", "verdict", "coverage"):
        assert dataset[name].values.tolist() == frame[name].tolist()
    assert dataset.attrs["run"] == analysis.run
    assert dataset.attrs["accuracy"] == analysis.accuracy
    again = dataset[["neurons", "efficiency"]].to_dataframe()
    pd.testing.assert_frame_equal(again, frame[["neurons", "efficiency"]], check_dtype=False)


def test_without_xarray_it_is_said_what_to_install(analysis, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(AnalysisError, match=r"install tsstore\[xarray\]"):
        analysis.to_xarray()
