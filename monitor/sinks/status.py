"""Whether the daemon is alive and ready, and everything else a person may want to know of it.

``alive`` is for the supervisor that restarts it; a dead venue or Redis is no reason to. ``ready``
says whether what it publishes can be used.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from monitor.config import HttpConfig
from monitor.core.instrument import InstrumentState
from monitor.events import NS
from monitor.pipeline import Pipeline
from monitor.sinks.metrics import Feed, Http, Journal, Queue, Sink, Sources, View
from monitor.venues.base import Stream

ALIVE_IDLE_S: Final = 30.0
"""A pump that took nothing for so long is wedged: ticks come several times a second."""


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
        # A webhook that has had nothing to deliver says nothing, nor does a page nobody looks at.
        sinks={
            name: sink.connected
            for name, sink in sources.sinks.items()
            if name != "page" and not name.startswith("webhook.")
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
