"""What Prometheus reads: every figure is taken, at the scrape, from what the daemon already knows.

A scrape causes no work but reading, and nothing is kept for one: a symbol that is no longer known,
or a value whose input is stale, is absent from the next page instead of frozen on it. Counters are
always there, from 0, for every label value that can occur.
`docs/metrics.md` has a row per metric; a test keeps the two equal.

The feeds are siblings that must not be imported here, so what is read of them stands in Protocols;
`app` puts the real ones into `Sources`.
"""

import asyncio
import platform
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import isfinite
from typing import Any, Final, Protocol, TypeVar

from msgspec import Struct
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest

from monitor.core.engine import DELAY_BOUNDS_S
from monitor.core.instrument import InstrumentState
from monitor.events import (
    NS,
    Depth,
    Frame,
    Heatmap,
    Input,
    Lost,
    Message,
    Opened,
    Reply,
    Restored,
    Risk,
    Tick,
)
from monitor.pipeline import Pipeline
from monitor.sinks.families import BANDS, FAMILIES, Family, Row, counter, gauge, histogram, info
from monitor.sinks.outbox import STATE_KINDS
from monitor.sinks.risk_metrics import risk_rows
from monitor.venues.base import REASONS, Stream

HORIZONS_S: Final = {"5m": 300, "1h": 3600}
"""Spans of realised volatility, and their label."""

STALE_S: Final = 120.0
"""An input unheard for so long is not shown any more, unless its stream may be quiet for longer."""

PUBLISHED_STALE_S: Final = 10.0
"""A published snapshot is stale after this, or `PUBLISHED_MISSED` intervals if that is more."""

PUBLISHED_MISSED: Final = 3

BOOK_REASONS: Final = ("crossed", "too_many_levels")
"""Why the engine refuses a book, besides the `REASONS` of the codecs."""

STEP_BOUNDS_S: Final = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 1e-2, 1e-1)
"""A delta takes some 10 microseconds; a tick that publishes, milliseconds."""

LOOP_LAG_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

SAMPLE_EVERY: Final = 31
"""One step in so many is timed; a prime, so as not to fall into step with periodic inputs."""

INPUT_KINDS: Final[Mapping[type, str]] = {
    Frame: "frame",
    Reply: "reply",
    Opened: "opened",
    Lost: "lost",
    Tick: "tick",
    Restored: "restored",
}

CARRIERS: Final[Mapping[str, tuple[str, ...]]] = {
    "mark": ("ticker",),
    "index": ("index",),
    "open_interest": ("open_interest", "ticker"),
    "funding": ("funding", "ticker", "mark"),
}
"""The channel that carries a value, the first of these that an instrument has.

Some venues send a value only when it changes (Bybit's ticker): it is as fresh as its channel is.
"""

ANSWER_CLASSES: Final = ("2xx", "3xx", "4xx", "5xx", "other")

T = TypeVar("T")


# -------------------------------------------------------------------------- what is read


class Identity(Struct, frozen=True):
    """Which process this is. `shard` is ``i/n``, or empty for all assets."""

    run: str
    version: str
    revision: str
    config_sha256: str
    shard: str = ""


class Feed(Protocol):
    """What is read of a websocket feed (`feeds.websocket.WebSocketFeed`)."""

    connected: bool
    attempts: int
    connects: int
    failures: dict[str, int]
    losses: dict[str, int]
    messages: int
    bytes: int
    sent: int
    unsent: int
    last_reason: str


class Http(Protocol):
    """What is read of a venue's HTTP feed (`feeds.http.HttpFeed`)."""

    requests: int
    answers: dict[int, int]
    failures: dict[str, int]
    pauses: dict[int, int]
    dropped: int
    bytes: int
    paused_until: int
    last_reason: str


class Sink(Protocol):
    """What is read of a sink behind an outbox (`sinks.redis.RedisSink`)."""

    sent: int
    connected: bool
    last_success_at: float

    @property
    def errors(self) -> Mapping[Any, int]:
        """Failures by reason."""


class Waiting(Protocol):
    """What is read of the messages that wait for a sink (`sinks.outbox.Outbox`)."""

    limit: int

    @property
    def discarded_intentional(self) -> int:
        """States replaced by a newer one."""

    @property
    def discarded_unintentional(self) -> int:
        """Messages lost."""

    def __len__(self) -> int:
        """How many wait."""


class Journal(Protocol):
    """What is read of the recording (`sinks.recorder.Recorder`)."""

    records: int
    lost_slow: int
    lost_disk: int
    errors: int
    files: int
    bytes_written: int
    paused: bool
    last_success_at: float


class Queue(Struct, frozen=True):
    """A bounded queue: how many wait now, of at most how many, and how often somebody had to."""

    length: Callable[[], int]
    limit: int
    waits: Callable[[], int] | None = None


class Histogram:
    """Counts of observations by upper bound, the last for everything above."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Meter:
    """What the pump tells about its own progress.

    Attributes:
        steps: how long steps of the pipeline took, a sample of them.
        loop_lags: how late timers of the event loop fired.
    """

    def __init__(
        self,
        tick_interval_s: float,
        now: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`now` is in nanoseconds since the epoch, `clock` in seconds and never steps back."""
        self.steps = Histogram(STEP_BOUNDS_S)
        self.loop_lags = Histogram(LOOP_LAG_BOUNDS_S)
        self._tick_interval_s = tick_interval_s
        self._now = now
        self._clock = clock
        self._began = clock()
        self._advanced = self._began
        self._lag_s = 0.0
        self._countdown = SAMPLE_EVERY

    def advanced(self, at: int) -> None:
        """The pump took a batch of inputs, of which the oldest was received at `at` (ns)."""
        self._advanced = self._clock()
        self._lag_s = max(0.0, (self._now() - at) / NS)

    def step(self, step: Callable[[Input], T], record: Input) -> T:
        """Run one step, and take its time if it is its turn."""
        self._countdown -= 1
        if self._countdown:
            return step(record)
        self._countdown = SAMPLE_EVERY
        began = self._clock()
        result = step(record)
        self.steps.add(self._clock() - began)
        return result

    @property
    def uptime_s(self) -> float:
        """Seconds since this was made."""
        return self._clock() - self._began

    @property
    def idle_s(self) -> float:
        """Seconds since the pump last took something. Ticks are inputs, so this stays small."""
        return self._clock() - self._advanced

    @property
    def lag_s(self) -> float:
        """How long inputs wait for the engine.

        What has come since a pump that stands still took its last batch waits, too.
        """
        return max(self._lag_s, self.idle_s - self._tick_interval_s)


async def watch_loop(meter: Meter, interval_s: float = 0.1) -> None:
    """Measure how late a timer fires, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval_s
        await asyncio.sleep(interval_s)
        meter.loop_lags.add(max(0.0, loop.time() - due))


class Latest:
    """The newest message of each kind, asset and venue: what metrics and the API show.

    Bounded by the kinds times the configured assets and venues.
    """

    def __init__(self) -> None:
        self.sequences: dict[tuple[str, str, str], int] = {}
        self.states: dict[tuple[str, str, str], Message] = {}

    def put(self, message: Message) -> None:
        """Take note of a message. Never waits."""
        self.sequences[message.topic] = message.seq
        if message.kind in STATE_KINDS:
            self.states[message.topic] = message


class Sources(Struct, frozen=True, kw_only=True):
    """Everything the metrics are read from. Without feeds and a meter it serves a replay.

    Attributes:
        publish_interval_s: how often a snapshot of each asset is published.
        venue_interval_s: how often that of each venue is.
        now: nanoseconds since the epoch, in a replay the time of its last input.
        feeds: by the name of their `FeedSpec`.
        https: by venue.
        queues: by the value of label ``queue``.
        sinks: by the value of label ``sink``.
        outboxes: by the same.
    """

    identity: Identity
    pipeline: Pipeline
    latest: Latest
    publish_interval_s: float
    venue_interval_s: float = 5.0
    now: Callable[[], int] = time.time_ns
    meter: Meter | None = None
    feeds: Mapping[str, Feed] = {}
    https: Mapping[str, Http] = {}
    queues: Mapping[str, Queue] = {}
    sinks: Mapping[str, Sink] = {}
    outboxes: Mapping[str, Waiting] = {}
    journal: Journal | None = None


# ------------------------------------------------------------------------- what is shown


_BUILD = info("build", "Which software runs.", "version", "revision", "python")
_CONFIG = info("config", "Which configuration runs.", "sha256")

_CONNECTED = gauge("feed_connected", "1 while the socket is open.", "venue", "feed")
_CONNECTS = counter("feed_connects", "Websocket handshakes that succeeded.", "venue", "feed")
_FAILURES = counter("feed_connect_failures", "Attempts to connect that failed.", "venue", "reason")
_LOSSES = counter("feed_losses", "Open connections that ended.", "venue", "reason")
_FRAMES = counter("feed_frames", "Websocket messages received.", "venue", "feed")
_BYTES = counter("feed_bytes", "Payload bytes of the messages received.", "venue", "feed")
_SENT = counter("feed_sent", "Websocket messages sent.", "venue", "feed")
_UNSENT = counter("feed_unsent", "Messages dropped for want of a connection.", "venue", "feed")
_MESSAGES = counter(
    "feed_messages", "Messages of subscribed streams that were used.", "venue", "channel"
)
_LAST_MESSAGE = gauge(
    "feed_last_message_timestamp_seconds",
    "When a channel was last heard, over all its symbols.",
    "venue",
    "channel",
)
_DECODE_ERRORS = counter("feed_decode_errors", "Remote input that was refused.", "venue", "reason")
_DELAY = histogram("feed_delay_seconds", "Receive time less the venue's time, at least 0.", "venue")
_SKEW = counter(
    "feed_clock_skew", "Messages that the venue's clock dates after their receipt.", "venue"
)
_SILENT = gauge(
    "stream_silent",
    "1 while a stream that must not be quiet is, or is not subscribed.",
    "venue",
    "symbol",
    "channel",
)

_REQUESTS = counter("http_requests", "HTTP requests made.", "venue")
_ANSWERS = counter("http_answers", "HTTP answers by class of status.", "venue", "status")
_HTTP_FAILURES = counter("http_failures", "HTTP requests without an answer.", "venue", "reason")
_PAUSES = counter("http_pauses", "Times the venue made us pause.", "venue", "status")
_PAUSED = gauge("http_paused", "1 while no request may be made.", "venue")
_DROPPED = counter("http_dropped", "HTTP requests dropped from a full queue.", "venue")
_HTTP_BYTES = counter("http_bytes", "Payload bytes of HTTP answers.", "venue")

_GAPS = counter("book_gaps", "Times a book lost its sequence or contradicted itself.", "venue")
_RESYNCS = counter("book_resyncs", "Stale books made true again.", "venue")
_SYNCED = gauge("book_synced", "1 while the book is true.", "venue", "symbol")
_HEARD = gauge(
    "instrument_heard_timestamp_seconds",
    "When an input of an instrument was last heard.",
    "venue",
    "symbol",
    "input",
)

_DEPTH = gauge(
    "depth_usd",
    "Resting USD within a distance of the mid price, over all synced books; a lower bound.",
    "asset",
    "direction",
    "band",
)
_COMPLETE = gauge(
    "depth_complete",
    "1 if every book of the asset is synced and known to reach that far.",
    "asset",
    "direction",
    "band",
)
_OPEN_INTEREST = gauge("open_interest_usd", "One-sided open interest.", "venue", "asset")
_FUNDING = gauge(
    "funding_rate_ratio", "Funding rate per 8 hours, positive when longs pay.", "venue", "asset"
)
_BASIS = gauge("basis_ratio", "Mark price over index price, less one.", "venue", "asset")
_MARK = gauge("mark_price_usd", "Mark price of one unit of the asset.", "venue", "asset")
_VOLATILITY = gauge(
    "volatility_ratio",
    "Realised volatility over the horizon, not annualised.",
    "venue",
    "asset",
    "horizon",
)
_LIQUIDATED = counter(
    "liquidations_usd",
    "Forced closes that the venue reported, by the side of the position.",
    "venue",
    "asset",
    "side",
)

_INPUTS = counter("engine_inputs", "Inputs taken by the pipeline.", "kind")
_UNROUTED = counter("engine_unrouted", "Inputs of feeds or venues that are not configured.")
_STEP = histogram(
    "engine_step_seconds", f"Time of one step of the pipeline; 1 in {SAMPLE_EVERY} is timed."
)
_LAG = gauge("engine_lag_seconds", "How long inputs wait for the engine.")
_LOOP_LAG = histogram("event_loop_lag_seconds", "How late a timer of the event loop fires.")
_SEQUENCE = gauge("snapshot_sequence", "Number of the last message published.", "kind", "asset")
_QUEUE_LENGTH = gauge("queue_length", "What waits in a queue.", "queue")
_QUEUE_LIMIT = gauge("queue_limit", "How much a queue holds.", "queue")
_QUEUE_WAITS = counter("queue_waits", "Times a producer met a full queue.", "queue")

_SINK_SENT = counter("sink_sent", "Messages whose delivery was confirmed.", "sink")
_SINK_ERRORS = counter("sink_errors", "Attempts to deliver that failed.", "sink", "reason")
_SINK_DISCARDED = counter(
    "sink_discarded",
    "Messages not delivered: replaced by newer state (intentional), or lost.",
    "sink",
    "intentional",
)
_SINK_CONNECTED = gauge("sink_connected", "1 if the last exchange went through.", "sink")
_SINK_SUCCESS = gauge(
    "sink_last_success_timestamp_seconds", "When something was last delivered.", "sink"
)

_JOURNAL_RECORDS = counter("journal_records", "Inputs accepted for recording.")
_JOURNAL_LOST = counter("journal_lost_records", "Inputs that could not be recorded.", "reason")
_JOURNAL_BYTES = counter("journal_bytes", "Compressed bytes written.")
_JOURNAL_FILES = counter("journal_files", "Files begun.")
_JOURNAL_ERRORS = counter("journal_errors", "Attempts to write that failed.")
_JOURNAL_PAUSED = gauge("journal_paused", "1 while the disk refuses writes.")


def build_registry(sources: Sources) -> CollectorRegistry:
    """A registry of our own, with the process's and the garbage collector's metrics."""
    registry = CollectorRegistry()
    registry.register(Collector(sources))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def exposition(registry: CollectorRegistry, accept_header: str) -> tuple[str, bytes]:
    """Content type and page, in the format that an Accept header asks for."""
    try:
        encoder, content_type = choose_encoder(accept_header)
    except (TypeError, ValueError):  # the library stumbles over a version that is no number
        encoder, content_type = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
    return content_type, encoder(registry)


class Collector:
    """Reads the sources at each scrape."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._identity = sources.identity

    def describe(self) -> Iterable[Metric]:
        """What will be collected, without collecting it."""
        return [_empty(family) for family in FAMILIES]

    def collect(self) -> Iterable[Metric]:
        """Everything known now."""
        families = {family.name: _empty(family) for family in FAMILIES}
        view = View(self._sources)
        for family, labels, value in self._rows(view):
            if isfinite(value):
                families[family.name].add_metric(labels, float(value))
        for family, labels, bounds, counts, total in self._histograms():
            families[family.name].add_metric(labels, _buckets(bounds, counts), total)
        for family, values in self._infos():
            families[family.name].add_metric((), dict(zip(family.labels, values, strict=True)))
        return families.values()

    def _rows(self, view: "View") -> Iterator[Row]:
        yield from _feed_rows(view)
        yield from _stream_rows(view)
        yield from _http_rows(view)
        yield from _book_rows(view)
        yield from _depth_rows(view)
        yield from risk_rows(view)
        yield from _market_rows(view)
        yield from _engine_rows(view)
        yield from _sink_rows(view)
        yield from _journal_rows(view)

    def _infos(self) -> Iterator[tuple[Family, tuple[str, ...]]]:
        identity = self._identity
        yield _BUILD, (identity.version, identity.revision, platform.python_version())
        yield _CONFIG, (identity.config_sha256,)

    def _histograms(
        self,
    ) -> Iterator[tuple[Family, tuple[str, ...], tuple[float, ...], list[int], float]]:
        none = [0] * (len(DELAY_BOUNDS_S) + 1)
        delays = self._sources.pipeline.engine.delays
        for venue in self._sources.pipeline.codecs:
            known = delays.get(venue)
            counts, total = (known.counts, known.sum_s) if known else (none, 0.0)
            yield _DELAY, (venue,), DELAY_BOUNDS_S, counts, total
        meter = self._sources.meter
        if meter is not None:
            for family, kept in ((_STEP, meter.steps), (_LOOP_LAG, meter.loop_lags)):
                yield family, (), kept.bounds, kept.counts, kept.total


class View:
    """The sources at the moment of one scrape, and what of them is fresh."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.codecs = sources.pipeline.codecs
        self.engine = sources.pipeline.engine
        self.at = sources.now()
        self._carriers = {(stream.instrument, stream.channel): stream for stream in self.streams()}

    def streams(self) -> Iterator[Stream]:
        """Every stream of every venue."""
        for codec in self.codecs.values():
            yield from codec.streams.values()

    def pools(self) -> Iterator[tuple[str, str, list[InstrumentState]]]:
        """(venue, asset, its instruments as configured, the first of which speaks for them)."""
        for venue, codec in self.codecs.items():
            pools: dict[str, list[InstrumentState]] = {}
            for symbol in codec.assets:
                state = self.engine.instruments.get(f"{venue}:{symbol}")
                if state is not None:
                    pools.setdefault(state.spec.asset, []).append(state)
            for asset, states in pools.items():
                yield venue, asset, states

    def mark(self, state: InstrumentState) -> float | None:
        """The mark price, if fresh."""
        return state.mark if self._is_fresh(state, "mark", state.mark_at) else None

    def index(self, state: InstrumentState) -> float | None:
        """The index price, if fresh; it comes with the mark unless it has a channel of its own."""
        own = self._carrier(state, "index")
        fresh = self._is_fresh(state, "index" if own else "mark", 0 if own else state.mark_at)
        return state.index if fresh else None

    def basis(self, state: InstrumentState) -> float | None:
        """The basis, if both prices are fresh."""
        known = self.mark(state) is not None and self.index(state) is not None
        return state.basis if known else None

    def funding(self, state: InstrumentState) -> float | None:
        """The funding rate per 8 hours, if fresh."""
        if state.funding is None:
            return None
        fresh = self._is_fresh(state, "funding", state.funding.sent_at)
        return state.funding.rate_8h if fresh else None

    def open_interest(self, state: InstrumentState) -> float | None:
        """Open interest in USD, if fresh."""
        fresh = self._is_fresh(state, "open_interest", state.open_interest_at)
        return state.open_interest_usd if fresh else None

    def depth(self, asset: str) -> Depth | None:
        """The last published depth of an asset, unless it is old or no book is synced any more."""
        known = self.engine.assets.get(asset)
        states = known.instruments if known is not None else ()
        synced = any(state.book.state == "synced" for state in states)
        message = self.message("depth", asset)
        return message.data if synced and message is not None else None  # type: ignore[return-value]

    def heatmap(self, asset: str) -> Heatmap | None:
        """The last published map of an asset, unless it is old."""
        message = self.message("heatmap", asset)
        return message.data if message is not None else None  # type: ignore[return-value]

    def risk(self, asset: str) -> Risk | None:
        """The last published risk of an asset, unless it is old."""
        message = self.message("risk", asset)
        return message.data if message is not None else None  # type: ignore[return-value]

    def message(self, kind: str, asset: str, venue: str = "") -> Message | None:
        """The last message of a state, unless the engine has stopped publishing it."""
        message = self.sources.latest.states.get((kind, asset, venue))
        if message is None:
            return None
        interval_s = self.sources.venue_interval_s if venue else self.sources.publish_interval_s
        most_s = max(PUBLISHED_STALE_S, PUBLISHED_MISSED * interval_s)
        return message if self._age_s(message.at) <= most_s else None

    def _is_fresh(self, state: InstrumentState, value: str, at: int) -> bool:
        """Whether a value heard at `at`, or the channel that carries it, is not too old."""
        carrier = self._carrier(state, value)
        newest, most_ns = at, int(STALE_S * NS)
        if carrier is not None:
            newest = max(at, carrier.heard_at)
            most_ns = max(most_ns, carrier.patience_ns or 0)
        return newest > 0 and self.at - newest <= most_ns

    def _carrier(self, state: InstrumentState, value: str) -> Stream | None:
        for channel in CARRIERS[value]:
            carrier = self._carriers.get((state.spec.name, channel))
            if carrier is not None:
                return carrier
        return None

    def _age_s(self, at: int) -> float:
        return (self.at - at) / NS


# --------------------------------------------------------------------- reading the sources


def _feed_rows(view: View) -> Iterator[Row]:
    for venue, codec in view.codecs.items():
        failures: dict[str, int] = defaultdict(int)
        losses: dict[str, int] = defaultdict(int)
        for spec in codec.feeds:
            feed = view.sources.feeds.get(spec.name)
            labels = (venue, spec.name)
            if feed is None:  # a replay
                yield _CONNECTED, labels, view.engine.connected.get(spec.name, False)
                continue
            yield _CONNECTED, labels, feed.connected
            yield _CONNECTS, labels, feed.connects
            yield _FRAMES, labels, feed.messages
            yield _BYTES, labels, feed.bytes
            yield _SENT, labels, feed.sent
            yield _UNSENT, labels, feed.unsent
            for reason, count in feed.failures.items():
                failures[reason] += count
            for reason, count in feed.losses.items():
                losses[reason] += count
        for reason, count in failures.items():
            yield _FAILURES, (venue, reason), count
        for reason, count in losses.items():
            yield _LOSSES, (venue, reason), count


def _stream_rows(view: View) -> Iterator[Row]:
    for venue, codec in view.codecs.items():
        messages: dict[str, int] = defaultdict(int)
        heard: dict[str, int] = defaultdict(int)
        silent: dict[tuple[str, str], bool] = defaultdict(bool)
        for stream in codec.streams.values():
            messages[stream.channel] += stream.messages
            heard[stream.channel] = max(heard[stream.channel], stream.heard_at)
            if stream.patience_ns is not None:
                symbol = stream.symbol or stream.instrument.partition(":")[2]
                silent[symbol, stream.channel] |= stream.silent or not stream.active
        for channel, count in messages.items():
            yield _MESSAGES, (venue, channel), count
        for channel, at in heard.items():
            if at:
                yield _LAST_MESSAGE, (venue, channel), at / NS
        for (symbol, channel), quiet in silent.items():
            yield _SILENT, (venue, symbol, channel), quiet
        known = {reason for of, reason in view.engine.rejected if of == venue}
        for reason in dict.fromkeys((*REASONS, *BOOK_REASONS, *sorted(known))):
            yield _DECODE_ERRORS, (venue, reason), view.engine.rejected.get((venue, reason), 0)
        delays = view.engine.delays.get(venue)
        yield _SKEW, (venue,), delays.skewed if delays else 0


def _http_rows(view: View) -> Iterator[Row]:
    for venue in view.codecs:
        http = view.sources.https.get(venue)
        if http is None:
            continue
        yield _REQUESTS, (venue,), http.requests
        yield _DROPPED, (venue,), http.dropped
        yield _HTTP_BYTES, (venue,), http.bytes
        yield _PAUSED, (venue,), http.paused_until > view.at
        for reason, count in http.failures.items():
            yield _HTTP_FAILURES, (venue, reason), count
        for status, count in http.pauses.items():
            yield _PAUSES, (venue, str(status)), count
        answers = dict.fromkeys(ANSWER_CLASSES, 0)
        for status, count in http.answers.items():
            kind = f"{status // 100}xx"
            answers[kind if kind in answers else "other"] += count
        for kind, count in answers.items():
            yield _ANSWERS, (venue, kind), count


def _book_rows(view: View) -> Iterator[Row]:
    resyncs = dict.fromkeys(view.codecs, 0)
    for state in view.engine.instruments.values():
        spec = state.spec
        resyncs[spec.venue] = resyncs.get(spec.venue, 0) + state.book.resyncs
        yield _SYNCED, (spec.venue, spec.symbol), state.book.state == "synced"
        for name, at in (
            ("book", state.book_at),
            ("mark", state.mark_at),
            ("open_interest", state.open_interest_at),
        ):
            if at:
                yield _HEARD, (spec.venue, spec.symbol, name), at / NS
    for venue, count in resyncs.items():
        yield _RESYNCS, (venue,), count
        yield _GAPS, (venue,), view.engine.gaps.get(venue, 0)


def _depth_rows(view: View) -> Iterator[Row]:
    for asset in view.engine.assets:
        depth = view.depth(asset)
        if depth is None:
            continue
        for band in depth.bands:
            label = BANDS.get(band.distance)
            if label is None:
                continue
            # A falling price is caught by the bids, a rising one by the asks.
            yield _DEPTH, (asset, "down", label), band.bid_usd
            yield _DEPTH, (asset, "up", label), band.ask_usd
            yield _COMPLETE, (asset, "down", label), band.bid_complete
            yield _COMPLETE, (asset, "up", label), band.ask_complete


def _market_rows(view: View) -> Iterator[Row]:
    for venue, asset, states in view.pools():
        for side in ("long", "short"):
            total = sum(state.liquidated_usd[side] for state in states)
            yield _LIQUIDATED, (venue, asset, side), total
        # A sum that lacks a part would look like a fall: all of them, or none.
        interests = [view.open_interest(state) for state in states]
        known = [usd for usd in interests if usd is not None]
        if len(known) == len(interests):
            yield _OPEN_INTEREST, (venue, asset), sum(known)
        first = states[0]
        mark, basis, funding = view.mark(first), view.basis(first), view.funding(first)
        if mark is not None:
            yield _MARK, (venue, asset), mark / first.spec.multiplier
        if basis is not None:
            yield _BASIS, (venue, asset), basis
        if funding is not None:
            yield _FUNDING, (venue, asset), funding
        for horizon, seconds in HORIZONS_S.items():
            realised = first.volatility.realised(view.at, seconds)
            if realised is not None:
                yield _VOLATILITY, (venue, asset, horizon), realised


def _engine_rows(view: View) -> Iterator[Row]:
    sources = view.sources
    for type_, kind in INPUT_KINDS.items():
        yield _INPUTS, (kind,), sources.pipeline.inputs[type_]
    yield _UNROUTED, (), sources.pipeline.unrouted
    if sources.meter is not None:
        yield _LAG, (), sources.meter.lag_s
    for (message, asset, venue), number in sources.latest.sequences.items():
        if not venue:
            yield _SEQUENCE, (message, asset), number
    for name, queue in sources.queues.items():
        yield _QUEUE_LENGTH, (name,), queue.length()
        yield _QUEUE_LIMIT, (name,), queue.limit
        if queue.waits is not None:
            yield _QUEUE_WAITS, (name,), queue.waits()


def _sink_rows(view: View) -> Iterator[Row]:
    for name, sink in view.sources.sinks.items():
        yield _SINK_SENT, (name,), sink.sent
        yield _SINK_CONNECTED, (name,), sink.connected
        for reason, count in sink.errors.items():
            yield _SINK_ERRORS, (name, reason), count
        if sink.last_success_at:
            yield _SINK_SUCCESS, (name,), sink.last_success_at
    for name, outbox in view.sources.outboxes.items():
        yield _SINK_DISCARDED, (name, "true"), outbox.discarded_intentional
        yield _SINK_DISCARDED, (name, "false"), outbox.discarded_unintentional
        yield _QUEUE_LENGTH, (name,), len(outbox)
        yield _QUEUE_LIMIT, (name,), outbox.limit


def _journal_rows(view: View) -> Iterator[Row]:
    journal = view.sources.journal
    if journal is None:
        return
    yield _JOURNAL_RECORDS, (), journal.records
    yield _JOURNAL_LOST, ("slow",), journal.lost_slow
    yield _JOURNAL_LOST, ("disk",), journal.lost_disk
    yield _JOURNAL_BYTES, (), journal.bytes_written
    yield _JOURNAL_FILES, (), journal.files
    yield _JOURNAL_ERRORS, (), journal.errors
    yield _JOURNAL_PAUSED, (), journal.paused
    if journal.last_success_at:
        yield _SINK_SUCCESS, ("journal",), journal.last_success_at


def _empty(family: Family) -> Any:  # noqa: ANN401  (four classes whose `add_metric` differ)
    match family.kind:
        case "counter":
            return CounterMetricFamily(family.name, family.help, labels=family.labels)
        case "gauge":
            return GaugeMetricFamily(family.name, family.help, labels=family.labels)
        case "histogram":
            return HistogramMetricFamily(family.name, family.help, labels=family.labels)
        case "info":
            return InfoMetricFamily(family.name.removesuffix("_info"), family.help)


def _buckets(bounds: tuple[float, ...], counts: list[int]) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound."""
    total = 0
    buckets = []
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets
