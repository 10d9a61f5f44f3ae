"""What the alarms of one direction have been worth: right, wrong, in time (model.md C2)."""

from collections import deque
from math import isfinite
from typing import Final

from msgspec import Struct

from monitor.core.forecast.evidence import HALF_LIFE_DAYS
from monitor.core.forecast.scorecard import GAP_S, MAX_KEPT, STATE_VERSION, ratio
from monitor.core.forecast.unseen import REFRACTORY_S, Unseen, merged
from monitor.core.saved import StateError
from monitor.events import NS, Direction, Ungraded

LEAD_EDGES_S: Final = (0.0, 60.0, 300.0, 900.0, 3600.0)
"""Lead times are counted up to each of these; a longer one is claimed as the last (C3)."""
GRACE_S: Final = 900
"""An onset so soon before or after an alarm still confirms it; after its begin without a lead."""
MAX_ALARMS: Final = 256


class AlarmScore(Struct, frozen=True, kw_only=True):
    """What the alarms of one direction were worth; None where there were none.

    Attributes:
        alarms, onsets: decided so far, faded; `*_total` are ever.
        undecided_total: alarms that are neither right nor wrong, because nobody can say whether a
            cascade began within `GRACE_S` of them; not among the others.
        precision: share of alarms with an onset within `GRACE_S` of them.
        recall: share of onsets that an alarm preceded.
        alarm_share: share of the time in alarm, what the recall costs (Molchan, C2).
        lead_median_s: over the last onsets, those without any lead counted as 0.
        leads: onsets by lead, up to each of `LEAD_EDGES_S`; the first are those without any.
        false_alarms_per_day: over watched days; those within `REFRACTORY_S` of one are one.
    """

    asset: str
    direction: Direction
    alarms_total: int
    onsets_total: int
    false_alarms_total: int
    undecided_total: int
    alarms: float
    onsets: float
    observed_days: float
    precision: float | None
    recall: float | None
    alarm_share: float | None
    lead_median_s: float | None
    leads: list[int]
    false_alarms_per_day: float | None


class AlarmState(Struct, frozen=True):
    """A saved record of alarms."""

    version: int
    asset: str
    direction: Direction
    at: int
    standing: int | None
    ended: list[tuple[int, int]]
    decided: list[tuple[int, int]]
    onsets: list[int]
    unseen: list[Unseen]
    leads: list[float]
    spread: list[int]
    sums: dict[str, float]
    counts: dict[str, int]
    last_false: int


class AlarmRecord:
    """Alarms (``warning`` or above) of one asset and direction against the label's onsets."""

    SUMS = ("alarms", "true", "false", "onsets", "preceded", "days", "standing")
    COUNTS = ("alarms", "false", "undecided", "onsets")

    def __init__(self, asset: str, direction: Direction) -> None:
        self._asset = asset
        self._direction: Direction = direction
        self._at = 0
        self._standing: int | None = None
        # Alarms as (begin, end), the open one not among them, until they are decided.
        self._ended: deque[tuple[int, int]] = deque(maxlen=MAX_ALARMS)
        # The last ones decided, for onsets that the label finds late.
        self._past: deque[tuple[int, int]] = deque(maxlen=MAX_ALARMS)
        self._onsets: deque[int] = deque(maxlen=MAX_KEPT)
        self._unseen: deque[Unseen] = deque(maxlen=MAX_KEPT)
        self._leads: deque[float] = deque(maxlen=MAX_KEPT)
        self._spread = [0] * len(LEAD_EDGES_S)
        self._sums = dict.fromkeys(self.SUMS, 0.0)
        self._counts = dict.fromkeys(self.COUNTS, 0)
        self._last_false = 0

    def step(self, at: int, *, is_alarm: bool | None) -> None:
        """Whether an alarm stands now, None if as before; time not watched is not counted."""
        if self._at:
            passed = max(0, at - self._at)
            by = 0.5 ** (passed / (HALF_LIFE_DAYS * 86_400 * NS))
            for name in self.SUMS:
                self._sums[name] *= by
            if passed <= GAP_S * NS:
                days = passed / (86_400 * NS)
                self._sums["days"] += days
                self._sums["standing"] += days if self._standing is not None else 0.0
            else:
                self.unseen(self._at, at, "away")
        self._at = at
        if is_alarm and self._standing is None:
            self._standing = at
        elif is_alarm is False and self._standing is not None:
            self._ended.append((self._standing, at))
            self._standing = None

    def onset(self, at: int) -> None:
        """The label rule found an event that began at `at`; leads are taken at once.

        Give the beginning of the label's minute: an alarm within it has not been ahead.

        An alarm that ended before the onset, but no more than `GRACE_S`, has its lead too. Where it
        may have begun earlier, in minutes that could not be told, no alarm within them has one.
        """
        at = min([at, *(s.since for s in self._unseen if s.hides(at))])
        if at in self._onsets:
            return
        self._onsets.append(at)
        begins = [
            begin for begin, end in (*self._past, *self._ended) if begin < at <= end + GRACE_S * NS
        ]
        if self._standing is not None and self._standing < at:
            begins.append(self._standing)
        lead = min((at - min(begins)) / NS, LEAD_EDGES_S[-1]) if begins else 0.0
        self._leads.append(lead)
        self._spread[sum(lead > edge for edge in LEAD_EDGES_S)] += 1
        self._sums["onsets"] += 1
        self._counts["onsets"] += 1
        self._sums["preceded"] += lead > 0

    def unseen(self, since: int, until: int, why: Ungraded, *, possible: bool = False) -> None:
        """The label rule cannot say whether an event began in ``(since, until]``.

        `possible`: the price moved as if one did.
        """
        merged(self._unseen, Unseen(since, until, why, possible))

    def mature(self, through: int) -> None:
        """Decide the alarms that the label can no longer confirm after `through`."""
        while self._ended and self._ended[0][1] + GRACE_S * NS <= through:
            begin, end = self._ended.popleft()
            self._past.append((begin, end))
            near = (begin - GRACE_S * NS, end + GRACE_S * NS)
            is_true = any(near[0] <= onset <= near[1] for onset in self._onsets)
            if not is_true and any(s.since < near[1] and near[0] < s.until for s in self._unseen):
                self._counts["undecided"] += 1
                continue
            self._sums["alarms"] += 1
            self._counts["alarms"] += 1
            if is_true:
                self._sums["true"] += 1
            elif not self._last_false or begin - self._last_false >= REFRACTORY_S * NS:
                self._sums["false"] += 1
                self._counts["false"] += 1
                self._last_false = begin

    def score(self) -> AlarmScore:
        """The figures so far."""
        sums, leads = self._sums, sorted(self._leads)
        middle = len(leads) // 2
        median = None
        if leads:
            median = leads[middle] if len(leads) % 2 else (leads[middle - 1] + leads[middle]) / 2
        return AlarmScore(
            asset=self._asset,
            direction=self._direction,
            alarms_total=self._counts["alarms"],
            onsets_total=self._counts["onsets"],
            false_alarms_total=self._counts["false"],
            undecided_total=self._counts["undecided"],
            alarms=sums["alarms"],
            onsets=sums["onsets"],
            observed_days=sums["days"],
            precision=ratio(sums["true"], sums["alarms"]),
            recall=ratio(sums["preceded"], sums["onsets"]),
            alarm_share=ratio(sums["standing"], sums["days"]),
            lead_median_s=median,
            leads=list(self._spread),
            false_alarms_per_day=ratio(sums["false"], sums["days"]),
        )

    def state(self) -> AlarmState:
        """For the engine's saved state."""
        return AlarmState(
            version=STATE_VERSION,
            asset=self._asset,
            direction=self._direction,
            at=self._at,
            standing=self._standing,
            ended=list(self._ended),
            decided=list(self._past),
            onsets=list(self._onsets),
            unseen=list(self._unseen),
            leads=list(self._leads),
            spread=list(self._spread),
            sums=dict(self._sums),
            counts=dict(self._counts),
            last_false=self._last_false,
        )

    def restore(self, state: AlarmState) -> None:
        """Take over a saved state; StateError when it is another's or damaged."""
        theirs = (state.version, state.asset, state.direction)
        if theirs != (STATE_VERSION, self._asset, self._direction):
            raise StateError(f"alarm record of {theirs}")
        fits = set(state.sums) == set(self.SUMS) and set(state.counts) == set(self.COUNTS)
        if not fits or len(state.spread) != len(self._spread):
            raise StateError("alarm record of another shape")
        if not all(isfinite(number) for number in (*state.sums.values(), *state.leads)):
            raise StateError("alarm record with a number that is not finite")
        self._at, self._standing = state.at, state.standing
        self._ended = deque(state.ended, maxlen=MAX_ALARMS)
        self._past = deque(state.decided, maxlen=MAX_ALARMS)
        self._onsets = deque(state.onsets, maxlen=MAX_KEPT)
        self._unseen = deque(state.unseen, maxlen=MAX_KEPT)
        self._leads = deque(state.leads, maxlen=MAX_KEPT)
        self._spread = list(state.spread)
        self._sums = {name: state.sums[name] for name in self.SUMS}
        self._counts = {name: state.counts[name] for name in self.COUNTS}
        self._last_false = state.last_false
