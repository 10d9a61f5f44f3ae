"""The REST side of the simulated OKX v5 (docs/exchanges.md 3b-3d, 3g).

Errors come with HTTP status 200 and a `code`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from monitor.sim.wire.base import Answer, Request, encode, ladder_of, trimmed
from monitor.sim.wire.candles import PERIOD_MS

if TYPE_CHECKING:
    from monitor.sim.wire.okx import Okx

Row = dict[str, Any]
PRODUCTS: Final = frozenset({"SPOT", "MARGIN", "SWAP", "FUTURES", "OPTION"})
BOOK_MAX: Final = 400
CANDLES_MAX: Final = 300
CANDLES_KEPT: Final = 1_440
INTERESTS_MAX: Final = 100


class RefusedError(Exception):
    """A request the venue refuses, with its code."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Rest:
    """Answers requests about one simulated OKX."""

    def __init__(self, wire: "Okx") -> None:
        self._wire = wire
        self._paths: dict[str, Callable[[dict[str, str]], list[Any]]] = {
            "public/time": lambda _: [{"ts": str(wire.time_ms())}],
            "public/instruments": self._instruments,
            "public/position-tiers": self._tiers,
            "public/mark-price": lambda q: self._each(q, wire.mark_row),
            "public/open-interest": lambda q: self._each(q, wire.interest_row),
            "public/insurance-fund": self._insurance,
            "public/funding-rate": lambda q: [wire.funding_row(self._asset(q))],
            "market/tickers": lambda q: self._each(q, wire.ticker_row),
            "market/ticker": lambda q: [wire.ticker_row(self._asset(q))],
            "market/books": self._book,
            "market/trades": self._trades,
            "market/candles": self._candles,
            "market/index-tickers": self._index,
            "rubik/stat/contracts/open-interest-history": self._interests,
            "system/status": lambda _: [],
        }

    def answer(self, request: Request) -> Answer:
        """The venue's answer."""
        find = self._paths.get(request.path.removeprefix("/api/v5/"))
        if find is None or not request.path.startswith("/api/v5/"):
            body: Row = {"code": "50404", "data": [], "msg": "Not found"}
            return Answer(404, encode(body))
        try:
            body = {"code": "0", "data": find(request.query), "msg": ""}
        except RefusedError as refused:
            body = {"code": refused.code, "data": [], "msg": str(refused)}
        return Answer(200, encode(body))

    def _product(self, query: dict[str, str]) -> bool:
        """Whether the product line asked for is ours; it must be one at all."""
        product = query.get("instType", "")
        if product not in PRODUCTS:
            raise RefusedError("51000", "Parameter instType error")
        return product == "SWAP"

    def _asset(self, query: dict[str, str]) -> str:
        symbol = query.get("instId", "")
        if symbol not in self._wire.symbols:
            raise RefusedError("51001", f"Instrument ID {symbol} doesn't exist.")
        return self._wire.symbols[symbol]

    def _each(self, query: dict[str, str], row: Callable[[str], Row]) -> list[Row]:
        if not self._product(query):
            return []
        if query.get("instId"):
            return [row(self._asset(query))]
        return [row(asset) for asset in self._wire.assets]

    # ---------------------------------------------------------------------------- endpoints

    def _instruments(self, query: dict[str, str]) -> list[Row]:
        return self._each(query, self._instrument)

    def _instrument(self, asset: str) -> Row:
        wire = self._wire
        p = wire.printers[asset]
        family = f"{asset}-USDT"
        return {
            "alias": "",
            "auctionEndTime": "",
            "baseCcy": "",
            "category": "1",
            "contTdSwTime": "",
            "ctMult": "1",
            "ctType": "linear",
            "ctVal": trimmed(f"{wire.values[asset]:.8f}"),
            "ctValCcy": asset,
            "expTime": "",
            "futureSettlement": False,
            "instCategory": "1",
            "instFamily": family,
            "instId": f"{family}-SWAP",
            "instType": "SWAP",
            "lever": str(ladder_of(wire.rules, asset)[0].max_leverage),
            "listTime": "1573557408000",
            "lotSz": "0.01",
            "maxIcebergSz": "100000000.0000000000000000",
            "maxLmtAmt": "20000000",
            "maxLmtSz": "100000000",
            "maxMktAmt": "",
            "maxMktSz": "35000",
            "maxStopSz": "35000",
            "maxTriggerSz": "100000000.0000000000000000",
            "maxTwapSz": "100000000.0000000000000000",
            "minSz": "0.01",
            "optType": "",
            "quoteCcy": "",
            "ruleType": "normal",
            "settleCcy": "USDT",
            "state": "live",
            "stk": "",
            "tickSz": p.price(1),
            "uly": family,
            "upcChg": [],
        }

    def _tiers(self, query: dict[str, str]) -> list[Row]:
        """Bounds in contracts; the rate is flat on the whole position (3g)."""
        families = query.get("instFamily", query.get("uly", ""))
        if not self._product(query) or query.get("tdMode") not in {"isolated", "cross"}:
            raise RefusedError("51000", "Parameter tdMode error")
        rows: list[Row] = []
        for family in families.split(","):
            asset = self._wire.indexes.get(family)
            if asset is None:
                raise RefusedError("51000", "Parameter instFamily error")
            value = self._wire.values[asset]
            for n, row in enumerate(ladder_of(self._wire.rules, asset)):
                low = row.floor / value
                rows.append(
                    {
                        "baseMaxLoan": "",
                        "imr": trimmed(f"{1 / row.max_leverage:.6f}"),
                        "instFamily": family,
                        "instId": "",
                        "maxLever": str(row.max_leverage),
                        "maxSz": trimmed(f"{row.cap / value:.2f}"),
                        "minSz": trimmed(f"{low + 0.01 if n else 0:.2f}"),
                        "mmr": trimmed(f"{row.rate:.6f}"),
                        "optMgnFactor": "0",
                        "quoteMaxLoan": "",
                        "tier": str(n + 1),
                        "uly": family,
                    }
                )
        return rows

    def _insurance(self, query: dict[str, str]) -> list[Row]:
        """The same pool for every family, as of now; ``total`` is in USD."""
        family = query.get("instFamily", query.get("uly", ""))
        if not self._product(query) or family not in self._wire.indexes:
            raise RefusedError("51000", "Parameter instFamily error")
        usd = f"{self._wire.fund_usd():.4f}"
        empty = dict.fromkeys(("adlType", "amt", "decRate", "maxBal", "maxBalTs"), "")
        detail = {"balance": usd, "ccy": "USDT", "type": "regular_update"} | empty
        detail["ts"] = str(self._wire.time_ms())
        return [{"details": [detail], "instFamily": family, "instType": "SWAP", "total": usd}]

    def _book(self, query: dict[str, str]) -> list[Row]:
        text = query.get("sz", "1")
        depth = min(int(text), BOOK_MAX) if text.isdecimal() else 1
        return [self._wire.book_row(self._asset(query), max(1, depth))]

    def _trades(self, query: dict[str, str]) -> list[dict[str, str]]:
        text = query.get("limit", "100")
        limit = int(text) if text.isdecimal() else 100
        return list(self._wire.recent[self._asset(query)])[-limit:][::-1]

    def _candles(self, query: dict[str, str]) -> list[list[str]]:
        """Newest first, the growing one unconfirmed; `after` is older, `before` newer than.

        Of all that there are the last `CANDLES_KEPT` are given, `CANDLES_MAX` at once.
        """
        asset = self._asset(query)
        if query.get("bar") != "5m":
            raise RefusedError("51000", "Parameter bar error")
        text = query.get("limit", "100")
        limit = max(1, min(int(text), CANDLES_MAX)) if text.isdecimal() else 100
        newer, older = query.get("before", ""), query.get("after", "")
        rows = self._wire.klines(asset, first=newer, last=older)
        bounds = {int(bound) for bound in (newer, older) if bound.isdecimal()}
        oldest, _ = self._wire.klines(asset)[-CANDLES_KEPT:][0]
        chosen = [row for row in rows if row[0] >= oldest and row[0] not in bounds][-limit:]
        p, now = self._wire.printers[asset], self._wire.time_ms()
        return [
            [
                str(start),
                *(p.price(tick) for tick in (c.open, c.high, c.low, c.close)),
                trimmed(p.size(c.lots)),
                trimmed(f"{c.lots * p.contract.lot_base:.8f}"),
                trimmed(f"{p.usd(1, c.tick_lots):.4f}"),
                "1" if start + PERIOD_MS <= now else "0",
            ]
            for start, c in reversed(chosen)
        ]

    def _interests(self, query: dict[str, str]) -> list[list[str]]:
        """Newest first; `end` is older, `begin` newer than."""
        asset = self._asset(query)
        if query.get("period", "5m") != "5m":
            raise RefusedError("51000", "Parameter period error")
        text = query.get("limit", "100")
        limit = max(1, min(int(text), INTERESTS_MAX)) if text.isdecimal() else 100
        newer, older = query.get("begin", ""), query.get("end", "")
        rows = self._wire.held(asset, first=newer, last=older)
        bounds = {int(bound) for bound in (newer, older) if bound.isdecimal()}
        chosen = [row for row in rows if row[0] not in bounds][-limit:]
        p = self._wire.printers[asset]
        return [
            [
                str(at),
                p.size(lots),
                trimmed(f"{lots * p.contract.lot_base:.8f}"),
                trimmed(f"{p.usd(lots, tick):.8f}"),
            ]
            for at, lots, tick in reversed(chosen)
        ]

    def _index(self, query: dict[str, str]) -> list[Row]:
        name = query.get("instId")
        if name is None:
            return [self._wire.index_row(asset) for asset in self._wire.assets]
        if name not in self._wire.indexes:
            raise RefusedError("51001", f"Instrument ID {name} doesn't exist.")
        return [self._wire.index_row(self._wire.indexes[name])]
