from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from helpers import draw_batch, write_run
from hypothesis import given
from hypothesis import strategies as st

from tsstore.errors import DamageError, StoreError
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.reading import ids
from tsstore.store.reading.ids import id_dtype, id_pieces, missing_ids, repeated
from tsstore.store.reading.store import open_store


def parts_of(path, *columns: dict):
    """Write a part for each of some sets of columns, and open them."""
    for held in columns:
        samples = len(next(iter(held.values()))) if held else 3
        write_run(path, [draw_batch(np.random.default_rng(0), samples, columns=held)])
    return open_store(path).parts


@pytest.mark.parametrize(("values", "dtype"), [
    (np.arange(5, dtype=np.int8), np.int64),
    (np.arange(5, dtype=np.uint32), np.int64),
    (np.array([0, (1 << 64) - 1], dtype=np.uint64), np.uint64),
    (["a", "", "ü"], object),
])  # fmt: skip
def test_ids_are_integers_or_text(tmp_path, monkeypatch, values, dtype):
    monkeypatch.setattr(ids, "PIECE_SAMPLES", 2)
    (part,) = parts_of(tmp_path, {"id": values})
    assert id_dtype([part]) == dtype
    pieces = list(id_pieces(part))
    assert all(piece.dtype == dtype and 1 <= len(piece) <= 2 for piece in pieces)
    assert np.concatenate(pieces).tolist() == np.asarray(values).tolist()


def test_another_column_may_hold_them(tmp_path):
    (part,) = parts_of(tmp_path, {"path": ["a", "b"], "id": [1, 2]})
    assert next(id_pieces(part, "path")).tolist() == ["a", "b"]
    assert id_dtype([part], "path").kind == "O"
    assert id_dtype([part]) == np.int64


@pytest.mark.parametrize("values", [[0.5, 1.0], [True, False]])
def test_other_columns_are_no_ids(tmp_path, values):
    (part,) = parts_of(tmp_path, {"id": values})
    with pytest.raises(StoreError, match=r"part-00000-00000: column 'id' is .* expected ids"):
        id_dtype([part])
    with pytest.raises(StoreError, match="expected ids, integers or text"):
        list(id_pieces(part))


def test_a_part_without_ids_is_named(tmp_path):
    parts = parts_of(tmp_path, {"id": [1, 2]}, {"label": [3, 4], "b\n": [5, 6]})
    with pytest.raises(StoreError, match=r"part-00000-00001 has no .* 'id'; it has label, b\\n: "):
        id_dtype(parts)
    with pytest.raises(StoreError, match="where each batch records their ids"):
        list(id_pieces(parts[1]))


def test_ids_of_both_types_of_integers_are_told_apart(tmp_path):
    large, largest = (1 << 53) + 1, (1 << 64) - 1
    signed = [-1, large, 7, large - 1]
    unsigned = np.array([largest, large, large + 1, 7], np.uint64)
    parts = parts_of(tmp_path, {"id": signed}, {"id": unsigned})
    assert id_dtype(parts) == np.dtype(object)
    found = {name: indices.tolist() for name, indices in repeated(parts).items()}
    assert found == {"part-00000-00001": [1, 3]}
    assert missing_ids(parts, np.array([largest, large + 2], np.uint64)).tolist() == [large + 2]
    with pytest.raises(StoreError, match="expected integers along one axis"):
        missing_ids(parts, ["7"])


def test_ids_of_two_kinds_cannot_be_compared(tmp_path):
    parts = parts_of(tmp_path, {"id": [1, 2]}, {"id": ["1", "2"]})
    with pytest.raises(StoreError, match=r"cannot be compared .* int64 in part-00000-00000, "):
        id_dtype(parts)
    assert id_dtype(parts[:1]) == np.int64


def test_a_part_without_samples_needs_no_ids(tmp_path):
    parts = parts_of(tmp_path, {"id": [1, 2]}, {"label": np.arange(0)})
    assert id_dtype(parts) == np.int64
    assert list(id_pieces(parts[1])) == []
    assert id_dtype([]) == np.int64


def test_damaged_ids_are_an_error(tmp_path):
    (part,) = parts_of(tmp_path, {"id": [1, 2]})
    (tmp_path / part.directory / "samples" / "id" / "c" / "0").unlink()
    with pytest.raises(DamageError, match="samples/id/c/0 is damaged: it is missing"):
        list(id_pieces(part))


@dataclass(frozen=True)
class MadeUpPart:
    """What is asked of a part."""

    attributes: PartAttributes
    ids: tuple

    files = LocalFiles("nowhere")

    @property
    def directory(self) -> str:
        return f"part-{self.attributes.rank}-{self.attributes.attempt}"

    @property
    def step(self) -> object:
        return self.attributes.step

    @property
    def samples(self) -> int:
        return len(self.ids)


@pytest.fixture
def _made_up(monkeypatch):
    give_ids_of_made_up_parts(monkeypatch)


def give_ids_of_made_up_parts(patch: pytest.MonkeyPatch) -> None:
    def dtype(parts, by):
        return np.dtype(object if any(isinstance(i, str) for p in parts for i in p.ids) else int)

    def pieces(parts, by, sample_filter):
        for part in parts:
            for start in range(0, len(part.ids), 3):
                yield np.array(part.ids[start : start + 3], dtype=dtype([part], by))

    patch.setattr(ids, "id_dtype", dtype)
    patch.setattr(ids, "kept_pieces", pieces)


def made_up(*parts: tuple[int, int, object, tuple]) -> list[MadeUpPart]:
    """Return parts of a rank, an attempt, a step, and ids each."""
    return [
        MadeUpPart(PartAttributes(rank=rank, world_size=9, attempt=attempt, step=step), ids)
        for rank, attempt, step, ids in parts
    ]


def count(left_out: dict[str, np.ndarray]) -> int:
    return sum(map(len, left_out.values()))


def left_out_one_by_one(parts: list[MadeUpPart]) -> dict[str, list[int]]:
    seen, left_out = set(), {}
    for part in sorted(parts, key=lambda p: (p.attributes.attempt, p.attributes.rank)):
        for index, name in enumerate(part.ids):
            if (part.step, name) in seen:
                left_out.setdefault(part.directory, []).append(index)
            seen.add((part.step, name))
    return left_out


@pytest.mark.usefixtures("_made_up")
def test_the_earliest_attempt_counts_then_the_lowest_rank_then_the_first():
    parts = made_up(
        (1, 0, None, (7, 8, 7)), (0, 1, None, (9, 1, 8, 2)), (0, 0, None, (8, 3)),
        (2, 0, None, ()),
    )  # fmt: skip
    found = repeated(parts)
    assert {name: held.tolist() for name, held in found.items()} == {
        "part-1-0": [1, 2], "part-0-1": [2],
    }  # fmt: skip
    assert count(found) == 3
    assert all(held.dtype == np.int64 for held in found.values())


@pytest.mark.usefixtures("_made_up")
def test_samples_of_different_steps_are_different():
    parts = made_up((0, 0, 1, (5, 5)), (0, 1, "1", (5,)), (0, 2, None, (5,)), (0, 3, 1, (5,)))
    found = repeated(parts)
    assert count(found) == 2
    assert found["part-0-0"].tolist() == [1]
    assert found["part-0-3"].tolist() == [0]


@given(
    drawn=st.lists(
        st.tuples(
            st.integers(0, 8), st.integers(0, 9), st.sampled_from([None, 1, "1"]),
            st.lists(st.integers(-3, 8), max_size=9).map(tuple),
        ),
        max_size=6,
        unique_by=lambda part: part[:2],
    ),
    as_text=st.booleans(),
)  # fmt: skip
def test_what_is_left_out_is_what_is_found_one_by_one(drawn, as_text):
    if as_text:
        drawn = [(*head, tuple(map(str, ids))) for *head, ids in drawn]
    parts = made_up(*drawn)
    with pytest.MonkeyPatch.context() as patch:
        give_ids_of_made_up_parts(patch)
        found = repeated(parts)
    expected = left_out_one_by_one(parts)
    assert {name: held.tolist() for name, held in found.items()} == expected
    assert count(found) == sum(map(len, expected.values()))


@pytest.mark.parametrize("make", [int, str])
def test_repeats_of_a_run_on_disk(tmp_path, make):
    # A sampler pads both ranks to five; a later attempt overlaps.
    for rank, held in ((0, [0, 2, 4, 6, 0]), (1, [1, 3, 5, 7, 1]), (1, [7, 9, 1])):
        batch = draw_batch(
            np.random.default_rng(0), len(held), columns={"id": list(map(make, held))}
        )
        write_run(tmp_path, [batch], part=PartAttributes(rank=rank, world_size=2))
    found = repeated(open_store(tmp_path).parts)
    assert {name: held.tolist() for name, held in found.items()} == {
        "part-00000-00000": [4], "part-00001-00000": [4], "part-00001-00001": [0, 2],
    }  # fmt: skip
    assert count(repeated(open_store(tmp_path).parts[:1], by="id")) == 1


def test_without_ids_nothing_can_be_told(tmp_path):
    write_run(tmp_path, [draw_batch(np.random.default_rng(0), 3, columns={"label": [1, 1, 1]})])
    parts = open_store(tmp_path).parts
    with pytest.raises(StoreError, match="has no sample column 'id'; it has label"):
        repeated(parts)
    assert count(repeated(parts, by="label")) == 2
    assert repeated([]) == {}
