"""Simulated OKX v5 swaps, after docs/exchanges.md section 3.

Sizes are in contracts. A book's ``seqId`` counts changed levels; each update names the one before
it, an unchanged book says so every 60 s with ``prevSeqId == seqId``. Snapshots carry neither
``prevSeqId`` nor ``checksum``, as recorded live in 2026-09. Index prices go by the index's name,
liquidations by the product line, at most one a contract and second, and the first push after
subscribing is an old one out of the cache.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from monitor.sim.liquidation import Liquidation
from monitor.sim.wire import okx_rest
from monitor.sim.wire.base import (
    Answer,
    HandshakeError,
    Happened,
    Kind,
    Levels,
    Message,
    Printer,
    Request,
    Session,
    Source,
    Tap,
    Window,
    Wire,
    closed_lots,
    encode,
    parsed,
    trimmed,
)

LOTS_A_CONTRACT: Final = 100
"""The minimum size of every simulated swap is 0.01 contracts (3g)."""

BOOK_LEVELS: Final = 400
BOOK_MS, MARK_MS, INDEX_MS, INTEREST_MS, FUNDING_MS, TICKER_MS = 100, 200, 100, 3_000, 60_000, 100
MARK_IDLE_MS, INDEX_IDLE_MS, BOOK_IDLE_MS = 10_000, 60_000, 60_000
LIQUIDATION_MS: Final = 1_000

ARGUMENTS_MAX: Final = 1 << 16
REQUESTS_MAX: Final = 480
"""Subscribe and unsubscribe requests a connection may make in an hour."""

RECENT_MAX: Final = 500
STALE_MS: Final = 3_600_000
"""Age of what the liquidation cache holds when the market begins."""

BY_INSTRUMENT: Final = frozenset(
    {"books", "books5", "bbo-tbt", "trades", "mark-price", "funding-rate", "open-interest"}
    | {"tickers"}
)
PAID: Final = frozenset({"books-l2-tbt", "books50-l2-tbt"})
"""Channels that need a login and a VIP level (3b)."""


class Sequence:
    """The numbering of one ``books`` topic."""

    def __init__(self, tap: Tap) -> None:
        self.window = Window(tap, BOOK_LEVELS)
        self.last = 0
        self.sent_ms = 0


class Okx(Wire):
    """The venue."""

    venue = "okx"
    silence_s = 30.0
    silence_of = "both"

    def __init__(self, market: Source, *, skew_ms: int = 0) -> None:
        super().__init__(market, skew_ms=skew_ms)
        contracts = {a: market.contract(self.venue, a) for a in self.assets}
        self.values = {a: c.lot_base * LOTS_A_CONTRACT for a, c in contracts.items()}
        self.printers = {
            a: Printer(c, unit_base=self.values[a], style=trimmed) for a, c in contracts.items()
        }
        self.symbols = {f"{asset}-USDT-SWAP": asset for asset in self.assets}
        self.indexes = {f"{asset}-USDT": asset for asset in self.assets}
        self.books = {a: Sequence(self.taps[a]) for a in self.assets}
        self.seq = {a: 81_625_399_056 + 1_000_003 * i for i, a in enumerate(self.assets)}
        self.recent: dict[str, deque[dict[str, str]]] = {
            a: deque(maxlen=RECENT_MAX) for a in self.assets
        }
        self._trade_id = 7_000_000
        self._forced: dict[str, Liquidation] = {}
        self._told: dict[str, tuple[str, int]] = {}
        first = self.assets[0]
        old = {"side": "sell", "posSide": "long", "bkLoss": "0", "sz": "13", "ccy": ""}
        price = self.printers[first].price(market.ticker(self.venue, first).mark)
        old |= {"bkPx": price, "ts": str(self._ms() - STALE_MS)}
        self._cache = self._liquidation_push(first, old)
        self._rest = okx_rest.Rest(self)

    def connect(self, path: str, query: dict[str, str]) -> "OkxSession":  # noqa: ARG002
        """``/ws/v5/public``; ``/ws/v5/business`` opens too but has no channel simulated."""
        root = path.rstrip("/").removeprefix("/ws/v5/")
        if root not in {"public", "business"}:
            raise HandshakeError(path)
        return OkxSession(self, is_public=root == "public")

    def http(self, request: Request) -> Answer:
        """See `okx_rest`."""
        return self._rest.answer(request)

    # ------------------------------------------------------------------------------ topics

    def asset_of(self, topic: str) -> str | None:
        """The asset of a topic ``channel:subject``; "" for a whole product line."""
        channel, _, subject = topic.partition(":")
        if channel == "liquidation-orders":
            return "" if subject in {"SWAP", "FUTURES"} else None
        if channel == "index-tickers":
            return self.indexes.get(subject)
        return self.symbols.get(subject) if channel in BY_INSTRUMENT else None

    def _started(self, topic: str) -> None:
        channel, _, subject = topic.partition(":")
        if channel == "books":
            asset = self.symbols[subject]
            book = self.books[asset]
            book.window.begin()
            book.last, book.sent_ms = self.seq[asset], self._ms()

    def _stopped(self, topic: str) -> None:
        channel, _, subject = topic.partition(":")
        self._told.pop(topic, None)
        if channel == "books":
            self.books[self.symbols[subject]].window.end()

    def first(self, topic: str) -> list[bytes]:
        """What a new subscriber of a topic gets at once."""
        channel, _, subject = topic.partition(":")
        asset = self.asset_of(topic)
        if channel == "liquidation-orders":
            return [self._cache] if subject == "SWAP" else []
        if asset is None or channel == "trades":
            return []
        if channel == "books":
            book = self.books[asset]
            return [self._book(asset, "snapshot", book.window.published(), (book.last, None))]
        return [_push(channel, subject, [self._row(channel, asset)])]

    # ---------------------------------------------------------------------------- messages

    def _missed(self) -> None:
        self._forced.clear()
        self._poll()

    def _poll(self) -> None:
        for asset, tap in self.taps.items():
            self.seq[asset] += tap.poll()

    def _publish(self, happened: dict[str, Happened]) -> Iterator[Message]:
        self._poll()
        for symbol, asset in self.symbols.items():
            yield from self._books(asset, symbol)
            yield from self._trades(asset, symbol, happened[asset])
            for record in happened[asset].liquidations:
                if closed_lots(record):
                    self._forced[asset] = record
            index = f"{asset}-USDT"
            yield from self._changing("mark-price", symbol, asset, MARK_MS, MARK_IDLE_MS)
            yield from self._changing("index-tickers", index, asset, INDEX_MS, INDEX_IDLE_MS)
            yield from self._changing("open-interest", symbol, asset, INTEREST_MS, None)
            yield from self._changing("funding-rate", symbol, asset, FUNDING_MS, FUNDING_MS)
            yield from self._changing("tickers", symbol, asset, TICKER_MS, None)
            yield from self._changing("books5", symbol, asset, BOOK_MS, None)
            yield from self._changing("bbo-tbt", symbol, asset, 10, None)
        if self._due(LIQUIDATION_MS):
            yield from self._liquidations()

    def _books(self, asset: str, symbol: str) -> Iterator[Message]:
        topic = f"books:{symbol}"
        if topic not in self.subscribers or not self._due(BOOK_MS):
            return
        book, now = self.books[asset], self._ms()
        bids, asks = book.window.changes()
        if not (bids or asks) and now - book.sent_ms < BOOK_IDLE_MS:
            return
        before = book.last
        if bids or asks:
            book.last = self.seq[asset]
        book.sent_ms = now
        yield Message(topic, "book", self._book(asset, "update", (bids, asks), (book.last, before)))

    def _book(
        self,
        asset: str,
        action: str,
        sides: tuple[Levels, Levels],
        ids: tuple[int, int | None],
    ) -> bytes:
        p, symbol = self.printers[asset], f"{asset}-USDT-SWAP"
        bids, asks = (_levels(p, side) for side in sides)
        numbers = f'"seqId":{ids[0]}' + ("" if ids[1] is None else f',"prevSeqId":{ids[1]}')
        return (
            f'{{"arg":{{"channel":"books","instId":"{symbol}"}},"action":"{action}",'
            f'"data":[{{"asks":[{asks}],"bids":[{bids}],"instId":"{symbol}",'
            f'"ts":"{self._ms()}",{numbers}}}]}}'
        ).encode()

    def _trades(self, asset: str, symbol: str, happened: Happened) -> Iterator[Message]:
        """Fills of one taker at one price are one row (3f)."""
        p, now = self.printers[asset], str(self._ms())
        rows: list[dict[str, str]] = []
        previous: tuple[int, str] | None = None
        lots = 0
        for trade in happened.trades:
            if previous == (trade.tick, trade.taker):
                lots += trade.lots
                rows[-1] |= {"sz": p.size(lots), "count": str(int(rows[-1]["count"]) + 1)}
                continue
            previous, lots = (trade.tick, trade.taker), trade.lots
            self._trade_id += 1
            rows.append(
                {"instId": symbol, "tradeId": str(self._trade_id), "px": p.price(trade.tick)}
                | {"sz": p.size(trade.lots), "side": trade.taker, "ts": now}
                | {"count": "1", "source": "0"}
            )
        self.recent[asset].extend(rows)
        topic = f"trades:{symbol}"
        if topic in self.subscribers:
            for row in rows:
                data = _push("trades", symbol, [row | {"seqId": self.seq[asset]}])
                yield Message(topic, "trade", data)

    def _changing(
        self, channel: str, subject: str, asset: str, every_ms: int, idle_ms: int | None
    ) -> Iterator[Message]:
        """A channel that speaks when its content changed, or after `idle_ms` without."""
        topic = f"{channel}:{subject}"
        if topic not in self.subscribers or not self._due(every_ms):
            return
        row, now = self._row(channel, asset), self._ms()
        content = str({key: value for key, value in row.items() if key != "ts"})
        before, told_ms = self._told.get(topic, ("", 0))
        if content == before and (idle_ms is None or now - told_ms < idle_ms):
            return
        self._told[topic] = (content, now)
        kind: Kind = "book" if channel in {"books5", "bbo-tbt"} else "ticker"
        yield Message(topic, kind, _push(channel, subject, [row]))

    def _row(self, channel: str, asset: str) -> dict[str, Any]:
        match channel:
            case "mark-price":
                return self.mark_row(asset)
            case "index-tickers":
                return self.index_row(asset)
            case "funding-rate":
                return self.funding_row(asset)
            case "open-interest":
                return self.interest_row(asset)
            case "tickers":
                return self.ticker_row(asset)
            case "books5":
                return self.book_row(asset, 5)
            case _:
                return self.book_row(asset, 1)

    def _liquidations(self) -> Iterator[Message]:
        """At most one a contract and second, the latest; `side` is the order's (3e)."""
        for asset, record in self._forced.items():
            long = record.side == "long"
            detail = {
                "bkLoss": trimmed(f"{record.fund_loss / 1e6:.8f}"),
                "bkPx": self.printers[asset].price(record.bankruptcy_tick),
                "ccy": "",
                "posSide": record.side,
                "side": "sell" if long else "buy",
                "sz": self.printers[asset].size(closed_lots(record)),
                "ts": str(self._ms(record.at)),
            }
            self._cache = self._liquidation_push(asset, detail)
            topic = "liquidation-orders:SWAP"
            if topic in self.subscribers:
                yield Message(topic, "liquidation", self._cache)
        self._forced.clear()

    def _liquidation_push(self, asset: str, detail: dict[str, str]) -> bytes:
        row = {"details": [detail], "instFamily": f"{asset}-USDT", "instId": f"{asset}-USDT-SWAP"}
        row |= {"instType": "SWAP", "uly": f"{asset}-USDT"}
        return encode({"arg": {"channel": "liquidation-orders", "instType": "SWAP"}, "data": [row]})

    # -------------------------------------------------------------------------------- rows

    def mark_row(self, asset: str) -> dict[str, Any]:
        """``mark-price``."""
        mark = self.printers[asset].price(self._ticker(asset).mark)
        names = {"instId": f"{asset}-USDT-SWAP", "instType": "SWAP"}
        return names | {"markPx": mark, "ts": str(self._ms())}

    def index_row(self, asset: str) -> dict[str, Any]:
        """``index-tickers``; the name is the index's (3c)."""
        p, d = self.printers[asset], self.days[asset]
        start = p.price(d.open)
        return {
            "instId": f"{asset}-USDT",
            "idxPx": p.price(self._ticker(asset).index),
            "high24h": p.price(d.high),
            "low24h": p.price(d.low),
            "open24h": start,
            "sodUtc0": start,
            "sodUtc8": start,
            "ts": str(self._ms()),
        }

    def funding_row(self, asset: str) -> dict[str, Any]:
        """``funding-rate``: what will be charged at `fundingTime` (3c)."""
        t = self._ticker(asset)
        rate = trimmed(f"{t.funding_rate_e8 / 1e8:.8f}")
        due, interval = self._ms(t.next_funding_at), t.funding_interval_s * 1_000
        return {
            "formulaType": "withRate",
            "fundingRate": rate,
            "fundingTime": str(due),
            "impactValue": "20000.0000000000000000",
            "instId": f"{asset}-USDT-SWAP",
            "instType": "SWAP",
            "interestRate": "0.0001000000000000",
            "maxFundingRate": "0.00375",
            "method": "current_period",
            "minFundingRate": "-0.00375",
            "nextFundingRate": "",
            "nextFundingTime": str(due + interval),
            "premium": rate,
            "prevFundingTime": str(due - interval),
            "settFundingRate": rate,
            "settState": "settled",
            "ts": str(self._ms()),
        }

    def interest_row(self, asset: str) -> dict[str, Any]:
        """``open-interest`` in contracts, coins and USD, one side (3d)."""
        t, p = self._ticker(asset), self.printers[asset]
        return {
            "instId": f"{asset}-USDT-SWAP",
            "instType": "SWAP",
            "oi": p.size(t.open_interest),
            "oiCcy": trimmed(f"{t.open_interest * p.contract.lot_base:.8f}"),
            "oiUsd": trimmed(f"{p.usd(t.open_interest, t.mark):.8f}"),
            "ts": str(self._ms()),
        }

    def ticker_row(self, asset: str) -> dict[str, Any]:
        """``tickers``; volumes since the market began."""
        p, d = self.printers[asset], self.days[asset]
        (bid, bid_lots), (ask, ask_lots) = self.taps[asset].touch()
        return {
            "instType": "SWAP",
            "instId": f"{asset}-USDT-SWAP",
            "last": p.price(d.last),
            "lastSz": p.size(1),
            "askPx": p.price(ask),
            "askSz": p.size(ask_lots),
            "bidPx": p.price(bid),
            "bidSz": p.size(bid_lots),
            "open24h": p.price(d.open),
            "high24h": p.price(d.high),
            "low24h": p.price(d.low),
            "volCcy24h": trimmed(f"{d.lots * p.contract.lot_base:.8f}"),
            "vol24h": p.size(d.lots),
            "sodUtc0": p.price(d.open),
            "sodUtc8": p.price(d.open),
            "ts": str(self._ms()),
        }

    def book_row(self, asset: str, depth: int) -> dict[str, Any]:
        """A whole book of few levels."""
        p = self.printers[asset]
        bids, asks = (
            [[p.price(t), p.size(n), "0", "1"] for t, n in side]
            for side in self.taps[asset].best(depth)
        )
        row: dict[str, Any] = {"asks": asks, "bids": bids, "instId": f"{asset}-USDT-SWAP"}
        return row | {"ts": str(self._ms()), "seqId": self.seq[asset]}

    def time_ms(self) -> int:
        """The venue's clock."""
        return self._ms()


class OkxSession(Session):
    """A connection; every argument of a request is answered by itself."""

    wire: Okx

    def __init__(self, wire: Okx, *, is_public: bool) -> None:
        super().__init__(wire)
        self._is_public = is_public
        self._asked: deque[int] = deque()
        self._connection = f"{0xA4D3AE00 + self.number:08x}"

    def receive(self, text: str, now: int) -> list[bytes]:
        """As the base, with the venue's budget of requests an hour."""
        if text == "ping":
            return [b"pong"]
        while self._asked and self._asked[0] <= now - 3_600 * 10**9:
            self._asked.popleft()
        self._asked.append(now)
        if len(self._asked) > REQUESTS_MAX:
            return [self._error("60014", "Requests too frequent.", None)]
        return super().receive(text, now)

    def _receive(self, text: str) -> list[bytes]:
        request = parsed(text)
        arguments = request.get("args") if request else None
        operation = request.get("op") if request else None
        illegal = not isinstance(arguments, list) or not arguments
        if request is None or illegal or operation not in {"subscribe", "unsubscribe"}:
            return [self._error("60012", f"Illegal request: {text[:200]}", None)]
        assert isinstance(arguments, list)
        number = request.get("id")
        if len(text) + sum(len(topic) + 30 for topic in self.topics) > ARGUMENTS_MAX:
            return [self._error("60012", "The total length of args exceeds 64 KB.", number)]
        out: list[bytes] = []
        for argument in arguments:
            out += self._one(str(operation), argument, number)
        return out

    def _one(self, operation: str, argument: Any, number: Any) -> list[bytes]:  # noqa: ANN401
        if not isinstance(argument, dict):
            return [self._error("60012", f"Illegal request: {argument}", number)]
        channel = str(argument.get("channel", ""))
        product = channel == "liquidation-orders"
        subject = str(argument.get("instType" if product else "instId", ""))
        if channel in PAID:
            return [self._error("64003", "Your trading fee tier is too low.", number)]
        topic = f"{channel}:{subject}"
        if not self._is_public or self.wire.asset_of(topic) is None:
            text = (
                f"{operation.capitalize()} failed, wrong URL or channel:{channel},instId:{subject}"
                " doesn't exist. Please use the correct URL, channel and parameters referring to "
                "API document."
            )
            return [self._error("60018", text, number)]
        ack = self._tagged({"event": operation, "arg": argument}, number)
        if operation == "unsubscribe":
            self._leave(topic)
            return [ack]
        return [ack, *(self.wire.first(topic) if self._join(topic) else [])]

    def _error(self, code: str, text: str, number: Any) -> bytes:  # noqa: ANN401
        return self._tagged({"event": "error", "code": code, "msg": text}, number)

    def _tagged(self, body: dict[str, Any], number: Any) -> bytes:  # noqa: ANN401
        head = {} if number is None else {"id": number}
        return encode(head | body | {"connId": self._connection})


def _push(channel: str, subject: str, rows: list[Any]) -> bytes:
    return encode({"arg": {"channel": channel, "instId": subject}, "data": rows})


def _levels(p: Printer, levels: Levels) -> str:
    """Levels as ``[price, contracts, "0", orders]``."""
    return ",".join(
        [
            f'["{p.price(t)}","{p.size(n)}","0","{n // 500 + 1}"]'
            if n
            else f'["{p.price(t)}","0","0","0"]'
            for t, n in levels
        ]
    )
