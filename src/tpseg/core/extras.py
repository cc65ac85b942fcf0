"""Libraries that not every user needs, and what to say where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

from tpseg.core.errors import UsageError, install

EXTRAS = {
    "pydicom": "dicom", "highdicom": "dicom", "SimpleITK": "itk", "av": "video",
    "onnx": "export", "onnxscript": "export", "onnxruntime": "export", "openvino": "openvino",
}  # fmt: skip
"""The extra of tpseg that installs each library."""


def require(*libraries: str) -> None:
    """Raise UsageError that names the command, for the first library that is not installed."""
    for library in libraries:
        if find_spec(library) is None:
            raise UsageError(f"{library} is not installed; install it with: {install(EXTRAS[library])}")
