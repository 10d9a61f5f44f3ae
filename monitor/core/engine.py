"""Events and ticks in, messages out: the state of every instrument, pooled per asset.

The engine reads no clock. It publishes on ticks, at fixed multiples of the publishing interval of
the input's own time, so that a replay publishes at the very moments the live run did.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from monitor.config import EngineConfig
from monitor.core.depth import pooled_depth
from monitor.core.instrument import InstrumentState
from monitor.events import (
    NS,
    BookDelta,
    BookSnapshot,
    Desync,
    Funding,
    Gap,
    InstrumentStatus,
    Liquidation,
    Listed,
    Lost,
    Market,
    MarkPrice,
    Message,
    Opened,
    OpenInterest,
    Rejected,
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
        assets: states by asset, in the order in which they were listed.
        events: how many events of each type came.
        rejected: refusals by (venue, reason).
        gaps: sequence breaks by venue.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.instruments: dict[str, InstrumentState] = {}
        self.assets: dict[str, list[InstrumentState]] = {}
        self.connected: dict[str, bool] = {}
        self.events: Counter[type] = Counter()
        self.rejected: Counter[tuple[str, str]] = Counter()
        self.gaps: Counter[str] = Counter()
        self.delays: dict[str, Delays] = {}
        self._publish_ns = config.publish_interval_ms * MS_NS
        self._status_ns = config.status_interval_ms * MS_NS
        self._published = 0
        self._reported = 0
        self._sequence: Counter[tuple[str, str]] = Counter()
        self._of_instrument: dict[type, Callable[[int, InstrumentState, Any], Result]] = {
            BookDelta: self._on_delta,
            BookSnapshot: self._on_snapshot,
            Trade: self._on_trade,
            MarkPrice: self._on_mark,
            Funding: self._on_funding,
            OpenInterest: self._on_open_interest,
            Liquidation: self._on_liquidation,
            Transfer: self._on_transfer,
            Gap: self._on_gap,
            Syncing: self._on_syncing,
        }
        self._of_process: dict[type, Callable[[int, Any], Result]] = {
            Silence: self._on_silence,
            Rejected: self._on_rejected,
            Listed: self._on_listed,
            Opened: self._on_opened,
            Lost: self._on_lost,
            Tick: self._on_tick,
        }

    def process(self, at: int, event: Market | Opened | Lost | Tick) -> Result:
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

    def _on_gap(self, _at: int, state: InstrumentState, event: Gap) -> Result:
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
        state.trades += 1
        state.last_price = event.price
        state.flow.add(at, event.price * event.quantity, event.taker)
        self._delay(state.spec.venue, at, event.sent_at)
        return _NOTHING

    def _on_transfer(self, _at: int, state: InstrumentState, _event: Transfer) -> Result:
        state.transfers += 1
        return _NOTHING

    def _on_mark(self, at: int, state: InstrumentState, event: MarkPrice) -> Result:
        if event.mark is not None:
            state.mark, state.mark_at = event.mark, at
        if event.index is not None:
            state.index = event.index
        self._delay(state.spec.venue, at, event.sent_at)
        return _NOTHING

    def _on_funding(self, _at: int, state: InstrumentState, event: Funding) -> Result:
        state.funding = event
        return _NOTHING

    def _on_open_interest(self, at: int, state: InstrumentState, event: OpenInterest) -> Result:
        state.open_interest_base, state.open_interest_at = event.base, at
        price = state.price(at)
        if event.usd is not None:
            state.open_interest_usd = event.usd
        else:
            state.open_interest_usd = None if price is None else event.base * price
        return _NOTHING

    def _on_liquidation(self, at: int, state: InstrumentState, event: Liquidation) -> Result:
        state.liquidated_usd[event.side] += event.usd
        state.liquidations += 1
        return [self._message("liquidations", state.spec.asset, at, event)]

    # ------------------------------------------------------------------------------- health

    def _on_listed(self, _at: int, event: Listed) -> Result:
        spec = event.instrument
        known = self.instruments.get(spec.name)
        if known is not None:
            known.respecify(spec)
            return _NOTHING
        state = InstrumentState(spec)
        self.instruments[spec.name] = state
        self.assets.setdefault(spec.asset, []).append(state)
        self.delays.setdefault(spec.venue, Delays())
        return _NOTHING

    def _on_silence(self, _at: int, event: Silence) -> Result:
        state = self.instruments.get(event.instrument)
        if state is None:
            return _NOTHING
        if event.since is None:
            state.silent.pop(event.channel, None)
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

    # --------------------------------------------------------------------------- publishing

    def _on_tick(self, at: int, _event: Tick) -> Result:
        result: Result = []
        for state in self.instruments.values():
            reason = state.book.check()
            if reason:
                result += self._broken(state, reason)
            state.volatility.sample(at, *state.quote(at))
        if at // self._publish_ns != self._published:
            self._published = at // self._publish_ns
            for asset, states in self.assets.items():
                depth = pooled_depth(states)
                if depth is not None:
                    result.append(self._message("depth", asset, at, depth))
        if at // self._status_ns != self._reported:
            self._reported = at // self._status_ns
            result.append(self._message("status", "", at, self.status(at)))
        return result

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
            ],
        )

    def _message(self, kind: Any, asset: str, at: int, data: Any) -> Message:  # noqa: ANN401
        self._sequence[kind, asset] += 1
        return Message(kind, asset, self._sequence[kind, asset], at, data)

    def _delay(self, venue: str, at: int, sent_at: int) -> None:
        if sent_at:
            self.delays[venue].add(at - sent_at)


def _age(at: int, heard_at: int) -> float | None:
    return (at - heard_at) / NS if heard_at else None
