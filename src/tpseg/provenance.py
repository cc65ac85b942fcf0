"""Where a model comes from: data hash, versions, seed, command, machine. No host or user names."""

from __future__ import annotations

import platform
import sys
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tpseg.data.manifest import SPLITS, DataSet

PACKAGES = ("tpseg", "torch", "transformers", "lightning", "monai", "numpy")


def provenance(seed: int, data: DataSet) -> dict[str, Any]:
    """What `provenance.json` holds before training; the metrics are added by whoever saves the model."""
    counts = {
        name: {split: sum(case.task == name and case.split == split for case in data.cases) for split in SPLITS}
        for name in data.tasks.names
    }
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(Path(word).name if Path(word).is_absolute() else word for word in sys.argv),
        "seed": seed,
        "data": {"tasks": data.source.name, "sha256": data.sha256(), "cases": counts},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
            "threads": torch.get_num_threads(),
        },
    }
