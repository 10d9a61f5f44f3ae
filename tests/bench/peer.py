"""cryptofeed on the same frames: its own handler, and its own FeedHandler over a socket.

What is replaced, because it would need the network: the list of symbols, the HTTP connection (it
gets the stream's snapshot) and, over a socket, the address, since it takes ``wss://`` only.
Callbacks count and do nothing. uvloop is used, as by its default.
"""

import asyncio
from importlib import metadata


def version() -> str | None:
    """The installed version; None if there is none."""
    try:
        import cryptofeed  # noqa: F401

        return metadata.version("cryptofeed")
    except ImportError:
        return None


class _Rest:
    """Answers every request with the snapshot."""

    def __init__(self, snapshot: bytes) -> None:
        self.snapshot = snapshot.decode()
        self.requests = 0

    async def read(self, *_args, **_options) -> str:
        self.requests += 1
        return self.snapshot

    async def close(self) -> None:
        """Nothing is open."""


class Peer:
    """A `BinanceFutures` feed with book, trades and funding of BTC-USDT."""

    def __init__(self, snapshot: bytes) -> None:
        from cryptofeed.defines import BINANCE_FUTURES, FUNDING, L2_BOOK, TRADES
        from cryptofeed.exchanges import BinanceFutures
        from cryptofeed.symbols import Symbols

        self.events = 0
        Symbols.set(BINANCE_FUTURES, {"BTC-USDT-PERP": "BTCUSDT"}, {"tick_size": {}})
        self.feed = BinanceFutures(
            config={"uvloop": True, "log": {"disabled": True}},
            symbols=["BTC-USDT-PERP"],
            channels=[L2_BOOK, TRADES, FUNDING],
            callbacks=dict.fromkeys((L2_BOOK, TRADES, FUNDING), self._count),
        )
        self.rest = self.feed.http_conn = _Rest(snapshot)

    async def _count(self, _event, _received_at) -> None:
        self.events += 1

    def best(self) -> tuple[float, float]:
        """Best bid and ask."""
        assert self.rest.requests == 1, f"cryptofeed lost its sequence: {self.rest.requests}"
        book = self.feed._l2_book["BTC-USDT-PERP"].book
        return float(book.bids.index(0)[0]), float(book.asks.index(0)[0])

    def connect_to(self, port: int, loop: asyncio.AbstractEventLoop) -> None:
        """Run cryptofeed's FeedHandler on the loop, with every address led to a loopback port."""
        import cryptofeed.connection as sockets
        from cryptofeed import FeedHandler

        genuine = sockets.connect

        def connect(address: str, **options):
            _, _, path = address.removeprefix("wss://").partition("/")
            return genuine(f"ws://127.0.0.1:{port}/{path}", **options)

        sockets.connect = connect
        handler = FeedHandler(config={"uvloop": True, "log": {"disabled": True}})
        handler.add_feed(self.feed)
        asyncio.set_event_loop(loop)
        handler.run(start_loop=False, install_signal_handlers=False)
