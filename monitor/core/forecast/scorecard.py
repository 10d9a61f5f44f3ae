"""What the forecasts have been worth, graded in the open.

A forecast is registered before the fact and given its verdict once the label rule has decided its
window. `Scorecard` keeps the figures of one horizon; those of the alarms are in `alarms`. Sums fade
with a half-life, so that memory is bounded and the past forgets.
What counts as worse is in `evidence`, what nobody saw in `unseen`.
"""

from collections import deque
from math import isfinite
from typing import Final

from msgspec import Struct, structs

from monitor.core.forecast.evidence import (
    ENOUGH_DAYS,
    HALF_LIFE_DAYS,
    Days,
    Sums,
    brier,
    log_loss,
)
from monitor.core.forecast.unseen import REFRACTORY_S, WAIT_S, WHY, Unseen, merged
from monitor.core.saved import StateError
from monitor.events import NS, Author, Direction, Forecast, ForecastVerdict, Ungraded

STATE_VERSION: Final = 2

INTERVAL_S: Final = 60
"""Between two registered forecasts of a horizon."""
ENOUGH_ONSETS: Final = 5.0
"""Onsets, faded, before a forecast is more than unproven; some two months' worth (model.md C2).

A forecaster is dropped only after as many happened or, by its own word, should have: in a quiet
fortnight whoever says less always looks better.
"""
GAP_S: Final = 120
"""A longer silence between two calls is time that was not watched."""
MAX_PENDING: Final = 512
MAX_KEPT: Final = 256
"""Onsets, and stretches that nobody can judge, which have to outlast an hour's window and the half
hour after it."""

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
        matured, unresolved: forecasts that were graded and that cannot be, ever; `pending` await
            the end of their window, or what the label rule still waits for.
        ungraded: the unresolved by reason.
        next_due_us: end of the oldest pending window in microseconds, None while none is pending;
            its verdict comes at the end of that minute or, where open interest is awaited, up to
            ten later.
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
    ungraded: dict[Ungraded, int]
    pending: int
    next_due_us: int | None
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


def _checked(name: str, p: float | None) -> None:
    if p is not None and not (isfinite(p) and 0 <= p <= 1):
        raise ValueError(f"{name} is {p}, expected a probability")


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
    unseen: list[Unseen]
    counts: dict[str, int]
    ungraded: dict[Ungraded, int]
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
        self._onsets: deque[int] = deque(maxlen=MAX_KEPT)
        self._unseen: deque[Unseen] = deque(maxlen=MAX_KEPT)
        self._matured = self._refused = self._positive = 0
        self._ungraded: dict[Ungraded, int] = dict.fromkeys(WHY, 0)
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
    def ungraded(self) -> dict[Ungraded, int]:
        """Forecasts that cannot be graded, by reason, ever."""
        return dict(self._ungraded)

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

    def unseen(self, since: int, until: int, why: Ungraded, *, possible: bool = False) -> None:
        """The label rule cannot say whether an event began in ``(since, until]``, and `why`.

        `possible`: the price moved as if one did.
        """
        merged(self._unseen, Unseen(since, until, why, possible))

    def mature(self, at: int, through: int) -> list[ForecastVerdict]:
        """Verdicts on the forecasts whose window ends by `through`, up to where the label decided.

        An onset in ``(forecast, due]`` makes the outcome true; otherwise a stretch that nobody saw
        makes it unknown. So does an onset up to `REFRACTORY_S` before the forecast, which could
        neither hit nor miss: in the middle of a cascade to say so is no false alarm. So does what
        may have been one.
        """
        if self._at and at - self._at > GAP_S * NS:
            self.unseen(self._at, at, "away")
        self._at = at
        verdicts = []
        while self._pending:
            forecast = self._pending[0]
            if forecast.due <= through:
                first, why = self._found(forecast.at, forecast.due)
            elif forecast.due + WAIT_S * NS <= at:
                first, why = 0, "undecided"
            else:
                break
            self._pending.popleft()
            verdicts.append(self._verdict(forecast, at=at, onset=first, why=why))
        return verdicts

    def _found(self, start: int, due: int) -> tuple[int, Ungraded | None]:
        """The first onset in ``(start, due]``, 0 without one, and why that is no verdict."""
        if any(0 <= start - onset < REFRACTORY_S * NS for onset in self._onsets):
            return 0, "under_way"
        if any(stretch.hides(start) for stretch in self._unseen):
            return 0, "perhaps_under_way"
        hits = [onset for onset in self._onsets if start < onset <= due]
        if hits:
            return min(hits), None
        # What may have been a cascade says more than a minute that was merely not heard.
        unseen = [s for s in self._unseen if s.since < due and s.until > start]
        unseen.sort(key=lambda s: (not s.possible, s.since))
        return 0, unseen[0].why if unseen else None

    def _verdict(
        self, forecast: Forecast, *, at: int, onset: int, why: Ungraded | None
    ) -> ForecastVerdict:
        outcome: bool | None = None
        if why is None:
            outcome = onset > 0
            self._count(forecast, outcome=outcome, onset=onset)
        else:
            self._ungraded[why] += 1
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
            ungraded=why,
            why="" if why is None else WHY[why],
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
            unresolved=sum(self._ungraded.values()),
            ungraded=self.ungraded,
            pending=len(self._pending),
            next_due_us=self._pending[0].due // 1000 if self._pending else None,
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
                "refused": self._refused,
                "positive": self._positive,
            },
            ungraded=self.ungraded,
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
        fits = set(state.ungraded) == set(WHY) and len(state.bins) == len(self._bins)
        if not fits or len(state.pending) > MAX_PENDING:
            raise StateError("scorecard of another shape")
        kept = (state.climate, state.baseline, state.map)
        days = (state.against_climate, state.against_baseline)
        numbers = [v for part in (*kept, *days) for v in structs.astuple(part)]
        numbers += [state.recent_onsets, *(v for row in state.bins for v in row)]
        if not all(isfinite(number) for number in numbers):
            raise StateError("scorecard with a number that is not finite")
        try:
            self._matured = state.counts["matured"]
            self._refused, self._positive = state.counts["refused"], state.counts["positive"]
        except KeyError as missing:
            raise StateError(f"scorecard without {missing}") from missing
        self._at, self._registered_at = state.at, state.registered_at
        self._faded_at, self._last_onset = state.faded_at, state.last_onset
        self._pending = deque(state.pending)
        self._onsets = deque(state.onsets, maxlen=MAX_KEPT)
        self._unseen = deque(state.unseen, maxlen=MAX_KEPT)
        self._ungraded = {why: state.ungraded[why] for why in WHY}
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
