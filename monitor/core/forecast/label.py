"""What counts as a cascade, minute by minute (model.md A12).

The scorecard and the fitting use this one rule. A minute is the onset of a cascade when, within
the five minutes that it ends, the price moved far, open interest fell, and the side that the move
hurts was liquidated unusually. What cannot be known is None, never "nothing happened".
"""

from collections import deque
from collections.abc import Iterable, Sequence
from math import inf, isfinite, log, sqrt
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from monitor.core.forecast.usual import BUCKETS, Usual
from monitor.core.saved import StateError
from monitor.events import NS, Direction, Ungraded

Tier: TypeAlias = Literal[1, 2, 3]
TIERS: Final[tuple[Tier, ...]] = (1, 2, 3)
DIRECTIONS: Final[tuple[Direction, ...]] = ("down", "up")
MINUTE_NS: Final = 60 * NS

_WINDOW: Final = 5


class LabelRule(Struct, frozen=True):
    """Thresholds of the label.

    Attributes:
        least_move: absolute log move that is asked for at least: 1 % of majors, 2 % of others.
        sigmas: multiples of the usual standard deviation over five minutes asked for as well.
        tiers: fall of open interest for T1, T2 and T3.
        quantile: liquidations of the side must reach this quantile of their five-minute sums.
        refractory_min: minutes after an onset in which there is no other of its tier.
        memory_min: minutes over which the usual volatility is remembered.
        history_min: minutes over which liquidations are remembered.
        least_min: minutes of hearing before the usual volatility counts as known.
        lent: factor by which a volatility that was not heard (`Minute.usual`) may be wrong either
            way; it serves until `least_min` have been.
        least_sums: five-minute sums heard before their quantile counts as known.
        beyond: liquidated share of the open interest that needs no history. To be usual, it would
            have had to come 43 times in `history_min`: 7 % of the open interest a day from one
            side, for a month, where 1 to 5 % from both are known (model.md C1).
        reading_min: a reading of open interest older than this does not speak for its minute.
    """

    least_move: float = 0.01
    sigmas: float = 6.0
    tiers: tuple[float, float, float] = (0.0075, 0.015, 0.03)
    quantile: float = 0.995
    refractory_min: int = 30
    memory_min: int = 1_440
    history_min: int = 43_200
    least_min: int = 60
    lent: float = 2.0
    least_sums: int = 1_440
    beyond: float = 0.05
    reading_min: int = 10


class Verdict(Struct, frozen=True):
    """What a minute turned out to be in one direction.

    Attributes:
        at: end of the minute (ns).
        direction: where the price went.
        onsets: tiers of which this minute is an onset; empty where of none; None where that
            cannot be known.
        unknown: why it cannot; None where it can.
        possible: it cannot, and the price is known to have moved by the least that is asked for:
            this may have been one.
    """

    at: int
    direction: Direction
    onsets: tuple[Tier, ...] | None
    unknown: Ungraded | None = None
    possible: bool = False


class Minute(Struct, frozen=True):
    """What was heard of one minute of an asset; None where not known.

    Attributes:
        at: its end (ns), a multiple of a minute.
        low: lowest price; like `high` and `close` of one kind of price, mark or mid.
        high: highest price.
        close: last price.
        interest: latest reading of one-sided open interest up to `at`, in units that the price
            does not change: base units, or USD of face for inverse contracts. In USD at mark a
            fall of the price alone would look like deleveraging. None where no reading came
            since the minute before.
        liquidated_long: USD of longs liquidated in the minute, corrected for throttling.
        liquidated_short: the same of shorts.
        usual: standard deviation of a minute's log return over the last day, as candles tell it.
    """

    at: int
    low: float | None
    high: float | None
    close: float | None
    interest: float | None
    liquidated_long: float | None
    liquidated_short: float | None
    usual: float | None = None

    @property
    def prices(self) -> tuple[float, float, float] | None:
        """(low, high, close) where all are known and make sense."""
        if self.low is None or self.high is None or self.close is None:
            return None
        if not 0.0 < self.low <= self.close <= self.high < inf:
            return None
        return self.low, self.high, self.close


class Suspect(Struct):
    """A minute whose move and liquidations qualify, waiting for open interest to tell its tier.

    `doubt` is why it may not qualify, None where it does; `large` whether it is known to have
    moved by the least that is asked for. `before` is open interest at the start of its five
    minutes, `least` the lower of the readings that came with it and after it. Either is None where
    there was none in time.
    """

    at: int
    doubt: Ungraded | None
    large: bool
    before: float | None
    least: float | None
    readings: int


class LabellerState(Struct, frozen=True):
    """A `Labeller` between two runs."""

    minutes: list[Minute]
    variance: float
    returns: int
    sigmas: list[float | None]
    lent: list[float | None]
    counts: list[list[float]]
    heard: list[int]
    suspects: list[list[Suspect]]
    last: list[list[int]]


class Labeller:
    """Verdicts on the minutes of one asset, as soon as they can be given.

    Feed it every minute in order; a minute that was left out makes those around it unknown.
    """

    def __init__(self, rule: LabelRule = LabelRule()) -> None:  # noqa: B008 (frozen)
        self.rule = rule
        # Open interest is looked for as far back as a reading may be old before a window.
        self._minutes: deque[Minute] = deque(maxlen=_WINDOW + rule.reading_min + 1)
        self._variance, self._returns = 0.0, 0
        self._sigmas: deque[float | None] = deque([None] * _WINDOW, maxlen=_WINDOW)
        self._lent: deque[float | None] = deque([None] * _WINDOW, maxlen=_WINDOW)
        self._usual = (Usual(rule.history_min), Usual(rule.history_min))
        self._suspects: tuple[deque[Suspect], deque[Suspect]] = (deque(), deque())
        self._last = [[0] * len(TIERS), [0] * len(TIERS)]

    def heard(self, minute: Minute) -> list[Verdict]:
        """Take the next minute; return the verdicts that became certain, of it or earlier ones.

        Raises:
            ValueError: the minute does not end at a multiple of a minute, or is not a later one.
        """
        if minute.at % MINUTE_NS:
            raise ValueError(f"a minute that ends at {minute.at} ns, within another")
        if self._minutes and minute.at <= self._minutes[-1].at:
            raise ValueError(f"minute {minute.at} after {self._minutes[-1].at}")
        self._minutes.append(minute)
        found: list[Verdict] = []
        for d, direction in enumerate(DIRECTIONS):
            self._read(d, minute)
            moved, large = self._moved(d)
            printed = self._printed(d)
            suspects = self._suspects[d]
            if moved is False or printed is False:
                found.append(Verdict(minute.at, direction, ()))
            else:
                # Where in doubt, open interest may still tell that nothing happened; it cannot
                # tell the contrary.
                doubt = self._doubt(d, moved=moved, printed=printed, large=large)
                suspects.append(self._suspect(minute, doubt, large=large))
            while suspects and self._told(suspects[0], minute.at):
                found.append(self._judged(d, suspects.popleft()))
        self._remember()
        return found

    # ------------------------------------------------------------------------------- conditions

    def _within(self, first: int, last: int) -> list[Minute]:
        """The minutes heard that end between `first` and `last` minutes before the latest."""
        now = self._minutes[-1].at
        return [m for m in self._minutes if last <= (now - m.at) // MINUTE_NS <= first]

    def _moved(self, d: int) -> tuple[bool | None, bool]:
        """Whether the price moved as far as the label asks within five minutes.

        And whether it is known to have moved by the least that is asked for in any market.
        """
        prices = self._minutes[-1].prices
        earlier = self._within(_WINDOW, 1)
        known = [(m.at, p) for m in earlier if (p := m.prices) is not None]
        whole = prices is not None and len(known) == _WINDOW
        if prices is None:
            return None, False
        start = self._minutes[-1].at - _WINDOW * MINUTE_NS
        # Of the minute before the window only its close lies in it.
        if d == 0:
            tops = [close if at == start else high for at, (_, high, close) in known]
            move = log(max(tops) / prices[0]) if tops else 0.0
        else:
            lows = [close if at == start else low for at, (low, _, close) in known]
            move = log(prices[1] / min(lows)) if lows else 0.0
        large = move >= self.rule.least_move
        if whole and not large:
            return False, large
        far = self._far()
        if far is None:
            return None, large
        if move >= far[1]:
            return True, large
        return (False if whole and move < far[0] else None), large

    def _far(self) -> tuple[float, float] | None:
        """Log move that the label asks for, at least and at most; None where that is not known."""
        sigma, doubt = self._sigmas[0], 1.0
        if sigma is None:
            sigma, doubt = self._lent[0], self.rule.lent
        if sigma is None:
            return None
        far = self.rule.sigmas * sigma * sqrt(_WINDOW)
        return max(far / doubt, self.rule.least_move), max(far * doubt, self.rule.least_move)

    def _sum(self, d: int) -> tuple[float, bool]:
        """Liquidated USD of the losing side in five minutes, and whether all of it is known."""
        recent = self._within(_WINDOW - 1, 0)
        usd = [m.liquidated_short if d else m.liquidated_long for m in recent]
        known = [x for x in usd if x is not None and isfinite(x) and x >= 0.0]
        return sum(known), len(known) == _WINDOW

    def _printed(self, d: int) -> bool | None:
        total, whole = self._sum(d)
        usual = self._usual[d]
        if whole and total <= 0.0:
            return False
        if usual.heard < self.rule.least_sums:
            if total > 0.0 and total >= self.rule.beyond * self._open_usd():
                return True
            # So many larger ones would keep it below the quantile of even the longest history.
            most = (1.0 - self.rule.quantile) * self.rule.history_min
            return False if whole and usual.above(total) > most else None
        if total > 0.0 and total >= usual.quantile(self.rule.quantile):
            return True
        return False if whole else None

    def _open_usd(self) -> float:
        """USD of the open interest, rather too much; infinite where it is not known."""
        known = [
            # In whichever of its units it is told.
            interest * max(1.0, prices[1])
            for m in self._minutes
            if (interest := _reading(m)) and (prices := m.prices) is not None
        ]
        return max(known, default=inf)

    def _doubt(
        self, d: int, *, moved: bool | None, printed: bool | None, large: bool
    ) -> Ungraded | None:
        """Why the latest minute may not qualify, where more is wanting what takes longest to come.

        None where move and liquidations are both known to.
        """
        if not large:
            return "price_unheard"
        is_new = self._usual[d].heard < self.rule.least_sums
        if printed is None and is_new and self._sum(d)[0] > 0.0:
            return "liquidations_new"
        if moved is None and self._sigmas[0] is None:
            return "volatility_new"
        if printed is None:
            return "liquidations_unheard"
        return "price_unheard" if moved is None else None

    def _suspect(self, minute: Minute, doubt: Ungraded | None, *, large: bool) -> Suspect:
        oldest = _WINDOW + self.rule.reading_min - 1
        before = [i for m in self._within(oldest, _WINDOW) if (i := _reading(m)) is not None]
        now = _reading(minute)
        return Suspect(
            at=minute.at,
            doubt=doubt,
            large=large,
            before=before[-1] if before else None,
            least=now,
            readings=0 if now is None else 1,
        )

    def _read(self, d: int, minute: Minute) -> None:
        """Give a reading of open interest to the minutes that wait for their next."""
        now = _reading(minute)
        if now is None:
            return
        for suspect in self._suspects[d]:
            if suspect.readings < 2:
                suspect.least = now if suspect.least is None else min(suspect.least, now)
                suspect.readings += 1

    def _told(self, suspect: Suspect, at: int) -> bool:
        late = at - suspect.at >= self.rule.reading_min * MINUTE_NS
        return suspect.before is None or suspect.readings >= 2 or late

    def _judged(self, d: int, suspect: Suspect) -> Verdict:
        """The verdict on a minute for which nothing more is awaited."""
        direction = DIRECTIONS[d]
        quiet, last = self.rule.refractory_min * MINUTE_NS, self._last[d]
        if all(suspect.at - since <= quiet for since in last):
            return Verdict(suspect.at, direction, ())
        why = suspect.doubt or "open_interest_unheard"
        unknown = Verdict(suspect.at, direction, None, why, suspect.large)
        if suspect.before is None or suspect.least is None or suspect.before <= 0.0:
            return unknown
        fall = 1.0 - suspect.least / suspect.before
        reached = [t for t in TIERS if fall >= self.rule.tiers[t - 1]]
        if not reached and suspect.readings >= 2:
            return Verdict(suspect.at, direction, ())
        if suspect.doubt is not None or not reached:
            return unknown
        onsets = tuple(t for t in reached if suspect.at - last[t - 1] > quiet)
        for tier in onsets:
            last[tier - 1] = suspect.at
        return Verdict(suspect.at, direction, onsets)

    def _remember(self) -> None:
        """Add the latest minute to what is usual, after it was judged by what was usual before."""
        for d in (0, 1):
            total, whole = self._sum(d)
            if whole:
                self._usual[d].add(total)
        latest = self._minutes[-1].prices
        before = [p for m in self._within(1, 1) if (p := m.prices) is not None]
        if latest is not None and before:
            self._returns += 1
            share = max(1.0 / self._returns, 1.0 / self.rule.memory_min)
            self._variance += share * (log(latest[2] / before[0][2]) ** 2 - self._variance)
        known = self._returns >= self.rule.least_min
        # Read five minutes later, so that a move is not measured by itself.
        self._sigmas.append(sqrt(self._variance) if known else None)
        lent = self._minutes[-1].usual
        self._lent.append(lent if lent is not None and 0.0 < lent < inf else None)

    # ---------------------------------------------------------------------------------- restarts

    def state(self) -> LabellerState:
        """What a restart must not forget."""
        return LabellerState(
            minutes=list(self._minutes),
            variance=self._variance,
            returns=self._returns,
            sigmas=list(self._sigmas),
            lent=list(self._lent),
            counts=[u.counts[:] for u in self._usual],
            heard=[u.heard for u in self._usual],
            suspects=[list(s) for s in self._suspects],
            last=[row[:] for row in self._last],
        )

    def restore(self, state: LabellerState) -> None:
        """Take over a saved state of the same rule.

        Raises:
            StateError: it is of another shape, or its numbers are not usable.
        """
        pairs = (state.counts, state.heard, state.suspects, state.last)
        both = (state.sigmas, state.lent)
        if any(len(part) != 2 for part in pairs) or any(len(s) != _WINDOW for s in both):
            raise StateError("labels of another shape")
        if any(len(c) != BUCKETS for c in state.counts):
            raise StateError("labels with another histogram")
        if any(len(row) != len(TIERS) for row in state.last):
            raise StateError("labels of other tiers")
        numbers = (state.variance, *state.counts[0], *state.counts[1])
        usual = (*numbers, *(s for row in both for s in row if s is not None))
        if not all(isfinite(x) and x >= 0.0 for x in usual):
            raise StateError("labels with numbers that are negative or not finite")
        self._minutes.clear()
        self._minutes.extend(state.minutes)
        self._variance, self._returns = state.variance, state.returns
        self._sigmas = deque(state.sigmas, maxlen=_WINDOW)
        self._lent = deque(state.lent, maxlen=_WINDOW)
        for d in (0, 1):
            self._usual[d].counts, self._usual[d].heard = state.counts[d][:], state.heard[d]
            self._suspects[d].clear()
            self._suspects[d].extend(state.suspects[d])
        self._last = [row[:] for row in state.last]


def _reading(minute: Minute) -> float | None:
    value = minute.interest
    return value if value is not None and isfinite(value) and value >= 0.0 else None


def labels(minutes: Iterable[Minute], rule: LabelRule = LabelRule()) -> list[Verdict]:  # noqa: B008
    """Verdicts on a recorded past, ordered by time; the last minutes may still lack theirs."""
    labeller = Labeller(rule)
    found = [verdict for minute in minutes for verdict in labeller.heard(minute)]
    return sorted(found, key=lambda v: (v.at, v.direction))


def outcome(
    verdicts: Sequence[Verdict], *, since: int, horizon_s: int, direction: Direction, tier: Tier
) -> bool | None:
    """Whether an onset of at least `tier` came in ``(since, since + horizon_s]``.

    None where none is known and not every minute of it has a verdict: unknown is not safe.
    `verdicts` are of one asset, in any order, each minute and direction at most once.
    """
    until = since + horizon_s * NS
    here = [v for v in verdicts if v.direction == direction and since < v.at <= until]
    if any(v.onsets is not None and tier in v.onsets for v in here):
        return True
    expected = until // MINUTE_NS - since // MINUTE_NS
    known = sum(1 for v in here if v.onsets is not None)
    return False if known == expected else None
