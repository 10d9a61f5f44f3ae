"""A small venue that speaks Binance's wire format over real sockets, for tests of the daemon."""

import asyncio
import json
import time
from contextlib import asynccontextmanager

from aiohttp import WSMsgType, web

PRICES = {"BTCUSDT": 50_000.0, "ETHUSDT": 3_000.0}


class FakeBinance:
    """Books that change every 20 ms, marks, trades, one liquidation a second.

    Attributes:
        mute: topics that are acknowledged and then never sent.
        skip: symbols whose next update is lost on the way.
    """

    def __init__(self):
        self.mute = set()
        self.skip = set()
        self.sockets = {"public": {}, "market": {}}
        self.n = dict.fromkeys(PRICES, 1)
        self.books = {
            symbol: [
                {price - i: 1.0 for i in range(1, 1001)},
                {price + i: 1.0 for i in range(1, 1001)},
            ]
            for symbol, price in PRICES.items()
        }
        self.url = ""

    @asynccontextmanager
    async def serving(self):
        app = web.Application()
        app.router.add_get("/{part:public|market}/stream", self._socket)
        app.router.add_get("/fapi/v1/{name}", self._rest)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"127.0.0.1:{runner.addresses[0][1]}"
        market = asyncio.create_task(self._market())
        try:
            yield self
        finally:
            market.cancel()
            await asyncio.wait([market])
            await runner.cleanup()

    async def cut(self, part):
        """Drop every connection of a part."""
        for socket in list(self.sockets[part]):
            await socket.close()

    async def _socket(self, request):
        part = request.match_info["part"]
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        topics = self.sockets[part][socket] = set()
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                wanted = json.loads(message.data)
                joins = wanted["method"] == "SUBSCRIBE"
                (topics.update if joins else topics.difference_update)(wanted["params"])
                await socket.send_json({"result": None, "id": wanted["id"]})
        self.sockets[part].pop(socket, None)
        return socket

    async def _rest(self, request):
        name, symbol = request.match_info["name"], request.query.get("symbol", "")
        if name == "depth":
            bids, asks = self.books[symbol]
            return web.json_response(
                {
                    "lastUpdateId": 10 * self.n[symbol],
                    "E": 1,
                    "T": 1,
                    "bids": [[str(p), str(q)] for p, q in sorted(bids.items(), reverse=True)],
                    "asks": [[str(p), str(q)] for p, q in sorted(asks.items())],
                }
            )
        if name == "openInterest":
            return web.json_response({"openInterest": "100.5", "symbol": symbol, "time": 1})
        if name == "fundingInfo":
            return web.json_response([])
        return web.json_response({"symbols": []})

    async def _market(self):
        beat = 0
        while True:
            await asyncio.sleep(0.02)
            beat += 1
            for symbol in PRICES:
                await self._depth(symbol)
                if beat % 10 == 0:
                    await self._ticker(symbol, liquidation=beat % 50 == 0)

    async def _depth(self, symbol):
        self.n[symbol] += 1
        n = self.n[symbol]
        bids, asks = self.books[symbol]
        price = PRICES[symbol]
        bid, ask = price - 1 - n % 40, price + 1 + n % 40
        bids[bid], asks[ask] = n % 7 + 0.5, n % 5 + 0.25
        if symbol in self.skip:
            self.skip.discard(symbol)
            return
        data = {
            "e": "depthUpdate",
            "E": 1,
            "T": int(time.time() * 1000),
            "s": symbol,
            "U": 10 * n - 9,
            "u": 10 * n,
            "pu": 10 * n - 10,
            "b": [[str(bid), str(bids[bid])]],
            "a": [[str(ask), str(asks[ask])]],
            "st": 1,
        }
        await self._send("public", f"{symbol.lower()}@depth@100ms", data)

    async def _ticker(self, symbol, *, liquidation):
        now, price = int(time.time() * 1000), PRICES[symbol]
        mark = {"e": "markPriceUpdate", "E": now, "s": symbol, "p": str(price), "i": str(price)}
        mark |= {"r": "0.0001", "T": now + 3_600_000, "st": 1}
        await self._send("market", f"{symbol.lower()}@markPrice@1s", mark)
        trade = {"e": "aggTrade", "s": symbol, "p": str(price), "q": "0.5", "T": now, "m": True}
        await self._send("market", f"{symbol.lower()}@aggTrade", trade)
        if liquidation:
            order = {"s": symbol, "S": "SELL", "p": str(price - 9), "ap": str(price), "z": "2"}
            forced = {"e": "forceOrder", "E": now, "o": order | {"T": now}, "st": 1}
            await self._send("market", f"{symbol.lower()}@forceOrder", forced)

    async def _send(self, part, topic, data):
        if topic in self.mute:
            return
        for socket, topics in list(self.sockets[part].items()):
            if topic in topics and not socket.closed:
                try:
                    await socket.send_json({"stream": topic, "data": data})
                except ConnectionError:
                    self.sockets[part].pop(socket, None)
