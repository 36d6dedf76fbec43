from __future__ import annotations

import numpy as np
import pytest
from helpers import draw_batch, write_run

from tsstore.errors import DamageError, StoreError
from tsstore.store.reading import ids
from tsstore.store.reading.ids import id_dtype, id_pieces
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


@pytest.mark.parametrize(("first", "second"), [
    ([1, 2], ["1", "2"]), ([1, -2], np.array([1, 2], dtype=np.uint64)),
])  # fmt: skip
def test_ids_of_two_kinds_cannot_be_compared(tmp_path, first, second):
    parts = parts_of(tmp_path, {"id": first}, {"id": second})
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
