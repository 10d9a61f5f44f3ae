"""What the forecasts have been worth, graded in the open.

A forecast is registered before the fact and given its verdict once the label rule has decided its
window. `Scorecard` keeps the figures of one horizon; those of the alarms are in `alarms`. Sums fade
with a half-life, so that memory is bounded and the past forgets.

Forecasts overlap and events of a day are one cluster, so evidence is counted in UTC days: whether
one forecaster is worse than another is asked of the daily means of their log scores.
"""

from collections import deque
from math import isfinite, log, sqrt
from typing import Final

from msgspec import Struct, structs

from monitor.core.saved import StateError
from monitor.events import NS, Author, Direction, Forecast, ForecastVerdict

STATE_VERSION: Final = 1

INTERVAL_S: Final = 60
"""Between two registered forecasts of a horizon."""
HALF_LIFE_DAYS: Final = 30.0
ENOUGH_DAYS: Final = 14.0
"""UTC days, faded, before a skill is believed."""
ENOUGH_ONSETS: Final = 5.0
"""Onsets, faded, before a forecast is more than unproven; some two months' worth (model.md C2).

A forecaster is dropped only after as many happened or, by its own word, should have: in a quiet
fortnight whoever says less always looks better.
"""
DOUBT: Final = 1.64
"""Standard errors by which a daily mean must be worse: one in twenty by chance."""
WAIT_S: Final = 21_600
"""A forecast that the label has not decided so long after its window stays unresolved."""
REFRACTORY_S: Final = 1800
"""For so long after an onset there can be no other (model.md A12)."""
GAP_S: Final = 120
"""A longer silence between two calls is time that was not watched."""
MAX_PENDING: Final = 512
MAX_ONSETS: Final = 256
FLOOR: Final = 1e-6
"""Probabilities are clipped here and at 1 - 1e-6 before their logarithm is taken."""

EDGES: Final = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 0.6, 1.0)
"""Of the reliability bins, in probability."""

ABSTAIN_COVERAGE: Final = 0.5
"""Share of the open interest whose inputs are heard, below which no forecast is stood by."""
ABSTAIN_CONFIDENCE: Final = 0.2
RETURN_MARGIN: Final = 0.05
"""How far above its bar either must be before abstention ends."""


class ReliabilityBin(Struct, frozen=True):
    """Forecasts in ``[low, high)``: how many (faded), what they said and what happened."""

    low: float
    high: float
    count: float
    forecast: float | None
    observed: float | None


class Skill(Struct, frozen=True, kw_only=True):
    """The figures of one horizon; None where there is nothing to compute them from.

    Attributes:
        matured, unresolved: forecasts with and without a verdict, ever; `pending` await theirs.
        onsets: distinct onsets among the matured, ever.
        days: UTC days of evidence, faded.
        using: whose probability is published.
        abstaining: why it is not stood by, else empty.
        unproven: too little evidence to believe the skill, which is not abstention.
        brier, log_score: of what was published, both better when lower; the latter in nats.
        brier_skill, log_skill: against climatology, 1 is perfect and below 0 is worse.
        *_baseline: against the no-map baseline, where there was one.
        map_log_skill: the map's own against the baseline, also while that is published.
    """

    asset: str
    direction: Direction
    horizon_s: int
    matured: int
    unresolved: int
    pending: int
    onsets: int
    days: float
    using: Author
    abstaining: str
    unproven: bool
    brier: float | None
    brier_skill: float | None
    brier_skill_baseline: float | None
    log_score: float | None
    log_skill: float | None
    log_skill_baseline: float | None
    map_log_skill: float | None
    reliability: list[ReliabilityBin]


def brier(probability: float, outcome: bool) -> float:  # noqa: FBT001  the outcome is the datum
    """Squared error of a probability."""
    return (probability - outcome) ** 2


def log_loss(probability: float, outcome: bool) -> float:  # noqa: FBT001  the outcome is the datum
    """Surprise in nats, with probabilities kept off 0 and 1."""
    kept = min(max(probability, FLOOR), 1 - FLOOR)
    return -log(kept if outcome else 1 - kept)


def _checked(name: str, p: float | None) -> None:
    if p is not None and not (isfinite(p) and 0 <= p <= 1):
        raise ValueError(f"{name} is {p}, expected a probability")


class Decided:
    """Up to where the label rule has decided one direction; its verdicts come out of order."""

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._latest = 0
        self.through = 0
        """Every minute that ends by then has its verdict; what `mature` takes."""

    def heard(self, minute: int) -> None:
        """A minute that ends then was given to the label rule; minutes come in order."""
        self._latest = minute
        self._waiting.append(minute)
        while self._waiting[0] < minute - WAIT_S * NS:
            # Nothing waits for its verdict any longer.
            self._waiting.popleft()

    def judged(self, minute: int) -> None:
        """The verdict on a minute came."""
        if minute not in self._waiting:
            return
        self._waiting.remove(minute)
        before = self._waiting[0] - 60 * NS if self._waiting else self._latest
        self.through = max(self.through, before)

    def state(self) -> list[int]:
        """For the engine's saved state."""
        return [self.through, *self._waiting, self._latest]

    def restore(self, state: list[int]) -> None:
        """Take over a saved state; StateError when it is none."""
        if len(state) < 2 or state != sorted(state):
            raise StateError("label's decided minutes are out of order")
        self.through, *waiting, self._latest = state
        self._waiting = deque(waiting)


# ------------------------------------------------------------------------------------ evidence


class Sums(Struct):
    """Faded sums over the forecasts that were given the same comparison."""

    count: float = 0.0
    said: float = 0.0
    brier: float = 0.0
    log: float = 0.0
    other_brier: float = 0.0
    other_log: float = 0.0

    def add(self, p: float, other: float, *, outcome: bool) -> None:
        """Count one forecast beside the other forecaster's."""
        self.count += 1
        self.said += p
        self.brier += brier(p, outcome)
        self.log += log_loss(p, outcome)
        self.other_brier += brier(other, outcome)
        self.other_log += log_loss(other, outcome)

    def fade(self, by: float) -> None:
        """Weigh the past less."""
        self.count *= by
        self.said *= by
        self.brier *= by
        self.log *= by
        self.other_brier *= by
        self.other_log *= by


class Days(Struct):
    """Daily means of a difference of log scores, faded; positive days are worse ones."""

    day: int = -1
    today: float = 0.0
    counted: int = 0
    weight: float = 0.0
    squares: float = 0.0
    total: float = 0.0
    total_squares: float = 0.0

    def add(self, day: int, difference: float) -> None:
        """Count one forecast's difference on its UTC day; days come in order."""
        if day != self.day:
            self._close(day)
        self.today += difference
        self.counted += 1

    def _close(self, day: int) -> None:
        by = 0.5 ** ((day - self.day) / HALF_LIFE_DAYS) if self.day >= 0 else 1.0
        if self.counted:
            mean = self.today / self.counted
            self.weight += 1
            self.squares += 1
            self.total += mean
            self.total_squares += mean * mean
        self.weight *= by
        self.squares *= by * by
        self.total *= by
        self.total_squares *= by
        self.day, self.today, self.counted = day, 0.0, 0

    def effective(self) -> float:
        """How many equally weighted days the closed ones are worth."""
        return self.weight**2 / self.squares if self.squares > 0 else 0.0

    def is_worse(self) -> bool:
        """Whether the mean is above 0 by more than chance, on enough days."""
        days = self.effective()
        if days < ENOUGH_DAYS:
            return False
        mean = self.total / self.weight
        variance = max(0.0, self.total_squares / self.weight - mean * mean)
        return mean > DOUBT * sqrt(variance / (days - 1)) and mean > 0

    def is_better(self) -> bool:
        """Whether the mean is below 0."""
        return self.total < 0


class ScorecardState(Struct, frozen=True):
    """A saved scorecard."""

    version: int
    asset: str
    direction: Direction
    horizon_s: int
    at: int
    registered_at: int
    faded_at: int
    pending: list[Forecast]
    onsets: list[int]
    unseen: list[tuple[int, int]]
    counts: dict[str, int]
    last_onset: int
    recent_onsets: float
    climate: Sums
    baseline: Sums
    map: Sums
    against_climate: Days
    against_baseline: Days
    bins: list[tuple[float, float, float]]
    using: Author
    poor_data: str
    poor_skill: bool


class Scorecard:
    """Forecasts of one asset, direction and horizon, and what became of them."""

    def __init__(self, asset: str, direction: Direction, horizon_s: int) -> None:
        self._asset = asset
        self._direction: Direction = direction
        self._horizon_s = horizon_s
        self._at = 0
        self._registered_at = 0
        self._faded_at = 0
        self._pending: deque[Forecast] = deque()
        self._onsets: deque[int] = deque(maxlen=MAX_ONSETS)
        self._unseen: deque[tuple[int, int]] = deque(maxlen=MAX_ONSETS)
        self._matured = self._unresolved = self._refused = self._positive = 0
        self._last_onset = 0
        self._recent_onsets = 0.0
        self._climate, self._baseline, self._map = Sums(), Sums(), Sums()
        self._against_climate, self._against_baseline = Days(), Days()
        self._bins = [(0.0, 0.0, 0.0)] * (len(EDGES) - 1)
        self._using: Author = "map"
        self._poor_data = ""
        self._poor_skill = False

    @property
    def using(self) -> Author:
        """Whose probability is to be published."""
        return self._using

    @property
    def abstaining(self) -> str:
        """Why no forecast is stood by, else empty."""
        if self._poor_data:
            return self._poor_data
        if self._poor_skill:
            return f"worse than climatology over {self._against_climate.effective():.0f} days"
        return ""

    def published(self, p_map: float | None, p_baseline: float | None) -> float | None:
        """The probability to publish; the other forecaster's where the one in use has none."""
        first, second = (p_map, p_baseline) if self._using == "map" else (p_baseline, p_map)
        return second if first is None else first

    def assess(self, coverage: float | None, confidence: float | None) -> str:
        """Judge the data of this moment; why no forecast is stood by, else empty."""
        margin = RETURN_MARGIN if self._poor_data else 0.0
        self._poor_data = ""
        for name, value, bar in (
            ("coverage", coverage, ABSTAIN_COVERAGE),
            ("confidence", confidence, ABSTAIN_CONFIDENCE),
        ):
            if value is None or not isfinite(value):
                self._poor_data = f"{name} unknown"
            elif value < bar + margin:
                self._poor_data = f"{name} {100 * value:.0f} % below {100 * (bar + margin):.0f} %"
            if self._poor_data:
                break
        return self.abstaining

    def register(
        self, at: int, p_map: float | None, p_baseline: float | None, p_climatology: float
    ) -> Forecast | None:
        """Note what is published at `at`; None when none is due or there is no probability.

        Raises:
            ValueError: a number is not a probability.
        """
        for name, p in (("p_map", p_map), ("p_baseline", p_baseline), ("climate", p_climatology)):
            _checked(name, p)
        p = self.published(p_map, p_baseline)
        if p is None or at - self._registered_at < INTERVAL_S * NS:
            return None
        if len(self._pending) >= MAX_PENDING:
            # Nothing is published as registered that could not be given its verdict.
            self._refused += 1
            return None
        self._registered_at = at
        own = self._using == "map"
        forecast = Forecast(
            id=f"{self._asset}:{self._direction}:{self._horizon_s}:{at // NS}",
            asset=self._asset,
            direction=self._direction,
            horizon_s=self._horizon_s,
            at=at,
            due=at + self._horizon_s * NS,
            probability=p,
            using="map" if p_baseline is None or (own and p_map is not None) else "baseline",
            p_map=p_map,
            p_baseline=p_baseline,
            p_climatology=p_climatology,
            abstaining=self.abstaining,
        )
        self._pending.append(forecast)
        return forecast

    def onset(self, at: int) -> None:
        """The label rule found an event in the minute that ends at `at`.

        Register at the end of a minute, so that no forecast counts the one that it saw.
        """
        if at not in self._onsets:
            self._onsets.append(at)

    def unseen(self, since: int, until: int) -> None:
        """The label rule cannot say whether an event began in ``(since, until]``."""
        if self._unseen and since <= self._unseen[-1][1]:
            earlier, later = self._unseen.pop()
            since, until = min(since, earlier), max(until, later)
        self._unseen.append((since, until))

    def mature(self, at: int, through: int) -> list[ForecastVerdict]:
        """Verdicts on the forecasts whose window ends by `through`, up to where the label decided.

        An onset in ``(forecast, due]`` makes the outcome true; otherwise a stretch that nobody saw
        makes it unknown. So does an onset up to `REFRACTORY_S` before the forecast, which could
        neither hit nor miss: in the middle of a cascade to say so is no false alarm.
        """
        if self._at and at - self._at > GAP_S * NS:
            self.unseen(self._at, at)
        self._at = at
        verdicts = []
        while self._pending:
            forecast = self._pending[0]
            start, due = forecast.at, forecast.due
            if due <= through:
                hits = [onset for onset in self._onsets if start < onset <= due]
                seen = not any(since < due and until > start for since, until in self._unseen)
                outcome = True if hits else False if seen else None
                first = min(hits, default=0)
                if any(0 <= start - onset < REFRACTORY_S * NS for onset in self._onsets):
                    outcome = None
            elif due + WAIT_S * NS <= at:
                outcome, first = None, 0
            else:
                break
            self._pending.popleft()
            verdicts.append(self._verdict(forecast, outcome=outcome, at=at, onset=first))
        return verdicts

    def _verdict(
        self, forecast: Forecast, *, outcome: bool | None, at: int, onset: int
    ) -> ForecastVerdict:
        if outcome is None:
            self._unresolved += 1
        else:
            self._count(forecast, outcome=outcome, onset=onset)
        return ForecastVerdict(
            id=forecast.id,
            asset=self._asset,
            direction=self._direction,
            horizon_s=self._horizon_s,
            forecast_at=forecast.at,
            at=at,
            probability=forecast.probability,
            outcome=outcome,
            brier=None if outcome is None else brier(forecast.probability, outcome),
            log_score=None if outcome is None else log_loss(forecast.probability, outcome),
        )

    def _count(self, f: Forecast, *, outcome: bool, onset: int) -> None:
        passed = max(0, f.at - self._faded_at) if self._faded_at else 0
        self._faded_at = max(self._faded_at, f.at)
        by = 0.5 ** (passed / (HALF_LIFE_DAYS * 86_400 * NS))
        for sums in (self._climate, self._baseline, self._map):
            sums.fade(by)
        self._recent_onsets *= by
        self._bins = [(n * by, said * by, hit * by) for n, said, hit in self._bins]
        self._matured += 1
        if onset > self._last_onset:
            self._last_onset = onset
            self._positive += 1
            self._recent_onsets += 1
        p, day = f.probability, f.at // (86_400 * NS)
        self._climate.add(p, f.p_climatology, outcome=outcome)
        worse = log_loss(p, outcome) - log_loss(f.p_climatology, outcome)
        self._against_climate.add(day, worse)
        if f.p_baseline is not None:
            self._baseline.add(p, f.p_baseline, outcome=outcome)
        if f.p_map is not None and f.p_baseline is not None:
            self._map.add(f.p_map, f.p_baseline, outcome=outcome)
            worse = log_loss(f.p_map, outcome) - log_loss(f.p_baseline, outcome)
            self._against_baseline.add(day, worse)
        i = max(k for k in range(len(self._bins)) if p >= EDGES[k])
        n, said, hit = self._bins[i]
        self._bins[i] = (n + 1, said + p, hit + outcome)
        self._decide()

    def _decide(self) -> None:
        """Who is published, and whether skill is bad enough to abstain."""
        if self._using == "map" and self._against_baseline.is_worse() and self._tested(self._map):
            self._using = "baseline"
        elif self._using == "baseline" and self._against_baseline.is_better():
            self._using = "map"
        if self._against_climate.is_worse() and self._tested(self._climate):
            self._poor_skill = True
        elif self._against_climate.is_better():
            self._poor_skill = False

    def _tested(self, sums: Sums) -> bool:
        """Whether enough onsets happened, or should have by the forecaster's own word."""
        # Windows overlap: an onset falls into that many of them.
        expected = sums.said * INTERVAL_S / self._horizon_s
        return max(expected, self._recent_onsets) >= ENOUGH_ONSETS

    def skill(self) -> Skill:
        """The figures so far."""
        climate, base, own = self._climate, self._baseline, self._map
        days = self._against_climate.effective()
        return Skill(
            asset=self._asset,
            direction=self._direction,
            horizon_s=self._horizon_s,
            matured=self._matured,
            unresolved=self._unresolved,
            pending=len(self._pending),
            onsets=self._positive,
            days=days,
            using=self._using,
            abstaining=self.abstaining,
            unproven=days < ENOUGH_DAYS or self._recent_onsets < ENOUGH_ONSETS,
            brier=ratio(climate.brier, climate.count),
            brier_skill=_better(climate.brier, climate.other_brier),
            brier_skill_baseline=_better(base.brier, base.other_brier),
            log_score=ratio(climate.log, climate.count),
            log_skill=_better(climate.log, climate.other_log),
            log_skill_baseline=_better(base.log, base.other_log),
            map_log_skill=_better(own.log, own.other_log),
            reliability=[
                ReliabilityBin(low, high, n, ratio(said, n), ratio(hit, n))
                for low, high, (n, said, hit) in zip(EDGES, EDGES[1:], self._bins, strict=False)
            ],
        )

    def state(self) -> ScorecardState:
        """For the engine's saved state."""
        return ScorecardState(
            version=STATE_VERSION,
            asset=self._asset,
            direction=self._direction,
            horizon_s=self._horizon_s,
            at=self._at,
            registered_at=self._registered_at,
            faded_at=self._faded_at,
            pending=list(self._pending),
            onsets=list(self._onsets),
            unseen=list(self._unseen),
            counts={
                "matured": self._matured,
                "unresolved": self._unresolved,
                "refused": self._refused,
                "positive": self._positive,
            },
            last_onset=self._last_onset,
            recent_onsets=self._recent_onsets,
            climate=structs.replace(self._climate),
            baseline=structs.replace(self._baseline),
            map=structs.replace(self._map),
            against_climate=structs.replace(self._against_climate),
            against_baseline=structs.replace(self._against_baseline),
            bins=list(self._bins),
            using=self._using,
            poor_data=self._poor_data,
            poor_skill=self._poor_skill,
        )

    def restore(self, state: ScorecardState) -> None:
        """Take over a saved state; the time in between counts as unseen.

        Raises:
            StateError: it is another's, or damaged.
        """
        theirs = (state.version, state.asset, state.direction, state.horizon_s)
        if theirs != (STATE_VERSION, self._asset, self._direction, self._horizon_s):
            raise StateError(f"scorecard of {theirs}")
        if len(state.bins) != len(self._bins) or len(state.pending) > MAX_PENDING:
            raise StateError("scorecard of another shape")
        kept = (state.climate, state.baseline, state.map)
        days = (state.against_climate, state.against_baseline)
        numbers = [v for part in (*kept, *days) for v in structs.astuple(part)]
        numbers += [state.recent_onsets, *(v for row in state.bins for v in row)]
        if not all(isfinite(number) for number in numbers):
            raise StateError("scorecard with a number that is not finite")
        try:
            self._matured, self._unresolved = state.counts["matured"], state.counts["unresolved"]
            self._refused, self._positive = state.counts["refused"], state.counts["positive"]
        except KeyError as missing:
            raise StateError(f"scorecard without {missing}") from missing
        self._at, self._registered_at = state.at, state.registered_at
        self._faded_at, self._last_onset = state.faded_at, state.last_onset
        self._pending = deque(state.pending)
        self._onsets = deque(state.onsets, maxlen=MAX_ONSETS)
        self._unseen = deque(state.unseen, maxlen=MAX_ONSETS)
        self._recent_onsets = state.recent_onsets
        self._climate, self._baseline, self._map = (structs.replace(part) for part in kept)
        self._against_climate, self._against_baseline = (structs.replace(part) for part in days)
        self._bins = list(state.bins)
        self._using, self._poor_data = state.using, state.poor_data
        self._poor_skill = state.poor_skill


def ratio(part: float, whole: float) -> float | None:
    """A share; None of nothing."""
    return part / whole if whole > 0 else None


def _better(own: float, other: float) -> float | None:
    """``1 - own / other``: the skill of one sum of losses against another."""
    return 1 - own / other if other > 0 else None
