"""What the machines do with the images: the same files as the local engine writes, whatever the store and the batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from miniature import disc
from PIL import Image

from tpseg.core.errors import DataError
from tpseg.imaging.pictures.formats import read_image
from tpseg.inference import Segmenter, predict_files
from tpseg.inference.identity import identify
from tpseg.inference.ray.manifest import read_manifest
from tpseg.inference.ray.pipeline import SEPARATOR, Worker, decode, model_sha256, read_pixels, write
from tpseg.inference.ray.store import Folder

pytestmark = pytest.mark.usefixtures("miniature_trunk")

BOTH = SEPARATOR.join(["bright_disc", "dark_disc"])


@pytest.fixture
def images(tmp_path) -> list[Path]:
    """Five pictures of different sizes, and between them a broken one."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / "in" / f"{number}.png" for number in range(6)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        Image.fromarray(disc("bright_disc", rng, 40 + 9 * number, 64 - 5 * number)[0]).save(path)
    paths[2].write_bytes(b"no image")
    return paths


def worker(model: Path, batch_size: int = 8) -> Worker:
    return Worker(str(model), model_sha256(str(model)), None, "cpu", 1, batch_size)


def batch(paths: list[Path], tasks: str = BOTH) -> dict[str, np.ndarray]:
    masks = [SEPARATOR.join(f"{task}/{path.name}" for task in tasks.split(SEPARATOR)) for path in paths]
    return {
        "image": np.array([str(path) for path in paths], object),
        "tasks": np.array([tasks] * len(paths), object),
        "masks": np.array(masks, object),
    }


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_files_are_those_of_the_local_engine(trained, images, tmp_path, batch_size):
    out, local = Folder(str(tmp_path / "bulk")), tmp_path / "local"
    written = write(worker(trained, batch_size)(decode(batch(images), 64)), out.address(), True, True, identify(trained).words)
    list(predict_files(Segmenter(trained, device="cpu"), images, ["bright_disc", "dark_disc"], local, probability=True, overlay=True))
    expected = sorted(str(path.relative_to(local)) for path in local.rglob("*.png"))
    assert len(expected) == 5 * 2 * 3
    assert sorted(name for name in out.sizes() if name.endswith(".png")) == expected
    for name in expected:
        ours, theirs = (np.asarray(Image.open(place / name)).astype(int) for place in (tmp_path / "bulk", local))
        if name.endswith("_probability.png"):
            np.testing.assert_allclose(ours, theirs, atol=700)  # of 65535: bfloat16 in batches of another size
        else:
            assert ours.shape == theirs.shape
            assert (ours != theirs).mean() < 0.01
    assert written["error"].tolist().count("") == 10
    assert written["task"].tolist() == ["bright_disc", "dark_disc"] * 6


def test_what_is_written_is_in_the_manifest_and_a_bad_image_with_its_reason(trained, images, tmp_path):
    out = Folder(str(tmp_path / "out"))
    write(worker(trained)(decode(batch(images), 64)), out.address(), False, False)
    found = read_manifest(out)
    assert len(found) == 12
    bad = found[found["error"] != ""]
    assert bad["image"].tolist() == [str(images[2])] * 2
    assert bad["error"].str.contains(r"2\.png: cannot be decoded").all()


def test_a_batch_of_nothing_but_bad_images_has_no_masks(trained, images, tmp_path):
    out = Folder(str(tmp_path / "out"))
    images[3].unlink()
    written = write(worker(trained)(decode(batch([images[2], images[3]], "dark_disc"), 64)), out.address(), False, False)
    assert [("cannot be decoded" in error, "no such file" in error) for error in written["error"]] == [(True, False), (False, True)]
    assert not [name for name in out.sizes() if name.endswith(".png")]


def test_images_are_read_from_any_store(images):
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/good.png", images[0].read_bytes())
    fs.pipe_file("/bucket/bad.png", b"no image")
    assert np.array_equal(read_pixels("memory:///bucket/good.png"), read_image(images[0]))
    for name, reason in (("bad.png", "cannot be decoded"), ("nowhere.png", "cannot be read")):
        with pytest.raises(DataError, match=f"^memory:///bucket/{name}: {reason}"):
            read_pixels(f"memory:///bucket/{name}")


def test_a_machine_with_another_model_is_refused(trained):
    with pytest.raises(DataError, match="not the same model on every machine"):
        Worker(str(trained), "0" * 64, None, "cpu", 1, 8)


def test_the_hash_covers_every_file_that_decides(trained, tmp_path):
    exported = [tmp_path / name for name in ("net.xml", "net.bin", "other.bin")]
    for path in exported:
        path.write_bytes(b"x")
    hashes = [model_sha256(str(exported[0]))]
    exported[2].write_bytes(b"y")
    assert model_sha256(str(exported[0])) == hashes[0]
    exported[1].write_bytes(b"y")  # its weights
    assert model_sha256(str(exported[0])) != hashes[0]
    assert model_sha256(str(trained)) == model_sha256(str(trained / "model"))


def test_decoding_does_not_load_the_models_libraries():
    """A machine has many such processes: each would take a few hundred megabytes and seconds more."""
    code = "import sys, tpseg.inference.ray.pipeline; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_result_with_a_name_too_long_is_named_and_the_others_are_written(trained, images, tmp_path):
    out = Folder(str(tmp_path / "out"))
    rows = batch([images[0], images[1]], "dark_disc")
    rows["masks"][0] = f"{'x' * 251}.png"
    written = write(worker(trained)(decode(rows, 64)), out.address(), True, False)
    assert "0.png: its results cannot be written: the name is too long for this disk" in written["error"][0]
    assert written["error"][1] == ""
    assert [name for name in out.sizes() if name.endswith(".png")] == ["dark_disc/1.png", "dark_disc/1_probability.png"]
