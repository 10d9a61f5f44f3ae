"""Simulated Binance USD-M futures, after docs/exchanges.md section 1.

Two websocket roots since 2026-04-23: ``/public`` carries order books, ``/market`` the rest. A
stream that is subscribed on the wrong one is acknowledged and stays silent, and so it is on the
old unrouted ``/ws`` and ``/stream``, which carry public streams only.

Update ids count changed levels, with holes between messages. A REST snapshot taken between two
messages of a stream has an id inside the next one (``U <= lastUpdateId <= u``); one taken just
after a message continues it (``pu == lastUpdateId``).
"""

import re
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from monitor.sim.liquidation import Liquidation
from monitor.sim.wire import binance_rest
from monitor.sim.wire.base import (
    MS,
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
    ladder_of,
    parsed,
)

QUOTE: Final = "USDT"

SPEEDS_MS: Final = {"": 250, "@0ms": 1, "@100ms": 100, "@250ms": 250, "@500ms": 500}
"""Intervals of ``@depth``; ``@0ms`` is undocumented and used by recorders (1b)."""

_PARTIAL = re.compile(r"depth(5|10|20)(@100ms|@250ms|@500ms)?")
CONTRACTS_MS: Final = 60_000
"""The real venue tells margin brackets when they change only; this one repeats them."""

STREAMS_MAX: Final = 1_024
RECENT_MAX: Final = 1_000
"""Trades that REST can be asked for."""

PUBLIC: Final = frozenset({"depth", "bookTicker", "trade"})
"""Channels of ``/public``."""

MARKET: Final = frozenset(
    {"aggTrade", "trade", "markPrice", "forceOrder", "ticker", "miniTicker", "contractInfo"}
)
"""Channels of ``/market``; sources differ on where ``@trade`` is (1a), so both carry it."""

SETTLE_MS: Final = 2
"""The matching engine's time is so much before the event's."""


class Depth:
    """The numbering of one depth stream: what `u` was last, and the first id since."""

    def __init__(self, tap: Tap) -> None:
        self.window = Window(tap, None)
        self.last = 0
        self.first = 0

    def note(self, first: int) -> None:
        """New ids have been given, from `first` on."""
        self.first = self.first or first


class Binance(Wire):
    """The venue."""

    venue = "binance"
    ping_frames_s = 180.0
    limit = (10, 1.0)

    def __init__(self, market: Source, *, skew_ms: int = 0) -> None:
        super().__init__(market, skew_ms=skew_ms)
        contracts = {a: market.contract(self.venue, a) for a in self.assets}
        self.printers = {
            a: Printer(c, price_decimals=max(2, decimals_of(c.tick_usd)))
            for a, c in contracts.items()
        }
        self.symbols = {f"{asset}{QUOTE}": asset for asset in self.assets}
        self.depths = {a: {s: Depth(self.taps[a]) for s in SPEEDS_MS} for a in self.assets}
        self.update_id = {a: 10_000_000_000 + 1_000_003 * i for i, a in enumerate(self.assets)}
        self.trade_id = dict.fromkeys(self.assets, 5_000_000)
        self.aggregate_id = dict.fromkeys(self.assets, 1_000_000)
        self.recent: dict[str, deque[dict[str, Any]]] = {
            a: deque(maxlen=RECENT_MAX) for a in self.assets
        }
        self._partial: dict[str, dict[str, tuple[int, int]]] = {a: {} for a in self.assets}
        self._forced: dict[str, Liquidation] = {}
        self._touch: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}
        self._rest = binance_rest.Rest(self)

    def connect(self, path: str, query: dict[str, str]) -> "BinanceSession":
        """``[/public|/market]/ws[/<stream>...]`` or ``.../stream[?streams=a/b]``."""
        parts = [part for part in path.split("/") if part]
        root = parts.pop(0) if parts and parts[0] in {"public", "market"} else "public"
        form = parts.pop(0) if parts else ""
        if form not in {"ws", "stream"}:
            raise HandshakeError(path)
        names = parts if form == "ws" else [n for n in query.get("streams", "").split("/") if n]
        return BinanceSession(self, root, names, wrapped=form == "stream")

    def http(self, request: Request) -> Answer:
        """See `binance_rest`."""
        return self._rest.answer(request)

    # ------------------------------------------------------------------------------ topics

    def _started(self, topic: str) -> None:
        depth = self._depth_of(topic)
        if depth is not None:
            asset, stream = depth
            stream.window.begin()
            stream.last, stream.first = self.update_id[asset], 0
        symbol, _, rest = topic.partition("@")
        match = _PARTIAL.fullmatch(rest)
        if match and symbol.upper() in self.symbols:
            shown = (int(match[1]), SPEEDS_MS[match[2] or ""])
            self._partial[self.symbols[symbol.upper()]][topic] = shown

    def _stopped(self, topic: str) -> None:
        depth = self._depth_of(topic)
        if depth is not None:
            depth[1].window.end()
        for topics in self._partial.values():
            topics.pop(topic, None)

    def _depth_of(self, topic: str) -> tuple[str, Depth] | None:
        """The full diff stream of a topic, if it is one."""
        symbol, _, rest = topic.partition("@")
        asset = self.symbols.get(symbol.upper())
        if asset is None or not rest.startswith("depth"):
            return None
        stream = self.depths[asset].get(rest.removeprefix("depth"))
        return None if stream is None else (asset, stream)

    # ---------------------------------------------------------------------------- messages

    def _missed(self) -> None:
        self._forced.clear()
        self._number()

    def _number(self) -> None:
        """Give ids to what changed in the books; now and then some are skipped (hidden orders)."""
        for asset, tap in self.taps.items():
            changed = tap.poll()
            if changed:
                first = self.update_id[asset] + 1 + changed % 3
                self.update_id[asset] = first + changed - 1
                for stream in self.depths[asset].values():
                    stream.note(first)

    def _publish(self, happened: dict[str, Happened]) -> Iterator[Message]:
        self._number()
        for asset in self.assets:
            symbol = f"{asset}{QUOTE}"
            yield from self._depth(asset, symbol)
            yield from self._trades(asset, symbol, happened[asset])
            for record in happened[asset].liquidations:
                shown = self._forced.get(asset)
                least = closed_lots(shown) if shown is not None else 0
                if closed_lots(record) > least:
                    self._forced[asset] = record
        yield from self._slow()

    def _message(self, topic: str, kind: Any, data: bytes) -> Message:  # noqa: ANN401
        wrapped = b'{"stream":"' + topic.encode() + b'","data":' + data + b"}"
        return Message(topic, kind, data, wrapped)

    def _depth(self, asset: str, symbol: str) -> Iterator[Message]:
        """Diffs of the whole book, partial snapshots and the best prices."""
        lower = symbol.lower()
        for speed, stream in self.depths[asset].items():
            if stream.window.active and stream.first and self._due(SPEEDS_MS[speed]):
                topic = f"{lower}@depth{speed}"
                bids, asks = stream.window.changes()
                data = self._update(asset, symbol, (stream.first, stream.last), (bids, asks))
                stream.last, stream.first = self.update_id[asset], 0
                yield self._message(topic, "book", data)
        for topic, (count, interval) in self._partial[asset].items():
            if self._due(interval):
                last = self.update_id[asset]
                sides = self.taps[asset].best(count)
                data = self._update(asset, symbol, (last, last - 1), sides)
                yield self._message(topic, "book", data)
        topic = f"{lower}@bookTicker"
        if topic in self.subscribers:
            touch = self.taps[asset].touch()
            if self._touch.get(asset) != touch:
                self._touch[asset] = touch
                yield self._message(topic, "ticker", encode(self.best(asset, symbol)))

    def _update(
        self, asset: str, symbol: str, ids: tuple[int, int], sides: tuple[Any, Any]
    ) -> bytes:
        first, before = ids
        now, p = self._ms(), self.printers[asset]
        return (
            f'{{"e":"depthUpdate","E":{now},"T":{now - SETTLE_MS},"s":"{symbol}",'
            f'"ps":"{symbol}","st":1,"U":{first},"u":{self.update_id[asset]},"pu":{before},'
            f'"b":[{p.pairs(sides[0])}],"a":[{p.pairs(sides[1])}]}}'
        ).encode()

    def best(self, asset: str, symbol: str) -> dict[str, Any]:
        """The ``bookTicker`` of a symbol."""
        p, now = self.printers[asset], self._ms()
        (bid, bid_lots), (ask, ask_lots) = self.taps[asset].touch()
        return {
            "e": "bookTicker",
            "u": self.update_id[asset],
            "E": now,
            "T": now - SETTLE_MS,
            "s": symbol,
            "b": p.price(bid),
            "B": p.size(bid_lots),
            "a": p.price(ask),
            "A": p.size(ask_lots),
            "st": 1,
            "ps": symbol,
        }

    def _trades(self, asset: str, symbol: str, happened: Happened) -> Iterator[Message]:
        """Trades one by one, aggregated by taker and price, and the transfers beside them (1f)."""
        p, lower, now = self.printers[asset], symbol.lower(), self._ms()
        singles: list[dict[str, Any]] = []
        rows: list[dict[str, Any]] = []
        previous: tuple[int, str] | None = None
        lots = 0
        for trade in happened.trades:
            self.trade_id[asset] += 1
            number, maker_buys = self.trade_id[asset], trade.taker == "sell"
            common = {"s": symbol, "p": p.price(trade.tick), "T": now - SETTLE_MS}
            quantity = p.size(trade.lots)
            singles.append(
                {"e": "trade", "E": now, **common, "t": number, "q": quantity}
                | {"X": "MARKET", "m": maker_buys, "st": 1}
            )
            if previous == (trade.tick, trade.taker):
                lots += trade.lots
                rows[-1] |= {"q": p.size(lots), "nq": p.size(lots), "l": number}
                continue
            previous, lots = (trade.tick, trade.taker), trade.lots
            self.aggregate_id[asset] += 1
            rows.append(
                {"e": "aggTrade", "E": now, "a": self.aggregate_id[asset], **common}
                | {"q": quantity, "nq": quantity, "f": number, "l": number}
                | {"m": maker_buys, "st": 1}
            )
        for transfer in happened.transfers:
            self.trade_id[asset] += 1
            kind = "INSURANCE_FUND" if transfer.kind == "takeover" else "ADL"
            singles.append(
                {"e": "trade", "E": now, "s": symbol, "T": now - SETTLE_MS}
                | {"t": self.trade_id[asset], "p": p.price(transfer.tick), "X": kind}
                | {"q": p.size(transfer.lots), "m": transfer.side == "long", "st": 1}
            )
        self.recent[asset].extend(rows)
        for name, found in (("aggTrade", rows), ("trade", singles)):
            topic = f"{lower}@{name}"
            if topic in self.subscribers:
                for row in found:
                    yield self._message(topic, "trade", encode(row))

    def _slow(self) -> Iterator[Message]:
        """Marks, forced orders and 24-hour tickers, each at its own pace."""
        for name, interval in (("@1s", 1_000), ("", 3_000)):
            if self._due(interval):
                yield from self._each("markPrice", name, self.mark, kind="ticker")
                if f"!markPrice@arr{name}" in self.subscribers:
                    rows = [self.mark(asset, symbol) for symbol, asset in self.symbols.items()]
                    yield self._message(f"!markPrice@arr{name}", "ticker", encode(rows))
        if "!contractInfo" in self.subscribers and self._due(CONTRACTS_MS):
            for asset in self.assets:
                yield self._message("!contractInfo", "ticker", self.contract_info(asset))
        if self._due(1_000):
            yield from self._forced_orders()
            yield from self._each("ticker", "", self.day, kind="ticker")
            yield from self._each("miniTicker", "", self.mini, kind="ticker")

    def _each(self, channel: str, suffix: str, row: Any, *, kind: Any) -> Iterator[Message]:  # noqa: ANN401
        for symbol, asset in self.symbols.items():
            topic = f"{symbol.lower()}@{channel}{suffix}"
            if topic in self.subscribers:
                yield self._message(topic, kind, encode(row(asset, symbol)))

    def mark(self, asset: str, symbol: str) -> dict[str, Any]:
        """The ``markPriceUpdate`` of a symbol."""
        t, p = self._ticker(asset), self.printers[asset]
        return {
            "e": "markPriceUpdate",
            "E": self._ms(),
            "s": symbol,
            "p": f"{t.mark * p.tick:.8f}",
            "ap": f"{t.mark * p.tick:.8f}",
            "i": f"{t.index * p.tick:.8f}",
            "P": f"{t.index * p.tick:.8f}",
            "r": f"{t.funding_rate_e8 / 1e8:.8f}",
            "T": self._ms(t.next_funding_at),
            "st": 1,
        }

    def _forced_orders(self) -> Iterator[Message]:
        """At most one forced order a symbol and second, the largest (1e)."""
        for asset, record in self._forced.items():
            symbol = f"{asset}{QUOTE}"
            data = encode(self._force_order(asset, symbol, record))
            for topic in (f"{symbol.lower()}@forceOrder", "!forceOrder@arr"):
                if topic in self.subscribers:
                    yield self._message(topic, "liquidation", data)
        self._forced.clear()

    def _force_order(self, asset: str, symbol: str, record: Liquidation) -> dict[str, Any]:
        """What the book did not take was filled by the fund or opposite accounts, at bankruptcy.

        The venue prints those fills as trades of kind INSURANCE_FUND and ADL (1f), and its forced
        orders are as good as always FILLED.
        """
        p, closed = self.printers[asset], closed_lots(record)
        value = record.filled * record.fill_tick + (closed - record.filled) * record.bankruptcy_tick
        order = {
            "s": symbol,
            "S": "SELL" if record.side == "long" else "BUY",
            "o": "LIMIT",
            "f": "IOC",
            "q": p.size(record.lots),
            "p": p.price(record.bankruptcy_tick),
            "ap": p.price(value / closed),
            "X": "FILLED" if closed == record.lots else "PARTIALLY_FILLED",
            "l": p.size(closed),
            "z": p.size(closed),
            "T": self._ms(record.at),
        }
        return {"e": "forceOrder", "E": self._ms(), "o": order, "st": 1, "ps": symbol}

    def day(self, asset: str, symbol: str) -> dict[str, Any]:
        """The ``24hrTicker`` of a symbol, since the market began."""
        d, p, now = self.days[asset], self.printers[asset], self._ms()
        average = d.tick_lots / d.lots if d.lots else d.last
        return {
            "e": "24hrTicker",
            "E": now,
            "s": symbol,
            "p": p.price(d.last - d.open),
            "P": f"{(d.last / d.open - 1) * 100:.3f}",
            "w": p.price(average),
            "c": p.price(d.last),
            "Q": p.size(1),
            "o": p.price(d.open),
            "h": p.price(d.high),
            "l": p.price(d.low),
            "v": p.size(d.lots),
            "q": f"{p.usd(1, d.tick_lots):.2f}",
            "O": now - 86_400_000,
            "C": now,
            "F": max(0, self.trade_id[asset] - d.trades),
            "L": self.trade_id[asset],
            "n": d.trades,
            "st": 1,
        }

    def mini(self, asset: str, symbol: str) -> dict[str, Any]:
        """The ``24hrMiniTicker`` of a symbol."""
        day = self.day(asset, symbol)
        kept = {key: day[key] for key in ("E", "s", "c", "o", "h", "l", "v", "q", "st")}
        return {"e": "24hrMiniTicker", **kept}

    def contract_info(self, asset: str) -> bytes:
        """A ``!contractInfo`` event with the margin brackets (1g)."""
        symbol = f"{asset}{QUOTE}"
        rows = [
            {
                "bs": i + 1,
                "bnf": round(row.floor),
                "bnc": round(row.cap),
                "mmr": row.rate,
                "cf": round(row.deduction, 8),
                "mi": 1,
                "ma": row.max_leverage,
            }
            for i, row in enumerate(ladder_of(self.rules, asset))
        ]
        info = {"e": "contractInfo", "E": self._ms(), "s": symbol, "ps": symbol}
        state = {
            "ct": "PERPETUAL",
            "dt": 4_133_404_800_000,
            "ot": 1_569_398_400_000,
            "cs": "TRADING",
        }
        return encode(info | state | {"bks": rows, "st": 1})

    def time_ms(self) -> int:
        """The venue's clock."""
        return self._ms()

    def funding_at_ms(self, asset: str) -> int:
        """Next funding time."""
        return self._ms(self._ticker(asset).next_funding_at // MS * MS)


class BinanceSession(Session):
    """A connection to one root, in the wrapped or the bare form."""

    wire: Binance

    def __init__(self, wire: Binance, root: str, names: list[str], *, wrapped: bool) -> None:
        super().__init__(wire)
        self._root = root
        self._wrapped = wrapped
        self._named = names

    def opened(self) -> list[bytes]:
        """Streams in the address are subscribed at once, without acknowledgement."""
        return self._subscribe(self._named)

    def render(self, message: Message) -> bytes:
        """Wrapped on ``/stream``, bare on ``/ws``."""
        return message.wrapped if self._wrapped else message.data

    def _receive(self, text: str) -> list[bytes]:
        request = parsed(text)
        if request is None:
            return [encode({"error": {"code": 3, "msg": "Invalid JSON: expected an object"}})]
        number = request.get("id")
        if not isinstance(number, int | str) or isinstance(number, bool):
            return [_refused(2, "Invalid request: missing field `id`", None)]
        method, params = request.get("method"), request.get("params", [])
        if not isinstance(params, list):
            return [_refused(2, "Invalid request: params must be a list", number)]
        match method:
            case "SUBSCRIBE" | "UNSUBSCRIBE":
                if not params or not all(isinstance(name, str) for name in params):
                    return [_refused(2, "Invalid request: invalid type: expected a string", number)]
                ack = encode({"result": None, "id": number})
                if method == "SUBSCRIBE":
                    return [ack, *self._subscribe(params)]
                self._unsubscribe(params)
                return [ack]
            case "LIST_SUBSCRIPTIONS":
                return [encode({"result": list(self.topics), "id": number})]
            case "SET_PROPERTY" if len(params) == 2 and params[0] == "combined":
                self._wrapped = params[1] is True
                return [encode({"result": None, "id": number})]
            case "GET_PROPERTY" if params == ["combined"]:
                return [encode({"result": self._wrapped, "id": number})]
            case _:
                return [_refused(2, f"Invalid request: unknown variant `{method}`", number)]

    def _subscribe(self, names: list[str]) -> list[bytes]:
        """Take every name, as the venue does; only those this root carries will ever speak."""
        out: list[bytes] = []
        for name in names:
            if name in self.topics:
                continue
            if len(self.topics) >= STREAMS_MAX:
                self.closing = "too_many_topics"
                return out
            self.topics[name] = None
            if self._carries(name):
                self.wire.join(self, name)
                if name == "!contractInfo":
                    out += [self._info(asset) for asset in self.wire.assets]
        return out

    def _unsubscribe(self, names: list[str]) -> None:
        for name in names:
            if name in self.topics:
                del self.topics[name]
                if self._carries(name):
                    self.wire.leave(self, name)

    def _carries(self, topic: str) -> bool:
        """Whether this root ever sends the stream."""
        name = topic[1:] if topic.startswith("!") else topic.partition("@")[2]
        channel = name.partition("@")[0].rstrip("0123456789")
        return channel in (PUBLIC if self._root == "public" else MARKET)

    def _info(self, asset: str) -> bytes:
        data = self.wire.contract_info(asset)
        if not self._wrapped:
            return data
        return b'{"stream":"!contractInfo","data":' + data + b"}"


def _refused(code: int, text: str, number: int | str | None) -> bytes:
    return encode({"error": {"code": code, "msg": text}, "id": number})
