"""The REST side of the simulated Bybit v5 (docs/exchanges.md 2b-2d, 2g).

Errors come with HTTP status 200 and a `retCode`. Lists are paged by a cursor, URL-encoded already.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from monitor.sim.wire.base import Answer, Request, encode, ladder_of

if TYPE_CHECKING:
    from monitor.sim.wire.bybit import Bybit

Row = dict[str, Any]

RISK_SYMBOLS_A_PAGE: Final = 15
INTERESTS_MAX: Final = 200
CATEGORIES: Final = frozenset({"linear", "inverse", "spot", "option"})


class RefusedError(Exception):
    """A request the venue refuses."""


class Rest:
    """Answers requests about one simulated Bybit."""

    def __init__(self, wire: "Bybit") -> None:
        self._wire = wire
        self._paths: dict[str, Callable[[dict[str, str]], Row]] = {
            "time": self._time,
            "instruments-info": self._instruments,
            "risk-limit": self._risk_limits,
            "tickers": self._tickers,
            "orderbook": self._book,
            "recent-trade": self._trades,
            "kline": self._klines,
            "open-interest": self._open_interest,
            "insurance": self._insurance,
        }

    def answer(self, request: Request) -> Answer:
        """The venue's answer."""
        name = request.path.removeprefix("/v5/market/")
        find = self._paths.get(name)
        if find is None or not request.path.startswith("/v5/market/"):
            return Answer(404, b"404 page not found")
        reply: Row = {"retCode": 0, "retMsg": "OK", "result": {}}
        try:
            reply["result"] = find(request.query)
        except RefusedError as refused:
            reply |= {"retCode": 10001, "retMsg": str(refused)}
        reply |= {"retExtInfo": {}, "time": self._wire.time_ms()}
        return Answer(200, encode(reply))

    def _symbols(self, query: dict[str, str]) -> list[str]:
        """The symbols asked for: of ours one or all, of other product lines none."""
        category = query.get("category", "")
        if category not in CATEGORIES:
            raise RefusedError("params error: Category is invalid")
        if category != "linear":
            return []
        symbol = query.get("symbol")
        if not symbol:
            return list(self._wire.symbols)
        if symbol not in self._wire.symbols:
            raise RefusedError("params error: symbol invalid")
        return [symbol]

    def _one(self, query: dict[str, str]) -> tuple[str, str]:
        symbols = self._symbols(query)
        if not query.get("symbol") or not symbols:
            raise RefusedError("params error: symbol invalid")
        return symbols[0], self._wire.symbols[symbols[0]]

    def _page(self, names: list[str], query: dict[str, str], most: int) -> tuple[list[str], str]:
        """One page of symbols and the cursor of the next."""
        names = sorted(names)
        cursor = unquote(query.get("cursor", ""))
        if cursor:
            last = cursor.rpartition("last=")[2]
            names = [name for name in names if name > last]
        page = names[:most]
        more = len(names) > most
        return page, quote(f"first={page[0]}&last={page[-1]}", safe="") if more else ""

    # ---------------------------------------------------------------------------- endpoints

    def _time(self, _: dict[str, str]) -> Row:
        now = self._wire.time_ms()
        return {"timeSecond": str(now // 1_000), "timeNano": str(now * 1_000_000)}

    def _instruments(self, query: dict[str, str]) -> Row:
        text = query.get("limit", "500")
        most = int(text) if text.isdecimal() else 500
        page, cursor = self._page(self._symbols(query), query, max(1, min(most, 1_000)))
        rows = [self._instrument(symbol) for symbol in page]
        return {"category": query["category"], "list": rows, "nextPageCursor": cursor}

    def _instrument(self, symbol: str) -> Row:
        wire = self._wire
        asset = wire.symbols[symbol]
        p, lever = wire.printers[asset], ladder_of(wire.rules, asset)[0].max_leverage
        tick, lot = p.price(1), p.size(1)
        return {
            "symbol": symbol,
            "contractType": "LinearPerpetual",
            "status": "Trading",
            "baseCoin": asset,
            "quoteCoin": "USDT",
            "launchTime": "1584230400000",
            "deliveryTime": "0",
            "deliveryFeeRate": "",
            "priceScale": str(p.price_decimals),
            "leverageFilter": {"minLeverage": "1", "maxLeverage": f"{lever}.00"}
            | {"leverageStep": "0.01"},
            "priceFilter": {"minPrice": tick, "maxPrice": "1999999.80", "tickSize": tick},
            "lotSizeFilter": {"maxOrderQty": "1190.000", "minOrderQty": lot, "qtyStep": lot}
            | {"postOnlyMaxOrderQty": "1190.000", "maxMktOrderQty": "119.000"}
            | {"minNotionalValue": "5"},
            "unifiedMarginTrade": True,
            "fundingInterval": wire.rules.funding_interval_s // 60,
            "settleCoin": "USDT",
            "copyTrading": "both",
            "upperFundingRate": "0.00375",
            "lowerFundingRate": "-0.00375",
            "isPreListing": False,
            "preListingInfo": None,
            "symbolType": "",
        }

    def _risk_limits(self, query: dict[str, str]) -> Row:
        """Maintenance as a fraction, as live answers print it (2g)."""
        page, cursor = self._page(self._symbols(query), query, RISK_SYMBOLS_A_PAGE)
        rows: list[Row] = []
        for symbol in page:
            for row in ladder_of(self._wire.rules, self._wire.symbols[symbol]):
                deduction = f"{row.deduction:.4f}".rstrip("0").rstrip(".")
                rows.append(
                    {
                        "id": len(rows) + 1,
                        "symbol": symbol,
                        "riskLimitValue": str(round(row.cap)),
                        "maintenanceMargin": f"{row.rate:.6f}".rstrip("0"),
                        "initialMargin": f"{2 * row.rate:.6f}".rstrip("0"),
                        "isLowestRisk": int(row.floor == 0),
                        "maxLeverage": f"{row.max_leverage}.00",
                        "mmDeduction": "" if row.deduction == 0 else deduction,
                    }
                )
        return {"category": query["category"], "list": rows, "nextPageCursor": cursor}

    def _tickers(self, query: dict[str, str]) -> Row:
        symbols = self._wire.symbols
        rows = [{"symbol": s, **self._wire.fields(symbols[s])} for s in self._symbols(query)]
        return {"category": query["category"], "list": rows}

    def _insurance(self, query: dict[str, str]) -> Row:
        """One shared pool of USDT."""
        wire = self._wire
        usd = f"{wire.fund_usd():.8f}"
        pool = {"coin": "USDT", "symbols": ",".join(wire.symbols), "balance": usd, "value": usd}
        listed = [pool] if query.get("coin", "USDT") == "USDT" else []
        return {"updatedTime": str(wire.time_ms()), "list": listed}

    def _book(self, query: dict[str, str]) -> Row:
        """`u` is that of the 1000-level stream while somebody follows it."""
        symbol, asset = self._one(query)
        wire = self._wire
        text = query.get("limit", "25")
        limit = min(int(text), 1_000) if text.isdecimal() else 25
        deep, p = wire.depths[asset][1_000], wire.printers[asset]
        sides = wire.taps[asset].best(1_000)
        if deep.window.active:
            sides = deep.window.published()
        bids, asks = ([[p.price(t), p.size(n)] for t, n in side[:limit]] for side in sides)
        now = wire.time_ms()
        return {"s": symbol, "b": bids, "a": asks, "ts": now, "u": deep.update_id} | {
            "seq": deep.seq or wire.seq[asset],
            "cts": now,
        }

    def _trades(self, query: dict[str, str]) -> Row:
        _, asset = self._one(query)
        text = query.get("limit", "500")
        limit = min(int(text), 1_000) if text.isdecimal() else 500
        rows = [
            {"execId": row["i"], "symbol": row["s"], "price": row["p"], "size": row["v"]}
            | {"side": row["S"], "time": str(row["T"]), "isBlockTrade": False}
            | {"isRPITrade": False, "seq": str(row["seq"])}
            for row in reversed(list(self._wire.recent[asset])[-limit:])
        ]
        return {"category": query["category"], "list": rows}

    def _klines(self, query: dict[str, str]) -> Row:
        """Newest first; from the start asked for on, else the latest."""
        symbol, asset = self._one(query)
        if query.get("interval") != "5":
            raise RefusedError("params error: Invalid period!")
        first, text = query.get("start", ""), query.get("limit", "200")
        limit = max(1, min(int(text), 1_000)) if text.isdecimal() else 200
        rows = self._wire.klines(asset, first=first, last=query.get("end", ""))
        p = self._wire.printers[asset]
        chosen = rows[:limit] if first else rows[-limit:]
        listed = [
            [
                str(start),
                *(p.price(tick) for tick in (c.open, c.high, c.low, c.close)),
                p.size(c.lots),
                f"{p.usd(1, c.tick_lots):.4f}",
            ]
            for start, c in reversed(chosen)
        ]
        return {"category": query["category"], "symbol": symbol, "list": listed}

    def _open_interest(self, query: dict[str, str]) -> Row:
        """Newest first; the past is kept in steps of five minutes, others show the present only."""
        symbol, asset = self._one(query)
        wire, p = self._wire, self._wire.printers[asset]
        text = query.get("limit", "50")
        limit = max(1, min(int(text), INTERESTS_MAX)) if text.isdecimal() else 50
        first, last = query.get("startTime", ""), query.get("endTime", "")
        lots_at = [(at, lots) for at, lots, _ in wire.held(asset, first=first, last=last)]
        if query.get("intervalTime") != "5min":
            now = wire.market.ticker(wire.venue, asset).open_interest
            lots_at = [(wire.time_ms(), now)]
        rows = [
            {
                "openInterest": p.size(2 * lots),
                "timestamp": str(at),
                "singleOpenInterest": p.size(lots),
            }
            for at, lots in reversed(lots_at[-limit:])
        ]
        return {"symbol": symbol, "category": "linear", "list": rows, "nextPageCursor": ""}
