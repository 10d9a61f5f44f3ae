"""What every venue's codec shares: connections, subscribed streams, HTTP requests, refusals.

A codec is a pure state machine. It is told what arrived (`receive`, `reply`), what became of its
sockets (`opened`, `lost`) and what time it is (`tick`), and answers with market events and with
commands to send, fetch or close. It decides when a book has lost its sequence and how to get it
back; the shells only obey. It never raises on remote input: what it cannot use it returns as a
`Rejected` event with a reason out of `REASONS`.

A venue subclasses `Codec` and fills in the wire format: `_decode`, `_answer`, `_message` and, where
no snapshot comes on subscribing, `_resync`. Adding a venue touches its own module, its tests, the
configuration and the documents, nothing else.
"""

import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from monitor.config import VenueConfig
from monitor.events import (
    MARK_CHANNELS,
    NS,
    Candles,
    Close,
    Command,
    Fetch,
    Frame,
    Gap,
    Instrument,
    InsuranceFund,
    InterestHistory,
    Listed,
    Market,
    Rejected,
    Reply,
    Send,
    Silence,
    Syncing,
    Tier,
)
from monitor.venues.candles import (
    CANDLE_S,
    CANDLES_ATTEMPTS,
    CANDLES_MAX,
    CANDLES_WAIT_S,
    LEAST,
    MOST,
    Row,
    closed_candles,
)

Out: TypeAlias = list[Market | Command]

Operation: TypeAlias = Literal["subscribe", "unsubscribe"]

MS: Final = 1_000_000
"""Nanoseconds in a millisecond, the unit of every venue's times."""

TIME_MS_MAX: Final = 1 << 43
"""Milliseconds since the epoch below this still fit into 64 bits as nanoseconds."""

TimeMs: TypeAlias = Annotated[int, Meta(ge=0, lt=TIME_MS_MAX)]
"""A venue's time in milliseconds since the epoch."""

INTEREST_MAX: Final = 1e15
"""A larger open interest is not one, nor is such a balance of a fund."""

REASONS: Final = (
    "not_json",  # not JSON at all, or not UTF-8
    "schema",  # JSON of another shape than documented
    "unknown_kind",  # a message or enum value we do not know
    "unknown_symbol",  # about an instrument we did not ask for
    "bad_number",  # NaN, infinite, negative or zero where that cannot be
    "too_large",  # over FRAME_BYTES_MAX
    "refused",  # the venue says that it refuses a subscription
    "http",  # an HTTP answer that is no success
    "foreign_margin",  # another product line on a shared stream
    "stale",  # older than the subscription it came on
    "overflow",  # more buffered updates than a book may wait with
)
"""Closed set of reasons in `Rejected`."""

FRAME_BYTES_MAX: Final = 8 << 20
"""Largest frame looked at; the largest real one, a full book snapshot, is under 0.2 MB."""

REPLY_BYTES_MAX: Final = 32 << 20
"""Largest HTTP answer looked at; the largest real one, a list of instruments, is under 3 MB."""

STREAM_PATIENCE_S: Final = 60.0
"""Silence after which a stream that always speaks is reported (exchanges.md 12.4)."""

REPAIR_PATIENCE_MAX_S: Final = 600.0
"""The wait between two attempts to revive a silent stream doubles up to this."""

REPLY_PATIENCE_S: Final = 20.0
"""A request unanswered for so long is asked again."""

RETRY_FIRST_S, RETRY_MAX_S = 2.0, 120.0
"""A failed request is repeated after the first, doubling up to the second."""

FUNDS_WAIT_S: Final = 30.0
FUNDS_EVERY_S: Final = 600.0
"""Insurance funds are asked for behind all that a start needs, and then every so often.

Bybit tells a shared pool's balance anew once a day, a pool of one contract's every minute.
"""

FUNDS_RETRY_S: Final = (60.0, 3600.0)
"""A refused request for them is repeated after the first, doubling up to the second: some refusals
make us pause all requests to the venue, and there are more urgent ones."""

FUNDING_REFERENCE_HOURS: Final = 8.0
"""Funding rates are published per this many hours."""

_MULTIPLIER = re.compile(r"^(1(?:0{3,}))(?=[A-Z])")


class FeedSpec(Struct, frozen=True):
    """One websocket connection that a codec wants kept open.

    Attributes:
        name: unique over all venues, ``venue.part.number``.
        url: where to connect.
        ping: text message that keeps the connection alive; None where protocol pings do.
        ping_after_s: seconds between two of them.
        send_interval_s: least time between two messages, the venue's message budget.
        lifetime_s: when to reconnect by ourselves, before the venue cuts; None for never.
    """

    name: str
    url: str
    ping: str | None = None
    ping_after_s: float = 20.0
    send_interval_s: float = 0.0
    lifetime_s: float | None = None


class HttpSpec(Struct, frozen=True):
    """How a venue's HTTP interface may be used: at most `weight` per `window_s` seconds."""

    base_url: str
    weight: int
    window_s: float


class Recorded(Struct, frozen=True):
    """How a venue's traffic looks in somebody else's recording; used by imports only.

    Attributes:
        socket: pattern of the socket addresses that carry this product line.
        message: pattern that matches the venue's messages and no other's; group 1 is the symbol.
        replies: patterns of HTTP addresses and the key of the `Fetch` they answer, with groups.
    """

    socket: str
    message: bytes
    replies: tuple[tuple[str, str], ...]

    def key_of(self, url: str) -> str | None:
        """The key of the `Fetch` that an address answers."""
        for pattern, key in self.replies:
            if match := re.search(pattern, url):
                return match.expand(key)
        return None


class Stream(Struct):
    """One subscription: what it carries, where, and when it last spoke.

    `patience_ns` is None for a stream that may rightly be quiet, such as liquidations.
    Times are nanoseconds; `heard_at` 0 means never.
    """

    topic: str
    symbol: str
    instrument: str
    channel: str
    feed: str
    patience_ns: int | None
    active: bool = False
    silent: bool = False
    since: int = 0
    heard_at: int = 0
    messages: int = 0
    repair_ns: int = 0
    repair_at: int = 0
    resync_ns: int = 0
    resync_at: int = 0
    resync_due: bool = False


class Request(Struct):
    """One HTTP request a codec makes, once or every so often.

    `attempts` is how often it may still be asked before it is given up; None for ever.
    `retry_s` is after how long it is asked again when it has failed, at first and at most.
    """

    fetch: Fetch
    every_ns: int | None
    due_at: int
    failures: int = 0
    attempts: int | None = None
    retry_s: tuple[float, float] = (RETRY_FIRST_S, RETRY_MAX_S)


class Requests:
    """When to ask what over HTTP: periodic polls, requests on demand, retries with back-off."""

    def __init__(self) -> None:
        self._requests: dict[str, Request] = {}

    def every(self, fetch: Fetch, seconds: float) -> None:
        """Ask now and then every so many seconds."""
        self._requests.setdefault(fetch.key, Request(fetch, int(seconds * NS), 0))

    def slowly(self, fetch: Fetch, first_at: int) -> None:
        """Ask for a fund at `first_at` and then every `FUNDS_EVERY_S`, patient with a refusal."""
        request = Request(fetch, int(FUNDS_EVERY_S * NS), first_at, retry_s=FUNDS_RETRY_S)
        self._requests.setdefault(fetch.key, request)

    def once(self, fetch: Fetch, at: int, *, attempts: int | None = None) -> None:
        """Ask at `at`, until an answer comes; at most `attempts` times."""
        self._requests.setdefault(fetch.key, Request(fetch, None, at, attempts=attempts))

    def forget(self, key: str) -> None:
        """Do not ask again."""
        self._requests.pop(key, None)

    def due(self, at: int) -> list[Fetch]:
        """What to ask at `at`; each is asked again if nothing comes back."""
        fetches = []
        for key, request in [*self._requests.items()]:
            if at < request.due_at:
                continue
            if request.attempts == 0:
                del self._requests[key]
                continue
            if request.attempts is not None:
                request.attempts -= 1
            request.due_at = at + int(REPLY_PATIENCE_S * NS)
            fetches.append(request.fetch)
        return fetches

    def is_awaited(self, key: str) -> bool:
        """Whether a first answer, good or bad, is still to come."""
        request = self._requests.get(key)
        return request is not None and request.failures == 0

    def answered(self, key: str, at: int) -> Request | None:
        """An answer came: plan the next time; returns the request if we had made one."""
        request = self._requests.get(key)
        if request is not None:
            if request.every_ns is None:
                del self._requests[key]
            else:
                request.due_at = at + request.every_ns
        return request

    def failed(self, request: Request, at: int) -> None:
        """The answer was of no use: ask again, more and more patiently, or give up."""
        if request.attempts == 0:
            return
        first, most = request.retry_s
        wait = min(first * 2.0 ** min(request.failures, 16), most)
        request.failures += 1
        request.due_at = at + int(wait * NS)
        self._requests[request.fetch.key] = request


class Codec(ABC):
    """Base of the venues' codecs.

    Attributes:
        feeds: the connections to keep open; fixed after construction.
        http: how the HTTP interface may be used.
        streams: every subscription by its wire topic.
        instruments: specification of each wanted symbol that is known so far.
        batch_max: most streams that one message subscribes or unsubscribes.
        resync_pause_s: least time between two subscriptions of one book; doubles while it keeps
            losing its sequence, since venues count requests (OKX: 480 an hour).
    """

    venue: ClassVar[str]
    recorded: ClassVar[Recorded]
    batch_max: ClassVar[int] = 1
    resync_pause_s: ClassVar[float] = 0.0
    feeds: list[FeedSpec]
    http: HttpSpec

    def __init__(self, config: VenueConfig, known: Iterable[Instrument]) -> None:
        self.config = config
        self.assets: Mapping[str, str] = config.instruments
        self.instruments: dict[str, Instrument] = {}
        self.streams: dict[str, Stream] = {}
        self.requests = Requests()
        self._open: dict[str, int] = {}
        self._sent = 0
        self._listed: list[Market] = []
        self._candleless: deque[str] = deque()
        self._interestless: deque[str] = deque()
        self._past_at: int | None = None
        self._past_key = ""
        for instrument in known:
            symbol = instrument.symbol
            if instrument.venue == self.venue and symbol in self.assets:
                # It may be followed as another asset than the table has.
                ours = msgspec.structs.replace(instrument, asset=self.assets[symbol])
                self.instruments[symbol] = ours
                self._listed.append(Listed(ours))
                self._candleless.append(symbol)
                self._interestless.append(symbol)

    # ------------------------------------------------------------------------ what happened

    def opened(self, feed: str, at: int) -> Out:
        """A socket is open: subscribe what it is to carry."""
        self._open[feed] = at
        if self._past_at is None:
            self._past_at = at + int(CANDLES_WAIT_S * NS)
            for fetch in self._fund_requests():
                self.requests.slowly(fetch, at + int(FUNDS_WAIT_S * NS))
        return [*self._start(), *self._join(feed, at)]

    def lost(self, feed: str, at: int) -> Out:  # noqa: ARG002  (every happening has its time)
        """A socket is gone: its books are not true any more, and marks and prints are missed."""
        self._open.pop(feed, None)
        out: Out = []
        for stream in self.streams.values():
            if stream.feed == feed and stream.active:
                stream.active = False
                if stream.channel == "book":
                    self._forget_book(stream.symbol)
                    out.append(Gap(stream.instrument, "feed_lost"))
                elif stream.channel in MARK_CHANNELS:
                    out.append(Gap(stream.instrument, "marks_lost"))
        self._forget_feed(feed)
        return out

    def receive(self, frame: Frame) -> Out:
        """One message: its events, or why it was refused. Never raises."""
        if len(frame.data) > FRAME_BYTES_MAX:
            return self._refuse(frame, "too_large")
        try:
            return self._decode(frame)
        except msgspec.ValidationError:
            return self._refuse(frame, "schema")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._refuse(frame, "not_json")
        except (ValueError, OverflowError, ZeroDivisionError):
            return self._refuse(frame, "bad_number")

    def reply(self, reply: Reply) -> Out:
        """One HTTP answer: its events, or why it was refused. Never raises."""
        request = self.requests.answered(reply.key, reply.at)
        usable = reply.status == 200 and len(reply.data) <= REPLY_BYTES_MAX
        out: Out
        try:
            out = self._answer(reply) if usable else []
        except msgspec.ValidationError:
            out = self._refuse(reply, "schema")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            out = self._refuse(reply, "not_json")
        except (ValueError, OverflowError, ZeroDivisionError):
            out = self._refuse(reply, "bad_number")
        if not usable:
            out = self._refuse(reply, "http" if reply.status != 200 else "too_large")
        if request is not None:
            if any(type(event) is Rejected for event in out):
                self.requests.failed(request, reply.at)
            else:
                request.failures = 0
        return out

    def tick(self, at: int) -> Out:
        """Time passed: ask what is due, look for silent streams."""
        out: Out = [*self._start(), *self.requests.due(at)]
        for stream in self.streams.values():
            if stream.patience_ns is not None and stream.active:
                stream.since = stream.since or at
                out += self._watch(stream, at)
            if stream.resync_due and at >= stream.resync_at:
                out += self._resync(stream.symbol, at)
        return out + self._ask_past(at)

    def resync(self, symbol: str, at: int) -> Out:
        """The engine found this book untrue: get a new one."""
        self._forget_book(symbol)
        return self._resync(symbol, at)

    # -------------------------------------------------------------------- for the subclasses

    @abstractmethod
    def _decode(self, frame: Frame) -> Out:
        """The events of one message. May raise what `receive` catches."""

    @abstractmethod
    def _answer(self, reply: Reply) -> Out:
        """The events of one successful HTTP answer. May raise what `reply` catches."""

    @abstractmethod
    def _message(self, operation: Operation, streams: list[Stream], number: int) -> str:
        """The text that begins or ends these streams; `number` is its own among all sent."""

    def _resync(self, symbol: str, at: int) -> Out:
        """Subscribe the symbol's book anew, so that the venue sends a snapshot in the channel."""
        out: Out = []
        for stream in self.streams.values():
            if stream.symbol == symbol and stream.channel == "book" and stream.active:
                stream.resync_due = at < stream.resync_at
                if stream.resync_due:
                    continue  # done a moment ago: `tick` does it again in time
                calm = at > stream.resync_at + stream.resync_ns
                pause = int(self.resync_pause_s * NS)
                if not calm:
                    pause = max(pause, 2 * stream.resync_ns)
                stream.resync_ns = min(pause, int(REPAIR_PATIENCE_MAX_S * NS))
                stream.resync_at = at + stream.resync_ns
                stream.since = at
                out += self._renew(stream)
        return out

    def _candles_request(self, symbol: str, at: int) -> Fetch | None:  # noqa: ARG002
        """What asks for recent candles, by the key ``candles:<symbol>``; None if nothing does."""
        return None

    def _interests_request(self, symbol: str) -> Fetch | None:  # noqa: ARG002
        """What asks for recent open interest, by the key ``interests:<symbol>``; None likewise."""
        return None

    def _fund_requests(self) -> list[Fetch]:
        """What asks for the balances of insurance funds, by keys that begin with ``funds``."""
        return []

    def _forget_book(self, symbol: str) -> None:  # noqa: B027  (not every venue has one)
        """Drop the sequence state of a symbol's book."""

    def _forget_feed(self, feed: str) -> None:  # noqa: B027  (likewise)
        """Drop what was merged or counted on a feed that is lost."""

    def _list(self, instruments: Iterable[Instrument], at: int) -> Out:
        """Take over specifications; subscribe symbols that were waiting for theirs."""
        out: Out = []
        for instrument in instruments:
            before = self.instruments.get(instrument.symbol)
            if before == instrument:
                continue
            self.instruments[instrument.symbol] = instrument
            out.append(Listed(instrument))
            if before is None:
                self._candleless.append(instrument.symbol)
                self._interestless.append(instrument.symbol)
            if before is not None and (before.tick, before.contract) != (
                instrument.tick,
                instrument.contract,
            ):
                out += self.resync(instrument.symbol, at)
        for feed in self._open:
            out += self._join(feed, at)
        return out

    def _add(
        self,
        topic: str,
        symbol: str,
        channel: str,
        feed: str,
        *,
        patience_s: float | None = STREAM_PATIENCE_S,
    ) -> Stream:
        """A stream to subscribe, of one symbol, or ("") of more than one."""
        name = self._name(symbol) if symbol else ""
        patience_ns = None if patience_s is None else int(patience_s * NS)
        self.streams[topic] = stream = Stream(topic, symbol, name, channel, feed, patience_ns)
        return stream

    def _hear(self, stream: Stream, at: int) -> Out:
        """Note that a stream spoke, and say so if it had been silent."""
        stream.heard_at = at
        stream.messages += 1
        if not stream.silent:
            return []
        stream.silent = False
        stream.repair_ns = 0
        return [Silence(stream.instrument, stream.channel, None)]

    def _refuse(self, heard: Frame | Reply, *reasons: str) -> Out:
        """One refusal for each reason found in a message."""
        feed = heard.feed if isinstance(heard, Frame) else f"{self.venue}.http"
        return [Rejected(self.venue, feed, reason) for reason in dict.fromkeys(reasons)]

    def _past(self, symbol: str, rows: Iterable[Row], reply: Reply) -> Out:
        """The candles of an answer; `rows` are the venue's, brought into order."""
        if symbol not in self.instruments:
            return self._refuse(reply, "unknown_symbol")
        candles = closed_candles(rows, reply.at)
        if isinstance(candles, str):
            return self._refuse(reply, candles)
        return [Candles(self._name(symbol), CANDLE_S, candles)]

    def _held(self, symbol: str, rows: Iterable[tuple[int, float]], reply: Reply) -> Out:
        """The open interest of an answer: time (ms) and base units, brought into order.

        Of readings of the future there is none yet. Times that repeat are of another shape than
        documented (``schema``).
        """
        if symbol not in self.instruments:
            return self._refuse(reply, "unknown_symbol")
        found: list[tuple[int, float]] = []
        last = -1
        for at_ms, base in rows:
            if at_ms <= last:
                return self._refuse(reply, "schema")
            if not 0.0 <= base < INTEREST_MAX:
                return self._refuse(reply, "bad_number")
            last = at_ms
            if at_ms * MS <= reply.at:
                found.append((at_ms * MS, base))
        return [InterestHistory(self._name(symbol), found[-CANDLES_MAX:])]

    def _pool(
        self, at_ms: int, balances: Iterable[tuple[str, float]], symbols: Iterable[str]
    ) -> list[InsuranceFund]:
        """A pool of an insurance fund, if it covers a symbol of ours.

        Raises:
            ValueError: a balance that is none.
        """
        covered = set(symbols)
        ours = tuple(self._name(symbol) for symbol in self.assets if symbol in covered)
        held: dict[str, float] = {}
        for currency, amount in balances:
            if not -INTEREST_MAX < amount < INTEREST_MAX:
                raise ValueError(f"a fund of {amount} {currency}")
            held[currency] = held.get(currency, 0.0) + amount
        return [InsuranceFund(self.venue, at_ms * MS, held, ours)] if ours and held else []

    def _send(self, operation: Operation, streams: list[Stream]) -> Out:
        """The messages that begin or end these streams of one feed."""
        out: Out = []
        for start in range(0, len(streams), self.batch_max):
            batch = streams[start : start + self.batch_max]
            self._sent += 1
            out.append(Send(batch[0].feed, self._message(operation, batch, self._sent)))
        return out

    def _name(self, symbol: str) -> str:
        return f"{self.venue}:{symbol}"

    # ------------------------------------------------------------------------------ private

    def _start(self) -> Out:
        """Announce the specifications known from the start, once."""
        out: Out = [*self._listed]
        self._listed = []
        return out

    def _join(self, feed: str, at: int) -> Out:
        """Subscribe the streams of an open feed whose symbol is known and that are not active."""
        joining = [
            stream
            for stream in self.streams.values()
            if stream.feed == feed
            and not stream.active
            and (not stream.symbol or stream.symbol in self.instruments)
        ]
        for stream in joining:
            stream.resync_due = False
            stream.active = True  # still silent, if it was: only hearing it ends that
            stream.since = at
        if not joining:
            return []
        return [
            *(Syncing(stream.instrument) for stream in joining if stream.channel == "book"),
            *self._send("subscribe", joining),
        ]

    def _ask_past(self, at: int) -> Out:
        """The next instrument's past, behind whatever else is due and one at a time.

        Candles of all instruments come before the open interest of any.
        """
        if self._past_at is None or at < self._past_at:
            return []
        if self.requests.is_awaited(self._past_key):
            return []
        if self._candleless:
            fetch = self._candles_request(self._candleless.popleft(), at)
        elif self._interestless:
            fetch = self._interests_request(self._interestless.popleft())
        else:
            return []
        if fetch is None:
            return []
        self._past_key = fetch.key
        self.requests.once(fetch, at, attempts=CANDLES_ATTEMPTS)
        return [*self.requests.due(at)]

    def _renew(self, stream: Stream) -> Out:
        """End a stream and begin it anew."""
        return [*self._send("unsubscribe", [stream]), *self._send("subscribe", [stream])]

    def _watch(self, stream: Stream, at: int) -> Out:
        """Report a stream that is silent beyond its patience, and try to revive it."""
        assert stream.patience_ns is not None
        quiet_since = max(stream.heard_at, stream.since)
        if at - max(stream.heard_at, stream.since, stream.repair_at) <= max(
            stream.patience_ns, stream.repair_ns
        ):
            return []
        out: Out = []
        if not stream.silent:
            stream.silent = True
            out.append(Silence(stream.instrument, stream.channel, quiet_since))
        stream.repair_at = at
        stream.repair_ns = min(
            max(2 * stream.repair_ns, stream.patience_ns), int(REPAIR_PATIENCE_MAX_S * NS)
        )
        if stream.feed not in self._open:
            return out
        mates = [
            mate
            for mate in self.streams.values()
            if mate.feed == stream.feed and mate.active and mate.patience_ns
        ]
        if all(mate.silent for mate in mates):
            for mate in mates:  # one closing revives them all
                mate.repair_at = at
            return [*out, Close(stream.feed, "silent")]
        return out + self._renew(stream)


def is_positive(*numbers: float) -> bool:
    """Whether all are above zero and of a size that there is; NaN is not."""
    for number in numbers:  # noqa: SIM110  (called for every trade; a generator takes twice as long)
        if not LEAST < number < MOST:
            return False
    return True


def is_ladder(tiers: Sequence[Tier]) -> bool:
    """Whether margin tiers rise from zero without hole or overlap, with rates that can be."""
    return (
        bool(tiers)
        and [tier.floor for tier in tiers] == [0.0, *(tier.cap for tier in tiers[:-1])]
        and all(
            (tier.cap is None or tier.floor < tier.cap < inf)
            and 0.0 < tier.rate < 1.0
            and 0.0 <= tier.deduction < inf
            and 1.0 <= tier.max_leverage < inf
            for tier in tiers
        )
    )


def multiplier_of(base: str) -> tuple[str, float]:
    """Underlying and units per base unit of a multiplied name: ``1000PEPE`` -> ``PEPE``, 1000."""
    match = _MULTIPLIER.match(base)
    return (base[match.end() :], float(match[1])) if match else (base, 1.0)


def spread(symbols: Iterable[str], *, per_feed: int, prefix: str) -> dict[str, str]:
    """Feed name of each symbol, at most `per_feed` symbols a feed: ``prefix.0``, ``prefix.1``."""
    return {symbol: f"{prefix}.{i // per_feed}" for i, symbol in enumerate(symbols)}


def per_8h(rate: float, interval_hours: float) -> float:
    """A funding rate of an interval as a rate per 8 hours (exchanges.md 12.8)."""
    return rate * FUNDING_REFERENCE_HOURS / interval_hours
