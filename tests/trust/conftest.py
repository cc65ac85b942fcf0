"""The DICOM files of these tests are made by the module of the clinical tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "clinical"))
