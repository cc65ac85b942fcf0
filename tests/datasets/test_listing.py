"""`tpseg data list` tells what people must know before they download a set."""

from __future__ import annotations

import json

import pytest

from tpseg.cli import main
from tpseg.cli.console import out_console
from tpseg.datasets import PUBLIC, SOURCES


def test_every_public_set_is_listed_with_its_facts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_console, "_width", 400)  # COLUMNS counts when a console is made
    assert main(["data", "list"]) == 0
    printed = capsys.readouterr().out
    for name, kind in PUBLIC.items():
        facts = kind.facts
        assert facts is not None
        expected = (name, kind.task.name, facts.size, facts.licence, facts.page, facts.files, facts.split)
        for text in (*expected, f"train {facts.counts['train']}, val {facts.counts['val']}"):
            assert text in printed
    for name in SOURCES:
        assert name in printed


def test_the_list_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)["sources"]}
    assert list(listed) == list(SOURCES)
    assert listed["busi"]["counts"] == {"train": 486, "val": 161}
    assert listed["busi"]["task"] == "breast_lesion"
    assert listed["nnunet"]["layout"].startswith("`imagesTr/")


def test_the_papers_counts_are_those_of_its_table_1() -> None:
    counts = {kind.task.name: tuple(kind.facts.counts.values()) for kind in PUBLIC.values() if kind.facts}
    assert sum(train for train, _ in counts.values()) == 2346 + 2298 + 636 + 966 + 1450 + 894 + 486 + 1886
    assert sum(val for _, val in counts.values()) == 703 + 766 + 159 + 276 + 798 + 385 + 161 + 808
