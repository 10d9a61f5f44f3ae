"""Bybit v5 linear contracts (https://bybit-exchange.github.io/docs/v5/ws/connect).

One socket carries everything of a symbol: order book, trades, ticker, liquidations. Quantities of
linear contracts are in base coin already, so nothing is converted.

Order book (exchanges.md 2b):

1. The first message of ``orderbook.<depth>.<symbol>`` is a snapshot; it may come again at any time
   and replaces the book, as does any message with ``u == 1`` (the venue restarted).
2. Each delta's ``u`` is the one before it plus 1. If not: unsubscribe and subscribe, which brings
   a snapshot.
3. The venue keeps ``<depth>`` levels a side and does not always delete those that fall out.
"""

import math
import re
from collections.abc import Callable, Iterable
from copy import copy
from typing import Final
from urllib import parse

import msgspec
from msgspec import Struct

from monitor.config import VenueConfig
from monitor.events import (
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
    Side,
    Taker,
    Tier,
    Trade,
    Transfer,
)
from monitor.venues.base import (
    INTEREST_MAX,
    MS,
    STREAM_PATIENCE_S,
    TIME_MS_MAX,
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

ARGUMENTS_MAX: Final = 20_000
"""Characters of topics on one connection; the venue refuses more than 21,000."""

ASKED_MAX: Final = 1_000
"""Unanswered subscribe requests remembered; more than a connection ever makes."""

PAGES_MAX: Final = 20
"""Pages of the instrument list followed; at 1000 rows a page there is one."""

CANDLES_ASKED: Final = 1_000
"""The most that ``/v5/market/kline`` gives at once: 83 hours."""

INTERESTS_ASKED: Final = 200
"""The most that ``/v5/market/open-interest`` gives at once: 16 hours."""

PATIENCE_S: Final[dict[str, float | None]] = {
    "book": STREAM_PATIENCE_S,
    "trades": None,
    "ticker": STREAM_PATIENCE_S,
    "liquidations": None,
}
"""How long each channel may be quiet; None for as long as it likes."""

DEPTHS: Final = (1, 50, 200, 1000)
"""Levels a side that the venue offers."""

SETTLED: Final = frozenset({"USDT", "USDC"})
"""Coins that count as one dollar."""

UNUSED: Final = frozenset(
    {"kline", "liquidation", "insurance", "adlAlert", "priceLimit", "rpi", "kline_lt", "tickers_lt"}
)
"""Topics that exist and that we do not need; ``liquidation`` is the sampled predecessor."""

INTEREST_EVERY_NS: Final = 30_000 * MS
"""Open interest that does not change is told again after so long, as long as tickers come."""

_SUFFIXED = re.compile(r"^([A-Z]+)(10{3,})$")


class BookLevels(Struct, gc=False):
    b: list[Level]
    a: list[Level]
    u: int


class BookMessage(Struct, gc=False):
    topic: str
    type: str
    data: BookLevels
    ts: TimeMs = 0
    cts: TimeMs = 0


class TickerFields(Struct, gc=False):
    """What changed; an empty string is an absent field."""

    symbol: str
    markPrice: str = ""
    indexPrice: str = ""
    openInterest: str = ""
    openInterestValue: str = ""
    singleOpenInterest: str = ""
    singleOpenInterestValue: str = ""
    fundingRate: str = ""
    fundingIntervalHour: str = ""
    nextFundingTime: str = ""


class TickerMessage(Struct, gc=False):
    type: str
    data: TickerFields
    ts: TimeMs


class TradeRow(Struct, gc=False):
    T: TimeMs
    s: str
    S: str
    v: float
    p: float
    BT: bool = False


class TradeMessage(Struct, gc=False):
    data: list[TradeRow]


class LiquidationRow(Struct, gc=False):
    T: TimeMs
    s: str
    S: str
    v: float
    p: float


class LiquidationMessage(Struct, gc=False):
    data: list[LiquidationRow]


class Envelope(Struct):
    """What tells the kind of a message, and all there is to an answer."""

    topic: str | None = None
    op: str | None = None
    success: bool | None = None
    req_id: str | None = None


class Answer(Struct):
    retCode: int
    result: msgspec.Raw = msgspec.Raw(b"{}")


class PriceFilter(Struct):
    tickSize: float


class LotSizeFilter(Struct):
    qtyStep: float


class InstrumentRow(Struct):
    symbol: str
    contractType: str
    baseCoin: str
    settleCoin: str
    priceFilter: PriceFilter
    lotSizeFilter: LotSizeFilter
    fundingInterval: int = 0


class InstrumentPage(Struct):
    list: list[msgspec.Raw]
    nextPageCursor: str = ""


class SymbolOnly(Struct):
    symbol: str


class TierRow(Struct):
    symbol: str
    riskLimitValue: float
    maintenanceMargin: float
    maxLeverage: float
    mmDeduction: str = ""


class TierList(Struct):
    list: list[TierRow]


class KlineRow(Struct, array_like=True, gc=False):
    """A candle, from the time it began; the volumes behind are skipped."""

    start: TimeMs
    open: float
    high: float
    low: float
    close: float


class KlineList(Struct):
    symbol: str
    list: list[KlineRow]


class InterestRow(Struct, gc=False):
    """Open interest in base units as it stood at `timestamp`, of both sides and of one."""

    openInterest: float
    timestamp: TimeMs
    singleOpenInterest: str = ""


class InterestList(Struct):
    symbol: str
    list: list[InterestRow]


class FundRow(Struct):
    """One pool; `symbols` are separated by commas."""

    coin: str
    balance: float
    symbols: str = ""


class FundList(Struct):
    list: list[FundRow]
    updatedTime: TimeMs = 0


_book = msgspec.json.Decoder(BookMessage, strict=False)
_ticker = msgspec.json.Decoder(TickerMessage, strict=False)
_trades = msgspec.json.Decoder(TradeMessage, strict=False)
_liquidations = msgspec.json.Decoder(LiquidationMessage, strict=False)
_envelope = msgspec.json.Decoder(Envelope)
_answer = msgspec.json.Decoder(Answer)
_instrument_page = msgspec.json.Decoder(InstrumentPage)
_symbol_only = msgspec.json.Decoder(SymbolOnly)
_instrument_row = msgspec.json.Decoder(InstrumentRow, strict=False)
_kline_list = msgspec.json.Decoder(KlineList, strict=False)
_interest_list = msgspec.json.Decoder(InterestList, strict=False)
_tier_list = msgspec.json.Decoder(TierList, strict=False)
_fund_list = msgspec.json.Decoder(FundList, strict=False)

_TOPIC: Final = b'{"topic":"'

_TAKERS: Final[dict[str, Taker]] = {"Buy": "buy", "Sell": "sell"}

_LIQUIDATED: Final[dict[str, Side]] = {"Buy": "long", "Sell": "short"}
"""``S`` is the side of the position that was closed, not that of the order (exchanges.md 2e)."""


class Chain:
    """Sequence state of one book; `last` is None while a snapshot is awaited.

    `depth` is that of the deepest topic heard since the feed was opened; a shallower topic of the
    same symbol is ignored.
    """

    __slots__ = ("depth", "last")

    def __init__(self) -> None:
        self.depth = 0
        self.last: int | None = None


class Quote(Struct, gc=False):
    """A symbol's ticker as merged from all messages since the feed was opened.

    `one_sided` is set once the venue has sent the one-sided fields of open interest, `told_at` is
    when open interest was last told.
    """

    mark: float | None = None
    index: float | None = None
    base: float | None = None
    usd: float | None = None
    one_sided: bool = False
    rate: float | None = None
    hours: float | None = None
    next_at: int | None = None
    told_at: int = 0

    def merge(self, fields: TickerFields) -> bool:
        """Take over the fields that are there; False if one of them cannot be."""
        good = True
        if fields.markPrice:
            self.mark = float(fields.markPrice)
            good = good and is_positive(self.mark)
        if fields.indexPrice:
            self.index = float(fields.indexPrice)
            good = good and is_positive(self.index)
        if fields.singleOpenInterest or fields.singleOpenInterestValue:
            self.one_sided = True
        base = fields.singleOpenInterest
        usd, sides = fields.singleOpenInterestValue, 1.0
        if not self.one_sided:  # both sides summed (exchanges.md 2d)
            base, usd, sides = fields.openInterest, fields.openInterestValue, 2.0
        if base:
            self.base = float(base) / sides
            good = good and 0.0 <= self.base < INTEREST_MAX
        if usd:
            self.usd = float(usd) / sides
            good = good and 0.0 <= self.usd < INTEREST_MAX
        if fields.fundingRate:
            self.rate = float(fields.fundingRate)
            good = good and abs(self.rate) < 1
        if fields.fundingIntervalHour:
            self.hours = float(fields.fundingIntervalHour)
            good = good and is_positive(self.hours)
        if fields.nextFundingTime:
            next_ms = int(fields.nextFundingTime)
            self.next_at = next_ms * MS if next_ms else None  # 0 on dated contracts
            good = good and 0 <= next_ms < TIME_MS_MAX
        return good


class Bybit(Codec):
    """Codec of Bybit's linear (USDT and USDC) contracts."""

    venue = "bybit"
    batch_max = 10  # one bad topic fails its whole request, so they are small
    resync_pause_s = 2.0
    recorded = Recorded(
        socket=r"^wss://stream\.bybit\.com/v5/public/linear",
        message=rb'\{(?:"type":"[a-z]+",)?"topic":'
        rb'"(?:orderbook\.\d+|publicTrade|tickers|allLiquidation)\.([A-Z0-9-]+)"',
        replies=(
            (r"/v5/market/instruments-info\?.*category=linear", "instruments"),
            (r"/v5/market/risk-limit\?.*symbol=([A-Z0-9-]+)", r"tiers:\1"),
            (r"/v5/market/insurance$", "funds"),
        ),
    )

    def __init__(self, config: VenueConfig, known: Iterable[Instrument]) -> None:
        super().__init__(config, known)
        wanted = config.book_depth
        self._depth = next((depth for depth in DEPTHS if depth >= wanted), DEPTHS[-1])
        longest = max((self._length(symbol) for symbol in self.assets), default=1)
        per_feed = max(1, min(config.symbols_per_socket, ARGUMENTS_MAX // longest))
        feeds = spread(self.assets, per_feed=per_feed, prefix="bybit.linear")
        self.feeds = [
            FeedSpec(name, f"{config.ws_url}/v5/public/linear", ping='{"op":"ping"}')
            for name in dict.fromkeys(feeds.values())
        ]
        # The venue allows 600; a tenth is plenty, and a breach is a ban of ten minutes.
        self.http = HttpSpec(config.http_url, weight=60, window_s=5)
        self._books: dict[str, tuple[Stream, Chain]] = {}
        self._tickers: dict[str, tuple[Stream, Quote]] = {}
        self._trades: dict[str, Stream] = {}
        self._forced: dict[str, Stream] = {}
        self._asked: dict[str, list[str]] = {}
        for symbol, feed in feeds.items():
            book, trades, ticker, forced = (
                self._add(topic, symbol, channel, feed, patience_s=PATIENCE_S[channel])
                for channel, topic in self._topics(symbol)
            )
            self._books[symbol] = (book, Chain())
            self._tickers[symbol] = (ticker, Quote())
            self._trades[symbol], self._forced[symbol] = trades, forced
        self._readers: dict[bytes, Callable[[Frame], Out]] = {
            b"orderbook": self._book,
            b"publicTrade": self._trade,
            b"tickers": self._ticker,
            b"allLiquidation": self._liquidation,
        }
        self._instruments_path = "/v5/market/instruments-info?category=linear&limit=1000"
        self.requests.every(
            Fetch(self.venue, "instruments", self._instruments_path),
            config.instruments_interval_s,
        )

    # ---------------------------------------------------------------------------- messages

    def _decode(self, frame: Frame) -> Out:
        data = frame.data
        if data.startswith(_TOPIC):
            reader = self._readers.get(data[10 : data.find(b".", 10, 40)])
            if reader is not None:
                return reader(frame)
        envelope = _envelope.decode(data)
        if envelope.topic is None:
            return self._control(envelope, frame)
        kind = envelope.topic.partition(".")[0]
        reader = self._readers.get(kind.encode())
        if reader is not None:
            return reader(frame)
        return [] if kind in UNUSED else self._refuse(frame, "unknown_kind")

    def _control(self, envelope: Envelope, frame: Frame) -> Out:
        """The answer to a request of ours."""
        if envelope.op is None and envelope.success is None:
            return self._refuse(frame, "unknown_kind")
        topics = self._asked.pop(envelope.req_id or "", [])
        if envelope.success is not False:
            return []
        # One bad topic failed them all: ask for each alone, so that only the bad one is missing.
        streams = [self.streams[topic] for topic in topics if topic in self.streams]
        retried = [stream for stream in streams if stream.active and stream.feed == frame.feed]
        out = self._refuse(frame, "refused")
        for stream in retried:
            out += self._send("subscribe", [stream])
        return out

    def _book(self, frame: Frame) -> Out:
        message = _book.decode(frame.data)
        parts = message.topic.split(".")
        if len(parts) != 3 or not (parts[1].isdecimal() and len(parts[1]) < 6):
            return self._refuse(frame, "schema")
        depth, symbol = int(parts[1]), parts[2]
        entry = self._books.get(symbol)
        if entry is None or symbol not in self.instruments:
            return self._refuse(frame, "unknown_symbol")
        stream, chain = entry
        update = message.data
        whole = message.type == "snapshot" or update.u == 1
        if not whole:
            if message.type != "delta":
                return self._refuse(frame, "unknown_kind")
            if depth != chain.depth or chain.last is None:
                return []  # another depth of the same book, or the snapshot is still to come
            if update.u != chain.last + 1:
                chain.last = None
                return [Gap(stream.instrument, "sequence"), *self._resync(symbol, frame.at)]
        elif depth < max(chain.depth, 1):
            return []  # a deeper topic is followed
        chain.depth, chain.last = depth, update.u
        out = self._hear(stream, frame.at)
        name, sent_at = stream.instrument, (message.cts or message.ts) * MS
        if whole:
            out.append(BookSnapshot(name, sent_at, update.b, update.a, depth, maintained=True))
        else:
            out.append(BookDelta(name, sent_at, update.b, update.a))
        return out

    def _ticker(self, frame: Frame) -> Out:
        message = _ticker.decode(frame.data)
        fields = message.data
        entry = self._tickers.get(fields.symbol)
        instrument = self.instruments.get(fields.symbol)
        if entry is None or instrument is None:
            return self._refuse(frame, "unknown_symbol")
        if message.type not in {"snapshot", "delta"}:
            return self._refuse(frame, "unknown_kind")
        stream, before = entry
        quote = Quote() if message.type == "snapshot" else copy(before)
        if not quote.merge(fields):
            return self._refuse(frame, "bad_number")
        self._tickers[fields.symbol] = (stream, quote)
        out = self._hear(stream, frame.at)
        name, sent_at = stream.instrument, message.ts * MS
        if fields.markPrice or fields.indexPrice:
            out.append(MarkPrice(name, sent_at, quote.mark, quote.index))
        interest = (quote.base, quote.usd)
        # What a message leaves out has not changed, so that it is a reading of all the same.
        is_due = frame.at - quote.told_at >= INTEREST_EVERY_NS
        if quote.base is not None and (is_due or interest != (before.base, before.usd)):
            quote.told_at = frame.at
            out.append(OpenInterest(name, sent_at, quote.base, quote.usd))
        hours = quote.hours or instrument.funding_interval_hours
        changed = fields.fundingRate or fields.fundingIntervalHour or fields.nextFundingTime
        if changed and quote.rate is not None and hours:
            rate = per_8h(quote.rate, hours)
            if not math.isfinite(rate):
                return [*out, *self._refuse(frame, "bad_number")]
            out.append(Funding(name, sent_at, rate, hours, quote.next_at))
        return out

    def _trade(self, frame: Frame) -> Out:
        out: Out = []
        reasons: list[str] = []
        for row in _trades.decode(frame.data).data:
            stream = self._trades.get(row.s)
            taker = _TAKERS.get(row.S)
            if stream is None or row.s not in self.instruments:
                reasons.append("unknown_symbol")
            elif not is_positive(row.p, row.v):
                reasons.append("bad_number")
            elif taker is None:
                reasons.append("unknown_kind")
            else:
                out += self._hear(stream, frame.at)
                name, sent_at = stream.instrument, row.T * MS
                if row.BT:  # agreed off the book
                    out.append(Transfer(name, sent_at, row.p, row.v, "block"))
                else:
                    out.append(Trade(name, sent_at, row.p, row.v, taker))
        return out + self._refuse(frame, *reasons) if reasons else out

    def _liquidation(self, frame: Frame) -> Out:
        out: Out = []
        reasons: list[str] = []
        for row in _liquidations.decode(frame.data).data:
            stream = self._forced.get(row.s)
            side = _LIQUIDATED.get(row.S)
            if stream is None or row.s not in self.instruments:
                reasons.append("unknown_symbol")
            elif not is_positive(row.p, row.v, row.p * row.v):
                reasons.append("bad_number")
            elif side is None:
                reasons.append("unknown_kind")
            else:
                out += self._hear(stream, frame.at)
                out.append(
                    Liquidation(
                        instrument=stream.instrument,
                        sent_at=row.T * MS,
                        side=side,
                        quantity=row.v,
                        usd=row.v * row.p,
                        price=row.p,
                        price_kind="bankruptcy",
                        fill_price=None,
                        completeness="all",
                        raw_side=row.S,
                    )
                )
        return out + self._refuse(frame, *reasons)

    # ------------------------------------------------------------------------------ replies

    def _answer(self, reply: Reply) -> Out:
        kind, _, rest = reply.key.partition(":")
        answer = _answer.decode(reply.data)
        if answer.retCode != 0:  # with HTTP status 200
            return self._refuse(reply, "http")
        match kind:
            case "instruments":
                return self._instruments(answer.result, int(rest or 1), reply)
            case "tiers":
                return self._tiers(answer.result, rest, reply)
            case "candles":
                return self._candles(answer.result, rest, reply)
            case "interests":
                return self._interests(answer.result, rest, reply)
            case "funds":
                return self._funds(answer.result)
            case _:
                return self._refuse(reply, "unknown_kind")

    def _instruments(self, result: msgspec.Raw, page: int, reply: Reply) -> Out:
        answer = _instrument_page.decode(result)
        listed: list[Instrument] = []
        out: Out = []
        for raw in answer.list:
            if _symbol_only.decode(raw).symbol not in self.assets:
                continue
            row = _instrument_row.decode(raw)
            if row.contractType not in {"LinearPerpetual", "LinearFutures"}:
                out += self._refuse(reply, "unknown_kind")
            elif not is_positive(row.priceFilter.tickSize, row.lotSizeFilter.qtyStep):
                out += self._refuse(reply, "bad_number")
            elif row.settleCoin in SETTLED:
                listed.append(self._instrument(row))
        out += self._list(listed, reply.at)
        every = self.config.instruments_interval_s
        for instrument in listed:
            path = f"/v5/market/risk-limit?category=linear&symbol={instrument.symbol}"
            self.requests.every(Fetch(self.venue, f"tiers:{instrument.symbol}", path), every)
        if answer.nextPageCursor and page < PAGES_MAX:
            cursor = parse.quote(answer.nextPageCursor, safe="%")  # it comes encoded
            path = f"{self._instruments_path}&cursor={cursor}"
            self.requests.once(Fetch(self.venue, f"instruments:{page + 1}", path), reply.at)
        return out

    def _instrument(self, row: InstrumentRow) -> Instrument:
        before = self.instruments.get(row.symbol)
        suffixed = _SUFFIXED.match(row.baseCoin)  # SHIB1000 counts like 1000SHIB
        multiplier = float(suffixed[2]) if suffixed else multiplier_of(row.baseCoin)[1]
        return Instrument(
            name=self._name(row.symbol),
            venue=self.venue,
            symbol=row.symbol,
            asset=self.assets[row.symbol],
            kind="linear",
            contract=1.0,
            tick=row.priceFilter.tickSize,
            lot=row.lotSizeFilter.qtyStep,
            multiplier=multiplier,
            # Minutes here, hours in the ticker; 0 on dated contracts.
            funding_interval_hours=row.fundingInterval / 60 if row.fundingInterval > 0 else None,
            tiers=before.tiers if before else (),
        )

    def _tiers(self, result: msgspec.Raw, symbol: str, reply: Reply) -> Out:
        instrument = self.instruments.get(symbol)
        rows = [row for row in _tier_list.decode(result).list if row.symbol == symbol]
        if instrument is None or not rows:
            return self._refuse(reply, "unknown_symbol")
        rows.sort(key=lambda row: row.riskLimitValue)
        # Percent in the documents, fractions live; a fraction is below the initial margin.
        unit = 100.0 if rows[0].maintenanceMargin * rows[0].maxLeverage >= 1.0 else 1.0
        tiers: list[Tier] = []
        floor = 0.0
        for row in rows:
            rate, deduction = row.maintenanceMargin / unit, float(row.mmDeduction or 0)
            tiers.append(Tier(floor, row.riskLimitValue, rate, deduction, row.maxLeverage))
            floor = row.riskLimitValue
        if not is_ladder(tiers):
            return self._refuse(reply, "bad_number")
        return self._list([msgspec.structs.replace(instrument, tiers=tuple(tiers))], reply.at)

    def _candles(self, result: msgspec.Raw, symbol: str, reply: Reply) -> Out:
        """Candles come newest first."""
        answer = _kline_list.decode(result)
        if answer.symbol != symbol:
            return self._refuse(reply, "unknown_symbol")
        rows = [(k.start, k.high, k.low, k.close) for k in reversed(answer.list)]
        return self._past(symbol, rows, reply)

    def _interests(self, result: msgspec.Raw, symbol: str, reply: Reply) -> Out:
        """Open interest comes newest first, and counts both sides but where it says it does not."""
        answer = _interest_list.decode(result)
        if answer.symbol != symbol:
            return self._refuse(reply, "unknown_symbol")
        rows = [
            (row.timestamp, float(row.singleOpenInterest or row.openInterest / 2.0))
            for row in reversed(answer.list)
        ]
        return self._held(symbol, rows, reply)

    def _funds(self, result: msgspec.Raw) -> Out:
        """Pools of one contract and shared ones; what names no symbols covers none that is said."""
        answer = _fund_list.decode(result)
        out: Out = []
        for row in answer.list:
            symbols = row.symbols.split(",")
            out += self._pool(answer.updatedTime, [(row.coin, row.balance)], symbols)
        return out

    # ------------------------------------------------------------------------------ private

    def _fund_requests(self) -> list[Fetch]:
        return [Fetch(self.venue, "funds", "/v5/market/insurance")]

    def _topics(self, symbol: str) -> list[tuple[str, str]]:
        """Channel and topic of everything subscribed for a symbol."""
        return [
            ("book", f"orderbook.{self._depth}.{symbol}"),
            ("trades", f"publicTrade.{symbol}"),
            ("ticker", f"tickers.{symbol}"),
            ("liquidations", f"allLiquidation.{symbol}"),
        ]

    def _length(self, symbol: str) -> int:
        """Characters a symbol takes of a connection's budget, with quotes and commas."""
        return sum(len(topic) + 3 for _, topic in self._topics(symbol))

    def _forget_book(self, symbol: str) -> None:
        if symbol in self._books:
            self._books[symbol][1].last = None

    def _forget_feed(self, feed: str) -> None:
        for symbol, (stream, _) in self._books.items():
            if stream.feed == feed:
                self._books[symbol] = (stream, Chain())
                self._tickers[symbol] = (self._tickers[symbol][0], Quote())

    def _candles_request(self, symbol: str, at: int) -> Fetch:  # noqa: ARG002
        query = f"category=linear&symbol={symbol}&interval=5&limit={CANDLES_ASKED}"
        return Fetch(self.venue, f"candles:{symbol}", f"/v5/market/kline?{query}")

    def _interests_request(self, symbol: str) -> Fetch:
        query = f"category=linear&symbol={symbol}&intervalTime=5min&limit={INTERESTS_ASKED}"
        return Fetch(self.venue, f"interests:{symbol}", f"/v5/market/open-interest?{query}")

    def _message(self, operation: Operation, streams: list[Stream], number: int) -> str:
        topics = [stream.topic for stream in streams]
        if operation == "subscribe" and len(topics) > 1:
            if len(self._asked) >= ASKED_MAX:
                del self._asked[next(iter(self._asked))]
            self._asked[str(number)] = topics
        request = {"req_id": str(number), "op": operation, "args": topics}
        return msgspec.json.encode(request).decode()
