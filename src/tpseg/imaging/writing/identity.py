"""Which model made a mask, and the identifiers of what is written about it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from importlib.metadata import version

NAMESPACE = uuid.UUID("0fd1f1ac-5ed5-5c4c-9d0c-1f2a6ef0b7d3")
"""Drawn once; what identifiers made by tpseg have in common."""


@dataclass(frozen=True)
class ModelIdentity:
    """A trained model, as the files that it has helped to make name it."""

    sha256: str
    """Of the file that holds its weights."""
    name: str = "tpseg"
    version: str = version("tpseg")

    @property
    def words(self) -> str:
        """For a picture: short, and enough to tell one model from another."""
        return f"{self.name} {self.version}, model {self.sha256[:8]}"


def derived_uid(*parts: str) -> str:
    """A DICOM UID that the parts decide: the same for the same parts, on every machine, another for any others.

    It is the decimal form of a name-based UUID under the root 2.25, which needs no registration (DICOM PS3.5 B.2).
    """
    return f"2.25.{uuid.uuid5(NAMESPACE, chr(0).join(parts)).int}"
