"""The command: `python -m benchmarks`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import plan, summary
from benchmarks.figure import cost_against_tasks
from benchmarks.process import Measure, measure_apart
from benchmarks.rounds import run
from benchmarks.tables import grids, heading
from tpseg.cli.arguments import HelpPage, Parser
from tpseg.core.errors import TPSegError, UsageError
from tpseg.core.files import write_atomically
from tpseg.core.hardware import bf16_is_native, pick_device
from tpseg.core.progress import track_ends
from tpseg.models.trunks.hiera import TRUNK_SIZES

MODELS, QUICK_MODELS = "large:512,tiny:256", "tiny:256"
MINUTES, QUICK_MINUTES = 14.0, 1.0
SECONDS, QUICK_SECONDS = 3.0, 0.5
"""That a process repeats what it times, at least."""

console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 140)
errors = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def parser() -> Parser:
    description = (
        "What tpseg costs beside the released code's way of working (benchmarks/reference.py), with random weights: time and memory of "
        "prediction and training, and how they grow with tasks. On an idle machine only: whatever else runs is measured too."
    )
    found = Parser(prog="python -m benchmarks", description=description, formatter_class=HelpPage, allow_abbrev=False)
    found.add_argument("--out", type=str, default="runs/benchmark", help="Folder for table.md, the figure and results.json.")
    found.add_argument("--json", type=str, help="Also write the results to this file.")
    found.add_argument("--quick", action="store_true", help="The tiny trunk only, without exporting, in under two minutes.")
    found.add_argument("--models", type=str, help=f"Trunks and image sizes, the one of the headline first. Default: {MODELS}.")
    found.add_argument("--rounds", type=int, default=3, help="Most rounds over all cases.")
    found.add_argument(
        "--minutes", type=float, help=f"No round begins that would end later than this. Default: {MINUTES:g}; quick: {QUICK_MINUTES:g}."
    )
    found.add_argument("--device", type=str, help="Default: a GPU if there is one, else the CPU.")
    return found


def read_models(text: str) -> dict[str, int]:
    """`large:512,tiny:256` to trunk and image size; raises UsageError."""
    models: dict[str, int] = {}
    for part in text.split(","):
        trunk, _, size = part.strip().partition(":")
        if trunk not in TRUNK_SIZES or not size.isdecimal() or int(size) < 32 or int(size) % 32:
            known = ", ".join(TRUNK_SIZES)
            raise UsageError(f"--models: found '{part}', expected TRUNK:SIZE, as in {MODELS} (trunks: {known}; sizes: multiples of 32)")
        models[trunk] = int(size)
    return models


def bench(arguments: Sequence[str], measure: Measure = measure_apart) -> int:
    """Measure, write, and show; returns the exit code, 1 if the reference does not give the numbers of our model."""
    given = parser().parse_args(list(arguments))
    models = read_models(given.models or (QUICK_MODELS if given.quick else MODELS))
    device = pick_device(given.device)
    if given.rounds < 1:
        raise UsageError(f"--rounds: found {given.rounds}, expected 1 or more")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    if load is not None and load > 1:
        errors.print(f"this machine is busy (load {load:.1f}): times will be too long, and ratios may be off", style="yellow")
    cases = plan.plan(models, accelerator=device.type != "cpu", quick=given.quick, bf16=bf16_is_native(device))
    minutes = given.minutes if given.minutes is not None else QUICK_MINUTES if given.quick else MINUTES
    seconds, done = QUICK_SECONDS if given.quick else SECONDS, 0
    with (
        tempfile.TemporaryDirectory(prefix="tpseg-benchmark-") as scratch,
        track_ends("measuring", given.rounds * len(cases)) as (move, say),
    ):

        def ended(line: str) -> None:
            nonlocal done
            done += 1
            move(done)
            say(line)

        results = run(cases, lambda case: measure(case, str(device), seconds, Path(scratch)), ended, rounds=given.rounds, minutes=minutes)
    content = summary.to_json(results, models, str(device), load)
    out = Path(given.out)
    text = json.dumps(content, indent=2) + "\n"
    for target in [out / "results.json", *([Path(given.json)] if given.json else [])]:
        write_atomically(target, text)
    tables = grids(results, content)
    write_atomically(out / "table.md", "\n".join([heading(content), "", *(grid.to_markdown() for grid in tables)]))
    for trunk in models:
        cost_against_tasks(out / f"tasks-{trunk}", results, content, trunk)
    console.print(heading(content), *(grid.to_terminal() for grid in tables), f"wrote {out}", sep="\n")
    return check_equality(content)


def check_equality(content: dict[str, object]) -> int:
    """1 and a message if the reference is not the model that it stands for: then the ratios mean nothing."""
    equality = content["equality"]
    assert isinstance(equality, dict)
    for trunk, facts in equality.items():
        if not facts["largest difference"] <= summary.LARGEST_DIFFERENCE:
            errors.print(
                f"Hiera-{trunk}: the reference's logits differ from ours by {facts['largest difference']:.1e}, "
                f"more than {summary.LARGEST_DIFFERENCE:g}: the ratios compare different models",
                style="red",
            )
            return 1
    return 0


def main() -> int:
    try:
        return bench(sys.argv[1:])
    except TPSegError as error:
        errors.print(f"benchmarks: {error}", style="red")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
