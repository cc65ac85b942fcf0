"""The harness finds what it looks for; and each reader gets through a short run."""

from __future__ import annotations

from pathlib import Path

import fuzz_running
import pytest
from fuzz_mutation import mutated
from fuzz_running import GOOD, Tally, fuzz

CHEAP = ("zip", "split.csv", "tasks.yaml", "coco", "tasks.json", "trunk.pt")
"""Readers of each kind of file whose inputs take a millisecond or a few."""


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
FIRST = 2
"""Number of the input at which the first fault happens; the others follow it."""


def broken_child(folder: Path, faults: dict[str, str]) -> Path:
    """A fuzz_child.py whose reader of data.csv does something else with files whose names begin so."""
    text = Path(fuzz_running.CHILD).read_text()
    here = f"HERE = Path({str(Path(fuzz_running.CHILD).parent)!r})\n"
    cases = "".join(f"    if path.name.startswith({start!r}):\n        {code}\n" for start, code in faults.items())
    broken = f"""
def broken(path, around):
{cases}
fuzz_targets.TARGETS['data.csv'] = fuzz_targets.Target(fuzz_targets.seeds.record, broken, 'csv')
from tpseg.core.errors import DataError
"""
    child = folder / "fuzz_child.py"
    child.write_text(text.replace("HERE = Path(__file__).parent\n", here).replace("\n\nMEMORY = ", f"\n{broken}\nMEMORY = ", 1))
    return child


@pytest.fixture(scope="module")
def tally_of_faults(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tally, Path]:
    """One run in which every fault happens once, and its folder."""
    folder = tmp_path_factory.mktemp("faults")
    faults = {f"{number}.": code for number, (code, _) in enumerate(FAULTS.values(), FIRST)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzz_running, "CHILD", broken_child(folder, faults))
        patch.setattr(fuzz_running, "SECONDS", 1)
        return fuzz("data.csv", folder / "work", FIRST + len(FAULTS) + 3, None), folder / "work"


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_harness_sees_each_fault(fault: str, tally_of_faults: tuple[Tally, Path]) -> None:
    tally, folder = tally_of_faults
    number = FIRST + list(FAULTS).index(fault)
    assert tally.bad[str(number)] == FAULTS[fault][1], tally
    assert any((folder / "findings").glob(f"{number}.*"))


@pytest.mark.slow
def test_the_harness_goes_on_after_faults_and_blames_no_other_input(tally_of_faults: tuple[Tally, Path]) -> None:
    tally, _ = tally_of_faults
    assert tally.inputs == FIRST + len(FAULTS) + 3
    assert len(tally.bad) == len(FAULTS)


@pytest.mark.slow
def test_a_target_without_a_seed_to_start_from_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "seeds" / "no file").mkdir(parents=True)
    with pytest.raises(RuntimeError, match="there are no seeds"):
        fuzz("data.csv", tmp_path, 6, None)


@pytest.mark.slow
def test_a_seed_that_is_refused_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made from it would be refused for the same fault, and the reader hardly tried."""
    monkeypatch.setattr(fuzz_running, "CHILD", broken_child(tmp_path, {"data": "raise DataError('no')"}))
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
