"""From a download to a data set: images/, masks/, split.csv and SOURCE.md for one task, and its entry in a tasks.yaml."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from PIL import Image

from tpseg.core.errors import DataError, UsageError, few, nearest
from tpseg.core.files import read_json_object, replacing, write_atomically
from tpseg.core.folder_search import may_be_case
from tpseg.data.left_out import MAX_LEFT_OUT, check_share, refuse_losses
from tpseg.data.quality.groups import suggest_groups
from tpseg.data.splits import tasks_text
from tpseg.datasets.partition import LEAK, Member, Protocol, partition
from tpseg.datasets.pictures import decode, suffix_of
from tpseg.datasets.release import Release
from tpseg.datasets.source import LeftOut, Pair, Source
from tpseg.datasets.source_page import Counts, count, source_page
from tpseg.imaging.pictures.formats import to_mask, to_rgb

WORKERS = 4
"""Threads that decode and encode; each holds one case."""
RECORD = "prepared.json"
"""What a folder was made of and with, from the first file on."""
SCRATCH = ".preparing"
"""In a task's folder while somebody works there: the lock, and what had to be unpacked."""
LONGEST = 55
"""Characters of a file's name, of up to four bytes each; a longer one is cut and told from others by a hash."""

Watch = Callable[[Iterable[Any], int, str], Iterator[Any]]


@dataclass(frozen=True)
class Prepared:
    """What `prepare` has made."""

    folder: Path
    tasks_file: Path
    counts: Counts
    left_out: list[LeftOut]
    anew: bool
    """False if it was there already."""
    hint: str
    """Groups that the names suggest, or ''."""


@dataclass(frozen=True)
class _Written:
    """A case whose files are whole."""

    pair: Pair
    image: str
    mask: str
    digest: str
    """Of the decoded picture, as `data check` compares them; '' for a picture of one colour."""
    lesion: bool
    """Whether its mask shows any."""


def prepare(
    source: Source,
    release_path: Path,
    out: Path,
    protocol: Protocol = "tpseg",
    seed: int = 0,
    others: Sequence[Source] = (),
    watch: Watch = lambda items, total, description: iter(items),
    command: str = "",
    most_left_out: float = MAX_LEFT_OUT,
) -> Prepared:
    """Turn a download into OUT/TASK/{images,masks,split.csv,SOURCE.md} and an entry of OUT/tasks.yaml.

    What one call began, the same call completes: files that are whole are kept. Cases that cannot be used are left out and listed,
    and so is every file that no case is made of; `most_left_out` is the share of the cases that may be lost. `others` are the
    sources that a wrong download is compared with. Raises DataError for a download that is no release of this source, holds nothing
    usable or loses more: then nothing stays behind; UsageError for a folder that was made with other settings or by something else.
    Nothing outside `out` is ever written.
    """
    check_share(most_left_out)
    if protocol not in get_args(Protocol):
        raise UsageError(f"protocol '{protocol}': expected {' or '.join(get_args(Protocol))}{nearest(protocol, get_args(Protocol))}")
    if protocol == "paper" and source.facts is None:
        raise UsageError(f"--protocol paper: the paper has no split of a source like '{source.name}'; leave it out")
    if release_path.is_dir() and out.resolve().is_relative_to(release_path.resolve()):
        raise UsageError(f"--out {out} lies in the download {release_path}; give a folder beside it")
    folder, tasks_file = out / source.task.name, out / "tasks.yaml"
    tasks_text(tasks_file, source.task.name, _entry(source), overwrite=False)  # refuses another task of this name before the work
    with _working(folder) as scratch, Release(release_path, scratch) as release:
        settings = _settings(source, release, protocol, seed)
        present = _present(folder, settings)
        if present is None or not present["complete"]:
            pairs, left_out = find_cases(source, release, others)
            refuse_losses(release_path, units(pairs), left_out, most_left_out)
            _begin(folder, settings)
            written, faulty = _write_all(_safe_names(pairs), folder, watch)
            left_out += faulty
            try:
                refuse_losses(release_path, units([one.pair for one in written]), left_out, most_left_out)
                if not any(one.lesion for one in written):
                    raise DataError(
                        f"{release_path}: all {len(written)} masks are empty; are the labels that you chose those of the lesion?"
                    )
            except DataError:
                _discard(folder)
                raise
            _finish(folder, source, settings, written, left_out, command)
        _add_task(tasks_file, source)
    record = _present(folder, settings)
    assert record is not None
    anew = present is None or not present["complete"]
    return Prepared(
        folder, tasks_file, Counts(**record["counts"]), [LeftOut(*one) for one in record["left_out"]], anew, record.get("hint", "")
    )


def find_cases(source: Source, release: Release, others: Sequence[Source] = ()) -> tuple[list[Pair], list[LeftOut]]:
    """The cases of a release, nothing decoded, and whatever in it becomes none; raises DataError if it is no release of this source."""
    found = list(source.pairs(release))
    pairs = [one for one in found if isinstance(one, Pair)]
    left_out = [*(one for one in found if isinstance(one, LeftOut)), *release.skipped]
    if not pairs:
        raise DataError(_wrong_download(source, release, others))
    spoken_of = {str(file) for pair in pairs for file in pair.files} | {one.name for one in left_out}
    unused = [str(file) for file in release.files if str(file) not in spoken_of and may_be_case(file)]
    return pairs, [*left_out, *(LeftOut(file, "in no case", meant=True) for file in unused)]


def units(pairs: Sequence[Pair]) -> int:
    """The number of images that cases are made of; the slices of a volume are of one."""
    return len({pair.files[0] if pair.files else pair.name for pair in pairs})


def hint_of(pairs: Sequence[Pair]) -> str:
    """Groups that the names of the cases suggest, if none has a group and a pattern could give them one; or ''."""
    ungrouped = [pair.searched for pair in pairs if pair.searched and not pair.group]
    return suggest_groups(ungrouped) if len(ungrouped) == len(pairs) else ""


def _entry(source: Source) -> dict[str, str]:
    """The task's entry in tasks.yaml."""
    more = {key: value for key, value in asdict(source.task).items() if key not in ("name", "modality") and value}
    return {"modality": source.task.modality, "data": f"{source.task.name}/split.csv", **more}


def _settings(source: Source, release: Release, protocol: str, seed: int) -> dict[str, Any]:
    """What a prepared folder depends on."""
    options = {key: str(value) for key, value in sorted(vars(source).items()) if value not in (None, "", ()) and key != "task"}
    return {
        "source": source.name,
        "options": options,
        "task": asdict(source.task),
        "protocol": protocol,
        "seed": seed,
        "hashed": "the archive" if release.path.is_file() else "its listing: paths and sizes",
        "release": release.sha256(),
    }


@contextmanager
def _working(folder: Path) -> Iterator[Path]:
    """A scratch folder in the task's folder, which nobody else may work in; that and new folders are removed if they end up empty."""
    new = [place for place in (folder, *folder.parents) if place == folder or not place.exists()]
    scratch = folder / SCRATCH
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(scratch / "lock", timeout=0):
            for left_behind in scratch.glob("tpseg-release-*"):  # by a process that was killed
                shutil.rmtree(left_behind)
            try:
                yield scratch
            finally:
                shutil.rmtree(scratch)
    except Timeout as error:
        raise UsageError(f"{folder}: another tpseg data prepare is at work there; wait for it") from error
    finally:
        for place in new:
            if place.exists() and not any(place.iterdir()):
                place.rmdir()


def _present(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a folder that these settings have made or begun; None for an empty one; raises UsageError for any other."""
    if not (folder / RECORD).exists():
        if any(place.name != SCRATCH for place in folder.iterdir()):
            raise UsageError(f"{folder}: holds files that tpseg data prepare has not made; give another --out, or another --task")
        return None
    record = read_json_object(folder / RECORD, "not written by tpseg data prepare")
    made = record.get("settings", {})
    differing = [f"{key} {made.get(key)!r}, not {value!r}" for key, value in settings.items() if made.get(key) != value]
    if differing:
        state = "made" if record.get("complete") else "begun"
        raise UsageError(f"{folder}: was {state} with other settings ({'; '.join(differing)}); give another --out or --task, or delete it")
    return record


def _begin(folder: Path, settings: dict[str, Any]) -> None:
    for name in ("images", "masks"):
        (folder / name).mkdir(exist_ok=True)
        for half_written in (folder / name).glob(".*"):
            half_written.unlink()
    _write_record(folder, {"settings": settings, "complete": False})


def _discard(folder: Path) -> None:
    """Remove what was begun."""
    for name in ("images", "masks"):
        shutil.rmtree(folder / name)
    (folder / RECORD).unlink()


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    write_atomically(folder / RECORD, json.dumps(record, indent=2) + "\n")


def _safe_names(pairs: Sequence[Pair]) -> list[tuple[str, Pair]]:
    """A file name for each case that is one on every system: letters, digits, '_', '-' and '.'; no two alike but for case."""
    named, taken = [], set()
    for pair in pairs:
        plain = re.sub(r"[^\w.-]+", "_", pair.name).strip("._-") or "case"
        if len(plain) > LONGEST:
            plain = f"{plain[: LONGEST - 9]}_{hashlib.sha256(pair.name.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
        name, number = plain, 2
        while name.casefold() in taken:
            name, number = f"{plain}_{number}", number + 1
        taken.add(name.casefold())
        named.append((name, pair))
    return named


def _write_all(named: Sequence[tuple[str, Pair]], folder: Path, watch: Watch) -> tuple[list[_Written], list[LeftOut]]:
    """Write every case that can be; in a few threads, for decoding leaves Python's lock."""
    pool = ThreadPoolExecutor(max_workers=min(WORKERS, os.cpu_count() or 1))
    try:
        results = list(watch(pool.map(lambda item: _write(item[0], item[1], folder), named), len(named), "preparing"))
    finally:  # an interrupt must not wait for the cases still queued
        pool.shutdown(cancel_futures=True)
    return [one for one in results if isinstance(one, _Written)], [one for one in results if isinstance(one, LeftOut)]


def _write(name: str, pair: Pair, folder: Path) -> _Written | LeftOut:
    """One case's files, the image last: where it is, both are whole."""
    mask_path = folder / "masks" / f"{name}.png"
    try:
        image_path = next((path for suffix in (".png", ".jpg") if (path := folder / "images" / f"{name}{suffix}").exists()), None)
        if image_path is not None:
            pixels = _pixels(image_path.read_bytes(), pair.name)
            mask = to_mask(decode(mask_path.read_bytes(), pair.name), mask_path).mask
        else:
            content, mask = pair.image(), pair.mask()
            pixels = _pixels(content, pair.name)
            if mask.shape != pixels.shape[:2]:
                sizes = [f"{width}x{height}" for height, width in (pixels.shape[:2], mask.shape[:2])]
                raise DataError(f"{pair.name}: image {sizes[0]}, mask {sizes[1]}; expected one size")
            image_path = folder / "images" / f"{name}{suffix_of(content) if isinstance(content, bytes) else '.png'}"
            with replacing(mask_path) as new:
                Image.fromarray(mask.astype(np.uint8) * 255).save(new, format="PNG")
            with replacing(image_path) as new:
                if isinstance(content, bytes):
                    new.write_bytes(content)
                else:
                    Image.fromarray(content).save(new, format="PNG")
    except DataError as error:
        return LeftOut(pair.name, "cannot be used", str(error))
    constant = bool((pixels == pixels[0, 0]).all())
    digest = "" if constant else hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
    return _Written(pair, f"images/{image_path.name}", f"masks/{mask_path.name}", digest, bool(mask.any()))


def _pixels(content: np.ndarray | bytes, name: str) -> np.ndarray:
    """What readers will see of an image, (H, W, 3) uint8."""
    if isinstance(content, bytes):
        if not suffix_of(content):
            raise DataError(f"{name}: neither PNG nor JPEG by its content")
        return to_rgb(decode(content, name), name)
    return content if content.ndim == 3 else np.repeat(content[..., None], 3, axis=2)


def _finish(
    folder: Path, source: Source, settings: dict[str, Any], written: Sequence[_Written], left_out: list[LeftOut], command: str
) -> None:
    """Put every case into a split; write the split file, the page and, last, that the folder is complete."""
    by_image = {one.image: one for one in written}
    members = [Member(one.image, one.pair.split, one.pair.group, one.digest) for one in written]
    counts = source.facts.counts if source.facts else {}
    kept, leaks = partition(members, counts, settings["protocol"], settings["seed"])
    if settings["protocol"] != "paper":
        left_out = [*left_out, *(LeftOut(one.name, LEAK, one.group, meant=True) for one in leaks)]
    hint = hint_of([one.pair for one in written])
    rows = [
        {"image": one.name, "mask": by_image[one.name].mask, "split": one.split, "group": one.group, **by_image[one.name].pair.columns}
        for one in kept
    ]
    found = count([one.split for one in kept], counts, settings["protocol"], len(leaks))
    copies = Counter(one.digest for one in written if one.digest)
    shared = sum(number for number in copies.values() if number > 1)
    write_atomically(folder / "split.csv", pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    write_atomically(folder / "SOURCE.md", source_page(source, settings, found, shared, left_out, command, hint))
    listed = [list(astuple(one)) for one in left_out]
    _write_record(folder, {"settings": settings, "complete": True, "counts": asdict(found), "left_out": listed, "hint": hint})


def _add_task(tasks_file: Path, source: Source) -> None:
    """The task's entry, added or brought up to date; others may be adding theirs."""
    with FileLock(tasks_file.with_name(".tasks.lock")):
        text = tasks_text(tasks_file, source.task.name, _entry(source), overwrite=False)
        write_atomically(tasks_file, text)


def _wrong_download(source: Source, release: Release, others: Sequence[Source]) -> str:
    """What was expected, what is there, and which other sets it looks like."""
    expected = source.facts.files if source.facts else " ".join((inspect.getdoc(type(source)) or "").split("\n\n")[0].split()).rstrip(".")
    folders = Counter(f"{file.parent.as_posix().removeprefix('.')}/*{file.suffix}".lstrip("/") for file in release.files)
    found = few([f"{what} ({number})" for what, number in folders.items()], 6) or "no files"
    alike = [other.name for other in others if other.name != source.name and _recognises(other, release)]
    hint = f"; this looks like {' or '.join(alike)}: tpseg data prepare {alike[0]}" if alike else ""
    advice = f"; {source.advice}" if source.advice else ""
    return f"{release.path}: not a release of '{source.name}'; expected {expected}; found {found}{hint}{advice}"


def _recognises(source: Source, release: Release) -> bool:
    try:
        return any(isinstance(one, Pair) for one in source.pairs(release))
    except DataError:
        return False
