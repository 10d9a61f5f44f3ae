"""Events and ticks in, messages out: the state of every instrument, pooled per asset.

The engine reads no clock. It publishes on ticks, at fixed multiples of the publishing interval of
the input's own time, so that a replay publishes at the very moments the live run did.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from monitor.config import EngineConfig
from monitor.core.asset import Asset
from monitor.core.cascade.curves import USD_MAX
from monitor.core.depth.bands import pooled_depth
from monitor.core.heatmap.calibration import ThrottleCorrection
from monitor.core.heatmap.pooling import Estimate, published, row_of
from monitor.core.heatmap.priors import BELIEFS
from monitor.core.instrument import InstrumentState
from monitor.core.neighbours import Neighbours
from monitor.core.quantities.funds import pool_of, valued
from monitor.core.saved import StateError
from monitor.events import (
    MARK_CHANNELS,
    NS,
    Body,
    BookDelta,
    BookSnapshot,
    Candles,
    Desync,
    Direction,
    Funding,
    Gap,
    InstrumentStatus,
    InsuranceFund,
    InterestHistory,
    Kind,
    Liquidation,
    Listed,
    Lost,
    Market,
    MarkPrice,
    Message,
    Opened,
    OpenInterest,
    Rejected,
    Restored,
    Silence,
    Status,
    Syncing,
    Tick,
    Trade,
    Transfer,
)

Result: TypeAlias = list[Message | Desync]

MS_NS: Final = 1_000_000

DELAY_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Bounds of the histogram of receive time less venue time."""

PAST_WAIT_NS: Final = 20 * NS
INTEREST_WAIT_NS: Final = 4 * NS
"""How long a map waits for candles, which some venues or recordings do not have, and then for the
open interest of the past: before, all positions would stand where the price is now."""

ROW_REACH: Final = 0.15
"""Log distance from the mark that a row of the two-dimensional picture covers."""

BASE_MIN: Final = 1e-15
"""Less open interest than this, but not none, is no number."""

_NOTHING: Final[Result] = []


class Delays:
    """Histogram of feed delay of one venue; a venue clock ahead of ours counts as skew."""

    def __init__(self) -> None:
        self.counts = [0] * (len(DELAY_BOUNDS_S) + 1)
        self.sum_s = 0.0
        self.skewed = 0

    def add(self, delay_ns: int) -> None:
        """Count one message."""
        if delay_ns < 0:
            self.skewed += 1
            delay_ns = 0
        delay = delay_ns / NS
        self.counts[bisect_left(DELAY_BOUNDS_S, delay)] += 1
        self.sum_s += delay


class Engine:
    """State of the market as far as it is known.

    Attributes:
        instruments: state by instrument name.
        assets: by name, in the order in which they were first listed.
        events: how many events of each type came.
        rejected: refusals by (venue, reason).
        gaps: sequence breaks by venue.
        refused: saved states that could not be used, by instrument or asset, and why.
    """

    def __init__(self, config: EngineConfig, wanted: Iterable[tuple[str, str]] = ()) -> None:
        """`wanted` are the names of the instruments to be followed, each with its asset."""
        self.instruments: dict[str, InstrumentState] = {}
        self.assets: dict[str, Asset] = {}
        self.connected: dict[str, bool] = {}
        self.events: Counter[type] = Counter()
        self.rejected: Counter[tuple[str, str]] = Counter()
        self.gaps: Counter[str] = Counter()
        self.delays: dict[str, Delays] = {}
        self.refused: dict[str, str] = {}
        self._wanted = dict(wanted)
        self._correction = ThrottleCorrection()
        self._belief = BELIEFS[config.prior]
        self._neighbours = Neighbours()
        self._publish_ns = config.publish_interval_ms * MS_NS
        self._status_ns = config.status_interval_ms * MS_NS
        self._venue_ns = config.venue_interval_ms * MS_NS
        self._row_ns = config.heatmap_row_interval_ms * MS_NS
        self._last: Counter[str] = Counter()
        self._sequence: Counter[tuple[str, str, str]] = Counter()
        self._of_instrument: dict[type, Callable[[int, InstrumentState, Any], Result]] = {
            BookDelta: self._on_delta,
            BookSnapshot: self._on_snapshot,
            Trade: self._on_trade,
            MarkPrice: self._on_mark,
            Funding: self._on_funding,
            OpenInterest: self._on_open_interest,
            Candles: self._on_candles,
            InterestHistory: self._on_interests,
            Liquidation: self._on_liquidation,
            Transfer: self._on_transfer,
            Gap: self._on_gap,
            Syncing: self._on_syncing,
        }
        self._of_process: dict[type, Callable[[int, Any], Result]] = {
            InsuranceFund: self._on_fund,
            Silence: self._on_silence,
            Rejected: self._on_rejected,
            Listed: self._on_listed,
            Opened: self._on_opened,
            Lost: self._on_lost,
            Tick: self._on_tick,
            Restored: self._on_restored,
        }

    def process(self, at: int, event: Market | Opened | Lost | Tick | Restored) -> Result:
        """Take one event received at `at` (ns) and return what is to be published.

        An event of an instrument whose specification is not known (its list came damaged, or has
        not come yet) is refused: without contract size and tick it means nothing.
        """
        kind = type(event)
        self.events[kind] += 1
        handler = self._of_instrument.get(kind)
        if handler is None:
            return self._of_process[kind](at, event)
        name: str = event.instrument  # type: ignore[union-attr,assignment]  # all of these have one
        state = self.instruments.get(name)
        if state is None:
            self.rejected[name.partition(":")[0], "unknown_symbol"] += 1
            return _NOTHING
        return handler(at, state, event)

    # -------------------------------------------------------------------------------- books

    def _on_delta(self, at: int, state: InstrumentState, event: BookDelta) -> Result:
        state.book_at = at
        reason = state.book.delta(event.bids, event.asks)
        return self._broken(state, reason) if reason else _NOTHING

    def _on_snapshot(self, at: int, state: InstrumentState, event: BookSnapshot) -> Result:
        state.book_at = at
        reason = state.book.snapshot(
            event.bids, event.asks, depth=event.depth, maintained=event.maintained
        )
        return self._broken(state, reason) if reason else _NOTHING

    def _on_gap(self, at: int, state: InstrumentState, event: Gap) -> Result:
        if event.reason == "marks_lost":
            if state.map is not None:
                state.map.lost(at)
            return _NOTHING
        if state.book.state == "synced" and event.reason != "feed_lost":
            state.book.gaps += 1
            self.gaps[state.spec.venue] += 1
        state.book.distrust()
        return _NOTHING

    def _on_syncing(self, _at: int, state: InstrumentState, _event: Syncing) -> Result:
        state.book.expect()
        return _NOTHING

    def _broken(self, state: InstrumentState, reason: str) -> Result:
        """A book contradicts itself: count it, and have the codec fetch it anew."""
        state.book.gaps += 1
        self.gaps[state.spec.venue] += 1
        self.rejected[state.spec.venue, reason] += 1
        return [Desync(state.spec.name, reason)]

    # ------------------------------------------------------------------------------- prices

    def _on_trade(self, at: int, state: InstrumentState, event: Trade) -> Result:
        if event.price * event.quantity >= USD_MAX:
            return self._absurd(state)
        state.trades += 1
        state.last_price = event.price
        state.flow.add(at, event.price * event.quantity, event.taker)
        if state.map is not None:
            state.map.traded(at, event.price, event.quantity, event.taker)
        self._delay(state.spec.venue, at, event.sent_at)
        return _NOTHING

    def _on_transfer(self, _at: int, state: InstrumentState, event: Transfer) -> Result:
        state.transfers += 1
        state.deleveraged += event.kind == "adl"
        return _NOTHING

    def _on_mark(self, at: int, state: InstrumentState, event: MarkPrice) -> Result:
        if event.mark is not None:
            if event.mark * (state.open_interest_base or 0.0) >= USD_MAX:
                return self._absurd(state)
            state.mark, state.mark_at = event.mark, at
            state.ready_at = state.ready_at or at + PAST_WAIT_NS
            if state.map is not None:
                state.map.mark(at, event.mark)
        if event.index is not None:
            state.index, state.index_at = event.index, at
        self._delay(state.spec.venue, at, event.sent_at)
        return _NOTHING

    def _on_funding(self, _at: int, state: InstrumentState, event: Funding) -> Result:
        state.funding = event
        return _NOTHING

    def _on_open_interest(self, at: int, state: InstrumentState, event: OpenInterest) -> Result:
        if 0.0 < event.base < BASE_MIN or event.base * (state.mark or 0.0) >= USD_MAX:
            return self._absurd(state)
        if state.map is not None:
            glitches = state.map.glitches
            state.map.open_interest(at, event.base)
            if state.map.glitches > glitches:
                self.rejected[state.spec.venue, "open_interest_jump"] += 1
                return _NOTHING
        state.open_interest_base, state.open_interest_at = event.base, at
        price = state.price(at)
        if event.usd is not None:
            state.open_interest_usd = event.usd
        else:
            state.open_interest_usd = None if price is None else event.base * price
        return _NOTHING

    def _on_liquidation(self, at: int, state: InstrumentState, event: Liquidation) -> Result:
        if event.usd >= USD_MAX:
            return self._absurd(state)
        state.liquidated_usd[event.side] += event.usd
        state.liquidations += 1
        if state.map is not None:
            state.map.liquidation(at, event.side, event.usd, event.completeness)
        self.assets[state.spec.asset].printed(at, state, event)
        return [self._message("liquidations", state.spec.asset, at, event)]

    def _on_candles(self, at: int, state: InstrumentState, event: Candles) -> Result:
        state.candles = event.rows
        # Open interest is asked for after them and comes soon, if the venue has it.
        state.ready_at = min(state.ready_at or at + PAST_WAIT_NS, at + INTEREST_WAIT_NS)
        self.assets[state.spec.asset].conditions.history(event.rows)
        if state.map is not None:
            state.map.history(state.candles, state.interests)
        return _NOTHING

    def _on_interests(self, _at: int, state: InstrumentState, event: InterestHistory) -> Result:
        state.interests = event.rows
        # Without candles nobody knows at what prices they came; those will be told with these.
        if state.map is not None and state.candles:
            state.map.history(state.candles, state.interests)
        return _NOTHING

    def _on_fund(self, at: int, event: InsuranceFund) -> Result:
        prices = {name: asset.conditions.price() for name, asset in self.assets.items()}
        fund = valued(event, prices, at, pool=pool_of(event, self.instruments.values()))
        for name in event.covers:
            if name in self.instruments:
                self.instruments[name].fund = fund
        return _NOTHING

    def _absurd(self, state: InstrumentState) -> Result:
        """A number that cannot be: count it, and take nothing of it over."""
        self.rejected[state.spec.venue, "bad_number"] += 1
        return _NOTHING

    # ------------------------------------------------------------------------------- health

    def _on_listed(self, at: int, event: Listed) -> Result:
        spec = event.instrument
        state = self.instruments.get(spec.name)
        if state is not None:
            state.respecify(spec)
        else:
            state = self.instruments[spec.name] = InstrumentState(spec)
            self._asset(spec.asset).add(state)
            self.delays.setdefault(spec.venue, Delays())
        reason = self.assets[spec.asset].specify(at, state)
        if reason is not None:
            self.refused[spec.name] = reason
        return _NOTHING

    def _asset(self, name: str) -> Asset:
        if name not in self.assets:
            unlisted = [n for n, asset in self._wanted.items() if asset == name]
            self.assets[name] = Asset(name, self._correction, self._belief, unlisted=unlisted)
        return self.assets[name]

    def _on_silence(self, at: int, event: Silence) -> Result:
        state = self.instruments.get(event.instrument)
        if state is None:
            return _NOTHING
        if event.since is None:
            state.silent.pop(event.channel, None)
            if event.channel in MARK_CHANNELS and state.map is not None:
                state.map.lost(at)
        else:
            state.silent[event.channel] = event.since
        if event.channel == "book":
            state.book.hush(silent=event.since is not None)
        return _NOTHING

    def _on_rejected(self, _at: int, event: Rejected) -> Result:
        self.rejected[event.venue, event.reason] += 1
        return _NOTHING

    def _on_opened(self, _at: int, event: Opened) -> Result:
        self.connected[event.feed] = True
        return _NOTHING

    def _on_lost(self, _at: int, event: Lost) -> Result:
        self.connected[event.feed] = False
        return _NOTHING

    # --------------------------------------------------------------------------- warm restart

    @property
    def contagion(self) -> Mapping[Direction, float]:
        """Spectral radius of what assets do to each other, by direction; empty while unknown."""
        return self._neighbours.radius

    def state(self, asset: str, at: int) -> bytes:
        """What another process needs to go on with an asset; empty while nothing is known."""
        if asset not in self.assets:
            return b""
        return self.assets[asset].state(at, self._neighbours.row(asset))

    def _on_restored(self, at: int, event: Restored) -> Result:
        try:
            self.refused.update(self._asset(event.asset).resume(at, event.data))
        except StateError as problem:
            self.refused[event.asset] = str(problem)
        return _NOTHING

    # --------------------------------------------------------------------------- publishing

    def _on_tick(self, at: int, _event: Tick) -> Result:
        result: Result = []
        for state in self.instruments.values():
            reason = state.book.check()
            if reason:
                result += self._broken(state, reason)
            state.volatility.sample(at, *state.quote(at))
            if state.map is not None:
                state.map.advance(at)
        for asset in self.assets.values():
            for graded in asset.advance(at):
                result.append(self._message("forecasts", asset.name, at, graded))
        self._neighbours.advance(at, self.assets)
        if self._is_due("asset", at, self._publish_ns):
            venues_due = self._is_due("venue", at, self._venue_ns)
            row_due = self._is_due("row", at, self._row_ns)
            for asset in self.assets.values():
                depth = pooled_depth(asset.instruments)
                if depth is not None:
                    result.append(self._message("depth", asset.name, at, depth))
                estimates = asset.estimates(at)
                together = asset.pooled(estimates)
                if together is not None:
                    result += self._heatmaps(
                        at, asset, estimates, together, venues=venues_due, row=row_due
                    )
                risk, alerts = asset.assess(at, estimates, together, self._neighbours.radius)
                result.append(self._message("risk", asset.name, at, risk))
                result += [self._message("alerts", asset.name, at, alert) for alert in alerts]
        if self._is_due("status", at, self._status_ns):
            result.append(self._message("status", "", at, self.status(at)))
        return result

    def _heatmaps(
        self,
        at: int,
        asset: Asset,
        estimates: Mapping[str, Estimate],
        together: Estimate,
        *,
        venues: bool,
        row: bool,
    ) -> Result:
        heatmap = published(together)
        result: Result = [self._message("heatmap", asset.name, at, heatmap)]
        if venues:
            for venue, own in asset.by_venue(estimates).items():
                result.append(self._message("heatmap", asset.name, at, published(own), venue))
        if row:
            picture = row_of(heatmap, ROW_REACH)
            result.append(self._message("heatmap:log", asset.name, at, picture))
        return result

    def _is_due(self, what: str, at: int, interval_ns: int) -> bool:
        """Whether a multiple of the interval has passed since this was last asked."""
        number = at // interval_ns
        if number <= self._last[what]:
            return False
        self._last[what] = number
        return True

    def status(self, at: int) -> Status:
        """Health of everything heard, at a time in ns."""
        return Status(
            dict(self.connected),
            [
                InstrumentStatus(
                    instrument=name,
                    book=state.book.state,
                    book_age_s=_age(at, state.book_at),
                    mark_age_s=_age(at, state.mark_at),
                    open_interest_age_s=_age(at, state.open_interest_at),
                    silent=list(state.silent),
                )
                for name, state in self.instruments.items()
            ]
            + [
                InstrumentStatus(name, "empty", None, None, None, [])
                for name in self._wanted
                if name not in self.instruments
            ],
        )

    def _message(self, kind: Kind, asset: str, at: int, data: Body, venue: str = "") -> Message:
        self._sequence[kind, asset, venue] += 1
        return Message(kind, asset, self._sequence[kind, asset, venue], at, data, venue)

    def _delay(self, venue: str, at: int, sent_at: int) -> None:
        if sent_at:
            self.delays[venue].add(at - sent_at)


def _age(at: int, heard_at: int) -> float | None:
    return (at - heard_at) / NS if heard_at else None
