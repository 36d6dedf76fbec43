"""Layers that were analysed one by one give the numbers of one analysis of all."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
from synthetic import draw_layer, layer, numbered_rows, write_layers
from typer.testing import CliRunner

import tsstore
from tsstore.commands.app import app
from tsstore.errors import AccessError, AnalysisError, FormatError

SAMPLES = 1200
NETWORK = (
    "run",
    "samples",
    "network_efficiency",
    "network_efficiency_interval",
    "network_efficiency_is_lower_bound",
    "network_efficiency_plug_in",
    "accuracy",
    "aiq",
    "aiq_interval",
)


def layers_of(kind):
    """Return layers of which all can be told, one cannot, or one shows that samples depend."""
    layers = {
        "a": draw_layer(1, SAMPLES, 2, distinct=200),
        "b:before": draw_layer(2, SAMPLES, 1, distinct=30),
        "c": draw_layer(3, SAMPLES, 8, distinct=12, largest=1),
    }
    if kind == "limited":
        layers["c"] = layer(numbered_rows(np.arange(SAMPLES), 8))
    if kind == "dependent":
        layers["c"] = layer(numbered_rows(np.arange(SAMPLES) // 2, 8))
    return layers


def write(path, kind="good", columns=True, **changes):
    rng = np.random.default_rng(5)
    label = rng.integers(0, 10, SAMPLES)
    answers = {"label": label, "prediction": np.where(rng.random(SAMPLES) < 0.9, label, 11)}
    ids = {"id": np.arange(SAMPLES), "patient": np.arange(SAMPLES) // 3, **changes}
    return write_layers(path, layers_of(kind), columns={**ids, **(answers if columns else {})})


def one_by_one(store, names=None, **options):
    """Return what is kept of each layer's analysis: a document of text."""
    names = names or store.layers
    return [json.loads(tsstore.analyze(store, name, **options).to_json()) for name in names]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write(tmp_path_factory.mktemp("combining") / "run.zarr")


@pytest.fixture(scope="module")
def documents(store):
    return one_by_one(store)


@pytest.mark.parametrize(
    ("kind", "columns", "options"),
    [
        ("good", True, {}),
        ("limited", True, {}),
        ("dependent", True, {}),
        ("good", False, {"intervals": False}),
        ("good", True, {"dependent_by": "patient"}),
        ("good", True, {"unique_by": "patient"}),
    ],
)
def test_layers_one_by_one_give_the_network_bit_for_bit(tmp_path, kind, columns, options):
    store = write(tmp_path / "run.zarr", kind, columns)
    whole = tsstore.analyze(store, **options)
    combined = tsstore.combine(one_by_one(store, **options))
    expected, found = whole.to_dict(), combined.to_dict()
    assert {name: found[name] for name in NETWORK} == {name: expected[name] for name in NETWORK}
    verdicts = {name: layer.verdict for name, layer in whole.items()}
    assert {name: layer.verdict for name, layer in combined.items()} == verdicts
    assert whole.is_lower_bound == (kind != "good")
    for level in (0.5, 0.99):
        for rare in (False, True):
            own = [of.network_interval(level, unseen_like_rare=rare) for of in (whole, combined)]
            assert own[0] == own[1]
    assert combined.aiq(0.5, 0.7) == whole.aiq(0.5, 0.7)


def test_documents_may_hold_several_layers_and_lie_in_files(store, documents, tmp_path):
    two = json.loads(tsstore.analyze(store, ["b:before", "c"]).to_json())
    paths = [tmp_path / "a.json", tmp_path / "others.json"]
    for path, document in zip(paths, (documents[0], two), strict=True):
        path.write_text(json.dumps(document))
    combined, whole = tsstore.combine(paths), tsstore.analyze(store)
    assert tsstore.combine([whole]).to_dict()["layers"] == combined.to_dict()["layers"]
    assert list(combined) == ["a", "b:before", "c"]
    assert combined["b_pre_states"].neurons == 8
    assert combined.network_interval() == whole.network_interval()
    table = repr(whole).splitlines()
    assert repr(combined).splitlines()[1:] == table[1:6]


def test_the_command_prints_the_network_as_a_table_and_as_json(documents, tmp_path):
    paths = []
    for number, document in enumerate(documents):
        paths.append(str(tmp_path / f"{number}.json"))
        (tmp_path / f"{number}.json").write_text(json.dumps(document))
    shown = CliRunner().invoke(app, ["combine", *paths])
    assert shown.exit_code == 0
    heading, *lines = shown.stdout.splitlines()
    assert heading.split() == ["layer", "neurons", "samples", "distinct", "efficiency", "verdict"]
    assert lines[3].startswith("network efficiency = ")
    told = CliRunner().invoke(app, ["combine", *paths, "--json"])
    versions = {"schema": 1, "tsstore": tsstore.__version__}
    assert json.loads(told.stdout) == versions | tsstore.combine(documents).to_dict()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"intervals": False}, "of another intervals than document 1: False, not True"),
        ({"unique_by": "patient"}, "of another unique_by than"),
        ({"repeats": "each"}, "of another repeats than"),
    ],
)
def test_other_arguments_are_refused(store, documents, options, what):
    (other,) = one_by_one(store, ["b:before"], **options)
    with pytest.raises(AnalysisError, match=f"^document 2 is {what}"):
        tsstore.combine([documents[0], other])


def test_other_runs_commits_and_versions_are_refused(store, documents, tmp_path):
    (other,) = one_by_one(write(tmp_path / "run.zarr"), ["b:before"])
    with pytest.raises(AnalysisError, match=r"of another run than .*; analyse all layers of the"):
        tsstore.combine([documents[0], other])
    for place, what in [(("question", "commit"), "commit"), (("answers",), "answers")]:
        other = copy.deepcopy(documents[1])
        held = other["for_combining"]
        for name in place[:-1]:
            held = held[name]
        held[place[-1]] = "x" if what == "commit" else [[1, 2], [2, 2]]
        with pytest.raises(AnalysisError, match=f"of another {what} than document 1"):
            tsstore.combine([documents[0], other])
    other = copy.deepcopy(documents[1])
    other["for_combining"]["question"]["tsstore"] = "0.0"
    with pytest.raises(AnalysisError, match=r"another version of tsstore than document 1: '0\.0'"):
        tsstore.combine([documents[0], other])


def test_a_layer_that_comes_twice_and_nothing_at_all_are_refused(documents):
    with pytest.raises(AnalysisError, match="layer a was in an earlier document, too"):
        tsstore.combine([documents[0], documents[0]])
    with pytest.raises(AnalysisError, match="nothing to combine"):
        tsstore.combine([])


def test_one_document_is_a_network(documents):
    assert list(tsstore.combine(documents[0])) == list(tsstore.combine(documents[:1]))
    with pytest.raises(AccessError, match=r"no\.json cannot be read"):
        tsstore.combine("no.json")


def test_samples_of_one_id_that_single_layers_tell_apart_are_refused(tmp_path):
    ids = np.arange(SAMPLES)
    ids[-5:] = ids[:5]
    store = write(tmp_path / "run.zarr", id=ids)
    with pytest.raises(AnalysisError, match=r"5 samples have the id of another .*--unique-by id"):
        tsstore.combine(one_by_one(store, ["a", "b:before"]))
    for options in ({"unique_by": "id"}, {"repeats": "each"}):
        combined = tsstore.combine(one_by_one(store, **options))
        whole = tsstore.analyze(store, **options)
        assert combined.network_interval() == whole.network_interval()


def test_a_file_that_is_no_analysis_is_an_error_that_says_what_is(documents, tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(AccessError, match=r"a\.json cannot be read \(No such file"):
        tsstore.combine([path])
    for text in ("", "[1]", "{", "[" * 100_000, '"x"'):
        path.write_text(text)
        with pytest.raises(FormatError, match=r"a\.json"):
            tsstore.combine([path])
    with pytest.raises(FormatError, match="document 1 is no JSON document of an analysis"):
        tsstore.combine([{"layers": {1j}}])
    newer = copy.deepcopy(documents[0])
    newer["for_combining"]["version"] = 2
    for document in ({}, {"for_combining": None}, newer):
        with pytest.raises(FormatError, match="no analysis that can be combined by this version"):
            tsstore.combine([document])


WRONG = (None, "x", -1, [], {}, math.nan, 10**400)


def paths_in(document, at=()):
    if isinstance(document, dict):
        for name, value in document.items():
            yield (*at, name)
            yield from paths_in(value, (*at, name))


def test_whatever_a_document_holds_there_is_an_error_of_ours_or_a_number(documents):
    places = list(paths_in(documents[0]["for_combining"]))
    outcomes = set()
    for place in places:
        for wrong in WRONG:
            document = copy.deepcopy(documents[0])
            held = document["for_combining"]
            for name in place[:-1]:
                held = held[name]
            held[place[-1]] = wrong
            try:
                found = tsstore.combine([document])
                found.to_json(), repr(found)
                outcomes.add("number")
            except tsstore.TsstoreError as error:
                outcomes.add(type(error).__name__)
    assert outcomes <= {"number", "FormatError", "AnalysisError"}
    assert "FormatError" in outcomes
