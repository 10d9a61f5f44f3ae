"""Which quantities Prometheus reads, and that unknown ones are absent."""

import pytest

from monitor.core.quantities.measures import SURVIVALS
from monitor.events import (
    DirectionQuantities,
    InsuranceFund,
    Message,
    Quantities,
    StressPoint,
)
from tests.builders import direction_quantities, direction_risk, risk
from tests.sinks.test_metrics import Market


def published(quantities, down, assets=("BTC",)):
    """A market that has published one risk for each asset, with a reader of its page."""
    market = Market(assets=assets)
    for i, asset in enumerate(assets):
        one = down[i] if isinstance(down, list) else down
        directions = [direction_risk("down", quantities=one)]
        data = risk(quantities=quantities, directions=directions)
        market.latest.put(Message("risk", asset, 1, market.at, data))
    return market.read()


def test_what_is_unknown_is_absent():
    for unknown in ((Quantities(), DirectionQuantities()), (None, None)):
        read = published(*unknown)
        for name in ("taker_imbalance_usd", "maintenance_margin_ratio", "feed_stuck"):
            assert read(name, asset="BTC") is None
        for name in ("tail_ratio", "impact_disagreement", "engine_backlog_usd"):
            assert read(name, asset="BTC", direction="down") is None
        assert read("risk_limit_changes_total", asset="BTC") == 0


def test_the_lowest_margin_of_the_venues_is_shown():
    read = published(Quantities(maintenance_margin_ratio={"x": 0.01, "y": 0.004}), None)
    assert read("maintenance_margin_ratio", asset="BTC") == 0.004


def test_of_the_stress_grid_two_shocks_at_the_usual_survival_are_shown():
    stress = [
        StressPoint(shock, survival, None if shock == 0.1 else shock + survival, 1e6 * survival)
        for shock in (0.01, 0.03, 0.1)
        for survival in SURVIVALS
    ]
    read = published(None, DirectionQuantities(stress=stress))
    of = {"asset": "BTC", "direction": "down"}
    assert read("stress_landing_ratio", **of, shock="0.03") == pytest.approx(0.53)
    assert read("stress_landing_ratio", **of, shock="0.1") is None, "farther than is seen"
    assert read("stress_liquidated_usd", **of, shock="0.1") == 5e5, "a lower bound"
    assert read("stress_landing_ratio", **of, shock="0.01") is None


def test_slippage_at_risk_is_the_worst_of_three_assets_and_unknown_of_two():
    slips = [
        direction_quantities(slippage_ratio={"1000000": x, "10000000": None})
        for x in (0.01, 0.03, 0.02)
    ]
    read = published(None, slips, assets=("BTC", "ETH", "SOL"))
    assert read("slippage_at_risk_ratio", direction="down", alpha="0.9") == 0.03
    assert read("slippage_ratio", asset="ETH", direction="down", notional="1000000") == 0.03
    assert read("slippage_ratio", asset="ETH", direction="down", notional="10000000") is None
    read = published(None, slips[:2], assets=("BTC", "ETH"))
    assert read("slippage_at_risk_ratio", direction="down", alpha="0.9") is None


def test_a_fund_is_set_against_what_all_assets_lose_together_in_the_worse_direction():
    market = Market(venues=("binance", "okx"), assets=("BTC", "ETH"))
    for venue in ("binance", "okx"):
        covered = tuple(n for n in market.engine.instruments if n.startswith(f"{venue}:"))
        market.tell(InsuranceFund(venue, market.at, {"USDT": 30e6, "XYZ": 1.0}, covered))
    lost = {"down": {"binance": 10e6}, "up": {"binance": 1e6}}
    directions = [
        direction_risk(d, quantities=DirectionQuantities(venue_shortfall_usd=usd))
        for d, usd in lost.items()
    ]
    for asset in ("BTC", "ETH"):
        data = risk(quantities=Quantities(), directions=directions)
        market.latest.put(Message("risk", asset, 1, market.at, data))
    read = market.read()
    assert read("insurance_fund_usd", venue="binance") == 30e6
    assert read("insurance_runway_ratio", venue="binance") == pytest.approx(1.5)
    assert read("insurance_fund_usd", venue="okx") == 30e6
    assert read("insurance_runway_ratio", venue="okx") is None, "what it would lose is not known"


def test_a_fund_nobody_told_of_is_absent():
    read = published(Quantities(), direction_quantities())
    assert read("insurance_fund_usd", venue="binance") is None
    assert read("insurance_runway_ratio", venue="binance") is None
