from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from helpers import draw_batch, write_run
from hypothesis import given
from hypothesis import strategies as st

from tsstore.errors import StoreError
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.reading import ids as ids_module
from tsstore.store.reading.ids import repeated
from tsstore.store.reading.store import open_store


@dataclass(frozen=True)
class MadeUpPart:
    """What is asked of a part."""

    attributes: PartAttributes
    ids: tuple

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

    def pieces(part, by):
        for start in range(0, len(part.ids), 3):
            yield np.array(part.ids[start : start + 3], dtype=dtype([part], by))

    patch.setattr(ids_module, "id_dtype", dtype)
    patch.setattr(ids_module, "id_pieces", pieces)


def made_up(*parts: tuple[int, int, object, tuple]) -> list[MadeUpPart]:
    """Return parts of a rank, an attempt, a step, and ids each."""
    return [
        MadeUpPart(PartAttributes(rank=rank, world_size=9, attempt=attempt, step=step), ids)
        for rank, attempt, step, ids in parts
    ]


def left_out_one_by_one(parts: list[MadeUpPart]) -> dict[str, list[int]]:
    seen, left_out = set(), {part.directory: [] for part in parts}
    for part in sorted(parts, key=lambda p: (p.attributes.attempt, p.attributes.rank)):
        for index, name in enumerate(part.ids):
            if (part.step, name) in seen:
                left_out[part.directory].append(index)
            seen.add((part.step, name))
    return left_out


@pytest.mark.usefixtures("_made_up")
def test_the_earliest_attempt_counts_then_the_lowest_rank_then_the_first():
    parts = made_up(
        (1, 0, None, (7, 8, 7)), (0, 1, None, (9, 1, 8, 2)), (0, 0, None, (8, 3)),
        (2, 0, None, ()),
    )  # fmt: skip
    found = repeated(parts)
    assert {name: held.tolist() for name, held in found.left_out.items()} == {
        "part-0-0": [], "part-1-0": [1, 2], "part-2-0": [], "part-0-1": [2],
    }  # fmt: skip
    assert found.samples == 3
    assert all(held.dtype == np.int64 for held in found.left_out.values())


@pytest.mark.usefixtures("_made_up")
def test_samples_of_different_steps_are_different():
    parts = made_up((0, 0, 1, (5, 5)), (0, 1, "1", (5,)), (0, 2, None, (5,)), (0, 3, 1, (5,)))
    found = repeated(parts)
    assert found.samples == 2
    assert found.left_out["part-0-0"].tolist() == [1]
    assert found.left_out["part-0-3"].tolist() == [0]


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
    assert {name: held.tolist() for name, held in found.left_out.items()} == expected
    assert found.samples == sum(map(len, expected.values()))


@pytest.mark.parametrize("make", [int, str])
def test_repeats_of_a_run_on_disk(tmp_path, make):
    # A sampler pads both ranks to five; a later attempt overlaps.
    for rank, ids in ((0, [0, 2, 4, 6, 0]), (1, [1, 3, 5, 7, 1]), (1, [7, 9, 1])):
        batch = draw_batch(np.random.default_rng(0), len(ids), columns={"id": list(map(make, ids))})
        write_run(tmp_path, [batch], part=PartAttributes(rank=rank, world_size=2))
    found = repeated(open_store(tmp_path).parts)
    assert {name: held.tolist() for name, held in found.left_out.items()} == {
        "part-00000-00000": [4], "part-00001-00000": [4], "part-00001-00001": [0, 2],
    }  # fmt: skip
    assert repeated(open_store(tmp_path).parts[:1], by="id").samples == 1


def test_without_ids_nothing_can_be_told(tmp_path):
    write_run(tmp_path, [draw_batch(np.random.default_rng(0), 3, columns={"label": [1, 1, 1]})])
    parts = open_store(tmp_path).parts
    with pytest.raises(StoreError, match="has no sample column 'id'; it has label"):
        repeated(parts)
    assert repeated(parts, by="label").samples == 2
    assert repeated([]).samples == 0
