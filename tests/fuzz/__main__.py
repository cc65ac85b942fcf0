"""`python -m tests.fuzz`: feed damaged and hostile files to every reader of foreign files; `--help` tells the options."""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "helpers")]

from fuzz_running import GOOD, Tally, fuzz, has_atheris  # noqa: E402


def main() -> int:
    from fuzz_targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="a reader; by default all, one after the other")
    parser.add_argument("--seconds", type=float, help="for each target")
    parser.add_argument("--inputs", type=int, help="for each target, in the place of --seconds; plain engine only")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="begin at input N, to go on from an earlier run")
    parser.add_argument("--engine", choices=["plain", "guided"], default="plain", help="guided: by coverage, needs atheris")
    parser.add_argument("--out", type=Path, help="folder that keeps findings; by default a temporary one, kept if there are any")
    options = parser.parse_args()
    if (options.seconds is None) == (options.inputs is None):
        parser.error("give --seconds or --inputs")
    if options.engine == "guided" and (options.inputs is not None or not has_atheris()):
        parser.error("--engine guided takes --seconds and needs atheris: pip install atheris (Linux); without it use --engine plain")
    out = options.out or Path(tempfile.mkdtemp(prefix="tpseg-fuzz-"))
    tallies: list[Tally] = []
    began = time.monotonic()
    for target in options.target or TARGETS:
        tally = fuzz(target, out / target, options.inputs, options.seconds, first=options.first, guided=options.engine == "guided")
        print(tally, flush=True)
        tallies.append(tally)
    bad = sum(count for tally in tallies for outcome, count in tally.outcomes.items() if outcome not in GOOD)
    print(
        f"{sum(tally.inputs for tally in tallies)} inputs, {bad} findings, {time.monotonic() - began:.0f} s, engine {options.engine}; {out}"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
