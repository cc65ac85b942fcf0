"""Where a model comes from: data hash, versions, seed, command, machine. No host or user names."""

from __future__ import annotations

import hashlib
import platform
import sys
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tpseg.data.hashes import total_sha256, write_record
from tpseg.data.manifest import SPLITS, DataSet

PACKAGES = ("tpseg", "torch", "transformers", "lightning", "monai", "numpy")


def provenance(seed: int, data: DataSet) -> tuple[dict[str, Any], str]:
    """What `provenance.json` holds before training, and the text of `data.csv`, the record of the data set's files.

    The metrics are added by whoever saves the model. Every image and mask is read once.
    """
    hashes = data.hashes()
    record = write_record(data.cases, hashes)
    counts = {
        name: {split: sum(case.task == name and case.split == split for case in data.cases) for split in SPLITS}
        for name in data.tasks.names
    }
    here = circumstances()
    content = {
        "date": here["date"],
        "command": here["command"],
        "seed": seed,
        "data": {
            "tasks": data.source.name,
            "sha256": total_sha256(data.cases, hashes),
            "record_sha256": hashlib.sha256(record.encode()).hexdigest(),
            "cases": counts,
        },
        "versions": here["versions"],
        "machine": here["machine"],
    }
    return content, record


def circumstances() -> dict[str, Any]:
    """When, how and on what: date, command, versions and machine, which are said of everything that is made."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(without_folders(word) for word in sys.argv),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
            "threads": torch.get_num_threads(),
        },
    }


def without_folders(word: str) -> str:
    """A word of a command whose absolute path, also one after `--option=`, is its last name: folders tell of users and machines."""
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    return option + equals + (Path(value).name if Path(value).is_absolute() else value)
