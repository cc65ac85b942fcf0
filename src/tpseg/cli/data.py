"""Verbs about data: phantoms, data check, data split."""

from __future__ import annotations

from pathlib import Path

from tpseg.cli.words import out_console


def phantoms(out: Path, cases: int = 48, size: int = 192, seed: int = 0) -> None:
    """Write the phantom data set: eight synthetic tasks that look like their modalities. No patient data, no download.

    Args:
        out: Folder to write; it must not exist or be empty.
        cases: Images of each task.
        size: Height of the images in pixels.
        seed: Another seed gives other images.
    """
    from tpseg.data.phantoms import write_phantoms

    out_console.print(f"wrote {write_phantoms(out, cases, size, seed)}")


def data_check(data: Path, json: Path | None = None) -> int:
    """Look for what hurts most: unreadable files, masks that do not fit, duplicates and groups across splits.

    Exits 1 if there are errors.

    Args:
        data: The data set's tasks.yaml.
        json: Also write the findings to this file.
    """
    from tpseg.data.check import check_dataset
    from tpseg.data.manifest import read_dataset
    from tpseg.files import write_atomically
    from tpseg.progress import track_calls

    dataset = read_dataset(data)
    with track_calls("checking") as progress:
        report = check_dataset(dataset, progress)
    out_console.print(report)
    if json is not None:
        write_atomically(json, report.to_json())
    return 0 if report.ok else 1


def data_split(
    folder: Path,
    task: str,
    modality: str = "unknown",
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    group: str | None = None,
    seed: int = 0,
    tasks: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Split a folder of image-mask pairs into train, val and test, whole groups at a time, and add it to a tasks.yaml.

    Args:
        folder: Holds images/ and masks/ with the same file names, whatever their endings.
        task: Name of the task.
        modality: What made the images: dermoscopy, ultrasound, CT.
        fractions: Shares of train, val and test.
        group: Regular expression on the file name; its first group, or the whole match, is the patient or case.
        seed: Another seed draws another split.
        tasks: The tasks.yaml to write; by default beside the folder.
        overwrite: Draw anew where a split.csv exists.
    """
    from tpseg.data.splits import split_folder

    target = tasks or folder.resolve().parent / "tasks.yaml"
    table = split_folder(folder, task, modality, fractions, seed, group, target, overwrite)
    counts = ", ".join(f"{split} {number}" for split, number in table["split"].value_counts().items())
    out_console.print(f"wrote {folder / 'split.csv'} ({counts}) and the task '{task}' in {target}")
