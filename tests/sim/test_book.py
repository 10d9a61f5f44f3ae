import numpy as np
import pytest

from monitor.sim.book import depth_law
from monitor.sim.parameters import FIRST, SECOND


def test_a_buy_walks_the_asks_from_the_best_price_upwards(desk):
    bids, asks = desk.books.levels_of(0)
    lots = asks[0][1] + asks[1][1] + 5
    fill = desk.books.take(0, buy=True, lots=lots, limit=2**62)
    assert fill.lots == lots
    assert fill.parts == [asks[0], asks[1], (asks[2][0], 5)]
    assert fill.tick_lots == sum(tick * size for tick, size in fill.parts)
    assert desk.books.levels_of(0)[1][0] == (asks[2][0], asks[2][1] - 5)
    assert desk.books.levels_of(0)[0] == bids


def test_an_order_stops_at_its_limit(desk):
    bids, _ = desk.books.levels_of(0)
    fill = desk.books.take(0, buy=False, lots=10**9, limit=bids[3][0])
    assert fill.parts == bids[:4]


def test_what_is_available_is_what_an_order_gets(desk):
    bids, _ = desk.books.levels_of(0)
    reachable = desk.books.available(0, buy=False, limit=bids[50][0])
    assert reachable == sum(size for _, size in bids[:51])
    assert desk.books.take(0, buy=False, lots=10**12, limit=bids[50][0]).lots == reachable


def test_changes_applied_to_a_snapshot_give_the_book(desk):
    books = desk.books
    books.changes(0)
    mirror = [dict(side) for side in books.levels_of(0)]
    for buy, lots in ((True, 40_000), (False, 90_000), (True, 10)):
        books.take(0, buy=buy, lots=lots, limit=2**62 if buy else 0)
        books.requote(books.centre - 3.0, np.full(12, 0.7), 1.0)
        for side, changed in zip(mirror, books.changes(0), strict=True):
            side.update(changed)
            for tick in [t for t, size in side.items() if size == 0]:
                del side[tick]
        bids, asks = books.levels_of(0)
        assert mirror == [dict(bids), dict(asks)]
        assert max(mirror[0]) < min(mirror[1])


def test_depth_follows_the_power_law_of_the_first_market(desk):
    reaches = np.array([0.0025, 0.005, 0.01, 0.02])
    depth = [
        sum(desk.books.depth_usd(c, reach=u, bids=b) for c in range(12) for b in (True, False))
        for u in reaches.tolist()
    ]
    slope = np.polyfit(np.log(reaches), np.log(depth), 1)[0]
    assert slope == pytest.approx(1.16, abs=0.1)


def test_the_second_market_has_another_depth_law():
    first, second = depth_law(FIRST)[0], depth_law(SECOND)[0]
    assert second[50] == pytest.approx(0.5)
    assert first[50] < 0.46
    assert first[100] == pytest.approx(second[100])
    assert first[200] > 2.2


def test_stress_cancels_the_makers_but_not_the_value_buyers(desk):
    books = desk.books
    calm = [books.depth_usd(0, reach=u, bids=True) for u in (0.01, 0.1)]
    books.requote(books.centre.copy(), np.full(12, 0.2), 1e9)
    ratios = [
        books.depth_usd(0, reach=u, bids=True) / c for u, c in zip((0.01, 0.1), calm, strict=True)
    ]
    assert ratios[0] < 0.3
    assert ratios[1] > 0.4


def test_value_buyers_answer_a_displacement_without_showing_themselves(desk):
    books = desk.books
    anchor = books.centre.copy()
    books.centre -= 400.0
    thin = np.full(12, 0.05)
    books.requote(anchor, thin, 1e9)
    shown = books.levels_of(0)
    limit = shown[0][90][0]
    before = books.available(0, buy=False, limit=limit)
    books.hide(anchor, 30.0)
    assert books.levels_of(0) == shown
    after = books.available(0, buy=False, limit=limit)
    assert after > 1.5 * before
    assert books.available(0, buy=True, limit=shown[1][90][0]) == sum(n for _, n in shown[1][:91])
    assert books.take(0, buy=False, lots=10**12, limit=limit).lots == after


def test_displayed_depth_near_the_touch_falls_with_the_makers_whatever_the_displacement(desk):
    books = desk.books
    calm = books.depth_usd(0, reach=0.01, bids=True)
    anchor = books.centre.copy()
    books.centre -= 400.0
    books.requote(anchor, np.full(12, 0.05), 1e9)
    assert books.depth_usd(0, reach=0.01, bids=True) < 0.15 * calm
