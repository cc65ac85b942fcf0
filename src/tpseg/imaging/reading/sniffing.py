"""Recognising a DICOM file by how it begins; needs no library."""

from __future__ import annotations

import re
from pathlib import Path

FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")
"""Groups that a data set without preamble begins with: 0002 and 0008, little endian."""
FIRST_ELEMENTS = 0x0018
"""Its first element's number is small: (0008,0000) to (0008,0018), (0002,0000) to (0002,0010)."""


def looks_like_dicom(path: Path) -> bool:
    """Whether a file has DICOM's preamble, or begins with an element that a data set without one begins with."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    return head[128:] == b"DICM" or begins_with_element(head)


def begins_with_element(head: bytes) -> bool:
    """Whether bytes begin with the first element of a data set, of explicit or implicit VR, little endian."""
    if len(head) < 8 or head[:2] not in FIRST_GROUPS or int.from_bytes(head[2:4], "little") > FIRST_ELEMENTS:
        return False
    length = int.from_bytes(head[4:8], "little")
    return bool(re.match(rb"(UL|UI|CS|SH|LO|DA|TM|OB)", head[4:6])) or length <= 128
