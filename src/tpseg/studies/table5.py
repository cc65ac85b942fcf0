"""Table 5 of the paper, costs: what it prints beside what we count, every difference explained, and what we measure."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Group

from tpseg.checkpoints.inspection import count
from tpseg.core.config import ModelConfig, load_config, require
from tpseg.models.adapters.tca import TCA
from tpseg.studies.cost import macs_by_part, skeleton
from tpseg.studies.measuring import Measurement, Measuring
from tpseg.studies.table_formats import DASH, Cell, Heading, Line, Table, write_table

QUANTITIES = ("Parameters", "Growth/task", "Growth %", "MACs", "MACs growth/task", "MACs growth %")
"""The paper's six columns. What it calls FLOPs are multiply-adds (MACs). Growth % is of the whole model with one task."""
ONE, MANY = "Full model (1 task)", "Full model ({} tasks)"
PRINTED: dict[str, tuple[str, ...]] = {
    "TCA": ("3.37 M", "+3.37 M", "1.27 %", "1.85 G", "0.028 G", "0.01 %"),
    "PGTD prototypes": ("0.46 M", "+0.001 M", "0.17 %", "~0", "~0", "~0"),
    "PGTD decoder": ("12.03 M", "0", "0", "10.31 G", "0", "0"),
    ONE: ("264.84 M", "-", "-", "254.00 G", "-", "-"),
    MANY: ("288.46 M", "-", "-", "254.23 G", "-", "-"),
}
"""The paper's numbers as it prints them (its 0.028 without a unit), by module and QUANTITIES; it leaves out trunk and neck."""
NOTABLE = 0.005
"""Differences from here up are explained, as a share of the paper's number."""
MEASURED = ("trunk", "image_size", "rank", "neck", "neck_widths", "decoder_widths", "experts")
"""Settings that costs depend on, by default as in the model that the paper measured."""


@dataclass(frozen=True)
class Counts:
    """What we count of TP-Seg with one task and with several."""

    config: ModelConfig
    tasks: int
    parameters: dict[str, int]
    """By part, one task."""
    growth: dict[str, int]
    """By part: parameters that each further task adds."""
    macs: dict[str, int]
    macs_growth: dict[str, float]
    prototypes: int
    """Numbers in the prototypes of a task, which are a buffer and no parameters."""
    route: int
    """Parameters of one route of all adapters."""
    norm: int
    """Scales and shifts of the adapters."""

    @property
    def shared(self) -> bool:
        return self.config.gate != "none"


def count_costs(config: ModelConfig, tasks: int) -> Counts:
    """Raises UsageError for a model that is not TP-Seg with task routes and all PGTDs: Table 5 has rows for these."""
    require(tasks >= 2, "tasks", tasks, "2 or more, to see what one adds")
    require(config.architecture == "tpseg", "model.architecture", config.architecture, "'tpseg', which Table 5 is of")
    require(config.adapter == "tca" and config.gate != "shared_only", "model.adapter", config.adapter, "'tca' with task routes")
    require(set(config.pgtds) == {1, 2, 3}, "model.pgtds", config.pgtds, "all three")
    models = [skeleton(config, number) for number in (1, tasks)]
    one, many = ({name: count(part) for name, part in model.named_children()} for model in models)
    macs, macs_many = (macs_by_part(model, config.image_size) for model in models)
    adapters = models[0].adapters
    assert isinstance(adapters, TCA)
    return Counts(
        config,
        tasks,
        one,
        {part: (many[part] - one[part]) // (tasks - 1) for part in one},
        macs,
        {part: (macs_many[part] - macs[part]) / (tasks - 1) for part in macs},
        sum(one.numel() for one in models[0].prototypes().values()),
        sum(count(block.tasks[0]) for block in adapters.blocks),
        sum(block.scale.numel() + block.shift.numel() for block in adapters.blocks),
    )


def cost_table(config: ModelConfig, tasks: int = 8) -> pd.DataFrame:
    """Table 5 for one configuration, a row for each module and quantity.

    Columns: module, quantity, printed (the paper's text, '' where it has none), paper (its number: parameters, multiply-adds
    or a share), ours (the same, counted at the configuration's image size), difference (ours / paper - 1, NaN where the
    paper has none or 0), why (in words, for the whole model and wherever that is NOTABLE or the paper has 0 and we do not).
    """
    counts = count_costs(config, tasks)
    whole, whole_macs = sum(counts.parameters.values()), sum(counts.macs.values())

    def module(part: str) -> tuple[float, ...]:
        growth, macs_growth = counts.growth[part], counts.macs_growth[part]
        return counts.parameters[part], growth, growth / whole, counts.macs[part], macs_growth, macs_growth / whole_macs

    kept, growth, macs_growth = counts.prototypes, sum(counts.growth.values()), sum(counts.macs_growth.values())
    modules: dict[str, tuple[float, ...]] = {
        "TCA": module("adapters"),
        "PGTD prototypes": (kept, kept, kept / whole, 0, 0, 0),
        "PGTD decoder": module("decoder"),
        "Trunk": module("trunk"),
        "Neck": module("neck"),
        ONE: (whole, growth, growth / whole, whole_macs, macs_growth, macs_growth / whole_macs),
        MANY: (whole + (tasks - 1) * growth, np.nan, np.nan, whole_macs + (tasks - 1) * macs_growth, np.nan, np.nan),
    }
    rows = []
    for name, numbers in modules.items():
        known = PRINTED if tasks == 8 or name != MANY else {}
        for quantity, ours, printed in zip(QUANTITIES, numbers, known.get(name, ("",) * 6), strict=True):
            if quantity in ("Parameters", "MACs") or (name in PRINTED and name != MANY):
                paper = read_printed(printed)
                difference = ours / paper - 1 if paper else np.nan
                differs = abs(difference) > NOTABLE or (paper == 0 and ours != 0)
                explained = differs or (name in (ONE, MANY) and not np.isnan(paper))
                why = reason(name, quantity, counts) if explained else ""
                rows.append((name.format(tasks), quantity, printed, paper, ours, difference, why))
    return pd.DataFrame(rows, columns=["module", "quantity", "printed", "paper", "ours", "difference", "why"])


def read_printed(text: str) -> float:
    """A number of the paper: `+3.37 M` is 3.37e6, `1.27 %` 0.0127, `~0` 0; NaN for none."""
    if text in ("", "-"):
        return np.nan
    number, _, unit = text.lstrip("~+").partition(" ")
    return float(number) * {"": 1, "M": 1e6, "G": 1e9, "%": 0.01}[unit]


def reason(module: str, quantity: str, counts: Counts) -> str:
    """Why our number differs from the paper's. What nobody could reproduce is called not explained."""
    if any(getattr(counts.config, key) != getattr(ModelConfig(), key) for key in MEASURED):
        return f"Another model than the one the paper measured, in {', '.join(MEASURED[:-1])} or {MEASURED[-1]}."
    one_route = counts.macs["adapters"] / (2 if counts.shared else 1)
    steps = counts.growth["adapters"] - counts.route
    adapters = (
        f"One task's route is {counts.route:,}, as in the paper; the norms' scales and shifts, one set for all tasks, are {counts.norm:,}"
    )
    adapter_macs = (
        f"Not explained: a route takes 2·r·C multiply-adds for each token before each block, {giga(one_route)} at 512 px; 1.85 G would be "
        f"that of images of {512 * (1.85e9 / one_route) ** 0.5:.0f} px."
    )
    adapter_growth = (
        "None here: an image runs the route of its own task, however many there are. The paper's growth is not explained; an output "
        "channel for every task in all four heads, as in the released code, would be 0.003 G."
    )
    prototypes = (
        "The paper counts the MLP that makes the first prototypes, 460,800. It gets no gradient in the released code; here it is drawn "
        f"once and not kept. Kept are the prototypes, {counts.prototypes:,} numbers a task, in a buffer: no part of the whole model's "
        "parameters."
    )
    prototype_share = (
        "Not of the whole model as for the TCA: 0.001 of 264.84 M are 0.0004 %, as here; 0.17 % would be of the prototypes' own 0.46 M."
    )
    heads = f"Each task's own output weights and amplifiers, {counts.growth['decoder']:,}, which print as 0.00 M."
    decoder_macs = (
        "Not explained: the released code's three PGTDs take 2.8 G by the same count. Ours take less: high-level features are projected "
        "before they are upsampled, the M kernels are mixed before the one convolution, and there is no second 3×3 encoder."
    )
    whole = "Without the prototypes' MLP (0.46 M), three RFBs that the released code builds and never uses (0.44 M) and small parts"
    whole_macs = "The released code takes 251.1 G by the same count, so 2.9 G of the print are not explained; our PGTDs take 1.1 G less"
    if counts.shared:
        adapters += f"; the shared route of eq. (1), which the released code lacks, is {counts.route:,}, the gate's steps are {steps}"
        adapter_macs += " Here an image runs both routes."
        whole += f"; with the shared route, {million(counts.route)}"
        whole_macs += f", and the shared route takes {giga(one_route)} more. That the sum comes near the print is chance"
    return {
        ("TCA", "Parameters"): f"{adapters}.",
        ("TCA", "Growth %"): "The same growth, as a share of our own whole model; 3.37 of 264.84 M are the paper's 1.27 %.",
        ("TCA", "MACs"): adapter_macs,
        ("TCA", "MACs growth/task"): adapter_growth,
        ("TCA", "MACs growth %"): adapter_growth,
        ("PGTD prototypes", "Parameters"): prototypes,
        ("PGTD prototypes", "Growth/task"): f"The same: {counts.prototypes:,} prints as 0.001 M.",
        ("PGTD prototypes", "Growth %"): prototype_share,
        ("PGTD decoder", "Growth/task"): heads,
        ("PGTD decoder", "Growth %"): heads,
        ("PGTD decoder", "MACs"): decoder_macs,
        (ONE, "Parameters"): f"{whole}.",
        (MANY, "Parameters"): f"{whole}.",
        (ONE, "MACs"): f"{whole_macs}.",
        (MANY, "MACs"): f"{whole_macs}.",
    }[(module, quantity)]


def million(number: float) -> str:
    """Parameters as the paper prints them; under ten thousand to the last one."""
    return f"{number / 1e6:.2f} M" if number >= 1e4 else f"{number:,.0f}"


def giga(number: float) -> str:
    return f"{number / 1e9:.2f} G" if number else "0"


def share(number: float) -> str:
    """`1.28 %`, or one digit that is not 0."""
    return "0" if not number else f"{100 * number:.2f} %" if number >= 5e-5 else f"{100 * number:.1g} %"


SHOW = dict(zip(QUANTITIES, (million, million, share, giga, giga, share), strict=True))


def beside_the_paper(costs: Mapping[str, pd.DataFrame]) -> Table:
    """The cost tables of several presets beside the paper's numbers, differences explained below."""
    notes: list[str] = []

    def difference(row: pd.Series) -> str:
        if row["why"] and row["why"] not in notes:
            notes.append(row["why"])
        mark = f"({notes.index(row['why']) + 1})" if row["why"] else ""
        percent = "" if np.isnan(row["difference"]) else f"{100 * row['difference']:+.2f} %".replace("-", "−")
        return f"{percent} {mark}".strip()

    lines = []
    for rows in zip(*[table.iterrows() for table in costs.values()], strict=True):
        first = rows[0][1]
        cells = [Cell(first["printed"].replace("-", "") or DASH)]
        for _, row in rows:
            cells += [Cell(SHOW[row["quantity"]](row["ours"])), Cell(difference(row))]
        lines.append(Line(first["module"], [first["quantity"]], cells))
    headings = [Heading("Table 5", "printed")]
    headings += [Heading(f"preset {name}", text) for name in costs for text in ("counted", "difference")]
    general = [
        "MACs: multiply-adds of one image and one task, two operations each; the paper calls them FLOPs. Growth % is of the whole "
        "model with one task. Trunk and neck are left out in the paper.",
        *(f"({number}) {note}" for number, note in enumerate(notes, 1)),
    ]
    tidy = pd.concat([table.assign(preset=name) for name, table in costs.items()])
    title = "Cost and scalability (Table 5): the paper's print beside what we count"
    return Table("table5", title, [""], headings, lines, general, tidy[["preset", *tidy.columns.drop("preset")]])


def measured_table(measurements: Sequence[Measurement], name: str, size: int) -> Table:
    """What was measured, with a guess for the model's own size where a smaller one was."""
    lines = []
    for one in measurements:
        memory = DASH if one.memory is None else f"{one.memory / 1e9:.2f} GB"
        whole = f"{one.seconds:.3g} s" if one.size == size else f"about {one.full_seconds:,.1f} s"
        cells = [Cell(one.precision), Cell(f"{one.size} px"), Cell(str(one.runs)), Cell(f"{one.seconds:.3g} s"), Cell(whole), Cell(memory)]
        lines.append(Line("", [one.work], cells))
    notes = [
        "One image, random weights, median of the runs; the first at a size counts only where there was no time for another. A training "
        "step is forward, loss, backward and AdamW; a frozen trunk stays frozen."
    ]
    if measurements:
        first = measurements[0]
        where, memory = first.device, "what PyTorch allocated at most"
        if first.threads is not None:
            where = f"{first.threads} CPU thread{'s' if first.threads > 1 else ''} of {os.cpu_count()}, load {first.load:.1f} before"
            memory = "the process's peak less what it held before it built the model"
        notes.append(f"Measured on {where}. Memory: {memory}, weights included, at the size measured.")
    missing = [work for work in ("prediction", "training step") if work not in [one.work for one in measurements]]
    if missing:
        notes.append(f"Not measured, mostly for want of time (the log has the reason): {', '.join(missing)}.")
    if any(one.size < size for one in measurements):
        notes.append(f"about: the time set did not last for {size} px; scaled by multiply-adds. Memory at {size} px is more.")
    headings = [Heading("", text) for text in ("precision", "measured at", "runs", "time", f"time at {size} px", "peak memory")]
    tidy = pd.DataFrame([vars(one) for one in measurements])
    return Table("table5-measured", f"Measured here: preset {name}, {size} px", ["one image"], headings, lines, notes, tidy)


def table5(
    out: Path | None = None, *, presets: Sequence[str] = ("release", "paper"), tasks: int = 8, seconds: float = 45.0
) -> Iterator[Group]:
    """Table 5 for the terminal, part by part as it is ready, and as files in `out`.

    First the counts of every preset beside the paper's, then measurements of the first preset. seconds: when to end; what
    could not be measured by then is left out, see tpseg.studies.measuring. 0: counts only.
    """
    begun = time.monotonic()
    configs = {preset: load_config(preset.split(",")).model for preset in presets}
    first, config = next(iter(configs.items()))
    measuring = Measuring(config, tasks=tasks) if seconds > 0 else None
    yield _shown_and_written(beside_the_paper({preset: cost_table(one, tasks) for preset, one in configs.items()}), out)
    if measuring is not None:
        measured = measuring.finish(max(seconds - (time.monotonic() - begun), 0))
        yield _shown_and_written(measured_table(measured, first, config.image_size), out)


def _shown_and_written(table: Table, out: Path | None) -> Group:
    if out is not None:
        write_table(out, table)
    return table.to_terminal()
