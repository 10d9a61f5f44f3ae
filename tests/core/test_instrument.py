"""Rolling flow, realised volatility and what counts as the price."""

from itertools import pairwise
from math import log, sqrt

import pytest

from monitor.core.instrument import Flow, InstrumentState, Volatility
from tests.builders import AT, instrument

SECOND = 1_000_000_000


def test_flow_counts_both_sides_within_its_window():
    flow = Flow()
    for n in range(400):
        flow.add(AT + n * SECOND, 10.0, "buy" if n % 2 else "sell")
    now = AT + 399 * SECOND
    assert flow.within(now, 10) == (50.0, 50.0)
    assert flow.within(now, 10_000) == (1500.0, 1500.0)  # five minutes are kept


def test_volatility_is_the_root_of_summed_squared_returns_once_the_time_has_passed():
    volatility = Volatility()
    prices = [100.0, 101.0, 100.0, 102.0]
    for n, price in enumerate(prices):
        assert volatility.realised(AT + n * SECOND, 3) is None
        volatility.sample(AT + n * SECOND, price, "mark")
        volatility.sample(AT + n * SECOND + 1, 999.0, "mark")  # the second has its price
    squares = [log(b / a) ** 2 for a, b in pairwise(prices)]
    assert volatility.realised(AT + 3 * SECOND, 3) == pytest.approx(sqrt(sum(squares)))
    assert volatility.realised(AT + 8 * SECOND, 3) is not None
    assert volatility.realised(AT + 9 * SECOND, 3) is None


@pytest.mark.parametrize(
    ("offset", "price", "kind"), [(1, None, "mark"), (2, 100.0, "mark"), (1, 100.0, "mid")]
)
def test_an_unknown_price_a_lost_second_or_another_kind_of_price_interrupts(offset, price, kind):
    volatility = Volatility()
    for n in range(10):
        volatility.sample(AT + n * SECOND, 100.0 + n, "mark")
    volatility.sample(AT + (9 + offset) * SECOND, price, kind)
    assert volatility.realised(AT + 10 * SECOND, 1) is None


def test_a_stale_mark_is_not_the_price():
    state = InstrumentState(instrument())
    state.mark, state.mark_at = 50_000.0, AT
    assert state.quote(AT + 60 * SECOND) == (50_000.0, "mark")
    assert state.price(AT + 61 * SECOND) is None
    state.book.snapshot([(49_990.0, 1.0)], [(50_000.0, 1.0)], depth=5, maintained=False)
    assert state.quote(AT + 61 * SECOND) == (49_995.0, "mid")


@pytest.mark.parametrize(
    ("fields", "decimals"),
    [
        ({"lot": 0.001}, 3),
        ({"lot": 0.01, "contract": 0.01}, 4),
        ({"lot": 1.0, "contract": 10.0}, 0),
        ({"kind": "inverse", "contract": 100.0}, 8),
    ],
)
def test_quantities_have_the_decimals_of_their_smallest_step(fields, decimals):
    assert InstrumentState(instrument(**fields)).quantity_decimals == decimals
