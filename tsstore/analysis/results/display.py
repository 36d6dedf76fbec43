"""How results show themselves, as text and in notebooks."""

from __future__ import annotations

from html import escape

from tsstore.analysis.results.estimates import PLUG_IN
from tsstore.analysis.results.layer import PER_SAMPLE, LayerNumbers
from tsstore.analysis.results.network import NetworkNumbers
from tsstore.statistics.intervals import Interval
from tsstore.text import printable, text_table

HEADINGS = ("layer", "neurons", "samples", "distinct", "efficiency", "verdict")
VERBOSE_HEADINGS = (*HEADINGS[:3], "rows", *HEADINGS[3:5], "plug-in", "cap", HEADINGS[5])

_PER_SAMPLE = "a per-sample target: samples of different length weigh the same"

MANY_DEPENDENT = 0.05
"""Of the samples: where more have the id of another one and other rows, that leads the table."""

MOST_NAMED = 4
"""So many layers, and numbers of samples, the sentence names; of more it tells how many."""


def headings(verbose: bool = False) -> tuple[str, ...]:
    """Return the headings of the table of layers; verbose: with rows, plug-in and its cap."""
    return VERBOSE_HEADINGS if verbose else HEADINGS


def layer_cells(layer: LayerNumbers, verbose: bool = False) -> tuple[str, ...]:
    """Return a layer's line of the table."""
    cells = {
        "layer": printable(layer.name),
        "neurons": f"{layer.neurons:,}",
        "samples": f"{layer.samples:,}",
        "rows": f"{layer.rows:,}",
        "distinct": f"{layer.distinct:,}",
        "efficiency": efficiency_text(layer),
        "plug-in": f"{layer.efficiency(PLUG_IN):.3f}",
        "cap": f"{layer.cap / layer.neurons:.3f}",
        "verdict": layer.verdict,
    }
    return tuple(cells[heading] for heading in headings(verbose))


def efficiency_text(layer: LayerNumbers) -> str:
    """Return an efficiency as it is shown: with its interval, or as a lower bound."""
    if layer.sample_limited:
        return _bounded(layer.efficiency_lower_bound)
    return _with_interval(layer.efficiency(), layer.efficiency_interval())


def layer_text(layer: LayerNumbers) -> str:
    """Return a layer in one line, and the reason of its verdict in another."""
    sampled = sampling_text(layer)
    return (
        f"<LayerResult {printable(layer.name)}: {layer.neurons:,} neurons, "
        f"{layer.samples:,} samples, {layer.distinct:,} distinct states, "
        f"efficiency {efficiency_text(layer)}, {layer.verdict}>\n  {layer.reason}"
        f"{sampled and f' ({sampled})'}"
    )


def network_lines(analysis: NetworkNumbers[LayerNumbers]) -> list[str]:
    """Return what is said of the whole network, a line each."""
    efficiency = analysis.network_efficiency(), analysis.network_interval()
    lines = [f"network efficiency {_equals(analysis, *efficiency)}"]
    if analysis.accuracy is not None:
        lines.append(f"accuracy = {analysis.accuracy:.4f}")
        lines.append(f"aIQ {_equals(analysis, analysis.aiq(), analysis.aiq_interval())}")
    return lines


def sentence(analysis: NetworkNumbers[LayerNumbers]) -> str:
    """Return which layers need more samples, and how many, in one sentence."""
    needs: dict[str, list[str]] = {}
    for layer in analysis.values():
        if layer.sample_limited:
            needs.setdefault(layer.needs, []).append(printable(layer.name))
    if not needs:
        return "" if warning_lines(analysis) else "The samples suffice for every layer."
    first, rest = list(needs.items())[:MOST_NAMED], list(needs.values())[MOST_NAMED:]
    parts = [f"{_listed(names)} need{'s' * (len(names) == 1)} {what}" for what, names in first]
    if others := sum(map(len, rest)):
        parts.append(f"{others} more need more than there are")
    return "; ".join(parts) + "."


def notes(analysis: NetworkNumbers[LayerNumbers]) -> list[str]:
    """Return what else is to be known of the samples, a line each."""
    lines = []
    if left_out := analysis.samples_left_out:
        lines.append(f"{_repeating(left_out)} (left out).")
    if not warning_lines(analysis):
        lines += _dependence_lines(analysis)
    if why := printable(analysis.not_compared):
        lines.append(f"Whether samples repeat others is not known: {why}.")
    return lines + sampling_lines(analysis)


def warning_lines(analysis: NetworkNumbers[LayerNumbers]) -> list[str]:
    """Return what leads the table, a line each: what speaks against most of its numbers."""
    most = MANY_DEPENDENT * analysis.samples
    if analysis.repeats == "each" or (analysis.repeated_samples or 0) <= most:
        return []
    return _dependence_lines(analysis)


def _dependence_lines(analysis: NetworkNumbers[LayerNumbers]) -> list[str]:
    """Return what is said of samples that count though they have the id of another one."""
    number = analysis.repeated_samples
    if not number:
        return []
    if analysis.repeats == "each":
        return [f'{_repeating(number)}, and each counts as a draw of its own (repeats="each").']
    clusters = max((layer.clusters or 0 for layer in analysis.values()), default=0)
    have = "1 sample has" if number == 1 else f"{number:,} of {analysis.samples:,} samples have"
    return [
        f"{have} the id of another one and other rows: samples of one id depend on each other, "
        f'and make {clusters:,} clusters (unique_by="id" counts the first of each id, '
        'repeats="each" takes all for draws).'
    ]


def sampling_lines(analysis: NetworkNumbers[LayerNumbers]) -> list[str]:
    """Return what was left out of layers on purpose, a line for those of which the same was."""
    layers: dict[str, list[str]] = {}
    for layer in analysis.values():
        if phrase := sampling_text(layer):
            layers.setdefault(phrase, []).append(printable(layer.name))
    return [f"{_listed(names)}: {phrase}." for phrase, names in layers.items()]


def sampling_text(layer: LayerNumbers) -> str:
    """Return what was left out of a layer on purpose, in a phrase; empty if nothing was."""
    sampling = layer.sampling or {}
    # What a store says may be anything.
    said = {name: v for name, v in sampling.items() if type(v) is int}
    phrases = []
    here = layer.rows / layer.samples
    if type(share := sampling.get("positions")) is float:
        phrases.append(f"{100 * share:.4g} % of the positions of each sample")
    elif layer.target == PER_SAMPLE:
        lengths = sampling.get("lengths")
        of = f" of {lengths[0]:,} to {lengths[1]:,}" if lengths else ""
        phrases.append(f"positions {here:,.4g}{of}, {_PER_SAMPLE}")
    elif here < (there := said.get("of_positions", 0)):
        phrases.append(f"positions {here:,.4g} of {there:,}")
    if every := said.get("every"):
        phrases.append(f"1 batch of {every:,}")
    if max_bytes := said.get("max_bytes"):
        phrases.append(f"at most {max_bytes:,} bytes of rows")
    return ", ".join(phrases)


def reasons(analysis: NetworkNumbers[LayerNumbers]) -> list[str]:
    """Return the reason of each layer's verdict, a line each."""
    return [f"{printable(layer.name)}: {layer.reason}" for layer in analysis.values()]


def analysis_text(analysis: NetworkNumbers[LayerNumbers], verbose: bool = False) -> str:
    """Return an analysis as aligned text; verbose: with plug-ins and reasons."""
    rows = [headings(verbose), *(layer_cells(layer, verbose) for layer in analysis.values())]
    lines = [" · ".join(network_lines(analysis)), sentence(analysis), *notes(analysis)]
    lines += reasons(analysis) if verbose else []
    title = f"<Analysis {printable(analysis.run)}>"
    leading = (f"  {line}" for line in warning_lines(analysis))
    shown = (f"  {line}" for line in lines if line)
    return "\n".join([title, *leading, *text_table(rows), *shown])


def analysis_html(analysis: NetworkNumbers[LayerNumbers]) -> str:
    """Return an analysis as an HTML table with its sentences.

    Plug-ins, caps and reasons are in the tooltips.
    """
    head = "".join(f"<th>{escape(heading)}</th>" for heading in HEADINGS)
    body = "".join(f"<tr>{_html_cells(layer)}</tr>" for layer in analysis.values())
    lines = [" · ".join(network_lines(analysis)), sentence(analysis), *notes(analysis)]
    leading = "".join(f"<p><b>{escape(line)}</b></p>" for line in warning_lines(analysis))
    return (
        f"<b>Analysis</b> <code>{escape(printable(analysis.run))}</code>{leading}"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<p>{'<br>'.join(map(escape, filter(None, lines)))}</p>"
    )


def _html_cells(layer: LayerNumbers) -> str:
    cells = dict(zip(VERBOSE_HEADINGS, layer_cells(layer, verbose=True), strict=True))
    titles = {
        "distinct": f"in {cells['rows']} rows",
        "efficiency": f"plug-in {cells['plug-in']}, cap {cells['cap']}",
        "verdict": layer.reason,
    }
    return "".join(
        f'<td title="{escape(titles[heading])}">{escape(cells[heading])}</td>'
        if heading in titles
        else f"<td>{escape(cells[heading])}</td>"
        for heading in HEADINGS
    )


def _repeating(samples: int) -> str:
    return "1 sample repeats another one" if samples == 1 else f"{samples:,} samples repeat others"


def _listed(names: list[str]) -> str:
    others = len(names) - MOST_NAMED
    shown = [*names[:MOST_NAMED], f"{others} more"] if others > 0 else names
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if shown[1:] else shown)


def _equals(analysis: NetworkNumbers[LayerNumbers], value: float, interval: Interval | None) -> str:
    if analysis.is_lower_bound:
        return _bounded(value)
    return f"= {_with_interval(value, interval)}"


def _bounded(value: float) -> str:
    return f"≥ {value:.3f}"


def _with_interval(value: float, interval: Interval | None) -> str:
    if interval is None:
        return f"{value:.3f}"
    return f"{value:.3f} [{interval.lower:.3f}, {interval.upper:.3f}]"
