"""Simulated Bybit v5 linear contracts, after docs/exchanges.md section 2.

Order books come as a snapshot on subscription and then as deltas whose ``u`` rises by one a
message of one topic; ``seq`` is the book's own count and comparable between depths. Tickers are a
snapshot and then only the fields that changed. Liquidations are all there, in batches of 500 ms,
with the side of the *position* and the bankruptcy price.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from monitor.sim.liquidation import Liquidation
from monitor.sim.wire import bybit_rest
from monitor.sim.wire.base import (
    Answer,
    HandshakeError,
    Happened,
    Message,
    Printer,
    Request,
    Session,
    Source,
    Tap,
    Window,
    Wire,
    closed_lots,
    decimals_of,
    encode,
    parsed,
)

DEPTHS_MS: Final = {1: 10, 50: 20, 200: 100, 1_000: 200}
"""Depths of ``orderbook`` and their intervals; 500 no longer exists (2b)."""

TICKER_MS, LIQUIDATIONS_MS, RESENT_MS = 100, 500, 3_000
TRADES_MAX: Final = 1_024
ARGUMENTS_MAX: Final = 21_000
"""Characters of topics on one connection."""

RECENT_MAX: Final = 1_000
"""Trades that REST can be asked for."""

ENGINE_MS: Final = 3
"""The matching engine's time is so much before the gateway's."""


class Depth:
    """One ``orderbook`` topic: its window, its ``u``, and what ``seq`` it has published."""

    def __init__(self, tap: Tap, depth: int, *, deletes_leavers: bool) -> None:
        self.window = Window(tap, depth, deletes_leavers=deletes_leavers)
        self.update_id = 18_521_288 + depth
        self.seq = 0
        self.sent_ms = 0


class Bybit(Wire):
    """The venue."""

    venue = "bybit"
    silence_s = 600.0
    silence_of = "received"

    def __init__(self, market: Source, *, skew_ms: int = 0, deletes_leavers: bool = True) -> None:
        super().__init__(market, skew_ms=skew_ms)
        contracts = {a: market.contract(self.venue, a) for a in self.assets}
        self.printers = {
            a: Printer(c, price_decimals=max(2, decimals_of(c.tick_usd)))
            for a, c in contracts.items()
        }
        self.symbols = {f"{asset}USDT": asset for asset in self.assets}
        self.depths = {
            asset: {
                n: Depth(self.taps[asset], n, deletes_leavers=deletes_leavers) for n in DEPTHS_MS
            }
            for asset in self.assets
        }
        self.seq = {a: 66_544_703_342 + 1_000_003 * i for i, a in enumerate(self.assets)}
        self.recent: dict[str, deque[dict[str, Any]]] = {
            a: deque(maxlen=RECENT_MAX) for a in self.assets
        }
        self._tickers: dict[str, dict[str, str]] = {}
        self._forced: dict[str, list[Liquidation]] = {a: [] for a in self.assets}
        self._last = {a: self.days[a].last for a in self.assets}
        self._cross = 9_532_239_429
        self._trades = 0
        self._rest = bybit_rest.Rest(self)

    def connect(self, path: str, query: dict[str, str]) -> "BybitSession":  # noqa: ARG002
        """Only ``/v5/public/linear`` is simulated."""
        if path.rstrip("/") != "/v5/public/linear":
            raise HandshakeError(path)
        return BybitSession(self)

    def http(self, request: Request) -> Answer:
        """See `bybit_rest`."""
        return self._rest.answer(request)

    # ------------------------------------------------------------------------------ topics

    def parse(self, topic: str) -> tuple[str, int, str] | None:
        """Channel, depth (0 where there is none) and asset of a topic; None if it is invalid."""
        match topic.split("."):
            case ["orderbook", depth, symbol] if symbol in self.symbols:
                number = int(depth) if depth.isdecimal() and len(depth) < 5 else 0
                return ("orderbook", number, self.symbols[symbol]) if number in DEPTHS_MS else None
            case [("publicTrade" | "tickers" | "allLiquidation") as channel, symbol]:
                return (channel, 0, self.symbols[symbol]) if symbol in self.symbols else None
            case _:
                return None

    def _started(self, topic: str) -> None:
        match self.parse(topic):
            case ("orderbook", depth, asset):
                book = self.depths[asset][depth]
                book.window.begin()
                book.update_id += 1
                book.seq = self.seq[asset]
            case ("tickers", _, asset):
                self._tickers[asset] = self.fields(asset)
            case ("allLiquidation", _, asset):
                self._forced[asset] = []
            case _:
                pass

    def _stopped(self, topic: str) -> None:
        match self.parse(topic):
            case ("orderbook", depth, asset):
                self.depths[asset][depth].window.end()
            case ("tickers", _, asset):
                self._tickers.pop(asset, None)
            case _:
                pass

    def first(self, topic: str) -> list[bytes]:
        """What a new subscriber of a topic gets at once."""
        match self.parse(topic):
            case ("orderbook", depth, asset):
                book = self.depths[asset][depth]
                bids, asks = book.window.published()
                return [self._book(asset, depth, "snapshot", (bids, asks), book.update_id)]
            case ("tickers", _, asset):
                return [self._ticker_message(asset, "snapshot", self._tickers[asset])]
            case _:
                return []

    # ---------------------------------------------------------------------------- messages

    def _missed(self) -> None:
        for waiting in self._forced.values():
            waiting.clear()
        self._poll()

    def _poll(self) -> None:
        for asset, tap in self.taps.items():
            self.seq[asset] += tap.poll()

    def _publish(self, happened: dict[str, Happened]) -> Iterator[Message]:
        self._poll()
        for symbol, asset in self.symbols.items():
            for depth in DEPTHS_MS:
                topic = f"orderbook.{depth}.{symbol}"
                if topic in self.subscribers and self._due(DEPTHS_MS[depth]):
                    yield from self._books(topic, asset, depth)
            yield from self._publish_trades(asset, symbol, happened[asset])
            yield from self._publish_ticker(asset, symbol)
            yield from self._publish_liquidations(asset, symbol, happened[asset])

    def _books(self, topic: str, asset: str, depth: int) -> Iterator[Message]:
        book = self.depths[asset][depth]
        bids, asks = book.window.changes()
        now = self._ms()
        changed = bool(bids or asks)
        if not changed and (depth > 1 or now - book.sent_ms < RESENT_MS):
            return
        if changed:
            book.update_id += 1
            book.seq = self.seq[asset]
        book.sent_ms = now
        kind = "delta"
        if depth == 1:  # always whole, and again every three seconds (2b)
            kind, (bids, asks) = "snapshot", book.window.published()
        yield Message(topic, "book", self._book(asset, depth, kind, (bids, asks), book.update_id))

    def _book(
        self, asset: str, depth: int, kind: str, sides: tuple[Any, Any], update_id: int
    ) -> bytes:
        now, p = self._ms(), self.printers[asset]
        bids, asks = (_levels(p, side) for side in sides)
        return (
            f'{{"topic":"orderbook.{depth}.{asset}USDT","type":"{kind}","ts":{now},'
            f'"data":{{"s":"{asset}USDT","b":[{bids}],"a":[{asks}],"u":{update_id},'
            f'"seq":{self.depths[asset][depth].seq}}},"cts":{now - ENGINE_MS}}}'
        ).encode()

    def _publish_trades(self, asset: str, symbol: str, happened: Happened) -> Iterator[Message]:
        p, at = self.printers[asset], self._ms() - ENGINE_MS
        rows = []
        for trade in happened.trades:
            self._trades += 1
            direction = "ZeroPlusTick"
            if trade.tick != self._last[asset]:
                direction = "PlusTick" if trade.tick > self._last[asset] else "MinusTick"
            self._last[asset] = trade.tick
            rows.append(
                {
                    "T": at,
                    "s": symbol,
                    "S": "Buy" if trade.taker == "buy" else "Sell",
                    "v": p.size(trade.lots),
                    "p": p.price(trade.tick),
                    "L": direction,
                    "i": f"20f43950-d8dd-5b31-9112-{self._trades:012x}",
                    "BT": False,
                    "RPI": False,
                    "seq": self.seq[asset],
                }
            )
        self.recent[asset].extend(rows)
        topic = f"publicTrade.{symbol}"
        if topic in self.subscribers:
            for start in range(0, len(rows), TRADES_MAX):
                body = {"topic": topic, "type": "snapshot", "ts": self._ms()}
                body["data"] = rows[start : start + TRADES_MAX]
                yield Message(topic, "trade", encode(body))

    def _publish_ticker(self, asset: str, symbol: str) -> Iterator[Message]:
        topic = f"tickers.{symbol}"
        if topic not in self.subscribers or not self._due(TICKER_MS):
            return
        before, now = self._tickers[asset], self.fields(asset)
        changed = {name: text for name, text in now.items() if before[name] != text}
        if changed:
            self._tickers[asset] = now
            yield Message(topic, "ticker", self._ticker_message(asset, "delta", changed))

    def _ticker_message(self, asset: str, kind: str, fields: dict[str, str]) -> bytes:
        self._cross += 2
        symbol = f"{asset}USDT"
        data = {"symbol": symbol} | fields
        body = {"topic": f"tickers.{symbol}", "type": kind, "data": data}
        return encode(body | {"cs": self._cross, "ts": self._ms()})

    def fields(self, asset: str) -> dict[str, str]:
        """Every field of a ticker now; open interest counts both sides but for `single...`."""
        t, p, d = self._ticker(asset), self.printers[asset], self.days[asset]
        (bid, bid_lots), (ask, ask_lots) = self.taps[asset].touch()
        lots = t.open_interest
        return {
            "tickDirection": "PlusTick" if d.last >= d.open else "MinusTick",
            "price24hPcnt": f"{d.last / d.open - 1:.6f}",
            "lastPrice": p.price(d.last),
            "prevPrice24h": p.price(d.open),
            "highPrice24h": p.price(d.high),
            "lowPrice24h": p.price(d.low),
            "prevPrice1h": p.price(d.open),
            "markPrice": p.price(t.mark),
            "indexPrice": p.price(t.index),
            "openInterest": p.size(2 * lots),
            "openInterestValue": f"{p.usd(2 * lots, t.mark):.2f}",
            "singleOpenInterest": p.size(lots),
            "singleOpenInterestValue": f"{p.usd(lots, t.mark):.2f}",
            "turnover24h": f"{p.usd(1, d.tick_lots):.4f}",
            "volume24h": p.size(d.lots),
            "fundingIntervalHour": str(t.funding_interval_s // 3_600),
            "fundingCap": "0.00375",
            "nextFundingTime": str(self._ms(t.next_funding_at)),
            "fundingRate": f"{t.funding_rate_e8 / 1e8:.8f}",
            "bid1Price": p.price(bid),
            "bid1Size": p.size(bid_lots),
            "ask1Price": p.price(ask),
            "ask1Size": p.size(ask_lots),
        }

    def _publish_liquidations(
        self, asset: str, symbol: str, happened: Happened
    ) -> Iterator[Message]:
        """Every forced close, twice a second; `S` is the side of the position (2e)."""
        topic = f"allLiquidation.{symbol}"
        if topic not in self.subscribers:
            return
        self._forced[asset] += [r for r in happened.liquidations if closed_lots(r)]
        if not self._due(LIQUIDATIONS_MS) or not self._forced[asset]:
            return
        p = self.printers[asset]
        rows = [
            {
                "T": self._ms(record.at),
                "s": symbol,
                "S": "Buy" if record.side == "long" else "Sell",
                "v": p.size(closed_lots(record)),
                "p": p.price(record.bankruptcy_tick),
            }
            for record in self._forced[asset]
        ]
        self._forced[asset] = []
        body = {"topic": topic, "type": "snapshot", "ts": self._ms(), "data": rows}
        yield Message(topic, "liquidation", encode(body))

    def time_ms(self) -> int:
        """The venue's clock."""
        return self._ms()


class BybitSession(Session):
    """A connection; one bad topic fails the request it stands in (2a)."""

    wire: Bybit

    def _receive(self, text: str) -> list[bytes]:
        request = parsed(text)
        if request is None:
            return [self._reply("", "", "Params Error")]
        operation, number = request.get("op"), request.get("req_id", "")
        match operation:
            case "ping":
                return [self._reply("ping", number, "pong", success=True)]
            case "subscribe" | "unsubscribe":
                return self._change(str(operation), number, request.get("args"))
            case _:
                return [self._reply(operation, number, f"unknown op:{operation}")]

    def _change(self, operation: str, number: Any, topics: Any) -> list[bytes]:  # noqa: ANN401
        if not isinstance(topics, list) or not topics:
            return [self._reply(operation, number, "Params Error")]
        for topic in topics:
            if not isinstance(topic, str) or self.wire.parse(topic) is None:
                return [self._reply(operation, number, f"Invalid topic: {topic}")]
        if operation == "unsubscribe":
            for topic in topics:
                self._leave(topic)
            return [self._reply(operation, number, "", success=True)]
        size = sum(len(topic) for topic in {*self.topics, *topics})
        if size > ARGUMENTS_MAX:
            return [self._reply(operation, number, f"args size >{ARGUMENTS_MAX}")]
        joined = [topic for topic in topics if self._join(topic)]
        firsts = [data for topic in joined for data in self.wire.first(topic)]
        return [self._reply(operation, number, "", success=True), *firsts]

    def _reply(
        self,
        operation: Any,  # noqa: ANN401
        number: Any,  # noqa: ANN401
        text: str,
        *,
        success: bool = False,
    ) -> bytes:
        name = f"cejreaspqfm9se7usbrg-{self.number}"
        reply = {"success": success, "ret_msg": text, "conn_id": name}
        return encode(reply | {"req_id": number, "op": operation})


def _levels(p: Printer, levels: Any) -> str:  # noqa: ANN401
    """Levels as Bybit prints them: a removed one has the size 0 without decimals."""
    return ",".join(
        [f'["{p.price(t)}","{p.size(n)}"]' if n else f'["{p.price(t)}","0"]' for t, n in levels]
    )
