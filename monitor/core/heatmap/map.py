"""The liquidation map of one instrument, and the pooled map of an asset.

`Map` is told what the venue says, in order of receive time `at` (ns), and never looks at anything
else. Calls and their units (prices in quote, quantities in base units, money in USD)::

    m = Map(instrument, correction=shared_by_all, pool=shared_by_the_asset)
    m.history(candles, interests)             # optional; the recent past, oldest first
    m.mark(at, price)                         # the venue's own mark; the only thing that consumes
    m.traded(at, price, quantity, taker)      # every trade in the book
    m.open_interest(at, base)                 # every reading, one-sided; False: refused as a glitch
    m.liquidation(at, side, usd, completeness)
    m.lost(at)                                # marks and prints are missed: learn nothing of it
    m.advance(at)                             # every tick, about once a second
    m.snapshot(at)                            # what to publish; None while nothing is known
    m.estimate(at); pooling.pooled(asset, estimates)  # the asset's map
    data = m.state(); m.resume(data)          # warm restart; StateError says why not

Mathematics: model.md A0-A6; what differs from it is said where it does. Quantities are kept in
base units (linear) or USD of face (inverse), which a venue conserves, and turned into USD at
the price of their bin, so that no bucket changes because the price does.

What is published blends the standing cohorts with the distance climatology; the latter hangs on
the mark by definition and moves with it, the former does not (`Map.cohorts`).
"""

from collections.abc import Sequence
from math import exp, inf, sqrt
from typing import Final, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.core.heatmap.arrivals import Interests, arrivals
from monitor.core.heatmap.calibration import (
    CLIMATOLOGY_STEP,
    DEFAULT_PRIOR,
    WINDOW_S,
    Prior,
    ThrottleCorrection,
    Weights,
    Window,
)
from monitor.core.heatmap.grid import BINS, STEP, Cohorts, Ledger, bin_of, mirrored
from monitor.core.heatmap.margin import MarginTable, distances, first_closes
from monitor.core.heatmap.pooling import BUCKET, BUCKETS, Estimate, published
from monitor.core.heatmap.reading import FACED, HOUR_NS, Reading, Spread, moments, unspent
from monitor.core.saved import (
    STATE_VERSION,
    Prints,
    SavedSide,
    State,
    StateError,
    packed,
    revived,
    revived_prints,
    unpacked,
)
from monitor.events import NS, Candle, Completeness, Heatmap, Instrument, Side, Taker

Floats = NDArray[np.float64]


CANDLES_MAX: Final = 10_000
PROFILE_MAX: Final = 2_000
"""Distinct 5 bp prices of one interval; a wilder interval keeps adding to the nearest."""

_FACED_EDGES: Final = BUCKET * np.arange(FACED + 1)
_ONES: Final[Floats] = np.ones(BUCKETS)
_Kept: TypeAlias = tuple[Floats, tuple[Floats, Floats], tuple[Floats, Floats, float]]
_SIDES: Final[tuple[Side, Side]] = ("long", "short")


class Parameters(Struct, frozen=True):
    """Constants of the map; defaults from model.md, tuned ones are said to be.

    Attributes:
        interval_s: over which open interest is netted. Venues' readings wiggle as makers take
            turns; only what lasts an interval is a position.
        turnover_per_h: share of open interest that leaves and is replaced per hour (A4).
        blend: starting weight of the cohorts against the climatology (A6), and `blend_strength`
            how many typical prints it weighs.
        churn: share of volume that changes positions beyond what nets out (A2's chi; 0 = off).
        taker_tilt: leverage tilt of the side that pays to enter (A2.3; 0 = off).
        refill_h, refill_start: a level that the mark has visited holds `refill_start` of its
            climatology and recovers with this time constant.
        size_median_usd, size_sigma: lognormal position sizes (C1), for the tier of a typical
            position and for partial liquidation.
        level: multiplies everything published, within open interest (tuned).
        level_sd: log standard deviation of the level, the scale band (A6).
        shape_sd: relative standard deviation of a bucket beyond counting noise (tuned).
        granularity: multiplies the counting noise E[s^2]/E[s] of position sizes (tuned).
    """

    interval_s: float = 60.0
    turnover_per_h: float = 0.00276
    blend: float = 0.5
    blend_strength: float = 200.0
    churn: float = 0.0
    taker_tilt: float = 0.0
    refill_h: float = 96.0
    refill_start: float = 0.0
    size_median_usd: float = 15_000.0
    size_sigma: float = 1.6
    size_cap_usd: float = 2e6
    level: float = 1.0
    level_sd: float = 0.4
    shape_sd: float = 1.5
    granularity: float = 1.0

    @property
    def typical_usd(self) -> float:
        """Half of open interest is held in larger positions."""
        return min(self.size_median_usd * exp(self.size_sigma**2), self.size_cap_usd)

    @property
    def lump_usd(self) -> float:
        """E[s^2]/E[s] of the sizes, cut at the cap: variance of a sum over its mean."""
        median, sigma, cap = self.size_median_usd, self.size_sigma, self.size_cap_usd
        z = np.linspace(-6.0, 6.0, 241)
        size = np.minimum(median * np.exp(sigma * z), cap)
        density = np.exp(-z * z / 2)
        return float((density * size * size).sum() / (density * size).sum())


UNMEASURED: Final[frozenset[Completeness]] = frozenset({"partial", "tail_only"})
"""Prints of which nobody knows what share of all they are: a map learns nothing from them."""


class Map:
    """Where one instrument's leverage would be force-closed; see the module docstring."""

    PRINT_USD = 20_000.0
    """Typical print before any was heard; weighs 20 prints."""
    LATE_INTERVALS = 10
    """Prints this many intervals after a sweep still belong to it."""
    SLACK = 0.005
    """A fall of open interest by more than this is settled at once, not netted: between two
    settlements the cohorts never exceed open interest by more. What is published never does."""
    GLITCH = 0.5
    """A change of open interest by more than this ratio within `GLITCH_NS` is a fault (B)."""
    GLITCH_NS = 300 * NS

    def __init__(
        self,
        instrument: Instrument,
        *,
        prior: Prior = DEFAULT_PRIOR,
        parameters: Parameters = Parameters(),  # noqa: B008 (frozen)
        correction: ThrottleCorrection | None = None,
        pool: Weights | None = None,
    ) -> None:
        """Empty; `correction` is shared by all maps, `pool` by the maps of an asset."""
        self.instrument, self.prior, self.parameters = instrument, prior, parameters
        self.weights = Weights(prior, parent=pool)
        self.table = MarginTable(instrument)
        self._correction = correction if correction is not None else ThrottleCorrection()
        self._mix = np.array(prior.mix)
        self._known = [
            (np.array((0.0, *c)), np.arange(len(c) + 1) * CLIMATOLOGY_STEP)
            for c in prior.climatology
        ]
        self.spread = Spread(
            refill_h=parameters.refill_h,
            refill_start=parameters.refill_start,
            wholes=(prior.climatology[0][-1], prior.climatology[1][-1]),
            noise_usd=parameters.lump_usd * parameters.granularity,
            shape_sd=parameters.shape_sd,
        )
        self.cohorts: tuple[Cohorts, Cohorts] | None = None
        rows = len(prior.leverage) + 1
        self._prints = (Prints(rows), Prints(rows))
        self._candles: Sequence[Candle] = ()
        self._interests: Interests = ()
        self.mark_price = 0.0
        self.interest = 0.0
        self._settled = self._pending = self._glitch = 0.0
        self._print_usd, self._print_count = 20 * self.PRINT_USD, 20.0
        self._blend = [parameters.blend * parameters.blend_strength, parameters.blend_strength]
        self._bought = 0.0
        self._bin = self._low = self._high = 0
        self._mark_at = self._interest_at = self._settled_at = self._glitch_at = 0
        self._read_at = 0
        self._interval = 0
        self._has_prints = 0
        self._profile: dict[int, float] = {}
        self._away_since = 0
        self._is_resumed = self._is_deaf = False
        self._kept: list[_Kept | None] = [None, None]
        self._shares: dict[int, Floats] = {}
        self._units: tuple[int, Floats] | None = None
        self.glitches = 0
        """Readings of open interest that were refused."""
        self.expected_usd = [0.0, 0.0]
        """Forced closes that the map expected where the mark passed, by side, where prints are
        heard; and `observed_usd` those printed, corrected for throttling."""
        self.observed_usd = [0.0, 0.0]

    # -------------------------------------------------------------------------------- inputs

    def mark(self, at: int, price: float) -> None:
        """The venue's mark price: consumes whatever it passes."""
        if price <= 0.0:
            return
        now = bin_of(price)
        before = self._bin
        self.mark_price, self._mark_at, self._bin = price, at, now
        if self.cohorts is None:
            self._low = self._high = now
            self._start(at)
            return
        self._low, self._high = min(self._low, now), max(self._high, now)
        if now != before:
            for side in (0, 1):
                self._sweep(side, at, _seen(side, now), _seen(side, before))
            for side in (0, 1):
                self.cohorts[side].anchor(_seen(side, now))
        for side in (0, 1):
            self.cohorts[side].visit(_seen(side, now), at)
        if self._is_deaf:  # it has passed what was missed only now, and its prints never come
            self._is_deaf = False
            self._unlearn(at)

    def traded(self, at: int, price: float, quantity: float, taker: Taker) -> None:
        """A trade in the book; `at` is not used, trades come in order."""
        del at
        if price <= 0.0 or quantity <= 0.0:
            return
        profile = self._profile
        k = bin_of(price)
        if k not in profile and len(profile) >= PROFILE_MAX:
            k = min(profile, key=lambda known: (abs(known - k), known))
        profile[k] = profile.get(k, 0.0) + quantity
        if taker == "buy":
            self._bought += quantity

    def open_interest(self, at: int, base: float) -> bool:
        """One-sided open interest in base units; False when it is refused as a feed fault."""
        if base <= 0.0 or self.mark_price <= 0.0:
            return False
        quantity = base if self.table.kind == "linear" else base * self.mark_price
        if self.cohorts is not None and not self._is_credible(at, quantity):
            self.glitches += 1
            return False
        self.interest, self._interest_at = quantity, at
        self._start(at)
        self.advance(at)
        return True

    def liquidation(self, at: int, side: Side, usd: float, completeness: Completeness) -> None:
        """A forced close that the venue printed; a throttled feed's is corrected for the rest.

        A feed of which nobody knows how much it shows teaches nothing.
        """
        if completeness in UNMEASURED:
            return
        index = _SIDES.index(side)
        prints = self._prints[index]
        self._has_prints = 1
        self._print_usd += usd
        self._print_count += 1.0
        self._close_window(index, at)
        prints.window.add(at // NS, usd)
        if completeness == "all":
            prints.seen += usd
            prints.window.complete = True

    def lost(self, at: int) -> None:
        """Marks and prints are missed from `at` to the next mark; its sweep teaches nothing."""
        self._is_deaf = True
        self._unlearn(at)

    def _unlearn(self, at: int) -> None:
        """Forget what was swept and printed since the last lesson."""
        for prints in self._prints:
            prints.forget()
            prints.window = Window(number=at // (WINDOW_S * NS))
            prints.recent[:] = 0.0

    def history(self, candles: Sequence[Candle], interests: Interests = ()) -> None:
        """Recent candles and open interest: the past of a new map, what a resumed one has missed.

        Both oldest first; where one of them comes later, tell both again. A map that has heard
        much already ignores them, and a resumed one everything but its first candles.
        """
        assert len(candles) <= CANDLES_MAX, len(candles)
        if self.cohorts is not None and self._away_since:
            self._catch_up(candles)
            return
        heard = 1.0 - min(p.warm for p in self._prints)
        if self.cohorts is not None and (heard > 0.05 or self._is_resumed):
            return
        self._candles, self._interests = candles, interests
        if self.cohorts is not None:
            self.cohorts = None
            self._start(self._interest_at)

    def _catch_up(self, candles: Sequence[Candle]) -> None:
        """Consume what the price passed between the saved state and now; teaches nothing."""
        now, at = self.mark_price, self._mark_at
        for candle in candles:
            if candle.at > self._away_since:
                self.mark(at, candle.low)
                self.mark(at, candle.high)
        self.mark(at, now)
        self._away_since = 0
        self._unlearn(at)

    def respecify(self, instrument: Instrument) -> None:
        """Take over changed margin tiers: positions stay where they are, new ones follow them."""
        self.instrument, self.table = instrument, MarginTable(instrument)
        if self.cohorts is not None:
            for side, cohorts in enumerate(self.cohorts):
                shift, cohorts.first_share, cohorts.relief = self._rules(side)
                cohorts.shift = np.append(shift, cohorts.shift[-1])

    def advance(self, at: int) -> None:
        """Time passed; settles open interest and calibrates once an interval.

        Open interest is settled whenever it falls by much, but sweeps are held against prints at
        the same times for all instruments: what one venue teaches moves the maps of all, and a
        sweep that counts before its prints, or before those of another venue, would move them to
        and fro.
        """
        if self.cohorts is None:
            return
        for side in (0, 1):
            self._close_window(side, at)
        interval_ns = int(self.parameters.interval_s * NS)
        is_due = at - self._settled_at >= interval_ns
        if is_due or self.interest < (1.0 - self.SLACK) * self._settled:
            self._settle(at)
        before, self._interval = self._interval, at // interval_ns
        if 0 < before < self._interval:
            for side in (0, 1):
                self._calibrate(side)

    # ----------------------------------------------------------------------------- the start

    def _start(self, at: int) -> None:
        """Warm start from open interest and candles, once both a mark and a reading are known."""
        if self.cohorts is not None or self.interest <= 0.0 or self.mark_price <= 0.0:
            return
        made = []
        for side in (0, 1):
            shift, first_share, relief = self._rules(side)
            now = _seen(side, self._bin)
            cohorts = Cohorts(shift, first_share=first_share, relief=relief, at=now)
            self._seed(cohorts, side, at)
            self._prints[side].warm = 1.0
            made.append(cohorts)
        self.cohorts = (made[0], made[1])
        self._settled, self._settled_at, self._read_at = self.interest, at, at
        self._low = self._high = self._bin
        self._profile, self._bought = {}, 0.0

    def _rules(self, side: int) -> tuple[NDArray[np.int64], float, int]:
        """What the margin table makes of one side at this price; sets its mix of leverage.

        Returns the bins between entry and liquidation per node (negative: not allowed), the share
        of a position that is closed first, and by how many bins the rest then stands deeper.
        """
        p, price = self.parameters, self.mark_price
        z = np.linspace(-1.5, 1.5, 7)
        # Sizes weighted by notional: a lognormal shifted by sigma squared.
        sizes = np.minimum(
            p.size_median_usd * np.exp(p.size_sigma**2 + p.size_sigma * z), p.size_cap_usd
        )
        weight = np.exp(-z * z / 2) / np.exp(-z * z / 2).sum()
        share, relief = first_closes(self.table, sizes, price)
        rest = float((weight * (1.0 - share)).sum())
        deeper = float((weight * (1.0 - share) * relief).sum()) / max(rest, 1e-9)
        leverage = np.array(self.prior.leverage)
        away = distances(
            self.table, _SIDES[side], leverage, price=price, position_usd=p.typical_usd
        )
        shift = np.where(np.isfinite(away), np.rint(away / STEP), -1.0).astype(np.int64)
        mix = np.where(shift >= 0, np.array(self.prior.mix[side]), 0.0)
        if not mix.any():  # no leverage that is ever liquidated is allowed: all stand off the grid
            shift[0], mix[0] = BINS, 1.0
        self._mix[side] = mix / mix.sum()
        return shift, 1.0 - rest, round(deeper / STEP)

    def _seed(self, cohorts: Cohorts, side: int, at: int) -> None:
        """Open interest over the past, as it came and at its turnover, less what is burnt since.

        What rose in the readings of open interest came then; the rest is spread by turnover.
        """
        now = _seen(side, self._bin)
        candles = [c for c in self._candles if c.at <= at]
        told = [row for row in self._interests if row[0] <= at]
        share = arrivals(told, candles, inverse=self.table.kind == "inverse")
        entries, ages, lowest, came = [now], [0.0], [now + 1], [0.0]
        worst = now + 1
        for c, new in zip(reversed(candles), reversed(share.tolist()), strict=True):
            low, high = bin_of(c.low), bin_of(c.high)
            low, high = (low, high) if side == 0 else (mirrored(high), mirrored(low))
            # Entries in a candle: its close, its middle and its quarters, equally often.
            middle = (low + high) // 2
            for entry in (
                _seen(side, bin_of(c.close)),
                middle,
                (low + middle) // 2,
                (middle + high) // 2,
            ):
                entries.append(entry)
                ages.append((at - c.at) / HOUR_NS)
                lowest.append(worst)
                came.append(new / 4)
            worst = min(worst, low)
        past = np.array(ages)
        weight = np.exp(-self.parameters.turnover_per_h * past)
        bins, bounds = np.array(entries, dtype=np.int64), np.array(lowest, dtype=np.int64)
        if share.any():
            shift, mix = cohorts.shift[:-1, None], self._mix[side][:, None]
            alive = np.where((bins - shift < bounds) & (shift >= 0), mix, 0.0).sum(axis=0)
            # The survivors of the past hold all that the newcomers do not.
            older = max(0.0, 1.0 - float(share.sum()))
            weight = weight * (older / float((weight * alive).sum())) + np.array(came)
        cohorts.seed(bins, weight, self._mix[side], lowest=bounds)
        cohorts.scale(self.interest / max(cohorts.standing(), 1e-300), opening=True)
        for c in candles:
            low = bin_of(c.low) if side == 0 else mirrored(bin_of(c.high))
            cohorts.visit(low, c.at)
        cohorts.visit(now, at)

    # --------------------------------------------------------------------- open interest

    def _is_credible(self, at: int, quantity: float) -> bool:
        """Whether a reading is no glitch; one that stays for five minutes is believed after all."""
        change = abs(quantity - self.interest)
        silence, self._read_at = at - self._read_at, at
        if change <= self.GLITCH * self.interest or silence > self.GLITCH_NS:
            self._glitch_at = 0
            return True
        same = abs(quantity - self._glitch) <= 0.1 * self._glitch
        if not self._glitch_at or not same:
            self._glitch, self._glitch_at = quantity, at
            return False
        if at - self._glitch_at < self.GLITCH_NS:
            return False
        # The venue counts differently now. Nobody opened or closed: take it as the new scale.
        self._settled, self._glitch_at = quantity, 0
        self.interest = quantity
        self._limit()
        return True

    def _settle(self, at: int) -> None:
        """Exits and entries of the interval that ends (A2, A4)."""
        assert self.cohorts is not None, "advance is called after the start only"
        hours = (at - self._settled_at) / HOUR_NS
        change = self.interest - self._settled
        volume = sum(self._profile.values())
        turnover = self.parameters.turnover_per_h * hours * self._settled
        turnover += max(0.0, 0.5 * (self.parameters.churn * volume - abs(change)))
        turnover = min(turnover, 0.5 * self._settled)
        closed, opened = max(-change, 0.0), max(change, 0.0) + turnover
        profile = sorted(self._profile.items()) or [(self._bin, 1.0)]
        tilt = 2.0 * self._bought / volume - 1.0 if volume > 0 else 0.0
        for side in (0, 1):
            cohorts, prints = self.cohorts[side], self._prints[side]
            # What the mark consumed has left already; what is left of the fall is voluntary.
            liquidated = min(closed, prints.credit)
            prints.credit = 0.5 * (prints.credit - liquidated)
            on_map = min(1.0, cohorts.standing() / max(self._settled, 1e-300))
            now = _seen(side, self._bin)
            cohorts.leave((closed - liquidated) * on_map, turnover * on_map, now)
            if opened > 0:
                stood = cohorts.standing()
                bins = np.array([_seen(side, k) for k, _ in profile], dtype=np.int64)
                share = np.array([v for _, v in profile])
                share = share / share.sum() * opened
                lowest = self._low if side == 0 else mirrored(self._high)
                cohorts.insert(bins, share, self._tilted(side, tilt), lowest=lowest)
                prints.warm *= stood / (stood + opened)
        self._settled, self._settled_at = self.interest, at
        self._limit()
        self._profile, self._bought = {}, 0.0
        self._low = self._high = self._bin

    def _tilted(self, side: int, tilt: float) -> Floats:
        """Leverage mix of new positions; whoever pays to enter may use more (A2.3)."""
        mix: Floats = self._mix[side]
        if self.parameters.taker_tilt == 0.0:
            return mix
        slope = self.parameters.taker_tilt * tilt * (1 if side == 0 else -1)
        tilted: Floats = mix * np.array([x**slope for x in self.prior.leverage])
        total: Floats = tilted / tilted.sum()
        return total

    def _limit(self) -> None:
        """Open interest is the one hard constraint we own (A4).

        Cells do not know their age, so all cohorts give way alike, not the oldest first.
        """
        assert self.cohorts is not None, "called after the start only"
        for cohorts in self.cohorts:
            standing = cohorts.standing()
            if standing > self.interest:
                cohorts.scale(self.interest / standing)

    # ------------------------------------------------------------------ sweeps and prints

    def _sweep(self, side: int, at: int, now: int, before: int) -> None:
        """Consume on one side, in its own bins, and remember what should print."""
        assert self.cohorts is not None, "called after the start only"
        if now >= before:
            return
        cohorts, prints = self.cohorts[side], self._prints[side]
        mean = self.weights.mean(side)
        total = float((mean * cohorts.by_row()).sum())
        climate = self._climate(side, at, now, before - now)
        swept = cohorts.sweep(now, before)
        likely = float((mean * swept).sum())
        prints.credit += likely
        prints.exposure += swept * self._usd_per_unit()
        if total > 0:
            prints.expected += likely / total
            prints.climate += float(climate.sum())

    def _usd_per_unit(self) -> float:
        return self.mark_price if self.table.kind == "linear" else 1.0

    def _close_window(self, side: int, at: int) -> None:
        """Count a finished window of prints: corrected if throttled, a lesson if complete."""
        prints = self._prints[side]
        window, number = prints.window, at // (WINDOW_S * NS)
        if window.number == number:
            return
        prints.window = Window(number=number)
        if not window.occupied:
            return
        typical = self.print_usd
        if window.complete:
            self._correction.learn(
                window.total / typical, window.throttled / typical, window.occupied
            )
            return
        corrected = window.total * self._correction.factor(window.occupied)
        prints.seen += corrected
        if window.occupied >= WINDOW_S:
            prints.guessed += corrected

    def _calibrate(self, side: int) -> None:
        """Learn from the interval's sweeps and prints (A3); where nothing prints, nothing."""
        prints = self._prints[side]
        typical = self.print_usd
        swept = prints.exposure.any()
        if self._has_prints:
            self.expected_usd[side] += float((self.weights.mean(side) * prints.exposure).sum())
            self.observed_usd[side] += prints.seen
        if self._has_prints and (swept or (prints.seen > 0 and prints.late > 0)):
            by = prints.exposure if swept else prints.recent
            # A window whose every second was occupied is censored: half the weight (A3).
            weight = 0.5 if prints.guessed > 0.5 * prints.seen else 1.0
            self.weights.learn(
                side,
                prints.exposure / typical,
                prints.seen / typical,
                by=by / typical,
                weight=weight,
            )
            mixed = self.blend * prints.expected + (1.0 - self.blend) * prints.climate
            if prints.seen > 0 and mixed > 0:
                count = min(prints.seen / typical / self.weights.DISPERSION, 20.0)
                self._blend[0] += count * self.blend * prints.expected / mixed
                self._blend[1] += count
        if swept:
            prints.recent = prints.exposure.copy()
            prints.late = float(self.LATE_INTERVALS)
        else:
            prints.late = max(0.0, prints.late - 1.0)
        prints.forget()

    @property
    def prints(self) -> bool:
        """Whether its venue was ever heard to print a forced close."""
        return bool(self._has_prints)

    @property
    def print_usd(self) -> float:
        """USD of a typical print."""
        return self._print_usd / self._print_count

    @property
    def blend(self) -> float:
        """Weight of the cohorts against the climatology, learnt from where prints come (A6)."""
        return self._blend[0] / self._blend[1]

    # ------------------------------------------------------------------------------- outputs

    def ledgers(self) -> tuple[Ledger, Ledger] | None:
        """Conservation of longs and of shorts, in base units (linear) or USD (inverse)."""
        if self.cohorts is None:
            return None
        return self.cohorts[0].ledger(), self.cohorts[1].ledger()

    def _climate(self, side: int, at: int, first: int, count: int) -> Floats:
        """Share of the side's liquidatable notional by climatology alone, less what is burnt.

        For `count` bins from `first` on, the side's own; the last of them is next to the mark's.
        """
        within = self._within(side, count - np.arange(count + 1))
        visited = self._visited(side, first, count)
        found: Floats = (within[:-1] - within[1:]) * unspent(visited, at, self.spread)
        return found

    def _within(self, side: int, bins: NDArray[np.int64]) -> Floats:
        """Share of the side's liquidatable notional that lies within so many bins of the mark."""
        known, grid = self._known[side]
        found: Floats = np.interp(bins * STEP, grid, known)
        return found

    def _visited(self, side: int, first: int, count: int) -> NDArray[np.int64]:
        """When the mark was last at or beyond each of `count` bins from `first` on."""
        assert self.cohorts is not None, "called after the start only"
        cohorts = self.cohorts[side]
        visited, start = cohorts.visited, first - cohorts.origin
        if 0 <= start <= len(visited) - count:
            found: NDArray[np.int64] = visited[start : start + count]
            return found
        column = np.arange(start, start + count).clip(0, len(visited) - 1)
        return visited.take(column)

    def _portions(self, firsts: tuple[int, int]) -> Floats:
        """Share of each side's liquidatable notional by climatology per bucket, (2, FACED).

        It hangs on the mark, and buckets stand where they are: five places of it in its bucket.
        """
        place = self._bin % BUCKET
        if place not in self._shares:
            edges = [_seen(i, self._bin) - k - _FACED_EDGES for i, k in enumerate(firsts)]
            within = np.array([self._within(side, bins) for side, bins in enumerate(edges)])
            self._shares[place] = within[:, :-1] - within[:, 1:]
        return self._shares[place]

    def estimate(self, at: int) -> Estimate | None:
        """Means and spreads per bucket; None before a mark and an open interest are known."""
        return estimates([self], at)[0] if self.cohorts is not None else None

    def reading(self) -> Reading:
        """What the means and spreads follow from; the map has begun."""
        first = (self._bin // BUCKET - BUCKETS // 2) * BUCKET
        firsts = first, mirrored(first + BUCKET * BUCKETS - 1)
        longs, shorts = self._standing(0, firsts[0]), self._standing(1, firsts[1])
        return Reading(
            first=first,
            visited=(
                self._visited(0, firsts[0], FACED * BUCKET),
                self._visited(1, firsts[1], FACED * BUCKET),
            ),
            climate=self._portions(firsts),
            heard=(longs[0], shorts[0]),
            doubt=(longs[1], shorts[1]),
            counts=(self._counts(longs[2]), self._counts(shorts[2])),
            unit=self._unit(first),
        )

    def believed(self, at: int, first: int, rows: Floats) -> Estimate:
        """The estimate with these `moments` of its buckets, which begin at bin `first`."""
        assert self.cohorts is not None, "called after the start only"
        p = self.parameters
        standing = min(c.standing() for c in self.cohorts)
        coverage = min(1.0, standing / self.interest)
        heard = 1.0 - sum(x.warm for x in self._prints) / 2
        learnt = sum(self.weights.information(side) for side in (0, 1)) / 2
        fresh = _freshness(at - self._mark_at, 10, 300)
        fresh *= _freshness(at - self._interest_at, 120, 1_800)
        return Estimate(
            name=self.instrument.name,
            at=at,
            first=first,
            rows=rows,
            mark=self.mark_price,
            open_interest_usd=self.interest * self._usd_per_unit(),
            coverage=coverage,
            heard=heard,
            confidence=fresh * coverage * (0.4 + 0.3 * heard + 0.3 * learnt),
            level_sd=p.level_sd * sqrt(1.0 - 0.5 * learnt),
            venues=(self.instrument.venue,),
        )

    def _unit(self, first: int) -> Floats:
        """USD per unit of quantity in each bucket of the window from bin `first` on."""
        if self.table.kind != "linear":
            return _ONES
        if self._units is None or self._units[0] != first:
            middle = (first + BUCKET * (np.arange(BUCKETS) + 0.5)) * STEP
            self._units = first, np.exp(middle)
        return self._units[1]

    def _counts(self, total: float) -> tuple[float, float, float, float]:
        """What a side's means, its climatology, both together and its variances count."""
        # Weights may exceed 1 where the prior mix is short of a node; open interest may not.
        level, w = self.parameters.level, self.blend
        scale = min(level, self.interest / total) if total > 0 else level
        return w, (1.0 - w) * total, scale, (w * scale) ** 2

    def _standing(self, side: int, first: int) -> tuple[Floats, Floats, float]:
        """What the cohorts hold: per bucket up to the mark's its mean and variance, and of all.

        Taken anew when cells or weights have changed, which in most seconds they have not.
        """
        assert self.cohorts is not None, "called after the start only"
        cohorts = self.cohorts[side]
        cells, known = cohorts.buckets(first, FACED, BUCKET), self.weights.moments(side)
        kept = self._kept[side]
        # Both give the same arrays again as long as nothing has changed.
        if kept is not None and kept[0] is cells and kept[1] is known:
            return kept[2]
        mean, variance = known
        heard = (cells * mean[:, None]).sum(axis=0)
        doubt = (cells * cells * variance[:, None]).sum(axis=0)
        found = heard, doubt, float((mean * cohorts.by_row()).sum())
        self._kept[side] = cells, known, found
        return found

    def snapshot(self, at: int) -> Heatmap | None:
        """What to publish for this instrument."""
        estimate = self.estimate(at)
        return None if estimate is None else published(estimate)

    # ------------------------------------------------------------------------- warm restart

    _NUMBERS = (
        "mark_price",
        "interest",
        "_settled",
        "_glitch",
        "_print_usd",
        "_print_count",
        "_bought",
    )
    _TIMES = (
        "_mark_at",
        "_interest_at",
        "_settled_at",
        "_interval",
        "_glitch_at",
        "_read_at",
        "_bin",
        "_low",
        "_high",
        "_has_prints",
        "glitches",
    )

    def state(self) -> bytes:
        """Everything needed to go on elsewhere; empty while nothing is known.

        The shared objects (`ThrottleCorrection`, the pool's `Weights`) are not part of it: they
        have a `state` of their own, to be saved once.
        """
        if self.cohorts is None:
            return b""
        sides = [
            SavedSide(
                cells=cohorts.cells.astype("<f8").tobytes(),
                beyond=cohorts.beyond.astype("<f8").tobytes(),
                visited=cohorts.visited.astype("<i8").tobytes(),
                exposure=prints.exposure.astype("<f8").tobytes(),
                recent=prints.recent.astype("<f8").tobytes(),
                origin=cohorts.origin,
                numbers={n: float(getattr(prints, n)) for n in prints.NUMBERS}
                | {n: float(getattr(cohorts, n)) for n in Cohorts.COUNTS},
                window=prints.window,
            )
            for cohorts, prints in zip(self.cohorts, self._prints, strict=True)
        ]
        state = State(
            version=STATE_VERSION,
            instrument=self.instrument.name,
            kind=self.table.kind,
            nodes=list(self.prior.leverage),
            numbers={n: float(getattr(self, n)) for n in self._NUMBERS}
            | {"blend": self._blend[0], "blend_of": self._blend[1]},
            times={n: int(getattr(self, n)) for n in self._TIMES},
            profile=self._profile,
            shifts=[c.shift.tolist() for c in self.cohorts],
            partial=[(c.first_share, c.relief) for c in self.cohorts],
            sides=sides,
            weights=self.weights.state(),
        )
        return packed(state)

    def resume(self, data: bytes) -> None:
        """Take over a saved state of the same instrument, in place of whatever was known.

        Raises:
            StateError: it is corrupt, of another version, instrument or set of nodes. The map is
                unchanged then, and starts anew from history.
        """
        state = unpacked(data, State)
        if state.version != STATE_VERSION:
            raise StateError(f"state version {state.version}, expected {STATE_VERSION}")
        if state.instrument != self.instrument.name or state.kind != self.table.kind:
            raise StateError(
                f"state of {state.instrument} ({state.kind}), expected "
                f"{self.instrument.name} ({self.table.kind})"
            )
        if state.nodes != list(self.prior.leverage):
            raise StateError("state has other leverage nodes than the prior")
        mark = state.numbers.get("mark_price", 0.0)
        if not 0.0 < mark < inf:
            raise StateError(f"state with a mark price of {mark}")
        try:
            cohorts = [revived(state, side) for side in (0, 1)]
            prints = [revived_prints(saved, len(state.nodes) + 1) for saved in state.sides]
            blend = [state.numbers["blend"], state.numbers["blend_of"]]
            numbers = {n: state.numbers[n] for n in self._NUMBERS}
            times = {n: state.times[n] for n in self._TIMES}
            # Last, because it is the first that changes anything.
            self.weights.restore(state.weights)
        except (ValueError, KeyError, IndexError) as problem:
            raise StateError(f"state does not fit: {problem}") from problem
        for name, value in (numbers | times).items():
            setattr(self, name, value)
        self.cohorts, self._prints = (cohorts[0], cohorts[1]), (prints[0], prints[1])
        self._blend, self._profile = blend, state.profile
        self._away_since, self._is_resumed = self._mark_at, True
        # The tiers may be others than those it was saved with.
        self.respecify(self.instrument)


def _seen(side: int, k: int) -> int:
    """A bin as the side counts: upwards for longs, mirrored for shorts."""
    return k if side == 0 else mirrored(k)


def _freshness(age_ns: int, good_s: float, bad_s: float) -> float:
    """1 up to `good_s`, 0 from `bad_s` on, linear between."""
    age_s = age_ns / NS
    return min(1.0, max(0.0, (bad_s - age_s) / (bad_s - good_s)))


def estimates(maps: Sequence[Map], at: int) -> list[Estimate]:
    """What each of these maps believes; all have begun, and from one belief.

    They are read together: as many calls on the arrays of all take half the time of those on each.
    """
    if not maps:
        return []
    readings = [m.reading() for m in maps]
    assert all(m.spread == maps[0].spread for m in maps), "maps of one belief"
    rows = moments(readings, maps[0].spread, at)
    return [m.believed(at, readings[i].first, rows[i]) for i, m in enumerate(maps)]
