"""What a task's masks show and where in the body, in the coded words of DICOM."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.sr.coding import Code

from tpseg.core.errors import UsageError
from tpseg.core.tasks import Task


@dataclass(frozen=True)
class Finding:
    """What a mask shows."""

    type: Code
    anatomy: Code | None
    """Where it lies; None where that is not known."""


def snomed(value: str, meaning: str) -> Code:
    return Code(value, "SCT", meaning)


CATEGORY = snomed("49755003", "Morphologically Abnormal Structure")
"""The category of every finding."""
LESION = Finding(snomed("52988006", "Lesion"), None)
"""Of a task that nobody has coded."""

FINDINGS = {
    "wet_amd": Finding(snomed("52988006", "Lesion"), snomed("5665001", "Retina")),
    "brain_tumor": Finding(snomed("126952004", "Neoplasm of brain"), snomed("12738006", "Brain")),
    "adenocarcinoma": Finding(snomed("408645001", "Adenocarcinoma of large intestine"), snomed("14742008", "Large intestine")),
    "thyroid_nodule": Finding(snomed("237495005", "Thyroid Nodule"), snomed("69748006", "Thyroid")),
    "colon_polyp": Finding(snomed("68496003", "Polyp of colon"), snomed("71854001", "Colon")),
    "lung_infection": Finding(Code("112033", "DCM", "Abnormal opacity"), snomed("39607008", "Lung")),
    "breast_lesion": Finding(snomed("52988006", "Lesion"), snomed("76752008", "Breast")),
    "skin_lesion": Finding(snomed("95324001", "Skin lesion"), snomed("39937001", "Skin")),
}
"""Of the paper's tasks, by name. Where DICOM's own dictionary has no word for the disease, the one for what is seen."""

LONGEST = {"scheme": 16, "value": 16, "meaning": 64}
"""Characters that DICOM has room for."""


def finding_of(task: Task) -> Finding:
    """What the task itself says, else what its name means among the paper's tasks, else a lesion.

    Raises UsageError for a finding or an anatomy that is not written `scheme:value:meaning`.
    """
    known = FINDINGS.get(task.name, LESION)
    if not task.finding and not task.anatomy:
        return known
    found = parse_code(task.finding, task.name, "finding") if task.finding else known.type
    return Finding(found, parse_code(task.anatomy, task.name, "anatomy") if task.anatomy else known.anatomy)


def parse_code(text: str, task: str, key: str) -> Code:
    """`SCT:12738006:Brain` as a code; raises UsageError that names the task and its key for anything else."""
    parts = [part.strip() for part in text.split(":", 2)]
    if len(parts) != 3 or not all(parts) or "\\" in text:
        raise UsageError(f"task {task!r}, {key}: found {text!r}; expected scheme:value:meaning, such as SCT:12738006:Brain")
    for part, (name, longest) in zip(parts, LONGEST.items(), strict=True):
        if len(part) > longest:
            raise UsageError(f"task {task!r}, {key}: the {name} {part!r} has {len(part)} characters; DICOM has room for {longest}")
    scheme, value, meaning = parts
    return Code(value, scheme, meaning)
