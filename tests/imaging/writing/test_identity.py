"""Identifiers that follow from what they identify."""

from __future__ import annotations

from pydicom.uid import UID

from tpseg.imaging.writing.identity import derived_uid


def test_identifiers_are_valid_and_decided_by_all_of_their_parts():
    uid = derived_uid("SEG", "1.2.3", "abc")
    assert UID(uid).is_valid
    assert len(uid) <= 64
    assert uid == derived_uid("SEG", "1.2.3", "abc") == "2.25.262711146156278399756510750591544383189"
    assert len({uid, derived_uid("SR", "1.2.3", "abc"), derived_uid("SEG", "1.2.3a", "bc"), derived_uid("SEG", "1.2.3", "abc", "")}) == 4
