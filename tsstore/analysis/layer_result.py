"""What was found in one layer."""

from __future__ import annotations

from typing import Any

from tsstore.analysis.display import layer_text
from tsstore.analysis.export import layer_document
from tsstore.analysis.layer_numbers import LayerNumbers


class LayerResult(LayerNumbers):
    """What was counted in one layer, and what follows from it, as a document and as text."""

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them."""
        return layer_document(self)

    def __repr__(self) -> str:
        return layer_text(self)
