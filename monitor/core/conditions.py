"""What is measured of an asset beside map and books: moves, flows, prints, and what is usual.

`Conditions` is told every print and is given the time once a second; everything else it reads from
the instruments. Both directions share it.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from math import isfinite, log, sqrt
from statistics import median
from typing import Final

from msgspec import Struct

from monitor.core.cascade.coupling import Arbitrage, ArbitrageState
from monitor.core.depth.liquidity import LiquidityState
from monitor.core.depth.survival import Survival, SurvivalState, Throughput, ThroughputState
from monitor.core.forecast.hawkes import Hawkes, HawkesState
from monitor.core.forecast.label import Minute
from monitor.core.forecast.norm import Norm, NormState
from monitor.core.forecast.past import VolatilityState
from monitor.core.forecast.prints import FollowOn, FollowOnState, Mean, Prints, PrintsState
from monitor.core.forecast.volatility import Forecast, VolatilityForecast
from monitor.core.heatmap.calibration import ThrottleCorrection
from monitor.core.instrument import InstrumentState
from monitor.core.saved import StateError
from monitor.events import NS, Candle, Direction, Liquidation, Side

DIRECTIONS: Final[tuple[Direction, Direction]] = ("down", "up")
SIDE_OF: Final[dict[Direction, Side]] = {"down": "long", "up": "short"}
SIGN: Final[dict[Direction, float]] = {"down": -1.0, "up": 1.0}

MOVES_S: Final = (60, 300)
"""Seconds over which a present move is measured."""

DEPTH_BEFORE_MIN: Final = (15, 75)
"""Minutes ago from which depth is taken as that of before a shock, and until which."""

INTEREST_STALE_NS: Final = 600 * NS
"""Open interest unheard for longer says nothing of the present."""

SOURCE_QUIET_NS: Final = 5 * NS
"""A mark unheard for so long gives way to one that is heard, where moves are measured."""

GONE_NS: Final = 86_400 * NS
"""An instrument unheard for so long is none any more: delisted, or a venue that went away."""

FLOW_MEMORY_MIN: Final = 1440.0


class ConditionsState(Struct, frozen=True):
    """What outlives a restart."""

    volatility: VolatilityState
    arbitrage: ArbitrageState
    liquidity: dict[str, LiquidityState]
    prints: list[PrintsState]
    follow_on: list[FollowOnState]
    hawkes: list[HawkesState]
    survival: list[SurvivalState]
    throughput: list[ThroughputState]
    funding: NormState
    interest: NormState
    gap: NormState
    flow_variance: tuple[float, float]


class Conditions:
    """Present and usual conditions of one asset.

    Attributes:
        volatility: of the asset's price.
        arbitrage: how fast venues' prices come together again.
    """

    def __init__(
        self, instruments: Sequence[InstrumentState], correction: ThrottleCorrection
    ) -> None:
        """`instruments` is the asset's own list, which may still grow."""
        self._instruments = instruments
        self.volatility = VolatilityForecast()
        self.arbitrage = Arbitrage(())
        self._by_direction = {d: _Side(correction) for d in DIRECTIONS}
        self._funding, self._interest, self._gap = Norm(), Norm(), Norm()
        # Price and volatility per second, newest last; None while no mark was fresh.
        self._prices: deque[float | None] = deque(maxlen=MOVES_S[-1] + 1)
        self._sigmas: deque[float | None] = deque(maxlen=MOVES_S[-1] + 1)
        # Upwards, as of the last second.
        self._moves: tuple[float, float] | None = None
        self._moves_sigma: tuple[float, float] | None = None
        self._low = self._high = 0.0
        self._interests: deque[float | None] = deque(maxlen=6)
        self._source = ""
        self._source_at = 0
        self._scale = 1.0
        # What each mark was when that of the source was last heard.
        self._beside: dict[str, float] = {}
        self._has_past = False
        self._second = 0
        self._flow_variance = Mean(FLOW_MEMORY_MIN)
        self._net_flow = 0.0
        self._taken: dict[str, tuple[float, float]] = {}
        self.forecast: Forecast | None = None
        # By direction, and when: it is asked for several times a second.
        self._liquidated: dict[Direction, tuple[int, tuple[float, float, float]]] = {}

    # -------------------------------------------------------------------------------- inputs

    def history(self, candles: Sequence[Candle]) -> None:
        """Recent candles of one instrument: the scale of the past, unless it is known already."""
        if self._has_past:
            return
        seeded = VolatilityForecast()
        if seeded.seed(candles):
            self.volatility, self._has_past = seeded, True

    def printed(self, at: int, state: InstrumentState, event: Liquidation) -> None:
        """A venue reported a forced close."""
        direction: Direction = "down" if event.side == "long" else "up"
        side = self._by_direction[direction]
        for either in self._by_direction.values():
            # One channel carries both sides: silence on one is then none, not unknown.
            either.prints.heard = True
        side.prints.add(at, state.spec.venue, event.usd, event.completeness)
        side.hawkes.heard(at)
        self._liquidated.clear()

    def joined(self) -> None:
        """One more instrument: open interest of before was of fewer."""
        self._interests.clear()

    def advance(self, at: int) -> Minute | None:
        """Time passed; a minute that ended, once a minute."""
        second = at // NS
        if second <= self._second:
            return None
        ended = second // 60 != self._second // 60 and self._second > 0
        skipped = second - self._second - 1 if self._second else 0
        # Seconds that nobody saw are unknown, so that no change spans more of them than it says.
        unseen = [None] * min(skipped, MOVES_S[-1] + 1)
        self._prices.extend(unseen)
        self._sigmas.extend(unseen)
        if skipped >= 60:
            self._low = self._high = 0.0
            minutes = min(skipped // 60, DEPTH_BEFORE_MIN[1])
            self._interests.extend([None] * minutes)
            for side in self._by_direction.values():
                side.depths.extend([None] * minutes)
        self._second = second
        self._sample(at)
        return self._minute(at) if ended else None

    def _sample(self, at: int) -> None:
        price = self._price(at)
        self.volatility.sample(at, price)
        self.forecast = self.volatility.forecast()
        self._prices.append(price)
        self._sigmas.append(self.forecast.sigma[1] if self.forecast is not None else None)
        self._measure_moves()
        if price is not None:
            self._low = min(self._low, price) if self._low else price
            self._high = max(self._high, price)
        bought, sold = self._observe(at)
        whole = self._is_whole(at)
        self._net_flow += bought - sold
        for direction, side in self._by_direction.items():
            taken = sold if direction == "down" else bought
            forced = side.prints.fresh(at)
            if whole:
                side.follow_on.second(forced, taken)
            side.throughput.second(at, forced)
            move = self.moves_sigma(direction)
            depth = self.depth_usd(direction)
            side.survival.observe(at, None if move is None else max(0.0, move[1]), depth)
        fresh = {s.spec.name: s.mark for s in self._instruments if s.mark and s.hears_mark(at)}
        if set(fresh) - set(self.arbitrage.venues):
            state = self.arbitrage.state()
            self.arbitrage = Arbitrage([s.spec.name for s in self._instruments])
            self.arbitrage.restore(state)
        self.arbitrage.update(at, fresh)

    def _price(self, at: int) -> float | None:
        """What a unit costs, by the mark of one instrument; when it falls silent another goes on.

        The distance between two venues' marks is no return, so who takes over is scaled by what
        both said when both were last heard. Without such a moment a new series begins.
        """
        marks = {s.spec.name: s for s in self._instruments if s.mark and s.hears_mark(at)}
        lively = {n: s for n, s in marks.items() if at - s.mark_at <= SOURCE_QUIET_NS}
        if self._source not in lively and (lively or self._source not in marks):
            before, heirs = self._beside.get(self._source), lively or marks
            known = [name for name in heirs if name in self._beside]
            had_one = bool(self._source)
            self._source = next(iter(known or heirs), "")
            if before is not None and known:
                self._scale *= before / self._beside[self._source]
            elif had_one:
                self._prices.clear()
                self._beside.clear()
                self._low, self._high, self._scale = 0.0, 0.0, 1.0
                return None
        source = marks.get(self._source)
        if source is None:
            return None
        if source.mark_at > self._source_at:
            self._source_at = source.mark_at
            self._beside = {n: _unit_price(s) for n, s in lively.items()}
        return _unit_price(source) * self._scale

    def _measure_moves(self) -> None:
        """Moves over `MOVES_S`, as log ratios and in standard deviations."""
        self._moves = self._moves_sigma = None
        prices, now = self._prices, self._prices[-1]
        if now is None:
            return
        found = []
        for seconds in MOVES_S:
            since = max(0, len(prices) - seconds - 1)
            past = (prices[i] for i in range(since, len(prices)))
            found.append(log(now / next((p for p in past if p is not None), now)))
        self._moves = found[0], found[1]
        sigma = next((s for s in self._sigmas if s is not None), None)
        if sigma is not None and sigma > 0.0:
            usual = [sigma * sqrt(seconds) for seconds in MOVES_S]
            self._moves_sigma = found[0] / usual[0], found[1] / usual[1]

    def _observe(self, at: int) -> tuple[float, float]:
        """Let every book be read; USD that takers bought and sold since the last time."""
        bought = sold = 0.0
        for state in self._instruments:
            name = state.spec.name
            before = self._taken.get(name, (state.flow.bought_usd, state.flow.sold_usd))
            now = (state.flow.bought_usd, state.flow.sold_usd)
            self._taken[name] = now
            up, down = now[0] - before[0], now[1] - before[1]
            bought, sold = bought + up, sold + down
            state.liquidity.observe(at, state.book, state.book.mid(), sold_usd=down, bought_usd=up)
        return bought, sold

    def _minute(self, at: int) -> Minute:
        self._flow_variance.add(self._net_flow**2)
        self._net_flow = 0.0
        funding, gap = self.funding(at), self.mark_gap(at)
        interest = self.interest(at)
        for norm, value in ((self._funding, funding), (self._gap, gap), (self._interest, interest)):
            if value is not None:
                norm.heard(at, value)
        self._interests.append(interest)
        liquidated = []
        whole = self._is_whole(at)
        for direction, side in self._by_direction.items():
            liquidated.append(side.prints.minute(at) if whole else None)
            side.hawkes.advance(at)
            side.depths.append(self.depth_usd(direction))
        low, high = self._low, self._high
        close = self._prices[-1]
        # By any other method it is of no whole day.
        past = self.forecast if self.forecast and self.forecast.method == "har" else None
        self._low = self._high = close or 0.0
        return Minute(
            at=at // (60 * NS) * 60 * NS,
            low=low or None,
            high=high or None,
            close=close,
            interest=interest if self._is_read(at) else None,
            liquidated_long=liquidated[0],
            liquidated_short=liquidated[1],
            usual=None if past is None else past.day * sqrt(60.0),
        )

    # ------------------------------------------------------------------------------- outputs

    def price(self) -> float | None:
        """The asset's price now."""
        return self._prices[-1] if self._prices else None

    def returned(self) -> float | None:
        """Log return of the last minute; None across a gap."""
        if len(self._prices) <= 60:
            return None
        now, before = self._prices[-1], self._prices[-61]
        return log(now / before) if now is not None and before is not None else None

    def moves(self, direction: Direction) -> tuple[float, float] | None:
        """Moves over `MOVES_S` as log ratios, positive in the direction."""
        return _towards(direction, self._moves)

    def moves_sigma(self, direction: Direction) -> tuple[float, float] | None:
        """The same in standard deviations, by the volatility that was forecast before them."""
        return _towards(direction, self._moves_sigma)

    def liquidated_usd(self, at: int, direction: Direction) -> tuple[float, float, float] | None:
        """Forced closes in the last 10, 60 and 300 s; None while nobody prints any."""
        prints = self._by_direction[direction].prints
        if not prints.heard:
            return None
        kept = self._liquidated.get(direction)
        if kept is None or kept[0] != at:
            found = [prints.within(at, seconds) or 0.0 for seconds in (10, 60, 300)]
            kept = self._liquidated[direction] = at, (found[0], found[1], found[2])
        return kept[1]

    def normal_liquidated_usd(self, direction: Direction) -> float | None:
        """Forced closes of a usual minute."""
        return self._by_direction[direction].prints.normal_usd

    def psi(self, direction: Direction) -> float:
        """Taker flow for each forced dollar."""
        return self._by_direction[direction].follow_on.psi

    def endogeneity(self, direction: Direction) -> float | None:
        """Self-excitation of liquidations less what is usual."""
        return self._by_direction[direction].hawkes.latest.excess

    def survival(self, direction: Direction) -> Survival:
        """How much depth a shock leaves."""
        return self._by_direction[direction].survival

    def throughput(self, direction: Direction) -> float | None:
        """How fast liquidation engines have been seen to work, USD/s."""
        return self._by_direction[direction].throughput.usd_per_s()

    def absorbed(self, direction: Direction) -> float | None:
        """Share of forced flow that what is refilled takes; None while refill is not known."""
        refill = self.refill_usd_s(direction)
        found = self._by_direction[direction].throughput.absorbed(refill)
        return None if refill is None else found

    def depth_usd(self, direction: Direction) -> float | None:
        """Depth within 1 % over the books that are believed; None without any."""
        side = SIDE_OF[direction]
        known = [s.liquidity.depth(side) for s in self._instruments]
        found = [usd for usd in known if usd is not None]
        return sum(found) if found else None

    def depth_ratio(self, direction: Direction) -> float | None:
        """The same over what is usual at this hour."""
        side = SIDE_OF[direction]
        usual = total = 0.0
        for state in self._instruments:
            depth, ratio = state.liquidity.depth(side), state.liquidity.ratio(side)
            if depth is not None and ratio is not None and ratio > 0.0:
                total += depth
                usual += depth / ratio
        return total / usual if usual > 0.0 else None

    def depth_recovered(self, direction: Direction) -> float | None:
        """Depth within 1 % over that of an hour ago, before a shock that is under way."""
        depths = list(self._by_direction[direction].depths)
        first, last = DEPTH_BEFORE_MIN
        before = [usd for usd in depths[-last:-first] or depths[:first] if usd is not None]
        now = self.depth_usd(direction)
        if now is None or not before or (usual := median(before)) <= 0.0:
            return None
        return now / usual

    def refill_usd_s(self, direction: Direction) -> float | None:
        """What makers add less what they withdraw, over the books where it is measured."""
        side = SIDE_OF[direction]
        known = [s.liquidity.refill(side) for s in self._instruments]
        found = [usd for usd in known if usd is not None]
        return sum(found) if found else None

    def flow_sigma(self) -> float | None:
        """Standard deviation of signed taker flow, USD per root second."""
        variance = self._flow_variance.value
        return sqrt(variance / 60.0) if variance > 0.0 else None

    def funding(self, at: int) -> float | None:
        """Funding rate per 8 hours, by open interest; None where none is heard."""
        return self._weighted(
            at, {s.spec.name: s.funding.rate_8h for s in self._instruments if s.funding}
        )

    def funding_z(self, at: int, direction: Direction) -> float | None:
        """How unusually much the side at risk pays."""
        funding = self.funding(at)
        z = None if funding is None else self._funding.z(funding)
        return None if z is None else -SIGN[direction] * z

    def interest(self, at: int) -> float | None:
        """Open interest of all instruments in base units; None while one is unheard."""
        total = 0.0
        for state in self._instruments:
            base = state.open_interest_base
            if base is None or at - state.open_interest_at > INTEREST_STALE_NS:
                return None
            total += base * state.spec.multiplier
        return total or None

    def _is_read(self, at: int) -> bool:
        """Whether open interest was read everywhere within the last minute."""
        return all(at - s.open_interest_at <= 60 * NS for s in self._instruments)

    def _is_whole(self, at: int) -> bool:
        """Whether every instrument that was heard in the last day still is, and so its closes."""
        known = (s for s in self._instruments if s.mark_at and at - s.mark_at <= GONE_NS)
        return all(s.hears_mark(at) for s in known)

    def interest_z(self, at: int) -> float | None:
        """How unusually large open interest is."""
        interest = self.interest(at)
        return None if interest is None else self._interest.z(interest)

    def interest_change(self, at: int) -> float | None:
        """Change of open interest over five minutes, a ratio."""
        now = self.interest(at)
        before = self._interests[0] if len(self._interests) == self._interests.maxlen else None
        return now / before - 1.0 if now is not None and before else None

    def plumbing(self, at: int) -> float | None:
        """How unusual the gap between mark and index is, as a quantile."""
        gap = self.mark_gap(at)
        return None if gap is None else self._gap.quantile(gap)

    def mark_gap(self, at: int) -> float | None:
        """The largest distance of a mark from its index, a ratio; None where none is known."""
        gaps = [
            abs(s.basis)
            for s in self._instruments
            if s.basis is not None and s.hears_mark(at) and s.hears_index(at)
        ]
        return max(gaps) if gaps else None

    def _weighted(self, at: int, values: Mapping[str, float]) -> float | None:
        total = weight = 0.0
        for state in self._instruments:
            value, usd = values.get(state.spec.name), state.open_interest_usd
            if value is not None and usd is not None and state.hears_mark(at):
                total, weight = total + value * usd, weight + usd
        return total / weight if weight > 0.0 else None

    # ------------------------------------------------------------------------- warm restart

    def state(self) -> ConditionsState:
        """What a restart must not forget."""
        sides = list(self._by_direction.values())
        return ConditionsState(
            volatility=self.volatility.state(),
            arbitrage=self.arbitrage.state(),
            liquidity={s.spec.name: s.liquidity.state() for s in self._instruments},
            prints=[side.prints.state() for side in sides],
            follow_on=[side.follow_on.state() for side in sides],
            hawkes=[side.hawkes.state() for side in sides],
            survival=[side.survival.state() for side in sides],
            throughput=[side.throughput.state() for side in sides],
            funding=self._funding.state(),
            interest=self._interest.state(),
            gap=self._gap.state(),
            flow_variance=(self._flow_variance.heard, self._flow_variance.value),
        )

    def restore(self, state: ConditionsState) -> dict[str, LiquidityState]:
        """Take over a saved state; what belongs to instruments that are not listed yet.

        Raises:
            StateError: a part of it does not fit.
        """
        minutes, variance = state.flow_variance
        if not (0.0 <= minutes <= FLOW_MEMORY_MIN and isfinite(variance) and variance >= 0.0):
            raise StateError("conditions with an impossible variance of flow")
        self.volatility.restore(state.volatility)
        self._has_past = True
        self.arbitrage = Arbitrage(list(state.arbitrage.sums))
        self.arbitrage.restore(state.arbitrage)
        for i, side in enumerate(self._by_direction.values()):
            side.prints.restore(state.prints[i])
            side.follow_on.restore(state.follow_on[i])
            side.hawkes.restore(state.hawkes[i])
            side.hawkes.interrupted()
            side.survival.restore(state.survival[i])
            side.throughput.restore(state.throughput[i])
        self._funding.restore(state.funding)
        self._interest.restore(state.interest)
        self._gap.restore(state.gap)
        self._flow_variance.heard, self._flow_variance.value = state.flow_variance
        return dict(state.liquidity)


class _Side:
    """What is measured per direction."""

    def __init__(self, correction: ThrottleCorrection) -> None:
        self.prints = Prints(correction)
        self.follow_on = FollowOn()
        self.hawkes = Hawkes()
        self.survival = Survival()
        self.throughput = Throughput()
        # Depth within 1 % per minute.
        self.depths: deque[float | None] = deque(maxlen=DEPTH_BEFORE_MIN[1])


def _towards(
    direction: Direction, upwards: tuple[float, float] | None
) -> tuple[float, float] | None:
    if upwards is None:
        return None
    return SIGN[direction] * upwards[0], SIGN[direction] * upwards[1]


def _unit_price(state: InstrumentState) -> float:
    return (state.mark or 0.0) / state.spec.multiplier
