"""OKX v5 swaps and futures (https://www.okx.com/docs-v5/en/#order-book-trading-market-data).

Everything is counted in contracts. This module turns them into base units: a linear contract is
``ctVal * ctMult`` of base currency, an inverse one so many USD, worth that over the price in base.

Order book (exchanges.md 3b):

1. The first message of ``books`` is a snapshot of 400 levels a side.
2. Each update's ``prevSeqId`` is the ``seqId`` before it. If not: unsubscribe and subscribe this
   one instrument, which brings a snapshot.
3. A keep-alive has no levels and ``prevSeqId == seqId``; a sequence reset has
   ``seqId < prevSeqId``. Both are in sequence if ``prevSeqId`` is.

The ``checksum`` is dead since 2026 and not looked at.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from msgspec import Struct

from monitor.config import VenueConfig
from monitor.events import (
    NS,
    BookDelta,
    BookSnapshot,
    Candle,
    Candles,
    Close,
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
from monitor.venues.candles import CANDLE_S

HOUR_MS: Final = 3_600_000

BOOK_LEVELS: Final = 400
"""Levels a side that the venue keeps up to date on ``books`` and ``books-l2-tbt``."""

BOOKS_MAX: Final = 29
"""Book channels on one connection; the venue asks for fewer than 30."""

ARGUMENTS_MAX: Final = 60_000
"""Characters of arguments on one connection; the venue refuses more than 64 KB."""

CACHED_MAX: Final = 200
"""Liquidations remembered, to know them again in the cached batch that follows a subscription."""

STALE_NS: Final = 60 * NS
"""A liquidation so much older than its subscription comes out of the venue's cache."""

PATIENCE_S: Final[dict[str, float | None]] = {
    "books": 1.5 * STREAM_PATIENCE_S,  # without change there is a keep-alive every 60 s
    "trades": None,
    "mark-price": STREAM_PATIENCE_S,  # every 10 s without change
    "index-tickers": 3 * STREAM_PATIENCE_S,
    "funding-rate": 5 * STREAM_PATIENCE_S,  # every 30 to 90 s
    "open-interest": 10 * STREAM_PATIENCE_S,  # on change only
    "liquidation-orders": None,
}
"""How long each channel may be quiet; None for as long as it likes."""

CHANNELS: Final = {
    "books": "book",
    "trades": "trades",
    "mark-price": "mark",
    "index-tickers": "index",
    "funding-rate": "funding",
    "open-interest": "open_interest",
    "liquidation-orders": "liquidations",
}
"""The venue's channels by our names."""

UNUSED: Final = frozenset(
    {"tickers", "bbo-tbt", "books5", "books50-l2-tbt", "books-elp", "price-limit", "instruments"}
    | {"estimated-price", "adl-warning", "status", "opt-summary", "trades-all"}
)
"""Channels that exist and that we do not need."""

CANDLES_ASKED: Final = 300
"""The most that ``/api/v5/market/candles`` gives at once: 25 hours."""

CANDLES_KEPT: Final = 1_440
"""The most that it gives in all, page by page: five days."""

PAGE_WAIT_S: Final = 10.0
"""How long the newer candles wait for an older page; then they are told without it."""

INTERESTS_ASKED: Final = 100
"""Readings of open interest likewise: 8 hours."""

QUOTES: Final = frozenset({"USD", "USDT", "USDC"})
"""Currencies that count as one dollar."""

UPGRADE: Final = "64008"
"""Code of the notice that the venue will restart this connection within a minute."""


class Argument(Struct, gc=False):
    channel: str = ""
    instId: str = ""
    instType: str = ""


class Row(Struct, array_like=True, gc=False):
    """A level; the deprecated third and the order count behind it are skipped."""

    price: float
    contracts: float


class BookRow(Struct, gc=False):
    bids: list[Row]
    asks: list[Row]
    ts: TimeMs
    seqId: int | None = None
    prevSeqId: int | None = None


class BookMessage(Struct, gc=False):
    arg: Argument
    action: str
    data: list[BookRow]


class TradeRow(Struct, gc=False):
    instId: str
    px: float
    sz: float
    side: str
    ts: TimeMs


class TradeMessage(Struct, gc=False):
    data: list[TradeRow]


class MarkRow(Struct, gc=False):
    instId: str
    markPx: float
    ts: TimeMs


class MarkMessage(Struct, gc=False):
    data: list[MarkRow]


class IndexRow(Struct, gc=False):
    instId: str
    idxPx: float
    ts: TimeMs


class IndexMessage(Struct, gc=False):
    data: list[IndexRow]


class FundingRow(Struct, gc=False):
    """Times may be empty; so may the rate, before 2022."""

    instId: str
    fundingRate: str = ""
    fundingTime: str = ""
    nextFundingTime: str = ""
    ts: TimeMs = 0


class FundingMessage(Struct, gc=False):
    data: list[FundingRow]


class InterestRow(Struct, gc=False):
    """``oiUsd`` is missing in old messages."""

    instId: str
    oi: float
    ts: TimeMs
    oiCcy: str = ""
    oiUsd: str = ""


class InterestMessage(Struct, gc=False):
    data: list[InterestRow]


class LiquidationDetail(Struct, gc=False):
    side: str
    sz: float
    bkPx: float
    ts: TimeMs
    posSide: str = ""


class LiquidationRow(Struct, gc=False):
    """The details are decoded for our symbols only: others on this feed shall not spoil them."""

    instId: str
    details: msgspec.Raw


class LiquidationMessage(Struct, gc=False):
    arg: Argument
    data: list[LiquidationRow]


class Envelope(Struct):
    """What tells the kind of a message, and all there is to an answer."""

    event: str | None = None
    arg: Argument | None = None
    code: str = ""


class Answer(Struct):
    code: str
    data: list[msgspec.Raw] = []


class Pages(Struct):
    """Closed candles from the newest back, and which request is to bring those before them."""

    rows: list[Candle]
    key: str
    until: int


class SymbolOnly(Struct):
    instId: str


class InstrumentRow(Struct):
    instId: str
    ctType: str
    ctVal: float
    ctMult: float
    ctValCcy: str
    settleCcy: str
    tickSz: float
    lotSz: float
    uly: str
    instFamily: str = ""


class TierRow(Struct):
    minSz: float
    maxSz: float
    mmr: float
    maxLever: float
    instFamily: str = ""
    uly: str = ""


class PastInterestRow(Struct, array_like=True, gc=False):
    """Open interest at `ts` in contracts, base units and USD."""

    ts: TimeMs
    oi: float
    oiCcy: str
    oiUsd: str


class CandleRow(Struct, array_like=True, gc=False):
    """A candle, from the time it began; `confirm` is 1 once it has ended."""

    ts: TimeMs
    open: float
    high: float
    low: float
    close: float
    contracts: str
    base: str
    quote: str
    confirm: str


class FundDetail(Struct):
    """A balance as it stood at `ts`; empty in rows that tell something else."""

    ccy: str
    ts: TimeMs
    balance: str = ""


class FundRow(Struct):
    instFamily: str
    details: list[FundDetail]


_book = msgspec.json.Decoder(BookMessage, strict=False)
_trades = msgspec.json.Decoder(TradeMessage, strict=False)
_marks = msgspec.json.Decoder(MarkMessage, strict=False)
_indexes = msgspec.json.Decoder(IndexMessage, strict=False)
_fundings = msgspec.json.Decoder(FundingMessage, strict=False)
_interests = msgspec.json.Decoder(InterestMessage, strict=False)
_liquidations = msgspec.json.Decoder(LiquidationMessage, strict=False)
_details = msgspec.json.Decoder(list[LiquidationDetail], strict=False)
_envelope = msgspec.json.Decoder(Envelope)
_answer = msgspec.json.Decoder(Answer)
_symbol_only = msgspec.json.Decoder(SymbolOnly)
_instrument_row = msgspec.json.Decoder(InstrumentRow, strict=False)
_past_interest_row = msgspec.json.Decoder(PastInterestRow, strict=False)
_candle_row = msgspec.json.Decoder(CandleRow, strict=False)
_tier_row = msgspec.json.Decoder(TierRow, strict=False)
_fund_row = msgspec.json.Decoder(FundRow, strict=False)

_CHANNEL: Final = b'{"arg":{"channel":"'

_TAKERS: Final[dict[str, Taker]] = {"buy": "buy", "sell": "sell"}

_CLOSED_BY: Final[dict[str, Side]] = {"buy": "short", "sell": "long"}
"""The position that an order of a side closes."""

_POSITIONS: Final[dict[str, Side | None]] = {
    "long": "long",
    "short": "short",
    "net": None,
    "": None,
}
"""``posSide``; None where only the order's side tells (one-way accounts)."""


class Chain:
    """Sequence state of one book.

    Messages recorded before 2023 have no sequence numbers: such a chain is `numbered` False, and
    nothing can be missed in it that anybody could tell. `channel` is the one being followed.
    """

    __slots__ = ("channel", "last", "numbered", "synced")

    def __init__(self) -> None:
        self.synced = False
        self.numbered = False
        self.last = 0
        self.channel = ""

    def begin(self, seq_id: int | None, channel: str) -> None:
        """A snapshot has come."""
        self.synced, self.numbered = True, seq_id is not None
        self.last, self.channel = seq_id or 0, channel

    def follows(self, update: BookRow) -> bool:
        """Whether an update is the next one; if so, it is taken for the last."""
        if not self.numbered:
            return update.seqId is None
        if update.prevSeqId != self.last or update.seqId is None:
            return False
        self.last = update.seqId
        return True


class Okx(Codec):
    """Codec of OKX's linear and inverse swaps, and of futures where configured."""

    venue = "okx"
    batch_max = 60  # some 4 KB; the venue allows 480 requests an hour
    resync_pause_s = 2.0
    recorded = Recorded(
        socket=r"^wss://ws[a-z]*\.okx\.com(?::\d+)?/ws/v5/public",
        message=rb'\{"arg":\{"channel":"[a-z0-9-]+","instId":'
        rb'"([A-Z0-9]+-[A-Z0-9_]+-(?:SWAP|\d{6}))"\},(?:"action":"[a-z]+",)?"data"',
        replies=(
            (r"/api/v5/public/instruments\?.*instType=(SWAP|FUTURES)", r"instruments:\1"),
            (
                r"/api/v5/public/position-tiers\?.*instType=(SWAP|FUTURES).*instFamily=([A-Z0-9_-]+)",
                r"tiers:\1:\2",
            ),
            (
                r"/api/v5/public/insurance-fund\?.*instType=(SWAP|FUTURES).*instFamily=([A-Z0-9_-]+)",
                r"funds:\1:\2",
            ),
        ),
    )

    def __init__(self, config: VenueConfig, known: Iterable[Instrument]) -> None:
        super().__init__(config, known)
        longest = max((_length(symbol) for symbol in self.assets), default=1)
        per_feed = max(1, min(config.symbols_per_socket, BOOKS_MAX, ARGUMENTS_MAX // longest))
        feeds = spread(self.assets, per_feed=per_feed, prefix="okx.public")
        self.feeds = [
            FeedSpec(name, f"{config.ws_url}/ws/v5/public", ping="ping", ping_after_s=25.0)
            for name in dict.fromkeys(feeds.values())
        ]
        # The strictest of the endpoints used, position tiers.
        self.http = HttpSpec(config.http_url, weight=10, window_s=2)
        self._books: dict[str, tuple[Stream, Chain]] = {}
        self._on_index: dict[str, list[str]] = {}
        self._families: dict[str, str] = {}
        self._liquidations: deque[Liquidation] = deque(maxlen=CACHED_MAX)
        self._pages: dict[str, Pages] = {}
        for symbol, feed in feeds.items():
            self._books[symbol] = (self._carry("books", symbol, symbol, feed), Chain())
            for channel in ("trades", "mark-price", "funding-rate", "open-interest"):
                self._carry(channel, symbol, symbol, feed)
            self._follow_index(symbol, _index_of(symbol), feed)
        products = list(dict.fromkeys(_product_of(symbol) for symbol in self.assets))
        for product in products:
            self._carry("liquidation-orders", product, "", "okx.public.0")
            path = f"/api/v5/public/instruments?instType={product}"
            fetch = Fetch(self.venue, f"instruments:{product}", path)
            self.requests.every(fetch, config.instruments_interval_s)
        self._readers: dict[bytes, Callable[[Frame], Out]] = {
            b"books": self._book,
            b"books-l2-tbt": self._book,  # the same, faster; only in recordings
            b"trades": self._trade,
            b"mark-price": self._mark,
            b"index-tickers": self._index,
            b"funding-rate": self._funding,
            b"open-interest": self._open_interest,
            b"liquidation-orders": self._liquidation,
        }

    # ---------------------------------------------------------------------------- messages

    def _decode(self, frame: Frame) -> Out:
        data = frame.data
        if data.startswith(_CHANNEL):
            reader = self._readers.get(data[19 : data.find(b'"', 19, 64)])
            if reader is not None:
                try:
                    return reader(frame)
                except msgspec.ValidationError:
                    pass  # an acknowledgement, or broken: looked at more closely below
        elif data in {b"pong", b"ping"}:
            return []
        envelope = _envelope.decode(data)
        if envelope.event is not None:
            return self._control(envelope, frame)
        if envelope.arg is None:
            return self._refuse(frame, "schema")
        channel = envelope.arg.channel
        reader = self._readers.get(channel.encode())
        if reader is not None:
            return reader(frame)
        return [] if channel in UNUSED else self._refuse(frame, "unknown_kind")

    def _control(self, envelope: Envelope, frame: Frame) -> Out:
        """The answer to a request of ours, or a word from the venue."""
        match envelope.event:
            case "subscribe" | "unsubscribe" | "channel-conn-count":
                return []
            case "error" | "channel-conn-count-error":
                return self._refuse(frame, "refused")
            case "notice":
                return [Close(frame.feed, "notice")] if envelope.code == UPGRADE else []
            case _:
                return self._refuse(frame, "unknown_kind")

    def _book(self, frame: Frame) -> Out:
        message = _book.decode(frame.data)
        symbol, channel = message.arg.instId, message.arg.channel
        entry = self._books.get(symbol)
        instrument = self.instruments.get(symbol)
        if entry is None or instrument is None:
            return self._refuse(frame, "unknown_symbol")
        if message.action not in {"snapshot", "update"}:
            return self._refuse(frame, "unknown_kind")
        stream, chain = entry
        whole = message.action == "snapshot"
        if chain.synced and channel != chain.channel:
            return []  # another channel of the same book
        out: Out = []
        for row in message.data:
            bids, asks = _levels(row.bids, instrument), _levels(row.asks, instrument)
            if whole:
                chain.begin(row.seqId, channel)
            elif not chain.synced:
                return out  # the snapshot is still to come
            elif not chain.follows(row):
                chain.synced = False
                gap = Gap(stream.instrument, "sequence")
                return [*out, gap, *self._resync(symbol, frame.at)]
            out += self._hear(stream, frame.at)
            name, sent_at = stream.instrument, row.ts * MS
            if whole:
                out.append(BookSnapshot(name, sent_at, bids, asks, BOOK_LEVELS, maintained=True))
            elif bids or asks:
                out.append(BookDelta(name, sent_at, bids, asks))
        return out

    def _trade(self, frame: Frame) -> Out:
        out: Out = []
        reasons: list[str] = []
        for row in _trades.decode(frame.data).data:
            instrument, taker = self.instruments.get(row.instId), _TAKERS.get(row.side)
            if instrument is None:
                reasons.append("unknown_symbol")
            elif not is_positive(row.px, row.sz):
                reasons.append("bad_number")
            elif taker is None:
                reasons.append("unknown_kind")
            else:
                out += self._hear_on("trades", row.instId, frame)
                quantity = _base_units(row.sz, row.px, instrument)
                out.append(Trade(instrument.name, row.ts * MS, row.px, quantity, taker))
        return out + self._refuse(frame, *reasons) if reasons else out

    def _mark(self, frame: Frame) -> Out:
        out: Out = []
        reasons: list[str] = []
        for row in _marks.decode(frame.data).data:
            instrument = self.instruments.get(row.instId)
            if instrument is None:
                reasons.append("unknown_symbol")
            elif not is_positive(row.markPx):
                reasons.append("bad_number")
            else:
                out += self._hear_on("mark-price", row.instId, frame)
                out.append(MarkPrice(instrument.name, row.ts * MS, row.markPx, None))
        return out + self._refuse(frame, *reasons)

    def _index(self, frame: Frame) -> Out:
        """An index price goes to every instrument on it."""
        out: Out = []
        reasons: list[str] = []
        for row in _indexes.decode(frame.data).data:
            symbols = self._on_index.get(row.instId)
            if not symbols:
                reasons.append("unknown_symbol")
            elif not is_positive(row.idxPx):
                reasons.append("bad_number")
            else:
                out += self._hear_on("index-tickers", row.instId, frame)
                out += [
                    MarkPrice(self.instruments[symbol].name, row.ts * MS, None, row.idxPx)
                    for symbol in symbols
                    if symbol in self.instruments
                ]
        return out + self._refuse(frame, *reasons)

    def _funding(self, frame: Frame) -> Out:
        out: Out = []
        reasons: list[str] = []
        for row in _fundings.decode(frame.data).data:
            instrument = self.instruments.get(row.instId)
            if instrument is None:
                reasons.append("unknown_symbol")
                continue
            due_ms, after_ms = int(row.fundingTime or 0), int(row.nextFundingTime or 0)
            hours = instrument.funding_interval_hours
            if due_ms and after_ms:
                hours = (after_ms - due_ms) / HOUR_MS
            out += self._hear_on("funding-rate", row.instId, frame)
            if not row.fundingRate or hours is None:
                continue  # nothing said, or not per how long
            rate = float(row.fundingRate)
            if not (abs(rate) < 1 and 0.0 < hours < math.inf and 0 <= due_ms < TIME_MS_MAX):
                reasons.append("bad_number")
                continue
            if hours != instrument.funding_interval_hours:
                known = msgspec.structs.replace(instrument, funding_interval_hours=hours)
                out += self._list([known], frame.at)
            next_at = due_ms * MS or None
            name = instrument.name
            out.append(Funding(name, row.ts * MS, per_8h(rate, hours), hours, next_at))
        return out + self._refuse(frame, *reasons)

    def _open_interest(self, frame: Frame) -> Out:
        out: Out = []
        reasons: list[str] = []
        for row in _interests.decode(frame.data).data:
            instrument = self.instruments.get(row.instId)
            if instrument is None:
                reasons.append("unknown_symbol")
                continue
            linear = instrument.kind == "linear"
            value = row.oi * instrument.contract  # base units if linear, else USD
            base = float(row.oiCcy) if row.oiCcy else value if linear else math.nan
            usd = float(row.oiUsd) if row.oiUsd else None if linear else value
            if not (0.0 <= base < INTEREST_MAX and (usd is None or 0.0 <= usd < INTEREST_MAX)):
                reasons.append("bad_number")
            else:
                out += self._hear_on("open-interest", row.instId, frame)
                out.append(OpenInterest(instrument.name, row.ts * MS, base, usd))
        return out + self._refuse(frame, *reasons)

    def _liquidation(self, frame: Frame) -> Out:
        """Forced closes of a whole product line; those of symbols not followed are passed over."""
        message = _liquidations.decode(frame.data)
        stream = self.streams.get(f"liquidation-orders:{message.arg.instType}")
        if stream is None:
            return self._refuse(frame, "unknown_symbol")
        first = stream.heard_at <= stream.since  # since subscribing: it may be a cached one
        out = self._hear(stream, frame.at)
        reasons: list[str] = []
        for row in message.data:
            instrument = self.instruments.get(row.instId)
            if instrument is None:
                continue
            for detail in _details.decode(row.details):
                event = self._liquidated(detail, instrument, stream.since)
                if isinstance(event, str):
                    reasons.append(event)
                elif first and event in self._liquidations:
                    reasons.append("stale")
                else:
                    self._liquidations.append(event)
                    out.append(event)
        return out + self._refuse(frame, *reasons)

    def _liquidated(
        self, detail: LiquidationDetail, instrument: Instrument, since: int
    ) -> Liquidation | str:
        """One forced close, or why it is refused."""
        if detail.side not in _CLOSED_BY or detail.posSide not in _POSITIONS:
            return "unknown_kind"
        if detail.ts * MS < since - STALE_NS:
            return "stale"
        if not is_positive(detail.sz, detail.bkPx):
            return "bad_number"
        quantity = _base_units(detail.sz, detail.bkPx, instrument)
        linear = instrument.kind == "linear"
        usd = quantity * detail.bkPx if linear else detail.sz * instrument.contract
        if not is_positive(quantity, usd):
            return "bad_number"
        return Liquidation(
            instrument=instrument.name,
            sent_at=detail.ts * MS,
            side=_POSITIONS[detail.posSide] or _CLOSED_BY[detail.side],
            quantity=quantity,
            usd=usd,
            price=detail.bkPx,
            # Documented as the bankruptcy price, then, in July 2026, as the mark price.
            price_kind="unknown",
            fill_price=None,
            completeness="partial",
            raw_side=detail.side,
        )

    # ------------------------------------------------------------------------------ replies

    def _answer(self, reply: Reply) -> Out:
        kind, _, rest = reply.key.partition(":")
        answer = _answer.decode(reply.data)
        if answer.code != "0":  # with HTTP status 200
            return self._refuse(reply, "http")
        match kind:
            case "instruments":
                return self._instruments(answer.data, rest, reply)
            case "tiers":
                product, _, family = rest.partition(":")
                return self._tiers(answer.data, product, family, reply)
            case "candles":
                return self._candles(answer.data, rest, reply)
            case "interests":
                return self._past_interests(answer.data, rest, reply)
            case "funds":
                product, _, family = rest.partition(":")
                return self._funds(answer.data, product, family, reply)
            case _:
                return self._refuse(reply, "unknown_kind")

    def _instruments(self, rows: list[msgspec.Raw], product: str, reply: Reply) -> Out:
        listed: list[Instrument] = []
        out: Out = []
        for raw in rows:
            symbol = _symbol_only.decode(raw).instId
            if symbol not in self.assets:
                continue
            row = _instrument_row.decode(raw)
            base, _, quote = row.uly.partition("-")
            if quote not in QUOTES:
                continue
            # The contract's value is in base currency if linear, in quote if inverse.
            if row.ctValCcy != {"linear": base, "inverse": quote}.get(row.ctType):
                out += self._refuse(reply, "unknown_kind")
                continue
            contract = row.ctVal * row.ctMult
            if not is_positive(contract, row.tickSz, row.lotSz):
                out += self._refuse(reply, "bad_number")
                continue
            if row.ctType == "linear" and row.settleCcy not in QUOTES:
                continue
            before = self.instruments.get(symbol)
            listed.append(
                Instrument(
                    name=self._name(symbol),
                    venue=self.venue,
                    symbol=symbol,
                    asset=self.assets[symbol],
                    kind="linear" if row.ctType == "linear" else "inverse",
                    contract=contract,
                    tick=row.tickSz,
                    lot=row.lotSz,
                    multiplier=multiplier_of(base)[1],
                    funding_interval_hours=before.funding_interval_hours if before else None,
                    tier_unit="contracts",
                    tiers=before.tiers if before and before.tier_unit == "contracts" else (),
                )
            )
            out += self._follow_index(symbol, row.uly, self._books[symbol][0].feed)
            self._ask_tiers(symbol, product, row.instFamily or row.uly)
        return [*out, *self._list(listed, reply.at)]

    def _ask_tiers(self, symbol: str, product: str, family: str) -> None:
        self._families[symbol] = family
        path = (
            f"/api/v5/public/position-tiers?instType={product}&tdMode=isolated&instFamily={family}"
        )
        fetch = Fetch(self.venue, f"tiers:{product}:{family}", path)
        self.requests.every(fetch, self.config.instruments_interval_s)

    def _tiers(self, raw: list[msgspec.Raw], product: str, family: str, reply: Reply) -> Out:
        """Tiers count contracts; one holds for a whole position, there is no deduction."""
        rows = [_tier_row.decode(row) for row in raw]
        rows = sorted(
            (row for row in rows if (row.instFamily or row.uly) == family),
            key=lambda row: row.maxSz,
        )
        if not rows:
            return self._refuse(reply, "unknown_symbol")
        tiers: list[Tier] = []
        floor = 0.0
        for row in rows:
            tiers.append(Tier(floor, row.maxSz, row.mmr, 0.0, row.maxLever))
            floor = row.maxSz
        if not (is_ladder(tiers) and all(0 <= row.minSz < row.maxSz for row in rows)):
            return self._refuse(reply, "bad_number")
        concerned = [
            msgspec.structs.replace(instrument, tiers=tuple(tiers), tier_unit="contracts")
            for symbol, instrument in self.instruments.items()
            if _product_of(symbol) == product and self._families.get(symbol) == family
        ]
        return self._list(concerned, reply.at)

    def _candles(self, raw: list[msgspec.Raw], rest: str, reply: Reply) -> Out:
        """Candles come newest first, and say themselves whether they have ended.

        They are told all at once, since a map starts from its past only once.
        """
        symbol, _, after = rest.partition(":")
        newer = self._pages.get(symbol)
        if after and (newer is None or newer.key != reply.key):
            return []  # told without this page
        candles = [_candle_row.decode(row) for row in reversed(raw)]
        rows = [(c.ts, c.high, c.low, c.close) for c in candles if c.confirm == "1"]
        [page] = self._past(symbol, rows, reply)
        if not isinstance(page, Candles):
            return [page]
        found = page.rows
        if newer is not None and after:
            if page.rows and page.rows[-1].at > newer.rows[0].at - CANDLE_S * NS:
                return self._refuse(reply, "schema")
            found = found + newer.rows
        if len(raw) < CANDLES_ASKED or not page.rows or len(found) >= CANDLES_KEPT:
            self._pages.pop(symbol, None)
            return [Candles(page.instrument, CANDLE_S, found[-CANDLES_KEPT:])]
        older = self._candles_request(symbol, reply.at, after=candles[0].ts)
        self._pages[symbol] = Pages(found, older.key, reply.at + int(PAGE_WAIT_S * NS))
        self._past_key = older.key
        self.requests.once(older, reply.at)
        return []

    def tick(self, at: int) -> Out:
        """As the base; candles whose older page does not come are told without it."""
        out = super().tick(at)
        for symbol, pages in [*self._pages.items()]:
            if at >= pages.until:
                del self._pages[symbol]
                self.requests.forget(pages.key)
                out.append(Candles(self._name(symbol), CANDLE_S, pages.rows))
        return out

    def _past_interests(self, raw: list[msgspec.Raw], symbol: str, reply: Reply) -> Out:
        """Open interest comes newest first."""
        instrument = self.instruments.get(symbol)
        if instrument is None:
            return self._refuse(reply, "unknown_symbol")
        rows: list[tuple[int, float]] = []
        for row in map(_past_interest_row.decode, reversed(raw)):
            linear = row.oi * instrument.contract if instrument.kind == "linear" else math.nan
            rows.append((row.ts, float(row.oiCcy) if row.oiCcy else linear))
        return self._held(symbol, rows, reply)

    def _funds(self, raw: list[msgspec.Raw], product: str, family: str, reply: Reply) -> Out:
        """The newest balance of each currency; the row's ``total`` is that of the whole venue."""
        newest: dict[str, FundDetail] = {}
        for row in map(_fund_row.decode, raw):
            if row.instFamily != family:
                return self._refuse(reply, "unknown_symbol")
            for detail in row.details:
                before = newest.get(detail.ccy)
                if detail.balance and (before is None or detail.ts > before.ts):
                    newest[detail.ccy] = detail
        if not newest:
            return self._refuse(reply, "schema")
        balances = [(currency, float(detail.balance)) for currency, detail in newest.items()]
        at_ms = max(detail.ts for detail in newest.values())
        covered = [s for s in self.assets if (_product_of(s), self._family(s)) == (product, family)]
        return [*self._pool(at_ms, balances, covered)]

    # ------------------------------------------------------------------------------ private

    def _family(self, symbol: str) -> str:
        """The family of a symbol; that of its index until the list of instruments has come."""
        return self._families.get(symbol) or _index_of(symbol)

    def _fund_requests(self) -> list[Fetch]:
        families = {(_product_of(symbol), _index_of(symbol)): None for symbol in self.assets}
        return [
            Fetch(
                self.venue,
                f"funds:{product}:{family}",
                f"/api/v5/public/insurance-fund?instType={product}&instFamily={family}",
            )
            for product, family in families
        ]

    def _carry(self, channel: str, subject: str, symbol: str, feed: str) -> Stream:
        """A stream of one instrument (`symbol`), or of an index or a product line ("")."""
        topic, patience_s = f"{channel}:{subject}", PATIENCE_S[channel]
        return self._add(topic, symbol, CHANNELS[channel], feed, patience_s=patience_s)

    def _follow_index(self, symbol: str, index: str, feed: str) -> Out:
        """Have the index price of a symbol from this index from now on."""
        if symbol in self._on_index.setdefault(index, []):
            return []
        out: Out = []
        for before in [name for name, symbols in self._on_index.items() if symbol in symbols]:
            self._on_index[before].remove(symbol)
            if not self._on_index[before]:
                del self._on_index[before]
                unused = self.streams.pop(f"index-tickers:{before}")
                out += self._send("unsubscribe", [unused]) if unused.active else []
        if not self._on_index[index]:
            self._carry("index-tickers", index, "", feed).instrument = self._name(symbol)
        self._on_index[index].append(symbol)
        return out

    def _hear_on(self, channel: str, subject: str, frame: Frame) -> Out:
        return self._hear(self.streams[f"{channel}:{subject}"], frame.at)

    def _forget_book(self, symbol: str) -> None:
        if symbol in self._books:
            self._books[symbol] = (self._books[symbol][0], Chain())

    def _candles_request(self, symbol: str, at: int, *, after: int | None = None) -> Fetch:  # noqa: ARG002
        """`after` is the time (ms) that the wanted ones are older than, as the venue calls it."""
        path = f"/api/v5/market/candles?instId={symbol}&bar=5m&limit={CANDLES_ASKED}"
        if after is None:
            return Fetch(self.venue, f"candles:{symbol}", path)
        return Fetch(self.venue, f"candles:{symbol}:{after}", f"{path}&after={after}")

    def _interests_request(self, symbol: str) -> Fetch:
        query = f"instId={symbol}&period=5m&limit={INTERESTS_ASKED}"
        path = f"/api/v5/rubik/stat/contracts/open-interest-history?{query}"
        return Fetch(self.venue, f"interests:{symbol}", path)

    def _message(self, operation: Operation, streams: list[Stream], number: int) -> str:
        arguments = [_argument(stream.topic) for stream in streams]
        request = {"id": str(number), "op": operation, "args": arguments}
        return msgspec.json.encode(request).decode()


def _argument(topic: str) -> dict[str, str]:
    """What names a stream in a request."""
    channel, _, subject = topic.partition(":")
    return {
        "channel": channel,
        "instType" if channel == "liquidation-orders" else "instId": subject,
    }


def _length(symbol: str) -> int:
    """Characters a symbol takes of a connection's budget, with commas."""
    return sum(len(msgspec.json.encode(_argument(f"{name}:{symbol}"))) + 1 for name in CHANNELS)


def _product_of(symbol: str) -> str:
    """The ``instType`` of an instrument."""
    return "SWAP" if symbol.endswith("-SWAP") else "FUTURES"


def _index_of(symbol: str) -> str:
    """The index of an instrument, unless the venue says otherwise (``uly``).

    ``BTC-USDT-SWAP`` is on BTC-USDT, ``BTC-USD_UM_XPERP-310404`` on BTC-USD.
    """
    base, _, rest = symbol.partition("-")
    return f"{base}-{rest.partition('-')[0].partition('_')[0]}"


def _base_units(contracts: float, price: float, instrument: Instrument) -> float:
    if instrument.kind == "linear":
        return contracts * instrument.contract
    return contracts * instrument.contract / price


def _levels(rows: list[Row], instrument: Instrument) -> list[Level]:
    """Levels in base units; an inverse contract is worth fewer of them at a higher price."""
    contract = instrument.contract
    if instrument.kind == "linear":
        return [(row.price, row.contracts * contract) for row in rows]
    return [(row.price, row.contracts * contract / row.price) for row in rows]
