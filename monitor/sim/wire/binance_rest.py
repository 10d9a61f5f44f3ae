"""The REST side of the simulated Binance USD-M (docs/exchanges.md 1b-1d, 1g).

Request weights are counted per minute of real time, as the venue does; past 2400 it answers 429.
The history of open interest has a budget of its own.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from monitor.sim.wire.base import NS, Answer, Request, encode
from monitor.sim.wire.candles import PERIOD_MS

if TYPE_CHECKING:
    from monitor.sim.wire.binance import Binance

WEIGHT_MAX: Final = 2_400
MINUTE_NS: Final = 60 * NS

DEPTH_WEIGHTS: Final = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1_000: 20}
"""Limits that ``/fapi/v1/depth`` takes, and what they weigh (1b)."""

KLINES_MAX: Final = 1_500
KLINE_WEIGHTS: Final = ((100, 1), (500, 2), (1_001, 5), (KLINES_MAX + 1, 10))
"""What ``/fapi/v1/klines`` weighs with a limit below so many."""

INTERESTS_PATH: Final = "/futures/data/openInterestHist"
INTERESTS_MAX: Final = 500
INTERESTS_ASKED_MAX: Final = 1_000
"""Requests for it in five minutes; they weigh nothing of the other budget."""

Row = dict[str, Any]


class RefusedError(Exception):
    """A request the venue refuses, with its error body."""

    def __init__(self, code: int, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.code, self.text, self.status = code, text, status


class Rest:
    """Answers requests about one simulated Binance."""

    def __init__(self, wire: "Binance") -> None:
        self._wire = wire
        self._minute = 0
        self._used = 0
        self._asked: deque[int] = deque()
        self._paths: dict[str, Callable[[dict[str, str]], Any]] = {
            "ping": lambda _: {},
            "time": lambda _: {"serverTime": wire.time_ms()},
            "exchangeInfo": lambda _: self._exchange_info(),
            "fundingInfo": lambda _: self._funding_info(),
            "depth": self._depth,
            "openInterest": self._open_interest,
            "premiumIndex": lambda q: self._each(q, self._premium),
            "ticker/24hr": lambda q: self._each(q, self._day),
            "ticker/price": lambda q: self._each(q, self._price),
            "ticker/bookTicker": lambda q: self._each(q, self._best),
            "klines": self._klines,
            "aggTrades": self._trades,
            "trades": self._trades,
            "insuranceBalance": self._insurance,
            "leverageBracket": self._signed,
        }

    def answer(self, request: Request) -> Answer:
        """The venue's answer, its used weight in a header."""
        if request.path == INTERESTS_PATH:
            return self._interests(request)
        name = request.path.removeprefix("/fapi/v1/")
        used = self._use(self._weight(name, request.query), request.now)
        headers = {"x-mbx-used-weight-1m": str(used)}
        if used > WEIGHT_MAX:
            wait_s = -(-(MINUTE_NS - request.now % MINUTE_NS) // NS)
            body = {"code": -1003, "msg": "Too many requests; current limit is 2400."}
            return Answer(429, encode(body), headers | {"Retry-After": str(wait_s)})
        find = self._paths.get(name, self._unknown)
        if not request.path.startswith("/fapi/v1/"):
            find = self._unknown
        return self._found(find, request.query, headers)

    def _interests(self, request: Request) -> Answer:
        """The history of open interest, within its own budget."""
        asked = self._asked
        while asked and asked[0] <= request.now - 5 * MINUTE_NS:
            asked.popleft()
        asked.append(request.now)
        if len(asked) > INTERESTS_ASKED_MAX:
            return Answer(429, encode({"code": -1003, "msg": "Too many requests."}))
        return self._found(self._held, request.query, {})

    def _found(
        self, find: Callable[[dict[str, str]], Any], query: dict[str, str], headers: dict[str, str]
    ) -> Answer:
        try:
            return Answer(200, encode(find(query)), headers)
        except RefusedError as refused:
            body = {"code": refused.code, "msg": refused.text}
            return Answer(refused.status, encode(body), headers)

    def _use(self, weight: int, now: int) -> int:
        if now // MINUTE_NS != self._minute:
            self._minute, self._used = now // MINUTE_NS, 0
        self._used += weight
        return self._used

    def _weight(self, name: str, query: dict[str, str]) -> int:
        if name == "depth":
            limit = query.get("limit", "500")
            return DEPTH_WEIGHTS.get(int(limit), 1) if limit.isdecimal() else 1
        if name == "klines":
            asked = _klines_limit(query)
            return next(weight for below, weight in KLINE_WEIGHTS if asked < below)
        whole = "symbol" not in query
        return {"premiumIndex": 10, "ticker/24hr": 40}.get(name, 1) if whole else 1

    def _asset(self, query: dict[str, str]) -> str:
        symbol = query.get("symbol")
        if not symbol:
            raise RefusedError(
                -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."
            )
        if symbol not in self._wire.symbols:
            raise RefusedError(-1121, "Invalid symbol.")
        return self._wire.symbols[symbol]

    def _each(self, query: dict[str, str], row: Callable[[str, str], Row]) -> Row | list[Row]:
        """One symbol's row, or everyone's."""
        if query.get("symbol"):
            return row(self._asset(query), query["symbol"])
        return [row(asset, symbol) for symbol, asset in self._wire.symbols.items()]

    def _unknown(self, _: dict[str, str]) -> Row:
        raise RefusedError(-5000, "Path is invalid", 404)

    def _signed(self, _: dict[str, str]) -> Row:
        """Needs a key (1g): nobody here has one."""
        raise RefusedError(-2014, "API-key format invalid.", 401)

    # ---------------------------------------------------------------------------- endpoints

    def _depth(self, query: dict[str, str]) -> Row:
        asset = self._asset(query)
        text = query.get("limit", "500")
        limit = int(text) if text.isdecimal() else 0
        if limit not in DEPTH_WEIGHTS:
            raise RefusedError(-1130, "Data sent for parameter 'limit' is not valid.")
        wire = self._wire
        p, now = wire.printers[asset], wire.time_ms()
        bids, asks = wire.taps[asset].best(limit)
        return {
            "lastUpdateId": wire.update_id[asset],
            "E": now,
            "T": now,
            "bids": [[p.price(t), p.size(n)] for t, n in bids],
            "asks": [[p.price(t), p.size(n)] for t, n in asks],
        }

    def _open_interest(self, query: dict[str, str]) -> Row:
        asset, wire = self._asset(query), self._wire
        lots = wire.market.ticker(wire.venue, asset).open_interest
        return {
            "openInterest": wire.printers[asset].size(lots),
            "symbol": query["symbol"],
            "time": wire.time_ms(),
        }

    def _premium(self, asset: str, symbol: str) -> Row:
        mark = self._wire.mark(asset, symbol)
        return {
            "symbol": symbol,
            "markPrice": mark["p"],
            "indexPrice": mark["i"],
            "estimatedSettlePrice": mark["P"],
            "lastFundingRate": mark["r"],
            "interestRate": "0.00010000",
            "nextFundingTime": mark["T"],
            "time": mark["E"],
        }

    def _insurance(self, query: dict[str, str]) -> Row | list[Row]:
        """One pool for all symbols; a list of pools where none is named."""
        wire = self._wire
        fund = {
            "asset": "USDT",
            "marginBalance": f"{wire.fund_usd():.8f}",
            "updateTime": wire.time_ms(),
        }
        group = {"symbols": sorted(wire.symbols), "assets": [fund]}
        if not query.get("symbol"):
            return [group]
        self._asset(query)
        return group

    def _day(self, asset: str, symbol: str) -> Row:
        d = self._wire.day(asset, symbol)
        return {
            "symbol": symbol,
            "priceChange": d["p"],
            "priceChangePercent": d["P"],
            "weightedAvgPrice": d["w"],
            "lastPrice": d["c"],
            "lastQty": d["Q"],
            "openPrice": d["o"],
            "highPrice": d["h"],
            "lowPrice": d["l"],
            "volume": d["v"],
            "quoteVolume": d["q"],
            "openTime": d["O"],
            "closeTime": d["C"],
            "firstId": d["F"],
            "lastId": d["L"],
            "count": d["n"],
        }

    def _price(self, asset: str, symbol: str) -> Row:
        d = self._wire.day(asset, symbol)
        return {"symbol": symbol, "price": d["c"], "time": d["E"]}

    def _best(self, asset: str, symbol: str) -> Row:
        b = self._wire.best(asset, symbol)
        return {
            "symbol": symbol,
            "bidPrice": b["b"],
            "bidQty": b["B"],
            "askPrice": b["a"],
            "askQty": b["A"],
            "time": b["T"],
            "lastUpdateId": b["u"],
        }

    def _trades(self, query: dict[str, str]) -> list[Row]:
        asset = self._asset(query)
        text = query.get("limit", "500")
        limit = min(int(text), 1_000) if text.isdecimal() else 500
        keys = ("a", "p", "q", "f", "l", "T", "m")
        return [{key: row[key] for key in keys} for row in list(self._wire.recent[asset])[-limit:]]

    def _klines(self, query: dict[str, str]) -> list[list[Any]]:
        """Oldest first; from the start asked for on, else the latest."""
        asset = self._asset(query)
        if query.get("interval") != "5m":
            raise RefusedError(-1120, "Invalid interval.")
        first, last = query.get("startTime", ""), query.get("endTime", "")
        rows = self._wire.klines(asset, first=first, last=last)
        limit = _klines_limit(query)
        p = self._wire.printers[asset]
        return [
            [
                start,
                *(p.price(tick) for tick in (c.open, c.high, c.low, c.close)),
                p.size(c.lots),
                start + PERIOD_MS - 1,
                f"{p.usd(1, c.tick_lots):.5f}",
                c.trades,
                p.size(c.bought),
                f"{p.usd(1, c.tick_bought):.5f}",
                "0",
            ]
            for start, c in (rows[:limit] if first else rows[-limit:])
        ]

    def _held(self, query: dict[str, str]) -> list[Row]:
        """Oldest first; from the start asked for on, else the latest."""
        asset, wire = self._asset(query), self._wire
        if query.get("period") != "5m":
            raise RefusedError(-1130, "Data sent for parameter 'period' is not valid.")
        text, first = query.get("limit", "30"), query.get("startTime", "")
        limit = max(1, min(int(text), INTERESTS_MAX)) if text.isdecimal() else 30
        rows = wire.held(asset, first=first, last=query.get("endTime", ""))
        p = wire.printers[asset]
        return [
            {
                "symbol": query["symbol"],
                "sumOpenInterest": f"{lots * p.contract.lot_base:.8f}",
                "sumOpenInterestValue": f"{p.usd(lots, tick):.8f}",
                "timestamp": at,
            }
            for at, lots, tick in (rows[:limit] if first else rows[-limit:])
        ]

    def _funding_info(self) -> list[Row]:
        """Only symbols whose interval is not the default of 8 h (1c)."""
        hours = self._wire.rules.funding_interval_s / 3_600
        if hours == 8:
            return []
        cap = {"adjustedFundingRateCap": "0.02000000", "adjustedFundingRateFloor": "-0.02000000"}
        return [
            {"symbol": symbol, **cap, "fundingIntervalHours": int(hours), "disclaimer": False}
            for symbol in self._wire.symbols
        ]

    def _exchange_info(self) -> Row:
        minute = {"interval": "MINUTE", "intervalNum": 1}
        return {
            "timezone": "UTC",
            "serverTime": self._wire.time_ms(),
            "futuresType": "U_MARGINED",
            "rateLimits": [
                {"rateLimitType": "REQUEST_WEIGHT", **minute, "limit": WEIGHT_MAX},
                {"rateLimitType": "ORDERS", **minute, "limit": 1_200},
            ],
            "exchangeFilters": [],
            "assets": [{"asset": "USDT", "marginAvailable": True, "autoAssetExchange": "-10000"}],
            "symbols": [
                self._symbol(asset, symbol) for symbol, asset in self._wire.symbols.items()
            ],
        }

    def _symbol(self, asset: str, symbol: str) -> Row:
        wire = self._wire
        p = wire.printers[asset]
        tick, lot = p.price(1), p.size(1)
        lots = {"minQty": lot, "stepSize": lot}
        return {
            "symbol": symbol,
            "pair": symbol,
            "contractType": "PERPETUAL",
            "deliveryDate": 4_133_404_800_000,
            "onboardDate": 1_569_398_400_000,
            "status": "TRADING",
            "maintMarginPercent": "2.5000",
            "requiredMarginPercent": "5.0000",
            "baseAsset": asset,
            "quoteAsset": "USDT",
            "marginAsset": "USDT",
            "pricePrecision": p.price_decimals,
            "quantityPrecision": p.size_decimals,
            "baseAssetPrecision": 8,
            "quotePrecision": 8,
            "underlyingType": "COIN",
            "underlyingSubType": ["PoW"],
            "triggerProtect": "0.0500",
            "liquidationFee": f"{wire.rules.liquidation_fee_ppm / 1e6:.6f}",
            "marketTakeBound": "0.05",
            "maxMoveOrderLimit": 10_000,
            "filters": [
                {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "4000000"}
                | {"tickSize": tick},
                {"filterType": "LOT_SIZE", "maxQty": "1000000", **lots},
                {"filterType": "MARKET_LOT_SIZE", "maxQty": "100000", **lots},
                {"filterType": "MAX_NUM_ORDERS", "limit": 200},
                {"filterType": "MAX_NUM_ALGO_ORDERS", "limit": 10},
                {"filterType": "MIN_NOTIONAL", "notional": "5"},
                {"filterType": "PERCENT_PRICE", "multiplierUp": "1.0500"}
                | {"multiplierDown": "0.9500", "multiplierDecimal": "4"},
            ],
            "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT"],
            "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
            "permissionSets": ["GRID"],
        }


def _klines_limit(query: dict[str, str]) -> int:
    text = query.get("limit", "500")
    return max(1, min(int(text), KLINES_MAX)) if text.isdecimal() else 500
