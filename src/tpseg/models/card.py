"""The model card: README.md of a model folder, filled in from what the folder and its evaluation say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tpseg.config import ModelConfig
from tpseg.errors import DataError
from tpseg.files import read_json_object, write_atomically
from tpseg.foreign import markdown
from tpseg.tasks import TaskSet

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
    """Markdown. evaluation: what `tpseg evaluate` wrote for the split test; trust: what `tpseg calibrate` wrote."""
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
    trunk = None
    if config.architecture in ("tpseg", "sam2_unet"):
        trunk = f"Hiera-{config.trunk}, {f'frozen, {markdown(str(config.weights))}' if config.freeze else 'trained'}"
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, autoescape=False)
    return environment.get_template("model_card.md").render(
        architecture=config.architecture,
        size=config.image_size,
        trunk=trunk,
        tasks=rows,
        evaluated=bool(scores),
        data={"sha256": data["sha256"], "images": sum(sum(counts.values()) for counts in cases.values())} if "sha256" in data else None,
        trust=_trust(trust),
        owner=OWNER,
        date=markdown(str(provenance.get("date", "(date unknown)"))),
        seed=markdown(str(provenance.get("seed", "unknown"))),
        reached=[f"{unit} {markdown(str(training[unit]))}" for unit in ("epoch", "step") if unit in training],
        version=markdown(str(provenance.get("versions", {}).get("tpseg", "(version unknown)"))),
    ) + "\n"  # fmt: skip


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


def refresh_card(folder: Path, evaluation: Path | None = None) -> None:
    """Write the card of a model folder anew, with the scores of `evaluation`, a test.json, and with its trust.json if there is one.

    Raises DataError for files that tpseg did not write.
    """
    from tpseg.models.checkpoint import read_model_config, read_provenance

    config, _ = read_model_config(folder)
    found = [
        read_json_object(path, "not a file written by tpseg") if path is not None and path.is_file() else None
        for path in (evaluation, folder / "trust.json")
    ]
    try:
        text = render_card(config, TaskSet.load(folder / "tasks.json"), read_provenance(folder / "provenance.json"), *found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{folder}: the model card cannot be made from what its files say ({error!r})") from error
    write_atomically(folder / CARD, text)
