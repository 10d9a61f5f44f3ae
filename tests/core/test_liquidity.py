"""A depth curve is what rests, proven and continued; a flow is what came or went, nothing else."""

from math import exp, log

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.cascade.curves import DISTANCES, POINTS
from monitor.core.depth.book import Book
from monitor.core.depth.liquidity import HOLD_NS, VERSION, Liquidity, LiquidityState
from monitor.core.depth.supply import KAPPA, Curve, pooled
from monitor.core.depth.usual import UsualState
from monitor.core.saved import StateError
from monitor.events import NS

START = 1_767_225_600 * NS
MID = 1000.0
SIDES = ("long", "short")


def second(n):
    return START + round(n * NS)


def laid(levels, *, depth=100_000, maintained=False):
    """A book around `MID` from (log distance, USD), the same on both sides."""
    bids = [(MID * exp(-u), usd / (MID * exp(-u))) for u, usd in levels]
    asks = [(MID * exp(u), usd / (MID * exp(u))) for u, usd in levels]
    book = Book(0.01)
    assert book.snapshot(bids, asks, depth=depth, maintained=maintained) is None
    return book


def even(count=200, usd=100.0, step=0.0001):
    """Levels in the middle of their step, so that no rounding moves one over a point."""
    return laid([((i + 0.5) * step, usd) for i in range(count)])


def observed(book, seconds=1, *, at=0, liquidity=None, mid=MID, sold=0.0, bought=0.0):
    """A liquidity that has read `book` once a second, from `at` on."""
    liquidity = liquidity or Liquidity()
    for i in range(seconds):
        liquidity.observe(second(at + i), book, mid, sold_usd=sold, bought_usd=bought)
    return liquidity


def usd_of(liquidity, side="long", *, at=0):
    curve = liquidity.curve(second(at), side)
    assert curve is not None
    return curve.usd


# ----------------------------------------------------------------------------------- curve


def test_a_curve_is_the_sum_of_what_rests_within_each_distance():
    book = Book(0.01)
    bids = [(999.0, 2.0), (998.5, 1.0), (990.0, 3.0), (800.0, 5.0), (600.0, 9.0)]
    book.snapshot(bids, [(1001.0, 1.0)], depth=1000, maintained=False)
    curve = observed(book).curve(START, "long")
    for i in (1, 2, 3, 4, 20, 21, 446, 447, 600):
        inside = sum(p * q for p, q in bids if log(MID / p) <= DISTANCES[i])
        assert curve.usd[i] == pytest.approx(inside)
    assert curve.usd[0] == 0.0
    assert curve.usd.shape == (POINTS,)


def test_a_mirrored_book_gives_a_mirrored_curve():
    liquidity = observed(laid([(0.00013, 50.0), (0.0031, 700.0), (0.0522, 9.0), (0.2103, 1e4)]), 3)
    assert usd_of(liquidity, "long", at=2) == pytest.approx(usd_of(liquidity, "short", at=2))


@pytest.mark.parametrize("kappa", [0.8, 1.16, 1.4])
def test_beyond_the_book_depth_goes_on_as_the_power_law_it_followed(kappa):
    edges = np.arange(401) * 0.00005
    usd = np.diff(1e9 * edges**kappa)
    book = laid(list(zip(edges[1:] - 1e-6, usd.tolist(), strict=True)), depth=400)
    curve = observed(book).curve(START, "short")
    assert curve.reach == pytest.approx(0.02, abs=1e-4)
    assert curve.kappa == pytest.approx(kappa, abs=0.06)  # a little shrunk
    assert curve.usd[400] / curve.usd[100] == pytest.approx(4**curve.kappa)
    # The largest levels are capped at the 99th percentile: a little is missing.
    assert curve.usd[100] == pytest.approx(1e9 * 0.05**kappa, rel=0.1)


def test_the_exponent_of_one_reading_is_averaged_with_those_of_the_minute():
    liquidity = observed(laid([((i + 0.5) * 0.0001, 100.0) for i in range(200)], depth=200), 30)
    before = liquidity.curve(second(29), "long").kappa
    bulge = laid([((i + 0.5) * 0.0001, 1.0 + 9 * i) for i in range(200)], depth=200)
    alone = observed(bulge).curve(START, "long").kappa
    observed(bulge, at=30, liquidity=liquidity)
    after = liquidity.curve(second(30), "long").kappa
    assert alone > before + 0.3
    assert before < after < before + (alone - before) / 10


def test_a_book_that_shows_too_little_continues_with_the_usual_exponent():
    curve = observed(laid([(0.00004, 10.0), (0.00012, 10.0)], depth=2)).curve(START, "long")
    assert curve.kappa == KAPPA
    assert curve.reach == pytest.approx(0.00012, rel=1e-3)
    assert curve.usd[100] == pytest.approx(20.0 * (0.05 / 0.00012) ** KAPPA, rel=1e-3)


def test_what_is_displayed_beyond_the_reach_is_never_lost_to_the_continuation():
    book = laid([(0.00004, 1.0), (0.00012, 1.0)], depth=2)
    book.delta([(800.0, 1e9)], [])
    assert usd_of(observed(book))[-1] > 800.0 * 1e9 * 0.999


def test_where_the_price_has_left_the_snapshot_depth_is_a_lower_bound_until_it_is_learned():
    book = laid([(0.0001, 100.0), (0.0004, 100.0)], depth=2)
    # The price falls 2 %: every level that stands there now was sent as a change.
    book.delta([(MID * exp(-0.0001), 0.0), (MID * exp(-0.0004), 0.0), (979.0, 5.0), (975.0, 5.0)],
               [(981.0, 5.0)])  # fmt: skip
    liquidity = observed(book, mid=980.0)
    curve = liquidity.curve(START, "long")
    assert curve.reach == 0.0
    assert curve.usd[20] >= 979.0 * 5
    for minute in range(1, 7):
        observed(book, 2, at=60 * minute, liquidity=liquidity, mid=980.0)
    assert liquidity.curve(second(361), "long").reach == pytest.approx(0.005)


# ---------------------------------------------------------------------------- de-spoofing


def test_a_level_that_stands_for_two_seconds_is_mostly_ignored_and_then_counts():
    book = even()
    liquidity = observed(book, 15)
    before = usd_of(liquidity, at=14)[20]
    price = 995.0
    book.delta([(price, 4.0 * before / price)], [])
    book.delta([(price + i * 0.01, before / 50 / price) for i in range(1, 50)], [])
    observed(book, 2, at=15, liquidity=liquidity)
    added = usd_of(liquidity, at=16)[20] - before
    assert 0.0 < added < 0.3 * before
    observed(book, 12, at=17, liquidity=liquidity)
    assert usd_of(liquidity, at=28)[20] - before > 0.9 * before


def test_one_huge_level_counts_no_more_than_the_largest_hundredth():
    book = even(count=200, usd=100.0)
    book.delta([(990.0, 1e6)], [])
    assert usd_of(observed(book))[-1] == pytest.approx(201 * 100.0, rel=0.02)


def test_after_a_jump_the_book_is_thin_and_not_gone():
    liquidity = observed(even(), 15)
    moved = laid([(0.1 + (i + 0.5) * 0.0001, 100.0) for i in range(200)])
    observed(moved, at=15, liquidity=liquidity)
    assert 0.0 < usd_of(liquidity, at=15)[-1] < 0.2 * 20_000


# ----------------------------------------------------------------------------------- flow


@given(st.lists(st.floats(-0.004, 0.004), min_size=15, max_size=30))
@settings(max_examples=30, deadline=None)
def test_a_moving_mid_alone_is_no_flow(path):
    book = laid([(0.0045 + i * 0.00013, 100.0 + i) for i in range(400)], depth=400)
    liquidity = Liquidity()
    for i, move in enumerate(path):
        mid = MID * exp(move)
        liquidity.observe(second(i), book, mid, sold_usd=0.0, bought_usd=0.0)
    for side in SIDES:
        assert (liquidity.refill(side), liquidity.cancels(side)) == (0.0, 0.0)


def test_a_leap_of_the_mid_alone_is_no_flow():
    book = laid([(0.03 + i * 0.00013, 100.0 + i) for i in range(400)], depth=400)
    liquidity = Liquidity()
    for i in range(15):
        mid = MID * exp((-0.028, 0.028)[i % 2])
        liquidity.observe(second(i), book, mid, sold_usd=0.0, bought_usd=0.0)
    for side in SIDES:
        assert (liquidity.refill(side), liquidity.cancels(side)) == (0.0, 0.0)


def test_a_window_of_levels_that_follows_the_price_is_no_flow():
    liquidity = Liquidity()
    for i in range(20):
        # The venue shows 0.8 % from wherever the touch is; all of that stood there before.
        bids = [(900.0 + (i + k) * 0.5, 1.0) for k in range(15)][::-1]
        book = Book(0.5)
        book.snapshot(bids, [(990.0, 1.0)], depth=15, maintained=True)
        liquidity.observe(second(i), book, bids[0][0] + 0.25, sold_usd=0.0, bought_usd=0.0)
    added = liquidity.refill("long")
    # One new best bid of one unit each second: what really came.
    assert 907.0 < added < 917.0
    assert liquidity.cancels("long") == 0.0


def test_what_takers_took_was_not_cancelled_and_what_came_back_was_added():
    book = even()
    price, quantity = MID * exp(-0.00005), 100.0 / (MID * exp(-0.00005))
    liquidity = observed(book)
    for i in range(1, 21):
        left = quantity * (1.0 - i / 25)
        book.delta([(price, left)], [])
        observed(book, at=i, liquidity=liquidity, sold=4.0)
    assert liquidity.refill("long") == pytest.approx(0.0, abs=1e-6)
    assert liquidity.cancels("long") == pytest.approx(0.0, abs=1e-6)
    for i in range(21, 41):
        book.delta([], [(1200.0, i)])  # somewhere far away the book shows that it is alive
        observed(book, at=i, liquidity=liquidity, sold=4.0)
    assert liquidity.refill("long") == pytest.approx(2.0)  # 4 USD/s in the second half
    assert liquidity.refill("short") == 0.0


def test_what_disappears_without_a_trade_was_cancelled():
    book = even()
    liquidity = observed(book)
    for i in range(20):
        book.delta([(MID * exp(-(i + 0.5) * 0.0001), 0.0)], [])
        observed(book, at=i + 1, liquidity=liquidity)
    assert liquidity.cancels("long") == pytest.approx(100.0)
    assert liquidity.refill("long") == pytest.approx(-100.0)
    assert liquidity.cancels("short") == 0.0


def test_flow_is_unknown_until_ten_seconds_have_been_measured_and_not_across_a_gap():
    book = even()
    liquidity = observed(book, 10)
    assert liquidity.refill("long") is None
    book.distrust()
    observed(book, at=10, liquidity=liquidity)
    observed(even(usd=900.0), 12, at=11, liquidity=liquidity)
    assert liquidity.refill("long") == 0.0


# --------------------------------------------------------------------------- belief and age


def test_a_lost_book_leaves_half_its_curve_for_a_while_and_then_nothing():
    book = even()
    liquidity = Liquidity()
    assert liquidity.curve(START, "long") is None
    observed(book, liquidity=liquidity)
    whole = liquidity.curve(START, "long")
    assert not whole.stale
    book.distrust()
    liquidity.observe(second(1), book, book.mid(), sold_usd=0.0, bought_usd=0.0)
    held = liquidity.curve(second(3), "long")
    assert held.stale
    assert held.age_s == 3.0
    assert held.usd == pytest.approx(whole.usd / 2)
    assert (liquidity.depth("long"), liquidity.ratio("long")) == (None, None)
    assert (liquidity.refill("long"), liquidity.gap("long")) == (None, None)
    assert liquidity.curve(START + HOLD_NS, "long") is not None
    assert liquidity.curve(START + HOLD_NS + 1, "long") is None


def test_a_liquidity_nobody_updates_is_stale_too():
    liquidity = observed(even())
    assert not liquidity.curve(second(5), "long").stale
    assert liquidity.curve(second(6), "long").stale


def test_a_book_that_never_changes_while_trades_go_on_is_not_believed():
    book = even()
    liquidity = observed(book, 30)
    assert not liquidity.curve(second(29), "long").stale  # nobody traded: it may well stand still
    observed(book, 15, at=30, liquidity=liquidity, sold=50.0)
    assert liquidity.curve(second(44), "long").stale
    observed(book, 60, at=45, liquidity=liquidity, sold=50.0)
    assert liquidity.curve(second(104), "long") is None
    book.delta([(999.0, 7.0)], [])
    observed(book, at=105, liquidity=liquidity)
    assert not liquidity.curve(second(105), "long").stale


# ---------------------------------------------------------------------- norm, gap, slippage


def test_depth_is_compared_with_what_is_usual_at_this_hour():
    liquidity = Liquidity()
    full, thin = even(), even(usd=25.0)
    for minute in range(60):
        observed(full, at=60 * minute, liquidity=liquidity)
        assert liquidity.ratio("long") is None
    observed(full, at=3600, liquidity=liquidity)
    assert liquidity.ratio("long") == pytest.approx(1.0)
    for day in range(1, 8):
        for minute in range(60):
            observed(thin, at=86_400 * day + 60 * minute + 3600, liquidity=liquidity)
    week = 7 * 86_400
    observed(full, at=week + 7200 + 3600, liquidity=liquidity)
    # The norm of an hour not heard is that of all hours: seven thin ones, the full one forgotten.
    assert liquidity.ratio("short") == pytest.approx(4.0)


def test_a_gap_is_the_share_of_steps_without_a_quote():
    assert observed(even()).gap("long") == 0.0
    half = laid([(0.0005 * i + 0.0002, 10.0) for i in range(0, 40, 2)])
    assert observed(half).gap("long") == pytest.approx(0.5)
    coarse = Book(2.0)
    coarse.snapshot([(MID - 2 * i - 1, 1.0) for i in range(50)], [(1001.0, 1.0)],
                    depth=99, maintained=False)  # fmt: skip
    assert observed(coarse).gap("long") == 0.0  # every tick is quoted, though few steps are


def test_slippage_is_where_the_curve_reaches_the_amount():
    liquidity = observed(even(count=200, usd=100.0))
    assert liquidity.slippage(START, "long", 10_000.0) == pytest.approx(1 - exp(-0.01))
    assert liquidity.slippage(START, "short", 10_000.0) == pytest.approx(exp(0.01) - 1)
    assert liquidity.slippage(START, "short", 1e12) == pytest.approx(exp(0.3) - 1)
    assert Liquidity().slippage(START, "long", 1.0) is None


# ------------------------------------------------------------------------------ robustness


LEVELS = st.lists(
    st.tuples(st.floats(1e-6, 0.5), st.sampled_from([1e-9, 0.3, 50.0, 1e12])),
    min_size=1, max_size=30,
)  # fmt: skip
MOVES = st.sampled_from([0.0, 1e-5, 0.001, -0.02, 0.06, -0.5, 2.0])
ACTS = st.tuples(LEVELS, MOVES, st.booleans(), st.integers(1, 9), st.floats(0.0, 1e9))


@given(st.lists(ACTS, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_whatever_is_heard_every_figure_is_a_number_or_unknown(acts):
    liquidity, level, at = Liquidity(), 1000.0, 0.0
    for levels, move, good, wait, traded in acts:
        level *= exp(move)
        at += wait
        bids = sorted({level * exp(-u): q for u, q in levels}.items(), reverse=True)
        asks = sorted({level * exp(u): q for u, q in levels}.items())
        book = Book(0.01)
        book.snapshot(bids, asks, depth=len(bids) + good, maintained=wait % 2 == 0)
        if not good and traded > 5e8:
            book.distrust()
        mid = book.mid()
        liquidity.observe(second(at), book, mid, sold_usd=traded, bought_usd=0.0)
        for side in SIDES:
            curve = liquidity.curve(second(at), side)
            if curve is not None:
                assert np.isfinite(curve.usd).all()
                assert (np.diff(curve.usd) >= 0.0).all()
                assert curve.usd[0] == 0.0
                assert curve.usd[-1] > 0.0
                assert 0.6 <= curve.kappa <= 2.0
            figures = [getattr(liquidity, name)(side) for name in ("refill", "cancels", "gap")]
            figures += [liquidity.ratio(side), liquidity.slippage(second(at), side, 1e5)]
            assert all(figure is None or np.isfinite(figure) for figure in figures)


def test_what_is_usual_survives_a_restart():
    liquidity = Liquidity()
    for minute in range(61):
        observed(even(), at=60 * minute, liquidity=liquidity)
    data = msgspec.msgpack.encode(liquidity.state())
    other = Liquidity()
    other.restore(msgspec.msgpack.decode(data, type=LiquidityState))
    assert other.state() == liquidity.state()
    observed(even(usd=50.0), at=3700, liquidity=other)
    assert other.ratio("long") == pytest.approx(0.5)


GOOD = UsualState([(490_896, 5.0)], 490_897, [4.0], 60, 29_453_820)


@pytest.mark.parametrize(
    "state",
    [
        LiquidityState(VERSION + 1, [GOOD, GOOD]),
        LiquidityState(VERSION, [GOOD]),
        LiquidityState(VERSION, [GOOD, msgspec.structs.replace(GOOD, samples=[float("nan")])]),
        LiquidityState(VERSION, [GOOD, msgspec.structs.replace(GOOD, medians=[(1, -2.0)])]),
        LiquidityState(VERSION, [GOOD, msgspec.structs.replace(GOOD, samples=[1.0] * 61)]),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(state):
    liquidity = Liquidity()
    before = liquidity.state()
    with pytest.raises(StateError):
        liquidity.restore(state)
    assert liquidity.state() == before


# ------------------------------------------------------------------------------------ pool


def test_a_pool_adds_up_by_distance_and_is_only_as_good_as_its_worst():
    one = Curve(DISTANCES * 1e6, 0.02, 1.0, 0.5, stale=False)
    two = Curve(DISTANCES * 3e6, 0.01, 1.4, 7.0, stale=True)
    pool = pooled([one, two])
    assert pool.usd == pytest.approx(DISTANCES * 4e6)
    assert (pool.reach, pool.age_s, pool.stale) == (0.01, 7.0, True)
    assert pool.kappa == pytest.approx(1.3)
    assert pooled([]) is None
    assert one.usd[-1] == pytest.approx(3e5)  # the pool is a copy
