from __future__ import annotations

import numpy as np
import pytest
from helpers import draw_batch, write_run

from tsstore.commands.runs import repeats_text
from tsstore.errors import DamageError
from tsstore.store.reading.store import open_store


def test_repeated_samples_are_told(tmp_path):
    for ids in ([1, 2, 2, 1], [2, 3, 4, 5]):
        write_run(tmp_path, [draw_batch(np.random.default_rng(0), 4, columns={"id": ids})])
    store = open_store(tmp_path)
    assert repeats_text(store) == "3 samples repeat another one of the same id"
    assert repeats_text(open_store(tmp_path).at_step(None)) == repeats_text(store)


@pytest.mark.parametrize("ids", [None, [1, 2, 3, 4]])
def test_nothing_is_said_where_no_samples_repeat_others(tmp_path, ids):
    columns = None if ids is None else {"id": ids}
    write_run(tmp_path, [draw_batch(np.random.default_rng(0), 4, columns=columns)])
    assert repeats_text(open_store(tmp_path)) == ""


def test_ids_that_cannot_be_compared_are_no_error(tmp_path):
    columns = {"id": np.linspace(0, 1, 4)}
    write_run(tmp_path, [draw_batch(np.random.default_rng(0), 4, columns=columns)])
    assert repeats_text(open_store(tmp_path)).startswith("repeated samples cannot be counted: ")


def test_damaged_ids_are_an_error(tmp_path):
    write_run(tmp_path, [draw_batch(np.random.default_rng(0), 4, columns={"id": [1, 2, 3, 4]})])
    next((tmp_path / "part-00000-00000" / "samples" / "id" / "c").iterdir()).write_bytes(b"")
    with pytest.raises(DamageError, match="samples/id/c/0 is damaged"):
        repeats_text(open_store(tmp_path))
