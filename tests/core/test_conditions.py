"""What is measured beside map and books."""

from math import exp, log

import msgspec
import pytest

from monitor.core.conditions import Conditions
from monitor.core.heatmap.calibration import ThrottleCorrection
from monitor.core.instrument import InstrumentState
from monitor.core.saved import StateError
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
    # The first one falls silent, and the second one goes on from where it stood.
    run(made, [one, other], 70, lambda _, s: None if s is one else 103.0, start=400)
    assert made.price() == pytest.approx(100.0)
    assert made.forecast.sigma[1] < 1e-3
    assert made.returned() == pytest.approx(0.0, abs=1e-12)


def test_a_fall_is_measured_by_whoever_is_heard_at_once():
    def falls(*, silent):
        one, _ = both = states("binance", "okx")
        made = Conditions(both, ThrottleCorrection())

        def known(second, state):
            fallen = exp(-4e-4 * max(0, second - 600))
            if state is one:
                return None if silent and second >= 610 else fallen
            return 2.0 * fallen

        found = []
        for second in range(700):
            run(made, both, 1, known, start=second)
            found.append(made.moves("down"))
        assert None not in found[1:], "nor is there a moment without a price"
        return found, made

    found, made = falls(silent=True)
    whole, _ = falls(silent=False)
    assert found[-1] == pytest.approx(whole[-1])
    assert found[-1][0] == pytest.approx(60 * 4e-4)
    # For the few seconds before the other takes over it is what was last heard.
    late = max(w[0] - f[0] for w, f in zip(whole[1:], found[1:], strict=True))
    assert late == pytest.approx(5 * 4e-4, rel=0.3)
    # When the first one is back, the second goes on.
    one, other = made._instruments
    run(made, [one, other], 5, lambda _, i: exp(-0.04) * (1 + (i is other)), start=700)
    assert made.moves("down")[0] == pytest.approx(whole[-1][0], rel=0.1)


def test_a_new_series_begins_where_two_marks_were_never_heard_together():
    one, _ = both = states("binance", "okx")
    made = Conditions(both, ThrottleCorrection())
    run(made, both, 100, lambda _, i: 100.0 if i is one else None)
    run(made, both, 1, lambda _, i: None if i is one else 103.0, start=200)
    assert made.price() is None
    run(made, both, 1, lambda _, i: None if i is one else 103.0, start=201)
    assert made.price() == 103.0
    assert made.moves("down") == (0.0, 0.0)


def test_moves_are_positive_in_their_direction():
    instruments = states("binance")
    made = Conditions(instruments, ThrottleCorrection())
    run(made, instruments, 400, lambda s, _: 100.0 * exp(-1e-5 * s))
    down, up = made.moves("down"), made.moves("up")
    assert down == pytest.approx((6e-4, 3e-3), rel=0.02)
    assert up == pytest.approx([-x for x in down])


def closed(state, at, usd=9e5):
    """A long closed by force."""
    return Liquidation(state.spec.name, at, "long", 1.0, usd, 100.0, "fill", None, "all", "x")


def test_a_print_of_one_side_makes_the_silence_of_the_other_known():
    (state,) = made_of = states("binance")
    made = Conditions(made_of, ThrottleCorrection())
    run(made, made_of, 70, lambda *_: 100.0)
    at = START + 70 * NS
    assert [made.liquidated_usd(at, d) for d in ("down", "up")] == [None, None]
    event = closed(state, at)
    made.printed(at, state, event)
    assert made.liquidated_usd(at, "down") == (9e5, 9e5, 9e5)
    assert made.liquidated_usd(at, "up") == (0.0, 0.0, 0.0)
    (minute,) = run(made, made_of, 60, lambda *_: 100.0, start=71)
    assert (minute.liquidated_long, minute.liquidated_short) == (9e5, 0.0)


def test_what_was_told_of_a_moment_is_not_kept_beyond_the_next_print_or_moment():
    (state,) = made_of = states("binance")
    made, at = Conditions(made_of, ThrottleCorrection()), START
    event = closed(state, at)
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


def test_a_minute_tells_open_interest_only_where_all_of_it_was_read_within_it():
    one, _ = both = states("binance", "okx")
    made = Conditions(both, ThrottleCorrection())
    told = []
    for second in range(301):
        at = START + second * NS
        for state in both:
            state.mark, state.mark_at = 100.0, at
            if state is one or not 110 < second < 250:
                state.open_interest_base, state.open_interest_at = 5.0, at
        minute = made.advance(at)
        if minute is not None:
            told.append(minute.interest)
            assert made.interest(at) == 10.0, "for the score it is known all the while"
    assert told == [10.0, 10.0, None, None, 10.0]


def test_a_minutes_closes_are_unheard_while_an_instrument_is_silent_that_was_heard():
    one, other = both = states("bybit", "binance")
    never = states("okx")
    made = Conditions([*both, *never], ThrottleCorrection())
    made.printed(START, one, closed(one, START))
    told = run(made, both, 420, lambda s, i: None if i is other and 50 < s < 250 else 100.0)
    assert [m.liquidated_long for m in told[1:]] == [None, None, None, 0.0, 0.0]
    assert [m.liquidated_short for m in told[1:]] == [None, None, None, 0.0, 0.0]
    # One that has been silent for a day is none any more.
    day = run(made, both, 130, lambda _, i: None if i is other else 100.0, start=420 + 86_400)
    assert [m.liquidated_long for m in day] == [0.0] * len(day)


def test_seconds_in_which_a_venue_is_silent_teach_nothing_of_who_follows():
    def psi(*, lost):
        one, _ = both = states("bybit", "binance")
        made = Conditions(both, ThrottleCorrection())
        found = []
        for second in range(2 * 3600):
            at = START + second * NS
            # Of three dollars sold for each that is closed, half are sold on either venue.
            bursts = 300 <= second % 600 < 310
            for state in both:
                if state is one or not lost or second < 3600:
                    state.mark, state.mark_at = 100.0, at
                    state.flow.add(at, 46e4 if bursts else 1e4, "sell")
            if bursts:
                made.printed(at, one, closed(one, at, usd=3e5))
            made.advance(at)
            found.append(made.psi("down"))
        return found[3599], found[-1]

    known, later = psi(lost=False)
    assert 2.0 < known < later < 3.0
    assert psi(lost=True) == (known, pytest.approx(known, rel=0.02))


def test_seconds_that_nobody_saw_make_no_move_of_a_minute():
    instruments = states("binance")
    made = Conditions(instruments, ThrottleCorrection())
    run(made, instruments, 900, lambda s, _: 100.0 * exp(2e-5 * (s % 7)))
    # Suspended for three hours, over which the price fell by 2 %.
    told = run(made, instruments, 200, lambda *_: 98.0, start=900 + 3 * 3600)
    assert {(m.low, m.high) for m in told} == {(98.0, 98.0)}, "nor a wide minute"
    assert made.moves("down") == (0.0, 0.0)
    assert made.moves_sigma("down") == (0.0, 0.0)
    assert made.returned() == 0.0
    run(made, instruments, 1, lambda *_: 97.0, start=1100 + 3 * 3600 + 30)
    assert made.moves("down")[0] == pytest.approx(log(98.0 / 97.0)), "half a minute is within one"
    run(made, instruments, 1, lambda *_: 96.0, start=1100 + 3 * 3600 + 91)
    assert made.returned() is None
    assert made.moves("down")[1] == pytest.approx(log(98.0 / 96.0))


def test_minutes_that_nobody_saw_make_no_change_of_five():
    instruments = states("binance")
    made = Conditions(instruments, ThrottleCorrection())
    made.depth_usd = lambda _: 1e6

    def price(second, state):
        state.open_interest_base = 1000.0 if second < 5000 else 850.0
        state.open_interest_at = START + second * NS
        return 100.0

    run(made, instruments, 1200, price)
    assert made.interest_change(START + 1199 * NS) == 0.0
    assert made.depth_recovered("down") == 1.0
    run(made, instruments, 130, price, start=1200 + 7200)
    assert made.interest_change(START + 8529 * NS) is None
    run(made, instruments, 400, price, start=8530)
    assert made.interest_change(START + 8929 * NS) == 0.0
    made.joined()
    assert made.interest_change(START + 8929 * NS) is None, "then it is of one more"


def test_a_contract_of_a_thousand_units_tells_the_price_of_one():
    thousand = InstrumentState(instrument("1000PEPEUSDT", asset="PEPE", multiplier=1000.0))
    single = InstrumentState(instrument("PEPE-USDT-SWAP", asset="PEPE", venue="okx"))
    both = [thousand, single]
    made = Conditions(both, ThrottleCorrection())

    def price(second, state):
        if state is thousand:
            return None if 125 <= second < 300 else 1e-2
        return 1e-5

    told = run(made, both, 600, price)
    known = [m for m in told if m.prices is not None]
    assert len(known) > 5
    assert all(m.low == pytest.approx(1e-5) == m.high for m in known)
    assert made.price() == pytest.approx(1e-5)


def test_what_rises_says_nothing_of_the_bids_a_fall_leaves():
    instruments = states("binance")
    made = Conditions(instruments, ThrottleCorrection())
    made.depth_usd = lambda _: 1e6
    rise = 0.0
    for second in range(1_500):
        rise += 2e-4 if 700 <= second < 800 else 2e-5 * (-1) ** second
        at = START + second * NS
        instruments[0].mark, instruments[0].mark_at = 100.0 * exp(rise), at
        made.advance(at)
    assert made.survival("up").events > 0.0
    assert made.survival("down").events == 0.0


def test_a_gap_to_an_index_of_before_is_none():
    (state,) = made_of = states("binance")
    made = Conditions(made_of, ThrottleCorrection())
    for second in range(3 * 86_400 + 60, 3 * 86_400 + 200):
        at = START + second * NS
        state.mark, state.mark_at = 100.0, at
        if second < 3 * 86_400 + 130:
            state.index, state.index_at = 100.1, at
        made.advance(at)
    assert made.mark_gap(state.index_at + 60 * NS) == pytest.approx(0.1 / 100.1)
    assert made.mark_gap(state.index_at + 61 * NS) is None


@pytest.mark.parametrize("first", [0.0, 20.0])
def test_the_first_minute_of_flow_counts_like_any_other(first):
    (state,) = made_of = states("binance")
    made = Conditions(made_of, ThrottleCorrection())
    for second in range(601):
        at = START + second * NS
        state.mark, state.mark_at = 100.0, at
        state.flow.add(at, 1e5 * (first if second <= 60 else 1.0), "sell")
        made.advance(at)
    squares = [(60 * 1e5 * scale) ** 2 for scale in (first, *[1.0] * 9)]
    assert made.flow_sigma() == pytest.approx((sum(squares) / 10 / 60) ** 0.5, rel=1e-6)


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
    instruments[0].flow.add(START + 600 * NS, 5e5, "buy")
    run(made, instruments, 1, lambda *_: 100.0, start=600)
    other = Conditions(states("binance"), ThrottleCorrection())
    state = made.state()
    other.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=type(state)))
    assert other.volatility.forecast() == made.volatility.forecast()
    assert log(other.psi("down")) == log(made.psi("down"))
    assert other.flow_sigma() == made.flow_sigma() > 0.0
    assert other.state().flow_variance == state.flow_variance
    for impossible in ((-1.0, 1.0), (1e9, 1.0), (5.0, -1.0), (5.0, float("nan"))):
        with pytest.raises(StateError, match="variance of flow"):
            other.restore(msgspec.structs.replace(state, flow_variance=impossible))


def test_a_restart_does_not_tell_self_excitation_across_what_was_missed():
    (state,) = made_of = states("binance")
    made = Conditions(made_of, ThrottleCorrection())
    for second in range(0, 3_600, 20):
        made.printed(START + second * NS, state, closed(state, START + second * NS))
        run(made, made_of, 1, lambda *_: 100.0, start=second)
    saved = made.state()
    assert saved.hawkes[0].clusters
    other = Conditions(states("binance"), ThrottleCorrection())
    other.restore(saved)
    assert other.state().hawkes[0].clusters == []
