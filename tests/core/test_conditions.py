"""What is measured beside map and books."""

from math import exp, log

import msgspec
import pytest

from monitor.core.conditions import Conditions
from monitor.core.heatmap.calibration import ThrottleCorrection
from monitor.core.instrument import InstrumentState
from monitor.events import NS, Candle, Funding, Liquidation
from tests.builders import instrument

START = 1_790_000_040 * NS


def states(*venues):
    return [InstrumentState(instrument(venue=venue)) for venue in venues]


def run(made, instruments, seconds, price, *, start=0):
    """Every instrument's mark once a second; the minutes that ended."""
    ended = []
    for second in range(start, start + seconds):
        at = START + second * NS
        for state in instruments:
            found = price(second, state)
            if found is not None:
                state.mark, state.mark_at = found, at
        minute = made.advance(at)
        if minute is not None:
            ended.append(minute)
    return ended


def test_a_minute_has_its_own_low_high_and_close():
    instruments = states("binance")
    made = Conditions(instruments, ThrottleCorrection())
    ended = run(made, instruments, 200, lambda s, _: 100.0 + (s % 60))
    assert [m.at % (60 * NS) for m in ended] == [0] * len(ended)
    assert len(ended) == 3
    assert (ended[1].low, ended[1].high) == (100.0, 159.0)


def test_a_minute_knows_what_is_usual_from_half_a_day_of_candles_and_not_from_less():
    def told(hours):
        instruments = states("binance")
        made = Conditions(instruments, ThrottleCorrection())
        past = [
            Candle(START // (300 * NS) * 300 * NS - n * 300 * NS, 100.0, 100.2, 100.0)
            for n in range(hours * 12, 0, -1)
        ]
        made.history(past)
        return run(made, instruments, 130, lambda s, _: 100.0 + 0.001 * (s % 2))[-1].usual

    # Parkinson: the range over 2 sqrt(ln 2) is the deviation of five minutes.
    five = log(100.2 / 100.0) / (2 * log(2) ** 0.5)
    assert told(20) == pytest.approx(five / 5**0.5, rel=0.01)
    assert told(6) is None


def test_another_venues_price_begins_a_new_series_and_makes_no_move():
    one, other = states("binance", "okx")
    made = Conditions([one, other], ThrottleCorrection())
    run(made, [one, other], 400, lambda _, s: 100.0 if s is one else 103.0)
    assert made.moves("down") == (0.0, 0.0)
    # The first one falls silent; a minute later the second one's price stands in.
    run(made, [one, other], 70, lambda _, s: None if s is one else 103.0, start=400)
    assert made.price() == 103.0
    assert made.forecast.sigma[1] < 1e-3
    assert abs(made.returned() or 0.0) < 1e-9 or made.returned() is None


def test_moves_are_positive_in_their_direction():
    instruments = states("binance")
    made = Conditions(instruments, ThrottleCorrection())
    run(made, instruments, 400, lambda s, _: 100.0 * exp(-1e-5 * s))
    down, up = made.moves("down"), made.moves("up")
    assert down == pytest.approx((6e-4, 3e-3), rel=0.02)
    assert up == pytest.approx([-x for x in down])


def test_a_print_of_one_side_makes_the_silence_of_the_other_known():
    (state,) = made_of = states("binance")
    made = Conditions(made_of, ThrottleCorrection())
    run(made, made_of, 70, lambda *_: 100.0)
    at = START + 70 * NS
    assert [made.liquidated_usd(at, d) for d in ("down", "up")] == [None, None]
    event = Liquidation(state.spec.name, at, "long", 1.0, 9e5, 100.0, "fill", None, "all", "x")
    made.printed(at, state, event)
    assert made.liquidated_usd(at, "down") == (9e5, 9e5, 9e5)
    assert made.liquidated_usd(at, "up") == (0.0, 0.0, 0.0)
    (minute,) = run(made, made_of, 60, lambda *_: 100.0, start=71)
    assert (minute.liquidated_long, minute.liquidated_short) == (9e5, 0.0)


def test_what_was_told_of_a_moment_is_not_kept_beyond_the_next_print_or_moment():
    (state,) = made_of = states("binance")
    made, at = Conditions(made_of, ThrottleCorrection()), START
    event = Liquidation(state.spec.name, at, "long", 1.0, 9e5, 100.0, "fill", None, "all", "x")
    for times in (1, 2):
        made.printed(at, state, event)
        assert made.liquidated_usd(at, "down") == (times * 9e5,) * 3
    assert made.liquidated_usd(at + 30 * NS, "down") == (0.0, 18e5, 18e5)


@pytest.mark.parametrize(("tick_ms", "phase_ms"), [(1_000, 0), (1_000, 950), (250, 130), (250, 0)])
def test_who_follows_is_counted_alike_whenever_the_ticks_come(tick_ms, phase_ms):
    (state,) = made_of = states("binance")
    made = Conditions(made_of, ThrottleCorrection())
    told = Liquidation(state.spec.name, START, "long", 1.0, 4e5, 100.0, "fill", None, "all", "x")
    for ms in range(0, 40 * 120_000, 10):
        at = START + ms * 1_000_000
        # Forty bursts of five seconds: of each three sold dollars two follow a forced one.
        if ms % 120_000 < 5_000 and ms % 1_000 in (300, 600, 900):
            made.printed(at, state, told)
            state.flow.add(at, 12e5, "sell")
        if (ms - phase_ms) % tick_ms == 0:
            made.advance(at)
    assert made.psi("down") == pytest.approx(2.9, abs=0.1)
    assert made.psi("up") == 1.5


def test_interest_is_unknown_while_one_instrument_is_unheard():
    one, other = states("binance", "okx")
    made = Conditions([one, other], ThrottleCorrection())
    one.open_interest_base, one.open_interest_at = 5.0, START
    assert made.interest(START) is None
    other.open_interest_base, other.open_interest_at = 7.0, START
    assert made.interest(START) == 12.0
    assert made.interest(START + 700 * NS) is None


def test_funding_is_weighed_by_open_interest():
    one, other = states("binance", "okx")
    made = Conditions([one, other], ThrottleCorrection())
    for state, usd, rate in ((one, 3e6, 0.0001), (other, 1e6, 0.0005)):
        state.mark, state.mark_at = 100.0, START
        state.open_interest_usd = usd
        state.funding = Funding(state.spec.name, START, rate, 8.0, None)
    assert made.funding(START) == pytest.approx(0.0002)
    assert made.funding(START + 3600 * NS) is None


def test_states_come_back():
    instruments = states("binance")
    made = Conditions(instruments, ThrottleCorrection())
    run(made, instruments, 600, lambda s, _: 100.0 + 0.01 * (s % 7))
    other = Conditions(states("binance"), ThrottleCorrection())
    state = made.state()
    other.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=type(state)))
    assert other.volatility.forecast() == made.volatility.forecast()
    assert log(other.psi("down")) == log(made.psi("down"))
