"""What was found in one layer."""

from __future__ import annotations

from typing import Any

from tsstore.analysis.results.display import layer_text
from tsstore.analysis.results.export import layer_document
from tsstore.analysis.results.layer import LayerNumbers


class LayerResult(LayerNumbers):
    """What was counted in one layer, and what follows from it, as a document and as text."""

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them."""
        return layer_document(self)

    def __repr__(self) -> str:
        return layer_text(self)
