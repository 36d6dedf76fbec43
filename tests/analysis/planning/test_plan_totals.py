from __future__ import annotations

import pytest

from tsstore.analysis.planning.cost import Work
from tsstore.analysis.planning.fitting import make_plan
from tsstore.analysis.planning.layer_plan import PlannedLayer
from tsstore.analysis.planning.run_plan import RunPlan
from tsstore.errors import UnknownLayerError

SMALL, LARGE = (
    PlannedLayer(rows, 8, make_plan(Work("layer", rows, 8, 1), 64 << 20, 2, rows < 1000))
    for rows in (900, 120_000)
)
NUMBERS = RunPlan("run.zarr", 1 << 20, 2, True, {"a": SMALL, "b:before": LARGE}, 1 << 18, None)


def test_numbers_of_layers_add_up():
    small, large = SMALL.plan, LARGE.plan
    assert NUMBERS.rows == SMALL.rows + LARGE.rows
    assert NUMBERS.tasks == small.tasks + large.tasks
    assert NUMBERS.projected_peak == small.projected_peak + large.projected_peak


def test_of_scratch_only_what_goes_through_files_counts():
    assert NUMBERS.scratch_bytes == LARGE.plan.scratch_bytes > 0
    assert SMALL.to_dict()["scratch_bytes"] == 0


def test_layers_have_the_names_of_the_tutorial_too():
    assert list(NUMBERS) == ["a", "b:before"]
    assert NUMBERS["a_states"] is NUMBERS["a"] is SMALL.plan
    assert NUMBERS["b_pre_states"] is LARGE.plan
    with pytest.raises(UnknownLayerError, match="'c' in this RunPlan; there are a, b:before"):
        NUMBERS["c"]
