"""The record of a bulk run: run.json, with what decides its results, and parts/*.jsonl, a line for each mask or failure.

A part is written whole, after the masks that its lines name. Machines write parts of their own and never touch those of
others; who reads takes them together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.json

from tpseg.core.errors import DataError, UsageError
from tpseg.core.untrusted import parse_json
from tpseg.inference.ray.store import Folder

PLACE = "_manifest"
RUN = f"{PLACE}/run.json"
PARTS = f"{PLACE}/parts"
SHOWN = 200
"""Letters of a setting of another run that are quoted."""
FORMAT = 1
"""Version of the manifest; raised when an older tpseg could not read it."""

KEY = ["image", "task"]
SCHEMA = pa.schema([("image", pa.string()), ("task", pa.string()), ("mask", pa.string()), ("bytes", pa.int64()), ("error", pa.string())])
"""mask: its name in the folder; bytes: its size; error: why there is none, '' if there is one."""


@dataclass(frozen=True)
class Settings:
    """What decides the results of a run: two runs into one folder must agree on it."""

    model: str
    """SHA-256 of the model's files."""
    tasks: str
    """Names, comma-separated, or 'by image' where a manifest names them."""
    probability: bool
    overlay: bool


def open_manifest(out: Folder, settings: Settings) -> None:
    """Begin a run in a folder or go on with it; raises UsageError if another run's results lie there."""
    wanted = {"format": FORMAT, **asdict(settings)}
    content = out.get(RUN)
    if content is None:
        out.put(RUN, (json.dumps(wanted, indent=2) + "\n").encode(), durable=True)
        return
    try:
        found = parse_json(content.decode("utf-8"))
        differing = [f"{key} was {str(found[key])[:SHOWN]}, is {wanted[key]}" for key in wanted if found[key] != wanted[key]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{out.address(RUN)}: not written by tpseg ({error!r}); choose another --out") from error
    if differing:
        raise UsageError(f"{out.address()}: holds the masks of another run ({'; '.join(differing)}); choose another --out")


def write_part(out: Folder, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add lines to the manifest. The same images give the same name: what is done twice is recorded once."""
    key = "\n".join(sorted(f"{row['image']}\t{row['task']}" for row in rows))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    out.put(f"{PARTS}/{hashlib.sha256(key.encode()).hexdigest()[:32]}.jsonl", lines.encode(), durable=True)


def read_lines(out: Folder) -> pd.DataFrame:
    """All lines of all parts, with the columns of SCHEMA; an image that was done twice may have two."""
    parts = out.get_all(PARTS, ".jsonl")
    joined = b"".join(parts.values())
    if not joined:
        return SCHEMA.empty_table().to_pandas()
    options = pyarrow.json.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="error")
    try:
        return pyarrow.json.read_json(pa.BufferReader(joined), parse_options=options).to_pandas()
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{out.address(PARTS)}: a part of the manifest is damaged ({error}); remove it and its images are done anew"
        ) from error


def read_manifest(out: Folder, endings: Sequence[str] = ("",)) -> pd.DataFrame:
    """One line for each image and task that is done, its files still there, or failed; columns of SCHEMA.

    A mask must have the size that a line of it names, and beside it lie the files `mask` + each of `endings`. Done wins
    over failed. Costs a listing of the folder, no reading of masks.
    """
    lines = read_lines(out)
    sizes = pd.Series(out.sizes(), dtype="int64")
    failed = lines["error"] != ""
    there = sizes.reindex(lines["mask"]).to_numpy() == lines["bytes"].to_numpy()
    for ending in endings:
        there &= (lines["mask"].str.removesuffix(".png") + f"{ending}.png").isin(sizes.index).to_numpy()
    kept = pd.concat([lines[~failed & there], lines[failed]])
    return kept.drop_duplicates(KEY, keep="first").reset_index(drop=True)
