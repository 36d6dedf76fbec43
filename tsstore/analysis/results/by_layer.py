"""What results have in common: how they show themselves, and what they have of each layer."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tsstore.errors import AnalysisError, UnknownLayerError
from tsstore.store.reading.by_name import aliases
from tsstore.text import html_lines, html_table, html_title, printable, text_table

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd
    import xarray as xr

Result = TypeVar("Result", covariant=True)


class Document(ABC):
    """What tells its numbers as a JSON document."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them."""

    def to_json(self) -> str:
        """Return `to_dict` as a JSON document."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)


class Shown(Document):
    """What shows itself as a table, with its subject above and sentences below."""

    subject: Any
    headings: Any
    sentences: Any

    @abstractmethod
    def cells(self) -> Sequence[Sequence[str]]:
        """Return the lines of the table, as the headings name its columns."""

    @property
    def lines(self) -> Sequence[str]:
        """What stands below the table."""
        lines: Sequence[str] = self.sentences
        return lines

    def __repr__(self) -> str:
        title = f"<{type(self).__name__} {printable(self.subject)}>"
        table = text_table([self.headings, *self.cells()])
        return "\n".join([title, *table, *(f"  {line}" for line in self.lines)])

    def _repr_html_(self) -> str:
        title = html_title(type(self).__name__, self.subject)
        return title + html_table(self.headings, self.cells()) + html_lines(self.lines)


class ByLayer(Shown, Mapping[str, Result]):
    """A mapping from layer names, each of which has a line in the table."""

    layers: Mapping[str, Any]

    def __getitem__(self, name: str) -> Result:
        found: Result = self._find(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def cells(self) -> Sequence[Sequence[str]]:
        """Return a line of the table for each layer."""
        return [layer.cells for layer in self.layers.values()]

    def to_frame(self) -> pd.DataFrame:
        """Return the layers' numbers as a table, one line a layer."""
        import pandas as pd

        rows = {name: layer.to_dict() for name, layer in self.layers.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")

    def _find(self, name: str) -> Any:
        """Return what there is of a layer, by any of its names; an error lists those there are."""
        for candidate in aliases(str(name)):
            if candidate in self.layers:
                return self.layers[candidate]
        held = ", ".join(map(printable, self.layers))
        kind = type(self).__name__
        raise UnknownLayerError(
            f"{self.subject}: no layer {name!r:.80} in this {kind}; there are {held}"
        )


def names_by_phrase(said: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return what is said of names, each phrase once, with all names of which that is said."""
    names: dict[str, list[str]] = {}
    for name, phrase in said:
        if phrase:
            names.setdefault(phrase, []).append(name)
    return names


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
