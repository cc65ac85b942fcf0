"""`tpseg data list`: the sources with what people want to know before they download one."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from tpseg.datasets import SOURCES


def describe_sources() -> list[dict[str, Any]]:
    """Each source as a JSON object; a public set with its facts, a layout with what it looks like."""
    described: list[dict[str, Any]] = []
    for name, kind in SOURCES.items():
        layout = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
        if kind.facts is None:
            described.append({"name": name, "layout": layout})
        else:
            task = {"task": kind.task.name, "modality": kind.task.modality}
            described.append({"name": name, **task, "layout": layout, **asdict(kind.facts)})
    return described


def sources_table() -> Table:
    """The same for a terminal, of whatever width."""
    table = Table("source", "what, where to get it, and what it consists of", show_lines=True)
    for one in describe_sources():
        if "title" not in one:
            table.add_row(one["name"], Text(f"your own data\nlayout   {one['layout']}"))
            continue
        lines = [f"{one['title']}: {one['size']}"]
        lines += [f"{key:8} {one[key]}" for key in ("licence", "page", "files", "split")]
        lines.append(f"paper    train {one['counts']['train']}, val {one['counts']['val']}")
        table.add_row(f"{one['name']}\n{one['task']}\n{one['modality']}", Text("\n".join(lines), overflow="fold"))
    return table
