"""The verb that measures what a model knows of its own limits: calibrate."""

from __future__ import annotations

from pathlib import Path

from tpseg.cli.arguments import Outcome
from tpseg.cli.console import out_console


def calibrate(
    model: str,
    data: Path,
    out: Path | None = None,
    images: int = 500,
    tta: bool = False,
    weights: str | None = None,
    device: str | None = None,
    batch_size: int = 8,
) -> Outcome:
    """Teach a model its limits: which task an image is, whether it is like anything learned, how sure its masks are.

    Fitted on train and val, reported on test. Writes trust.json and trust.safetensors into the model folder; from then on
    'tpseg predict' warns of images that look like another task, or like nothing the model knows, and --task auto works.

    Args:
        model: Model folder or run folder.
        data: The tasks.yaml of the data set that it was trained on.
        out: Where to write calibration.json and figures; by default trust/ in the run folder, or beside a model folder.
        images: Training images of each task to look at, at most.
        tta: Calibrate masks that are averaged over mirror images, for 'tpseg predict --tta'.
        weights: File of the frozen trunk, where neither its folder nor the hub nor TPSEG_WEIGHTS has it.
        device: cpu, cuda, mps; by default the fastest there is.
        batch_size: Images in a forward pass.
    """
    from tpseg.calibration.calibrate import calibrate as run
    from tpseg.calibration.calibration_report import expected_and_true
    from tpseg.calibration.figures import draw_expected_dice, draw_reliability, draw_review
    from tpseg.calibration.tables import confidence_table, draw_confusion, mistaken, recognition_table
    from tpseg.calibration.verdict import verdict, write_tables
    from tpseg.checkpoints.model_folder import find_model, refresh_card
    from tpseg.core.files import write_atomically
    from tpseg.core.progress import track
    from tpseg.core.tasks import TaskSet
    from tpseg.data.manifest import read_dataset
    from tpseg.evaluation.evaluate import place_of_evaluation

    place = out or place_of_evaluation(model).with_name("trust")
    found = run(
        model, read_dataset(data), place, images=images, augmented=tta, weights=weights, device=device, batch_size=batch_size, watch=track
    )
    tasks = TaskSet.load(find_model(model) / "tasks.json")
    titles = {task.name: task.title for task in tasks}
    for measured, stated in zip(found.measured, found.stated, strict=True):
        words = "Mistaken: " + ("; ".join(mistaken(measured, found.trust)) or "none")
        tables = (recognition_table(measured, found.trust), words, confidence_table(stated))
        write_tables(place / f"tables_{measured.split}.txt", tables)
        lines = verdict(measured, stated, found.trust)
        write_atomically(place / f"verdict_{measured.split}.txt", "\n".join([*lines, ""]))
        draw_confusion(place / f"confusion_{measured.split}", measured, found.trust, tasks)
        pairs = expected_and_true(found.observed[stated.split], found.confidence)
        draw_reliability(place / f"reliability_{stated.split}", found.observed[stated.split], found.confidence, titles)
        draw_expected_dice(place / f"expected_dice_{stated.split}", pairs, stated, titles)
        draw_review(place / f"review_{stated.split}", pairs, stated)
    refresh_card(found.folder, place_of_evaluation(model) / "test.json")
    if measured.split == "val":
        lines.append("There are no test images: all of this is of val, which it was fitted on, and so looks better than it is.")
    for line in lines:
        out_console.print(line)
    out_console.print(f"wrote {found.folder / 'trust.json'}; {place}: calibration.json, tables_{measured.split}.txt and figures")
    summary = {"model": found.folder, "split": measured.split, "verdict": lines, "found": found.trust.provenance}
    return Outcome({**summary, "outputs": [found.folder / "trust.json", place]})
