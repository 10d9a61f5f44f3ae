"""What Prometheus reads of the quantities of `monitor.core.quantities.quantities`.

Of each it shows what is worth a series per asset; all of them are in the risk message.
`docs/quantities.md` says which is where.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from monitor.core.quantities.funds import by_venue, runways
from monitor.core.quantities.measures import SURVIVALS
from monitor.events import Direction, DirectionQuantities, Quantities
from monitor.sinks.families import Row, counter, gauge

if TYPE_CHECKING:
    from monitor.sinks.metrics import View

SHOCKS: Final = (0.03, 0.1)
"""Shocks of the stress grid that are shown, at the usual survival of depth."""

AT_RISK_NOTIONAL: Final = "1000000"
AT_RISK_ALPHA: Final = 0.9
AT_RISK_ASSETS: Final = 3
"""Slippage at risk: of which order, which quantile over assets, and of how many at least."""

_OF: Final = ("asset", "direction")

_ASSET: Final = {
    name: gauge(name, text, "asset")
    for name, text in (
        ("taker_imbalance_usd", "What takers bought less what they sold in the last minute."),
        ("entry_concentration_ratio", "Herfindahl index of the entries of standing positions."),
        ("depth_dispersion_ratio", "Coefficient of variation of the venues' depth within 1 %."),
        ("depth_commonality_ratio", "Share of changes in depth that the venues have in common."),
        ("venue_price_gap_ratio", "Largest distance of a venue's mark from their median."),
        ("mark_lag_seconds", "By how much a venue's mark follows its trades, the largest."),
        ("spot_share_ratio", "Share of the last minute's largest move that spot made as well."),
        ("jump_intensity_per_hour", "Expected jumps of the price."),
        ("downside_share_ratio", "Share of falling returns in the variance of the last hour."),
        ("funding_zscore", "Funding rate against the last 30 days."),
        ("open_interest_zscore", "Open interest against the last 30 days."),
        ("liquidation_efficiency_ratio", "1 without slippage of forced closes; below 0 funds pay."),
        ("liquidation_slicing_ratio", "Prints per forced close."),
        ("cross_margin_coupling_ratio", "Liquidated together with another asset, over chance."),
        ("feed_stuck", "Instruments whose book or mark repeats itself while trades go on."),
        ("stablecoin_deviation_ratio", "What a dollar stablecoin is worth less than a dollar."),
        ("regime_turbulent_ratio", "Probability of the unquiet one of two market states."),
    )
}
_DIRECTION: Final = {
    name: gauge(name, text, *_OF)
    for name, text in (
        ("forced_flow_share_ratio", "Forced closes over taker volume the same way."),
        ("effective_leverage_ratio", "Mean leverage of standing positions."),
        ("margin_call_velocity_usd_per_second", "Positions that the price brought within 1 %."),
        ("liquidity_exhaustion_seconds", "Until depth within 1 % is used up at this rate."),
        ("book_gap_ratio", "Share of the steps within 1 % in which nobody quotes."),
        ("impact_disagreement", "1 while book and square-root law contradict each other."),
        ("uncovered_liquidation_usd", "Positions between the marks and the prices traded."),
        ("tail_ratio", "Chance of the critical move over that by a normal distribution."),
        ("insurance_shortfall_usd", "What funds would lose after a sale that moves a worn book."),
        ("post_sweep_reversion_ratio", "Share of a sweep's move that came back in 15 minutes."),
        ("engine_backlog_usd", "Swept and not yet printed, fading over a minute."),
        ("engine_throughput_usd_per_second", "Rate that 95 % of forced USD did not exceed."),
        ("contagion_export_ratio", "What a move of the asset does to another, on average."),
    )
}
_MARGIN = gauge(
    "maintenance_margin_ratio", "Lowest maintenance margin of small positions.", "asset"
)
_CHANGES = counter("risk_limit_changes", "Times margin tiers in use were replaced.", "asset")
_DISTANCE = gauge(
    "liquidation_distance_ratio",
    "Within which this share of what can be liquidated stands.",
    *_OF,
    "share",
)
_SLIPPAGE = gauge("slippage_ratio", "Of an order of so many USD over all books.", *_OF, "notional")
_LANDING = gauge("stress_landing_ratio", "Where a shock of all books would end.", *_OF, "shock")
_STRESSED = gauge("stress_liquidated_usd", "What it would force-close.", *_OF, "shock")
_FUND = gauge("insurance_fund_usd", "What stands behind forced closes beyond margin.", "venue")
_RUNWAY = gauge(
    "insurance_runway_ratio",
    "Insurance fund over what it would lose if all assets fell, or rose, together.",
    "venue",
)
_RETURNS = gauge(
    "return_commonality_ratio", "Share of their returns that the assets have in common."
)
_SLIPPAGE_AT_RISK = gauge(
    "slippage_at_risk_ratio",
    "Quantile over the assets of the slippage of a million USD.",
    "direction",
    "alpha",
)


def quantity_rows(view: "View") -> Iterator[Row]:
    """Every quantity that is known now."""
    slips: dict[Direction, list[float]] = {}
    returns = None
    for name, asset in view.engine.assets.items():
        yield _CHANGES, (name,), asset.quantifier.risk_limit_changes
        risk = view.risk(name)
        if risk is None:
            continue
        if risk.quantities is not None:
            yield from _asset_rows(name, risk.quantities)
            returns = risk.quantities.return_commonality_ratio if returns is None else returns
        for one in risk.directions:
            if one.quantities is None:
                continue
            yield from _direction_rows((name, one.direction), one.quantities)
            slip = one.quantities.slippage_ratio.get(AT_RISK_NOTIONAL)
            if slip is not None:
                slips.setdefault(one.direction, []).append(slip)
    yield from _fund_rows(view)
    if returns is not None:
        yield _RETURNS, (), returns
    for direction, found in slips.items():
        if len(found) >= AT_RISK_ASSETS:
            place = int(AT_RISK_ALPHA * (len(found) - 1) + 0.5)
            yield _SLIPPAGE_AT_RISK, (direction, f"{AT_RISK_ALPHA:g}"), sorted(found)[place]


def _fund_rows(view: "View") -> Iterator[Row]:
    """Each venue's fund, and how often it would pay for all assets at once in the worse direction.

    Unknown while no asset's shortfall is known; an asset that is not known is not counted.
    """
    funds = by_venue(view.engine.instruments.values(), view.at)
    lost: dict[tuple[str, Direction], float] = {}
    for name in view.engine.assets:
        risk = view.risk(name)
        for one in risk.directions if risk is not None else ():
            if one.quantities is not None:
                for venue, usd in one.quantities.venue_shortfall_usd.items():
                    lost[venue, one.direction] = lost.get((venue, one.direction), 0.0) + usd
    worst: dict[str, float] = {}
    for (venue, _), usd in lost.items():
        worst[venue] = max(usd, worst.get(venue, 0.0))
    for venue, fund in funds.items():
        yield _FUND, (venue,), fund.usd
    for venue, ratio in runways(funds, worst).items():
        yield _RUNWAY, (venue,), ratio


def _asset_rows(name: str, known: Quantities) -> Iterator[Row]:
    for field, family in _ASSET.items():
        value = getattr(known, field)
        if value is not None:
            yield family, (name,), value
    if known.maintenance_margin_ratio:
        yield _MARGIN, (name,), min(known.maintenance_margin_ratio.values())


def _direction_rows(of: tuple[str, Direction], known: DirectionQuantities) -> Iterator[Row]:
    for field, family in _DIRECTION.items():
        value = getattr(known, field)
        if value is not None:
            yield family, of, value
    for share, distance in known.liquidation_distance_ratio.items():
        yield _DISTANCE, (*of, share), distance
    for notional, slip in known.slippage_ratio.items():
        if slip is not None:
            yield _SLIPPAGE, (*of, notional), slip
    for point in known.stress:
        if point.survival != SURVIVALS[0] or point.shock not in SHOCKS:
            continue
        if point.landing_ratio is not None:
            yield _LANDING, (*of, f"{point.shock:g}"), point.landing_ratio
        yield _STRESSED, (*of, f"{point.shock:g}"), point.liquidated_usd
