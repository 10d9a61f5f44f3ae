"""When today's positions came, out of past open interest; and where the map then has them."""

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from monitor.core.engine import Engine
from monitor.core.heatmap.arrivals import arrivals
from monitor.core.heatmap.grid import bin_of, mirrored
from monitor.core.heatmap.map import Parameters
from monitor.core.heatmap.pooling import published
from monitor.events import (
    NS,
    Candle,
    Candles,
    InterestHistory,
    Listed,
    MarkPrice,
    OpenInterest,
)
from tests.builders import engine_config
from tests.core.test_heatmap import START, cells, instrument, standing, started

STEP_NS = 300 * NS
PRICE = 100_000.0
NAME = instrument().name


def when(ago):
    """The end of the period so many periods before now."""
    return START - ago * STEP_NS


def flat(count, price=PRICE):
    return [
        Candle(when(ago), price * 0.999, price * 1.001, price) for ago in reversed(range(count))
    ]


def readings(*values):
    return [(when(len(values) - 1 - i), value) for i, value in enumerate(values)]


def shares(*values, candles=None, inverse=False):
    return arrivals(readings(*values), candles or flat(10), inverse=inverse).tolist()


# ------------------------------------------------------------------------------- the shares


def test_an_increase_came_in_the_candle_that_ended_with_it():
    assert shares(800, 800, 800, 1_000, 1_000) == pytest.approx([0] * 8 + [0.2, 0])


def test_a_later_fall_takes_its_share_of_those_who_came_before():
    # Of 200 that came a tenth left with everybody else: 180 of 900 are there.
    assert shares(800, 800, 1_000, 1_000, 900, 900) == pytest.approx([0] * 6 + [0.2, 0, 0, 0])
    # A fifth of the first 200 left, and the second came in their place.
    twice = shares(800, 800, 1_000, 1_000, 800, 800, 1_000, 1_000)
    assert twice == pytest.approx([0] * 4 + [0.16, 0, 0, 0, 0.2, 0])


def test_one_reading_that_its_neighbours_contradict_is_no_crowd():
    assert shares(1_000, 1_000, 1_800, 1_000, 1_000) == [0] * 10
    assert shares(1_000, 1_000, 10, 1_000, 1_000) == [0] * 10


def test_an_inverse_contract_counts_dollars_so_that_a_fallen_price_is_no_crowd():
    halved = flat(10)[:5] + [Candle(c.at, 49_000.0, 51_000.0, 50_000.0) for c in flat(10)[5:]]
    base = (1.0,) * 5 + (2.0,) * 5
    assert shares(*base, candles=halved, inverse=True) == pytest.approx([0] * 10)
    assert sum(shares(*base, candles=halved)) == pytest.approx(0.5)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(0.0, 1e6), max_size=30), st.integers(0, 12), st.integers(0, 2))
@example([1.0, 1e6, 1e6, 2.3e-308, 2.3e-308, 2.3e-308], 12, 0)
def test_shares_are_never_negative_nor_more_than_all(values, count, shift):
    rows = [(at + shift * 97 * NS, base) for at, base in readings(*values)]
    found = arrivals(rows, flat(count), inverse=False)
    assert found.shape == (count,)
    assert (found >= 0).all()
    assert found.sum() <= 1 + 1e-9


# ----------------------------------------------------------------------------------- the map


def lately():
    """Two days at today's price, a fall of 5 % two hours ago and back, then an hour of calm."""
    before = flat(576)
    low, back = 0.95 * PRICE, 1.05 * PRICE
    before[-24] = Candle(before[-24].at, low, PRICE, PRICE)
    before[-23] = Candle(before[-23].at, PRICE, back, PRICE)
    return before


def crowd(share=0.2, over=12):
    """Open interest of a day at 1000, of which `share` came evenly in the last `over` periods."""
    ramp = [1_000 * (1 - share * (1 - i / over)) for i in range(1, over + 1)]
    return readings(*[1_000 * (1 - share)] * (288 - over), *ramp)


def near(m, side, reach=0.03):
    """Standing quantity within `reach` of the price."""
    mine = m.cohorts[side]
    count = round(reach / 0.0005)
    middle = mine.origin + mine.cells.shape[1] // 2
    return float(mine.window(middle - count, count).sum())


def test_a_crowd_of_the_last_hour_is_on_both_sides_although_the_price_had_passed_there():
    without, seen = started(candles=lately()), started_with(lately(), crowd())
    for side in (0, 1):
        assert near(without, side) < 0.02 * 1_000
        # A fifth came, and of new positions a sixth stands within 3 %.
        assert near(seen, side) > 2.5 * near(without, side)
        assert near(seen, side) > 0.1 * 200
    assert standing(seen) == pytest.approx([1_000.0, 1_000.0])
    assert seen.estimate(START).coverage == pytest.approx(1.0)
    assert max(ledger.error for ledger in seen.ledgers()) < 1e-12


def started_with(candles, interests, **kwargs):
    m = started(**kwargs)
    m.history(candles, interests)
    return m


def test_what_the_price_passed_after_the_crowd_came_is_burnt():
    came_before = readings(*[800.0] * 200, *[1_000.0] * 60)
    burnt, seen = started_with(lately(), came_before), started_with(lately(), crowd())
    assert near(burnt, 0) < 0.6 * near(seen, 0)


def test_a_fall_of_open_interest_removes_the_older_mass():
    # A crowd came at 130k; in one past half of all then left, and others came at today's price.
    candles = [Candle(c.at, 129_000.0, 131_000.0, 130_000.0) for c in flat(200)[:100]] + flat(100)
    stayed = readings(*[600.0] * 50, *[1_000.0] * 150)
    left = readings(*[600.0] * 50, *[1_000.0] * 70, *[500.0] * 40, *[1_000.0] * 40)

    def old(m):
        """Shorts of 10x and more that entered at 130k."""
        mine = m.cohorts[1]
        return float(mine.cells[6:-1, : mirrored(bin_of(125_000.0)) - mine.origin].sum())

    one, other = (started_with(candles, rows) for rows in (stayed, left))
    assert standing(other) == pytest.approx(standing(one))
    assert old(other) == pytest.approx(0.5 * old(one), rel=0.01)


@pytest.mark.parametrize("interests", [[], readings(1_000), readings(*[1_000] * 288)])
def test_without_anybody_who_came_lately_nothing_changes(interests):
    parameters = Parameters()
    old = started(candles=lately(), parameters=parameters)
    new = started_with(lately(), interests, parameters=parameters)
    assert new.state() == old.state()


def test_the_scale_of_the_history_is_not_that_of_the_reading():
    doubled = [(at, 2 * base) for at, base in crowd()]
    assert cells(started_with(lately(), doubled)) == pytest.approx(
        cells(started_with(lately(), crowd()))
    )


# -------------------------------------------------------------------------------- the engine


def told(*events):
    engine = Engine(engine_config())
    engine.process(START, Listed(instrument()))
    engine.process(START, MarkPrice(NAME, START, PRICE, PRICE))
    engine.process(START, OpenInterest(NAME, START, 1_000.0, None))
    for event in events:
        engine.process(START, event)
    return engine.instruments[NAME].map


def unspecified():
    return msgspec.structs.replace(instrument(), tiers=())


def test_candles_and_open_interest_make_the_same_map_in_whatever_order_they_come():
    past, held = Candles(NAME, 300, lately()), InterestHistory(NAME, crowd())
    one, other, without = told(past, held), told(held, past), told(past)
    assert one.state() == other.state() != without.state()
    assert near(one, 0) > near(without, 0)
    engine = Engine(engine_config())
    for event in (Listed(unspecified()), held, past, MarkPrice(NAME, START, PRICE, PRICE)):
        engine.process(START, event)
    engine.process(START, OpenInterest(NAME, START, 1_000.0, None))
    engine.process(START, Listed(instrument()))
    assert published(engine.instruments[NAME].map.estimate(START)) == published(one.estimate(START))


def test_a_map_that_has_heard_much_or_was_resumed_ignores_it():
    m = started(parameters=Parameters(turnover_per_h=1.0), candles=lately())
    for minute in range(1, 30):
        m.traded(START + 60 * minute * NS, PRICE, 1.0, "sell")
        m.open_interest(START + 60 * minute * NS, 1_000.0)
    heard = m.state()
    m.history(lately(), crowd())
    assert m.state() == heard
    again = started()
    again.resume(started(candles=lately()).state())
    again.history(lately())
    resumed = again.state()
    again.history(lately(), crowd())
    assert again.state() == resumed
