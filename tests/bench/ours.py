"""The project's own parts, wired as the daemon wires them, each as far as a benchmark goes."""

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from monitor.app import SOFTWARE, Pump, clock
from monitor.config import PipelineConfig
from monitor.core.depth.book import Book
from monitor.events import (
    BookDelta,
    BookSnapshot,
    Fetch,
    Frame,
    Input,
    Opened,
    Reply,
    Tick,
)
from monitor.feeds.inbox import Inbox
from monitor.feeds.ticker import ticker
from monitor.feeds.websocket import WebSocketFeed
from monitor.journal import VERSION, Header
from monitor.pipeline import Pipeline
from monitor.sinks.metrics import Latest, Meter, watch_loop
from monitor.sinks.recorder import Recorder
from monitor.venues.binance import Binance
from tests.bench.stream import SYMBOL, TICK
from tests.builders import config, instrument

FEED = "binance.public.0"
FRAME_NS = 32_258_065
"""Between two frames of one symbol: 31 a second, ten depth updates of the 100 ms stream."""

START = 1_760_000_000 * 1_000_000_000


def configured(symbols: Iterable[str], url: str = "wss://unused") -> PipelineConfig:
    """The shipped configuration with these symbols of Binance."""
    names = list(symbols)
    whole = config()
    venue = msgspec.structs.replace(
        whole.venues["binance"],
        ws_url=url,
        instruments={name: name.removesuffix("USDT") for name in names},
        symbols_per_socket=1_000,
    )
    listed = [instrument(name, asset=name.removesuffix("USDT"), tick=TICK) for name in names]
    return PipelineConfig({"binance": venue}, whole.engine, listed)


def recorder(directory: Path, pipeline: PipelineConfig) -> Recorder:
    """A journal in a directory."""
    header = Header(VERSION, "bench", 0, START, SOFTWARE, pipeline)
    return Recorder(directory, header, config().journal)


# ------------------------------------------------------------------------------ codec and book


class CodecAndBook:
    """Binance's codec and a book, nothing around them."""

    def __init__(self, snapshot: bytes) -> None:
        effective = configured([SYMBOL])
        self.codec = Binance(effective.venues["binance"], effective.instruments)
        self.book = Book(TICK)
        self.snapshot = snapshot
        self.codec.opened(FEED, START)
        self.at = START

    def handle(self, data: bytes) -> None:
        """Take one frame."""
        for event in self.codec.receive(Frame(self.at, FEED, data)):
            if type(event) is BookDelta:
                self.book.delta(event.bids, event.asks)
            elif type(event) is Fetch:
                self._answer()

    def _answer(self) -> None:
        reply = Reply(self.at, "binance", f"depth:{SYMBOL}", 200, self.snapshot)
        for event in self.codec.reply(reply):
            if type(event) is BookSnapshot:
                self.book.snapshot(event.bids, event.asks, depth=event.depth, maintained=False)
            elif type(event) is BookDelta:
                self.book.delta(event.bids, event.asks)

    def best(self) -> tuple[float | None, float | None]:
        """Best bid and ask."""
        assert self.book.state == "synced", self.book.state
        assert self.book.gaps == 0
        return self.book.best()


# ----------------------------------------------------------------------------------- in memory


class Machine:
    """Pump, recorder and pipeline, fed from memory in the stream's own time."""

    def __init__(self, symbols: list[str], journal: Path | None, hurry: int = 1) -> None:
        effective = configured(symbols)
        self.pipeline = Pipeline(effective)
        self.recorder = recorder(journal, effective) if journal else None
        self.pump = Pump(self.pipeline, Meter(0.25), self.recorder)
        self.pump.takers.append(Latest())
        self.at = START
        self.ticks = 0
        feeds = self.pipeline.codecs["binance"].feeds
        self.pump.process([Opened(START, feed.name) for feed in feeds])
        self.frame_ns = FRAME_NS // len(symbols) // hurry

    def sync(self, symbol: str, first: bytes, snapshot: bytes) -> None:
        """Bring a symbol's book in by its first update and the snapshot."""
        reply = Reply(self.at, "binance", f"depth:{symbol}", 200, snapshot)
        self.pump.process([Frame(self.at, FEED, first), reply])
        assert self.pipeline.engine.instruments[f"binance:{symbol}"].book.state == "synced"

    def inputs(self, frames: Iterable[bytes]) -> list[Input]:
        """These frames as inputs, with the ticks that fall between them."""
        found: list[Input] = []
        for data in frames:
            self.at += self.frame_ns
            if (ticks := (self.at - START) // 250_000_000) > self.ticks:
                self.ticks = ticks
                found.append(Tick(self.at))
            found.append(Frame(self.at, FEED, data))
        return found

    def check(self) -> None:
        """Every book is true and has been all the time."""
        for state in self.pipeline.engine.instruments.values():
            assert state.book.state == "synced", (state.spec.name, state.book.state)
            assert state.book.gaps == 0, state.spec.name
        assert not self.pipeline.engine.rejected, self.pipeline.engine.rejected


# ---------------------------------------------------------------------------------- over a socket


class _Rest:
    """Stands for the HTTP feed: answers a request for a depth snapshot from memory."""

    def __init__(self, snapshot: bytes, inbox: Inbox, now: Callable[[], int]) -> None:
        self._snapshot = snapshot
        self._inbox = inbox
        self._now = now
        self._tasks: set[asyncio.Task[None]] = set()

    def fetch(self, command: Fetch) -> None:
        if command.key.startswith("depth:"):
            reply = Reply(self._now(), command.venue, command.key, 200, self._snapshot)
            self._tasks.add(asyncio.get_running_loop().create_task(self._inbox.put(reply)))


class _Watched(Pump):
    """A pump that notes when the first frame came and when the last was done."""

    def expect(self, frames: int) -> None:
        self.expected = frames
        self.started: tuple[float, float] | None = None
        self.done = asyncio.Event()

    def process(self, batch: list[Input]) -> None:
        inputs = self.pipeline.inputs
        if self.started is None and any(type(record) is Frame for record in batch):
            self.started = time.perf_counter(), time.process_time()
        super().process(batch)
        if inputs[Frame] >= self.expected:
            self.done.set()


async def whole_path(
    snapshot: bytes, port: int, frames: int, journal: Path | None
) -> dict[str, float]:
    """All of the live path but HTTP and sinks; figures from the first frame to the last.

    In the end the journal is on the disk, and the time and work for that count.
    """
    effective = configured([SYMBOL], f"ws://127.0.0.1:{port}")
    whole = config()
    pipeline = Pipeline(effective)
    inbox = Inbox(whole.queue_length)
    now = clock()
    specs = {spec.name: spec for spec in pipeline.codecs["binance"].feeds}
    feed = WebSocketFeed(specs[FEED], inbox, now)
    writer = recorder(journal, effective) if journal else None
    meter = Meter(effective.engine.tick_interval_ms / 1000, now)
    rest = _Rest(snapshot, inbox, now)
    pump = _Watched(pipeline, meter, writer, {FEED: feed}, {"binance": rest})  # type: ignore[dict-item]
    pump.takers.append(Latest())
    pump.expect(frames)
    works = (
        feed.run(),
        ticker(inbox, effective.engine.tick_interval_ms, now),
        watch_loop(meter),
        pump.run(inbox),
    )
    tasks = [asyncio.create_task(work) for work in works]
    try:
        async with asyncio.timeout(60):
            await pump.done.wait()
        if writer is not None:
            writer.close()
        assert pump.started is not None
        began, worked = pump.started
        figures = {
            "seconds": time.perf_counter() - began,
            "cpu_s": time.process_time() - worked,
        }
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if writer is not None:
        assert writer.lost_slow == writer.lost_disk == 0, "the journal is not whole"
    assert not pipeline.engine.rejected, pipeline.engine.rejected
    book = pipeline.engine.instruments[f"binance:{SYMBOL}"].book
    assert book.state == "synced", book.state
    assert book.gaps == 0
    bid, ask = book.best()
    return figures | {"bid": bid or 0.0, "ask": ask or 0.0}
