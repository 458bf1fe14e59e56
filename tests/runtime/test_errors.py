"""Errors are one line that a terminal can take, whatever names they quote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinaface_edge.runtime.errors import BundleError, ImageError, RetinaFaceEdgeError


@given(st.text())
def test_the_text_of_an_error_is_one_line_without_control_characters(name: str) -> None:
    for kind in (RetinaFaceEdgeError, BundleError, ImageError):
        text = str(kind(f"a tensor named {name} is unknown"))
        assert len(text.splitlines()) == 1
        assert not any(ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0 for letter in text)


@pytest.mark.parametrize("name", ["body\nstage1.weight", "\x1b[31mred", "a\u2028b", "odd\udcff"])
def test_what_would_break_the_line_is_escaped(name: str) -> None:
    text = str(RetinaFaceEdgeError(name))
    assert name not in text
    assert "\\" in text
