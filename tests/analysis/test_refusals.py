from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
from synthetic import draw_layer, write_layers

import tsstore
from tsstore.analysis.refusals import all_fit, too_small
from tsstore.errors import MemoryTooSmallError


def refuse(needed):
    raise too_small("run", 1 << 20, "for this", needed)


def test_of_several_refusals_the_one_that_needs_most_is_raised():
    said = r"run: memory of 1 MiB is too small for this; give at least memory='3KiB'"
    with pytest.raises(MemoryTooSmallError, match=re.escape(said)) as error:
        all_fit([lambda: refuse(2048), lambda: refuse(2049), lambda: 1, lambda: refuse(5)])
    assert error.value.needed == 2049
    assert pickle.loads(pickle.dumps(error.value)).needed == 2049


def test_what_all_checks_give_is_returned():
    assert all_fit([lambda: 1, lambda: 2]) == [1, 2]


@pytest.mark.parametrize("function", [tsstore.analyze, tsstore.plan])
def test_the_memory_that_is_named_suffices_for_all_layers(tmp_path, function):
    layers = {"small": draw_layer(0, 50, 5), "wide": draw_layer(1, 50, 300, distinct=40)}
    run = write_layers(tmp_path / "run", layers, columns={"id": np.arange(50)})
    with pytest.raises(MemoryTooSmallError, match="layer wide: ") as error:
        function(run, memory="1KiB")
    least = int(re.search(r"at least memory='(\d+)KiB'", str(error.value))[1])
    assert function(run, memory=f"{least}KiB")
