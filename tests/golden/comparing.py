"""The golden record as a file, and what differs between two of them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

GOLDEN = Path(__file__).parent / "golden.json"
PORTABLE = ("parameters/", "protocols/scores/", "prepared/")
"""What every processor computes alike; the rest is alike to the bit on processors of one kind only."""
SWITCHES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


def machine() -> dict[str, str]:
    """What decides in which order sums are taken: the processor, what it was told to leave out, and the libraries."""
    told = {"model name", "flags", "cache size", "Processor", "CPU part", "Features"}
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else [platform.processor()]
    processor = sorted({line for line in lines if line.split("\t")[0].strip() in told})
    switches = " ".join(f"{name}={os.environ[name]}" for name in SWITCHES if name in os.environ)
    return {
        "processor": hashlib.sha256("\n".join(processor).encode()).hexdigest()[:16],
        "switches": switches,
        "torch": f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()}",
    }


def as_file(record: Mapping[str, Any]) -> str:
    """JSON with an entry a line; numbers to the last bit."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in record.items()]
    return f'{{"machine": {json.dumps(machine())},\n "record": {{\n' + ",\n".join(lines) + "\n}}\n"


def read_record(file: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """The machine and the record."""
    content = json.loads(file.read_text(encoding="utf-8"))
    return content["machine"], content["record"]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """A line for each entry that is not the same, to the last bit."""
    return [
        f"{key}: {_shown(before.get(key, 'not there'))} -> {_shown(after.get(key, 'not there'))}"
        for key in [*before, *(key for key in after if key not in before)]
        if not _same(before.get(key), after.get(key))
    ]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same(*pair) for pair in zip(one, other, strict=True))
    both_nan = isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    return both_nan or (type(one) is type(other) and one == other)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else f"{text[:77]}..."
