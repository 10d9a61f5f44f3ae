"""The quantities beside the risk: each against a small case worked out by hand."""

import re
from itertools import pairwise
from math import exp, isfinite, log
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from monitor.backtest.tape import instrument_of
from monitor.core.cascade.coupling import StressRow
from monitor.core.cascade.curves import DISTANCES, POINTS, STEP
from monitor.core.cascade.impact import stop_of_requote
from monitor.core.engine import Engine
from monitor.core.forecast.volatility import Forecast
from monitor.core.heatmap.pooling import BUCKETS, Estimate, fuel
from monitor.core.instrument import InstrumentState
from monitor.core.quantities import aftermath, measures
from monitor.core.quantities.approach import LEAST, Approach
from monitor.core.quantities.commonality import Commonality, Together, variation
from monitor.core.quantities.marks import KEPT_S, MarkTrack
from monitor.core.quantities.quantities import TAKEN_NS
from monitor.core.quantities.regime import Regime
from monitor.core.quantities.standing import concentration, folded, leverage, together
from monitor.core.quantities.turnover import Turnover
from monitor.events import (
    NS,
    BookSnapshot,
    DirectionQuantities,
    Funding,
    Liquidation,
    Listed,
    MarkPrice,
    OpenInterest,
    Quantities,
    Tick,
    Trade,
    Transfer,
)
from monitor.sim.parameters import ASSETS
from monitor.sim.rules import VENUES
from monitor.sinks.families import FAMILIES
from monitor.sinks.metrics import build_registry  # noqa: F401  (declares the families)
from tests.builders import engine_config, instrument

START = 1_790_000_000 * NS
EVEN = np.arange(POINTS, dtype=np.float64)
"""A curve with a dollar in every step."""


def volatility(**fields):
    known = {
        "sigma": (5e-5,) * 4,
        "vol_of_vol": (0.45,) * 4,
        "day": 5e-5,
        "downside": 0.5,
        "jump_rate": 1e-5,
        "jump_size": 0.003,
        "method": "har",
        "heard_at": START,
    }
    return Forecast(**(known | fields))


def estimate(mark=100.0, long=1.0, short=2.0):
    usd = np.ones((2, BUCKETS)) * np.array([[long], [short]])
    first = (round(log(mark) / STEP) // 5 - BUCKETS // 2) * 5
    return Estimate(
        "x:y", START, first, np.tile(usd, (3, 1)), mark, 1e6, 1.0, 1.0, 1.0, 0.4, ("x",)
    )  # fmt: skip


# ------------------------------------------------------------------- of one moment's curves


@pytest.mark.parametrize("direction", ["down", "up"])
def test_the_stress_grid_is_the_requote_shock_of_the_mechanism(direction):
    depth, forced = 3.0 * EVEN**1.1, 2.0 * EVEN
    forced[80:] += 150.0
    for point in measures.stress_grid(depth, forced, psi=1.5, direction=direction):
        start = measures.as_distance(point.shock, direction)
        stop = stop_of_requote(depth, forced, start, survival=point.survival, psi=1.5)
        if point.landing_ratio is None:
            assert np.isnan(stop)
            assert point.liquidated_usd == forced[-1]
        else:
            assert point.landing_ratio == pytest.approx(measures.as_ratio(stop, direction))
            assert point.liquidated_usd == pytest.approx(np.interp(stop, DISTANCES, forced))


def test_a_larger_shock_and_a_thinner_book_never_land_nearer():
    grid = measures.stress_grid(30.0 * EVEN, 2.0 * EVEN, psi=1.5, direction="down")
    rows = {(p.shock, p.survival): p.landing_ratio or 1.0 for p in grid}
    for (shock, survival), landing in rows.items():
        assert landing >= shock - 1e-12
        for (other, left), further in rows.items():
            if other >= shock and left <= survival:
                assert further >= landing - 1e-12


def test_funds_lose_nothing_where_nothing_stands_and_less_behind_more_margin():
    def lost(forced, maintenance):
        venues = {"x": (0.75 * forced, maintenance), "y": (0.25 * forced, 1.0)}
        total, by_venue = measures.worn_shortfalls(
            EVEN, forced, venues, psi=1.5, maintenance=maintenance, direction="down"
        )
        assert by_venue == {"x": pytest.approx(0.75 * total), "y": 0.0}
        return total

    assert lost(0.0 * EVEN, 0.004) == 0.0
    assert lost(0.1 * EVEN, 0.004) > lost(0.1 * EVEN, 0.05) > 0.0


def test_distances_of_the_mass_are_its_quantiles():
    found = measures.mass_distances(EVEN, "up")
    assert found == {"0.1": pytest.approx(exp(0.03) - 1), "0.5": pytest.approx(exp(0.15) - 1)}
    assert measures.mass_distances(0.0 * EVEN, "up") == {}


def test_a_fall_brings_the_mass_of_its_length_within_one_percent_and_a_rise_takes_it_away():
    near = measures.as_distance(0.01, "down")
    assert measures.brought_near(EVEN, 0.002, "down") == pytest.approx(4.0)
    assert measures.brought_near(EVEN, -0.002, "down") == pytest.approx(-4.0)
    assert measures.brought_near(EVEN, 0.05, "down") == pytest.approx(near / STEP)


def test_the_largest_cluster_is_found_where_it_is():
    forced = 0.1 * EVEN
    forced[61:] += 500.0  # between 3 % and 3.05 %
    found = measures.cluster(forced)
    assert abs(found - 60.5 * STEP) <= measures.CLUSTER_STEPS * STEP / 2
    assert measures.cluster(0.0 * EVEN) is None


def test_makers_who_avoid_a_cluster_show_and_depth_that_grows_evenly_does_not():
    forced = np.clip(EVEN - 30.0, 0.0, 6.0)
    holed = EVEN.copy()
    holed[30:] -= np.minimum(EVEN[30:] - 30.0, 6.0)  # nobody between steps 30 and 36
    whole = measures.around_cluster(EVEN**1.0, 0.05, forced)
    assert measures.withdrawal([whole]) == pytest.approx(0.0)
    assert measures.withdrawal([measures.around_cluster(holed, 0.05, forced)]) > 0.5
    assert measures.around_cluster(EVEN, 8 * STEP, forced) is None, "it does not show as far"
    assert measures.around_cluster(EVEN, 0.05, 0.0 * EVEN) is None
    assert measures.withdrawal([]) is None


def test_the_tail_is_fatter_the_farther_out_and_stays_a_number():
    ratios = [measures.tail_ratio(x, volatility()) for x in (0.003, 0.006, 0.01, 0.3)]
    assert ratios == sorted(ratios)
    assert ratios[2] > 10.0
    assert ratios[-1] == measures.TAIL_MOST


def test_what_stands_between_mark_and_last_price_is_uncovered_on_its_side_only():
    below = 100.0 * exp(-0.02)
    e = estimate()
    down = measures.passed_over(e, below, "down")
    assert down == pytest.approx(np.interp(0.02, DISTANCES, fuel(e, "down")))
    assert measures.passed_over(e, below, "up") == 0.0
    assert measures.passed_over(e, 100.0, "down") == 0.0
    assert measures.passed_over(e, 200.0, "up") == pytest.approx(fuel(e, "up")[-1], rel=0.3)


def test_price_gap_is_the_one_off_the_median():
    assert measures.price_gap([100.0, 100.0, 99.0]) == pytest.approx(0.01)
    assert measures.price_gap([100.0]) is None


def test_a_stablecoin_below_its_peg_makes_dollar_prices_lower():
    stable = InstrumentState(instrument("BTCUSDT"))
    dollar = InstrumentState(instrument("BTCUSD", kind="inverse", contract=100.0))
    for state, price in ((stable, 100.0), (dollar, 98.0)):
        state.mark, state.mark_at = price, START
    assert measures.stablecoin_deviation([stable, dollar], START) == pytest.approx(0.02)
    for state, index in ((stable, 100.0), (dollar, 99.0)):
        state.index, state.index_at = index, START
    assert measures.stablecoin_deviation([stable, dollar], START) == pytest.approx(0.01)
    assert measures.stablecoin_deviation([stable], START) is None
    assert measures.stablecoin_deviation([stable, dollar], START + 61 * NS) is None


def test_an_index_of_before_makes_neither_a_deviation_nor_a_gap():
    stable = InstrumentState(instrument("BTCUSDT"))
    dollar = InstrumentState(instrument("BTCUSD", kind="inverse", contract=100.0))
    for state in (stable, dollar):
        state.mark = state.index = 97.0
        state.mark_at = state.index_at = START + 600 * NS
    dollar.index, dollar.index_at = 100.0, START
    at = START + 600 * NS
    assert measures.stablecoin_deviation([stable, dollar], at) == 0.0, "the marks agree"
    engine = told(0)
    (state,) = engine.instruments.values()
    engine.process(START, MarkPrice(state.spec.name, START, 100.0, 99.0))
    assert risk_of(engine, START + 30 * NS).quantities.mark_index_gap_ratio > 0.01
    state.mark_at = at
    assert risk_of(engine, at).quantities.mark_index_gap_ratio is None


# -------------------------------------------------------------------------- standing positions


def test_bins_fold_into_buckets_that_begin_at_multiples_of_five():
    first, values = folded(-2, np.array([1.0, 2.0, 3.0]))
    assert (first, values.tolist()) == (-1, [3.0, 3.0])
    assert together([(first, values), (0, np.array([4.0]))])[1].tolist() == [3.0, 7.0]


def test_concentration_is_one_at_one_price_and_the_inverse_number_of_equal_ones():
    assert concentration(np.array([0.0, 5.0])) == 1.0
    assert concentration(np.ones(4)) == 0.25
    assert concentration(np.zeros(3)) is None


def told(*venues, assets=(ASSETS[0].name,)):
    engine = Engine(engine_config())
    for asset in assets:
        for venue in venues:
            engine.process(START, Listed(instrument_of(VENUES[venue], asset)))
    return engine


def test_who_entered_at_one_price_is_concentrated_and_as_geared_as_the_map_has_them():
    engine = told(0)
    state = next(iter(engine.instruments.values()))
    engine.process(START, MarkPrice(state.spec.name, START, 100_000.0, 100_000.0))
    engine.process(START, OpenInterest(state.spec.name, START, 1_000.0, None))
    quantifier = engine.assets[state.spec.asset].quantifier
    quantifier._standing.read(state)
    assert quantifier._standing.concentration() == pytest.approx(1.0)
    usd, weighted = leverage(state.map, 0)
    mass = state.map.weights.mean(0) * state.map.cohorts[0].by_row()
    assert usd == pytest.approx(float(mass.sum()) * 100_000.0)
    by_hand = sum(m * x for m, x in zip(mass, state.map.prior.leverage, strict=False)) / mass.sum()
    assert weighted / usd == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("sold", "forced", "seconds"),
    [(1e5, 1e5, 300.0), (2e5, 1e5, 150.0), (1e5, 3e5, 100.0), (-1e5, 0.0, None)],
)
def test_forced_closes_were_traded_as_well_and_use_the_book_up_once(sold, forced, seconds):
    (asset,) = told(0).assets.values()
    asset.quantifier._turnover.heard(START, 0.0, 0.0)
    heard = (60 * max(-sold, 0.0), 60 * max(sold, 0.0))
    asset.quantifier._turnover.heard(START + 60 * NS, *heard)
    depth = 60e6 * DISTANCES / measures.as_distance(0.01, "down")
    lasts = asset.quantifier._exhaustion("down", depth, 1.0, (0.0, 60 * forced, 60 * forced))
    assert lasts == (None if seconds is None else pytest.approx(seconds))


# -------------------------------------------------------------------------------- learnt


def bankrupt(price=99.0, side="long", **fields):
    known = {"price_kind": "bankruptcy", "fill_price": None, "completeness": "all"}
    return Liquidation(
        "binance:BTCUSDT", 0, side, 1.0, 99.0, price, **(known | fields), raw_side="Buy"
    )


def test_slices_of_one_close_are_counted_and_separate_closes_are_not_slices():
    slicing = aftermath.Slicing()
    for n in range(6):
        at = START + n * 60 * NS
        for k in range(4 if n % 2 else 2):
            slicing.printed(at + k * NS, bankrupt(99.0))
            slicing.printed(at + k * NS, bankrupt(98.0 - k))
            slicing.printed(at + k * NS, bankrupt(99.0, completeness="sampled_1s"))
        slicing.second(at + 30 * NS)
    # Six positions in 18 slices, and 18 positions in one each.
    assert slicing.prints == pytest.approx(36 / 24, rel=0.02)
    assert slicing.first_share == pytest.approx((3 * 0.5 + 3 * 0.25 + 18) / 24, rel=0.02)


def test_efficiency_is_what_of_the_margin_is_left_a_second_later():
    efficiency, state = aftermath.Efficiency(), InstrumentState(instrument())
    for n in range(10):
        at = START + n * 10 * NS
        # A long closed at a mark of 100 with its bankruptcy at 99, then a trade at 99.25.
        efficiency.printed(at, state, bankrupt(), 100.0)
        state.last_price, state.trades = 99.25, state.trades + 1
        efficiency.second(at + NS)
    assert efficiency.ratio == pytest.approx(0.25)


def test_a_fill_beyond_bankruptcy_makes_efficiency_negative_and_no_trade_says_nothing():
    paid, silent = aftermath.Efficiency(), aftermath.Efficiency()
    state = InstrumentState(instrument())
    for n in range(10):
        at = START + n * 10 * NS
        paid.printed(at, state, bankrupt(101.0, "short", fill_price=101.5), 100.0)
        silent.printed(at, state, bankrupt(), 100.0)
        silent.second(at + 9 * NS)
    assert paid.ratio == pytest.approx(-0.5)
    assert silent.ratio is None
    other = aftermath.Efficiency()
    other.printed(START, state, bankrupt(price_kind="fill"), 100.0)
    assert other.ratio is None


def swept(after):
    """Three falls by 1 % with forced closes, and what the price is a quarter of an hour later."""
    reversion = aftermath.Reversion(-1.0)
    at = START
    for _ in range(3):
        reversion.printed()
        reversion.second(at, 100.0, 0.0)
        reversion.printed()
        reversion.second(at + NS, 99.0, 0.01)
        for second in range(2, 1000):
            reversion.second(at + second * NS, after if second > 100 else 99.0, 0.0)
        at += 2000 * NS
    return reversion.ratio


def test_reversion_is_the_share_of_a_sweep_that_came_back():
    assert swept(99.0) == pytest.approx(0.0)
    assert swept(100.0) == pytest.approx(1.0)
    assert swept(99.5) == pytest.approx(0.5, abs=0.01)
    assert swept(99.0 * 0.99) < -0.9
    assert aftermath.Reversion(1.0).ratio is None


def test_a_backlog_is_what_was_swept_and_not_printed_and_fades_in_a_minute():
    backlog = aftermath.Backlog()
    backlog.heard(START, 10.0, 10.0)
    backlog.heard(START + NS, 110.0, 50.0)
    assert backlog.usd == pytest.approx(60.0)
    backlog.heard(START + 61 * NS, 110.0, 50.0)
    assert backlog.usd == pytest.approx(60.0 / exp(1.0))
    backlog.heard(START + 62 * NS, 0.0, 1e6)  # another map, and more printed than was swept
    assert backlog.usd == 0.0


def test_series_that_move_as_one_share_everything_and_unrelated_ones_nothing():
    same, apart = (Commonality(memory=100.0, least=4) for _ in range(2))
    for n in range(8):
        x = 1.0 if n % 2 else -1.0
        y = 1.0 if n // 2 % 2 else -1.0
        same.heard({"a": x, "b": 0.1 * x, "c": 5.0 * x})
        apart.heard({"a": x, "b": y})
    assert same.share() == pytest.approx(1.0, abs=1e-3)
    assert apart.share() == pytest.approx(0.5, abs=0.01)
    apart.heard({"a": 1.0, "b": 1.0, "c": 1.0})
    assert apart.share() is None, "another set of books begins anew"


def test_the_share_of_a_known_correlation_is_that_of_its_matrix():
    common = Commonality(memory=1e9, least=2)
    rows = ((1.0, 1.0), (1.0, -1.0), (1.0, 1.0), (1.0, 1.0))
    for x, y in rows:
        common.heard({"a": x, "b": y})
    # Correlation 0.5: eigenvalues 1.5 and 0.5.
    assert common.share() == pytest.approx(0.75, abs=1e-3)


def test_assets_liquidated_in_the_same_minutes_are_coupled_and_independent_ones_are_not():
    coupled, chance = Together(), Together()
    for n in range(64):
        coupled.heard({"a": n % 8 == 0, "b": n % 8 == 0})
        chance.heard({"a": n % 8 == 0, "b": n // 8 % 2 == 0})
    assert coupled.coupling("a") == pytest.approx(8.0, rel=0.02)
    assert coupled.correlation("b") == {"a": pytest.approx(8.0, rel=0.02)}
    assert chance.coupling("b") == pytest.approx(1.0, rel=0.02)
    assert Together().coupling("a") is None


def test_turbulence_comes_with_wild_minutes_and_goes_with_quiet_ones():
    regime = Regime()
    assert regime.turbulent is None
    for _ in range(30):
        regime.minute(0.0, 0.0)
    quiet = regime.turbulent
    for _ in range(5):
        regime.minute(1.2, -0.6)
    assert quiet < 0.1
    assert regime.turbulent > 0.9
    for _ in range(30):
        regime.minute(0.0, None)
    assert regime.turbulent < 0.2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(allow_nan=True), st.none() | st.floats()), max_size=20))
def test_turbulence_is_a_probability_whatever_is_heard(minutes):
    regime = Regime()
    for minute in minutes:
        regime.minute(*minute)
        assert regime.turbulent is None or 0.0 < regime.turbulent < 1.0


def test_takers_who_sell_towards_a_near_cluster_show():
    approach = Approach()
    for _ in range(LEAST):
        assert approach.ratio is None
        approach.heard(8.0, 10.0, near=True)
        approach.heard(5.0, 10.0, near=False)
    assert approach.ratio == pytest.approx(0.3)
    approach.heard(0.0, 0.0, near=True)
    assert approach.ratio == pytest.approx(0.3)


def tracked(lag, seconds=KEPT_S):
    rng = np.random.default_rng(5)
    prices = 100.0 * np.exp(np.cumsum(rng.normal(0, 1e-3, seconds + lag)))
    track = MarkTrack()
    for n in range(seconds):
        track.second(START + n * NS, prices[n], None, prices[n + lag], n)
    return track


def test_the_lag_of_a_mark_is_found_to_the_second():
    assert [tracked(lag).lag_s() for lag in (0, 3, 7)] == [0.0, 3.0, 7.0]
    assert tracked(3, seconds=200).lag_s() is None


def test_a_mark_that_stands_still_while_the_price_moves_is_stuck():
    moving, quiet, dead = MarkTrack(), MarkTrack(), MarkTrack()
    for n in range(60):
        at = START + n * NS
        moving.second(at, 100.0 + n % 2, None, 100.0 + n % 2, n)
        quiet.second(at, 100.0, None, 100.0, 0)
        dead.second(at, 100.0, None, 100.0 + n % 2, n)
    assert [t.is_stuck() for t in (moving, quiet, dead)] == [False, False, True]
    assert dead.last(START + 60 * NS) is not None
    assert dead.last(START + 80 * NS) is None


def test_turnover_is_of_its_window_and_a_day_needs_an_hour():
    turnover = Turnover()
    assert turnover.within(60) is None
    for n in range(721):
        turnover.heard(START + 5 * n * NS, 10.0 * n, 5.0 * n)
        if n == 700:
            assert turnover.daily_usd is None
    flow = turnover.within(60)
    assert (flow.seconds, flow.bought, flow.sold) == (60.0, 120.0, 60.0)
    assert turnover.daily_usd == pytest.approx(3.0 * 86_400.0)
    for n in range(721, 800):
        turnover.heard(START + 5 * n * NS, 7200.0, 3600.0)
    assert turnover.within(60) is None, "nothing traded, as from a dead feed"


def test_variation_is_the_spread_over_the_mean():
    assert variation([1.0, 3.0]) == pytest.approx(0.5)
    assert variation([2.0]) is None


# ------------------------------------------------------------------------------ all together


def speak(engine, at, price, *, forced=False, silent=()):
    for name in engine.instruments:
        if "book" not in silent:
            sides = [
                [
                    (round(price * (1 + s * 0.0002 * i), 1), 1.0 + 0.01 * (i % 7))
                    for i in range(1, 300)
                ]
                for s in (-1, 1)
            ]
            engine.process(at, BookSnapshot(name, 0, *sides, depth=300, maintained=True))
        if "mark" not in silent:
            engine.process(at, MarkPrice(name, at, price, price * 1.0001))
        if "trades" not in silent:
            engine.process(at, Trade(name, at, price * 0.999, 2.0, "sell"))
            engine.process(at, Trade(name, at, price, 1.0, "buy"))
        engine.process(at, OpenInterest(name, at, 20_000.0, None))
        engine.process(at, Funding(name, at, 0.0001, 8.0, None))
        if forced:
            close = (price, price * 0.996, "bankruptcy", None, "all", "Buy")
            engine.process(at, Liquidation(name, at, "long", 1.0, *close))


def risk_of(engine, at):
    return next(m.data for m in engine.process(at, Tick(at)) if m.kind == "risk")


def lived(seconds=90, **kinds):
    engine, price = told(0, 1), 100_000.0
    risk = None
    for n in range(seconds):
        at = START + n * NS
        price *= 0.9999 if n % 3 else 1.0001
        speak(engine, at, price, forced=n % 10 == 0 and n > 40, **kinds)
        risk = risk_of(engine, at)
    return engine, risk


@pytest.fixture(scope="module")
def market():
    return lived()


def numbers(value):
    if isinstance(value, dict):
        return [x for v in value.values() for x in numbers(v)]
    if isinstance(value, list):
        return [x for v in value for x in numbers(v)]
    return [value] if isinstance(value, float) else []


def test_a_market_that_is_heard_has_its_quantities(market):
    _, risk = market
    down, asset = risk.directions[0].quantities, risk.quantities
    assert asset.taker_imbalance_usd == pytest.approx(-60 * 2 * 100_000.0, rel=0.15)
    assert asset.entry_concentration_ratio > 0.3
    assert asset.depth_dispersion_ratio == pytest.approx(0.0, abs=1e-9)
    assert asset.mark_index_gap_ratio == pytest.approx(1e-4, rel=0.01)
    assert set(asset.maintenance_margin_ratio) == {"binance", "bybit"}
    assert asset.feed_stuck == 0
    assert 0.0 < down.slippage_ratio["1000000"] < down.slippage_ratio["10000000"]
    assert down.forced_flow_share_ratio is None, "five minutes have not been heard"
    assert down.uncovered_liquidation_usd == 0.0, "the last trade was at the mark"
    assert down.liquidity_exhaustion_seconds > 0.0
    assert len(down.stress) == len(measures.SHOCKS) * len(measures.SURVIVALS)
    assert down.insurance_shortfall_usd >= 0.0
    assert down.engine_backlog_usd >= 0.0


def test_every_number_of_the_message_is_finite(market):
    _, risk = market
    for one in (risk.quantities, *(d.quantities for d in risk.directions)):
        assert all(isfinite(x) for x in numbers(msgspec.to_builtins(one)))


def test_what_is_not_heard_stays_unknown():
    _, risk = lived(70, silent=("book", "trades"))
    down, asset = risk.directions[0].quantities, risk.quantities
    assert down.slippage_ratio == {} and down.stress == []  # noqa: PT018
    unknown = (
        asset.taker_imbalance_usd,
        asset.depth_dispersion_ratio,
        asset.funding_zscore,
        asset.cross_margin_coupling_ratio,
        asset.stablecoin_deviation_ratio,
        asset.mark_lag_seconds,
        down.liquidity_exhaustion_seconds,
        down.book_gap_ratio,
        down.forced_flow_share_ratio,
        down.uncovered_liquidation_usd,
        down.tail_ratio,
        down.insurance_shortfall_usd,
        down.contagion_export_ratio,
        down.impact_disagreement,
    )
    assert unknown == (None,) * len(unknown)
    assert down.liquidation_distance_ratio, "the map is known all the same"


def test_without_prints_the_backlog_is_unknown_and_not_zero():
    engine = told(0, 1)
    for n in range(30):
        at = START + n * NS
        speak(engine, at, 100_000.0)
        risk = risk_of(engine, at)
    assert risk.directions[0].quantities.engine_backlog_usd is None
    assert risk.directions[0].quantities.forced_flow_share_ratio is None


def test_quantities_are_those_of_before_until_they_are_due():
    engine = told(0)
    seen = []
    for n in range(20):
        at = START + n * NS
        speak(engine, at, 100_000.0 + 10.0 * n)
        seen.append(risk_of(engine, at).quantities)
    changes = sum(a is not b for a, b in pairwise(seen))
    assert changes == 20 * NS // TAKEN_NS - (START % TAKEN_NS == 0)


def test_replaced_margin_tiers_and_deleveraging_are_counted():
    engine = told(0, 1)
    one = next(iter(engine.instruments.values()))
    speak(engine, START, 100_000.0)
    tighter = tuple(replace(t, rate=t.rate * 1.5) for t in one.spec.tiers)
    for _ in range(2):
        engine.process(START, Listed(replace(one.spec, tiers=tighter)))
    for kind in ("adl", "insurance_fund"):
        engine.process(START, Transfer(one.spec.name, START, 1.0, 1.0, kind))
    asset = risk_of(engine, START + NS).quantities
    assert asset.risk_limit_changes == 1
    assert asset.adl_events == {one.spec.venue: 1}, "of the other venue nothing is known"
    assert asset.maintenance_margin_ratio[one.spec.venue] == tighter[0].rate


def test_what_assets_do_to_each_other_is_told_once_it_is_learnt_and_not_assumed():
    names = (ASSETS[0].name, ASSETS[1].name)
    engine = told(0, assets=names)

    def live(seconds):
        for n in seconds:
            at = START + n * NS
            speak(engine, at, 50_000.0 * (1.0 + 1e-4 * (n % 2)))
            risk = risk_of(engine, at)
        return risk, [one.quantities for one in risk.directions]

    risk, told_of = live(range(130))
    assert (risk.contagion, risk.contagion_learnt) == (None, 0.0)
    assert {q.contagion_export_ratio for q in told_of} == {None}
    assert risk.quantities.stress_beta_ratio == {}
    for name in names:
        seen = dict.fromkeys(names, (270.0, 270.0))
        engine.assets[name].recalled = StressRow(at=START, count=900, variance=1e-8, follows=seen)
    risk, told_of = live(range(130, 200))
    assert risk.contagion > 0.0
    assert risk.contagion_learnt == pytest.approx(10 / 11, abs=0.01)
    assert all(q.contagion_export_ratio >= 0.0 for q in told_of)
    assert all(q.contagion_import_ratio >= 0.0 for q in told_of)
    assert len(risk.quantities.stress_beta_ratio) == 1


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_whatever_is_heard_no_quantity_is_anything_but_a_number_or_unknown(data):
    engine, price, at = told(0, 1), 100_000.0, START
    kinds = st.sets(st.sampled_from(["book", "mark", "trades"]))
    for _ in range(8):
        at += data.draw(st.sampled_from([1, NS // 4, NS, 7 * NS, 61 * NS, 4_000 * NS]))
        price *= data.draw(st.sampled_from([0.7, 0.99, 1.0, 1.0001, 1.3]))
        speak(engine, at, price, forced=data.draw(st.booleans()), silent=data.draw(kinds))
        for asset in engine.assets.values():
            asset.quantifier._done = [-1] * 5
        for message in engine.process(at, Tick(at)):
            if message.kind == "risk":
                for one in (message.data, *message.data.directions):
                    assert all(isfinite(x) for x in numbers(msgspec.to_builtins(one.quantities)))


# --------------------------------------------------------------------------------- documents

TEXT = Path("docs/quantities.md").read_text(encoding="utf-8")


def test_every_field_is_documented():
    named = set(re.findall(r"`(\w+)(?:\[\])?`", TEXT.split("## The fields")[1]))
    for kind in (Quantities, DirectionQuantities):
        assert set(kind.__struct_fields__) <= named, kind


def test_every_metric_that_the_table_of_concepts_names_exists():
    names = {family.name.removeprefix("cascade_") for family in FAMILIES}
    measured = TEXT.split("## Measured")[1].split("## Not measured")[0]
    for row in measured.splitlines():
        if row.startswith("| ") and not row.startswith("| concept"):
            metrics = re.findall(r"`(\w+)[^`]*`", row.split("|")[3])
            assert set(metrics) <= names, row
