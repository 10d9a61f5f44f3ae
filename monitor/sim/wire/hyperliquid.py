"""Simulated Hyperliquid perpetuals, after docs/exchanges.md section 4.

Every ``l2Book`` is the whole visible book of 20 levels, at least 0.5 s apart, without sequence
numbers. There is no liquidation feed: a takeover by the backstop is a trade whose buyer or seller
is the HLP liquidator vault, and so are the trades by which the vault gets rid of it.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from monitor.sim.exchange import Trade, Transfer
from monitor.sim.wire.base import (
    Answer,
    HandshakeError,
    Happened,
    Levels,
    Message,
    Printer,
    Request,
    Session,
    Source,
    Wire,
    decimals_of,
    encode,
    ladder_of,
    parsed,
    pointed,
)
from monitor.sim.wire.candles import PERIOD_MS

GREETING: Final = b"Websocket connection established."
VAULT: Final = "0x2e3d94f0562703b25c83308a05046ddaf9a8dd14"
"""HLP Liquidator (4e)."""
HLP: Final = "0xdfc24b077bc1425ad1dea75bcb6f8158e10df303"

BOOK_LEVELS, DEEP_LEVELS = 20, 10_000
BOOK_MS, CONTEXT_MS, MIDS_MS = 500, 1_000, 1_000
REPLAYED: Final = 30
"""Trades sent again to every new subscriber (4f)."""

SIG_FIGS: Final = (2, 3, 4, 5)
MANTISSAS: Final = (1, 2, 5)
SEEDED_GAP_MS: Final = 1_000


class Hyperliquid(Wire):
    """The venue."""

    venue = "hyperliquid"
    silence_s = 60.0
    silence_of = "sent"
    limit = (2_000, 60.0)

    def __init__(self, market: Source, *, skew_ms: int = 0) -> None:
        super().__init__(market, skew_ms=skew_ms)
        self.printers = {
            a: Printer(market.contract(self.venue, a), style=pointed) for a in self.assets
        }
        self._tid = 0
        self._touch: dict[str, tuple[Any, Any]] = {}
        self.recent = {asset: self._seeded(asset) for asset in self.assets}

    def connect(self, path: str, query: dict[str, str]) -> "HyperliquidSession":  # noqa: ARG002
        """Only ``/ws``."""
        if path.rstrip("/") != "/ws":
            raise HandshakeError(path)
        return HyperliquidSession(self)

    # ---------------------------------------------------------------------------- messages

    def _publish(self, happened: dict[str, Happened]) -> Iterator[Message]:
        for asset, tap in self.taps.items():
            tap.poll()
            rows = self._rows(asset, happened[asset])
            self.recent[asset].extend(rows)
            topic = f"trades:{asset}"
            if rows and topic in self.subscribers:
                yield Message(topic, "trade", encode({"channel": "trades", "data": rows}))
            topic = f"activeAssetCtx:{asset}"
            if topic in self.subscribers and self._due(CONTEXT_MS):
                yield Message(topic, "ticker", self.context_message(asset))
            topic = f"bbo:{asset}"
            if topic in self.subscribers:
                touch = tap.touch()
                if self._touch.get(asset) != touch:
                    self._touch[asset] = touch
                    yield Message(topic, "book", self.best_message(asset))
        if self._due(BOOK_MS):
            for topic in self.subscribers:
                if topic.startswith("l2Book:"):
                    yield Message(topic, "book", self.book_message(topic))
        if "allMids:" in self.subscribers and self._due(MIDS_MS):
            body = {"channel": "allMids", "data": {"mids": self.mids()}}
            yield Message("allMids:", "ticker", encode(body))

    def _missed(self) -> None:
        for tap in self.taps.values():
            tap.poll()

    def first(self, topic: str) -> list[bytes]:
        """What a new subscriber of a topic gets at once."""
        channel, _, rest = topic.partition(":")
        match channel:
            case "l2Book":
                return [self.book_message(topic)]
            case "trades":
                rows = list(self.recent[rest])
                return [encode({"channel": "trades", "data": rows})]
            case "activeAssetCtx":
                return [self.context_message(rest)]
            case "bbo":
                return [self.best_message(rest)]
            case _:
                return []

    def book_message(self, topic: str) -> bytes:
        """``l2Book`` of a topic ``l2Book:<coin>:<nSigFigs>:<mantissa>``."""
        _, asset, figures, mantissa = topic.split(":")
        body = self.book(asset, int(figures or 0), int(mantissa or 1))
        return encode({"channel": "l2Book", "data": body})

    def book(self, asset: str, figures: int = 0, mantissa: int = 1) -> dict[str, Any]:
        """The best 20 levels, aggregated to so many significant figures if asked to."""
        p = self.printers[asset]
        sides = []
        bids, asks = self.taps[asset].best(DEEP_LEVELS if figures else BOOK_LEVELS)
        for levels, is_bid in ((bids, True), (asks, False)):
            shown = levels
            if figures:
                shown = _aggregated(levels, p, figures, mantissa, is_bid=is_bid)
            sides.append(
                [{"px": p.price(t), "sz": p.size(n), "n": n // 5_000 + 1} for t, n in shown]
            )
        return {"coin": asset, "time": self._ms(), "levels": sides}

    def best_message(self, asset: str) -> bytes:
        """``bbo``."""
        sides = self.book(asset)["levels"]
        data = {"coin": asset, "time": self._ms(), "bbo": [side[0] for side in sides]}
        return encode({"channel": "bbo", "data": data})

    def context_message(self, asset: str) -> bytes:
        """``activeAssetCtx``, which has no time of its own (4c)."""
        data = {"coin": asset, "ctx": self.context(asset)}
        return encode({"channel": "activeAssetCtx", "data": data})

    def context(self, asset: str) -> dict[str, Any]:
        """Mark, oracle, hourly funding and one-sided open interest."""
        t, p, d = self._ticker(asset), self.printers[asset], self.days[asset]
        (bid, _), (ask, _) = self.taps[asset].touch()
        middle = (bid + ask) / 2
        price_decimals = max(0, 6 - p.size_decimals)
        mid = pointed(f"{middle * p.tick:.{max(price_decimals, 1)}f}")
        return {
            "funding": pointed(f"{t.funding_rate_e8 / 1e8:.8f}"),
            "openInterest": p.size(t.open_interest),
            "prevDayPx": p.price(d.open),
            "dayNtlVlm": pointed(f"{p.usd(1, d.tick_lots):.6f}"),
            "premium": pointed(f"{middle / t.index - 1:.8f}"),
            "oraclePx": p.price(t.index),
            "markPx": p.price(t.mark),
            "midPx": mid,
            "impactPxs": [p.price(bid), p.price(ask)],
            "dayBaseVlm": p.size(d.lots),
        }

    def mids(self) -> dict[str, str]:
        """``allMids``."""
        return {asset: str(self.context(asset)["midPx"]) for asset in self.assets}

    # ------------------------------------------------------------------------------ trades

    def _rows(self, asset: str, happened: Happened) -> list[dict[str, Any]]:
        """The backstop's takeovers, then a step's trades, with buyer and seller.

        Forced trades come in the order of the liquidations that sent them; what is left over
        after those is the vault unwinding (`LiquidationEngine.unwind_funds`), which follows its
        takeovers.
        """
        rows = [
            self._takeover(asset, transfer)
            for transfer in happened.transfers
            if transfer.kind == "takeover"
        ]
        queue = [(_address(r.account), r.filled) for r in happened.liquidations if r.filled]
        for trade in happened.trades:
            taker = _address(1_000_000 + self._tid % 4_096)
            if trade.forced:
                taker = queue[0][0] if queue else VAULT
                if queue:
                    left = queue[0][1] - trade.lots
                    queue[0] = (taker, left)
                    if left <= 0:
                        queue.pop(0)
            rows.append(self._row(asset, trade, taker))
        return rows

    def _row(self, asset: str, trade: Trade, taker: str) -> dict[str, Any]:
        maker = _address(2_000_000 + trade.tick % 64)
        users = [taker, maker] if trade.taker == "buy" else [maker, taker]
        side = "B" if trade.taker == "buy" else "A"
        return self._trade(asset, side, trade.tick, trade.lots) | {"users": users}

    def _takeover(self, asset: str, transfer: Transfer) -> dict[str, Any]:
        """The vault buys a long, or sells a short, from the account at the bankruptcy price."""
        account, long = _address(transfer.account), transfer.side == "long"
        users = [VAULT, account] if long else [account, VAULT]
        row = self._trade(asset, "A" if long else "B", transfer.tick, transfer.lots)
        return row | {"users": users}

    def _trade(self, asset: str, side: str, tick: int, lots: int) -> dict[str, Any]:
        p = self.printers[asset]
        self._tid += 1
        return {
            "coin": asset,
            "side": side,
            "px": p.price(tick),
            "sz": p.size(lots),
            "time": self._ms(),
            "hash": f"0x{self._tid:064x}",
            "tid": 1_016_375_172_000_000 + self._tid,
        }

    def _seeded(self, asset: str) -> deque[dict[str, Any]]:
        """Trades of before the market began: a real venue always has some to replay."""
        rows: deque[dict[str, Any]] = deque(maxlen=REPLAYED)
        last = self.days[asset].last
        for n in range(REPLAYED, 0, -1):
            users = [_address(1_000_000 + n), _address(2_000_000 + n)]
            row = self._trade(asset, "B" if n % 2 else "A", last, 1 + n)
            rows.append(row | {"time": self._ms() - n * SEEDED_GAP_MS, "users": users})
        return rows

    # -------------------------------------------------------------------------------- HTTP

    def http(self, request: Request) -> Answer:
        """``POST /info``."""
        if request.path.rstrip("/") != "/info":
            return Answer(404, b"Not Found")
        if request.method != "POST":
            return Answer(405, b"Method Not Allowed")
        query = parsed(request.body.decode("utf-8", "replace"))
        answer = self._info(query) if query is not None else None
        if answer is None:
            return Answer(422, b"Failed to deserialize the JSON body into the target type")
        return Answer(200, encode(answer))

    def _info(self, query: dict[str, Any]) -> Any:  # noqa: ANN401
        coin = query.get("coin")
        match query.get("type"):
            case "meta" if not query.get("dex"):
                return self.meta()
            case "metaAndAssetCtxs" if not query.get("dex"):
                return [self.meta(), [self.context(asset) for asset in self.assets]]
            case "allMids":
                return self.mids()
            case "perpDexs":
                return [None]
            case "spotMeta":
                return {"universe": [], "tokens": []}
            case "spotMetaAndAssetCtxs":
                return [{"universe": [], "tokens": []}, []]
            case "l2Book" if coin in self.assets:
                figures, mantissa = query.get("nSigFigs"), query.get("mantissa")
                if not _is_aggregation(figures, mantissa):
                    return None
                return self.book(str(coin), figures or 0, mantissa or 1)
            case "vaultDetails" if query.get("vaultAddress") == HLP:
                return self._vault()
            case "candleSnapshot":
                return self._candles(query.get("req"))
            case "recentTrades" if coin in self.assets:
                return list(self.recent[str(coin)])[::-1]
            case _:
                return None

    def _vault(self) -> dict[str, Any]:
        """The liquidity vault, which is the insurance fund (4e)."""
        worth = [[self._ms(), f"{self.fund_usd():.6f}"]]
        history = {"accountValueHistory": worth, "pnlHistory": [], "vlm": "0.0"}
        return {
            "name": "Hyperliquidity Provider (HLP)",
            "vaultAddress": HLP,
            "portfolio": [[window, history] for window in ("day", "week", "month", "allTime")],
            "followers": [],
            "isClosed": False,
        }

    def _candles(self, wanted: Any) -> list[dict[str, Any]] | None:  # noqa: ANN401
        """``candleSnapshot``, oldest first; None for a request that is none."""
        if not isinstance(wanted, dict) or wanted.get("coin") not in self.assets:
            return None
        first, last = wanted.get("startTime"), wanted.get("endTime")
        if wanted.get("interval") != "5m" or not isinstance(first, int):
            return None
        asset = str(wanted["coin"])
        rows = self.klines(asset, first=str(first), last=str(last or ""))
        p = self.printers[asset]
        return [
            {
                "t": start,
                "T": start + PERIOD_MS - 1,
                "s": asset,
                "i": "5m",
                "o": p.price(c.open),
                "c": p.price(c.close),
                "h": p.price(c.high),
                "l": p.price(c.low),
                "v": p.size(c.lots),
                "n": c.trades,
            }
            for start, c in rows
        ]

    def meta(self) -> dict[str, Any]:
        """Universe and margin tables; a delisted coin keeps its place (4g)."""
        universe: list[dict[str, Any]] = []
        tables: list[Any] = []
        for n, asset in enumerate(self.assets):
            ladder = ladder_of(self.rules, asset)
            size_decimals = decimals_of(self.printers[asset].contract.lot_base)
            leverage = {"maxLeverage": ladder[0].max_leverage, "marginTableId": 51 + n}
            universe.append({"szDecimals": size_decimals, "name": asset, **leverage})
            tiers = [
                {"lowerBound": pointed(f"{x.floor:.1f}"), "maxLeverage": x.max_leverage}
                for x in ladder
            ]
            about = f"tiered {ladder[0].max_leverage}x"
            tables.append([51 + n, {"description": about, "marginTiers": tiers}])
        delisted = {"szDecimals": 1, "name": "MATIC", "maxLeverage": 20, "marginTableId": 20}
        universe.append(delisted | {"isDelisted": True})
        return {"universe": universe, "marginTables": tables, "collateralToken": 0}


class HyperliquidSession(Session):
    """A connection; subscriptions are objects and come back as such."""

    wire: Hyperliquid

    def opened(self) -> list[bytes]:
        """A line of plain text, which is no JSON (4a)."""
        return [GREETING]

    def _receive(self, text: str) -> list[bytes]:
        request = parsed(text)
        if request is None:
            return [_error(f"Error parsing JSON into valid websocket request: {text[:200]}")]
        method = request.get("method")
        if method == "ping":
            return [encode({"channel": "pong"})]
        wanted = request.get("subscription")
        found = self._topic(wanted) if isinstance(wanted, dict) else None
        if method not in {"subscribe", "unsubscribe"} or found is None:
            return [_error(f"Invalid subscription {msgspec.json.encode(wanted).decode()}")]
        topic, told = found
        shown = msgspec.json.encode(told).decode()
        body = {"method": method, "subscription": told}
        ack = encode({"channel": "subscriptionResponse", "data": body})
        if method == "unsubscribe":
            return [ack if self._leave(topic) else _error(f"Already unsubscribed: {shown}")]
        if not self._join(topic):
            return [_error(f"Already subscribed: {shown}")]
        return [ack, *self.wire.first(topic)]

    def _topic(self, wanted: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """The topic of a subscription and how the venue writes it back."""
        kind, coin = wanted.get("type"), wanted.get("coin")
        if kind == "allMids":
            return "allMids:", {"type": "allMids"}
        if coin not in self.wire.assets:
            return None
        if kind == "l2Book":
            figures, mantissa = wanted.get("nSigFigs"), wanted.get("mantissa")
            if not _is_aggregation(figures, mantissa):
                return None
            told = {"type": kind, "coin": coin, "nSigFigs": figures, "mantissa": mantissa}
            return f"l2Book:{coin}:{figures or ''}:{mantissa or ''}", told
        if kind in {"trades", "activeAssetCtx", "bbo"}:
            return f"{kind}:{coin}", {"type": kind, "coin": coin}
        return None


def _error(text: str) -> bytes:
    return encode({"channel": "error", "data": text})


def _address(number: int) -> str:
    return f"0x{number:040x}"


def _is_aggregation(figures: Any, mantissa: Any) -> bool:  # noqa: ANN401
    """Whether nSigFigs and mantissa go together (4b)."""
    if figures is None:
        return mantissa is None
    return figures in SIG_FIGS and (mantissa is None or (figures == 5 and mantissa in MANTISSAS))


def _aggregated(levels: Levels, p: Printer, figures: int, mantissa: int, *, is_bid: bool) -> Levels:
    """Levels in buckets of so many significant figures: bids rounded down, asks up."""
    if not levels:
        return []
    digits = len(str(int(levels[0][0] * p.tick)))
    width = max(1, round(mantissa * 10.0 ** (digits - figures) / p.tick))
    buckets: dict[int, int] = {}
    for tick, lots in levels:
        bucket = tick // width * width if is_bid else -(-tick // width) * width
        if bucket not in buckets and len(buckets) == BOOK_LEVELS:
            break
        buckets[bucket] = buckets.get(bucket, 0) + lots
    return list(buckets.items())
