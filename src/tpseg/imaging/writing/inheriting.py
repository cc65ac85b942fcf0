"""What an object that is derived from DICOM images takes over from them: the patient and the study."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from tpseg.core.errors import DataError

IDENTIFYING = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
"""Without these nothing can refer to an image."""
REQUIRED = (
    "AccessionNumber", "PatientBirthDate", "PatientID", "PatientName", "PatientSex", "ReferringPhysicianName", "StudyDate", "StudyID",
    "StudyTime",
)  # fmt: skip
"""What every DICOM object has, if only empty."""
OF_THE_STUDY = (
    "AccessionNumber", "IssuerOfAccessionNumberSequence", "ReferringPhysicianName", "StudyDate", "StudyDescription", "StudyID", "StudyTime",
    "ContainerIdentifier", "ContainerTypeCodeSequence", "IssuerOfTheContainerIdentifierSequence", "SpecimenDescriptionSequence",
)  # fmt: skip
"""Elements of study and specimen, outside the groups of the patient."""
OF_THE_PATIENT = (0x0010, 0x0012)
"""Groups of elements: the patient, and the clinical trial he takes part in."""
UTF_8 = "ISO_IR 192"
"""The character set of what is written, so that both the source's and a task's words can be."""


def check_identifiers(header: Dataset) -> None:
    """Raise DataError for an image that nothing can refer to."""
    for keyword in IDENTIFYING:
        if not header.get(keyword):
            raise DataError(f"has no {keyword}, so that nothing can refer to it; export it again")


def unnamed(header: Dataset) -> Dataset:
    """An image of the same study whose patient has no name: highdicom derives from it, without a look at what may be odd there."""
    image = Dataset()
    for keyword in IDENTIFYING:
        setattr(image, keyword, header[keyword].value)
    for keyword in REQUIRED:
        setattr(image, keyword, "")
    return image


def adopt(derived: Dataset, header: Dataset) -> None:
    """Give a derived object the patient and the study of an image, as they are there; private elements stay behind."""
    wanted = {tag_for_keyword(keyword) for keyword in OF_THE_STUDY}
    for tag in list(header.keys()):
        if tag in wanted or (tag.group in OF_THE_PATIENT and not tag.is_private):
            try:
                derived[tag] = header[tag]
            except Exception:  # pydicom raises whatever its conversion of a damaged value does; what is required is there, empty
                continue
    derived.SpecificCharacterSet = UTF_8
