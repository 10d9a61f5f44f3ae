"""The map conserves, keeps both sides equal, and makes none of the known mistakes."""

import zlib
from math import exp, log

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.heatmap.calibration import (
    DEFAULT_PRIOR,
    PRIOR_FACTORS,
    ThrottleCorrection,
    Weights,
    Window,
    interval,
    print_ratio,
)
from monitor.core.heatmap.grid import BINS, STEP, Cohorts, bin_of, mirrored, price_of
from monitor.core.heatmap.map import Map, Parameters, estimates
from monitor.core.heatmap.margin import MarginTable, distances
from monitor.core.heatmap.pooling import (
    BUCKET,
    fuel,
    fuel_between,
    fuel_within,
    pooled,
    published,
)
from monitor.core.saved import StateError
from monitor.events import NS, Candle, Instrument, Tier

START = 1_767_225_600 * NS
PLAIN = Parameters(turnover_per_h=0.0)


def instrument(venue="binance", kind="linear", rate=0.005):
    return Instrument(
        name=f"{venue}:BTC", venue=venue, symbol="BTC", asset="BTC", kind=kind, contract=1.0,
        tick=0.1, lot=0.001, tiers=(Tier(0.0, None, rate, 0.0, 125.0),),
    )  # fmt: skip


def started(*, price=100_000.0, interest=1_000.0, parameters=PLAIN, candles=(), **kwargs):
    """A map that knows a mark, an open interest and whatever candles it is given."""
    m = Map(kwargs.pop("spec", instrument()), parameters=parameters, **kwargs)
    m.history(candles)
    m.mark(START, price)
    assert m.open_interest(START, interest)
    return m


def standing(m):
    return [ledger.standing for ledger in m.ledgers()]


def at(seconds):
    return START + round(seconds * NS)


def cells(m, side=0):
    """Standing quantities by absolute bin of the liquidation price."""
    cohorts = m.cohorts[side]
    total = cohorts.cells.sum(axis=0)
    return {
        (cohorts.origin + i if side == 0 else mirrored(cohorts.origin + i)): float(total[i])
        for i in np.flatnonzero(total).tolist()
    }


def opened(m, price, quantity, *, seconds=60.0, taker="buy"):
    """Open interest rises by `quantity`, traded at `price`; settled after a minute."""
    m.traded(at(seconds - 1), price, quantity, taker)
    assert m.open_interest(at(seconds), m.interest + quantity)


# ------------------------------------------------------------------------------ conservation


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["mark", "trade", "interest", "print", "wait", "jump"]),
        st.floats(-1.0, 1.0),
        st.sampled_from(["buy", "sell"]),
    ),
    min_size=20,
    max_size=250,
)


def driven(m, acts, *, start=0.0):
    """Apply random acts; returns the time reached."""
    now, price = start, m.mark_price
    for act, x, taker in acts:
        now += 7.0
        if act == "mark":
            price *= exp(0.004 * x)
            m.mark(at(now), price)
        elif act == "jump":
            price *= exp(0.3 * x)
            m.mark(at(now), price)
        elif act == "trade":
            m.traded(at(now), price * exp(0.001 * x), 3.0 * abs(x), taker)
        elif act == "interest":
            m.open_interest(at(now), m.interest * exp(0.05 * x))
        elif act == "print":
            m.liquidation(at(now), "long" if x < 0 else "short", 1e5 * abs(x), "sampled_1s")
        else:
            now += 50.0
            m.advance(at(now))
    m.advance(at(now + 60))
    return now + 60


@settings(max_examples=40, deadline=None)
@given(
    acts=ACTS,
    venue=st.sampled_from(["binance", "hyperliquid", "bybit"]),
    kind=st.sampled_from(["linear", "inverse"]),
)
def test_mass_is_conserved_and_never_negative_nor_above_open_interest(acts, venue, kind):
    m = started(spec=instrument(venue, kind), parameters=Parameters(turnover_per_h=0.3, churn=0.05))
    driven(m, acts)
    for ledger, cohorts in zip(m.ledgers(), m.cohorts, strict=True):
        assert ledger.error < 1e-12 * len(acts)
        assert (cohorts.cells >= 0).all()
        assert (cohorts.beyond >= 0).all()
        assert ledger.standing <= m.interest * (1 + 1e-9)
        assert min(ledger.consumed, ledger.closed, ledger.expired) >= 0
    e = m.estimate(at(1e5))
    assert (e.usd >= 0).all()
    assert (e.variance >= 0).all()
    assert np.isfinite(e.usd).all()


def test_mass_is_conserved_over_hours_of_random_input():
    chance = np.random.Generator(np.random.PCG64(5))
    m = started(spec=instrument("hyperliquid"), parameters=Parameters(turnover_per_h=0.05))
    price = 100_000.0
    for second in range(1, 6 * 3_600):
        price *= exp(4e-4 * float(chance.standard_normal()))
        m.mark(at(second), price)
        if second % 2:
            m.traded(at(second), price, float(chance.exponential()), "buy")
        if second % 5 == 0:
            m.open_interest(at(second), m.interest * exp(1e-3 * float(chance.standard_normal())))
        m.advance(at(second))
    for ledger in m.ledgers():
        assert ledger.consumed > 0
        assert ledger.closed > 0
        assert ledger.expired > 0
        assert ledger.error < 1e-9
        assert ledger.standing <= m.interest * (1 + 1e-12)


@settings(max_examples=30, deadline=None)
@given(
    price=st.floats(50.0, 2e5),
    quantity=st.floats(0.01, 100.0),
    taker=st.sampled_from(["buy", "sell"]),
)
def test_each_increase_makes_as_much_long_as_short(price, quantity, taker):
    """A known mistake: open interest to one side, or split by the taker."""
    m = started(price=price)
    opened(m, price, quantity, taker=taker)
    long, short = m.ledgers()
    assert long.opened == pytest.approx(1_000.0 + quantity, rel=1e-12)
    assert short.opened == long.opened


def test_nothing_standing_moves_when_the_price_moves_without_reaching_it():
    m = started()
    before = [cells(m, side) for side in (0, 1)]
    for second, price in enumerate((100_050.0, 99_960.0, 100_100.0, 99_900.0), start=1):
        m.mark(at(second), price)
    assert [cells(m, side) for side in (0, 1)] == before


def test_anchoring_anew_moves_no_price():
    m = started()
    before = cells(m)
    price = 100_000.0 * exp(1_100 * STEP)
    m.mark(at(1), price)
    assert m.cohorts[0].origin != bin_of(100_000.0) - BINS // 2
    after = cells(m)
    assert after
    assert all(before[k] == v for k, v in after.items())


def test_the_published_cohorts_do_not_move_with_the_price_either():
    """Without the climatology, which hangs on the mark by definition, a bucket stays as it is."""
    m = started(parameters=Parameters(turnover_per_h=0.0, blend=1.0))
    first = m.snapshot(at(1))
    m.mark(at(1), 99_700.0)
    second = m.snapshot(at(2))
    move = round(log(second.first_price / first.first_price) / first.log_step)
    assert first.n == second.n
    shown = {i: v for i, v in enumerate(first.long_usd) if v}
    again = {i + move: v for i, v in enumerate(second.long_usd) if v}
    for i in range(20, first.n - 20):
        assert again.get(i, 0.0) == pytest.approx(shown.get(i, 0.0), abs=0.011)


# --------------------------------------------------------- the catalogue of mistakes, by name


def test_shares_of_the_leverage_nodes_sum_to_one():
    """A known mistake: weights not summing to 1. What comes in is what stands."""
    assert [sum(mix) for mix in DEFAULT_PRIOR.mix] == pytest.approx([1.0, 1.0])
    m = started()
    opened(m, 100_000.0, 50.0)
    assert standing(m) == pytest.approx([1_050.0, 1_050.0], rel=1e-12)


def test_a_fall_of_open_interest_removes_voluntary_closes():
    """A known mistake: no removal on -dOI leaves ghosts."""
    m = started()
    m.open_interest(at(60), 900.0)
    assert standing(m) == pytest.approx([900.0, 900.0], rel=1e-9)
    assert [x.closed for x in m.ledgers()] == pytest.approx([100.0, 100.0], rel=1e-9)


def test_closes_take_the_liquidated_part_off_first():
    """model.md E8: double subtraction. What the mark consumed has left open interest already."""
    m = started()
    m.mark(at(1), 97_000.0)
    gone = m.ledgers()[0].consumed
    weight = float(m.weights.mean(0)[0])
    before = standing(m)[0]
    m.open_interest(at(60), 1_000.0 - gone * weight)
    assert standing(m)[0] == pytest.approx(before, rel=1e-9)
    assert m.ledgers()[0].closed == pytest.approx(0.0, abs=1e-9)
    # The shorts' side had no liquidation: all of the fall is closing.
    assert m.ledgers()[1].closed == pytest.approx(gone * weight, rel=1e-9)


def test_winners_of_five_to_fifteen_percent_close_more_than_losers():
    """model.md A4: voluntary exits by profit and loss."""
    spec = np.array([200, 200])
    cohorts = Cohorts(spec, first_share=1.0, relief=0, at=0)
    mix = np.array([0.5, 0.5])
    winners, losers = -160, 80
    for entry in (winners, losers):
        cohorts.insert(np.array([entry]), np.array([10.0]), mix, lowest=1 << 30)
    cohorts.leave(2.0, 0.0, 0)
    left = [float(cohorts.window(entry - 200, 1).sum()) for entry in (winners, losers)]
    lost = [10.0 - x for x in left]
    assert sum(lost) == pytest.approx(2.0)
    assert lost[0] / lost[1] == pytest.approx(2.5 / 0.8, rel=0.15)


@settings(max_examples=15, deadline=None)
@given(ACTS)
def test_what_is_kept_between_two_estimates_is_what_a_new_map_would_say(acts):
    """Buckets, weights and their sums are taken anew only when they have changed."""
    pool = Weights(DEFAULT_PRIOR)
    m, sibling = (started(pool=pool) for _ in range(2))
    for n, (act, size, taker) in enumerate(acts):
        now = at(20 * (n + 1))
        price = 100_000.0 * exp(0.03 * size)
        if act in ("mark", "jump"):
            m.mark(now, price)
        elif act == "trade":
            m.traded(now, price, 10.0, taker)
        elif act == "interest":
            m.open_interest(now, 1_000.0 * (1.0 + 0.1 * size))
        elif act == "print":
            m.liquidation(now, "long" if taker == "sell" else "short", 50_000.0, "all")
        # What another map of the asset learns changes what this one believes.
        sibling.mark(now, price)
        sibling.liquidation(now, "long", 50_000.0, "all")
        sibling.advance(now)
        m.advance(now)
        said = m.estimate(now)
        if n % 3:
            continue
        fresh = started(pool=pool)
        fresh.resume(m.state())
        again = fresh.estimate(now)
        assert (said.usd == again.usd).all()
        assert (said.variance == again.variance).all()


def test_maps_read_together_say_what_each_says_alone():
    inverse = started(spec=instrument("okx", "inverse"), price=100_400.0, interest=7e6)
    linear = [started(price=price) for price in (100_000.0, 99_910.0)]
    for m in (inverse, *linear):
        m.mark(at(30), m.mark_price * 0.99)
        m.mark(at(40), m.mark_price * 1.015)
    maps = [linear[0], inverse, linear[1]]
    for m, e in zip(maps, estimates(maps, at(3_600)), strict=True):
        alone = m.estimate(at(3_600))
        for name in ("usd", "variance", "systematic"):
            assert (getattr(e, name) == getattr(alone, name)).all(), name
        assert (e.name, e.first, e.mark) == (alone.name, alone.first, m.mark_price)
        assert e.usd.min() == 0.0 < e.usd.max()


def test_nobody_of_a_side_stands_beyond_the_mark():
    # An estimate takes no notice of what lies there.
    random = np.random.default_rng(5)
    m, price = started(), 100_000.0
    for n in range(1, 400):
        price *= exp(random.normal(0.0, 0.004))
        m.mark(at(20 * n), price)
        m.traded(at(20 * n), price * exp(random.normal(0.0, 0.01)), 5.0, "buy")
        m.open_interest(at(20 * n), 1_000.0 + 40.0 * random.random())
        here = bin_of(price)
        assert max(cells(m, 0)) <= here <= min(cells(m, 1))


def test_buckets_are_the_sums_of_their_bins_on_and_off_the_grid():
    cohorts = started().cohorts[0]
    middle = cohorts.origin + BINS // 2
    for first in (middle - 700, cohorts.origin - 300, cohorts.origin + BINS - 200):
        bins = cohorts.window(first, 100 * BUCKET).reshape(cohorts.rows, 100, BUCKET)
        buckets = cohorts.buckets(first, 100, BUCKET)
        assert buckets == pytest.approx(bins.sum(axis=2), rel=1e-14)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_fuel_at_one_distance_is_that_of_the_curve(direction):
    e = started(price=100_123.0).estimate(at(1))
    curve = fuel(e, direction)
    assert curve[200] > 0.0
    for k in (0, 7, 20, 200):
        assert fuel_within(e, direction, k * STEP) == pytest.approx(curve[k], rel=1e-9)
    # Off the map nothing is known to stand.
    assert fuel_between(e, direction, log(1e9), log(2e9)) == 0.0
    whole = fuel_between(e, direction, log(1.0), log(1e9))
    assert whole == pytest.approx(e.usd[0 if direction == "down" else 1].sum())


def test_burnt_fuel_is_not_kept():
    """A known mistake: what the mark has passed is gone, and does not come back with the price."""
    m = started()
    m.mark(at(1), 96_000.0)
    m.mark(at(2), 100_000.0)
    reached = bin_of(96_000.0)
    assert all(k < reached for k in cells(m))


def test_leverage_that_died_within_its_own_interval_is_not_inserted():
    """model.md E8: burnt fuel within the interval; the survivors hold what stands."""
    m = started()
    m.mark(at(30), 98_000.0)
    m.mark(at(31), 100_000.0)
    before = cells(m)
    opened(m, 100_000.0, 40.0)
    after = cells(m)
    new = {k: after[k] - before.get(k, 0.0) for k in after if after[k] != before.get(k, 0.0)}
    assert sum(new.values()) + m.cohorts[0].beyond.sum() > 0
    assert all(k < bin_of(98_000.0) for k in new)
    assert m.ledgers()[0].opened == m.ledgers()[1].opened == pytest.approx(1_040.0)


def test_only_the_mark_consumes_not_trades():
    """model.md E16: sweeping with the last price burns fuel that never liquidated."""
    m = started()
    before = cells(m)
    m.traded(at(1), 90_000.0, 100.0, "sell")
    m.advance(at(2))
    assert cells(m) == before
    assert m.ledgers()[0].consumed == 0.0


def test_consumption_never_adds_and_never_touches_what_was_not_reached():
    """A known mistake: consumption that adds mass; bucket width depending on the price."""
    m = started()
    before = cells(m)
    m.mark(at(1), 97_000.0)
    after = cells(m)
    reached = bin_of(97_000.0)
    assert after == {k: v for k, v in before.items() if k < reached}
    assert {round(log(price_of(k + 1) / price_of(k)), 12) for k in after} == {STEP}


def test_the_standing_split_is_the_declared_one_not_a_seed_split():
    """A known mistake: under decay a seed split stands as another. Ours declares what stands."""
    m = started(parameters=Parameters(turnover_per_h=0.05))
    rows = m.cohorts[0].by_row()[:-1] / 1_000.0
    assert rows == pytest.approx(np.array(DEFAULT_PRIOR.mix[0]), abs=1e-9)
    for minute in range(1, 600):
        m.traded(at(60 * minute), 100_000.0, 1.0, "buy")
        m.open_interest(at(60 * minute), 1_000.0)
    rows = m.cohorts[0].by_row()[:-1] / standing(m)[0]
    assert rows == pytest.approx(np.array(DEFAULT_PRIOR.mix[0]), abs=0.01)


def test_throttled_prints_are_a_lower_bound_and_are_corrected():
    """A known mistake: one print a second taken for the full tape."""
    full, throttled = started(), started()
    for m, completeness in ((full, "all"), (throttled, "sampled_1s")):
        m.mark(at(1), 97_000.0)
        for second in range(1, 10):
            m.liquidation(at(second), "long", 40_000.0, completeness)
        m.advance(at(61))
    assert throttled.weights.mean(0)[13] > 1.15 * full.weights.mean(0)[13]


def test_the_correction_is_learnt_from_a_complete_feed_throttled_in_software():
    correction = ThrottleCorrection()
    assert correction.factor(10) == PRIOR_FACTORS[-1]
    m = started(correction=correction)
    for second in range(6_000):
        for _ in range(3):
            m.liquidation(at(second), "short", 10_000.0, "all")
    assert correction.factor(10) == pytest.approx(3.0, rel=0.15)
    again = ThrottleCorrection()
    again.restore(correction.state())
    assert again.factor(10) == correction.factor(10)


def test_a_window_keeps_the_largest_print_of_each_second():
    window = Window()
    for second, usd in ((1, 5.0), (1, 7.0), (1, 0.0), (2, 1.0)):
        window.add(second, usd)
    assert (window.total, window.throttled, window.occupied) == (13.0, 8.0, 2)


def test_a_bybit_buy_is_a_long_and_calibrates_longs():
    """A known mistake: the side is the position's (the codec's duty; here it is not turned)."""
    m = started()
    m.mark(at(1), 97_000.0)
    m.liquidation(at(2), "long", 2e7, "all")
    start = m.weights.mean(1).copy()
    m.advance(at(61))
    assert m.weights.mean(0).max() > 0.6
    assert (m.weights.mean(1) == start).all()


def test_a_venue_that_prints_nothing_teaches_nothing():
    """A known mistake: missing data is not zero. Hyperliquid sends no liquidations."""
    m = started(spec=instrument("hyperliquid"))
    start = m.weights.mean(0).copy()
    m.mark(at(1), 90_000.0)
    m.advance(at(61))
    assert (m.weights.mean(0) == start).all()


def test_prints_missed_during_an_outage_do_not_lower_the_weights():
    m = started()
    m.liquidation(at(1), "long", 1_000.0, "all")
    m.advance(at(61))
    before = m.weights.mean(0).copy()
    m.mark(at(70), 90_000.0)
    m.lost(at(80))
    m.advance(at(121))
    assert (m.weights.mean(0) == before).all()


def test_what_the_mark_passed_unheard_teaches_nothing_though_it_is_swept_only_afterwards():
    m = started()
    m.liquidation(at(1), "long", 1_000.0, "all")
    m.advance(at(61))
    before, expected = m.weights.mean(0).copy(), m.expected_usd[0]
    m.lost(at(80))
    m.liquidation(at(119), "long", 1_000.0, "all")
    m.mark(at(120), 90_000.0)
    m.advance(at(181))
    assert m.ledgers()[0].consumed > 0.0
    assert (m.weights.mean(0) == before).all()
    assert m.expected_usd[0] == expected
    m.mark(at(190), 85_000.0)
    m.advance(at(241))
    assert m.weights.mean(0).sum() < before.sum(), "what is heard again teaches"


@pytest.mark.parametrize("completeness", ["partial", "tail_only"])
def test_prints_of_which_nobody_knows_how_much_they_show_teach_nothing(completeness):
    correction = ThrottleCorrection()
    m = started(correction=correction)
    start, factors = m.weights.mean(0).copy(), correction.state()
    m.liquidation(at(1), "long", 1e6, completeness)
    m.mark(at(2), 90_000.0)
    for second in range(3, 30):
        m.liquidation(at(second), "long", 1e6, completeness)
    m.advance(at(61))
    assert (m.weights.mean(0) == start).all()
    assert correction.state() == factors
    assert not m.prints


def test_a_large_fall_of_open_interest_is_not_netted():
    m = started()
    m.open_interest(at(5), 990.0)
    assert standing(m) == pytest.approx([990.0, 990.0])
    # A wiggle waits for the end of the interval, but is never published.
    m.open_interest(at(10), 989.0)
    assert standing(m) == pytest.approx([990.0, 990.0])
    m.weights._prints[:] = 1e9
    e = m.estimate(at(11))
    assert e.usd.sum(axis=1).max() <= e.open_interest_usd * 1.05


def test_a_sweep_teaches_with_its_prints_at_the_end_of_the_minute_on_all_venues_at_once():
    pool = Weights(DEFAULT_PRIOR)
    swept, quiet = started(pool=pool), started(pool=pool)
    for m in (swept, quiet):
        m.liquidation(at(1), "long", 1_000.0, "all")
    start = pool.mean(0).copy()
    swept.mark(at(10), 97_000.0)
    swept.open_interest(at(20), 970.0)
    assert swept.ledgers()[0].standing <= 970.0, "it is settled at once"
    swept.liquidation(at(30), "long", swept.expected_usd[0] + 2e7, "all")
    for m in (swept, quiet):
        m.advance(at(59))
    assert (pool.mean(0) == start).all(), "before the prints it would have been lowered"
    for m in (swept, quiet):
        m.advance(at(60))
    assert pool.mean(0).max() > start.max()
    assert pool.changes == 1


def test_unknown_is_not_an_empty_map():
    m = Map(instrument())
    assert m.snapshot(START) is None
    m.mark(START, 100_000.0)
    assert m.snapshot(START) is None
    assert pooled("BTC", []) is None
    assert m.ledgers() is None


def test_the_tier_of_the_distances_is_that_of_a_typical_position():
    """A known mistake: the tier of total open interest would put every level too near."""
    tiers = (Tier(0.0, 5e5, 0.005, 0.0, 100.0), Tier(5e5, None, 0.1, 47_500.0, 5.0))
    spec = msgspec.structs.replace(instrument(), tiers=tiers)
    m = started(spec=spec, interest=10_000.0)
    node = DEFAULT_PRIOR.leverage.index(10.0)
    wanted = distances(
        MarginTable(spec), "long", np.array([10.0]), price=1e5, position_usd=2e5
    )[0]  # fmt: skip
    assert m.cohorts[0].shift[node] == round(wanted / STEP)


# ------------------------------------------------------------------------------ the rest


def test_a_glitch_of_open_interest_is_refused_and_a_lasting_change_believed():
    m = started()
    before = cells(m)
    assert not m.open_interest(at(5), 100.0)
    assert m.open_interest(at(10), 1_001.0)
    assert not m.open_interest(at(15), 5_000.0)
    assert m.glitches == 2
    m.advance(at(16))
    assert cells(m) == before
    for second in range(20, 310, 5):
        m.open_interest(at(second), 5_000.0)
    assert not m.open_interest(at(310), 5_000.0)
    assert m.open_interest(at(330), 5_000.0)
    # Nobody opened anything: the map covers less of what is open, and says so.
    assert m.estimate(at(331)).coverage == pytest.approx(1_001.0 / 5_000.0, rel=0.01)


def test_a_large_hyperliquid_position_is_sold_by_a_fifth_and_the_rest_lies_deeper():
    spec = instrument("hyperliquid", rate=0.02)
    m = started(spec=spec)
    before = cells(m)
    reached = max(before)
    m.mark(at(1), price_of(reached) * 1.00001)
    after = cells(m)
    assert reached not in after
    left = sum(v - before.get(k, 0.0) for k, v in after.items())
    assert 0.3 * before[reached] < left < 0.8 * before[reached]
    m.mark(at(2), price_of(min(before) + 1))
    assert m.ledgers()[0].error < 1e-12


def test_a_warm_start_keeps_no_levels_that_the_candles_have_passed():
    candles = [
        Candle(START - (200 - i) * 300 * NS, 99_000.0, 101_000.0, 100_000.0) for i in range(199)
    ]
    candles.append(Candle(START, 95_000.0, 100_000.0, 100_000.0))
    m = started(candles=candles)
    assert m.estimate(START).heard == 0.0
    assert m.snapshot(START).provenance == "warm_start"
    assert standing(m) == pytest.approx([1_000.0, 1_000.0])
    near = {k: v for k, v in cells(m).items() if k >= bin_of(95_000.0)}
    # Only what was opened right now can stand above the low, a two-hundredth of it all.
    assert sum(near.values()) < 0.02 * 1_000.0


def test_what_is_heard_takes_over_from_the_warm_start():
    m = started(parameters=Parameters(turnover_per_h=1.0))
    for minute in range(1, 90):
        m.traded(at(60 * minute), 100_000.0, 1.0, "sell")
        m.open_interest(at(60 * minute), 1_000.0)
    snapshot = m.snapshot(at(60 * 90))
    assert snapshot.provenance == "heard"
    assert snapshot.heard > 0.7


def test_confidence_falls_when_the_feeds_are_stale():
    m = started()
    fresh, stale = m.snapshot(at(1)), m.snapshot(at(200))
    assert 0 < stale.confidence < fresh.confidence <= 1
    assert m.snapshot(at(4_000)).confidence == 0.0


def test_the_published_map_is_never_more_than_open_interest():
    m = started(pool=None)
    m.weights._prints[:] = 1e9
    e = m.estimate(START)
    assert e.usd[0].sum() <= e.open_interest_usd
    assert m.weights.mean(0).max() == Weights.HIGHEST


def test_weights_follow_what_prints_and_unswept_nodes_keep_the_prior():
    weights = Weights(DEFAULT_PRIOR)
    exposure = np.zeros(17)
    exposure[9] = 100.0
    for _ in range(200):
        weights.learn(0, exposure, 20.0, by=exposure)
    assert weights.mean(0)[9] == pytest.approx(0.2, abs=0.02)
    assert weights.mean(0)[3] == 0.55
    assert weights.mean(1)[9] == 0.55
    assert weights.variance(0)[9] < weights.variance(0)[3]


def test_what_is_printed_is_set_against_no_less_than_weighs_as_much_as_the_prior():
    least = Weights.STRENGTH * Weights.DISPERSION * 20_000.0
    assert print_ratio(2.0 * least, 3.0 * least, 20_000.0) == 1.5
    assert print_ratio(5_000.0, 0.99 * least, 20_000.0) is None, "a few prints say nothing"
    assert print_ratio(0.0, 0.0, 0.0) is None
    assert print_ratio(5_000.0, 2.0 * least, 20_000.0) == 2.0, "at least: the map expected far less"
    assert print_ratio(2.0 * least, 0.0, 20_000.0) == 0.0


def test_a_pool_of_an_asset_teaches_the_quiet_venue():
    pool = Weights(DEFAULT_PRIOR)
    loud, quiet = Weights(DEFAULT_PRIOR, parent=pool), Weights(DEFAULT_PRIOR, parent=pool)
    exposure = np.full(17, 50.0)
    for _ in range(50):
        loud.learn(0, exposure, 0.1 * exposure.sum(), by=exposure)
    assert quiet.mean(0)[4] == pytest.approx(0.1, abs=0.05)


def test_the_interval_is_that_of_a_gamma_variable():
    low, high = interval(np.array([100.0, 0.0]), np.array([10_000.0, 0.0]))
    # Shape 1: an exponential variable of mean 100.
    assert low[0] == pytest.approx(-100 * log(0.9), rel=0.01)
    assert high[0] == pytest.approx(-100 * log(0.1), rel=0.01)
    assert (low[1], high[1]) == (0.0, 0.0)


def test_bands_are_cumulative_and_split_buckets_in_proportion():
    m = started()
    snapshot = m.snapshot(at(1))
    for side in ("long_usd", "short_usd"):
        values = [getattr(band, side) for band in snapshot.at_risk]
        assert values == sorted(values)
        assert values[-1] <= sum(getattr(snapshot, side)) + 0.05
    edges = snapshot.first_price * np.exp(snapshot.log_step * np.arange(snapshot.n + 1))
    whole = [
        usd for usd, low in zip(snapshot.long_usd, edges[:-1], strict=True) if low >= 100_000 * 0.9
    ]
    band = snapshot.at_risk[5].long_usd
    assert sum(whole) <= band <= sum(whole) + max(snapshot.long_usd)


def test_pooling_adds_up_and_follows_each_venues_own_mark():
    one = started(spec=instrument("binance"))
    other = started(spec=instrument("bybit"), price=100_000.0 * exp(3 * BUCKET * STEP))
    estimates = [one.estimate(START), other.estimate(START)]
    both = published(pooled("BTC", estimates))
    single = [published(pooled("BTC", [e])) for e in estimates]
    assert both.venues == ["binance", "bybit"]
    total = sum(sum(s.long_usd) + sum(s.short_usd) for s in single)
    assert sum(both.long_usd) + sum(both.short_usd) == pytest.approx(total, rel=1e-6)
    by_price = published(pooled("BTC", estimates, by="price"))
    ours, theirs = np.array(both.long_usd), np.array(by_price.long_usd)
    assert not np.allclose(ours, theirs)


def test_an_inverse_map_counts_face_value_and_does_not_change_with_the_price():
    m = started(spec=instrument(kind="inverse"), interest=10.0)
    assert standing(m) == pytest.approx([1e6, 1e6])
    m.mark(at(1), 100_200.0)
    m.open_interest(at(60), 1e6 / 100_200.0)
    assert standing(m) == pytest.approx([1e6, 1e6], rel=1e-9)


# ------------------------------------------------------------------------ restart, determinism


def random_acts(seed, count=400):
    chance = np.random.Generator(np.random.PCG64(seed))
    names = ["mark", "mark", "trade", "trade", "interest", "print", "wait"]
    return [
        (names[int(chance.integers(len(names)))], float(chance.uniform(-1, 1)), "buy")
        for _ in range(count)
    ]


@pytest.mark.parametrize("venue", ["binance", "hyperliquid"])
def test_a_map_restored_in_the_middle_goes_on_exactly_as_before(venue):
    acts = random_acts(3)
    whole = started(spec=instrument(venue), parameters=Parameters())
    driven(whole, acts[:200])
    data = whole.state()
    resumed = Map(instrument(venue), parameters=Parameters())
    resumed.resume(data)
    assert resumed.state() == data
    for m in (whole, resumed):
        driven(m, acts[200:], start=3_000.0)
    assert resumed.state() == whole.state()
    assert resumed.snapshot(at(1e4)) == whole.snapshot(at(1e4))


def test_a_restored_map_goes_by_the_tiers_of_today():
    strict = instrument(rate=0.05)
    resumed, new = Map(strict), started(spec=strict)
    resumed.resume(started().state())
    opened(resumed, 100_000.0, 100.0)
    opened(new, 100_000.0, 100.0)
    shifts = [m.cohorts[0].shift.tolist() for m in (resumed, new)]
    assert shifts[0] == shifts[1] != started().cohorts[0].shift.tolist()
    assert resumed._mix[0] == pytest.approx(new._mix[0])


def test_a_coin_of_which_only_small_positions_may_be_leveraged_has_its_leverage_on_the_map():
    tiers = (Tier(0.0, 5e3, 0.01, 0.0, 50.0), Tier(5e3, None, 0.25, 1_200.0, 1.0))
    m = started(spec=msgspec.structs.replace(instrument(), tiers=tiers))
    assert (m.cohorts[0].shift[:14] > 0).all(), "up to 50x"
    assert (m.cohorts[0].shift[14:16] < 0).all(), "75x and 100x are not to be had"
    assert fuel_within(m.estimate(at(1)), "down", 0.05) > 0.0


def test_where_no_leverage_is_allowed_nothing_near_is_liquidated_and_all_numbers_are_finite():
    m = started(
        spec=msgspec.structs.replace(instrument(), tiers=(Tier(0.0, None, 0.25, 0.0, 1.0),))
    )
    opened(m, 100_000.0, 100.0)
    m.mark(at(61), 90_000.0)
    m.advance(at(121))
    assert standing(m) == pytest.approx([1_100.0, 1_100.0])
    assert cells(m) == cells(m, 1) == {}
    assert np.isfinite(m.snapshot(at(122)).long_usd).all()


def test_the_same_input_gives_the_same_map_to_the_bit():
    states = []
    for _ in range(2):
        m = started(parameters=Parameters())
        driven(m, random_acts(11))
        states.append((m.state(), msgspec.json.encode(m.snapshot(at(1e4)))))
    assert states[0] == states[1]


def test_a_corrupt_state_is_refused_with_a_reason_and_changes_nothing():
    m = started()
    data = m.state()
    for broken in (b"", data[:100], data[:-1] + bytes([data[-1] ^ 1]), b"\x00" * 50):
        fresh = Map(instrument())
        with pytest.raises(StateError, match="checksum"):
            fresh.resume(broken)
        assert fresh.snapshot(START) is None


def resealed(body):
    body = zlib.compress(body)
    return zlib.crc32(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("version", 0, "version 0"),
        ("instrument", "okx:BTC", "state of okx:BTC"),
        ("nodes", [1.0, 2.0], "nodes"),
        ("sides", [], "does not fit"),
        ("weights", [[[1.0]], [[1.0]]], "does not fit"),
        ("profile", "x", "another version"),
        ("numbers", {"mark_price": 0.0}, "with a mark price of 0.0"),
    ],
)
def test_a_state_of_something_else_is_refused_with_its_reason(key, value, reason):
    state = msgspec.msgpack.decode(zlib.decompress(started().state()[4:]))
    state[key] = state[key] | value if isinstance(value, dict) else value
    fresh = Map(instrument())
    with pytest.raises(StateError, match=reason):
        fresh.resume(resealed(msgspec.msgpack.encode(state)))
    assert fresh.cohorts is None
