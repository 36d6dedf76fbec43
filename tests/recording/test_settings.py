from __future__ import annotations

import math

import numpy as np
import pytest

from tsstore.errors import CaptureError, TsstoreError
from tsstore.recording.settings import Settings, checked_attributes, checked_step, checked_total
from tsstore.store.chunked.writer import Compression


def test_the_defaults_make_sense():
    assert Settings().check() is None
    assert Settings(commit_every=math.inf, compression=Compression("zstd", 9)).check() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": math.nan}, "threshold is nan; expected a finite number"),
        ({"threshold": math.inf}, "threshold is inf"),
        ({"calls": "both"}, "calls is 'both'; expected 'separate' or 'merge'"),
        ({"missing": None}, "missing is None; expected 'error' or 'empty'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'; expected 'raise' or 'detach'"),
        ({"commit_every": 0}, "commit_every is 0; expected more than 0"),
        ({"commit_every": math.nan}, "commit_every is nan"),
        ({"queue_bytes": -1}, "queue_bytes is -1"),
        ({"compression": Compression(threads=0)}, "writer_threads is 0; expected 1 or a few more"),
        ({"compression": Compression(threads=1.5)}, "writer_threads is 1.5"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(TsstoreError, match=message):
        Settings(**options).check()


def test_steps():
    assert checked_step(None) is None
    assert checked_step("warm-up") == "warm-up"
    assert type(checked_step(np.int64(3))) is int
    with pytest.raises(CaptureError, match=r"step is 1.5; expected an integer, text or None"):
        checked_step(1.5)


def test_totals():
    assert checked_total(None) is None
    assert type(checked_total(np.int64(3))) is int
    for wrong in (0, 1.5, True, 1 << 60, "many"):
        with pytest.raises(CaptureError, match=r"total is .*; expected a number of samples"):
            checked_total(wrong)


def test_attributes():
    assert checked_attributes(None) == {}
    assert checked_attributes({"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}


@pytest.mark.parametrize("value", [{"a": {1, 2}}, {"a": math.nan}, {"a": np.arange(2)}, 3])
def test_attributes_that_json_cannot_hold(value):
    with pytest.raises(CaptureError, match=r"attributes cannot be stored: .*JSON can hold"):
        checked_attributes(value)
