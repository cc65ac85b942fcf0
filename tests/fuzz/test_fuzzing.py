"""The harness finds what it looks for; and each reader gets through a short run."""

from __future__ import annotations

from pathlib import Path

import fuzz_running
import pytest
from fuzz_mutation import mutated
from fuzz_running import GOOD, fuzz

CHEAP = ("zip", "split.csv", "tasks.yaml", "coco", "tasks.json", "trunk.pt")
"""Readers of each kind of file whose inputs take a millisecond or a few."""


@pytest.fixture(autouse=True)
def paths(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("clinical", ""):
        monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / folder))


@pytest.mark.parametrize("kind", ["bytes", "png", "json", "yaml", "csv"])
def test_an_input_is_made_from_its_number_alone(kind: str) -> None:
    whole = b'{"a": [1, "b"], "c": {"d": null}}' if kind == "json" else b"a: [1, b]\n" if kind == "yaml" else b"a,b\n1,2\n"
    inputs = [mutated(whole, kind, number) for number in range(300)]
    assert inputs == [mutated(whole, kind, number) for number in range(300)]
    assert len(set(inputs)) > 100


FAULTS = {
    "escape": ("open(path.parent.parent / 'out.txt', 'w').close()", "escape"),
    "canary": ("open('/canary.png') if False else __import__('os').open('/canary.png', 0)", "escape"),
    "process": ("__import__('subprocess').run(['true'])", "escape"),
    "stack trace": ("1 / 0", "stack-trace"),
    "essay": ("(_ for _ in ()).throw(DataError('two\\nlines'))", "not-a-sentence"),
    "death": ("__import__('os').abort()", "died(-6)"),
    "hang": ("__import__('time').sleep(1000)", "hang"),
}


def broken_child(folder: Path, start: str, code: str) -> Path:
    """A fuzz_child.py whose reader of data.csv does something else with files whose names begin so."""
    text = Path(fuzz_running.CHILD).read_text()
    here = f"HERE = Path({str(Path(fuzz_running.CHILD).parent)!r})\n"
    broken = f"""
def broken(path, around):
    if path.name.startswith({start!r}):
        {code}
fuzz_targets.TARGETS['data.csv'] = fuzz_targets.Target(fuzz_targets.seeds.record, broken, 'csv')
from tpseg.errors import DataError
"""
    child = folder / "fuzz_child.py"
    child.write_text(text.replace("HERE = Path(__file__).parent\n", here).replace("\n\nMEMORY = ", f"\n{broken}\nMEMORY = ", 1))
    return child


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_harness_sees_each_fault(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, outcome = FAULTS[fault]
    monkeypatch.setattr(fuzz_running, "CHILD", broken_child(tmp_path, "3.", code))
    monkeypatch.setattr(fuzz_running, "SECONDS", 1)
    tally = fuzz("data.csv", tmp_path / "work", 6, None)
    assert tally.outcomes[outcome] == 1, tally
    assert tally.inputs == 6
    assert list(tally.bad) == ["3"]
    assert any((tmp_path / "work" / "findings").iterdir())


@pytest.mark.slow
def test_a_target_without_a_seed_to_start_from_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "seeds" / "no file").mkdir(parents=True)
    with pytest.raises(RuntimeError, match="there are no seeds"):
        fuzz("data.csv", tmp_path, 6, None)


@pytest.mark.slow
def test_a_seed_that_is_refused_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made from it would be refused for the same fault, and the reader hardly tried."""
    monkeypatch.setattr(fuzz_running, "CHILD", broken_child(tmp_path, "data", "raise DataError('no')"))
    with pytest.raises(RuntimeError, match=r"data\.csv cannot be started from"):
        fuzz("data.csv", tmp_path / "work", 6, None)


@pytest.mark.slow
@pytest.mark.parametrize("target", CHEAP)
def test_a_short_run(target: str, tmp_path: Path) -> None:
    tally = fuzz(target, tmp_path, 60, None)
    assert tally.inputs == 60
    assert set(tally.outcomes) <= set(GOOD), f"{tally}\n{(tmp_path / 'stderr').read_text()[-3000:]}"
    assert tally.outcomes["shown"] >= 2, "inputs that are never read would make the run empty"
    assert tally.outcomes["refused"] >= 4
