"""Verbs about data: phantoms, data list, prepare, check, stats, view, split."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

from tpseg.cli.arguments import Outcome
from tpseg.cli.console import Split, error_console, out_console
from tpseg.core.errors import DataError
from tpseg.data.left_out import MAX_LEFT_OUT, left_out_lines


def phantoms(out: Path, cases: int = 48, size: int = 192, seed: int = 0) -> Outcome:
    """Write the phantom data set: eight synthetic tasks that look like their modalities. No patient data, no download.

    Args:
        out: Folder to write; it must not exist or be empty.
        cases: Images of each task.
        size: Height of the images in pixels.
        seed: Another seed gives other images.
    """
    from tpseg.datasets.phantoms import write_phantoms

    tasks_file = write_phantoms(out, cases, size, seed)
    out_console.print(f"wrote {tasks_file}")
    return Outcome({"tasks_file": tasks_file, "cases": cases, "size": size, "seed": seed})


def data_list() -> Outcome:
    """List the public data sets and layouts that data prepare knows: what they are, licence, where to get them."""
    from tpseg.datasets.listing import describe_sources, sources_table

    out_console.print(sources_table())
    return Outcome({"sources": describe_sources()})


def data_prepare(
    name: str,
    source: Path,
    out: Path,
    protocol: Literal["tpseg", "paper"] = "tpseg",
    seed: int = 0,
    task: str | None = None,
    modality: str | None = None,
    description: str | None = None,
    labels: list[str] | None = None,
    group: str | None = None,
    window: str | None = None,
    axis: str | None = None,
    images: str | None = None,
    masks: str | None = None,
    annotations: str | None = None,
    channel: int | None = None,
    empty_slices: float | None = None,
    max_left_out: float = MAX_LEFT_OUT,
    preview: bool = False,
) -> Outcome:
    """Turn a download into images, masks, a split.csv and a task of OUT/tasks.yaml; several sets may share one OUT.

    What cannot be used is left out and listed in SOURCE.md; more than a few percent are refused. The same command completes what an
    interrupted one began.

    Args:
        name: A public set or a layout: 'tpseg data list' shows them.
        source: The download as it is: a folder, an archive, or a folder of archives.
        out: Folder to write; it must not lie in the download.
        protocol: tpseg: train, val cut from it, and test, the images that the paper reports on. paper: its two parts, train and val.
        seed: Another seed draws other splits, where they are drawn.
        task: Another name for the task.
        modality: Your own data: what made the images: dermoscopy, ultrasound, CT.
        description: Your own data: name of the task for people.
        labels: Your own data: the labels that are lesion, by name, number or colour ('#ff0000'), comma-separated; by default all.
        group: Your own data: regular expression on a case's name; its first group, or the whole match, is the patient or case.
        window: Your own CT or MR: how grey values become 8 bits: a window's name (lung) or CENTRE,WIDTH.
        axis: Your own volumes: how they are cut into slices: axial, coronal or sagittal.
        images: Layout folder: the folder of images in the source, or a pattern: '*.tif', '*/scan.png'.
        masks: Layout folder: the folder of masks in the source, or a pattern: '*_mask.png', '*/mask.png'.
        annotations: Layout coco: the JSON file in the source.
        channel: Layout nnunet: which of a case's images to take; by default 0000.
        empty_slices: Your own volumes: share of the slices without lesion to keep, 0 to 1; by default none.
        max_left_out: Share of the cases that may be lost, by damage, a missing partner, a wrong reference, before all is refused, 0 to 1.
        preview: Show the pairs that would be made, and what would be left out; decode and write nothing.
    """
    from tpseg.core.progress import track
    from tpseg.datasets import PUBLIC, make_source
    from tpseg.datasets.pairing import Unclear
    from tpseg.datasets.prepare import prepare
    from tpseg.datasets.preview import preview as look

    options: dict[str, object] = {"modality": modality, "description": description, "labels": labels, "group": group}
    options |= {"window": window, "axis": axis}
    options |= {"images": images, "masks": masks, "annotations": annotations, "channel": channel, "empty_slices": empty_slices}
    made_of = make_source(name, task, **options)
    others = [kind() for kind in PUBLIC.values()]
    given = ["--protocol", protocol, "--seed", str(seed)]
    accepted = None if max_left_out == MAX_LEFT_OUT else max_left_out
    for option, value in {"task": task, **options, "max_left_out": accepted}.items():
        if value is not None:
            given += [f"--{option.replace('_', '-')}", ",".join(value) if isinstance(value, list) else str(value)]
    command = ["tpseg", "data", "prepare", name, "--source", source.name, "--out", out.name, *given]  # names: paths may tell of people
    try:
        if preview:
            shown = look(made_of, source, others, max_left_out)
            for line in shown.lines():
                out_console.print(line)
            if shown.hint:
                error_console.sentence(f"warning: {shown.hint}", style="yellow")
            if shown.refusal:
                error_console.sentence(shown.refusal, style="red")
            pairs = [{key: getattr(pair, key) for key in ("name", "split", "group", "files")} for pair in shown.pairs]
            return Outcome({**vars(shown), "pairs": pairs}, 1 if shown.refusal else 0)
        done = prepare(made_of, source, out, protocol, seed, others, track, shlex.join(command), max_left_out)
    except Unclear as error:
        works = ["tpseg", "data", "prepare", name, "--source", str(source), "--out", str(out), *given, *error.options]
        raise DataError(f"{error}: look at the pairs with {shlex.join([*works, '--preview'])}, then leave out --preview") from error
    for line in left_out_lines(done.left_out):
        error_console.print(line)
    if done.hint:
        error_console.sentence(f"warning: {done.hint}", style="yellow")
    task_name = made_of.task.name
    out_console.print(f"{task_name}: {done.counts}")
    out_console.print(f"{'wrote' if done.anew else 'there already:'} {done.folder} and the task '{task_name}' in {done.tasks_file}")
    out_console.print(f"Licence, citation and what was left out: {done.folder / 'SOURCE.md'}. Next: tpseg data check {done.tasks_file}")
    return Outcome({"task": task_name, **vars(done)})


def data_check(data: Path) -> Outcome:
    """Look for what hurts most: unreadable files, masks that do not fit, duplicates and groups across splits.

    Exits 1 if there are errors.

    Args:
        data: The data set's tasks.yaml.
    """
    from tpseg.core.progress import track_calls
    from tpseg.data.manifest import read_dataset
    from tpseg.data.quality.check import check_dataset

    dataset = read_dataset(data)
    with track_calls("checking") as progress:
        report = check_dataset(dataset, progress)
    out_console.print(report)
    return Outcome({"ok": report.ok, **vars(report)}, 0 if report.ok else 1)


def data_stats(data: Path, out: Path | None = None) -> Outcome:
    """Say what a data set is like: counts by task and split, sizes, lesions, grey values, with figures.

    Exits 1 if there are cases that cannot be read: they are named and left out.

    Args:
        data: The data set's tasks.yaml.
        out: Folder for the figures (PNG and SVG), statistics.csv, statistics.json and images.csv, a line for each image.
    """
    from tpseg.core.progress import track_calls
    from tpseg.data.manifest import read_dataset
    from tpseg.data.quality.statistics import measure_dataset

    dataset = read_dataset(data)
    with track_calls("measuring") as progress:
        statistics = measure_dataset(dataset, progress)
    out_console.print(statistics)
    if out is not None:
        from tpseg.report.data_figures import draw_all

        statistics.write(out)
        figures = draw_all(statistics, out)
        out_console.print(f"wrote {out}: statistics.csv, images.csv, statistics.json and {len(figures)} figures")
    return Outcome(statistics.summary(), 1 if statistics.unreadable else 0)


def data_view(data: Path, out: Path, task: str | None = None, split: Split | None = None, number: int = 8, seed: int = 0) -> Outcome:
    """Draw a contact sheet: some images of each task with the contours of their masks.

    Exits 1 if there are cases that cannot be read: they stand there with the reason.

    Args:
        data: The data set's tasks.yaml.
        out: The file to write: .png for a quick look, .html for a page that needs no other file.
        task: Show this task only.
        split: Show this split only; by default as many of each.
        number: Images of each task.
        seed: Another seed shows other images.
    """
    from tpseg.core.progress import track_calls
    from tpseg.data.manifest import read_dataset
    from tpseg.data.quality.contact_sheet import write_sheet

    dataset = read_dataset(data)
    dataset = dataset if task is None else dataset.only([task])
    with track_calls("drawing") as progress:
        tiles = write_sheet(dataset, out, number, split, seed, progress)
    failed = [tile for tile in tiles if tile.picture is None]
    for tile in failed:
        error_console.sentence(tile.note, style="red")
    out_console.print(f"wrote {out}: {len(tiles) - len(failed)} images")
    summary = {"outputs": [out], "images": len(tiles) - len(failed), "failures": [tile.note for tile in failed]}
    return Outcome(summary, 1 if failed else 0)


def data_split(
    folder: Path,
    task: str,
    modality: str = "unknown",
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    group: str | None = None,
    seed: int = 0,
    tasks: Path | None = None,
    overwrite: bool = False,
    max_left_out: float = MAX_LEFT_OUT,
) -> Outcome:
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
        max_left_out: Share of the images that may be left out, without a mask or with several, before all is refused, 0 to 1.
    """
    from tpseg.data.splits import split_folder

    target = tasks or folder.resolve().parent / "tasks.yaml"
    drawn = split_folder(folder, task, modality, fractions, seed, group, target, overwrite, max_left_out)
    for line in left_out_lines(drawn.left_out):
        error_console.print(line)
    if drawn.hint:
        error_console.sentence(f"warning: {drawn.hint}", style="yellow")
    table = drawn.table
    counts = ", ".join(f"{split} {number}" for split, number in table["split"].value_counts().items())
    out_console.print(f"wrote {folder / 'split.csv'} ({counts}) and the task '{task}' in {target}")
    written = {"task": task, "tasks_file": target, "split": folder / "split.csv", "cases": table["split"].value_counts().to_dict()}
    return Outcome({**written, "left_out": drawn.left_out, "hint": drawn.hint})
