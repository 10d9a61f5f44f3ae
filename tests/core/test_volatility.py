"""The forecast learns, degrades in steps and never makes a return of a gap."""

from itertools import pairwise
from math import exp, log, sqrt

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.forecast.jumps import Jumps
from monitor.core.forecast.past import VolatilityState
from monitor.core.forecast.regression import Recursive
from monitor.core.forecast.volatility import VolatilityForecast
from monitor.core.saved import StateError
from monitor.events import NS, Candle

DAY = 86_400
START = 1_767_225_600
SIGMA = 3e-5


def walk(seconds, seed=0, sigma=SIGMA):
    steps = np.random.default_rng(seed).standard_normal(seconds) * sigma
    return (50_000.0 * np.exp(np.cumsum(steps))).tolist()


def told(volatility, prices, start=START):
    for i, price in enumerate(prices):
        volatility.sample((start + i) * NS, price)
    return volatility


def candles(prices, minutes, start=START):
    size = 60 * minutes
    cut = [prices[i : i + size + 1] for i in range(0, len(prices) - size + 1, size)]
    return [
        Candle(at=(start + size * (i + 1)) * NS, low=min(c), high=max(c), close=c[-1])
        for i, c in enumerate(cut)
    ]


def test_nothing_is_known_before_a_minute_and_then_the_recent_past_is():
    volatility = told(VolatilityForecast(), walk(60))
    assert volatility.forecast() is None
    said = told(VolatilityForecast(), walk(1_200)).forecast()
    assert said.method == "ewma"
    assert said.sigma[1] == pytest.approx(SIGMA * exp(0.5 * said.vol_of_vol[1] ** 2), rel=0.2)


@pytest.mark.parametrize("minutes", [1, 5])
def test_past_candles_give_a_fresh_start_its_scale(minutes):
    prices = walk(DAY)
    volatility = VolatilityForecast()
    assert volatility.seed(candles(prices, minutes)) == DAY // 60 // minutes
    said = volatility.forecast()
    assert said.method == "har"
    # The range of a walk in seconds is a little less than that of a continuous one.
    assert said.day == pytest.approx(SIGMA, rel=0.15)
    assert said.downside is None
    calm = told(volatility, walk(600, sigma=SIGMA / 5), START + DAY).forecast()
    assert calm.sigma[0] < calm.sigma[3] < said.sigma[3]
    with pytest.raises(ValueError, match="past comes first"):
        volatility.seed([])


def test_unusable_candles_are_left_out():
    good = candles(walk(3_600 * 2), 5)
    bad = [
        msgspec.structs.replace(good[3], low=float("nan")),
        msgspec.structs.replace(good[4], low=good[4].high * 2),
        msgspec.structs.replace(good[5], low=0.0),
        good[0],
    ]
    volatility = VolatilityForecast()
    assert volatility.seed([*good[:3], *bad, *good[6:]]) == len(good) - 3
    assert volatility.forecast().method == "candles"
    assert VolatilityForecast().seed(good[:1]) == 0


@pytest.mark.parametrize("hole", ["skipped", "unknown", "nonsense"])
def test_a_gap_makes_no_return(hole):
    prices = walk(3_600)
    with_gap = VolatilityForecast()
    told(with_gap, prices[:1_800])
    apart = 90
    if hole != "skipped":
        value = None if hole == "unknown" else -1.0
        told(with_gap, [value] * apart, START + 1_800)
    # The market reopens 20 % lower, which was no return of one second.
    told(with_gap, [0.8 * p for p in prices[1_800:]], START + 1_800 + apart)
    plain = told(VolatilityForecast(), prices).forecast()
    said = with_gap.forecast()
    assert said.sigma[1] == pytest.approx(plain.sigma[1], rel=0.1)
    assert said.jump_rate == pytest.approx(plain.jump_rate, rel=0.3)
    assert said.jump_size == pytest.approx(plain.jump_size, rel=0.1)


def test_a_feed_lost_in_a_storm_does_not_calm_the_forecast():
    volatility = VolatilityForecast()
    volatility.seed(candles(walk(DAY), 5))
    told(volatility, walk(400), START + DAY)
    told(volatility, walk(90, sigma=10 * SIGMA), START + DAY + 400)
    before = volatility.forecast().sigma
    told(volatility, [None] * 280, START + DAY + 490)
    assert volatility.forecast().sigma[0] > 0.9 * before[0]
    told(volatility, [None] * 60, START + DAY + 770)
    assert volatility.forecast().sigma[0] < 0.7 * before[0]


def test_after_a_day_of_silence_nothing_is_known_any_more():
    volatility = told(VolatilityForecast(), walk(7_200))
    assert volatility.forecast() is not None
    told(volatility, [None] * 120, START + 7_200 + 2 * DAY)
    assert volatility.forecast() is None


def test_smoothed_prices_are_as_volatile_over_minutes_as_what_they_follow():
    prices, marks, mark = walk(6 * 3_600), [], 50_000.0
    for price in prices:
        mark += 0.3 * (price - mark)
        marks.append(mark)
    raw, smooth = (told(VolatilityForecast(), p).forecast() for p in (prices, marks))
    seconds = sqrt(sum(log(b / a) ** 2 for a, b in pairwise(marks)) / len(marks))
    assert seconds < 0.45 * SIGMA
    assert smooth.sigma[1] == pytest.approx(raw.sigma[1], rel=0.25)


def world(days, seed):
    """One-second returns whose log variance has components of minutes, hours and days."""
    chance = np.random.default_rng(seed)
    minutes = round(days * 1_440)
    level = np.zeros(minutes)
    for memory, spread in ((8, 0.5), (180, 0.6), (2_880, 0.5)):
        kept = exp(-1.0 / memory)
        noise, x = chance.normal(0, spread * sqrt(1 - kept * kept), minutes), 0.0
        for i in range(minutes):
            x = kept * x + noise[i]
            level[i] += x
    variance = np.repeat(np.exp(level) * SIGMA**2, 60)
    return chance.standard_normal(len(variance)) * np.sqrt(variance)


def test_the_autoregression_forecasts_better_than_a_moving_average():
    returns = np.concatenate((world(2.6, 1), np.zeros(1)))
    prices = (50_000.0 * np.exp(np.cumsum(returns))).tolist()
    volatility = VolatilityForecast()
    volatility.seed(candles(prices[:DAY], 1))
    losses = np.zeros((4, 2))
    squares = np.concatenate(((0.0,), np.cumsum(returns**2)))
    average = SIGMA**2
    for i in range(DAY, len(prices) - 3_601):
        volatility.sample((START + i) * NS, prices[i])
        average += (1 - 0.5 ** (1 / 300)) * (returns[i] ** 2 - average)
        if i % 60 == 59 and i > 1.6 * DAY:
            said = volatility.forecast()
            for k, horizon in enumerate((60, 300, 900, 3_600)):
                real = (squares[i + 1 + horizon] - squares[i + 1]) / horizon
                for j, v in enumerate((said.sigma[k] ** 2, average)):
                    losses[k, j] += log(v) + real / v
    # At 15 minutes this average has nearly the best memory there is for such a world.
    assert (losses[[0, 1, 3], 0] < losses[[0, 1, 3], 1]).all()
    assert losses[:, 0].sum() < losses[:, 1].sum()


def test_a_regression_learns_keeps_its_prior_where_nothing_varies_and_forgets():
    learner = Recursive((0.0, 1.0, 0.3), strength=10.0, kept=0.999)
    chance = np.random.default_rng(2)
    for x in chance.standard_normal(3_000):
        learner.learn((1.0, x, 0.0), 0.5 - 0.4 * x)
    assert learner.coefficients == pytest.approx([0.5, -0.4, 0.3], abs=0.02)
    for x in chance.standard_normal(10_000):
        learner.learn((1.0, x, 0.0), 0.8 * x)
    assert learner.coefficients == pytest.approx([0.0, 0.8, 0.3], abs=0.02)


def test_jumps_are_counted_and_sized_and_few_of_them_do_not_convince():
    chance = np.random.default_rng(3)
    jumps, variance = Jumps(), SIGMA**2
    prior = (jumps.rate, jumps.size)
    for minute in range(30 * 1_440):
        size = 0.006 * chance.exponential() if minute % 60 == 0 else 0.0
        jumps.heard(size + chance.normal(0, sqrt(60 * variance)), variance)
    assert jumps.size == pytest.approx(0.006, rel=0.15)
    assert jumps.rate == pytest.approx(1 / 3_600, rel=0.2)
    one = Jumps()
    one.heard(0.05, variance)
    assert prior[0] < one.rate < 6 * prior[0]
    assert prior[1] < one.size < 6 * prior[1]


def test_a_restart_goes_on_where_it_ended():
    volatility = VolatilityForecast()
    volatility.seed(candles(walk(DAY), 5))
    prices = walk(3_000, seed=4)
    told(volatility, prices[:2_000], START + DAY)
    data = msgspec.msgpack.encode(volatility.state())
    other = VolatilityForecast()
    other.restore(msgspec.msgpack.decode(data, type=VolatilityState))
    for each in (volatility, other):
        told(each, prices[2_000:], START + DAY + 2_000)
    mine, its = volatility.forecast(), other.forecast()
    assert its.method == mine.method == "har"
    assert its.sigma == pytest.approx(mine.sigma, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seconds": [0.0]}, "shape"),
        ({"signature": [float("nan"), 1.0, 1.0]}, "finite"),
        ({"prices": [-1.0, None]}, "negative"),
        ({"minutes": [-0.5] * 1_440}, "negative squares"),
        ({"learnt": [([-1.0] * 28, [0.0] * 7)] * 4}, "negative squares"),
        ({"learnt": [([1e6] * 27 + [0.0], [0.0] * 7)] * 4}, "positive definite"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_with_its_reason(change, reason):
    state = told(VolatilityForecast(), walk(200)).state()
    with pytest.raises(StateError, match=reason):
        VolatilityForecast().restore(msgspec.structs.replace(state, **change))


PRICES = st.one_of(
    st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(1e-9, 1e12),
)  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 400), PRICES, st.integers(1, 70)), max_size=25))
@settings(max_examples=50, deadline=None)
def test_whatever_is_heard_gives_finite_positive_numbers(heard):
    volatility = VolatilityForecast()
    volatility.seed(candles(walk(7_200), 1))
    second = START + 7_200
    for apart, price, many in heard:
        second += apart
        for _ in range(many):
            second += 1
            volatility.sample(second * NS, price)
        said = volatility.forecast()
        numbers = (*said.sigma, *said.vol_of_vol, said.day, said.jump_rate, said.jump_size)
        assert all(0.0 < x < 1e6 for x in numbers)
