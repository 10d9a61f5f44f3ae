"""Hyperliquid perpetuals (https://hyperliquid.gitbook.io/hyperliquid-docs/for-developers/api).

One kind of socket with three subscriptions a coin: ``l2Book`` (every message is the whole visible
book of 20 levels a side, without sequence numbers), ``trades`` and ``activeAssetCtx`` (mark,
oracle, funding and open interest, without a time of its own, so stamped on receipt).

There is no market-wide liquidation channel (exchanges.md 4e). What can be seen is the tail: trades
that have one of the HLP liquidator vaults on one side. The vault steps into the position of the
liquidated account, so a vault that *buys* takes over a long and one that *sells* a short. It gets
rid of the position later in trades of the opposite direction; those are recognised by what the
vault is known to hold, and are no liquidations.
"""

import re
from collections import deque
from collections.abc import Iterable
from math import inf
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from monitor.config import ConfigError, VenueConfig
from monitor.events import (
    NS,
    BookSnapshot,
    Fetch,
    Frame,
    Funding,
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
    per_8h,
    spread,
)
from monitor.venues.candles import CANDLE_S

HOUR_NS: Final = 3600 * NS

BOOK_DEPTH: Final = 20
"""Levels a side in every ``l2Book`` message."""

SOCKETS_MAX, SUBSCRIPTIONS_MAX = 10, 1000
"""What one address may have open (exchanges.md 4a)."""

CHANNELS: Final = (
    ("l2Book", "book", STREAM_PATIENCE_S),
    ("trades", "trades", None),
    ("activeAssetCtx", "mark", STREAM_PATIENCE_S),
)
"""Our subscriptions of each coin, what they carry, and how long they may be quiet."""

SEND_INTERVAL_S: Final = 0.04
"""Per socket: the venue allows 2000 messages a minute over all sockets of an address."""

PING: Final = '{"method":"ping"}'
PING_AFTER_S: Final = 30.0
"""The venue closes a socket that sent nothing for about a minute."""

META_WEIGHT: Final = 20

CANDLES_ASKED: Final = 1_440
CANDLES_WEIGHT: Final = 20 + CANDLES_ASKED // 60
"""Candles of five days, 120 hours, and their request weight: one more for every 60 of them.

The venue keeps 5000, which would cost a twelfth of a minute's budget for each coin.
"""

FUNDING_HOURS: Final = 1.0
"""Paid at every full hour; the published rate is per hour."""

TRADES_REMEMBERED: Final = 20_000
"""Trades known by their key, to drop what is sent twice: 30 are replayed per subscription."""

VAULT_MEMORY_NS: Final = HOUR_NS
"""A vault that did not trade a coin for so long is taken to hold nothing of it."""

HLP: Final = "0xdfc24b077bc1425ad1dea75bcb6f8158e10df303"
"""The vault that the liquidators are parts of: it takes over, and gains or loses by it."""

VAULT_WEIGHT: Final = 20

LIQUIDATORS: Final = frozenset(
    {  # "HLP Liquidator" 1 to 4: exchanges.md 4e, and eth_defi.hyperliquid.constants
        "0x2e3d94f0562703b25c83308a05046ddaf9a8dd14",
        "0xb0a55f13d22f66e6d495ac98113841b2326e9540",
        "0x5e177e5e39c0f4e421f5865a6d8beed8d921cb70",
        "0x2ed5c4484ea3ff8b57d5f2fb152a40d9f2b68308",
    }
)

IMPLICIT_TABLES: Final = 50
"""A margin table with a smaller id is one tier with that leverage, and need not be listed."""

DECIMALS_MAX: Final = 6
"""Decimals of a price and of the size together."""

GREETING: Final = b"Websocket connection established."
"""Plain text that may come first on a socket."""

UNUSED: Final = frozenset(
    {"activeSpotAssetCtx", "allDexsAssetCtxs", "allMids", "bbo", "candle", "user"}
)
"""Channels that we know and do not need."""

_THOUSANDS = re.compile(r"^(?:[a-z0-9]+:)?k[A-Z]")


class BookLevel(Struct, gc=False):
    px: float
    sz: float


class BookData(Struct, gc=False):
    coin: str
    time: TimeMs
    levels: tuple[list[BookLevel], list[BookLevel]]
    fast: bool | None = None


class BookMessage(Struct, tag_field="channel", tag="l2Book", gc=False):
    data: BookData


class TradeRow(Struct, gc=False):
    """`users` is (buyer, seller); recordings before 2025 do not have it."""

    coin: str
    side: Literal["A", "B"]
    px: float
    sz: float
    time: TimeMs
    tid: int
    users: list[str] = []


class TradesMessage(Struct, tag_field="channel", tag="trades", gc=False):
    data: list[TradeRow]


class Context(Struct, gc=False):
    """Any of them is null for a coin that does not trade."""

    funding: float | None = None
    openInterest: float | None = None
    oraclePx: float | None = None
    markPx: float | None = None


class ContextData(Struct, gc=False):
    coin: str
    ctx: Context


class ContextMessage(Struct, tag_field="channel", tag="activeAssetCtx", gc=False):
    data: ContextData


class ErrorMessage(Struct, tag_field="channel", tag="error", gc=False):
    data: str


class Acknowledgement(Struct, tag_field="channel", tag="subscriptionResponse", gc=False):
    """A subscription of ours was taken."""


class Pong(Struct, tag_field="channel", tag="pong", gc=False):
    """The answer to our ping."""


Event: TypeAlias = (
    BookMessage | TradesMessage | ContextMessage | ErrorMessage | Acknowledgement | Pong
)


class Kind(Struct):
    channel: str


class Asset(Struct):
    """One perpetual; its place in the list is its id, so delisted ones stay in it."""

    name: str
    szDecimals: int
    marginTableId: int | None = None
    isDelisted: bool | None = None


class MarginTier(Struct):
    lowerBound: float
    maxLeverage: float


class MarginTable(Struct):
    marginTiers: list[MarginTier]


class Meta(Struct):
    universe: list[Asset]
    marginTables: list[tuple[int, MarginTable]] = []


class CandleRow(Struct, gc=False):
    """A candle, from the time `t` it began; `i` is its length."""

    t: TimeMs
    s: str
    i: str
    h: float
    l: float  # noqa: E741  (the venue's name of the low)
    c: float


class AccountHistory(Struct):
    """What an account was worth, in USDC, oldest first."""

    accountValueHistory: list[tuple[TimeMs, float]]


class Vault(Struct):
    vaultAddress: str
    portfolio: list[tuple[str, AccountHistory]]


class Coin(Struct):
    """What is known of one coin; `replayed` once the first trades after subscribing have come."""

    book: Stream
    trades: Stream
    context: Stream
    book_time: int = 0
    replayed: bool = False


_event = msgspec.json.Decoder(Event, strict=False)
_kind = msgspec.json.Decoder(Kind)
_candles = msgspec.json.Decoder(list[CandleRow], strict=False)
_meta = msgspec.json.Decoder(Meta, strict=False)
_vault = msgspec.json.Decoder(Vault, strict=False)

_KNOWN = {"l2Book", "trades", "activeAssetCtx", "error", "subscriptionResponse", "pong"}


class Hyperliquid(Codec):
    """Codec of Hyperliquid."""

    venue = "hyperliquid"
    recorded = Recorded(
        socket=r"^wss://api\.hyperliquid\.xyz",
        message=rb'\{"channel":"(?:l2Book|trades|activeAssetCtx)",.*?"coin":"([^"@/]+)"',
        replies=(),  # everything is a POST to the same address
    )

    def __init__(self, config: VenueConfig, known: Iterable[Instrument]) -> None:
        super().__init__(config, known)
        feeds = spread(self.assets, per_feed=config.symbols_per_socket, prefix="hyperliquid.ws")
        names = list(dict.fromkeys(feeds.values()))
        self._check_limits(len(names))
        self.feeds = [
            FeedSpec(
                name,
                f"{config.ws_url}/ws",
                ping=PING,
                ping_after_s=PING_AFTER_S,
                send_interval_s=SEND_INTERVAL_S * len(names),
            )
            for name in names
        ]
        self.http = HttpSpec(config.http_url, weight=1200, window_s=60)
        self._coins: dict[str, Coin] = {}
        self._keys: set[tuple[int, str, int]] = set()
        self._key_order: deque[tuple[int, str, int]] = deque()
        self._vault_holds: dict[tuple[str, str], tuple[float, int]] = {}
        for symbol, feed in feeds.items():
            book, trades, mark = (
                self._add(f"{kind}:{symbol}", symbol, channel, feed, patience_s=patience_s)
                for kind, channel, patience_s in CHANNELS
            )
            self._coins[symbol] = Coin(book, trades, mark)
        for dex in dict.fromkeys(symbol.rpartition(":")[0] for symbol in self.assets):
            self.requests.every(_meta_request(dex), config.instruments_interval_s)

    # ---------------------------------------------------------------------------- messages

    def _decode(self, frame: Frame) -> Out:
        try:
            event = _event.decode(frame.data)
        except msgspec.ValidationError:
            return self._other(frame)
        except msgspec.DecodeError:
            if frame.data.strip() == GREETING:
                return []
            raise
        match event:
            case BookMessage():
                return self._book(event.data, frame)
            case TradesMessage():
                return self._trades(event.data, frame)
            case ContextMessage():
                return self._context(event.data, frame)
            case ErrorMessage():
                if event.data.startswith("Already subscribed"):
                    return []
                return self._refuse(frame, "refused")
            case _:
                return []

    def _other(self, frame: Frame) -> Out:
        """A message of a channel we do not use or do not know, or a broken one."""
        channel = _kind.decode(frame.data).channel
        if channel in UNUSED:
            return []
        reason = "schema" if channel in _KNOWN else "unknown_kind"
        return self._refuse(frame, reason)

    def _book(self, data: BookData, frame: Frame) -> Out:
        coin = self._coins.get(data.coin)
        if coin is None or data.coin not in self.instruments:
            return self._refuse(frame, "unknown_symbol")
        if data.fast:  # a shallower variant under the same name
            return []
        if data.time < coin.book_time:
            return self._refuse(frame, "stale")
        sides: list[list[Level]] = []
        for levels in data.levels:
            if not all(is_positive(level.px, level.sz) for level in levels):
                return self._refuse(frame, "bad_number")
            sides.append([(level.px, level.sz) for level in levels])
        coin.book_time = data.time
        return [
            *self._hear(coin.book, frame.at),
            BookSnapshot(
                coin.book.instrument,
                data.time * MS,
                sides[0],
                sides[1],
                BOOK_DEPTH,
                maintained=True,
            ),
        ]

    def _trades(self, rows: list[TradeRow], frame: Frame) -> Out:
        """Trades; the first message after subscribing replays old ones and is only remembered."""
        out: Out = []
        reasons: list[str] = []
        first = [
            name
            for name in dict.fromkeys(row.coin for row in rows)
            if name in self.instruments and not self._coins[name].replayed
        ]
        for row in rows:
            coin = self._coins.get(row.coin)
            if coin is None or row.coin not in self.instruments:
                reasons.append("unknown_symbol")
            elif not is_positive(row.px, row.sz, row.px * row.sz):
                reasons.append("bad_number")
            elif self._is_new(row) and coin.replayed:
                out += self._hear(coin.trades, frame.at)
                taker: Taker = "buy" if row.side == "B" else "sell"
                name = coin.trades.instrument
                out.append(Trade(name, row.time * MS, row.px, row.sz, taker))
                out += self._liquidation(row, name)
        for name in first:
            self._coins[name].replayed = True
            out += self._hear(self._coins[name].trades, frame.at)
        return out + self._refuse(frame, *reasons)

    def _liquidation(self, row: TradeRow, instrument: str) -> list[Liquidation]:
        """The takeover that a trade with a liquidator vault is, if it is one.

        Only what adds to the vault's position was taken over. What reduces it is the vault
        closing, as a trade or by auto-deleveraging.
        """
        vaults = [user.lower() for user in row.users]
        involved = [vault in LIQUIDATORS for vault in vaults]
        if len(involved) != 2 or involved[0] == involved[1]:
            return []
        sign = 1.0 if involved[0] else -1.0
        key = (vaults[0 if involved[0] else 1], row.coin)
        held, at = self._vault_holds.get(key, (0.0, 0))
        if row.time * MS - at > VAULT_MEMORY_NS:
            held = 0.0
        after = held + sign * row.sz
        self._vault_holds[key] = (after, row.time * MS)
        taken = min(row.sz, sign * after)
        if taken <= 1e-9 * row.sz:
            return []
        side: Side = "long" if involved[0] else "short"
        return [
            Liquidation(
                instrument=instrument,
                sent_at=row.time * MS,
                side=side,
                quantity=taken,
                usd=taken * row.px,
                price=row.px,
                price_kind="fill",
                fill_price=row.px,
                completeness="tail_only",
                raw_side="vault bought" if involved[0] else "vault sold",
            )
        ]

    def _context(self, data: ContextData, frame: Frame) -> Out:
        coin, ctx = self._coins.get(data.coin), data.ctx
        if coin is None or data.coin not in self.instruments:
            return self._refuse(frame, "unknown_symbol")
        prices = [price for price in (ctx.markPx, ctx.oraclePx) if price is not None]
        usd: float | None = None
        if ctx.openInterest is not None and ctx.markPx is not None:
            usd = ctx.openInterest * ctx.markPx
        if (
            not is_positive(*prices)
            or not (ctx.funding is None or abs(ctx.funding) < 1)
            or not (ctx.openInterest is None or 0 <= ctx.openInterest < INTEREST_MAX)
            or not (usd is None or usd < inf)
        ):
            return self._refuse(frame, "bad_number")
        name, at = coin.context.instrument, frame.at
        out = self._hear(coin.context, at)
        if prices:
            out.append(MarkPrice(name, 0, ctx.markPx, ctx.oraclePx))  # it has no time of its own
        if ctx.funding is not None:
            next_at = (at // HOUR_NS + 1) * HOUR_NS
            rate = per_8h(ctx.funding, FUNDING_HOURS)
            out.append(Funding(name, at, rate, FUNDING_HOURS, next_at))
        if ctx.openInterest is not None:
            out.append(OpenInterest(name, at, ctx.openInterest, usd))
        return out

    # ------------------------------------------------------------------------------ replies

    def _answer(self, reply: Reply) -> Out:
        kind, _, rest = reply.key.partition(":")
        match kind:
            case "meta":
                return self._universe(reply)
            case "candles":
                return self._candles(rest, reply)
            case "funds":
                return self._funds(reply)
            case _:
                return self._refuse(reply, "unknown_kind")

    def _candles(self, symbol: str, reply: Reply) -> Out:
        candles = _candles.decode(reply.data)
        if any(candle.s != symbol for candle in candles):
            return self._refuse(reply, "unknown_symbol")
        if any(candle.i != "5m" for candle in candles):
            return self._refuse(reply, "schema")
        return self._past(symbol, [(c.t, c.h, c.l, c.c) for c in candles], reply)

    def _funds(self, reply: Reply) -> Out:
        """The vault's last value of the day; it covers the venue's own contracts."""
        vault = _vault.decode(reply.data)
        if vault.vaultAddress.lower() != HLP:
            return self._refuse(reply, "unknown_symbol")
        values = dict(vault.portfolio).get("day")
        if values is None or not values.accountValueHistory:
            return self._refuse(reply, "schema")
        at_ms, usd = values.accountValueHistory[-1]
        own = [symbol for symbol in self.assets if ":" not in symbol]
        return [*self._pool(at_ms, [("USDC", usd)], own)]

    def _universe(self, reply: Reply) -> Out:
        meta = _meta.decode(reply.data)
        tables = dict(meta.marginTables)
        listed = []
        for asset in meta.universe:
            if asset.name not in self.assets or asset.isDelisted:
                continue
            tiers = _tiers(asset, tables)
            if tiers is None or not 0 <= asset.szDecimals <= 12:
                return self._refuse(reply, "bad_number")
            listed.append(
                Instrument(
                    name=self._name(asset.name),
                    venue=self.venue,
                    symbol=asset.name,
                    asset=self.assets[asset.name],
                    kind="linear",
                    contract=1.0,
                    # The finest grid. Prices also have at most 5 significant digits, so that the
                    # step at the present price is often coarser; integers are always allowed.
                    tick=_step(max(0, DECIMALS_MAX - asset.szDecimals)),
                    lot=_step(asset.szDecimals),
                    multiplier=1000.0 if _THOUSANDS.match(asset.name) else 1.0,
                    funding_interval_hours=FUNDING_HOURS,
                    tiers=tiers,
                    liquidation_fee=0.0,  # exchanges.md 4h
                )
            )
        return self._list(listed, reply.at)

    # ------------------------------------------------------------------------------ private

    def _fund_requests(self) -> list[Fetch]:
        body = msgspec.json.encode({"type": "vaultDetails", "vaultAddress": HLP})
        return [Fetch(self.venue, "funds", "/info", body=body, weight=VAULT_WEIGHT)]

    def _check_limits(self, sockets: int) -> None:
        subscriptions = len(CHANNELS) * len(self.assets)
        if subscriptions > SUBSCRIPTIONS_MAX:
            raise ConfigError(
                f"venues.hyperliquid.instruments: {len(self.assets)} symbols need {subscriptions} "
                f"subscriptions, the venue allows {SUBSCRIPTIONS_MAX} an address"
            )
        if sockets > SOCKETS_MAX:
            raise ConfigError(
                f"venues.hyperliquid.symbols_per_socket: {len(self.assets)} symbols would take "
                f"{sockets} sockets, the venue allows {SOCKETS_MAX} an address"
            )

    def _is_new(self, row: TradeRow) -> bool:
        """Whether a trade was not sent before; `tid` alone can repeat."""
        key = (row.time, row.coin, row.tid)
        if key in self._keys:
            return False
        if len(self._key_order) == TRADES_REMEMBERED:
            self._keys.remove(self._key_order.popleft())
        self._keys.add(key)
        self._key_order.append(key)
        return True

    def _forget_book(self, symbol: str) -> None:
        self._coins[symbol].book_time = 0

    def _resync(self, symbol: str, at: int) -> Out:  # noqa: ARG002
        """Nothing to ask for: the next message is the whole book."""
        return []

    def _candles_request(self, symbol: str, at: int) -> Fetch:
        end = at // MS
        start = end - CANDLES_ASKED * CANDLE_S * 1_000
        asked = {"coin": symbol, "interval": "5m", "startTime": start, "endTime": end}
        body = msgspec.json.encode({"type": "candleSnapshot", "req": asked})
        key = f"candles:{symbol}"
        return Fetch(self.venue, key, "/info", body=body, weight=CANDLES_WEIGHT)

    def _message(self, operation: Operation, streams: list[Stream], number: int) -> str:  # noqa: ARG002
        [stream] = streams
        coin = self._coins[stream.symbol]
        if operation == "subscribe":
            if stream is coin.trades:
                coin.replayed = False
            elif stream is coin.book:
                coin.book_time = 0
        kind = stream.topic.partition(":")[0]
        message = {"method": operation, "subscription": {"type": kind, "coin": stream.symbol}}
        return msgspec.json.encode(message).decode()


def _meta_request(dex: str) -> Fetch:
    """The list of perpetuals of the venue itself, or of a builder's exchange on it."""
    query = {"type": "meta", "dex": dex} if dex else {"type": "meta"}
    body = msgspec.json.encode(query)
    key = f"meta:{dex}" if dex else "meta"
    return Fetch("hyperliquid", key, "/info", body=body, weight=META_WEIGHT)


def _step(decimals: int) -> float:
    return float(f"1e-{decimals}")


def _tiers(asset: Asset, tables: dict[int, MarginTable]) -> tuple[Tier, ...] | None:
    """Margin tiers (exchanges.md 4g); empty where the venue does not say, None if they are wrong.

    The maintenance rate is half the initial one at the tier's highest leverage; deductions make
    the requirement continuous.
    """
    identity = asset.marginTableId
    if identity is None:
        return ()
    if identity in tables:
        rows = [(row.lowerBound, row.maxLeverage) for row in tables[identity].marginTiers]
    elif 0 < identity < IMPLICIT_TABLES:
        rows = [(0.0, float(identity))]
    else:
        return ()
    tiers: list[Tier] = []
    for n, (floor, leverage) in enumerate(rows):
        rate = 1.0 / (2.0 * leverage)
        deduction = tiers[-1].deduction + floor * (rate - tiers[-1].rate) if tiers else 0.0
        cap = rows[n + 1][0] if n + 1 < len(rows) else None
        tiers.append(Tier(floor, cap, rate, deduction, leverage))
    return tuple(tiers) if is_ladder(tiers) else None
