"""What results by layer have in common: names, their old spellings, JSON."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from tsstore.errors import UnknownLayerError
from tsstore.store.reading.by_name import aliases
from tsstore.text import printable

Result = TypeVar("Result", covariant=True)


class ByLayer(Mapping[str, Result]):
    """A mapping from layer names, whose numbers are also a JSON document."""

    layers: Mapping[str, Any]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them."""

    def to_json(self) -> str:
        """Return `to_dict` as a JSON document."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def _find(self, name: str, none_such: str) -> Any:
        """Return what there is of a layer, by any of its names; an error lists those there are."""
        for candidate in aliases(name):
            if candidate in self.layers:
                return self.layers[candidate]
        held = ", ".join(map(printable, self.layers))
        raise UnknownLayerError(f"{none_such} {held}")
