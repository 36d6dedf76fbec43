from __future__ import annotations

from tsstore.analysis.display import (
    HEADINGS,
    analysis_html,
    analysis_text,
    layer_cells,
    network_lines,
)
from tsstore.analysis.results import Analysis, LayerResult
from tsstore.statistics.spectrum import Spectrum

USABLE = Spectrum.from_arrays([2500], [2500], [4])
LIMITED = Spectrum.from_arrays([1], [1], [10_000])

GOLDEN = """\
<Analysis runs/lenet.zarr>
  layer    neurons  samples    rows  distinct                          efficiency         verdict
  conv_1         8   10,000  10,000         4                               0.250          usable
  conv_10      120   10,000  10,000    10,000  ≥ 0.200 (plug-in 0.111, cap 0.111)  sample-limited
  network efficiency ≥ 0.224 · accuracy = 0.9876 · aIQ ≥ 0.602
  1 of 2 layers need more samples."""

HOSTILE = "<script>alert('x')</script>\x1b[31m\n&"


def layer(name: str, spectrum: Spectrum, neurons: int = 8) -> LayerResult:
    return LayerResult(name, neurons, 10_000, spectrum)


def analysis(accuracy: float | None = None, run: str = "runs/lenet.zarr", **names: str) -> Analysis:
    layers = [
        layer(names.get("first", "conv_1"), USABLE),
        layer("conv_10", LIMITED, 120),
    ]
    return Analysis(run, 10_000, {one.name: one for one in layers}, accuracy)


def test_an_analysis_is_a_table_with_its_conclusions():
    assert repr(analysis(0.9876)) == analysis_text(analysis(0.9876)) == GOLDEN


def test_the_table_s_cells_go_with_its_headings():
    cells = layer_cells(layer("conv_1", USABLE))
    assert dict(zip(HEADINGS, cells, strict=True)) == {
        "layer": "conv_1",
        "neurons": "8",
        "samples": "10,000",
        "rows": "10,000",
        "distinct": "4",
        "efficiency": "0.250",
        "verdict": "usable",
    }


def test_without_accuracy_there_is_no_aiq():
    assert network_lines(analysis()) == ["network efficiency ≥ 0.224"]
    assert len(network_lines(analysis(0.9))) == 3


def test_exact_efficiencies_have_an_equals_sign():
    exact = Analysis("run", 10_000, {"a": layer("a", USABLE)}, 0.5)
    assert network_lines(exact) == [
        "network efficiency = 0.250",
        "accuracy = 0.5000",
        "aIQ = 0.397",
    ]


def test_html_has_the_same_table():
    html = analysis_html(analysis(0.9876))
    assert html == analysis(0.9876)._repr_html_()
    for heading in HEADINGS:
        assert f"<th>{heading}</th>" in html
    assert "<td>conv_1</td>" in html
    assert "<td>sample-limited</td>" in html
    assert "1 of 2 layers need more samples." in html
    assert html.count("<tr>") == html.count("</tr>") == 3


def test_names_cannot_smuggle_markup_or_terminal_codes():
    hostile = analysis(run=HOSTILE, first=HOSTILE)
    html = analysis_html(hostile)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "&amp;" in html
    for text in (html, repr(hostile)):
        assert "\x1b" not in text
        assert "\\x1b[31m\\n" in text
    assert repr(hostile).count("\n") == GOLDEN.count("\n")
