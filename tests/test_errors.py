from __future__ import annotations

import inspect
import pickle
import re

import pytest

from tsstore import errors
from tsstore.errors import TsstoreError, UnknownLayerError

CLASSES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, TsstoreError)
]


def drawn_tree() -> dict[str, str]:
    """Return the parent of each class, as the module's docstring draws it."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in errors.__doc__.splitlines():
        drawn = re.fullmatch(r"    ((?:[│├└]?[ ─]*)*)(\w+Error)\b.*", line)
        if drawn:
            depth = len(drawn[1]) // 4
            path[depth:] = [drawn[2]]
            parents[drawn[2]] = path[depth - 1] if depth else "Exception"
    return parents


def test_the_drawn_tree_is_the_real_one():
    assert drawn_tree() == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


def test_every_error_is_an_error_of_tsstore():
    assert len(CLASSES) > 10
    for cls in CLASSES:
        assert issubclass(cls, TsstoreError)
        assert cls.__doc__
        assert cls.__doc__.strip().endswith(".")


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_keep_their_message_between_processes(cls):
    error = pickle.loads(pickle.dumps(cls("run.zarr: found a, expected b")))
    assert type(error) is cls
    assert str(error) == "run.zarr: found a, expected b"


def test_an_unknown_layer_is_a_key_error_that_reads_like_a_sentence():
    assert issubclass(UnknownLayerError, KeyError)
    assert str(UnknownLayerError("no layer 'a'")) == "no layer 'a'"
