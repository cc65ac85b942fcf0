"""docs/export.md does what it says: its commands on a file are run as they are printed, its export commands are read."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tpseg.cli import VERBS, main
from tpseg.cli.arguments import read_arguments, split_verb

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "export.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def test_every_export_command_of_the_page_is_understood():
    exports = [words[1:] for words in commands() if words[:2] == ["tpseg", "export"]]
    assert len(exports) == 6
    for words in exports:
        verb, rest = split_verb(VERBS, words)
        assert verb is not None
        values = read_arguments(verb, rest)
        assert values["model"] == "runs/mine"
        assert values["out"].suffix == {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}[values["format"]]
    assert read_arguments(verb, exports[-2][1:])["check_sizes"] == [256, 352, 512]


def test_what_the_page_does_with_a_file_is_run(onnx_file, tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(onnx_file, "mine.onnx")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save("photo.png")
    used = [words for words in commands() if "mine.onnx" in words and words[1] != "export"]
    assert [words[:2] for words in used] == [["tpseg", "predict"], ["tpseg", "evaluate"], ["python", "examples/onnx_predict.py"]]
    for program, *words in used:
        if program == "tpseg":
            assert main(words) == 0
        else:
            subprocess.run([sys.executable, str(ROOT / words[0]), *words[1:]], check=True)
    for name in ("masks/photo.png", "mask.pgm"):
        with Image.open(name) as mask:
            assert mask.size == (50, 40)
    assert (tmp_path / "scores" / "test.json").is_file()
