"""The ladder book must equal a dictionary, whatever happens to it."""

import math
from decimal import Decimal
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from monitor.core.depth.book import Book

BIDS = [(100.0, 1.0), (99.9, 2.0), (99.5, 3.0)]
ASKS = [(100.1, 1.5), (100.4, 2.5)]


def synced(bids=BIDS, asks=ASKS, *, tick=0.1, depth=1000, maintained=False) -> Book:
    book = Book(tick)
    assert book.snapshot(bids, asks, depth=depth, maintained=maintained) is None
    return book


def contents(book: Book, side: int) -> dict[Decimal, float]:
    lines = [line.split() for line in book.text(9).splitlines()]
    return {Decimal(p): float(q) for letter, p, q in lines if letter == "ba"[side]}


def decimal_levels(side):
    price = st.integers(1, 3000).map(lambda n: n / 10)
    if side == "off":
        price = st.integers(1, 30000).map(lambda n: n / 100)
    return st.lists(st.tuples(price, st.sampled_from([0.0, 0.5, 1.0, 7.25])), max_size=12)


def test_an_empty_book_knows_nothing():
    book = Book(0.1)
    assert (book.state, book.best(), book.mid(), book.text(3)) == ("empty", (None, None), None, "")


def test_a_snapshot_makes_the_book_synced():
    book = synced()
    assert book.state == "synced"
    assert book.best() == (100.0, 100.1)
    assert book.levels(0) == [(1000, 1.0), (999, 2.0), (995, 3.0)]


def test_a_delta_sets_and_removes_levels():
    book = synced()
    assert book.delta([(100.0, 0.0), (99.8, 4.0)], [(100.05 + 0.05, 9.0)]) is None
    assert contents(book, 0) == {Decimal("99.9"): 2.0, Decimal("99.8"): 4.0, Decimal("99.5"): 3.0}
    assert contents(book, 1)[Decimal("100.1")] == 9.0


def test_removing_an_unknown_level_is_normal():
    book = synced()
    assert book.delta([(42.0, 0.0)], []) is None
    assert len(book.levels(0)) == 3


def test_levels_far_from_the_price_are_kept_exactly():
    book = synced([*BIDS, (1.0, 569.567)], [*ASKS, (90000.0, 3.0)])
    assert contents(book, 0)[Decimal(1)] == 569.567
    assert contents(book, 1)[Decimal(90000)] == 3.0
    book.delta([(1.0, 0.0)], [])
    assert Decimal(1) not in contents(book, 0)


def test_old_orders_off_the_tick_grid_are_levels_of_their_own():
    book = synced([*BIDS, (99.8765, 5.0)], ASKS)
    assert contents(book, 0)[Decimal("99.8765")] == 5.0
    assert contents(book, 0)[Decimal("99.9")] == 2.0
    book.delta([(99.8765, 0.0)], [])
    assert len(contents(book, 0)) == 3


@pytest.mark.parametrize(
    "level",
    [
        (math.nan, 1.0),
        (math.inf, 1.0),
        (99.0, math.nan),
        (99.0, math.inf),
        (99.0, -1.0),
        (-5.0, 1.0),
        (0.0, 1.0),
        (99.0, 1e18),
    ],
)
@pytest.mark.parametrize("maintained", [False, True])
def test_a_number_that_is_none_makes_the_book_stale(level, maintained):
    book = synced(maintained=maintained)
    assert book.delta([level], []) == "bad_number"
    assert book.state == "stale"
    assert book.mid() is None
    assert book.delta([(99.0, 1.0)], []) is None  # ignored until the next snapshot
    book.snapshot(BIDS, ASKS, depth=1000, maintained=maintained)
    assert (book.state, book.resyncs) == ("synced", 1)
    assert contents(book, 0) == {Decimal(100): 1.0, Decimal("99.9"): 2.0, Decimal("99.5"): 3.0}


def test_a_crossed_snapshot_is_refused():
    book = Book(0.1)
    assert book.snapshot([(101.0, 1.0)], [(100.0, 1.0)], depth=5, maintained=False) == "crossed"
    assert book.state == "syncing"


def test_a_book_that_crosses_is_found_out_at_the_next_check():
    book = synced()
    book.delta([(100.2, 1.0)], [])
    assert book.check() == "crossed"
    assert book.state == "stale"


def test_silence_makes_a_book_stale_and_speech_brings_it_back_unless_a_gap_came_between():
    book = synced()
    book.hush(silent=True)
    assert book.state == "stale"
    book.hush(silent=False)
    assert book.state == "synced"
    book.hush(silent=True)
    book.distrust()
    book.hush(silent=False)
    assert book.state == "stale"


def test_a_maintained_book_keeps_no_more_levels_than_the_venue_does():
    bids = [(100.0 - i / 10, 1.0) for i in range(5)]
    asks = [(100.1 + i / 10, 1.0) for i in range(5)]
    book = synced(bids, asks, depth=5, maintained=True)
    book.delta([(99.95 + 0.05, 2.0), (99.55 + 0.05, 9.0)], [(100.05 + 0.05, 1.0)])
    assert book.size() == (5, 5)
    book.delta([(100.0, 0.0), (99.5, 4.0)], [])
    assert list(contents(book, 0)) == [Decimal(p) for p in ("99.9", "99.8", "99.7", "99.6", "99.5")]
    book.delta([(100.0, 1.0)], [])
    assert Decimal("99.5") not in contents(book, 0)  # fell out: its later changes are not sent


def test_reach_is_where_a_full_snapshot_ends_and_none_where_the_venue_showed_everything():
    full = synced(BIDS, ASKS, depth=3)
    assert full.reach(0) == 99.5
    assert full.reach(1) is None
    maintained = synced(BIDS, ASKS, depth=3, maintained=True)
    maintained.delta([(99.7, 1.0)], [])
    assert maintained.reach(0) == 99.7


def test_depth_beyond_the_reach_is_a_lower_bound():
    book = synced([(100.0, 1.0), (99.0, 1.0)], [(101.0, 1.0)], depth=2)
    usd, known = book.notional_within(0, 100.5, np.array([0.005, 0.0125, 0.02, 0.5]))
    assert usd.tolist() == [100.0, 100.0, 199.0, 199.0]
    assert known.tolist() == [True, True, False, False]
    usd, known = book.notional_within(1, 100.5, np.array([0.001, 0.02, 0.5]))
    assert usd.tolist() == [0.0, 101.0, 101.0]
    assert known.tolist() == [True, True, True]


def test_the_ladder_follows_the_price_without_losing_a_level():
    book = synced([(100.0, 1.0), (50.0, 2.0)], [(100.1, 1.0)], tick=0.001)
    before = (contents(book, 0), contents(book, 1))
    book.delta([(100.0, 0.0)], [(100.1, 0.0), (400.0, 3.0)])
    book.delta([(399.0, 4.0)], [])
    book.check()
    assert book.best() == (399.0, 400.0)
    assert contents(book, 0) == {Decimal(399): 4.0, Decimal(50): before[0][Decimal(50)]}
    usd, _ = book.notional_within(0, 399.5, np.array([0.9]))
    assert usd[0] == pytest.approx(399 * 4 + 50 * 2)


def test_the_text_is_what_the_checksum_is_made_of():
    book = synced([(100.0, 1.5), (99.90, 0.120)], [(100.1, 3.0)])
    text = "b 100 1.5\nb 99.9 0.12\na 100.1 3"
    assert book.text(3) == text
    assert book.checksum(3) == sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("tick", [0.1, 0.5, 0.25, 0.01, 1e-5, 1e-7, 1.0, 5.0])
@settings(max_examples=25)
@given(ticks=st.lists(st.integers(1, 2_000_000), min_size=1, max_size=30, unique=True))
def test_prices_survive_the_ladder_digit_for_digit(tick, ticks):
    prices = [Decimal(repr(tick)) * n for n in ticks]
    book = synced([(float(p), 1.0) for p in sorted(prices, reverse=True)], [], tick=tick)
    assert list(contents(book, 0)) == sorted(prices, reverse=True)


def test_the_ends_of_a_side_are_found_however_far_they_move():
    levels = {900.0, 980.0, 999.9}
    book = synced([(price, 1.0) for price in sorted(levels, reverse=True)], [(1000.1, 1.0)])
    for price, quantity in (
        (999.9, 0.0), (999.5, 2.0), (999.5, 0.0), (980.0, 0.0), (1000.0, 1.0), (1000.0, 0.0),
        (900.0, 0.0), (950.0, 1.0), (999.9, 0.0),
    ):  # fmt: skip
        assert book.delta([(price, quantity)], []) is None
        levels = levels | {price} if quantity else levels - {price}
        assert book.best()[0] == max(levels, default=None)
        assert [tick / 10 for tick, _ in book.levels(0)] == sorted(levels, reverse=True)


def test_a_window_that_the_venue_keeps_reaches_to_its_worst_level_after_every_delta():
    bids = [(1000.0 - i, 1.0) for i in range(5)]
    book = synced(bids, [(1000.1, 1.0)], depth=5, maintained=True)
    assert book.reach(0) == 996.0
    book.delta([(996.0, 0.0), (999.5, 1.0)], [])
    assert book.reach(0) == 997.0
    book.delta([(800.0, 1.0), (998.0, 0.0)], [])
    assert book.reach(0) == 800.0


class BookAgainstDictionary(RuleBasedStateMachine):
    """Random snapshots, deltas, gaps and checks; the dictionary says what is true."""

    def __init__(self):
        super().__init__()
        self.book = Book(0.1)
        self.truth = ({}, {})
        self.trusted = False

    def _take(self, side, levels):
        for price, quantity in levels:
            if quantity:
                self.truth[side][Decimal(repr(price))] = quantity
            else:
                self.truth[side].pop(Decimal(repr(price)), None)

    @rule(bids=decimal_levels(0), asks=decimal_levels("off"), maintained=st.booleans())
    def snapshot(self, bids, asks, maintained):
        bids = sorted(dict(bids).items(), reverse=True)
        asks = sorted((p + 300, q) for p, q in dict(asks).items())
        self.truth = ({}, {})
        self._take(0, bids)
        self._take(1, [(float(f"{p:.2f}"), q) for p, q in asks])
        asks = [(float(f"{p:.2f}"), q) for p, q in asks]
        assert self.book.snapshot(bids, asks, depth=1000, maintained=maintained) is None
        self.trusted = True

    @rule(bids=decimal_levels(0), asks=decimal_levels("off"))
    def delta(self, bids, asks):
        asks = [(float(f"{p + 300:.2f}"), q) for p, q in asks]
        assert self.book.delta(bids, asks) is None
        if self.trusted:
            self._take(0, bids)
            self._take(1, asks)

    @rule()
    def gap(self):
        self.book.distrust()
        self.trusted = False

    @rule()
    def check(self):
        assert self.book.check() is None

    @invariant()
    def equals(self):
        assert (self.book.state == "synced") == self.trusted
        if self.trusted:
            for side in (0, 1):
                assert contents(self.book, side) == self.truth[side]
                assert len(self.book.levels(side)) == len(self.truth[side])
            bids, asks = self.truth
            best = self.book.best()
            assert best[0] == (float(max(bids)) if bids else None)
            assert best[1] == (float(min(asks)) if asks else None)


TestBookAgainstDictionary = BookAgainstDictionary.TestCase
TestBookAgainstDictionary.settings = settings(max_examples=40, stateful_step_count=15)


@given(
    levels=st.lists(
        st.tuples(st.integers(1, 4000).map(lambda n: n / 10), st.floats(0.001, 50)),
        min_size=1,
        max_size=40,
        unique_by=lambda level: level[0],
    ),
    distances=st.lists(st.floats(0.0001, 0.9), min_size=1, max_size=5),
)
def test_depth_equals_a_sum_over_the_levels(levels, distances):
    bids = [(p, q) for p, q in sorted(levels, reverse=True) if p <= 200]
    asks = [(p, q) for p, q in sorted(levels) if p > 200]
    book = synced(bids, asks)
    for side, side_levels in enumerate((bids, asks)):
        usd, _ = book.notional_within(side, 200.05, np.array(distances))
        for distance, got in zip(distances, usd, strict=True):
            limit = 200.05 * (1 + (-distance, distance)[side])
            inside = [p * q for p, q in side_levels if (p >= limit if side == 0 else p <= limit)]
            assert got == pytest.approx(sum(inside), rel=1e-9, abs=1e-6)
