"""The accuracy report as one self-contained HTML file, without scripts."""

from html import escape
from typing import Any

_COLOURS = {
    "truth": "#111",
    "map": "#c0392b",
    "climatology": "#2980b9",
    "static profile": "#8e44ad",
    "public recipe": "#e67e22",
    "uniform": "#95a5a6",
}
_STYLE = """
body { font: 14px sans-serif; max-width: 70em; margin: 2em auto }
td, th { padding: .2em .6em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
.no { color: #c0392b }
"""
_METRICS = (
    "wasserstein",
    "spearman",
    "top_decile",
    "information",
    "mass_ratio",
    "mass_factor",
    "covered",
    "scale_covered",
)


def page(result: dict[str, Any]) -> str:
    """HTML of a `report`."""
    parts = [
        "<!doctype html><meta charset=utf-8><title>Heatmap accuracy</title>",
        f"<style>{_STYLE}</style>",
        "<h1>Liquidation map against simulated truth</h1>",
        f"<p>{result['all']['runs']} runs, {result['all']['moments']} graded moments.</p>",
        f"<p>Seeds {escape(str(result['seeds']))}. Intervals: 90 %, bootstrap over runs.</p>",
        "<h2>Targets</h2><ul>",
    ]
    for v in result["verdicts"]:
        word = "met" if v["met"] else "<b class=no>missed</b>"
        parts.append(f"<li>{escape(v['target'])}: {_figure(v)} {word}</li>")
    parts.append("</ul>")
    titles = {"all": "Both markets"} | {f"by:{v}": f"Market: {v}" for v in result["by_variant"]}
    for key, title in titles.items():
        table = result["by_variant"][key[3:]] if key.startswith("by:") else result[key]
        parts.append(f"<h2>{escape(title)}</h2>{_table(table)}")
    parts.append("<h2>With the shipped prior, which does not know this market</h2>")
    parts.append(_table(result["shipped_prior"]))
    for side, name in enumerate(("Longs, below the mark", "Shorts, above the mark")):
        parts.append(f"<h2>{name}: mean USD per bucket by distance</h2>")
        parts.append(_picture(result["profile"], side))
    return "\n".join(parts)


def _figure(cell: dict[str, float]) -> str:
    return f"{cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"


def _table(graded: dict[str, Any]) -> str:
    head = "".join(f"<th>{m}</th>" for m in _METRICS)
    rows = []
    for name, metrics in graded["models"].items():
        cells = [f"<td>{_figure(metrics[m]) if m in metrics else ''}</td>" for m in _METRICS]
        rows.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _picture(profile: dict[str, Any], side: int) -> str:
    width, height = 800, 260
    top = max(profile["truth"][side]) * 1.6 or 1.0
    lines = []
    for i, (name, colour) in enumerate(_COLOURS.items()):
        values = profile[name][side]
        dx = width / len(values)
        points = " ".join(
            f"{(j + 0.5) * dx:.1f},{height - min(v / top, 1.0) * height:.1f}"
            for j, v in enumerate(values)
        )
        lines.append(f'<polyline fill="none" stroke="{colour}" points="{points}"/>')
        lines.append(f'<text x="{20 + 130 * i}" y="16" fill="{colour}">{name}</text>')
    axis = "".join(
        f'<text x="{width * p / 8:.0f}" y="{height + 16}">{p} %</text>' for p in range(8)
    )
    return f'<svg viewBox="0 0 {width} {height + 20}">{"".join(lines)}{axis}</svg>'
