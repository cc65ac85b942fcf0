"""The record of a bulk run: what is done is known from it, from its parts in any order, and only while the masks are there."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tpseg.core.errors import DataError, UsageError
from tpseg.inference.ray.manifest import PARTS, RUN, Settings, open_manifest, read_lines, read_manifest, write_part
from tpseg.inference.ray.store import Folder

SETTINGS = Settings("abc", "polyp", False, False)


@pytest.fixture
def out(tmp_path) -> Folder:
    return Folder(str(tmp_path))


def done(out: Folder, image: str, size: int = 3) -> dict[str, object]:
    """The line of a mask that lies in the folder."""
    out.put(f"{image}.png", b"x" * size)
    return {"image": image, "task": "polyp", "mask": f"{image}.png", "bytes": size, "error": ""}


def failed(image: str) -> dict[str, object]:
    return {"image": image, "task": "polyp", "mask": f"{image}.png", "bytes": 0, "error": "cannot be decoded"}


def test_the_same_run_goes_on_and_another_is_refused(out):
    open_manifest(out, SETTINGS)
    open_manifest(out, SETTINGS)
    with pytest.raises(UsageError, match=r"another run \(model was abc, is xyz\); choose another --out"):
        open_manifest(out, replace(SETTINGS, model="xyz"))
    with pytest.raises(UsageError, match=r"tasks was polyp, is dfu; overlay was False, is True"):
        open_manifest(out, replace(SETTINGS, tasks="dfu", overlay=True))
    for damaged in (b"[]", b"\xff\xfe", b'{"format": 1, "format": 1}', b"[" * 100_000):
        out.put(RUN, damaged)
        with pytest.raises(DataError, match=r"run\.json: not written by tpseg"):
            open_manifest(out, SETTINGS)
    out.put(RUN, json.dumps({"format": 1, "model": "x" * 10_000, "tasks": "polyp", "probability": False, "overlay": False}).encode())
    with pytest.raises(UsageError) as refused:
        open_manifest(out, SETTINGS)
    assert len(str(refused.value)) < 1000


def test_parts_are_read_together_and_one_written_again_counts_once(out):
    assert read_manifest(out).empty
    write_part(out, [done(out, "a"), failed("b")])
    write_part(out, [done(out, "größe,\n α")])
    write_part(out, [failed("b"), done(out, "a")])  # the same images, done again in another order
    assert len(out.sizes(PARTS)) == 2
    found = read_manifest(out)
    assert sorted(found["image"]) == ["a", "b", "größe,\n α"]
    assert dict(zip(found["image"], found["error"], strict=True))["b"] == "cannot be decoded"


def test_a_later_success_replaces_a_failure(out):
    write_part(out, [failed("a"), failed("b")])
    write_part(out, [done(out, "a")])
    found = read_manifest(out).set_index("image")["error"]
    assert found.to_dict() == {"a": "", "b": "cannot be decoded"}


def test_a_mask_that_is_gone_cut_short_or_without_its_companion_is_not_done(out, tmp_path):
    write_part(out, [done(out, name) for name in "abcd"])
    (tmp_path / "b.png").unlink()
    (tmp_path / "c.png").write_bytes(b"x")
    assert sorted(read_manifest(out)["image"]) == ["a", "d"]
    out.put("a_probability.png", b"y")
    assert read_manifest(out, ["_probability"])["image"].tolist() == ["a"]


def test_an_image_that_two_machines_did_counts_with_the_mask_that_is_there(out):
    write_part(out, [done(out, "a", size=4), done(out, "b")])
    write_part(out, [done(out, "a", size=5)])  # a block that was divided differently the second time
    assert len(read_lines(out)) == 3
    assert sorted(read_manifest(out)["image"]) == ["a", "b"]


def test_a_damaged_part_is_named(out):
    write_part(out, [done(out, "a")])
    out.put(f"{PARTS}/torn.jsonl", b'{"image": "b", "ta')
    with pytest.raises(DataError, match=r"_manifest/parts: a part of the manifest is damaged"):
        read_manifest(out)
