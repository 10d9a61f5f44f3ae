"""Binance USD-M futures (https://developers.binance.com/docs/derivatives/usds-margined-futures).

Two sockets since 2026-04-23: ``/public`` carries order books, ``/market`` everything else; a
subscription on the wrong one is acknowledged and then silent.

Order book, after "How to manage a local order book correctly" (exchanges.md 1b):

1. Subscribe ``<symbol>@depth@100ms`` and buffer every update.
2. Fetch the REST snapshot; call its ``lastUpdateId`` L.
3. Drop buffered updates with ``u < L``.
4. The first update applied has ``U <= L <= u``, or ``pu == L``.
5. From then on each update's ``pu`` is the ``u`` before it. If not: back to 2.
6. A snapshot older than the first buffered update (``L < U`` and ``pu != L``) is fetched again.
"""

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from monitor.config import VenueConfig
from monitor.events import (
    NS,
    BookDelta,
    BookSnapshot,
    Fetch,
    Frame,
    Funding,
    Gap,
    Instrument,
    Level,
    Liquidation,
    MarkPrice,
    OpenInterest,
    Reply,
    Taker,
    Tier,
    Trade,
    Transfer,
)
from monitor.venues.base import (
    INTEREST_MAX,
    MS,
    STREAM_PATIENCE_S,
    Codec,
    FeedSpec,
    HttpSpec,
    Operation,
    Out,
    Recorded,
    Stream,
    TimeMs,
    is_ladder,
    is_positive,
    multiplier_of,
    per_8h,
    spread,
)

SNAPSHOT_WEIGHTS: Final = ((5, 2), (10, 2), (20, 2), (50, 2), (100, 5), (500, 10), (1000, 20))
"""The limits of levels that ``/fapi/v1/depth`` takes, and their request weights."""

STALE_SNAPSHOT_WAIT_NS: Final = NS // 2
"""The venue's snapshots lag; ask a moment later for a newer one."""

PENDING_MAX: Final = 1_000
"""Updates buffered while a snapshot is awaited: a hundred seconds of the 100 ms stream.

A snapshot is as new as its answer, so that older updates than these are of no use.
"""

STREAMS_MAX: Final = 200
"""Streams on one socket: the venue documents 1024, older pages said 200 (exchanges.md 1a)."""

DEFAULT_POLL_S: Final = 5.0

POLLS_PER_S: Final = 20.0
"""Most open-interest requests a second: half of the venue's request weight."""

CANDLES_ASKED: Final = 1_500
CANDLES_WEIGHT: Final = 10
"""The most that ``/fapi/v1/klines`` gives at once, 125 hours, and its request weight."""

INTERESTS_ASKED: Final = 500
"""The most that ``/futures/data/openInterestHist`` gives at once: 41 hours.

It has a budget of its own, 1000 requests in five minutes, and no request weight.
"""

DEFAULT_FUNDING_HOURS: Final = 8.0
"""Interval of every symbol that ``/fapi/v1/fundingInfo`` does not list."""

STABLE_QUOTES: Final = frozenset({"USDT", "USDC", "USD", "FDUSD", "BUSD"})


class DepthUpdate(Struct, tag_field="e", tag="depthUpdate", gc=False):
    s: str
    T: TimeMs
    U: int
    u: int
    pu: int
    b: list[Level]
    a: list[Level]
    st: int = 1


class AggTrade(Struct, tag_field="e", tag="aggTrade", gc=False):
    s: str
    p: float
    q: float
    T: TimeMs
    m: bool
    st: int = 1


class RawTrade(Struct, tag_field="e", tag="trade", gc=False):
    """The undocumented ``@trade``; X other than MARKET never was in the book."""

    s: str
    p: float
    q: float
    T: TimeMs
    m: bool
    X: str = "MARKET"
    st: int = 1


class MarkPriceUpdate(Struct, tag_field="e", tag="markPriceUpdate", gc=False):
    s: str
    E: TimeMs
    p: float
    i: str = ""
    r: str = ""
    T: TimeMs = 0
    st: int = 1


class ForcedOrder(Struct, gc=False):
    s: str
    S: Literal["BUY", "SELL"]
    p: float
    ap: float
    z: float
    T: TimeMs


class ForceOrder(Struct, tag_field="e", tag="forceOrder", gc=False):
    o: ForcedOrder
    st: int = 1


class Bracket(Struct):
    bnf: float
    bnc: float
    mmr: float
    cf: float
    ma: float


class ContractInfo(Struct, tag_field="e", tag="contractInfo"):
    s: str
    bks: list[Bracket] = []
    st: int = 1


class BookTicker(Struct, tag_field="e", tag="bookTicker", gc=False):
    """Not used: the book has it."""


class Kline(Struct, tag_field="e", tag="kline", gc=False):
    """Not used."""


class Ticker(Struct, tag_field="e", tag="24hrTicker", gc=False):
    """Not used."""


Event: TypeAlias = (
    DepthUpdate
    | AggTrade
    | RawTrade
    | MarkPriceUpdate
    | ForceOrder
    | ContractInfo
    | BookTicker
    | Kline
    | Ticker
)


class Wrapped(Struct, gc=False):
    """A message of the combined ``/stream`` form."""

    data: Event


class Control(Struct):
    """The answer to a request of ours, or a message of a kind we do not know.

    `Raw` is empty for what is not there; a union of it with None would take nothing but null.
    """

    id: int | None = None
    error: msgspec.Raw = msgspec.Raw(b"")
    data: msgspec.Raw = msgspec.Raw(b"")
    e: str | None = None


class Kind(Struct):
    e: str | None = None


class DepthReply(Struct):
    lastUpdateId: int
    bids: list[Level]
    asks: list[Level]
    T: TimeMs = 0


class OpenInterestReply(Struct):
    """Recordings may have no `time`."""

    openInterest: float
    symbol: str
    time: TimeMs = 0


class InterestRow(Struct, gc=False):
    """Open interest in base units as it stood at `timestamp`."""

    symbol: str
    sumOpenInterest: float
    timestamp: TimeMs


class KlineRow(Struct, array_like=True, gc=False):
    """A candle, from the time it began; the volumes behind are skipped."""

    start: TimeMs
    open: float
    high: float
    low: float
    close: float


class Filter(Struct):
    filterType: str
    tickSize: str = ""
    stepSize: str = ""


class SymbolInfo(Struct):
    symbol: str
    baseAsset: str
    quoteAsset: str
    marginAsset: str
    filters: list[Filter]
    liquidationFee: str = ""


class ExchangeInfo(Struct):
    symbols: list[SymbolInfo]


class FundAsset(Struct):
    asset: str
    marginBalance: float
    updateTime: TimeMs


class FundGroup(Struct):
    """One pool; the symbols of a group share it."""

    symbols: list[str]
    assets: list[FundAsset]


class FundingInfo(Struct):
    symbol: str
    fundingIntervalHours: float


_wrapped = msgspec.json.Decoder(Wrapped, strict=False)
_bare = msgspec.json.Decoder(Event, strict=False)
_control = msgspec.json.Decoder(Control)
_kind = msgspec.json.Decoder(Kind)
_depth_reply = msgspec.json.Decoder(DepthReply, strict=False)
_interests = msgspec.json.Decoder(list[InterestRow], strict=False)
_open_interest = msgspec.json.Decoder(OpenInterestReply, strict=False)
_klines = msgspec.json.Decoder(list[KlineRow], strict=False)
_exchange_info = msgspec.json.Decoder(ExchangeInfo)
_funding_info = msgspec.json.Decoder(list[FundingInfo], strict=False)
_funds = msgspec.json.Decoder(list[FundGroup], strict=False)


_KNOWN = {"depthUpdate", "aggTrade", "trade", "markPriceUpdate", "forceOrder", "contractInfo"}


class Chain:
    """Sequence state of one book; `pending` is None once deltas flow (step 5)."""

    __slots__ = ("joining", "last", "pending")

    def __init__(self) -> None:
        self.pending: list[DepthUpdate] | None = []
        self.last = 0
        self.joining = False


class Binance(Codec):
    """Codec of Binance USD-M."""

    venue = "binance"
    batch_max = 100  # the venue documents no limit but that of a connection
    recorded = Recorded(
        socket=r"^wss://fstream\.binance\.com",
        message=rb'\{"(?:stream|e)":.*?"s":"([A-Z0-9]+)"',
        replies=(
            (r"/fapi/v1/depth\?.*symbol=([A-Z0-9]+)", r"depth:\1"),
            (r"/fapi/v1/openInterest\?.*symbol=([A-Z0-9]+)", r"open_interest:\1"),
            (r"/fapi/v1/exchangeInfo", "instruments"),
            (r"/fapi/v1/fundingInfo", "funding_info"),
            (r"/fapi/v1/insuranceBalance$", "funds"),
        ),
    )

    def __init__(self, config: VenueConfig, known: Iterable[Instrument]) -> None:
        super().__init__(config, known)
        per_feed = min(config.symbols_per_socket, (STREAMS_MAX - 1) // 3)
        public = spread(self.assets, per_feed=per_feed, prefix="binance.public")
        market = spread(self.assets, per_feed=per_feed, prefix="binance.market")
        self.feeds = [
            FeedSpec(
                name,
                f"{config.ws_url}/{name.split('.')[1]}/stream",
                send_interval_s=0.25,  # the venue allows 10 messages a second
                lifetime_s=23 * 3600,  # it cuts at 24 h
            )
            for name in dict.fromkeys([*public.values(), *market.values()])
        ]
        self.http = HttpSpec(config.http_url, weight=2400, window_s=60)
        self._books: dict[str, tuple[Stream, Chain]] = {}
        self._trades: dict[str, Stream] = {}
        self._marks: dict[str, Stream] = {}
        self._forced: dict[str, Stream] = {}
        self._interests: dict[str, Stream] = {}
        self._intervals: dict[str, float] | None = None
        self._aggregated: set[str] = set()
        self._poll_s = max(
            config.open_interest_interval_s or DEFAULT_POLL_S, len(self.assets) / POLLS_PER_S
        )
        self._levels, self._levels_weight = next(
            (known for known in SNAPSHOT_WEIGHTS if known[0] >= config.book_depth),
            SNAPSHOT_WEIGHTS[-1],
        )
        for symbol in self.assets:
            topic = symbol.lower()
            book = self._add(f"{topic}@depth@100ms", symbol, "book", public[symbol])
            self._books[symbol] = (book, Chain())
            self._trades[symbol] = self._add(
                f"{topic}@aggTrade", symbol, "trades", market[symbol], patience_s=None
            )
            self._marks[symbol] = self._add(f"{topic}@markPrice@1s", symbol, "mark", market[symbol])
            self._forced[symbol] = self._add(
                f"{topic}@forceOrder", symbol, "liquidations", market[symbol], patience_s=None
            )
            self._interests[symbol] = self._poll_open_interest(symbol)
        if self.assets:
            self._add("!contractInfo", "", "contracts", "binance.market.0", patience_s=None)
        every = config.instruments_interval_s
        self.requests.every(Fetch(self.venue, "instruments", "/fapi/v1/exchangeInfo"), every)
        self.requests.every(Fetch(self.venue, "funding_info", "/fapi/v1/fundingInfo"), every)

    # ---------------------------------------------------------------------------- messages

    def _decode(self, frame: Frame) -> Out:
        try:
            if frame.data.startswith(b'{"stream"'):
                event: Event = _wrapped.decode(frame.data).data
            else:
                event = _bare.decode(frame.data)
        except msgspec.ValidationError:
            return self._other(frame)
        match event:
            case DepthUpdate():
                return self._depth(event, frame)
            case AggTrade():
                if event.s in self._trades:
                    self._aggregated.add(event.s)
                return self._trade(event, frame)
            case RawTrade():
                return self._raw_trade(event, frame)
            case MarkPriceUpdate():
                return self._mark(event, frame)
            case ForceOrder():
                return self._force(event, frame)
            case ContractInfo():
                return self._brackets(event, frame)
            case _:
                return []

    def _other(self, frame: Frame) -> Out:
        """An answer to a request, an event we do not know, or a broken one."""
        control = _control.decode(frame.data)
        error, data = bytes(control.error), bytes(control.data)
        if error not in {b"", b"null"}:
            return self._refuse(frame, "refused")
        if not data and control.e is None and control.id is not None:
            return []
        kind = _kind.decode(data).e if data.startswith(b"{") else control.e
        reason = "schema" if kind in _KNOWN or kind is None else "unknown_kind"
        return self._refuse(frame, reason)

    def _known(self, streams: dict[str, Stream], symbol: str, st: int) -> Stream | None:
        """The stream of a symbol that is ours and whose specification is known."""
        return streams.get(symbol) if st == 1 and symbol in self.instruments else None

    def _foreign(self, symbol: str, st: int, frame: Frame) -> Out:
        """Why an event about a symbol that is not ours is refused.

        Since 2026-06-30 streams carry coin-margined contracts too, with ``st`` 2.
        """
        coin = st == 2 or symbol.endswith("_PERP") or "USD_" in symbol
        reason = "foreign_margin" if coin else "unknown_symbol"
        return self._refuse(frame, reason)

    def _depth(self, update: DepthUpdate, frame: Frame) -> Out:
        entry = self._books.get(update.s)
        if entry is None or update.st != 1 or update.s not in self.instruments:
            return self._foreign(update.s, update.st, frame)
        stream, chain = entry
        out = self._hear(stream, frame.at)
        if chain.pending is None:
            if update.pu == chain.last or (chain.joining and self._covers(update, chain.last)):
                chain.last, chain.joining = update.u, False
                out.append(BookDelta(stream.instrument, update.T * MS, update.b, update.a))
                return out
            if chain.joining and update.u < chain.last:
                return out  # step 3, for updates that come after the snapshot
            chain.pending, chain.joining = [], False
            out.append(Gap(stream.instrument, "sequence"))
        chain.pending.append(update)
        if len(chain.pending) > PENDING_MAX:
            chain.pending = chain.pending[PENDING_MAX // 2 :]
            out += self._refuse(frame, "overflow")
        if len(chain.pending) == 1:
            out += self._resync(update.s, frame.at)
        return out

    def _trade(self, trade: AggTrade | RawTrade, frame: Frame) -> Out:
        stream = self._known(self._trades, trade.s, trade.st)
        if stream is None:
            return self._foreign(trade.s, trade.st, frame)
        if not is_positive(trade.p, trade.q):
            return self._refuse(frame, "bad_number")
        out = self._hear(stream, frame.at)
        taker: Taker = "sell" if trade.m else "buy"
        out.append(Trade(stream.instrument, trade.T * MS, trade.p, trade.q, taker))
        return out

    def _raw_trade(self, trade: RawTrade, frame: Frame) -> Out:
        if trade.X == "MARKET":
            # Where both streams are recorded, the aggregated one already has this trade.
            return [] if trade.s in self._aggregated else self._trade(trade, frame)
        stream = self._known(self._trades, trade.s, trade.st)
        if stream is None:
            return self._foreign(trade.s, trade.st, frame)
        if trade.X == "NA":  # no counterparty: price and quantity are 0
            return []
        if not is_positive(trade.p, trade.q):
            return self._refuse(frame, "bad_number")
        kind: Literal["insurance_fund", "adl", "other"] = "other"
        if trade.X == "INSURANCE_FUND":
            kind = "insurance_fund"
        elif trade.X == "ADL":
            kind = "adl"
        return [Transfer(stream.instrument, trade.T * MS, trade.p, trade.q, kind)]

    def _mark(self, update: MarkPriceUpdate, frame: Frame) -> Out:
        stream = self._known(self._marks, update.s, update.st)
        if stream is None:
            return self._foreign(update.s, update.st, frame)
        index = float(update.i) if update.i else None
        rate = float(update.r) if update.r else None
        if not is_positive(update.p) or not (index is None or is_positive(index)):
            return self._refuse(frame, "bad_number")
        if rate is not None and not abs(rate) < 1:
            return self._refuse(frame, "bad_number")
        out = self._hear(stream, frame.at)
        out.append(MarkPrice(stream.instrument, update.E * MS, update.p, index))
        hours = self.instruments[update.s].funding_interval_hours
        if rate is not None and update.T and hours:
            out.append(
                Funding(stream.instrument, update.E * MS, per_8h(rate, hours), hours, update.T * MS)
            )
        return out

    def _force(self, event: ForceOrder, frame: Frame) -> Out:
        order = event.o
        stream = self._known(self._forced, order.s, event.st)
        if stream is None:
            return self._foreign(order.s, event.st, frame)
        out = self._hear(stream, frame.at)
        if order.z == 0:  # nothing filled yet
            return out
        if not is_positive(order.p, order.ap, order.z, order.z * order.ap):
            return self._refuse(frame, "bad_number")
        out.append(
            Liquidation(
                instrument=stream.instrument,
                sent_at=order.T * MS,
                side="long" if order.S == "SELL" else "short",
                quantity=order.z,
                usd=order.z * order.ap,
                price=order.p,
                price_kind="order_limit",
                fill_price=order.ap,
                completeness="sampled_1s",
                raw_side=order.S,
            )
        )
        return out

    def _brackets(self, info: ContractInfo, frame: Frame) -> Out:
        """New margin tiers; the only public source of them."""
        instrument = self.instruments.get(info.s)
        if instrument is None or info.st != 1 or not info.bks:
            return []
        rows = sorted(info.bks, key=lambda bracket: bracket.bnf)
        tiers = tuple(Tier(b.bnf, b.bnc, b.mmr, b.cf, b.ma) for b in rows)
        if not is_ladder(tiers):
            return self._refuse(frame, "bad_number")
        return self._list([msgspec.structs.replace(instrument, tiers=tiers)], frame.at)

    # ------------------------------------------------------------------------------ replies

    def _answer(self, reply: Reply) -> Out:
        kind, _, symbol = reply.key.partition(":")
        match kind:
            case "depth":
                return self._snapshot(symbol, reply)
            case "open_interest":
                return self._open_interest(symbol, reply)
            case "candles":
                rows = _klines.decode(reply.data)
                return self._past(symbol, [(k.start, k.high, k.low, k.close) for k in rows], reply)
            case "interests":
                held = _interests.decode(reply.data)
                if any(row.symbol != symbol for row in held):
                    return self._refuse(reply, "unknown_symbol")
                readings = [(row.timestamp, row.sumOpenInterest) for row in held]
                return self._held(symbol, readings, reply)
            case "instruments":
                return self._instruments(reply)
            case "funding_info":
                intervals = _funding_info.decode(reply.data)
                if not all(is_positive(row.fundingIntervalHours) for row in intervals):
                    return self._refuse(reply, "bad_number")
                self._intervals = {row.symbol: row.fundingIntervalHours for row in intervals}
                return self._list(
                    [self._with_interval(known) for known in self.instruments.values()], reply.at
                )
            case "funds":
                return self._funds(reply)
            case _:
                return self._refuse(reply, "unknown_kind")

    def _snapshot(self, symbol: str, reply: Reply) -> Out:
        entry = self._books.get(symbol)
        if entry is None or symbol not in self.instruments:
            return self._refuse(reply, "unknown_symbol")
        stream, chain = entry
        if chain.pending is None or not stream.active:
            return []  # in sequence already, or nothing would keep it true
        snapshot = _depth_reply.decode(reply.data)
        last = snapshot.lastUpdateId
        pending = [update for update in chain.pending if update.u >= last]
        if pending and not self._covers(pending[0], last):
            self.requests.once(self._depth_request(symbol), reply.at + STALE_SNAPSHOT_WAIT_NS)
            return []  # step 6
        out: Out = [
            BookSnapshot(
                stream.instrument,
                snapshot.T * MS,
                snapshot.bids,
                snapshot.asks,
                self._levels,
                maintained=False,
            )
        ]
        chain.pending, chain.last, chain.joining = None, last, not pending
        for n, update in enumerate(pending):
            if n and update.pu != chain.last:
                chain.pending = pending[n:]
                return [*out, Gap(stream.instrument, "sequence"), *self._resync(symbol, reply.at)]
            chain.last = update.u
            out.append(BookDelta(stream.instrument, update.T * MS, update.b, update.a))
        return out

    def _open_interest(self, symbol: str, reply: Reply) -> Out:
        stream = self._interests.get(symbol)
        interest = _open_interest.decode(reply.data)
        if stream is None or interest.symbol != symbol:
            return self._refuse(reply, "unknown_symbol")
        if not 0 <= interest.openInterest < INTEREST_MAX:
            return self._refuse(reply, "bad_number")
        out = self._hear(stream, reply.at)
        if symbol in self.instruments:  # the list of instruments may come after the first poll
            name, sent_at = stream.instrument, interest.time * MS
            out.append(OpenInterest(name, sent_at, interest.openInterest, None))
        return out

    def _instruments(self, reply: Reply) -> Out:
        listed = []
        for row in _exchange_info.decode(reply.data).symbols:
            if row.symbol not in self.assets or row.quoteAsset not in STABLE_QUOTES:
                continue
            filters = {f.filterType: f for f in row.filters}
            price, lot = filters.get("PRICE_FILTER"), filters.get("LOT_SIZE")
            if row.marginAsset == row.baseAsset or price is None or lot is None:
                continue
            tick, step = float(price.tickSize), float(lot.stepSize)
            fee = float(row.liquidationFee) if row.liquidationFee else None
            if (
                not 1e-12 < tick < 1e12
                or not is_positive(step)
                or not (fee is None or 0 <= fee < 1)
            ):
                return self._refuse(reply, "bad_number")
            before = self.instruments.get(row.symbol)
            listed.append(
                self._with_interval(
                    Instrument(
                        name=self._name(row.symbol),
                        venue=self.venue,
                        symbol=row.symbol,
                        asset=self.assets[row.symbol],
                        kind="linear",
                        contract=1.0,
                        tick=tick,
                        lot=step,
                        multiplier=multiplier_of(row.baseAsset)[1],
                        funding_interval_hours=before.funding_interval_hours if before else None,
                        tiers=before.tiers if before else (),
                        liquidation_fee=fee,
                    )
                )
            )
        return self._list(listed, reply.at)

    def _funds(self, reply: Reply) -> Out:
        """Every pool; without a symbol the answer is a list of them."""
        out: Out = []
        for group in _funds.decode(reply.data):
            at_ms = max((row.updateTime for row in group.assets), default=0)
            balances = [(row.asset, row.marginBalance) for row in group.assets]
            out += self._pool(at_ms, balances, group.symbols)
        return out

    # ------------------------------------------------------------------------------ private

    def _fund_requests(self) -> list[Fetch]:
        return [Fetch(self.venue, "funds", "/fapi/v1/insuranceBalance")]

    def _poll_open_interest(self, symbol: str) -> Stream:
        path = f"/fapi/v1/openInterest?symbol={symbol}"
        self.requests.every(Fetch(self.venue, f"open_interest:{symbol}", path), self._poll_s)
        patience_s = max(STREAM_PATIENCE_S, 12 * self._poll_s)
        stream = self._add(
            f"GET {path}", symbol, "open_interest", "binance.http", patience_s=patience_s
        )
        stream.active = True
        return stream

    def _with_interval(self, instrument: Instrument) -> Instrument:
        if self._intervals is None:
            return instrument
        hours = self._intervals.get(instrument.symbol, DEFAULT_FUNDING_HOURS)
        return msgspec.structs.replace(instrument, funding_interval_hours=hours)

    def _covers(self, update: DepthUpdate, snapshot: int) -> bool:
        """Step 4."""
        return update.U <= snapshot <= update.u or update.pu == snapshot

    def _forget_book(self, symbol: str) -> None:
        stream, _ = self._books[symbol]
        self._books[symbol] = (stream, Chain())
        self.requests.forget(f"depth:{symbol}")

    def _resync(self, symbol: str, at: int) -> Out:
        """Ask for a snapshot; the stream itself goes on."""
        self.requests.once(self._depth_request(symbol), at)
        return [*self.requests.due(at)]

    def _depth_request(self, symbol: str) -> Fetch:
        path = f"/fapi/v1/depth?symbol={symbol}&limit={self._levels}"
        return Fetch(self.venue, f"depth:{symbol}", path, weight=self._levels_weight)

    def _candles_request(self, symbol: str, at: int) -> Fetch:  # noqa: ARG002
        path = f"/fapi/v1/klines?symbol={symbol}&interval=5m&limit={CANDLES_ASKED}"
        return Fetch(self.venue, f"candles:{symbol}", path, weight=CANDLES_WEIGHT)

    def _interests_request(self, symbol: str) -> Fetch:
        query = f"symbol={symbol}&period=5m&limit={INTERESTS_ASKED}"
        path = f"/futures/data/openInterestHist?{query}"
        return Fetch(self.venue, f"interests:{symbol}", path, weight=0)

    def _message(self, operation: Operation, streams: list[Stream], number: int) -> str:
        topics = [stream.topic for stream in streams]
        request = {"method": operation.upper(), "params": topics, "id": number}
        return msgspec.json.encode(request).decode()
