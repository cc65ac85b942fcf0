"""Rounds: every case once, then every case again, so that what disturbs the machine disturbs all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.plan import Case
from benchmarks.process import Failure, Found


@dataclass
class Measured:
    """One line of the results: a case, or one point of it, over all rounds."""

    case: Case
    point: str
    seconds: list[float] = field(default_factory=list)
    """Of every run, the rounds one after the other."""
    memory: list[int] = field(default_factory=list)
    """Peak in bytes, one a round; of the whole process."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass
class Results:
    """All that was found."""

    measured: dict[tuple[Case, str], Measured] = field(default_factory=dict)
    facts: dict[Case, dict[str, float]] = field(default_factory=dict)
    failures: dict[Case, str] = field(default_factory=dict)
    """Cases that could not be measured, and why."""
    rounds: int = 0
    threads: int = 0

    def of(self, work: str, system: str, trunk: str, variant: str = "", point: str = "") -> Measured | None:
        """The line of a case and point, None if it was not measured."""
        for (case, name), line in self.measured.items():
            if (case.work, case.system, case.trunk, case.variant, name) == (work, system, trunk, variant, point):
                return line
        return None


def run(
    cases: Sequence[Case], measure: Callable[[Case], Found | Failure], ended: Callable[[str], None], *, rounds: int, minutes: float
) -> Results:
    """Measure all cases in each of up to `rounds` rounds; another round begins only if it will fit into the minutes.

    ended: called with a line when a case has been measured. A case that failed is not tried again.
    """
    results, start, longest = Results(), time.monotonic(), 0.0
    for number in range(rounds):
        if number and time.monotonic() - start + longest > 60 * minutes:
            break
        took = 0.0  # by what comes back in the next round
        for case in cases:
            if case in results.failures or (number and case.once):
                continue
            begun = time.monotonic()
            found = measure(case)
            took += 0.0 if case.once else time.monotonic() - begun
            if isinstance(found, Failure):
                results.failures[case] = found.reason
                ended(f"{case.title}: {found.reason}")
                continue
            results.threads = found.threads
            if found.facts:
                results.facts[case] = found.facts
            for point, seconds in found.seconds.items():
                line = results.measured.setdefault((case, point), Measured(case, point))
                line.seconds += seconds
                line.memory += [] if found.memory is None else [found.memory]
            ended(f"round {number + 1}, {case.title}: {_short(found.seconds, found.facts)}")
        results.rounds, longest = number + 1, max(longest, took)
    return results


def _short(seconds: dict[str, list[float]], facts: dict[str, float]) -> str:
    times = [f"{point} {statistics.median(runs):.3g} s".strip() for point, runs in seconds.items()]
    return ", ".join([*times, *(f"{name} {value:.2g}" for name, value in facts.items())])
