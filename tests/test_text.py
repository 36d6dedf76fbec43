from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tsstore.text import printable


@given(text=st.text(st.characters()))
def test_what_is_printable_stays_and_the_rest_is_escaped(text):
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert (shown == text) == text.isprintable()
