from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from helpers import draw_batch, write_run
from state_tables import WIDTHS, expected, most_frequent
from synthetic import draw_layer, layer, numbered_rows, write_layers

import tsstore
from tsstore import bits
from tsstore.analysis.states import distinct as counting


def shown(everything, most):
    """Return the states to be shown, in order: those seen once only where all there are fit."""
    ordered = sorted(everything, key=lambda state: (-everything[state][0], state))
    levels = Counter(multiplicity for multiplicity, _ in everything.values())
    last = everything[ordered[:most][-1]][0]
    cut_off = sum(everything[state][0] >= last for state in ordered) > most
    if cut_off and (last == 1 or len(levels) == 1):
        return [state for state in ordered if everything[state][0] > last]
    return ordered[:most]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_most_frequent_come_first_and_then_those_of_smaller_bytes(tmp_path, width):
    parts = [draw_layer(seed, 80, width, distinct=70) for seed in (1, 2)]
    states = write_layers(tmp_path / "run", *({"a": part} for part in parts))["a"]
    everything = expected(*parts)
    for count in (1, 7, 1_000):
        frame = most_frequent(states, count)
        assert list(frame) == ["state", "neurons_on", "multiplicity", "share", "incidence"]
        assert frame["state"].tolist() == shown(everything, count)
        counts = zip(frame["multiplicity"], frame["incidence"], strict=True)
        assert list(counts) == [everything[state] for state in frame["state"]]
        assert frame["share"].tolist() == (frame["multiplicity"] / states.rows).tolist()
        on = [sum(byte.bit_count() for byte in state) for state in frame["state"]]
        assert frame["neurons_on"].tolist() == on
    assert most_frequent(states)["state"].tolist() == shown(everything, 20)


@pytest.mark.parametrize("width", [2, 9, 17])
def test_ties_are_broken_by_bytes_however_states_are_counted(tmp_path, monkeypatch, width):
    numbers = np.random.default_rng(1).permutation(256)
    numbers = np.concatenate([numbers, numbers, [255, 255]])
    states = write_layers(tmp_path / "run", {"a": layer(numbered_rows(numbers, width))})["a"]
    first = [bytes(row) for row in numbered_rows(np.array([255, 0, 1, 2, 3]), width)]
    assert most_frequent(states, 5)["state"].tolist() == first
    monkeypatch.setattr(counting, "PIECE_BYTES", 1)
    again = tsstore.states(tmp_path / "run", "a", 5)
    assert again.to_frame()["state"].tolist() == first
    assert again.multiplicity.tolist() == [4, 2, 2, 2, 2]
    assert again.sentences == [
        "5 of 256 states, in 2.33 % of the 514 rows.",
        "Of 255 states that occurred twice, 4 are shown: first by their bytes.",
    ]


@pytest.mark.parametrize(("times", "word"), [(1, "once"), (2, "twice"), (3, "3 times")])
def test_states_that_are_all_alike_are_counted_and_not_shown(tmp_path, times, word):
    rows = layer(numbered_rows(np.arange(10_000).repeat(times), 8))
    write_layers(tmp_path / "run", {"a": rows})
    found = tsstore.states(tmp_path / "run", "a")
    assert len(found) == 0
    assert found.distinct == 10_000
    assert found.to_frame().empty
    assert str(found).splitlines()[1:] == [
        f"All 10,000 states of a occurred {word}, so that none is more frequent than another."
    ]
    assert "■" not in found._repr_html_()
    few = tsstore.states(tmp_path / "run", "a", 10_000)
    assert len(few) == 10_000
    assert few.sentences == ["These are all 10,000 states."]


def test_states_that_occurred_once_are_left_out_where_others_are_shown(tmp_path):
    numbers = np.concatenate([[7] * 3, [9] * 2, np.arange(100, 150)])
    write_layers(tmp_path / "run", {"a": layer(numbered_rows(numbers, 2))})
    found = tsstore.states(tmp_path / "run", "a")
    assert found.multiplicity.tolist() == [3, 2]
    assert found.sentences == [
        "2 of 52 states, in 9.09 % of the 55 rows.", "The other 50 states occurred once."
    ]  # fmt: skip


def test_states_are_drawn_a_block_a_neuron_the_first_one_first(tmp_path):
    batch = draw_batch(np.random.default_rng(1), 90)
    write_run(tmp_path / "run", [batch, batch])
    found = tsstore.states(tmp_path / "run", "fc.2", 100)
    assert len(found) > 3
    drawn = [cells[0] for cells in found.cells()]
    decoded = bits.unpack(found.state, 13)
    assert drawn == ["".join("□■"[on] for on in row) for row in decoded.astype(int)]
    assert np.array_equal(found.decode(), decoded)
    lines = str(found).splitlines()
    assert lines[0] == f"{tmp_path / 'run'}: layer fc.2"
    assert lines[1].split() == ["state", "neurons", "on", "rows", "share", "of", "rows", "samples"]
    assert "A block is a neuron, neuron 0 first: ■ on, □ off." in lines
    digits = [cells[0] for cells in found.cells(hex=True)]
    assert digits == [row.tobytes().hex() for row in found.state]
    assert "Two hexadecimal digits" in found.table(hex=True)


@pytest.mark.parametrize(("width", "lines"), [(4, 1), (5, 2), (16, 4), (17, 4), (40, 4)])
def test_drawings_of_wide_states_take_some_lines_and_no_more(tmp_path, width, lines):
    write_layers(tmp_path / "run", {"a": draw_layer(1, 50, width, distinct=30)})
    found = tsstore.states(tmp_path / "run", "a", 1)
    cells = found.cells()
    assert len(cells) == lines
    drawn = "".join(first for first, *_ in cells)
    on = "".join("□■"[bit] for bit in found.decode()[0].astype(int))
    assert drawn == on if width <= 16 else drawn == on[:128] + "…"
    assert all(len(first.rstrip("…")) <= 32 for first, *_ in cells)
    assert all(numbers == ["", "", "", ""] for _, *numbers in cells[1:])
    assert ("first 128 of" in str(found)) == (width > 16)
    assert max(map(len, str(found).splitlines()[1:-2])) <= 80


def test_what_is_found_is_a_json_document(tmp_path):
    part = draw_layer(1, 50, 40, distinct=30)
    store = write_layers(tmp_path / "run", {"a": part})
    found = tsstore.states(store, "a", 1)
    document = json.loads(found.to_json())
    (state,) = document.pop("states")
    (first,) = shown(expected(part), 1)
    assert state.pop("state") == first.hex()
    assert state == found.to_frame().drop(columns="state").to_dict(orient="records")[0]
    assert document == {
        "run": str(tmp_path / "run"),
        "layer": "a",
        "neurons": 320,
        "rows": len(part.rows),
        "distinct": len(expected(part)),
        "sentences": found.sentences,
    }
