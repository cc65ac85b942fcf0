"""Fuzzing a target from outside: children that may die or hang, replaced by others, and what came of each input."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

CHILD = Path(__file__).with_name("fuzz_child.py")
SECONDS = 10
"""An input may take so long, of the processor's time; and six times as long of the wall clock, for machines that do much else."""
START = 90
"""A child may take so long until its first input: it imports PyTorch."""
GOOD = ("shown", "refused")


@dataclass
class Tally:
    """What came of a target's inputs."""

    target: str
    outcomes: Counter[str] = field(default_factory=Counter)
    bad: dict[str, str] = field(default_factory=dict)
    """Outcome by input; the inputs lie in findings/ with the children's stderr."""
    peak: int = 0
    """KiB, of a child or its decoders."""
    slowest: float = 0.0
    base: int = 0

    def add(self, number: int, outcome: str, peak: int = 0, seconds: float = 0.0) -> None:
        self.outcomes[outcome] += 1
        self.peak, self.slowest = max(self.peak, peak), max(self.slowest, seconds)
        if outcome not in GOOD:
            self.bad[str(number)] = outcome

    @property
    def inputs(self) -> int:
        return self.outcomes.total()

    def __str__(self) -> str:
        good = f"{self.outcomes['shown']:>7} read {self.outcomes['refused']:>7} refused"
        bad = ", ".join(f"{count} {name}" for name, count in self.outcomes.items() if name not in GOOD) or "no findings"
        return f"{self.target:<18} {self.inputs:>7} inputs {good}; {bad}; {self.peak / 2**20:.2f} GiB, slowest {self.slowest:.2f} s"


def fuzz(target: str, folder: Path, inputs: int | None, seconds: float | None, *, first: int = 0, guided: bool = False) -> Tally:
    """Run a target from input `first` for a number of inputs or a time; what goes wrong is in FOLDER/findings and FOLDER/stderr."""
    folder = folder.resolve()
    for name in ("seeds", "around", "scratch", "findings"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    tally = Tally(target)
    ends = None if seconds is None else time.monotonic() + seconds
    last = first + (inputs or 10**9)
    while first < last and (ends is None or time.monotonic() < ends):
        more = ["guided", str(max(1, round(ends - time.monotonic())))] if guided and ends is not None else []
        command = [sys.executable, str(CHILD), target, str(folder), str(first), str(last), *more]
        reached = first - 1
        for number, outcome, peak, took in _child(command, folder, first, ends):
            reached = max(reached, number)
            if outcome == "finished":
                return tally
            tally.add(number, outcome, peak, took)
            if outcome not in GOOD:
                for path in (folder / "scratch").glob(f"{number}.*"):
                    path.rename(folder / "findings" / path.name)
        first = reached + 1
    return tally


def _child(command: list[str], folder: Path, first: int, ends: float | None) -> Iterator[tuple[int, str, int, float]]:
    """Number, outcome, peak memory in KiB and seconds of each input, until the child ends or is ended."""
    guided = "guided" in command
    with (folder / "stderr").open("ab") as errors:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment) as child:
            assert child.stdout is not None
            current, began, used, buffer = first, time.monotonic() + START, START + processor_time(child.pid), b""
            started = False
            while True:
                ready, _, _ = select.select([child.stdout], [], [], 1.0)
                if not ready:
                    if processor_time(child.pid) > used + SECONDS or time.monotonic() > began + 6 * SECONDS:
                        child.kill()
                        if not started:
                            raise RuntimeError(f"{command[2]}: no input was reached in {START} s of the processor's time")
                        yield current, "hang", 0, SECONDS
                        return
                    continue
                read = os.read(child.stdout.fileno(), 65536)
                if not read:
                    code = child.wait()
                    if not started:
                        raise RuntimeError(f"{command[2]}: nothing to start from: {(folder / 'stderr').read_text()[-2000:]}")
                    if code != 0 or not guided:
                        yield current, f"died({code})", 0, 0.0
                    else:
                        yield current, "finished", 0, 0.0
                    return
                *lines, buffer = (buffer + read).split(b"\n")
                for line in lines:
                    words = line.decode(errors="replace").split()
                    if words[:1] == ["end"]:
                        current, began, used = int(words[1]), time.monotonic(), processor_time(child.pid)
                        yield current, words[2], int(words[3]), float(words[4])
                        if guided:
                            current += 1
                    elif words[:1] == ["ready"]:
                        started = True
                    elif words[:1] == ["done"]:
                        child.kill()
                        yield current, "finished", 0, 0.0
                        return
                    elif words[:1] == ["start"]:
                        current, began, used = int(words[1]), time.monotonic(), processor_time(child.pid)
                if ends is not None and not guided and time.monotonic() > ends:
                    child.kill()
                    yield current, "finished", 0, 0.0
                    return


def processor_time(pid: int) -> float:
    """Seconds of the processor that a process has used; 0 where there is no /proc to ask."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def has_atheris() -> bool:
    """Whether the coverage-guided engine is there: an optional tool, for Linux and some versions of Python."""
    return find_spec("atheris") is not None
