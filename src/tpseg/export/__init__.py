"""Models as files that run without tpseg: ONNX, OpenVINO and torch.export; docs/export.md is the page about them.

>>> from tpseg.export import export_model
>>> export_model("runs/mine", Path("mine.onnx"), tasks=["skin_lesion"])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tpseg.export.formats import export_model
    from tpseg.export.parity import parity
    from tpseg.export.quantise import quantise
    from tpseg.inference.exported import ExportedNetwork

_LAZY = {
    "ExportedNetwork": "tpseg.inference.exported",
    "export_model": "tpseg.export.formats",
    "parity": "tpseg.export.parity",
    "quantise": "tpseg.export.quantise",
}
"""Names whose modules take long to import."""

__all__ = ["ExportedNetwork", "export_model", "parity", "quantise"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'tpseg.export' has no attribute '{name}'")
