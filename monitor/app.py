"""The composition root: builds everything, runs the pump, stops in order.

    feeds, HTTP, ticker -> Inbox -> (Recorder) -> Pipeline.step -> outboxes -> sinks
                              ^                        |
                              +---- commands obeyed <--+

Live and replay differ in the producers and in whether commands are obeyed.
"""

import asyncio
import hashlib
import logging
import os
import secrets
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress
from websockets.exceptions import InvalidURI

from monitor import __version__
from monitor.config import Config, ConfigError, PipelineConfig, RedisConfig
from monitor.events import (
    NS,
    Close,
    Command,
    Fetch,
    Input,
    Instrument,
    Message,
    Reply,
    Restored,
    Send,
    Undelivered,
)
from monitor.feeds.http import QUEUE_MAX, HttpFeed
from monitor.feeds.inbox import Inbox
from monitor.feeds.replay import JournalFiles
from monitor.feeds.ticker import ticker
from monitor.feeds.websocket import Pace, WebSocketFeed
from monitor.journal import SUFFIX, VERSION, Header
from monitor.logs import mask_url
from monitor.pipeline import Pipeline
from monitor.recordings import Format, unspecified, write_journal
from monitor.recordings import inputs as recorded_inputs
from monitor.revision import revision
from monitor.sinks.embedded import Embedded
from monitor.sinks.history import History
from monitor.sinks.keep import Keeper
from monitor.sinks.live import Live
from monitor.sinks.metrics import (
    Identity,
    Latest,
    Meter,
    Queue,
    Sink,
    Sources,
    Waiting,
    build_registry,
    watch_loop,
)
from monitor.sinks.mqtt import MqttSink
from monitor.sinks.outbox import Outbox
from monitor.sinks.recorder import QUEUE_CHUNKS, Recorder
from monitor.sinks.redis import RedisSink, Servers, masked
from monitor.sinks.sdnotify import Supervisor
from monitor.sinks.server import Server
from monitor.sinks.status import readiness, ready
from monitor.sinks.webhook import WebhookSink, webhook_sinks
from monitor.venues import VENUES

log = logging.getLogger(__name__)

BATCH = 256
"""Inputs taken before the loop is given to the others: a few milliseconds of work."""

DRAIN_S = 5.0
"""How long a stop may take for the state, for the other sinks and for Redis, one after the other;
together below every supervisor's grace."""

SOFTWARE = f"cascade-monitor {__version__}"


class Shard(Struct, frozen=True):
    """Which part of the assets this process owns: number `index` of `count`, from 0."""

    index: int = 0
    count: int = 1

    def owns(self, asset: str) -> bool:
        """Rendezvous hashing: a change of `count` moves the least number of assets."""

        def weight(index: int) -> bytes:
            return hashlib.sha256(f"{asset}:{index}".encode()).digest()

        return max(range(self.count), key=weight) == self.index


def pipeline_config(
    config: Config, specifications: Iterable[Instrument], shard: Shard
) -> PipelineConfig:
    """What the pure part needs to know: the enabled venues with the symbols of this shard.

    Raises:
        ConfigError: an unknown venue, or nothing to do.
    """
    venues = {}
    for name, venue in config.venues.items():
        if name not in VENUES:
            raise ConfigError(f"venues.{name}: unknown venue; known are {', '.join(VENUES)}")
        owned = {s: asset for s, asset in venue.instruments.items() if shard.owns(asset)}
        if venue.enabled and owned:
            venues[name] = msgspec.structs.replace(venue, instruments=owned)
    if not venues and shard.count > 1:
        fields = {"shard": f"{shard.index + 1}/{shard.count}", "assets": "none"}
        log.warning("shard_empty", extra={"fields": fields})
    elif not venues:
        raise ConfigError("nothing to follow: enable a venue in [venues.<name>] with instruments")
    wanted = {(name, symbol) for name, venue in venues.items() for symbol in venue.instruments}
    return PipelineConfig(
        venues,
        config.engine,
        [spec for spec in specifications if (spec.venue, spec.symbol) in wanted],
    )


def clock() -> Callable[[], int]:
    """Wall time in ns that always goes forward; where the machine's is set back, at half pace."""
    last = ticked = 0

    def now() -> int:
        nonlocal last, ticked
        before, ticked = ticked, time.monotonic_ns()
        last = max(time.time_ns(), last + (ticked - before) // 2 if before else 0)
        return last

    return now


def new_run() -> str:
    """A name for one run of the daemon: sorts by time, unique."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


# ------------------------------------------------------------------------------------ pump


class Pump:
    """Moves inputs from the inbox through the pipeline to recorder, feeds and outboxes.

    Attributes:
        feeds: by the name of their spec; empty in a replay, where commands are not obeyed.
        https: by venue; likewise.
        takers: accept every message; never wait.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        meter: Meter,
        recorder: Recorder | None = None,
        feeds: Mapping[str, WebSocketFeed] | None = None,
        https: Mapping[str, HttpFeed] | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.meter = meter
        self.feeds = feeds or {}
        self.https = https or {}
        self.takers: list[Outbox | Latest | MqttSink | WebhookSink | Live | History] = []
        self._recorder = recorder

    async def run(self, inbox: Inbox) -> None:
        """Until cancelled; never inside a batch."""
        while True:
            batch = await inbox.take(BATCH)
            self.process(batch)
            await asyncio.sleep(0)

    def process(self, batch: list[Input]) -> None:
        """Record and process some inputs, in order."""
        if batch:
            self.meter.advanced(batch[0].at)
        write = self._recorder.write if self._recorder is not None else None
        timed, step = self.meter.step, self.pipeline.step
        for record in batch:
            if write is not None:
                write(record)
            messages, commands = timed(step, record)
            if messages:
                for message in messages:
                    for taker in self.takers:
                        taker.put(message)
            if commands and self.feeds:
                for command in commands:
                    self._obey(command)

    def _obey(self, command: Command) -> None:
        match command:
            case Send(feed, data):
                self.feeds[feed].send(data)
            case Fetch(venue=venue):
                self.https[venue].fetch(command)
            case Close(feed, reason):
                self.feeds[feed].close(reason)


# ------------------------------------------------------------------------------------ live


async def run(
    config: Config,
    specifications: Iterable[Instrument],
    shard: Shard,
    *,
    now: Callable[[], int] | None = None,
    speed: float = 1.0,
    duration_s: float | None = None,
    resume: bool = True,
    on_stop: Callable[[Pipeline], None] | None = None,
) -> None:
    """The live daemon, until SIGTERM or SIGINT; a second signal ends it at once.

    Args:
        config: what to run.
        specifications: the static table of instruments.
        shard: which assets are ours.
        now: the clock, ns since the Unix epoch; the machine's unless given.
        speed: how many seconds of that clock pass in one of the machine's.
        duration_s: end by itself after so many of the machine's seconds.
        resume: whether to go on from the state that was saved, and to save it.
        on_stop: is shown the state when the end comes, while the feeds still stand.

    Raises:
        ConfigError: the configuration names nothing that can be done.
        EmbeddedError: the embedded Redis cannot be started.
        OSError: the HTTP address cannot be bound.
    """
    stop = _stop_on_signals()
    supervisor = Supervisor(os.environ)
    effective = pipeline_config(config, specifications, shard)
    pipeline = Pipeline(effective)
    inbox = Inbox(config.queue_length)
    now = now or clock()
    identity = _identity(config, new_run(), shard)
    feeds, https = _producers(pipeline, inbox, now)
    recorder = _recorder(config, identity.run, effective, now())
    meter = Meter(config.engine.tick_interval_ms / 1000, now)
    pump = Pump(pipeline, meter, recorder, feeds, https)
    sources = Sources(
        identity=identity,
        pipeline=pipeline,
        latest=Latest(),
        publish_interval_s=config.engine.publish_interval_ms / 1000,
        venue_interval_s=config.engine.venue_interval_ms / 1000,
        now=now,
        meter=meter,
        feeds=feeds,
        https=https,
        queues=_queues(inbox, https, recorder),
        journal=recorder,
    )
    log.info("started", extra={"fields": _told(identity)})
    async with AsyncExitStack() as stack:
        if recorder is not None:
            stack.push_async_callback(asyncio.to_thread, recorder.close)
        sources, keeper = await stack.enter_async_context(_serving(config, sources, pump))
        keeper = keeper if resume else None
        if keeper is not None:
            assets = {a for venue in effective.venues.values() for a in venue.instruments.values()}
            for asset, data in (await keeper.load(sorted(assets))).items():
                await inbox.put(Restored(now(), asset, data))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(feed.run(), name=f"feed {name}") for name, feed in feeds.items()
            ]
            tasks += [
                group.create_task(http.run(), name=f"http {venue}") for venue, http in https.items()
            ]
            ticking = ticker(inbox, config.engine.tick_interval_ms / speed, now)
            tasks.append(group.create_task(ticking, name="ticker"))
            tasks.append(group.create_task(watch_loop(meter), name="loop watch"))
            telling = supervisor.run(
                lambda: meter.idle_s,
                lambda: ready(readiness(sources, config.http)),
                config.http.ready_grace_s,
            )
            tasks.append(group.create_task(telling, name="supervisor"))
            if keeper is not None:
                saving = _keep(keeper, pipeline, config.redis.save_interval_s, now)
                tasks.append(group.create_task(saving, name="state keeper"))
            pumping = group.create_task(pump.run(inbox), name="pump")
            with suppress(TimeoutError):
                async with asyncio.timeout(duration_s):
                    await stop.wait()
            log.info("stopping", extra={"fields": {}})
            supervisor.tell("STOPPING=1", "STATUS=stopping")
            if on_stop is not None:
                on_stop(pipeline)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            pumping.cancel()
        pump.process(inbox.drain())
        if keeper is not None:
            await _keep_all(keeper, pipeline, now)
    fields = {"digest": pipeline.digest, "inputs": sum(pipeline.inputs.values())}
    log.info("stopped", extra={"fields": fields})


async def _keep(
    keeper: Keeper, pipeline: Pipeline, interval_s: float, now: Callable[[], int]
) -> None:
    """Save one asset after the other, each once an interval, until cancelled."""
    while True:
        assets = list(pipeline.engine.assets)
        for asset in assets:
            await asyncio.sleep(interval_s / len(assets))
            if data := pipeline.engine.state(asset, now()):
                await keeper.save(asset, data)
        if not assets:
            await asyncio.sleep(interval_s)


async def _keep_all(keeper: Keeper, pipeline: Pipeline, now: Callable[[], int]) -> None:
    """Save every asset, for at most `DRAIN_S`: the sinks have yet to deliver."""
    try:
        async with asyncio.timeout(DRAIN_S):
            for asset in pipeline.engine.assets:
                if data := pipeline.engine.state(asset, now()):
                    await keeper.save(asset, data)
    except TimeoutError:
        log.warning("state_saved_in_part", extra={"fields": {"deadline_s": DRAIN_S}})


def check(config: Config, specifications: Iterable[Instrument], shard: Shard) -> None:
    """Build what `run` would, and start nothing.

    Raises:
        ConfigError: something cannot be built.
    """
    pipeline = Pipeline(pipeline_config(config, specifications, shard))
    _producers(pipeline, Inbox(config.queue_length), clock())
    if config.redis.url != "embedded":
        RedisSink(config.redis, "check", Outbox(1, 1.0))
    if config.mqtt.enabled:
        MqttSink(config.mqtt, "check", Outbox(1, 1.0), _assets(pipeline))
    if config.webhook.enabled:
        webhook_sinks(config.webhook, "check", lambda *_: None)


def _producers(
    pipeline: Pipeline, inbox: Inbox, now: Callable[[], int]
) -> tuple[dict[str, WebSocketFeed], dict[str, HttpFeed]]:
    """The websocket feeds by name and the HTTP feeds by venue that the codecs want."""
    tls = ssl.create_default_context()
    feeds: dict[str, WebSocketFeed] = {}
    https: dict[str, HttpFeed] = {}
    for venue, codec in pipeline.codecs.items():
        pace = Pace()  # a venue counts connections per address
        try:
            for spec in codec.feeds:
                feeds[spec.name] = WebSocketFeed(spec, inbox, now, pace=pace, tls=tls)
            https[venue] = HttpFeed(venue, codec.http, inbox, now)
        except (InvalidURI, ValueError) as error:
            raise ConfigError(f"venues.{venue}: {error}") from error
    return feeds, https


def _assets(pipeline: Pipeline) -> list[str]:
    """Every asset that is followed, in order."""
    venues = [codec.config for codec in pipeline.codecs.values()]
    return sorted({asset for venue in venues for asset in venue.instruments.values()})


def _recorder(
    config: Config, run_id: str, effective: PipelineConfig, started_at: int
) -> Recorder | None:
    if not config.journal.enabled:
        return None
    directory = Path(config.state_directory) / config.journal.directory
    header = Header(VERSION, run_id, 0, started_at, SOFTWARE, effective)
    return Recorder(directory, header, config.journal)


def _queues(
    inbox: Inbox, https: Mapping[str, HttpFeed], recorder: Recorder | None
) -> dict[str, Queue]:
    queues = {"inbox": Queue(lambda: len(inbox), inbox.limit, lambda: inbox.waits)}
    for venue, http in https.items():
        queues[f"http.{venue}"] = Queue(http.__len__, QUEUE_MAX)
    if recorder is not None:
        queues["journal"] = Queue(lambda: recorder.queued, QUEUE_CHUNKS)
    return queues


def _identity(config: Config, run_id: str, shard: Shard) -> Identity:
    # The hash is public; that of a weak password could be guessed. And it is to be the same in all
    # shards, which have a directory and a port of their own.
    shown = msgspec.structs.replace(config.redis, url=mask_url(config.redis.url))
    public = msgspec.structs.replace(
        config,
        state_directory="",
        redis=shown,
        mqtt=msgspec.structs.replace(config.mqtt, password=""),
        http=msgspec.structs.replace(config.http, token="", port=0),
        webhook=msgspec.structs.replace(
            config.webhook, secret="", urls=[masked(url) for url in config.webhook.urls]
        ),
    )
    return Identity(
        run=run_id,
        version=__version__,
        revision=revision(),
        config_sha256=hashlib.sha256(msgspec.json.encode(public)).hexdigest(),
        shard="" if shard.count == 1 else f"{shard.index + 1}/{shard.count}",
    )


def _told(identity: Identity) -> dict[str, str]:
    return {key: str(value) for key, value in msgspec.to_builtins(identity).items() if value}


def _stop_on_signals() -> asyncio.Event:
    """Set by SIGTERM or SIGINT; a second one ends the process at once."""
    stop = asyncio.Event()

    def stopped() -> None:
        if stop.is_set():
            os._exit(128 + signal.SIGTERM)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped)
    return stop


@asynccontextmanager
async def _serving(
    config: Config, sources: Sources, pump: Pump
) -> AsyncIterator[tuple[Sources, Keeper | None]]:
    """Run the sinks around the pump; on the way out deliver what is pending.

    Yields the sources with the sinks, and what keeps the state for a warm restart; None without
    Redis.
    """
    pump.takers.append(sources.latest)
    keeper = settings = letters = None
    sinks: dict[str, Sink] = {}
    outboxes: dict[str, Waiting] = {}
    async with AsyncExitStack() as stack:
        if config.redis.enabled:
            settings = await _redis_settings(config, stack)
            keeper = Keeper(settings, sources.identity.run)
            stack.push_async_callback(keeper.close)
            sink, outbox = await _redis(settings, sources.identity, stack)
            sinks["redis"], outboxes["redis"] = sink, outbox
            letters = outbox
            pump.takers.append(outbox)
        # Closed before Redis, which takes the records of what they could not deliver.
        remotes = list(_remotes(config, sources, letters))
        stack.push_async_callback(_close, [remote for _, remote, _ in remotes])
        for name, remote, outbox in remotes:
            sinks[name], outboxes[name] = remote, outbox
            await stack.enter_async_context(_background(remote.run(), f"{name} sink"))
            pump.takers.append(remote)
        live = history = None
        if config.http.enabled:
            live = Live(sources)
            history = History(sources.identity.run, sources.now)
            sinks["page"], outboxes["page"] = live, live
            pump.takers += [live, history]
            # A replay is of another time than what is in Redis.
            if settings is not None and sources.meter is not None:
                servers = Servers(settings.url, settings.timeout_s, "cascade-monitor-history")
                recalling = history.recall(servers, settings.prefix, _assets(sources.pipeline))
                await stack.enter_async_context(_background(recalling, "history"))
        sources = msgspec.structs.replace(sources, sinks=sinks, outboxes=outboxes)
        if config.http.enabled:
            server = Server(config.http, sources, build_registry(sources), live, history)
            print(f"HTTP: {await server.start()}", file=sys.stderr)  # noqa: T201
            stack.push_async_callback(server.stop)
        yield sources, keeper


async def _redis_settings(config: Config, stack: AsyncExitStack) -> RedisConfig:
    """The settings with the address of a server that is there, started if it is our own."""
    settings = config.redis
    if settings.url == "embedded":
        embedded = Embedded(Path(config.state_directory) / "redis")
        settings = msgspec.structs.replace(settings, url=await embedded.start())
        print(f"Redis: {settings.url}", file=sys.stderr)  # noqa: T201  (asked for by people)
        stack.push_async_callback(embedded.stop)
        await stack.enter_async_context(_background(embedded.run(), "embedded redis"))
    return settings


async def _redis(
    settings: RedisConfig, identity: Identity, stack: AsyncExitStack
) -> tuple[RedisSink, Outbox]:
    outbox = Outbox(settings.queue_length, settings.state_ttl_s)
    sink = RedisSink(settings, identity.run, outbox, identity.shard)
    stack.push_async_callback(sink.close, DRAIN_S)
    await stack.enter_async_context(_background(sink.run(), "redis sink"))
    return sink, outbox


async def _close(remotes: Iterable[MqttSink | WebhookSink]) -> None:
    """Close all at once, so that several dead ones take no longer than one."""
    await asyncio.gather(*(remote.close(DRAIN_S) for remote in remotes))


def _remotes(
    config: Config, sources: Sources, letters: Outbox | None
) -> Iterator[tuple[str, MqttSink | WebhookSink, Outbox]]:
    """The sinks besides Redis, each with its name and its outbox."""
    run_id = sources.identity.run
    if config.mqtt.enabled:
        outbox = Outbox(config.mqtt.queue_length, config.mqtt.state_ttl_s)
        assets = _assets(sources.pipeline)
        yield "mqtt", MqttSink(config.mqtt, run_id, outbox, assets, sources.identity.shard), outbox
    # A replay calls nobody.
    if config.webhook.enabled and sources.meter is not None:
        numbers: dict[str, Iterator[int]] = {}

        def dead(message: Message, url: str, reason: str) -> None:
            if letters is not None:
                seq = next(numbers.setdefault(message.asset, count(1)))
                letter = Undelivered(message.seq, url, reason)
                letters.put(Message("undelivered", message.asset, seq, sources.now(), letter))

        for name, sink in webhook_sinks(config.webhook, run_id, dead).items():
            yield name, sink, sink.outbox


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Run a coroutine beside the body and cancel it at its end; its failure fails the body."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work, name=name)
        yield
        task.cancel()


# ---------------------------------------------------------------------------------- replay


class Replayed(Struct, frozen=True):
    """What came of a replay."""

    pipeline: Pipeline
    summary: dict[str, Any]


async def replay(
    journals: Iterable[Path],
    config: Config,
    *,
    speed: float | None,
    sinks: bool,
    stay: bool,
    on_end: Callable[[Replayed], None],
) -> None:
    """Process a journal under its own configuration, as fast as possible or at a given speed.

    Args:
        journals: files or directories of one run.
        config: for the sinks only.
        speed: how many times faster than recorded; None for as fast as possible.
        sinks: whether to feed Redis and serve HTTP.
        stay: whether to keep serving until a signal comes.
        on_end: is given the result, before staying.

    Raises:
        JournalError: not the journal of one run.
        OSError: a file cannot be read.
    """
    files = JournalFiles(dict.fromkeys(path.resolve() for path in journals))
    header = files.run()
    pipeline = Pipeline(header.pipeline)
    last = LastSeen()
    meter = Meter(header.pipeline.engine.tick_interval_ms / 1000)
    pump = Pump(pipeline, meter)
    sources = Sources(
        identity=_identity(config, header.run, Shard()),
        pipeline=pipeline,
        latest=Latest(),
        publish_interval_s=header.pipeline.engine.publish_interval_ms / 1000,
        venue_interval_s=header.pipeline.engine.venue_interval_ms / 1000,
        now=last.now,
    )
    stop = _stop_on_signals()
    async with AsyncExitStack() as stack:
        if sinks:
            await stack.enter_async_context(_serving(config, sources, pump))
        started = time.perf_counter()
        count = await _play(files, pump, last, speed, stop)
        elapsed = time.perf_counter() - started
        _warn_of_losses(files)
        summary = _summary(pipeline, files, count, elapsed) | {"interrupted": stop.is_set()}
        on_end(Replayed(pipeline, summary))
        if stay and not stop.is_set():
            log.info("replay_ended", extra={"fields": {"inputs": count, "stop": "Ctrl-C"}})
            await stop.wait()


class LastSeen:
    """The time of a replay: that of its last input."""

    def __init__(self) -> None:
        self.at = 0

    def now(self) -> int:
        """Nanoseconds since the epoch."""
        return self.at


async def _play(
    files: JournalFiles, pump: Pump, last: LastSeen, speed: float | None, stop: asyncio.Event
) -> int:
    """Process every input, in batches that leave the loop to the sinks; returns how many."""
    count = 0
    batch: list[Input] = []
    began_at, began = 0, time.monotonic()
    with _progress(files) as advance:
        for record in files:
            if isinstance(record, Header):
                continue
            if speed is not None:
                began_at = began_at or record.at
                wait = (record.at - began_at) / NS / speed - (time.monotonic() - began)
                if wait > 0:
                    pump.process(batch)
                    batch = []
                    with suppress(TimeoutError):
                        async with asyncio.timeout(wait):
                            await stop.wait()
            if stop.is_set():
                break
            batch.append(record)
            count += 1
            last.at = max(last.at, record.at)
            if len(batch) >= BATCH:
                pump.process(batch)
                batch = []
                advance(files.bytes_read)
                await asyncio.sleep(0)
        pump.process(batch)
    return count


@contextmanager
def _progress(files: JournalFiles) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("replay", total=files.bytes_total)
        yield lambda done: bar.update(task, completed=done)


def _warn_of_losses(files: JournalFiles) -> None:
    """Say what the journal lacks: a replay across a hole is not what happened."""
    for damage in files.damages:
        fields = {"file": damage.path.name, "offset": damage.offset, "reason": damage.reason}
        log.warning("journal_damaged", extra={"fields": fields | {"bytes": damage.skipped_bytes}})
    if files.holes:
        log.warning("journal_has_holes", extra={"fields": {"holes": files.holes}})


def _summary(pipeline: Pipeline, files: JournalFiles, count: int, elapsed: float) -> dict[str, Any]:
    journal = {
        "files": len(files.headers),
        "holes": files.holes,
        "damages": [
            {"file": d.path.name, "offset": d.offset, "reason": d.reason, "bytes": d.skipped_bytes}
            for d in files.damages
        ],
    }
    return {
        **pipeline.summary(),
        "journal": journal,
        "elapsed_s": round(elapsed, 3),
        "inputs_per_s": round(count / elapsed) if elapsed else 0,
    }


# ---------------------------------------------------------------------------------- import


def import_recording(
    kind: Format,
    sources: list[Path],
    out: Path,
    config: Config,
    specifications: list[Instrument],
) -> dict[str, Any]:
    """Write a public recording as a journal of ours; returns what was found.

    Raises:
        RecordingError: a source is not in that format.
        OSError: a file cannot be read, or `out` exists.
    """
    base = PipelineConfig(config.venues, config.engine, specifications)
    effective, records = recorded_inputs(kind, sources, base)
    found = {name: list(venue.instruments) for name, venue in effective.venues.items()}
    first = next(records)
    run_id = f"import-{first.at}"
    header = Header(VERSION, run_id, 0, first.at, SOFTWARE, effective)
    if out.is_dir():
        out = out / f"{run_id}{SUFFIX}"
    listed: set[str] = set()

    def noted() -> Iterator[Input]:
        for record in chain([first], records):
            if isinstance(record, Reply) and record.key.startswith(("instruments", "meta")):
                listed.add(record.venue)
            yield record

    counts = write_journal(out, header, noted())
    return {
        "journal": str(out),
        "instruments": found,
        "without_specification": unspecified(effective, listed),
        "inputs": counts,
    }
