"""The model card: README.md of a model folder, filled in from what the folder and its evaluation say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tpseg.checkpoints.trunk_weights import base_name, is_on_hub
from tpseg.core.config import ModelConfig
from tpseg.core.errors import DataError
from tpseg.core.tasks import TaskSet
from tpseg.core.untrusted import markdown

CARD = "README.md"
OWNER = "**to be filled in by the owner of this model**"
UNKNOWN = "–"


def render_card(
    config: ModelConfig,
    tasks: TaskSet,
    provenance: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None = None,
    trust: Mapping[str, Any] | None = None,
) -> str:
    """Markdown. evaluation: what `tpseg evaluate` wrote for the split test; trust: what `tpseg calibrate` wrote.

    Raises DataError for a provenance, an evaluation or a calibration that tpseg did not write.
    """
    try:
        return _render(config, tasks, provenance, evaluation, trust)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"the model card cannot be made from what is known of the model ({error!r})") from error


def _render(
    config: ModelConfig,
    tasks: TaskSet,
    provenance: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    trust: Mapping[str, Any] | None,
) -> str:
    data, training = provenance.get("data", {}), provenance.get("training", {})
    cases, val = data.get("cases", {}), training.get("metrics", {})
    scores = (evaluation or {}).get("default", {}).get("tasks", {})
    rows = [
        {
            "name": task.name,
            "modality": markdown(task.modality),
            "title": markdown(task.title),
            "counts": " / ".join(str(cases[task.name][split]) for split in ("train", "val", "test")) if task.name in cases else UNKNOWN,
            "val": _number(val.get(f"val/dice/{task.name}")),
            "test": _score(scores.get(task.name)),
        }
        for task in tasks
    ]
    trunk = trunk_file = None
    if config.architecture in ("tpseg", "sam2_unet"):
        named = str(config.weights)
        shown = named if is_on_hub(named) else base_name(named)
        trunk = f"Hiera-{config.trunk}, {f'frozen, {markdown(shown)}' if config.freeze else 'trained'}"
        if config.freeze and config.weights is not None and not is_on_hub(named):
            trunk_file = markdown(shown)
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, autoescape=False)
    return environment.get_template("model_card.md").render(
        architecture=config.architecture,
        size=config.image_size,
        trunk=trunk,
        trunk_file=trunk_file,
        tasks=rows,
        evaluated=bool(scores),
        unchosen=[markdown(str(name)) for name in tasks_without_val(provenance)],
        data=_data(data, tasks),
        trust=_trust(trust),
        owner=OWNER,
        steps=[_step(one) for one in (provenance, *provenance.get("parents", []), *provenance.get("ancestors", []))],
    ) + "\n"  # fmt: skip


def _data(found: Mapping[str, Any], tasks: TaskSet) -> dict[str, Any] | None:
    """What is known of the images that a model was trained with; None for nothing."""
    if "sha256" not in found:
        return None
    cases = found.get("cases", {})
    return {
        "images": sum(sum(counts.values()) for counts in cases.values()),
        "sha256": markdown(str(found["sha256"])),
        "unknown": [name for name in tasks.names if name not in cases],
        "gone": [markdown(str(name)) for name in cases if name not in tasks.names],
        "recorded": "record_sha256" in found,
    }


def _step(found: Mapping[str, Any]) -> dict[str, str]:
    """What was done to make a model, a training or a change to other models, and the hash of the data that it took, '' for none."""
    change, training = found.get("change"), found.get("training", {})
    date, version = found.get("date", "(date unknown)"), found.get("versions", {}).get("tpseg", "(version unknown)")
    if change is None:
        words = [f"Trained {date}"]
    elif change["verb"] == "rename-task":
        words = [f"{date}: rename-task, {change['old']} to {change['new']}"]
    else:
        words = [f"{date}: {change['verb']} {', '.join(change['tasks'])}"]
    sha256 = ""
    if change is None or change["verb"] == "add-task":  # else seed, course of training and data are those of a parent
        sha256 = str(found.get("data", {}).get("sha256", ""))
        words += [f"seed {found.get('seed', 'unknown')}", *(f"{unit} {training[unit]}" for unit in ("epoch", "step") if unit in training)]
    return {"words": markdown(", ".join([*words, f"with tpseg {version}"])), "sha256": markdown(sha256)}


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3f}"


def _score(found: Mapping[str, Any] | None) -> str:
    """Dice with its interval, which a task of a single image or patient has not."""
    if found is None:
        return UNKNOWN
    low, high = found["dice_interval"]
    return _number(found["dice"]) + ("" if low is None else f" ({low:.3f} to {high:.3f})")


def _trust(content: Mapping[str, Any] | None) -> dict[str, str] | None:
    if content is None:
        return None
    origin = content["provenance"]
    measured = origin.get("measured", {})
    split = "test" if "test" in measured else "val"
    right = f" (right for {100 * measured[split]['accuracy']:.1f} % of the {split} images)" if split in measured else ""
    return {
        "date": markdown(str(origin.get("date", "(date unknown)"))),
        "accuracy": right,
        "temperatures": ", ".join(content.get("confidence", {})),
    }


def tasks_without_val(provenance: Mapping[str, Any]) -> list[str]:
    """Tasks whose images were no part of the choice of the epoch, by the counts that `provenance` notes; [] where these are not known."""
    return [task for task, counts in provenance.get("data", {}).get("cases", {}).items() if not counts["val"]]
