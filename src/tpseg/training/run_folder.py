"""The settings of a run folder: written once, read by report and resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tpseg.core.config import Config, build_config
from tpseg.core.errors import UsageError
from tpseg.core.files import write_atomically
from tpseg.core.untrusted import read_yaml

FREE = (("sampling", "cache"), ("sampling", "workers"), ("training", "checkpoint_minutes"), ("training", "checkpointing"))
"""Settings that a resumed run may have otherwise: they change neither batches nor weights, but time, memory and what is kept."""


def prepare_run(config: Config, data_path: Path, out: Path, steps: int | None, tasks: Sequence[str] | None, resume: bool) -> None:
    """Create the run folder with its settings.yaml, or check that a resumed run has the same ones."""
    wanted = {**config.to_dict(), "run": {"data": str(data_path.resolve()), "steps": steps, "tasks": list(tasks) if tasks else None}}
    settings = out / "settings.yaml"
    if settings.exists():
        if not resume:
            raise UsageError(f"{out} already holds a run; continue it with --resume, or choose another --out")
        known, place = _read(out)
        for group, key in FREE:
            setattr(getattr(known, group), key, getattr(getattr(config, group), key))
        difference = first_difference({**known.to_dict(), "run": place}, wanted)
        if difference:
            raise UsageError(f"{out} was started with other settings: {difference}; resume with the same ones or choose another --out")
        return
    if resume:
        raise UsageError(f"{out} holds no run to resume (no settings.yaml); leave --resume out to start one")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(settings, yaml.safe_dump(wanted, sort_keys=False))


def read_settings(run: Path) -> tuple[Config, Path, int | None]:
    """Settings, data path and step limit of a run folder; raises UsageError if it is none."""
    config, place = _read(run)
    return config, Path(place["data"]), place["steps"]


def _read(run: Path) -> tuple[Config, dict[str, Any]]:
    """Settings, and data, steps and tasks; what an older tpseg did not know stands at its default."""
    try:
        content = read_yaml(run / "settings.yaml")
        place = content.pop("run")
        if not isinstance(place["data"], str) or not isinstance(place["steps"], int | None):
            raise TypeError("a place of another kind than prepare_run writes")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{run}: not a run folder of 'tpseg train' (no readable settings.yaml)") from error
    return build_config(content, source=f"{run}/settings.yaml"), place


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str:
    """`key: old, now new` for the first value that differs between nested mappings, or ''."""
    for key in new:
        if isinstance(new[key], Mapping):
            found = first_difference(old.get(key, {}), new[key], f"{prefix}{key}.")
            if found:
                return found
        elif old.get(key) != new[key]:
            return f"{prefix}{key} was {old.get(key)}, now {new[key]}"
    return ""
