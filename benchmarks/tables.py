"""The tables of a benchmark, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks import plan
from benchmarks.rounds import Measured, Results

LABELS = {
    "one_image_one_task": "one image, one task: time",
    "one_image_eight_tasks": "one image, eight tasks, splits in the middle: time",
    "mixed_batch": "mixed batch of four: time",
    "train_step": "training step of four: time",
    "train_step_recomputing": "training step of four, recomputing activations: time",
    "train_memory": "training step of four, recomputing activations: peak memory",
    "train_memory_plain": "training step of four: peak memory",
}
"""The ratios of summary.ratios in words."""


@dataclass(frozen=True)
class Grid:
    """A table of text."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    text_columns: int = 1
    """Columns from the left that hold words; numbers stand to the right."""

    def to_terminal(self) -> Table:
        table = Table(title=self.title, title_justify="left")
        for position, heading in enumerate(self.header):
            table.add_column(heading, justify="left" if position < self.text_columns else "right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def to_markdown(self) -> str:
        marks = ["---" if position < self.text_columns else "---:" for position in range(len(self.header))]
        lines = [" | ".join(cells) for cells in (self.header, marks, *self.rows)]
        return "\n".join([f"**{self.title}**", "", *(f"| {line} |" for line in lines), ""])


def grids(results: Results, content: Mapping[str, Any]) -> list[Grid]:
    """All tables; content: what summary.to_json made of the results."""
    found = [headline(trunk, size, content) for trunk, size in content["image_size"].items()]
    found += [times(results, trunk, size) for trunk, size in content["image_size"].items()]
    found += [by_batch(results, trunk, size) for trunk, size in content["image_size"].items()]
    found.append(peak(content))
    if content["failures"]:
        keys = ("trunk", "work", "system", "variant")
        rows = [(" · ".join(one[key] for key in keys if one[key]), str(one["batch"]), one["reason"]) for one in content["failures"]]
        found.append(Grid("Not measured", ("case", "batch", "why"), rows, 3))
    return [grid for grid in found if grid.rows]


def headline(trunk: str, size: int, content: Mapping[str, Any]) -> Grid:
    """Ours as shares of the reference's, and how cost grows with tasks."""
    rows = [(LABELS[name], f"{value:.3f}") for name, value in content["ratio_by_trunk"][trunk].items()]
    tasks, equality = content["tasks"][trunk], content["equality"].get(trunk)
    if "seconds_from_fewest_to_most_tasks" in tasks:
        ends = f"{min(plan.TASKS_KNOWN)} to {max(plan.TASKS_KNOWN)} tasks known"
        rows.append((f"time of a mixed batch, from {ends}", f"{100 * tasks['seconds_from_fewest_to_most_tasks']:+.1f} %"))
    rows.append(("parameters that a task adds", f"{tasks['parameters_per_task'] / 1e6:.3f} M"))
    if equality is not None:
        rows.append(("largest difference to the reference's logits", f"{equality['largest difference']:.1e}"))
    return Grid(f"Hiera-{trunk} at {size} px: tpseg as a share of the reference", ("", "tpseg / reference"), rows)


def times(results: Results, trunk: str, size: int) -> Grid:
    """Every case of a trunk; those by batch size have a table of their own."""
    order = [work for work in plan.WORKS if work not in (plan.MATRIX, plan.PREDICT_BATCH, plan.TRAIN_BATCH)]
    lines = [line for line in results.measured.values() if line.case.trunk == trunk and line.case.work in order]
    rows = []
    for line in sorted(lines, key=lambda line: order.index(line.case.work)):
        case, base = line.case, base_of(results, line)
        rows.append(
            (
                f"{case.work}: {line.point}" if line.point else case.work,
                ", ".join(part for part in (case.system, case.variant) if part),
                f"{line.median:.3g}",
                f"{min(line.seconds):.3g} to {max(line.seconds):.3g}",
                gigabytes(line),
                "" if base is None else f"{line.median / base.median:.3f}",
            )
        )
    header = ("work", "system", "seconds", "range", "GB", "of the reference's time")
    return Grid(f"Hiera-{trunk} at {size} px", header, rows, 2)


def base_of(results: Results, line: Measured) -> Measured | None:
    """The reference's line that a line is compared with, None where there is none."""
    work, trunk = line.case.work, line.case.trunk
    if work in (plan.ONE, plan.MIXED, plan.TRAIN, plan.EIGHT):
        return results.of(work, "reference", trunk)
    if work == plan.ASKED:
        return {"1": results.of(plan.ONE, "reference", trunk), str(plan.TASKS): results.of(plan.EIGHT, "reference", trunk)}.get(line.point)
    return None


def by_batch(results: Results, trunk: str, size: int) -> Grid:
    """Images a second and memory by batch size: a system's row stops where its memory does."""
    works = (plan.PREDICT_BATCH, plan.TRAIN_BATCH)
    lines = [line for line in results.measured.values() if line.case.trunk == trunk and line.case.work in works]
    rows = [
        (
            line.case.work,
            ", ".join(part for part in (line.case.system, line.case.variant) if part),
            str(line.case.batch),
            f"{line.case.batch / line.median:.1f}",
            gigabytes(line),
        )
        for line in lines
    ]
    return Grid(f"Hiera-{trunk} at {size} px, by batch", ("work", "system", "batch", "images a second", "GB"), rows, 2)


def peak(content: Mapping[str, Any]) -> Grid:
    """The machine's matrix peak, and how near the trunk comes to it."""
    rows = []
    for precision, value in content["peak"].items():
        rows.append((f"matrix product, {precision}", f"{value:.0f}", ""))
        for trunk, found in content["trunk"].items():
            if precision in found:
                rate = found[precision]
                rows.append(
                    (f"Hiera-{trunk} alone, {precision}", f"{rate['gflop_per_second']:.0f}", f"{100 * rate['share_of_peak']:.0f} %")
                )
    return Grid("Of the machine's peak", ("", "GFLOP/s", "of the peak"), rows)


def gigabytes(line: Measured) -> str:
    return f"{median(line.memory) / 1e9:.1f}" if line.memory else ""


def heading(content: Mapping[str, Any]) -> str:
    """One line: where, when, how often."""
    machine = content["machine"]
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    where = f"{machine['processor']}, {threads}" if machine["device"] == "cpu" else machine["device"]
    precision = "bfloat16" if machine["bf16"] else "32 bit"
    rounds = "1 round" if content["rounds"] == 1 else f"{content['rounds']} rounds"
    return f"{where}; tpseg in {precision}, torch {content['versions']['torch']}, random weights, {rounds}, {content['date'][:10]}"
