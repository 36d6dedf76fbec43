"""How an analysis shows itself, as text and in notebooks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from tsstore.analysis.results import efficiency_text
from tsstore.store.display import html_table, printable, text_table

if TYPE_CHECKING:
    from tsstore.analysis.results import Analysis, LayerResult

HEADINGS = ("layer", "neurons", "samples", "rows", "distinct", "efficiency", "verdict")


def layer_cells(layer: LayerResult) -> tuple[str, ...]:
    """Return a layer's line of the table."""
    return (
        printable(layer.name),
        f"{layer.neurons:,}",
        f"{layer.samples:,}",
        f"{layer.rows:,}",
        f"{layer.distinct:,}",
        efficiency_text(layer),
        layer.verdict,
    )


def network_lines(analysis: Analysis) -> list[str]:
    """Return what is said of the whole network, a line each."""
    sign = "≥" if analysis.is_lower_bound else "="
    lines = [f"network efficiency {sign} {analysis.network_efficiency():.3f}"]
    if analysis.accuracy is not None:
        lines.append(f"accuracy = {analysis.accuracy:.4f}")
        lines.append(f"aIQ {sign} {analysis.aiq():.3f}")
    return lines


def analysis_text(analysis: Analysis) -> str:
    """Return an analysis as aligned text."""
    rows = [HEADINGS, *(layer_cells(layer) for layer in analysis.values())]
    return "\n".join(
        [
            f"<Analysis {printable(analysis.run)}>",
            *text_table(rows),
            "  " + " · ".join(network_lines(analysis)),
            f"  {analysis.sentence}",
        ]
    )


def analysis_html(analysis: Analysis) -> str:
    """Return an analysis as an HTML table with its sentences."""
    table = html_table(HEADINGS, [layer_cells(layer) for layer in analysis.values()])
    return (
        f"<b>Analysis</b> <code>{escape(printable(analysis.run))}</code>{table}"
        f"<p>{escape(' · '.join(network_lines(analysis)))}<br>{escape(analysis.sentence)}</p>"
    )
