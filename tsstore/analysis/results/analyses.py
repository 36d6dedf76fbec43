"""What was found in several runs: an analysis of each, by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from tsstore.analysis.results.network import Analysis
from tsstore.errors import UnknownRunError
from tsstore.text import listed, printable

if TYPE_CHECKING:
    import pandas as pd


class Analyses(Mapping[str, Analysis]):
    """Analyses of several runs by name, in the order asked; made by `analyze` of a mapping."""

    def __init__(self, analyses: Mapping[str, Analysis]) -> None:
        self._analyses = dict(analyses)

    def __getitem__(self, name: str) -> Analysis:
        if name not in self._analyses:
            raise UnknownRunError(
                f"no run {name!r:.80} was analysed; there are {listed(list(self._analyses))}"
            )
        return self._analyses[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._analyses)

    def __len__(self) -> int:
        return len(self._analyses)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them: under ``"runs"`` each analysis by its name."""
        return {"runs": {name: analysis.to_dict() for name, analysis in self.items()}}

    def to_json(self) -> str:
        """Return `to_dict` as a JSON document."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_frame(self) -> pd.DataFrame:
        """Return the numbers of all layers, a line each, indexed by run and layer."""
        import pandas as pd

        frames = {name: analysis.to_frame() for name, analysis in self.items()}
        return pd.concat(frames, names=["run"])

    def __repr__(self) -> str:
        return "\n\n".join(f"{printable(name)}\n{analysis!r}" for name, analysis in self.items())

    def _repr_html_(self) -> str:
        return "".join(
            f"<h4>{escape(printable(name))}</h4>{analysis._repr_html_()}"
            for name, analysis in self.items()
        )
