"""What files are called and what tasks say of themselves is shown, never obeyed: by a browser, a terminal, LaTeX or Markdown."""

from __future__ import annotations

import csv
import logging
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from miniature import TASKS, disc
from PIL import Image

from tpseg.checkpoints.model_folder import load_model, save_model
from tpseg.cli import main
from tpseg.cli.console import SafeConsole
from tpseg.core.untrusted import printable
from tpseg.data.manifest import read_dataset
from tpseg.datasets.release import Release
from tpseg.studies.table_formats import Cell, Heading, Line, Table

pytestmark = pytest.mark.usefixtures("miniature_trunk")

HOSTILE = [
    "<img src=x onerror=alert(1)>.png",
    '"><svg onload=alert(1)>.png',
    "{{7*7}}{% raw %}.png",
    "\x1b]0;owned\x07\x1b[2J.png",
    "one\ntpseg: all is well.png",
    "\u202egnp.txt.png",
    "=cmd|' -C calc'!A0.png",
    "'><script>alert(1)</script".replace("/", "\u2044") + ".png",
]
DESCRIPTION = '<script>alert(1)</script>"><img src=x onerror=alert(2)>{{7*7}}\x1b[31m\\input{x}[a](javascript:alert(3))|'


class Elements(HTMLParser):
    """The elements of a page: their names, and what could act: handlers, sources, links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.acts: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        for name, value in attrs:
            data = name == "src" and (value or "").startswith("data:image/")
            if name.startswith("on") or (name in ("src", "href", "action", "formaction", "srcdoc", "xlink:href") and not data):
                self.acts.append((name, value or ""))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def assert_harmless(page: str) -> None:
    found = Elements(page)
    assert "script" not in found.names
    assert {name for name, value in found.acts if not value.startswith("#")} == set()
    assert "49" not in re.findall(r"alert\(2\)&gt;(\d+)", page)
    shown = " ".join(found.words)
    assert "onerror=alert" in shown, "the names are to be seen, as they are"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    entries = {}
    for task in TASKS:
        (folder / task).mkdir()
        with (folder / task / "split.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "mask", "split", "group"])
            for number, name in enumerate(HOSTILE):
                image, mask = disc(task, np.random.default_rng(number))
                Image.fromarray(image).save(folder / task / name, format="png")
                Image.fromarray(mask).save(folder / task / f"m{number}.png")
                writer.writerow([name, f"m{number}.png", ("train", "val", "test", "test")[number % 4], f"<b>{number}"])
        entries[task] = {"modality": "<b onclick=alert(4)>CT", "data": f"{task}/split.csv", "description": DESCRIPTION}
    (folder / "tasks.yaml").write_text(yaml.safe_dump({"tasks": entries}))
    return folder / "tasks.yaml"


@pytest.fixture
def run(trained: Path, data: Path, tmp_path: Path, capsys) -> Path:
    """A run whose tasks are called so, evaluated on images that are."""
    run = Path(shutil.copytree(trained, tmp_path / "<i>run"))
    model = load_model(run)
    model.tasks = read_dataset(data).tasks
    save_model(model, run / "model")
    assert main(["evaluate", str(run), "--data", str(data), "--split", "test"]) == 0
    capsys.readouterr()
    return run


def test_the_report_of_a_run(run: Path, data: Path, capsys) -> None:
    assert main(["report", str(run), "--data", str(data)]) == 0
    assert_harmless((run / "report.html").read_text(encoding="utf-8"))
    capsys.readouterr()


def test_the_contact_sheet(data: Path, tmp_path: Path, capsys) -> None:
    assert main(["data", "view", str(data), "--out", str(tmp_path / "sheet.html")]) == 0
    assert_harmless((tmp_path / "sheet.html").read_text(encoding="utf-8"))
    capsys.readouterr()


def test_a_table_of_a_study() -> None:
    lines = [Line(DESCRIPTION, [DESCRIPTION, HOSTILE[1]], [Cell("1.0", "0.1", "best")])]
    tidy = pd.DataFrame({"row": [DESCRIPTION]})
    table = Table("x", DESCRIPTION, ["a", "b"], [Heading(DESCRIPTION, HOSTILE[0])], lines, [DESCRIPTION], tidy)
    assert_harmless(table.to_html())
    latex = table.to_latex()
    assert r"\input{" not in latex
    assert r"\textbackslash{}input" in latex
    markdown = table.to_markdown()
    assert re.search(r"(?<!\\)<(script|img|svg)", markdown) is None
    assert re.search(r"(?<!\\)\[a(?<!\\)\]\(", markdown) is None


def test_the_model_card(run: Path) -> None:
    """Hubs and editors show a card as Markdown, in which HTML counts."""
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "alert" in card
    assert re.search(r"(?<!\\)<(script|img|b )", card) is None
    assert re.search(r"(?<!\\)\[a\]\(javascript", card) is None
    assert "\x1b" not in card


def controls(text: str) -> list[str]:
    return [character for character in text if not character.isprintable() and character != "\n"]


@pytest.mark.parametrize(
    "verb", [["data", "check", "DATA"], ["data", "stats", "DATA"], ["evaluate", "RUN", "--data", "DATA"], ["info", "RUN"]], ids=" ".join
)
def test_what_goes_to_the_terminal(verb: list[str], run: Path, data: Path, capsys) -> None:
    (data.parent / "bright_disc" / "m3.png").write_bytes(b"damaged") if "check" in verb else None
    main([{"DATA": str(data), "RUN": str(run)}.get(word, word) for word in verb])
    said = capsys.readouterr()
    assert controls(said.out + said.err) == []
    _, mask = disc("bright_disc", np.random.default_rng(3))
    Image.fromarray(mask).save(data.parent / "bright_disc" / "m3.png")


def test_files_that_cannot_be_segmented_are_told_of_in_one_line_each(trained: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in HOSTILE:
        (folder / name).write_bytes(b"no picture")
    (folder / "fine.png").write_bytes(b"no picture")
    (folder / "\udcff\udcfe.png").write_bytes(b"of a name in no encoding")
    assert main(["predict", str(trained), str(folder), "--task", "bright_disc", "--out", str(tmp_path / "out"), "--device", "cpu"]) == 1
    said = capsys.readouterr()
    assert controls(said.out + said.err) == []
    lines = said.err.splitlines()
    assert sum(line.startswith("skipped: ") for line in lines) == len(HOSTILE) + 2
    assert not any(line.startswith("tpseg: all is well") for line in lines)
    assert r"\x1b]0;owned\x07" in said.err


def test_names_in_no_encoding_are_segmented(trained: Path, discs: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "in").mkdir()
    shutil.copyfile(discs.parent / "bright_disc" / "00.png", tmp_path / "in" / "\udcff.png")
    out = tmp_path / "out"
    assert main(["predict", str(trained), str(tmp_path / "in"), "--task", "bright_disc", "--out", str(out), "--device", "cpu"]) == 0
    assert [path.name for path in out.iterdir()] == ["\udcff.png"]
    capsys.readouterr()


def test_hostile_names_in_a_download(tmp_path: Path, capsys) -> None:
    for name in ("images", "masks"):
        (tmp_path / "in" / name).mkdir(parents=True)
    for number, name in enumerate([*HOSTILE, "\udcff.png"]):
        image, mask = disc("bright_disc", np.random.default_rng(number))
        Image.fromarray(image).save(tmp_path / "in" / "images" / name, format="png")
        Image.fromarray(mask).save(tmp_path / "in" / "masks" / name, format="png")
    (tmp_path / "in" / "images" / "<img src=x onerror=alert(1)>.gif").write_bytes(b"")
    (tmp_path / "in" / "images" / "<img src=x onerror=alert(5)>.png").write_bytes(b"alone")
    words = [
        "data",
        "prepare",
        "folder",
        "--source",
        str(tmp_path / "in"),
        "--out",
        str(tmp_path / "out"),
        "--task",
        "lesion",
        "--modality",
        "CT",
        "--max-left-out",
        "0.5",
    ]
    assert main(words) == 0
    said = capsys.readouterr()
    assert controls(said.out + said.err) == []
    data = read_dataset(tmp_path / "out")
    assert len(data.cases) == len(HOSTILE) + 1
    for case in data.cases:
        assert re.fullmatch(r"[\w.,=' ()+-]+", case.image.name), "what is written has a name that no program takes amiss"
    assert re.search(r"(?<!\\)<img", (tmp_path / "out" / "lesion" / "SOURCE.md").read_text(encoding="utf-8")) is None
    with Release(tmp_path / "in"):
        pass


def test_a_console_spells_control_characters_out_wherever_they_stand(capsys) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    console = SafeConsole(markup=False)
    table = RichTable("a\x1b]0;x\x07", title=Text("b\x1b[2J"))
    table.add_row(Text("c\x9b31m"))
    console.print(table)
    console.print("d\x1b[2J\nsecond line")
    console.sentence("e\x1b[2J\nno second line")
    said = capsys.readouterr().out
    assert controls(said) == []
    assert "d\\x1b[2J\nsecond line\n" in said
    assert "e\\x1b[2J\\nno second line\n" in said


def test_a_warning_of_the_library_is_one_line(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each verb sees to it first of all; without handlers, as nobody sets up logging on the command line."""
    monkeypatch.setattr(logging.lastResort, "formatter", None)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    assert main(["--version"]) == 0
    for name in ("one\ntpseg: all is well", "a\x1b[2J"):
        logging.getLogger("tpseg.inference.files").warning("%s: looks like dermoscopy", name)
    assert capsys.readouterr().err == "one\\ntpseg: all is well: looks like dermoscopy\na\\x1b[2J: looks like dermoscopy\n"


def test_printable_keeps_what_people_write() -> None:
    assert printable("Läsion 漢字 é ½ – 'x'") == "Läsion 漢字 é ½ – 'x'"
    assert printable("a\x00\x1b\x7f\x9b\u202e\u2028\ud800\r\n") == r"a\x00\x1b\x7f\x9b\u202e\u2028\ud800\r\n"
