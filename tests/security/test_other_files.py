"""Files that make a library open others, wherever they lie: refused, or read without them. Each test shows that the library alone does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import av
import h5py
import numpy as np
import pytest
import SimpleITK as sitk
from fake_releases import matlab, slice16
from video_files import ramp, write_video

from tpseg.core.errors import DataError
from tpseg.datasets.btd import read_array, read_facts
from tpseg.datasets.release import Release
from tpseg.imaging.reading.opening import find_scans, open_scan
from tpseg.imaging.writing.video import Video, rate_of

SECRET = bytes(range(100, 180))
METAIMAGE = "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\n"
NRRD = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n"
LONG = "".join(f"k{number} = {'x' * 50}\n" for number in range(2000))
HEADERS = {
    "a_list.mhd": METAIMAGE + "ElementDataFile = LIST\n" + "SECRET\n" * 4,
    "a_colon.mhd": METAIMAGE + "ElementDataFile : SECRET\n",
    "an_equals_sign_and_a_colon.mhd": METAIMAGE + "ElementDataFile = :SECRET\n",
    "a_space.mhd": METAIMAGE + " ElementDataFile = SECRET\n",
    "twice.mhd": METAIMAGE + "ElementDataFile = SECRET\nElementDataFile = LOCAL\n",
    "another_case_before.mhd": METAIMAGE + "elementdatafile = LOCAL\nElementDataFile = SECRET\n",
    "a_comment_before.mhd": METAIMAGE + f"Comment = ElementDataFile = LOCAL\n{LONG}ElementDataFile = SECRET\n",
    "far_behind.mhd": METAIMAGE + f"{LONG}ElementDataFile = SECRET\n",
    "far_behind.nrrd": NRRD + f"#{'x' * 50}\n" * 2000 + "data file: SECRET\n",
    "a_carriage_return.nrrd": NRRD + "# a comment\rdata file: SECRET\n",
    "no_space.nrrd": NRRD + "datafile: SECRET\n",
    "capitals.nrrd": NRRD + "DATA FILE: SECRET\n",
}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "secret.raw").write_bytes(SECRET)
    return tmp_path / "secret.raw"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def itk_name(path: Path) -> str:
    return "NrrdImageIO" if path.suffix == ".nrrd" else "MetaImageIO"


def shows_secret(path: Path, reader: str = "") -> bool:
    return bool(sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO=reader)).ravel()[0] == SECRET[0])


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_itk_reads_otherwise(name: str, folder: Path, secret: Path) -> None:
    (folder / "LIST").write_text("a file of this name")
    (folder / name).write_text(HEADERS[name].replace("SECRET", str(secret)))
    assert shows_secret(folder / name, itk_name(folder / name))
    with pytest.raises(DataError, match=r"expected one file beside it|header of at most 64 KiB"):
        open_scan(folder / name)


@pytest.mark.parametrize(("name", "header"), [("a.mha", METAIMAGE + "ElementDataFile = LOCAL\n"), ("a.nrrd", NRRD + "\n")])
def test_a_volume_that_is_hdf5_as_well(name: str, header: str, folder: Path, secret: Path) -> None:
    """HDF5 may begin with anything; ITK prefers it, and HDF5 takes voxels from any file."""
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 4, 4), np.uint8)), str(folder / "plain.h5"))
    with h5py.File(folder / "plain.h5") as plain, h5py.File(folder / name, "w", userblock_size=512) as both:
        for key in plain:
            plain.copy(key, both)
        del both["ITKImage/0/VoxelData"]
        both["ITKImage/0"].create_dataset("VoxelData", (5, 4, 4), "u1", external=[(str(secret), 0, 80)])
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(header.encode() + content[len(header) :])
    assert shows_secret(folder / name)
    scan = open_scan(folder / name)
    assert scan.frames == 4
    assert scan._load().max() == 0  # type: ignore[attr-defined]


def test_plain_headers_are_read(folder: Path) -> None:
    (folder / "voxels (1).raw").write_bytes(bytes(64))
    (folder / "a.mhd").write_bytes((METAIMAGE + "0008|0060 = CT\nComment =\nElementDataFile = voxels (1).raw\n").encode())
    (folder / "b.mhd").write_bytes((METAIMAGE + "ElementDataFile = voxels (1).raw\n").replace("\n", "\r\n").encode())
    (folder / "c.nrrd").write_text(NRRD + "data file: voxels (1).raw\nkey:=value\n")
    (folder / "d.nrrd").write_bytes((NRRD + "\n").replace("\n", "\r\n").encode() + bytes(100_000))
    for path in folder.glob("?.*"):
        assert open_scan(path).frames == 4


def links(file: h5py.File, secret: Path, field: str, kind: str) -> None:
    """Put what leads to another file in the place of a field."""
    shape, dtype = file[f"cjdata/{field}"].shape, file[f"cjdata/{field}"].dtype
    if kind == "group":
        del file["cjdata"]
        file["cjdata"] = h5py.ExternalLink(str(secret), "x")
        return
    del file[f"cjdata/{field}"]
    if kind == "external":
        file["cjdata"].create_dataset(field, shape, dtype, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    elif kind == "virtual":
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource(str(secret), "x", shape)
        file["cjdata"].create_virtual_dataset(field, layout)
    else:
        file["cjdata"][field] = h5py.SoftLink("/elsewhere") if kind == "soft" else h5py.ExternalLink(str(secret), "x")
        file["elsewhere"] = h5py.ExternalLink(str(secret), "x")


@pytest.fixture
def slices(folder: Path) -> Iterator[Release]:
    (folder / "1.mat").write_bytes(matlab(*slice16(1), "100360"))
    with Release(folder) as release:
        yield release


@pytest.mark.parametrize("kind", ["external", "virtual", "soft", "link", "group"])
@pytest.mark.parametrize("field", ["image", "PID"])
def test_a_matlab_file_that_leads_to_others(kind: str, field: str, slices: Release, secret: Path) -> None:
    name = PurePosixPath("1.mat")
    read_array(slices, name, "image"), read_facts(slices, name)
    with h5py.File(slices.path / "1.mat", "a") as file:
        links(file, secret, field, kind)
    with pytest.raises(DataError, match=f"1.mat: .*cjdata/{field} is no plain field"):
        read_array(slices, name, field) if field == "image" else read_facts(slices, name)


def test_a_video_that_is_a_list_of_others(folder: Path) -> None:
    write_video(folder / "other.mp4", ramp(4))
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    with av.open(str(folder / "list.mp4")) as container:
        assert container.format.name == "concat"
    with pytest.raises(DataError, match=r"list\.mp4: cannot be read"):
        open_scan(folder / "list.mp4")


def test_a_video_s_name_is_no_address(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the current folder a name stands alone, and to FFmpeg may be a protocol."""
    monkeypatch.chdir(folder)
    write_video(folder / "other.mp4", ramp(4))
    write_video(folder / "x.mp4", ramp(6)).rename(folder / "concat:other.mp4")
    with av.open("concat:other.mp4") as container:
        assert container.streams.video[0].frames == 4
    (found,) = (found for found in find_scans(["."]) if "concat" in found.name)
    assert open_scan(found).frames == 6
    assert rate_of(found.path) == 10
    video = Video(Path("http:localhost.mkv"), rate_of(found.path), lossless=True)
    video.add(np.zeros((48, 64), np.uint8))
    video.close()
    assert open_scan(Path("http:localhost.mkv")).frames == 1
