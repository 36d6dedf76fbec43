"""The numbers of an analysis as other tools take them: flat, or with named axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tsstore.errors import AnalysisError

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd
    import xarray as xr

OF_LAYER = ("entropy_bits", "entropy_lower_bound_bits", "distinct", "coverage")
OF_NETWORK = ("samples", "accuracy", "aiq")


def flat_scalars(document: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of `Analysis.to_dict` that a curve over training is drawn of, by name.

    What there is not is left out. An estimate that its layer has too few samples for is none.
    """
    found: dict[str, Any] = {}
    for name, layer in document["layers"].items():
        numbers = {key: layer[key] for key in OF_LAYER}
        numbers["efficiency_lower_bound"] = layer["efficiency_lower_bound"]
        if layer["verdict"] != "sample-limited":
            numbers |= _with_ends("efficiency", layer["efficiency"], layer["efficiency_interval"])
        found |= {f"{name}/{key}": value for key, value in numbers.items()}
    efficiency = document["network_efficiency"]
    if document["network_efficiency_is_lower_bound"]:
        found["network_efficiency_lower_bound"] = efficiency
    else:
        interval = document["network_efficiency_interval"]
        found |= _with_ends("network_efficiency", efficiency, interval)
    found |= {key: document[key] for key in OF_NETWORK}
    return {prefix + key: float(value) for key, value in found.items() if value is not None}


def dataset_of(frame: pd.DataFrame, attributes: Mapping[str, Any]) -> xr.Dataset:
    """Return a table as an xarray Dataset along its index; AnalysisError without xarray."""
    found: xr.Dataset = _xarray().Dataset.from_dataframe(frame).assign_attrs(attributes)
    return found


def data_array(
    values: npt.NDArray[Any], dims: Sequence[str], name: str, attributes: Mapping[str, Any]
) -> xr.DataArray:
    """Return an array as an xarray DataArray; AnalysisError without xarray."""
    array: xr.DataArray = _xarray().DataArray(values, dims=dims, name=name, attrs=dict(attributes))
    return array


def _xarray() -> Any:
    try:
        import xarray
    except ImportError:
        raise AnalysisError(
            "arrays with named axes need the package xarray, which is not installed; install "
            "tsstore[xarray]"
        ) from None
    return xarray


def _with_ends(name: str, value: float, interval: Mapping[str, Any] | None) -> dict[str, Any]:
    ends = interval or {}
    return {name: value, f"{name}_lower": ends.get("lower"), f"{name}_upper": ends.get("upper")}
