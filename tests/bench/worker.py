"""One measurement in a process of its own: ``python -m tests.bench.worker CORE TASK ARGUMENTS``.

A fresh process for each keeps the garbage of one from being collected in the time of another. It
prints one line of JSON.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.machine import peak_mb, pin, reset_peak, resident_mb
from tests.bench.minimal import Minimal
from tests.bench.peer import Peer
from tests.bench.stream import SYMBOL, Stream

Figures = dict[str, Any]

UPDATES = 120
MAPS = 40


def is_depth(frame: bytes) -> bool:
    """Whether it is a depth update: only these are worth a percentile, the others are small."""
    return b'"depthUpdate"' in frame[:90]


def percentiles(samples: list[int]) -> Figures:
    """Of nanoseconds, in microseconds."""
    ordered = sorted(samples)
    return {
        f"p{share}_us": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] / 1000
        for share in (50, 99)
    }


# --------------------------------------------------------------------------- frames in memory


def handler(pipeline: str, path: str) -> Figures:
    """Frames in memory through decoder and book, at once and then each with its time."""
    stream = Stream.load(Path(path))
    if pipeline == "cryptofeed":
        return asyncio.run(_peer_handler(stream))
    build: Callable[[bytes], Any]
    if pipeline == "minimal":
        build = Minimal
    else:
        from tests.bench.ours import CodecAndBook

        build = CodecAndBook
    subject = build(stream.snapshot)
    handle = subject.handle
    began, worked = time.perf_counter(), time.process_time()
    for frame in stream.frames:
        handle(frame)
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    best = subject.best()
    handle = build(stream.snapshot).handle
    samples = []
    clock = time.perf_counter_ns
    for frame in stream.frames:
        start = clock()
        handle(frame)
        took = clock() - start
        if is_depth(frame):
            samples.append(took)
    return _rate(stream, seconds, cpu, best) | percentiles(samples)


async def _peer_handler(stream: Stream) -> Figures:
    frames = [frame.decode() for frame in stream.frames]  # it gets text from its websocket
    peer = Peer(stream.snapshot)
    handle = peer.feed.message_handler
    began, worked = time.perf_counter(), time.process_time()
    for frame in frames:
        await handle(frame, None, 0.0)
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    best = peer.best()
    handle = Peer(stream.snapshot).feed.message_handler
    samples = []
    clock = time.perf_counter_ns
    for frame, raw in zip(frames, stream.frames, strict=True):
        start = clock()
        await handle(frame, None, 0.0)
        took = clock() - start
        if is_depth(raw):
            samples.append(took)
    return _rate(stream, seconds, cpu, best) | percentiles(samples)


def step(path: str) -> Figures:
    """What one frame costs the daemon behind its socket: journal, codec, book, engine."""
    from tests.bench.ours import Machine

    stream = Stream.load(Path(path))
    with tempfile.TemporaryDirectory() as directory:
        machine = Machine([SYMBOL], Path(directory))
        machine.sync(SYMBOL, stream.frames[0], stream.snapshot)
        process = machine.pump.process
        batches = [[record] for record in machine.inputs(stream.frames[1:])]
        samples = []
        clock = time.perf_counter_ns
        for batch in batches:
            start = clock()
            process(batch)
            took = clock() - start
            if is_depth(getattr(batch[0], "data", b"")):
                samples.append(took)
        machine.check()
        machine.recorder.close()
    return percentiles(samples)


def _rate(stream: Stream, seconds: float, cpu_s: float, best: tuple[float, float]) -> Figures:
    frames = len(stream.frames)
    return {
        "rate": frames / seconds,
        "cpu_us": cpu_s / frames * 1e6,
        "best": list(best),
    }


# ------------------------------------------------------------------------------ over a websocket


def whole(pipeline: str, path: str, port: str) -> Figures:
    """Frames over a loopback websocket into a book."""
    stream = Stream.load(Path(path))
    frames = len(stream.frames)
    snapshot = stream.snapshot
    stream.frames.clear()
    if pipeline == "minimal":
        found = asyncio.run(_minimal_socket(snapshot, int(port), frames))
    elif pipeline == "cryptofeed":
        found = _peer_socket(snapshot, int(port), frames)
    else:
        from tests.bench.ours import whole_path

        with tempfile.TemporaryDirectory() as directory:
            journal = None if pipeline == "no journal" else Path(directory)
            found = asyncio.run(whole_path(snapshot, int(port), frames, journal))
    return {
        "rate": frames / found["seconds"],
        "cpu_us": found["cpu_s"] / frames * 1e6,
        "best": [found["bid"], found["ask"]],
    }


async def _minimal_socket(snapshot: bytes, port: int, frames: int) -> Figures:
    from websockets.asyncio.client import connect

    subject = Minimal(snapshot)
    handle = subject.handle
    url = f"ws://127.0.0.1:{port}/stream"
    async with connect(url, compression=None, max_size=None, max_queue=64) as connection:
        receive = connection.recv
        async with asyncio.timeout(60):
            handle(await receive(decode=False))
            began, worked = time.perf_counter(), time.process_time()
            for _ in range(frames - 1):
                handle(await receive(decode=False))
        figures = {
            "seconds": time.perf_counter() - began,
            "cpu_s": time.process_time() - worked,
        }
    bid, ask = subject.best()
    return figures | {"bid": bid, "ask": ask}


def _peer_socket(snapshot: bytes, port: int, frames: int) -> Figures:
    import uvloop

    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    peer = Peer(snapshot)
    done = loop.create_future()
    genuine = peer.feed.message_handler
    marks: list[tuple[float, float]] = []
    left = frames

    async def counted(message: str, connection: Any, received_at: float) -> None:
        nonlocal left
        if not marks:
            marks.append((time.perf_counter(), time.process_time()))
        await genuine(message, connection, received_at)
        left -= 1
        if not left:
            done.set_result((time.perf_counter(), time.process_time()))

    peer.feed.message_handler = counted
    peer.connect_to(port, loop)
    ended, worked = loop.run_until_complete(asyncio.wait_for(done, 60))
    bid, ask = peer.best()
    began = marks[0]
    return {"seconds": ended - began[0], "cpu_s": worked - began[1], "bid": bid, "ask": ask}


# ------------------------------------------------------------------------------ publishing


def publish(path: str) -> Figures:
    """What the engine does on its ticks, for an asset with four venues."""
    from monitor.core.depth.bands import pooled_depth
    from monitor.core.engine import Engine
    from monitor.events import BookSnapshot, Listed, Tick
    from tests.bench.ours import START, CodecAndBook, configured
    from tests.builders import instrument

    stream = Stream.load(Path(path))
    source = CodecAndBook(stream.snapshot)
    for frame in stream.frames:
        source.handle(frame)
    deep = source.book
    levels = [[(tick / 10, quantity) for tick, quantity in deep.levels(side)] for side in (0, 1)]
    engine = Engine(configured([SYMBOL]).engine)
    for venue, depth in (("binance", 0), ("bybit", 1000), ("okx", 400), ("hyperliquid", 20)):
        spec = instrument(SYMBOL, venue=venue)
        engine.process(START, Listed(spec))
        bids, asks = (side[: depth or None] for side in levels)
        event = BookSnapshot(spec.name, 0, bids, asks, depth or 1000, maintained=bool(depth))
        engine.process(START, event)
    states = engine.assets["BTC"].instruments
    assert [state.book.state for state in states] == ["synced"] * 4

    def tick(number: int) -> None:
        engine.process(START + number * 250_000_000, Tick(START + number * 250_000_000))

    figures = {
        "pooled_us": _median_us(lambda _: pooled_depth(states), 400),
        "check_us": _median_us(lambda _: deep.check(), 400),
        "levels": [len(side) for side in levels],
    }
    # Every fourth tick publishes, the twentieth also reports status: the mean is what a core pays.
    for number in range(1, 41):
        tick(number)
    began = time.process_time()
    for number in range(41, 441):
        tick(number)
    return figures | {"tick_us": (time.process_time() - began) / 400 * 1e6}


def _median_us(act: Callable[[int], Any], times: int) -> float:
    samples = []
    for number in range(times):
        start = time.perf_counter_ns()
        act(number)
        samples.append(time.perf_counter_ns() - start)
    return median(samples) / 1000


# ----------------------------------------------------------------------------- memory and growth


def memory(path: str, points: str, each: str) -> Figures:
    """Peak memory and CPU of the whole machine after so many frames, at some points."""
    from monitor.events import Frame
    from tests.bench.ours import Machine

    stream = Stream.load(Path(path))
    loop = stream.loop()
    found = []
    with tempfile.TemporaryDirectory() as directory:
        machine = Machine([SYMBOL], Path(directory), hurry=10)
        machine.sync(SYMBOL, next(loop), stream.snapshot)
        for _ in range(int(points)):
            reset_peak()
            worked = 0.0
            for _ in range(int(each) // 1000):
                batch = machine.inputs(islice(loop, 1000))
                began = time.process_time()
                machine.pump.process(batch)
                worked += time.process_time() - began
            found.append(
                {
                    "frames": machine.pipeline.inputs[Frame],
                    "resident_mb": resident_mb(),
                    "peak_mb": peak_mb(),
                    "cpu_us": worked / int(each) * 1e6,
                }
            )
        machine.check()
        machine.recorder.close()
        assert machine.recorder.lost_slow == machine.recorder.lost_disk == 0
    return {"points": found}


def load(directory: str, count: str, seconds: str) -> Figures:
    """Make the journal that `growth` replays, in a process of its own for the memory's sake."""
    from tests.bench.load import record

    record(Path(directory), int(count), float(seconds))
    return {}


def growth(source: str, times: str) -> Figures:
    """Memory and CPU of a journal's instruments, played so often, each time with new books."""
    from monitor.app import BATCH, Pump
    from monitor.events import Frame
    from monitor.feeds.replay import JournalFiles
    from monitor.pipeline import Pipeline
    from monitor.sinks.metrics import Latest, Meter
    from tests.bench.ours import recorder

    header, *inputs = JournalFiles([Path(source)])
    batches = [inputs[n : n + BATCH] for n in range(0, len(inputs), BATCH)]
    before = resident_mb()
    held = worked = 0.0
    for _ in range(int(times)):
        with tempfile.TemporaryDirectory() as directory:
            pipeline = Pipeline(header.pipeline)
            writer = recorder(Path(directory), header.pipeline)
            pump = Pump(pipeline, Meter(0.25), writer)
            pump.takers.append(Latest())
            began = time.process_time()
            for batch in batches:
                pump.process(batch)
            worked += time.process_time() - began
            held = held or resident_mb() - before
            writer.close()
            states = pipeline.engine.instruments.values()
            assert all(state.book.state == "synced" for state in states)
            assert not pipeline.engine.rejected, pipeline.engine.rejected
    frames = sum(type(record) is Frame for record in inputs)
    return {"held_mb": held, "frames": frames, "cpu_us": worked / (int(times) * frames) * 1e6}


# ---------------------------------------------------------------------------------- map and risk


def update(path: str) -> Figures:
    """One asset on four venues through a simulated crash: its update, once a second, in parts.

    The engine publishes nothing meanwhile, so that nothing is taken twice.
    """
    from monitor.core.heatmap.pooling import published
    from tests.bench.load import asset
    from tests.bench.ours import CodecAndBook
    from tests.bench.plain import solved

    stream = Stream.load(Path(path))
    book = CodecAndBook(stream.snapshot)
    wire = asset(45.0)
    engine = wire.pipeline.engine
    engine._publish_ns = 1 << 62
    subject = engine.assets["BTC"]
    names = ("maps", "pooled", "risk", "solver", "plain", "depth")
    taken: dict[str, list[float]] = {name: [] for name in names}
    clock = time.thread_time_ns
    frames = iter(stream.frames)
    for _ in range(UPDATES):
        wire.run(1.0)
        at = wire.now
        start = clock()
        estimates = subject.estimates(at)
        maps = clock()
        together = subject.pooled(estimates)
        published(together)
        pooled = clock()
        subject.assess(at, estimates, together, engine.contagion)
        ended = clock()
        curves = [(now.depth.usd, now.fuel) for now in subject.situations.values()]
        assert len(estimates) == len(subject.instruments) == 4
        solving = clock()
        for depth, fuel in curves:
            _solve(depth, fuel)
        plainly = clock()
        for depth, fuel in curves:
            solved(depth, fuel)
        done = clock()
        spans = (maps - start, pooled - maps, ended - pooled, plainly - solving, done - plainly)
        for name, span in zip(names, spans, strict=False):
            taken[name].append(span)
        for frame in islice(frames, 62):
            start = clock()
            book.handle(frame)
            if is_depth(frame):
                taken["depth"].append(clock() - start)
    figures = {f"{name}_us": median(values) / 1000 for name, values in taken.items()}
    whole = [sum(row) for row in zip(*(taken[name] for name in names[:3]), strict=True)]
    return figures | {
        "whole_us": median(whole) / 1000,
        "most_us": max(whole) / 1000,
        "map_mb": _map_mb(subject),
    }


def _solve(depth: Any, fuel: Any) -> None:
    from monitor.core.cascade.loop import solve
    from tests.bench.plain import PSI, SCALE, SURVIVAL

    solve(depth, fuel, survival=SURVIVAL, scale=SCALE, psi=PSI, window=0.0025)


def _map_mb(subject: Any) -> float:
    """What one more map holds."""
    from monitor.core.heatmap.map import Map

    known = subject.instruments[0]
    before = resident_mb()
    maps = [Map(known.spec) for _ in range(MAPS)]
    for made in maps:
        made.mark(1, known.mark)
        made.open_interest(1, known.open_interest_base)
        made.mark(2, known.mark * 0.99)
        assert made.estimate(2) is not None
    return (resident_mb() - before) / MAPS


# ------------------------------------------------------------------------------------ journal


def journal(path: str) -> Figures:
    """Write a stream as a journal, read it back, and replay it."""
    from monitor.app import BATCH, Pump
    from monitor.events import Frame, Opened, Reply
    from monitor.feeds.replay import JournalFiles
    from monitor.journal import Header, encode
    from monitor.pipeline import Pipeline
    from monitor.sinks.metrics import Meter
    from tests.bench.ours import FEED, Machine, configured, recorder

    stream = Stream.load(Path(path))
    effective = configured([SYMBOL])
    maker = Machine([SYMBOL], None)
    records = [Opened(maker.at, FEED), *maker.inputs(stream.frames)]
    snapshot = Reply(maker.at, "binance", f"depth:{SYMBOL}", 200, stream.snapshot)
    first = next(n for n, record in enumerate(records) if type(record) is Frame)
    records.insert(first + 1, snapshot)
    plain_mb = sum(len(encode(record)) for record in records) / 1e6
    with tempfile.TemporaryDirectory() as directory:
        writer = recorder(Path(directory), effective)
        began = time.perf_counter()
        for record in records:
            writer.write(record)
            if writer.queued > 8:  # the pump would have taken the time for its own work
                time.sleep(0.001)
        writer.close()
        write_s = time.perf_counter() - began
        assert writer.lost_slow == writer.lost_disk == 0
        began = time.perf_counter()
        count = sum(1 for _ in JournalFiles([Path(directory)]))
        read_s = time.perf_counter() - began
        pipeline = Pipeline(effective)
        pump = Pump(pipeline, Meter(0.25))
        batch: list[Any] = []
        began = time.perf_counter()
        for record in JournalFiles([Path(directory)]):
            if isinstance(record, Header):
                continue
            batch.append(record)
            if len(batch) >= BATCH:
                pump.process(batch)
                batch = []
        pump.process(batch)
        replay_s = time.perf_counter() - began
    book = pipeline.engine.instruments[f"binance:{SYMBOL}"].book
    assert book.state == "synced"
    assert count == len(records) + 1
    return {
        "plain_mb": plain_mb,
        "write_mb_s": plain_mb / write_s,
        "read_mb_s": plain_mb / read_s,
        "ratio": plain_mb * 1e6 / writer.bytes_written,
        "replay_rate": len(records) / replay_s,
        "best": list(book.best()),
    }


TASKS: dict[str, Callable[..., Figures]] = {
    task.__name__: task
    for task in (handler, step, whole, publish, memory, load, growth, update, journal)
}


def main() -> None:
    core, task, *arguments = sys.argv[1:]
    pin(int(core))
    print(json.dumps(TASKS[task](*arguments)))


if __name__ == "__main__":
    main()
