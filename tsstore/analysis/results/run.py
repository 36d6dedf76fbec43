"""What an analysis found in a run, as it is shown and handed on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tsstore.analysis.results import display
from tsstore.analysis.results.export import analysis_document, table_row
from tsstore.analysis.results.layer_result import LayerResult
from tsstore.analysis.results.network import NetworkNumbers

if TYPE_CHECKING:
    import pandas as pd


class Analysis(NetworkNumbers[LayerResult]):
    """What was found in a run: a mapping from layer names to results; made by `analyze`."""

    @property
    def sentence(self) -> str:
        """Which layers need more samples, and how many."""
        return display.sentence(self)

    @property
    def warnings(self) -> list[str]:
        """What speaks against most numbers, in sentences; they lead the table."""
        return display.warning_lines(self)

    def table(self, verbose: bool = False) -> str:
        """Return the table of layers and what is said of the network, as text.

        Parameters
        ----------
        verbose
            With rows, plug-ins, their caps, and the reason of each verdict.
        """
        return display.analysis_text(self, verbose)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them."""
        return analysis_document(self)

    def to_json(self) -> str:
        """Return :meth:`to_dict` as a JSON document."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_frame(self) -> pd.DataFrame:
        """Return the layers' numbers as a table, one line a layer."""
        import pandas as pd

        rows = {name: table_row(layer) for name, layer in self.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return display.analysis_html(self)
