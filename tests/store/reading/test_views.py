"""Views of a run: samples that meet conditions, layers by patterns."""

from __future__ import annotations

import tempfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import draw_layer, write_layers

from tsstore import bits
from tsstore.errors import RowIndexError, StoreError, UnknownLayerError
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.maintenance.compact import compact
from tsstore.store.reading.conditions import parse_value

NAMES = ("conv_1", "conv_2", "fc")


class Drawn:
    """A run of some parts, and what it holds as arrays."""

    def __init__(self, path, sizes, steps=None, largest=4):
        rng = np.random.default_rng(sum(sizes))
        columns, layers = [], []
        for number, size in enumerate(sizes):
            columns.append(
                {
                    "label": rng.integers(0, 3, size),
                    "loss": rng.integers(0, 3, size) / 2,
                    "right": rng.integers(0, 2, size).astype(bool),
                    "split": np.array([f"s{n % 2}" for n in range(size)], object),
                }
            )
            drawn = (draw_layer(7 * number + n, size, 2 + n, largest=largest) for n in range(3))
            layers.append(dict(zip(NAMES, drawn, strict=True)))
            step = None if steps is None else steps[number]
            self.store = write_layers(
                path,
                layers[-1],
                columns=columns[-1],
                part=PartAttributes(number, len(sizes), step=step),
                chunk_bytes=32,
            )
        self.columns = {name: np.concatenate([own[name] for own in columns]) for name in columns[0]}
        self.rows = {name: np.concatenate([own[name].rows for own in layers]) for name in NAMES}
        self.positions = {
            name: np.concatenate([own[name].positions for own in layers]) for name in NAMES
        }

    def check(self, view, kept):
        """Check that a view shows those samples alone, in whatever way it is asked."""
        assert view.samples == kept.sum()
        for name, values in self.columns.items():
            assert view.column(name).tolist() == values[kept].tolist()
        assert view.samples_frame()["label"].tolist() == self.columns["label"][kept].tolist()
        for name, states in view.items():
            positions = self.positions[name]
            rows = self.rows[name][np.repeat(kept, positions)]
            assert (states.samples, states.rows, len(states)) == (kept.sum(), len(rows), len(rows))
            np.testing.assert_array_equal(states.read_positions(), positions[kept])
            np.testing.assert_array_equal(states[:], rows)
            np.testing.assert_array_equal(states[1:-1:2], rows[1:-1:2])
            np.testing.assert_array_equal(np.array([*states]).reshape(rows.shape), rows)
            np.testing.assert_array_equal(states.to_dask().compute(scheduler="sync"), rows)
            if len(rows):
                np.testing.assert_array_equal(
                    states.decode([-1, 0]), bits.unpack(rows[[-1, 0]], 8 * rows.shape[1])
                )
            blocks = [states.read_block(block) for block in states.blocks(5)]
            read = [own for own, _ in blocks] + [rows[:0]]
            np.testing.assert_array_equal(np.concatenate(read), rows)
            with pytest.raises(RowIndexError):
                states[len(rows)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Drawn(tmp_path_factory.mktemp("views") / "run", [40, 3, 25], steps=[1, 2, 2])


def draw_kept(data, samples):
    return np.array(data.draw(st.lists(st.booleans(), min_size=samples, max_size=samples)), bool)


@settings(max_examples=8, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    largest=st.integers(1, 3),
    data=st.data(),
)
def test_a_view_shows_what_numpy_would_select(sizes, largest, data):
    with tempfile.TemporaryDirectory() as folder:
        run = Drawn(folder, sizes, largest=largest)
        kept = draw_kept(data, sum(sizes))
        view = run.store.filter(kept)
        run.check(view, kept)
        again = draw_kept(data, int(kept.sum()))
        kept[kept] = again
        run.check(view.filter(again), kept)


def test_values_of_columns_choose_samples(run):
    label, split = run.columns["label"], run.columns["split"]
    run.check(run.store.filter(label=1), label == 1)
    run.check(run.store.filter(label=np.int8(1), split="s0"), (label == 1) & (split == "s0"))
    run.check(
        run.store.filter(right=True).filter(loss=0.5).filter(),
        run.columns["right"] & (run.columns["loss"] == 0.5),
    )
    run.check(run.store.filter(loss=1), run.columns["loss"] == 1)


def test_a_series_is_aligned_by_its_index(run):
    frame = run.store.samples_frame()
    kept = run.columns["label"] != 1
    chosen = frame["label"].isin([0, 2])
    run.check(run.store.filter(chosen), kept)
    run.check(run.store.filter(chosen.sample(frac=1, random_state=0)), kept)
    view = run.store.filter(split="s1")
    both = kept & (run.columns["split"] == "s1")
    run.check(view.filter(chosen), both)
    run.check(view.filter(view.samples_frame()["label"].isin([0, 2])), both)
    run.check(view.filter((view.samples_frame()["label"] != 1).to_numpy()), both)
    at_two = np.arange(68) >= 40
    assert run.store.at_step(2).filter(chosen).column("loss").tolist() == (
        run.columns["loss"][kept & at_two].tolist()
    )


def test_what_cannot_be_aligned_is_refused(run):
    frame = run.store.samples_frame()
    view = run.store.filter(label=1)
    for wrong, why in [
        (frame["right"].iloc[1:], "1 sample of part-00000-00000 are missing"),
        (pd.concat([frame["right"], frame["right"]]), "come twice"),
        (
            frame["right"].reset_index(drop=True),
            "a Series of booleans with the index of",
        ),
        (frame["label"], "found a Series of int64"),
        (frame[["label"]] == 1, "found a DataFrame of bool"),
        (frame["right"].to_numpy()[1:], "a boolean for each of the 68 samples"),
        (frame["label"].to_numpy(), "found int64"),
    ]:
        with pytest.raises(StoreError, match=why):
            run.store.filter(wrong)
    with pytest.raises(StoreError, match="are missing"):
        run.store.filter(view.samples_frame()["right"])


def test_a_value_that_never_occurs_is_an_error_that_names_the_others(run):
    with pytest.raises(StoreError, match=r"no sample has label = 7; it has 0, 1, 2$"):
        run.store.filter(label=7)
    with pytest.raises(StoreError, match=r"no sample has split = 's0'; it has 's1'$"):
        run.store.filter(split="s1").filter(split="s0")
    with pytest.raises(StoreError, match="'label' is int64; found '1'"):
        run.store.filter(label="1")
    with pytest.raises(StoreError, match="found True"):
        run.store.filter(label=True)
    with pytest.raises(StoreError, match="no sample column 'nothing'; it has label, loss"):
        run.store.filter(nothing=1)


def test_many_values_are_counted_rather_than_named(tmp_path):
    columns = {"id": np.arange(3_000), "few": np.arange(3_000) % 40}
    store = write_layers(tmp_path, {"a": draw_layer(0, 3_000, 1)}, columns=columns)
    with pytest.raises(StoreError, match=r"it has more than [\d,]+ others$"):
        store.filter(id=-1)
    with pytest.raises(StoreError, match=r"it has 40 others, such as 0, 1, 2"):
        store.filter(few=-1)


def test_text_is_read_as_the_column_s_type(run):
    parts = run.store.parts
    assert parse_value(parts, "label", "2") == 2
    assert parse_value(parts, "loss", "0.5") == 0.5
    assert parse_value(parts, "right", "False") is False
    assert parse_value(parts, "split", "2") == "2"
    with pytest.raises(StoreError, match="column label is int64; found 'two', expected a number"):
        parse_value(parts, "label", "two")
    with pytest.raises(StoreError, match="expected true or false"):
        parse_value(parts, "right", "yes")


def test_the_table_of_samples_tells_their_step_and_part(run):
    frame = run.store.samples_frame()
    assert list(frame.columns) == ["label", "loss", "right", "split"]
    steps = frame.index.get_level_values("step").tolist()
    assert steps == [1] * 40 + [2] * 28
    assert frame.index.get_level_values("part").nunique() == 3
    view = run.store.filter(split="s1").samples_frame()
    assert view.equals(frame[frame["split"] == "s1"])
    assert frame.groupby(level="step").size().tolist() == [40, 28]


def test_layers_are_selected_by_name_and_pattern(run):
    assert run.store.select("fc", "conv*").layers == ("fc", "conv_1", "conv_2")
    assert run.store.select("conv_1_post_states").layers == ("conv_1",)
    view = run.store.select("conv_?").filter(label=1)
    assert [*view] == ["conv_1", "conv_2"]
    assert [*view.at_step(2)] == ["conv_1", "conv_2"]
    run.check(view, run.columns["label"] == 1)
    with pytest.raises(UnknownLayerError, match=r"has no layer 'fc'; it has conv_1, conv_2"):
        view.select("fc")
    with pytest.raises(UnknownLayerError, match=r"has no layer 'no\*'"):
        run.store.select("no*")


def test_steps_are_those_of_the_samples_that_are_shown(run):
    first = np.arange(68) < 40
    assert run.store.filter(first).steps == (1,)
    assert run.store.at_step(1).filter(label=1).steps == (1,)
    of_step = run.store.at_step(1).filter(label=1)
    assert run.store.filter(label=1).at_step(1).samples == of_step.samples


def test_a_view_says_what_it_shows_and_what_cannot_be_done_with_it(run, tmp_path):
    view = run.store.filter(label=1, split="s0")
    assert "where label = 1, split = s0" in repr(view)
    with pytest.raises(StoreError, match="refresh the store that this is a view of"):
        view.refresh()
    with pytest.raises(StoreError, match="zarr_group shows whole arrays"):
        _ = view.zarr_group
    with pytest.raises(StoreError, match="a run is compacted whole"):
        compact(run.store.select("fc"), tmp_path / "out")
    assert view.pinned().samples == view.samples


def test_arrays_of_different_views_have_different_tokens(run):
    first, second = (run.store.filter(label=n)["fc"].to_dask() for n in (0, 1))
    assert first.name != second.name
    assert first.name == run.store.filter(label=0)["fc"].to_dask().name
