"""The daemon's own HTTP server: metrics, health and status, on the daemon's own event loop.

It shares the loop on purpose: a wedged loop shows as a failed scrape and a failed probe. It only
reads; nothing that can be asked here changes anything, and no secret is known to it.

``/healthz`` says whether the process makes progress, so that a supervisor knows when to restart it;
a dead venue or Redis is no reason to. ``/readyz`` says whether what it publishes can be used.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec
from aiohttp import web
from msgspec import Struct
from prometheus_client import CollectorRegistry

from monitor.config import HttpConfig
from monitor.core.instrument import InstrumentState
from monitor.events import NS
from monitor.pipeline import Pipeline
from monitor.sinks.api import Api, answer
from monitor.sinks.metrics import Feed, Http, Journal, Queue, Sink, Sources, View, exposition
from monitor.venues.base import Stream

ALIVE_IDLE_S: Final = 30.0
"""A pump that took nothing for so long is wedged: ticks come several times a second."""

SHUTDOWN_S: Final = 2.0
"""How long requests that are being answered may take when the server stops."""

REJECTED_EVERY_S: Final = 10.0
REJECTED_KEPT: Final = 7
"""Refusals are noted every so often, and so many times: that makes the last minute."""

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "cascade-monitor",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer."""

PAGES: Final = {
    "/metrics": "metrics for Prometheus",
    "/healthz": "whether the process makes progress",
    "/readyz": "whether what it publishes can be used",
    "/status": "everything in detail",
    "/api/v1/assets": "what is known of each asset; its maps below",
}

_Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)


class ServerError(OSError):
    """The server cannot listen; the message says where, why and what to change."""


# ------------------------------------------------------------------------------- health


class Health(Struct, frozen=True):
    """A verdict and why it is not a better one."""

    ok: bool
    reasons: list[str]


class Readiness(Struct, frozen=True, kw_only=True):
    """What readiness depends on.

    Attributes:
        uptime_s: since the start.
        grace_s: how long after the start a first sync may take.
        required: books that are synced, by required venue.
        lag_s: how long inputs wait for the engine; None where nothing measures it.
        lag_limit_s: how long they may.
        sinks: whether each configured sink works.
    """

    uptime_s: float
    grace_s: float
    required: Mapping[str, int]
    lag_s: float | None
    lag_limit_s: float
    sinks: Mapping[str, bool]


def alive(idle_s: float | None, limit_s: float = ALIVE_IDLE_S) -> Health:
    """Whether a pump makes progress that last took something `idle_s` ago; None without one."""
    if idle_s is None or idle_s <= limit_s:
        return Health(ok=True, reasons=[])
    reason = f"the engine has taken nothing for {idle_s:.1f} s, at most {limit_s:g} s are allowed"
    return Health(ok=False, reasons=[reason])


def ready(facts: Readiness) -> Health:
    """Whether what is published can be used.

    Every required venue has a synced book, inputs do not wait too long, and one sink works if any
    is configured. The grace changes no verdict: it tells a start that is under way from a failure.
    """
    reasons = []
    starting = facts.uptime_s < facts.grace_s
    for venue, synced in facts.required.items():
        if not synced:
            still = f"; {facts.uptime_s:.0f} s of {facts.grace_s:g} s for the start have passed"
            reasons.append(f"{venue}: no book is synced{still if starting else ''}")
    if facts.lag_s is not None and facts.lag_s > facts.lag_limit_s:
        reasons.append(
            f"inputs wait {facts.lag_s:.1f} s, at most {facts.lag_limit_s:g} s are useful"
        )
    if facts.sinks and not any(facts.sinks.values()):
        reasons.append(f"no sink works: {', '.join(facts.sinks)}")
    return Health(ok=not reasons, reasons=reasons)


def readiness(sources: Sources, config: HttpConfig) -> Readiness:
    """The facts as they are now. A venue that has no instruments in this shard is not required."""
    required = {
        venue: 0
        for venue, codec in sources.pipeline.codecs.items()
        if codec.config.required and codec.assets
    }
    for state in sources.pipeline.engine.instruments.values():
        if state.spec.venue in required and state.book.state == "synced":
            required[state.spec.venue] += 1
    meter = sources.meter
    return Readiness(
        uptime_s=meter.uptime_s if meter else config.ready_grace_s,
        grace_s=config.ready_grace_s,
        required=required,
        lag_s=meter.lag_s if meter else None,
        lag_limit_s=config.ready_lag_s,
        # A webhook that has had nothing to deliver says nothing.
        sinks={
            name: sink.connected
            for name, sink in sources.sinks.items()
            if not name.startswith("webhook.")
        },
    )


# ------------------------------------------------------------------------------- status


class FeedStatus(Struct, frozen=True, kw_only=True):
    """One connection; the counts are None in a replay, which has none."""

    venue: str
    feed: str
    connected: bool
    last_reason: str | None = None
    attempts: int | None = None
    connects: int | None = None
    messages: int | None = None
    bytes: int | None = None
    failures: dict[str, int] = {}
    losses: dict[str, int] = {}


class HttpStatus(Struct, frozen=True, kw_only=True):
    """One venue's HTTP interface."""

    requests: int
    answers: dict[str, int]
    failures: dict[str, int]
    paused_s: float
    dropped: int
    last_reason: str


class InstrumentStatus(Struct, frozen=True, kw_only=True):
    """One instrument. Ages in seconds; None means not heard, or not known any more."""

    instrument: str
    asset: str
    book: str
    book_age_s: float | None
    best_bid: float | None
    best_ask: float | None
    gaps: int
    resyncs: int
    mark: float | None
    mark_age_s: float | None
    index: float | None
    funding_rate_8h: float | None
    open_interest_base: float | None
    open_interest_usd: float | None
    open_interest_age_s: float | None
    liquidated_usd: dict[str, float]
    silent: list[str]
    unsubscribed: list[str]


class QueueStatus(Struct, frozen=True):
    """One bounded queue."""

    length: int
    limit: int
    waits: int | None = None


class SinkStatus(Struct, frozen=True, kw_only=True):
    """One sink and its outbox."""

    connected: bool
    sent: int
    errors: dict[str, int]
    last_success_age_s: float | None
    queued: int | None
    replaced: int | None
    lost: int | None


class JournalStatus(Struct, frozen=True, kw_only=True):
    """The recording."""

    records: int
    lost_slow: int
    lost_disk: int
    bytes: int
    files: int
    errors: int
    paused: bool
    last_success_age_s: float | None


class Rejections(Struct, frozen=True):
    """Remote input refused for one reason: since the start, and in the last minute or so."""

    total: int
    recent: int


class Status(Struct, frozen=True, kw_only=True):
    """Everything a person may want to know, without a secret in it."""

    run: str
    version: str
    revision: str
    shard: str
    config_sha256: str
    uptime_s: float | None
    alive: Health
    ready: Health
    lag_s: float | None
    inputs: int
    feeds: list[FeedStatus]
    http: dict[str, HttpStatus]
    instruments: list[InstrumentStatus]
    queues: dict[str, QueueStatus]
    sinks: dict[str, SinkStatus]
    journal: JournalStatus | None
    rejected: dict[str, dict[str, Rejections]]
    refused_states: dict[str, str]


def status_of(
    sources: Sources, config: HttpConfig, before: Mapping[tuple[str, str], int] | None = None
) -> Status:
    """The status now; `before` has the refusals by (venue, reason) of about a minute ago."""
    identity, pipeline, meter = sources.identity, sources.pipeline, sources.meter
    view = View(sources)
    streams: dict[str, list[Stream]] = {}
    for stream in view.streams():
        if stream.patience_ns is not None:
            streams.setdefault(stream.instrument, []).append(stream)
    return Status(
        run=identity.run,
        version=identity.version,
        revision=identity.revision,
        shard=identity.shard,
        config_sha256=identity.config_sha256,
        uptime_s=_rounded(meter.uptime_s) if meter else None,
        alive=alive(meter.idle_s if meter else None),
        ready=ready(readiness(sources, config)),
        lag_s=_rounded(meter.lag_s) if meter else None,
        inputs=sum(pipeline.inputs.values()),
        feeds=[
            _feed_status(venue, spec.name, sources.feeds.get(spec.name), pipeline)
            for venue, codec in pipeline.codecs.items()
            for spec in codec.feeds
        ],
        http={venue: _http_status(http, view.at) for venue, http in sources.https.items()},
        instruments=[
            _instrument(state, view, streams.get(name, []))
            for name, state in pipeline.engine.instruments.items()
        ],
        queues={name: _queue(queue) for name, queue in sources.queues.items()},
        sinks={name: _sink(name, sink, sources) for name, sink in sources.sinks.items()},
        journal=_journal(sources.journal) if sources.journal else None,
        rejected=_rejections(pipeline.engine.rejected, before or {}),
        refused_states=dict(pipeline.engine.refused),
    )


def _feed_status(venue: str, name: str, feed: Feed | None, pipeline: Pipeline) -> FeedStatus:
    if feed is None:
        connected = pipeline.engine.connected.get(name, False)
        return FeedStatus(venue=venue, feed=name, connected=connected)
    return FeedStatus(
        venue=venue,
        feed=name,
        connected=feed.connected,
        last_reason=feed.last_reason,
        attempts=feed.attempts,
        connects=feed.connects,
        messages=feed.messages,
        bytes=feed.bytes,
        failures=_nonzero(feed.failures),
        losses=_nonzero(feed.losses),
    )


def _http_status(http: Http, at: int) -> HttpStatus:
    return HttpStatus(
        requests=http.requests,
        answers=_nonzero(http.answers),
        failures=_nonzero(http.failures),
        paused_s=max(0.0, round((http.paused_until - at) / NS, 3)),
        dropped=http.dropped,
        last_reason=http.last_reason,
    )


def _instrument(state: InstrumentState, view: View, streams: list[Stream]) -> InstrumentStatus:
    # The levels of a book that is not synced are no prices.
    bid, ask = state.book.best() if state.book.state == "synced" else (None, None)
    open_interest = view.open_interest(state)
    return InstrumentStatus(
        instrument=state.spec.name,
        asset=state.spec.asset,
        book=state.book.state,
        book_age_s=_age_s(state.book_at, view.at),
        best_bid=bid,
        best_ask=ask,
        gaps=state.book.gaps,
        resyncs=state.book.resyncs,
        mark=view.mark(state),
        mark_age_s=_age_s(state.mark_at, view.at),
        index=view.index(state),
        funding_rate_8h=view.funding(state),
        open_interest_base=None if open_interest is None else state.open_interest_base,
        open_interest_usd=open_interest,
        open_interest_age_s=_age_s(state.open_interest_at, view.at),
        liquidated_usd={
            "long": state.liquidated_usd["long"],
            "short": state.liquidated_usd["short"],
        },
        silent=sorted({stream.channel for stream in streams if stream.silent}),
        unsubscribed=sorted({stream.channel for stream in streams if not stream.active}),
    )


def _queue(queue: Queue) -> QueueStatus:
    return QueueStatus(queue.length(), queue.limit, queue.waits() if queue.waits else None)


def _sink(name: str, sink: Sink, sources: Sources) -> SinkStatus:
    outbox = sources.outboxes.get(name)
    return SinkStatus(
        connected=sink.connected,
        sent=sink.sent,
        errors=_nonzero(sink.errors),
        last_success_age_s=_since_s(sink.last_success_at),
        queued=len(outbox) if outbox is not None else None,
        replaced=outbox.discarded_intentional if outbox is not None else None,
        lost=outbox.discarded_unintentional if outbox is not None else None,
    )


def _journal(journal: Journal) -> JournalStatus:
    return JournalStatus(
        records=journal.records,
        lost_slow=journal.lost_slow,
        lost_disk=journal.lost_disk,
        bytes=journal.bytes_written,
        files=journal.files,
        errors=journal.errors,
        paused=journal.paused,
        last_success_age_s=_since_s(journal.last_success_at),
    )


def _rejections(
    now: Mapping[tuple[str, str], int], before: Mapping[tuple[str, str], int]
) -> dict[str, dict[str, Rejections]]:
    rejected: dict[str, dict[str, Rejections]] = {}
    for (venue, reason), count in now.items():
        recent = count - before.get((venue, reason), 0)
        rejected.setdefault(venue, {})[reason] = Rejections(count, recent)
    return rejected


def _nonzero(counts: Mapping[Any, int]) -> dict[str, int]:
    return {str(name): count for name, count in counts.items() if count}


def _age_s(at: int, now: int) -> float | None:
    return round((now - at) / NS, 3) if at else None


def _since_s(at: float) -> float | None:
    """Age of what the outer world did, whose time is the wall clock's even in a replay."""
    return round(time.time() - at, 3) if at else None


def _rounded(seconds: float) -> float:
    return round(seconds, 3)


# ------------------------------------------------------------------------------- server


class Server:
    """Serves the pages of one daemon.

    Attributes:
        errors: requests that failed for a mistake of ours.
    """

    def __init__(
        self,
        config: HttpConfig,
        sources: Sources,
        registry: CollectorRegistry,
    ) -> None:
        self.errors = 0
        self._config = config
        self._sources = sources
        self._registry = registry
        self._runner: web.AppRunner | None = None
        self._rejected: deque[Counter[tuple[str, str]]] = deque(maxlen=REJECTED_KEPT)
        self._sampler: asyncio.Task[None] | None = None
        self._pages: dict[str, _Handler] = {
            "/": self._landing,
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/status": self._status,
        }

    @property
    def port(self) -> int:
        """Where it listens, once started; tells which port 0 has become."""
        assert self._runner is not None, "not started"
        return int(self._runner.addresses[0][1])

    @property
    def url(self) -> str:
        """The address of the landing page, for a person at this machine."""
        host = self._config.host
        reachable = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        return f"http://{f'[{reachable}]' if ':' in reachable else reachable}:{self.port}/"

    async def start(self) -> str:
        """Listen and return the URL.

        Raises:
            ServerError: the address is not ours, or taken.
        """
        assert self._runner is None, "started twice"
        app = web.Application(middlewares=[self._guard])
        for path, handler in self._pages.items():
            app.router.add_get(path, handler)
        Api(self._sources).add_to(app)
        app.on_response_prepare.append(_harden)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._config.host, self._config.port).start()
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            where = f"{self._config.host}:{self._config.port}"
            reason = getattr(error, "strerror", None) or str(error)
            raise ServerError(
                f"http.host, http.port: cannot listen on {where}: {reason}; "
                f"choose another port, or 0 for a free one, or http.enabled = false"
            ) from error
        self._runner = runner
        self._sampler = asyncio.create_task(self._sample(), name="http.sample")
        _log.info("http_started", extra={"fields": {"url": self.url}})
        return self.url

    async def stop(self) -> None:
        """Answer what is being asked, then close."""
        if self._sampler is not None:
            self._sampler.cancel()
            await asyncio.wait([self._sampler])
            self._sampler = None
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _sample(self) -> None:
        """Note the refusals now and then, so that the status can tell recent ones."""
        while True:
            self._rejected.append(Counter(self._sources.pipeline.engine.rejected))
            await asyncio.sleep(REJECTED_EVERY_S)

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Refuse what is not read only or not there; turn our mistakes into a plain 500."""
        if request.method not in {"GET", "HEAD"}:
            body = {"error": "method not allowed", "allowed": ["GET", "HEAD"]}
            return answer(body, 405, {"Allow": "GET, HEAD"})
        if request.match_info.http_exception is not None:
            return answer({"error": "not found", "pages": list(self._pages)}, 404)
        try:
            return await handler(request)
        except Exception as error:  # noqa: BLE001  (a boundary: the daemon outlives a bad page)
            self.errors += 1
            fields = {"path": request.path}
            _log.error("http_failed", exc_info=error, extra={"fields": fields})
            return answer({"error": "internal error"}, 500)

    async def _landing(self, _request: web.Request) -> web.Response:
        links = "\n".join(
            f'<li><a href="{path}">{path}</a>: {text}</li>' for path, text in PAGES.items()
        )
        identity = self._sources.identity
        page = (
            '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
            "<title>cascade-monitor</title></head>\n<body>\n<h1>cascade-monitor</h1>\n"
            f"<p>version {_escaped(identity.version)}, run {_escaped(identity.run)}</p>\n"
            f"<ul>\n{links}\n</ul>\n</body>\n</html>\n"
        )
        return web.Response(text=page, content_type="text/html", charset="utf-8")

    async def _metrics(self, request: web.Request) -> web.Response:
        content_type, page = exposition(self._registry, request.headers.get("Accept", ""))
        return web.Response(body=page, headers={"Content-Type": content_type})

    async def _healthz(self, _request: web.Request) -> web.Response:
        meter = self._sources.meter
        return _verdict(alive(meter.idle_s if meter else None))

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _verdict(ready(readiness(self._sources, self._config)))

    async def _status(self, _request: web.Request) -> web.Response:
        before = self._rejected[0] if self._rejected else None
        status = status_of(self._sources, self._config, before)
        return web.Response(
            body=msgspec.json.format(msgspec.json.encode(status)), content_type="application/json"
        )


async def _harden(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _verdict(health: Health) -> web.Response:
    return answer(health, 200 if health.ok else 503)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
