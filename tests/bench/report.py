"""Figures as tables: for a terminal, and as Markdown for `docs/benchmarks.md`."""

from collections.abc import Iterable
from statistics import median

from msgspec import Struct
from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Section(Struct):
    """One table with a title, and what has to be known to read it."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = []


class Bar(Struct):
    """One figure that must be reached; `measured` None means that it could not be measured."""

    what: str
    bar: str
    measured: float | None
    met: bool
    text: str = ""

    def row(self) -> list[str]:
        if self.measured is None:
            return [self.what, self.bar, self.text or "not measured", "not measured"]
        shown = self.text or f"{self.measured:.2f}"
        return [self.what, self.bar, shown, "met" if self.met else "NOT MET"]


def spread(samples: Iterable[float], digits: int = 2, unit: str = "") -> str:
    """Median, and the least and the most in brackets."""
    values = list(samples)
    middle, low, high = (f"{x:,.{digits}f}" for x in (median(values), min(values), max(values)))
    return f"{middle}{unit} ({low}-{high})"


def thousands(samples: Iterable[float]) -> str:
    """Rates in thousands a second."""
    return spread((value / 1000 for value in samples), 1, " k")


def show(lines: list[str], sections: list[Section], console: Console) -> None:
    """Print tables on a terminal."""
    for line in lines:
        console.print(escape(line))
    for section in sections:
        table = Table(title=section.title, title_justify="left", title_style="bold")
        for number, column in enumerate(section.columns):
            table.add_column(escape(column), justify="right" if number else "left")
        for row in section.rows:
            style = "red" if "NOT MET" in row else None
            table.add_row(*map(escape, row), style=style)
        console.print(table)
        for note in section.notes:
            console.print(f"  [dim]{escape(note)}[/dim]")


def markdown(lines: list[str], sections: list[Section]) -> str:
    """The same as Markdown."""
    out = [f"- {line}" for line in lines]
    for section in sections:
        out += ["", f"### {section.title}", "", _row(section.columns)]
        out.append(_row(["---", *["---:"] * (len(section.columns) - 1)]))
        out += [_row(row) for row in section.rows]
        if section.notes:
            out += ["", *section.notes]
    return "\n".join(out) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
