"""Small files that ask for much, each refused in one sentence within seconds and without the memory that it asks for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BOMBS = Path(__file__).parents[1] / "helpers" / "bombs.py"
HARMLESS = ("png_with_a_hundred_thousand_texts", "tiff_pages_in_a_circle", "tiff_of_doubles_that_inflates", "tiff_of_doubles_in_a_circle")
"""Read, for what is absurd about them costs nothing."""
SECONDS = 5
MEBIBYTES = 400


@pytest.mark.slow
def test_each_bomb_is_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, str(BOMBS), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=3600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) > 50
    wrong = []
    for name, outcome, peak, seconds, message in found:
        expected = "read" if name in HARMLESS else "refused"
        if outcome != expected or peak > MEBIBYTES or seconds > SECONDS or "\n" in message or len(message) > 600:
            wrong.append(f"{name}: {outcome}, {peak:.0f} MiB, {seconds:.1f} s: {message[:300]}")
    assert not wrong, "\n".join(wrong)
