"""Coded concepts: the paper's tasks, a task's own words, and what is said of those that cannot be read."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts

from tpseg.core.errors import UsageError
from tpseg.core.tasks import Task
from tpseg.datasets.phantoms import PHANTOM_TASKS
from tpseg.imaging.writing.codes import CATEGORY, FINDINGS, LESION, finding_of, parse_code

NOT_IN_PYDICOM = {("SCT", "126952004"): "Neoplasm of brain"}
"""SNOMED CT's own; pydicom's dictionary has only the codes that DICOM's tables use."""


def dictionary() -> dict[tuple[str, str], set[str]]:
    """Scheme and value to the meanings that pydicom's dictionary has for them."""
    found: dict[tuple[str, str], set[str]] = {}
    for scheme in ("SCT", "DCM"):
        for values in concepts[scheme].values():
            for value, (meaning, _) in values.items():
                found.setdefault((scheme, value), set()).add(meaning)
    for key, meaning in NOT_IN_PYDICOM.items():
        found[key] = {meaning}
    return found


def test_every_code_means_in_the_dictionary_what_it_means_here():
    meanings = dictionary()
    codes = [CATEGORY, LESION.type, *(code for finding in FINDINGS.values() for code in (finding.type, finding.anatomy))]
    for code in codes:
        assert code.meaning in meanings[code.scheme_designator, code.value], code


def test_each_of_the_eight_tasks_is_coded_with_its_place():
    assert set(FINDINGS) == set(PHANTOM_TASKS.names)
    assert all(finding.anatomy is not None for finding in FINDINGS.values())


def test_a_task_is_known_by_its_name():
    finding = finding_of(Task("colon_polyp"))
    assert (finding.type.value, finding.anatomy.value) == ("68496003", "71854001")


def test_another_task_is_a_lesion_somewhere():
    assert finding_of(Task("liver_cyst")) == LESION


def test_the_tasks_own_words_come_first():
    finding = finding_of(Task("colon_polyp", finding="SCT:126838000:Neoplasm of colon", anatomy="SCT:60184004:Sigmoid colon"))
    assert (finding.type.scheme_designator, finding.type.value, finding.type.meaning) == ("SCT", "126838000", "Neoplasm of colon")
    assert finding.anatomy.meaning == "Sigmoid colon"


def test_a_finding_alone_keeps_the_known_place():
    assert finding_of(Task("brain_tumor", finding="SCT:1:Glioma")).anatomy.meaning == "Brain"
    assert finding_of(Task("liver_cyst", anatomy="SCT:10200004:Liver")).type == LESION.type


def test_a_meaning_may_hold_colons():
    assert parse_code("99LOCAL:A1: Grade: high ", "t", "finding").meaning == "Grade: high"


@pytest.mark.parametrize("text", ["Brain", "SCT:12738006", "SCT::Brain", ":1:Brain", "SCT:1:", "SCT:1:a\\b"])
def test_other_words_are_refused_with_the_form_expected(text):
    with pytest.raises(UsageError, match=r"task 'x', anatomy: found .* expected scheme:value:meaning, such as SCT:12738006:Brain"):
        finding_of(Task("x", anatomy=text))


def test_words_that_dicom_has_no_room_for_are_refused():
    with pytest.raises(UsageError, match=r"meaning .* has 65 characters; DICOM has room for 64"):
        parse_code("SCT:1:" + "m" * 65, "x", "finding")
    with pytest.raises(UsageError, match=r"value .* room for 16"):
        parse_code("SCT:" + "1" * 17 + ":m", "x", "finding")
