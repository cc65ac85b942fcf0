"""docs/clinical.md does what it says: its commands and its Python are run as they are printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import av
import numpy as np
import pytest
import tifffile
from dicom_factory import write_dicom, write_nifti, write_series
from miniature import disc

from tpseg.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "clinical.md"
TASKS = {"lung_infection", "brain_tumour", "polyp", "adenocarcinoma"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path) -> Path:
    """The page's files and model, in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/mine").symlink_to(trained)
    rng = np.random.default_rng(0)
    volume = np.stack([disc("bright_disc", rng)[0].mean(axis=2) * 6 - 700 for _ in range(3)]).astype(np.int16)
    write_series(Path("ct"), volume)
    write_dicom(Path("scan.dcm"), volume[0])
    write_nifti(Path("brain.nii.gz"), volume.transpose(2, 1, 0))
    tifffile.imwrite("slide.tif", disc("bright_disc", rng, 600, 700)[0], photometric="rgb")
    with av.open("colonoscopy.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(disc("bright_disc", rng)[0], "rgb24")))
        container.mux(stream.encode(None))
    return tmp_path


@pytest.mark.usefixtures("miniature_trunk")
@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_page_does_what_it_says(place: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = shlex.split(command)
    assert program == "tpseg"
    assert main(["bright_disc" if word in TASKS else word for word in words]) == 0
    assert "segmented 1 of 1" in capsys.readouterr().out
    name = {"ct/": "ct.dcm", "brain.nii.gz": "brain.nii.gz", "colonoscopy.mp4": "colonoscopy.mkv", "slide.tif": "slide.png"}[words[2]]
    out = Path(words[words.index("--out") + 1])
    assert (out / name).is_file()
    for option, ending in (("--overlay", "_overlay*"), ("--probability", "_probability.nii.gz"), ("--sr", "_report.dcm")):
        assert (option in words) == bool(list(out.glob(f"*{ending}")))


@pytest.mark.usefixtures("miniature_trunk")
def test_the_python_of_the_page(place: Path) -> None:
    (code,) = blocks("python")
    names: dict = {}
    exec(code.replace("lung_infection", "bright_disc"), names)
    assert names["one"].mask.shape == (48, 64)
    assert names["found"].masks.shape == (3, 48, 64)
    assert names["found"].scan.spacing == (0.5, 0.75)
