"""Messages are for people: of bounded length, and without what only Python understands."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from tpseg.core.errors import LONGEST, DataError, TPSegError
from tpseg.datasets.pictures import decode
from tpseg.imaging.pictures.formats import read_image


def test_no_message_shows_an_object_s_address() -> None:
    with pytest.raises(UnidentifiedImageError, match="BytesIO") as found:
        Image.open(io.BytesIO(b"no picture"))
    assert str(TPSegError(f"a.png: cannot be decoded ({found.value}); is it complete?")) == (
        "a.png: cannot be decoded (cannot identify image file); is it complete?"
    )
    assert str(TPSegError(f"{object()} and {len} stay apart, <this at 3> stays")) == (
        " and <built-in function len> stay apart, <this at 3> stays"
    )
    with pytest.raises(DataError, match=r"^b\.png: cannot be decoded \(cannot identify image file\)$"):
        decode(b"no picture", "b.png")


def test_no_message_shows_the_stream_that_a_library_was_given(tmp_path: Path) -> None:
    path = tmp_path / "it's.png"
    path.write_bytes(b"no picture")
    with pytest.raises(DataError) as found:
        read_image(path)
    assert str(found.value) == f"{path}: cannot be decoded (cannot identify image file); is it complete and really a .png file?"


def test_a_message_is_cut_in_the_middle() -> None:
    text = str(TPSegError("first" + "x" * 10 * LONGEST + "last"))
    assert len(text) < LONGEST + 50
    assert (text[:5], text[-4:]) == ("first", "last")
