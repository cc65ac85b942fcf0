"""Makes `benchmarks`, which is not part of the installed package, importable, and the miniature trunk stand for `tiny`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)
