"""What the commands print for people: tables and short lines."""

import sys
from datetime import UTC, datetime
from typing import Final, TextIO

from rich.console import Console
from rich.table import Table

from monitor.app import Replayed
from monitor.ask import Unanswered
from monitor.core.cascade.insurance import Runway
from monitor.events import Heatmap, Side
from monitor.pipeline import Pipeline
from monitor.summary import REACH, clusters, dollars, percent
from monitor.whatif import Answer

SOLVED_ON: Final = {
    "curves": "solved on the curves of map and books",
    "messages": "solved on published messages: displayed depth at ten distances, power laws "
    "between; a daemon that is asked itself knows more of its books and answers otherwise",
}

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
        f"mark {heatmap.mark:,.10g}, confidence {percent(heatmap.confidence)}, "
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
    if found.landing_ratio is None or found.landing_price is None or found.amplification is None:
        out.print("  it runs beyond what can be seen; all figures are lower bounds")
    else:
        out.print(
            f"  lands at {found.landing_price:,.6g} ({found.landing_ratio:+.2%}), "
            f"{found.amplification:.2f} times the shock"
        )
    out.print(f"  {dollars(found.liquidated_usd)} of {found.side}s liquidated")
    if found.shortfall_usd is not None:
        out.print(f"  insurance funds lose {dollars(found.shortfall_usd)}")
    out.print(f"  {SOLVED_ON[answer.solved_on]}", soft_wrap=True)
    out.print(
        f"  {found.survival:.0%} of displayed depth survives; books have to take "
        f"{found.psi:.2f} USD for each USD liquidated"
    )
    if found.within_s is not None:
        share = "unknown, so all" if found.spot_share is None else f"{found.spot_share:.0%}"
        out.print(
            f"  after {found.within_s:g} s the mark has followed {found.beta:.0%} of the move "
            f"(in spot: {share})"
        )
    path = _table("round", "price", "move", "liquidated", "books take")
    for number, step in enumerate(found.path):
        path.add_row(
            str(number),
            f"{step.price:,.6g}",
            f"{step.move_ratio:+.2%}",
            dollars(step.liquidated_usd),
            dollars(step.forced_flow_usd),
        )
    out.print(path)
    venues = _table("venue", "landing", "move", "liquidated", "forced flow", "shortfall")
    for venue in found.venues:
        venues.add_row(
            venue.name,
            "beyond" if venue.landing_price is None else f"{venue.landing_price:,.6g}",
            "" if venue.landing_ratio is None else f"{venue.landing_ratio:+.2%}",
            dollars(venue.liquidated_usd),
            dollars(venue.forced_flow_usd),
            "unknown" if venue.shortfall_usd is None else dollars(venue.shortfall_usd),
        )
    out.print(venues)
    funds = _table("fund", "holds", "loses", "lasts", "besides")
    for fund in found.funds:
        funds.add_row(
            fund.name,
            "unknown" if fund.fund_usd is None else dollars(fund.fund_usd),
            "unknown" if fund.shortfall_usd is None else dollars(fund.shortfall_usd),
            _runway(fund),
            f"{', '.join(fund.unvalued)} (no price)" if fund.unvalued else "",
        )
    out.print(funds)
    for lack in found.missing:
        out.print(f"  not counted: {lack.name} ({', '.join(lack.unknown)} not known)")


def _runway(fund: Runway) -> str:
    """How many times the fund would cover it; below once, winners are closed as well."""
    if fund.adl_risk is None:
        return "unknown"
    if fund.ratio is None:
        return "nothing to pay"
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
