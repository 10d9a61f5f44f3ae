"""What the commands print for people: tables and short lines."""

import sys
from datetime import UTC, datetime
from typing import Final, TextIO

from rich.console import Console
from rich.table import Table

from monitor.app import Replayed
from monitor.ask import Unanswered
from monitor.core.cascade.insurance import Runway
from monitor.core.cascade.stress import Stress
from monitor.core.quantities.funds import RUNWAY_MOST
from monitor.events import Heatmap, Side
from monitor.pipeline import Pipeline
from monitor.summary import REACH, clusters, dollars, percent
from monitor.whatif import Answer

SOLVED_ON: Final = {
    "curves": "from {}, on the daemon's own curves of map and books",
    "messages": "from {}, on published messages, which are coarser: displayed depth at ten "
    "distances, power laws between; the daemon itself (--url) knows more of its books",
}

UNCLOSED: Final = 0.01
"""Share of what is liquidated; where less than that might still be closed, it is not told."""

CLUSTERS: Final = 5
"""Rows of each side in the table of clusters."""

LEAST_WIDTH: Final = 120
"""Columns that the widest table needs."""

WIDTH: Final = 160
"""Columns of a table that goes into a file or a pipe."""

_TEXT: Final = ("instrument", "book")


def instruments(pipeline: Pipeline) -> Table:
    """State of every instrument at the end of a run."""
    table = Table(title=None, box=None, pad_edge=False)
    for title in (
        *_TEXT,
        "bid",
        "ask",
        "gaps",
        "mark",
        "funding 8h",
        "OI",
        "trades",
        "liquidated USD",
    ):
        table.add_column(title, justify="left" if title in _TEXT else "right")
    for name, state in pipeline.engine.instruments.items():
        bid, ask = state.book.best()
        funding = f"{state.funding.rate_8h:.6%}" if state.funding else None
        row = (bid, ask, state.book.gaps, state.mark, funding, state.open_interest_base)
        cells = ["-" if cell is None else f"{cell}" for cell in (*row, state.trades)]
        cells.append(f"{sum(state.liquidated_usd.values()):,.0f}")
        table.add_row(name, state.book.state, *cells)
    return table


def show_heatmap(heatmap: Heatmap, asset: str, venue: str, at_us: int) -> None:
    """Print what people read off a map."""
    out = console(sys.stdout)
    at = datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    out.print(f"[bold]{asset} {venue or '+'.join(heatmap.venues)}[/] {at}", highlight=False)
    out.print(
        f"mark {heatmap.mark:,.10g}, map confidence {percent(heatmap.confidence)}, "
        f"coverage {percent(heatmap.coverage)}, heard {percent(heatmap.heard)} "
        f"({heatmap.provenance}), level uncertain by {heatmap.scale_low:.2f} to "
        f"{heatmap.scale_high:.2f} times (80 %)",
        highlight=False,
    )
    if heatmap.missing:
        out.print(f"[bold red]missing, so unknown and not zero: {', '.join(heatmap.missing)}[/]")
    bands = _table("mark moves by", "down to", "longs closed", "up to", "shorts closed")
    for band in heatmap.at_risk:
        down, up = heatmap.mark * (1 - band.distance), heatmap.mark * (1 + band.distance)
        bands.add_row(
            percent(band.distance), f"{down:,.6g}", dollars(band.long_usd),
            f"{up:,.6g}", dollars(band.short_usd),
        )  # fmt: skip
    peaks = _table("largest clusters", "from", "to", "distance", "USD")
    sides: tuple[Side, Side] = ("short", "long")
    for side in sides:
        found = clusters(heatmap, side, count=CLUSTERS, reach=REACH)
        for c in sorted(found, key=lambda c: -c.price):
            away = f"{c.price / heatmap.mark - 1:+.2%}".replace("%", " %")
            peaks.add_row(f"{side}s", f"{c.low:,.6g}", f"{c.high:,.6g}", away, dollars(c.usd))
    for table in (bands, peaks):
        out.print()
        out.print(table)


def show_stress(answer: Answer) -> None:
    """Print the path of a shock and what it does to each venue.

    Raises:
        Unanswered: nothing is known of the asset.
    """
    out, found = console(sys.stdout), answer.stress
    when = datetime.fromtimestamp(answer.at_us / 1e6, UTC)
    out.print(
        f"{answer.asset} {found.shock_ratio:+.2%} at {when:%Y-%m-%d %H:%M:%S} UTC"
        + ("" if found.mark is None else f", mark {found.mark:,.6g}")
    )
    if found.mark is None or found.liquidated_usd is None:
        for lack in found.missing:
            out.print(f"  {lack.name}: {', '.join(lack.unknown)} not known")
        raise Unanswered(f"nothing is known of {answer.asset} to move")
    for line in _landing(found):
        out.print(f"  {line}", soft_wrap=True)
    out.print(f"  {_nearby(found)}", soft_wrap=True)
    least = "at least " if found.beyond else ""
    out.print(f"  {least}{dollars(found.liquidated_usd)} of {found.side}s liquidated")
    if found.shortfall_usd is not None:
        out.print(f"  insurance funds lose {least}{dollars(found.shortfall_usd)}")
    source = SOLVED_ON[answer.solved_on].format(answer.source or "the daemon")
    out.print(f"  {source}", soft_wrap=True, markup=False)
    out.print(
        f"  {found.survival:.0%} of displayed depth survives; books have to take "
        f"{found.psi:.2f} USD for each USD liquidated (psi)"
    )
    if found.psi_capped:
        seen = " within what can be seen" if found.beyond else ""
        out.print(
            "  psi is estimated at its cap, more than forced closes plausibly draw with them: "
            f"this is an upper bound{seen}",
            soft_wrap=True,
        )
    if found.within_s is not None:
        share = "unknown, so all" if found.spot_share is None else f"{found.spot_share:.0%}"
        out.print(
            f"  after {found.within_s:g} s the mark has followed {found.beta:.0%} of the move "
            f"(in spot: {share})"
        )
    for table in (_path(found), _venues(found), _funds(found)):
        out.print()
        out.print(table)
    for lack in found.missing:
        out.print(f"  not counted: {lack.name} ({', '.join(lack.unknown)} not known)")
    for held in found.unheard:
        out.print(f"  counted though not heard: {held.name} ({', '.join(held.unheard)})")


def _landing(found: Stress) -> list[str]:
    """Where it ends, and which venues' end cannot be seen."""
    beyond = [venue for venue in found.venues if venue.beyond]
    if found.landing_ratio is not None and found.landing_price is not None:
        times = (
            "" if found.amplification is None else f", {found.amplification:.2f} times the shock"
        )
        return [f"lands at {found.landing_price:,.6g} ({found.landing_ratio:+.2%}){times}"]
    if found.seen_ratio is None or found.seen_price is None:
        return ["every venue runs beyond what can be seen: all figures are lower bounds"]
    names = ", ".join(venue.name for venue in beyond)
    runs, whose, stands = (
        ("runs", "its", "its map still holds")
        if len(beyond) == 1
        else ("run", "their", "their maps still hold")
    )
    lines = [
        f"{names} {runs} beyond what can be seen: {whose} figures, and sums, are lower bounds",
        f"the others land at {found.seen_price:,.6g} ({found.seen_ratio:+.2%})",
    ]
    unclosed = sum(venue.unclosed_usd for venue in beyond)
    if unclosed > UNCLOSED * (found.liquidated_usd or 0.0):
        left = dollars(unclosed)
        lines[1] += f", farther if any of the {left} that {stands} is closed as well"
    return lines


def _nearby(found: Stress) -> str:
    """Where a slightly smaller and a slightly larger shock end."""
    ends = (
        f"runs beyond what can be seen (at least {dollars(near.liquidated_usd)} closed)"
        if near.landing_ratio is None
        else f"lands at {near.landing_ratio:+.2%}"
        for near in found.nearby
    )
    return ", ".join(
        f"{which} of {near.shock_ratio:+.2%} {end}"
        for which, near, end in zip(("a shock", "one"), found.nearby, ends, strict=True)
    )


def _path(found: Stress) -> Table:
    """Round by round; last rounds that read like the one before are left out."""
    rows = [
        (
            f"{step.price:,.6g}",
            f"{step.move_ratio:+.2%}",
            dollars(step.liquidated_usd),
            dollars(step.forced_flow_usd),
        )
        for step in found.path
    ]
    while len(rows) > 1 and rows[-1] == rows[-2]:
        rows.pop()
    table = _table("round", "price", "move", "liquidated", "books take")
    for number, row in enumerate(rows):
        table.add_row(str(number), *row)
    return table


def _venues(found: Stress) -> Table:
    table = _table("venue", "landing", "move", "liquidated", "forced flow", "shortfall")
    for venue in found.venues:
        least = "at least " if venue.beyond else ""
        lost = venue.shortfall_usd
        table.add_row(
            venue.name,
            "beyond" if venue.landing_price is None else f"{venue.landing_price:,.6g}",
            "" if venue.landing_ratio is None else f"{venue.landing_ratio:+.2%}",
            f"{least}{dollars(venue.liquidated_usd)}",
            f"{least}{dollars(venue.forced_flow_usd)}",
            "unknown" if lost is None else f"{least}{dollars(lost)}",
        )
    return table


def _funds(found: Stress) -> Table:
    """Whether each fund lasts; what it holds that has no price, where any does."""
    beyond = {venue.name.partition(":")[0] for venue in found.venues if venue.beyond}
    besides = any(fund.unvalued for fund in found.funds)
    table = _table("fund", "holds", "loses", "lasts", *(["besides"] if besides else []))
    for fund in found.funds:
        least = "at least " if fund.name in beyond else ""
        cells = [
            "unknown" if fund.fund_usd is None else dollars(fund.fund_usd),
            "unknown" if fund.shortfall_usd is None else f"{least}{dollars(fund.shortfall_usd)}",
            _runway(fund),
        ]
        if besides:
            cells.append(f"{', '.join(fund.unvalued)} (no price)" if fund.unvalued else "")
        table.add_row(fund.name, *cells)
    return table


def _runway(fund: Runway) -> str:
    """How many times the fund would cover it, up to a thousand; below once, ADL threatens."""
    if fund.adl_risk is None:
        return "unknown"
    if fund.ratio is None:
        return "nothing to pay"
    if fund.ratio > RUNWAY_MOST:
        return f"over {RUNWAY_MOST:,.0f} times"
    times = f"{fund.ratio:,.{2 if fund.ratio < 10.0 else 0}f} times"
    return f"{times}, then ADL" if fund.adl_risk else times


def show_replay(result: Replayed) -> None:
    """Print what came of a replay."""
    out = console(sys.stdout)
    out.print(instruments(result.pipeline))
    summary = result.summary
    out.print(f"digest {summary['digest']}", soft_wrap=True)
    refused = ", ".join(f"{n} {reason}" for reason, n in summary["decode_errors"].items())
    out.print(f"{summary['inputs_per_s']:,} inputs/s, refused: {refused or 'nothing'}")
    journal = summary["journal"]
    if journal["damages"] or journal["holes"]:
        out.print(f"[bold red]incomplete journal: {journal}[/]")


def _table(*titles: str) -> Table:
    table = Table(title=None, box=None, pad_edge=False)
    for i, title in enumerate(titles):
        table.add_column(title, justify="right" if i else "left")
    return table


def console(stream: TextIO) -> Console:
    """A console wide enough that no figure is cut; a narrower terminal folds the lines."""
    if not stream.isatty():
        return Console(file=stream, width=WIDTH)
    return Console(file=stream, width=max(LEAST_WIDTH, Console(file=stream).width))
