"""How much an asset's price will move, from how much it has moved (model.md A10).

`VolatilityForecast` hears one price a second, remembers a day as minute sums, and forecasts the
volatility of the next 1, 5, 15 and 60 minutes by a heterogeneous autoregression of log variance
(HAR) that goes on learning. Jumps of one-minute returns are counted beside it.
"""

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from math import exp, fsum, isfinite, log, sqrt
from typing import Final, Literal

from msgspec import Struct

from monitor.core.forecast.coefficients import HAR_PRIOR
from monitor.core.forecast.jumps import Jumps
from monitor.core.forecast.passage import VOL_OF_VOL
from monitor.core.forecast.past import (
    DAY_MINUTES,
    HOUR,
    SECONDS,
    UNKNOWN,
    VOLATILITY_HORIZONS_S,
    VolatilityState,
    check,
)
from monitor.core.forecast.regression import Recursive
from monitor.events import NS, Candle

VECTOR: Final = ("one", "minute", "five_minutes", "hour", "day", "downside", "season")
"""Regressors of the log variance over that of the last day: 1; log variance of the last 1, 5 and
60 minutes over the day's; the day's over the month's; log of falling over rising variance in the
last hour; the season ahead over that of the last hour."""

_LEAST_VARIANCE: Final = 1e-14
"""Per second. A frozen price has no logarithm; this is 0.003 % a day."""
_MEMORY_MIN: Final = 30 * DAY_MINUTES


class Forecast(Struct, frozen=True):
    """Volatility ahead.

    Attributes:
        sigma: mean volatility per root second over each of `VOLATILITY_HORIZONS_S`.
        vol_of_vol: standard deviation of the logarithm of each.
        day: volatility of the last day per root second, or of what there is of it.
        downside: share of falling returns in the variance of the last hour; None before 20 min.
        jump_rate: jumps per second one way; half of both, scaled with present variance.
        jump_size: mean log size of a jump, exponential.
        method: `har`, or `ewma` before a day is known, or `candles` before a minute is heard.
        heard_at: second of the last price (ns), 0 before the first.
    """

    sigma: tuple[float, float, float, float]
    vol_of_vol: tuple[float, float, float, float]
    day: float
    downside: float | None
    jump_rate: float
    jump_size: float
    method: Literal["har", "ewma", "candles"]
    heard_at: int


class VolatilityForecast:
    """See the module docstring. An unknown price or a second left out never makes a return."""

    SIGNATURE_KEPT = exp(-1.0 / DAY_MINUTES)
    SIGNATURE_PRIOR_MIN = 60.0
    EWMA_KEPT = 0.5 ** (1.0 / 300.0)
    SEASON_PRIOR_MIN = 180.0

    def __init__(self) -> None:
        self._second = 0
        self._price: float | None = None
        self._closed: float | None = None
        self._held: tuple[int, float, float] = (0, 0.0, 0.0)
        self._ring = [UNKNOWN] * SECONDS
        self._sums = [0.0, 0.0]
        self._counts = [0, 0]
        self._minute = 0
        self._falling = self._rising = 0.0
        self._returns = 0
        self._minutes: deque[float] = deque([UNKNOWN] * DAY_MINUTES, maxlen=DAY_MINUTES)
        self._halves: deque[tuple[float, float]] = deque([(0.0, 0.0)] * HOUR, maxlen=HOUR)
        self._hour: float | None = None
        self._day: float | None = None
        self._by_day = False
        self._downside: float | None = None
        self._ewma, self._ewma_seconds = 0.0, 0
        self._signature = [0.0, 0.0, 0.0]
        self._season = [(0.0, 0.0)] * 24
        self._level, self._level_weight = 0.0, 0.0
        self._jumps = Jumps()
        self._pending: deque[list[float]] = deque([[]] * (HOUR + 1), maxlen=HOUR + 1)
        self._learners = [
            Recursive(HAR_PRIOR[s], strength=100.0, kept=exp(-1.0 / _MEMORY_MIN))
            for s in VOLATILITY_HORIZONS_S
        ]
        self._residuals = [(500.0, 500.0 * (2.0 * VOL_OF_VOL) ** 2)] * len(VOLATILITY_HORIZONS_S)

    # -------------------------------------------------------------------------------- inputs

    def seed(self, candles: Sequence[Candle]) -> int:
        """Take past candles of 1 to 15 minutes, oldest first, before the first price.

        They give the scale of the hour, the day and the season (by Parkinson's range estimator),
        not the coefficients. Candles that overlap, that were told out of order or whose prices
        are no prices are left out; the number used is returned.

        Raises:
            ValueError: prices have been heard already.
        """
        if self._second:
            raise ValueError("candles after prices: the past comes first")
        ends = [c.at // (60 * NS) for c in candles]
        gaps = [b - a for a, b in pairwise(ends) if b > a]
        period = min(gaps, default=0)
        if not 1 <= period <= 15:
            return 0
        used = 0
        for candle, end in zip(candles, ends, strict=True):
            fine = isfinite(candle.low) and isfinite(candle.high) and candle.low > 0.0
            if not fine or candle.high < candle.low or end - period < self._minute:
                continue
            self._skip_to(end - period)
            spread = log(candle.high / candle.low) ** 2 / (4.0 * log(2.0))
            for _ in range(period):
                self._remember(spread / (60.0 * period))
                self._minute += 1
            used += 1
        self._rescale()
        return used

    def sample(self, at: int, price: float | None) -> None:
        """Take the price of a new second, at `at` (ns); None where it is not known.

        The first price of a second counts; prices that are not positive numbers are unknown.
        """
        second = at // NS
        if second <= self._second:
            return
        if price is not None and not (isfinite(price) and price > 0.0):
            price = None
        skipped = second - self._second - 1 if self._second else SECONDS
        if self._price is not None and (skipped or price is None):
            self._held = (self._second, self._recent(0) or 0.0, self._recent(1) or 0.0)
        for _ in range(min(skipped, SECONDS)):
            self._push(UNKNOWN)
        if skipped:
            self._price = None
        if second // 60 > self._minute:
            self._turn(second // 60)
        if skipped >= SECONDS:
            self._ewma, self._ewma_seconds = 0.0, 0
        before, self._price, self._second = self._price, price, second
        if before is None or price is None:
            self._push(UNKNOWN)
            return
        change = log(price / before)
        square = change * change
        self._push(square)
        self._returns += 1
        if change < 0.0:
            self._falling += square
        else:
            self._rising += square
        self._ewma_seconds += 1
        share = max(1.0 - self.EWMA_KEPT, 1.0 / self._ewma_seconds)
        self._ewma += share * (square - self._ewma)

    def _push(self, square: float) -> None:
        """Move both windows on by one second."""
        ring = self._ring
        for i, leaving in ((0, ring[-60]), (1, ring[0])):
            if leaving >= 0.0:
                self._sums[i] -= leaving
                self._counts[i] -= 1
            if square >= 0.0:
                self._sums[i] += square
                self._counts[i] += 1
        del ring[0]
        ring.append(square)

    # -------------------------------------------------------------------------------- minutes

    def _turn(self, minute: int) -> None:
        """Close the minute that ended and whatever was left out before `minute`."""
        if self._returns >= 30:
            raw = (self._falling + self._rising) / self._returns
            change = None
            if self._returns == 60 and self._closed is not None and self._price is not None:
                change = log(self._price / self._closed)
                self._compare(change * change, raw * 60.0)
                if self._hour is not None:
                    self._jumps.heard(change, self._hour)
            self._remember(raw * self.signature, (self._falling, self._rising))
        else:
            self._remember(UNKNOWN)
        self._closed = self._price
        self._falling = self._rising = 0.0
        self._returns = 0
        self._minute += 1
        self._skip_to(minute)
        # Sums that only ever add and subtract drift.
        for i, recent in enumerate((self._ring[-60:], self._ring)):
            self._sums[i] = fsum(x for x in recent if x >= 0.0)
        self._rescale()
        self._learn()

    def _skip_to(self, minute: int) -> None:
        if minute - self._minute > DAY_MINUTES:
            self._minute = minute - DAY_MINUTES
        while self._minute < minute:
            self._remember(UNKNOWN)
            self._pending.append([])
            self._closed = None
            self._minute += 1

    def _remember(self, variance: float, halves: tuple[float, float] = (0.0, 0.0)) -> None:
        """Append one minute's variance per second, of returns of a minute."""
        self._halves.append(halves)
        if variance < 0.0:
            self._minutes.append(UNKNOWN)
            return
        variance = max(variance, _LEAST_VARIANCE)
        self._minutes.append(variance)
        value, hour = log(variance), self._minute // 60 % 24
        self._level_weight = self._level_weight * (1.0 - 1.0 / _MEMORY_MIN) + 1.0
        self._level += (value - self._level) / self._level_weight
        weight, mean = self._season[hour]
        weight = weight * (1.0 - 24.0 / _MEMORY_MIN) + 1.0
        self._season[hour] = (weight, mean + (value - self._level - mean) / weight)

    def _compare(self, of_minute: float, of_seconds: float) -> None:
        """Learn how returns of a minute compare with those of its seconds."""
        s, kept = self._signature, self.SIGNATURE_KEPT
        s[:] = [s[0] * kept + of_minute, s[1] * kept + of_seconds, s[2] * kept + 1.0]

    @property
    def signature(self) -> float:
        """Variance of a minute's returns over the sum of its seconds'.

        Below 1 where prices bounce, above where they are smoothed, as marks are; without it a
        volatility of seconds is not one of minutes.
        """
        of_minute, of_seconds, minutes = self._signature
        if of_seconds <= 0.0:
            return 1.0
        prior = self.SIGNATURE_PRIOR_MIN * of_seconds / minutes
        return min(max((of_minute + prior) / (of_seconds + prior), 0.1), 10.0)

    def _rescale(self) -> None:
        """Variances of the last hour and day, once a minute."""
        known = [x for x in self._minutes if x >= 0.0]
        recent = [x for x in list(self._minutes)[-HOUR:] if x >= 0.0]
        self._by_day = len(known) >= DAY_MINUTES // 2
        self._day = fsum(known) / len(known) if len(known) >= 20 else None
        self._hour = fsum(recent) / len(recent) if len(recent) >= 20 else None
        falling, rising = (fsum(h) for h in zip(*self._halves, strict=True))
        heard = sum(1 for h in self._halves if h != (0.0, 0.0))
        total = falling + rising
        self._downside = falling / total if heard >= 20 and total > 0.0 else None

    def _recent(self, i: int) -> float | None:
        """Variance per second of the last minute (0) or five (1), where half of it was heard."""
        if self._counts[i] < (30, 150)[i]:
            return None
        return max(self._sums[i] / self._counts[i] * self.signature, _LEAST_VARIANCE)

    def _vector(self, day: float) -> list[float]:
        """`VECTOR` as of now.

        A shorter scale that is unknown is as the next longer one, or for five minutes as it was
        when the prices stopped if that was more: feeds fail in storms, which is no calm.
        """
        last, held_one, held_five = self._held
        if self._second - last > SECONDS:
            held_one = held_five = 0.0
        hour = self._hour if self._hour is not None else day
        five = self._recent(1)
        five = five if five is not None else max(hour, held_five)
        one = self._recent(0)
        one = one if one is not None else max(five, held_one)
        base = log(day)
        down = 0.0
        if self._downside is not None:
            down = log((self._downside + 0.02) / (1.02 - self._downside))
        return [
            1.0,
            log(one) - base,
            log(five) - base,
            log(hour) - base,
            base - self._level,
            down,
            0.0,
        ]

    def _seasonal(self, minute: float) -> float:
        """Usual log variance at a minute of the day over that of the whole day."""
        hour = minute / 60.0 - 0.5
        low = int(hour // 1.0)
        share = hour - low
        found = 0.0
        for index, part in ((low % 24, 1.0 - share), ((low + 1) % 24, share)):
            weight, mean = self._season[index]
            found += part * mean * weight / (weight + self.SEASON_PRIOR_MIN)
        return found

    def _ahead(self, horizon_s: int) -> float:
        now = float(self._minute)
        return self._seasonal(now + horizon_s / 120.0) - self._seasonal(now - 30.0)

    def _learn(self) -> None:
        """Teach every horizon the latest stretch that has ended."""
        whole = self._by_day and self._hour is not None
        day = self._day if whole and min(self._counts[0] - 30, self._counts[1] - 150) >= 0 else None
        if day is None:
            self._pending.append([])
        else:
            ahead = [self._ahead(s) for s in VOLATILITY_HORIZONS_S]
            self._pending.append([log(day), *self._vector(day)[:-1], *ahead])
        recent = list(self._minutes)[-HOUR:]
        for i, (horizon, learner) in enumerate(
            zip(VOLATILITY_HORIZONS_S, self._learners, strict=True)
        ):
            minutes = horizon // 60
            row = self._pending[-1 - minutes]
            passed = [x for x in recent[-minutes:] if x >= 0.0]
            if not row or len(passed) < 0.8 * minutes:
                continue
            target = log(fsum(passed) / len(passed)) - row[0]
            x = [*row[1:7], row[7 + i]]
            weight = 1.0 / minutes
            off = target - learner.predicted(x)
            kept = 1.0 - weight / (7 * DAY_MINUTES / minutes)
            mass, total = self._residuals[i]
            self._residuals[i] = (mass * kept + weight, total * kept + weight * off * off)
            learner.learn(x, target, weight=weight)

    # -------------------------------------------------------------------------------- outputs

    def forecast(self) -> Forecast | None:
        """Volatility ahead of the last second; None while nothing is known."""
        day = self._day
        method: Literal["har", "ewma", "candles"]
        spreads = [self._spread(i) for i in range(len(VOLATILITY_HORIZONS_S))]
        if day is not None and self._by_day:
            method = "har"
            logs = self._logs(day)
        elif self._ewma_seconds >= 60:
            method = "ewma"
            logs = [log(max(self._ewma * self.signature, _LEAST_VARIANCE))] * 4
        elif day is not None:
            method = "candles"
            logs = [log(self._hour if self._hour is not None else day)] * 4
        else:
            return None
        sigma = [exp(0.5 * mean + 0.5 * v * v) for mean, v in zip(logs, spreads, strict=True)]
        usual = sqrt(day) if day is not None else exp(0.5 * logs[1])
        stressed = min(max((exp(0.5 * logs[1]) / usual) ** 2, 0.25), 4.0)
        return Forecast(
            sigma=(sigma[0], sigma[1], sigma[2], sigma[3]),
            vol_of_vol=(spreads[0], spreads[1], spreads[2], spreads[3]),
            day=usual,
            downside=self._downside,
            jump_rate=0.5 * self._jumps.rate * stressed,
            jump_size=self._jumps.size,
            method=method,
            heard_at=self._second * NS,
        )

    def _logs(self, day: float) -> list[float]:
        """Log variance per second over each horizon, by HAR."""
        x = self._vector(day)
        scales = (x[1], x[2], x[3], 0.0)
        found = []
        for horizon, learner in zip(VOLATILITY_HORIZONS_S, self._learners, strict=True):
            x[-1] = self._ahead(horizon)
            said = learner.predicted(x)
            # No regression is believed far outside everything that was measured.
            found.append(log(day) + min(max(said, min(scales) - 2.0), max(scales) + 2.0))
        return found

    def _spread(self, i: int) -> float:
        mass, total = self._residuals[i]
        # The logarithm of a variance of n normal returns itself varies by 2 / n.
        noise = 2.0 / VOLATILITY_HORIZONS_S[i]
        return min(max(0.5 * sqrt(max(total / mass - noise, 0.0)), 0.25), 0.8)

    # -------------------------------------------------------------------------------- restarts

    NUMBERS: Final = ("_falling", "_rising", "_ewma", "_level", "_level_weight")
    TIMES: Final = ("_second", "_minute", "_returns", "_ewma_seconds")

    def state(self) -> VolatilityState:
        """What a restart must not forget."""
        numbers = {name: float(getattr(self, name)) for name in (*self.NUMBERS, *self.TIMES)}
        jumps = {name: float(getattr(self._jumps, name)) for name in Jumps.NUMBERS}
        return VolatilityState(
            numbers=numbers | jumps,
            signature=list(self._signature),
            prices=[self._price, self._closed],
            seconds=list(self._ring),
            minutes=list(self._minutes),
            halves=list(self._halves),
            season=list(self._season),
            pending=list(self._pending),
            residuals=list(self._residuals),
            learnt=[learner.state() for learner in self._learners],
        )

    def restore(self, state: VolatilityState) -> None:
        """Take over a saved state, in a fresh object.

        Raises:
            StateError: it is of another shape, or its numbers are not those of a price's past.
        """
        check(state, {*self.NUMBERS, *self.TIMES, *Jumps.NUMBERS})
        for learner, learnt in zip(self._learners, state.learnt, strict=True):
            learner.restore(learnt)
        for name in self.NUMBERS:
            setattr(self, name, state.numbers[name])
        for name in self.TIMES:
            setattr(self, name, int(state.numbers[name]))
        for name in Jumps.NUMBERS:
            setattr(self._jumps, name, state.numbers[name])
        self._signature = list(state.signature)
        self._price, self._closed = state.prices
        self._ring = list(state.seconds)
        self._minutes = deque(state.minutes, maxlen=DAY_MINUTES)
        self._halves = deque(state.halves, maxlen=HOUR)
        self._season = list(state.season)
        self._pending = deque(state.pending, maxlen=HOUR + 1)
        self._residuals = list(state.residuals)
        for i, recent in enumerate((self._ring[-60:], self._ring)):
            known = [x for x in recent if x >= 0.0]
            self._sums[i], self._counts[i] = fsum(known), len(known)
        self._rescale()
