"""What the reports' Markdown tables share."""

from collections.abc import Mapping, Sequence
from typing import Any


def head(title: str, columns: Sequence[str]) -> list[str]:
    """A heading and the top of its table."""
    return [f"### {title}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def figure(cell: Mapping[str, float], digits: int = 3) -> str:
    """A figure with its interval."""
    value, low, high = (f"{cell[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def reliability_table(
    title: str, found: Mapping[str, Sequence[Mapping[str, Any]]], digits: int
) -> list[str]:
    """How often it happened by what was said, a column a model."""
    lines = head(title, ("said", *(f"{name}: n, said, happened" for name in found)))
    for row in zip(*found.values(), strict=True):
        cells = [
            f"{b['count']}, {b['said']:.{digits}f}, {b['happened']:.{digits}f}"
            if b["count"]
            else "0"
            for b in row
        ]
        lines.append(f"| {row[0]['low']:g}-{row[0]['high']:g} | {' | '.join(cells)} |")
    return [*lines, ""]
