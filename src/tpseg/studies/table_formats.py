"""A table as Markdown, LaTeX, CSV and HTML, and in the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import jinja2
import pandas as pd
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from tpseg.core.files import write_atomically

DASH = "–"
"""Stands where there is no number."""


@dataclass(frozen=True)
class Cell:
    """A number as shown: `86.53`, its spread over seeds `0.21` or '', and "best", "second" or ''."""

    value: str = DASH
    spread: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Heading:
    """Of a column: `Dice` under `Wet AMD`, which spans its neighbours of the same name; '' for nothing above."""

    over: str
    text: str

    def __str__(self) -> str:
        return f"{self.over} {self.text}".strip()


@dataclass(frozen=True)
class Line:
    """Words, then numbers, under a heading that runs over all lines of the same `group`."""

    group: str
    labels: Sequence[str]
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Table:
    """What the four formats have in common. `tidy` holds the plain numbers, in percent, a line per row, task and metric."""

    name: str
    title: str
    label_headings: Sequence[str]
    headings: Sequence[Heading]
    lines: Sequence[Line]
    notes: Sequence[str]
    tidy: pd.DataFrame = field(compare=False)

    @property
    def grouped(self) -> list[tuple[str, list[Line]]]:
        return [(group, list(lines)) for group, lines in groupby(self.lines, key=lambda line: line.group)]

    @property
    def spans(self) -> list[tuple[str, list[Heading]]]:
        return [(over, list(headings)) for over, headings in groupby(self.headings, key=lambda heading: heading.over)]

    def to_markdown(self) -> str:
        """A GitHub table with the title above and the notes below; best in bold, second underlined."""
        head = [*self.label_headings, *map(str, self.headings)]
        rows = [[_markdown(text) for text in head], [":--"] * len(self.label_headings) + ["--:"] * len(self.headings)]
        for group, lines in self.grouped:
            rows += [[f"*{_markdown(group)}*", *[""] * (len(head) - 1)]] if group else []
            shown = [[_shown(cell, _markdown, {"best": "**{}**", "second": "<u>{}</u>"}) for cell in line.cells] for line in lines]
            rows += [[*map(_markdown, line.labels), *cells] for line, cells in zip(lines, shown, strict=True)]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        notes = "\n".join(f"- {_markdown(note)}" for note in self.notes)
        return f"**{_markdown(self.title)}**\n\n{table}\n\n{notes}\n"

    def to_latex(self) -> str:
        """A `table*`, shrunk to the page where it is wider; needs booktabs and graphicx, and an engine that knows the names' script."""
        words = len(self.label_headings)
        over, rules, column = [""] * words, [], words + 1
        for text, headings in self.spans:
            over.append(rf"\multicolumn{{{len(headings)}}}{{c}}{{{_latex(text)}}}" if text else " & ".join([""] * len(headings)))
            rules += [rf"\cmidrule(lr){{{column}-{column + len(headings) - 1}}}"] if text else []
            column += len(headings)
        head = [" & ".join(over) + r" \\", " ".join(rules)] if rules else []
        head.append(" & ".join(_latex(text) for text in [*self.label_headings, *[heading.text for heading in self.headings]]) + r" \\")
        body: list[str] = []
        for group, lines in self.grouped:
            body.append(r"\midrule")
            body += [rf"\multicolumn{{{words + len(self.headings)}}}{{l}}{{\textit{{{_latex(group)}}}}} \\"] if group else []
            for line in lines:
                shown = [_shown(cell, _latex, {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}) for cell in line.cells]
                body.append(" & ".join([*map(_latex, line.labels), *shown]) + r" \\")
        return "\n".join(
            [
                r"% needs \usepackage{booktabs} and \usepackage{graphicx}",
                r"\begin{table*}[t]",
                r"\centering",
                rf"\caption{{{_latex(self.title)}}}",
                rf"\label{{tab:{re.sub(r'[^A-Za-z0-9-]+', '-', self.name)}}}",
                r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
                rf"\begin{{tabular}}{{{'l' * words}{'r' * len(self.headings)}}}",
                r"\toprule",
                *head,
                *body,
                r"\bottomrule",
                r"\end{tabular}}",
                r"\par\smallskip",
                r"\begin{minipage}{\textwidth}\footnotesize",
                *map(_latex, self.notes),
                r"\end{minipage}",
                r"\end{table*}",
                "",
            ]
        )

    def to_csv(self) -> str:
        """`tidy`, numbers in percent (p as it is), empty where there is none."""
        return self.tidy.to_csv(index=False, lineterminator="\n")

    def to_terminal(self, without: Collection[str] = ()) -> Group:
        """The table for the terminal, notes below; best in bold, second underlined.

        without: what stands over the columns to leave out, such as the tasks', for which a terminal is too narrow.
        """
        kept = [position for position, heading in enumerate(self.headings) if heading.over not in without]
        shown = RichTable(title=Text(self.title), title_justify="left")
        for number, text in enumerate(self.label_headings):
            ids = number == 0 and not any(" " in line.labels[0] for line in self.lines)  # which --rows takes; a sentence may wrap
            shown.add_column(Text(text), no_wrap=ids)
        for position in kept:
            shown.add_column(Text(str(self.headings[position])), justify="right")
        styles = {"best": "bold", "second": "underline", "": ""}
        for group, lines in self.grouped:
            shown.add_section()
            if group:
                shown.add_row(*[""] * (len(self.label_headings) - 1), Text(group, style="italic"))
            for line in lines:
                cells = [line.cells[position] for position in kept]
                numbers = [Text(cell.value, styles[cell.mark]) + Text(f" ± {cell.spread}" if cell.spread else "") for cell in cells]
                shown.add_row(*map(Text, line.labels), *numbers)
        return Group(shown, *map(Text, self.notes))

    def to_html(self) -> str:
        """A page of its own that loads nothing and scrolls sideways on a narrow screen, the first column staying in view."""
        environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        return environment.from_string(PAGE).render(table=self)


def write_table(folder: Path, table: Table) -> None:
    """NAME.md, .tex, .csv and .html of a table in a folder."""
    texts = {"md": table.to_markdown(), "tex": table.to_latex(), "csv": table.to_csv(), "html": table.to_html()}
    for ending, text in texts.items():
        write_atomically(folder / f"{table.name}.{ending}", text)


def _shown(cell: Cell, escape: Callable[[str], str], marks: Mapping[str, str]) -> str:
    value = marks.get(cell.mark, "{}").format(escape(cell.value))
    return f"{value} {escape('±')} {cell.spread}" if cell.spread else value


def _markdown(text: str) -> str:
    """Text that cannot end a cell or be taken for markup; λ_p needs nothing, for inside a word _ is no markup."""
    return re.sub(r"([\\`*|<\[\]])", r"\\\1", " ".join(text.split()))


GREEK = {
    **dict(zip("αβγδεζηθ", ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"), strict=True)),
    **dict(zip("ικλμνξπρ", ("iota", "kappa", "lambda", "mu", "nu", "xi", "pi", "rho"), strict=True)),
    **dict(zip("στυφχψω", ("sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"), strict=True)),
    **dict(zip("ΓΔΘΛΞΠΣΦΨΩ", ("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega"), strict=True)),
}
LATEX = {
    **{character: rf"\{character}" for character in "&%$#_{}"},
    **{character: f"{{{character}}}" for character in "[*"},  # after \\ they would be its options
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$"},
    **{"±": r"$\pm$", "−": "$-$", "–": "--", "—": "---", "×": r"$\times$", "·": r"$\cdot$", "≤": r"$\leq$", "≥": r"$\geq$", "→": r"$\to$"},
    **{"½": r"$\frac{1}{2}$", "…": r"\dots{}"},
}


def _latex(text: str) -> str:
    """Text for a cell or a caption: special characters escaped, λ_p and α in mathematics."""

    def one(match: re.Match[str]) -> str:
        letter, subscript = match.group("greek"), match.group("subscript")
        if letter is None:
            return LATEX[match.group()]
        return rf"$\{GREEK[letter]}$" if subscript is None else rf"$\{GREEK[letter]}_{{{subscript}}}$"

    special = "".join(map(re.escape, LATEX))
    return re.sub(rf"(?P<greek>[{''.join(GREEK)}])(?:_(?P<subscript>[A-Za-z0-9]))?|[{special}]", one, " ".join(text.split()))


PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ table.title }}</title>
<style>
:root { color-scheme: light; --ink: #1d2630; --soft: #59636d; --line: #dfe3e7; --tint: #f5f7f9; }
body { margin: 20px; background: #fff; color: var(--ink); }
body { font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 19px; line-height: 1.3; margin: 0 0 12px; }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0; border-top: 2px solid var(--ink); border-bottom: 2px solid var(--ink); }
th, td { padding: 4px 9px; white-space: nowrap; text-align: right; font-variant-numeric: tabular-nums; font-weight: normal; }
thead th { color: var(--soft); } thead tr:last-child th { border-bottom: 1px solid var(--ink); }
thead .over { text-align: center; border-bottom: 1px solid var(--line); color: var(--ink); }
.label { text-align: left; } .label:first-child { position: sticky; left: 0; background: #fff; }
.group th { text-align: left; background: var(--tint); } .group span { position: sticky; left: 9px; font-style: italic; }
b { font-weight: 700; } .spread { color: var(--soft); font-size: 12px; }
ul { padding-left: 18px; color: var(--soft); font-size: 13px; max-width: 90ch; }
</style>
</head>
<body>
<h1>{{ table.title }}</h1>
<div class="scroll"><table>
<thead>
{% if table.spans | map("first") | select | list %}
<tr>{% for _ in table.label_headings %}<th class="label"></th>{% endfor %}
{% for over, headings in table.spans %}
<th colspan="{{ headings | length }}"{% if over %} class="over"{% endif %}>{{ over }}</th>
{% endfor %}</tr>
{% endif %}
<tr>{% for text in table.label_headings %}<th class="label" scope="col">{{ text }}</th>{% endfor %}
{% for heading in table.headings %}<th scope="col">{{ heading.text }}</th>{% endfor %}</tr>
</thead>
<tbody>
{% for group, lines in table.grouped %}
{% if group %}
<tr class="group"><th colspan="{{ table.label_headings | length + table.headings | length }}"><span>{{ group }}</span></th></tr>
{% endif %}
{% for line in lines %}
<tr>{% for text in line.labels %}<th class="label" scope="row">{{ text }}</th>{% endfor %}
{% for cell in line.cells %}
{% set tag = {"best": "b", "second": "u"}.get(cell.mark, "span") %}
<td><{{ tag }}>{{ cell.value }}</{{ tag }}>{% if cell.spread %} <span class="spread">± {{ cell.spread }}</span>{% endif %}</td>
{% endfor %}</tr>
{% endfor %}
{% endfor %}
</tbody>
</table></div>
<ul>
{% for note in table.notes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
</body>
</html>
"""
