"""One websocket kept open: what arrives becomes `Frame`, its fate `Opened` and `Lost`.

The shell connects, stamps, and hands over bytes exactly as received; it obeys `send` and `close`
and understands neither. It may not decide what is subscribed or what a message means.
"""

import asyncio
import logging
import random
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)
from websockets.frames import CloseCode
from websockets.protocol import State
from websockets.uri import parse_uri

from monitor.events import Frame, Lost, Opened
from monitor.feeds.http import USER_AGENT, retry_after_s
from monitor.feeds.inbox import Inbox
from monitor.venues.base import FRAME_BYTES_MAX, FeedSpec

log = logging.getLogger(__name__)

FAILURES: Final = (
    "refused",  # nobody listens there
    "dns",  # the name does not resolve
    "network",  # no route, reset, or another error of the operating system
    "tls",  # certificate or TLS handshake
    "timeout",  # no TCP, TLS or websocket handshake in time
    "blocked",  # HTTP 403 or 451: the venue does not serve this address
    "throttled",  # HTTP 418 or 429: too many connections
    "unavailable",  # HTTP 5xx
    "handshake",  # any other answer than an upgrade
    "proxy",  # the proxy refused
)
"""Closed set of reasons why an attempt to connect fails."""

LOSSES: Final = (
    "closed",  # the venue said goodbye
    "cut",  # it went without
    "too_large",  # a message beyond FRAME_BYTES_MAX
    "protocol",  # bytes that are not websocket frames
    "hung",  # neither a message nor a pong in time
    "send_timeout",  # the venue does not read
    "overflow",  # more to send than the queue holds
    "lifetime",  # by ourselves, before the venue cuts
    "asked",  # by `close`; `Lost` carries the reason given there
    "stopped",  # `run` was cancelled
)
"""Closed set of reasons why an open connection ends."""

SEND_QUEUE_MAX: Final = 1024
"""Messages waiting to be sent: three subscriptions for each of 300 instruments fit."""

RECEIVE_QUEUE: Final = 64
"""Messages the library may hold before it stops reading the socket."""

BURST: Final = 128
"""Messages taken before other tasks get their turn, well under a millisecond of work.

A message that is already there is received without suspension, so that a burst would otherwise
keep the loop until it ends.
"""

EXPONENT_MAX: Final = 16
"""Doublings of the back-off that are computed; it has met its cap long before."""

BLOCKING: Final = frozenset({403, 451})
THROTTLING: Final = frozenset({418, 429})


class FeedTiming(Struct, frozen=True, kw_only=True):
    """How patient a feed is, all in seconds.

    Attributes:
        open_timeout_s: for TCP, TLS and the websocket handshake together.
        send_timeout_s: for one message to fit into the socket's buffers.
        close_timeout_s: for the venue to answer a close; longer only delays the reconnection.
        ping_interval_s: between two protocol pings. Gate and Kraken want one each 60 s.
        ping_timeout_s: more silence than this and the interval together means a hung peer.
        check_interval_s: how often silence, lifetime and half-closed sockets are looked for.
        retry_first_s: nominal wait after the first failure; then it doubles. With the cap, one
            feed makes at most 6 attempts in its first minute: four feeds on one address stay
            under Hyperliquid's 30 connections a minute.
        retry_max_s: cap of the back-off; a venue that returns is heard within a minute.
        stable_after_s: a connection that lived for so long was a success and resets the back-off.
        blocked_s: wait after HTTP 403 or 451, which do not heal within seconds (exchanges.md 1a).
        throttled_s: wait after HTTP 418 or 429 that do not say how long.
        throttled_max_s: longest wait a venue may ask for by Retry-After.
        lifetime_jitter: share of the lifetime over which reconnections are spread.
    """

    open_timeout_s: float = 10.0
    send_timeout_s: float = 10.0
    close_timeout_s: float = 1.0
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 20.0
    check_interval_s: float = 1.0
    retry_first_s: float = 1.0
    retry_max_s: float = 60.0
    stable_after_s: float = 60.0
    blocked_s: float = 300.0
    throttled_s: float = 60.0
    throttled_max_s: float = 3600.0
    lifetime_jitter: float = 0.05


DEFAULT_TIMING: Final = FeedTiming()


class Pace:
    """Spaces the connection attempts of feeds that share a venue's limit per address.

    OKX allows 3 a second; half a second between two keeps below that.
    """

    def __init__(self, interval_s: float = 0.5) -> None:
        self.interval_s = interval_s
        self._next_at = 0.0

    async def turn(self) -> None:
        """Wait for one's turn, first come first served."""
        clock = asyncio.get_running_loop().time()
        at = max(clock, self._next_at)
        self._next_at = at + self.interval_s
        await asyncio.sleep(at - clock)


class _EndError(Exception):
    """Ends the tasks of one connection; says why."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class WebSocketFeed:
    """Keeps one connection open and puts what it receives into the inbox.

    Attributes:
        spec: what to keep open.
        connected: whether the socket is open and `Opened` has been put.
        attempts: attempts to connect since the last connection that lasted.
        connects: handshakes that succeeded.
        failures: attempts that failed, by a reason out of `FAILURES`.
        losses: connections that ended, by a reason out of `LOSSES`.
        messages: messages received.
        bytes: their payload bytes.
        sent: messages sent, keep-alives included.
        unsent: messages that were asked for while there was no connection, or that were still
            queued when it ended. The codec subscribes anew on every `Opened`.
        last_reason: of the latest failure or loss; empty when nothing ever went wrong.
        delay_s: how long the feed waited, or still waits, after that.
    """

    def __init__(
        self,
        spec: FeedSpec,
        inbox: Inbox,
        now: Callable[[], int],
        *,
        timing: FeedTiming = DEFAULT_TIMING,
        pace: Pace | None = None,
        proxy: str | None = None,
        tls: ssl.SSLContext | None = None,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Prepare; nothing happens before `run`.

        `now` gives nanoseconds since the epoch and `jitter` numbers in ``[0, 1)``. One `tls`
        context for all feeds saves loading the certificates on every connection. A `proxy` is
        used only when given, whatever the environment says.

        Raises:
            InvalidURI: the address is no websocket address.
        """
        self._secure = parse_uri(spec.url).secure
        self.spec = spec
        self.connected = False
        self.attempts = 0
        self.connects = 0
        self.failures = dict.fromkeys(FAILURES, 0)
        self.losses = dict.fromkeys(LOSSES, 0)
        self.messages = 0
        self.bytes = 0
        self.sent = 0
        self.unsent = 0
        self.last_reason = ""
        self.delay_s = 0.0
        self._inbox = inbox
        self._now = now
        self._timing = timing
        self._pace = pace
        self._proxy = proxy
        self._tls = tls
        self._frame_bytes_max = frame_bytes_max
        self._jitter = jitter
        self._outgoing: deque[str] = deque()
        self._queued = asyncio.Event()
        self._asked: _EndError | None = None
        self._ask = asyncio.Event()
        self._owed: str | None = None

    # ------------------------------------------------------------------------------ commands

    def send(self, data: str) -> None:
        """Queue a text message; it goes out in order and at the venue's pace.

        Without a connection it is dropped. More than `SEND_QUEUE_MAX` drop the connection.
        """
        if not self.connected:
            self.unsent += 1
        elif len(self._outgoing) >= SEND_QUEUE_MAX:
            self.unsent += 1
            self._end("overflow")
        else:
            self._outgoing.append(data)
            self._queued.set()

    def close(self, reason: str) -> None:
        """Drop the connection, if there is one; `Lost` gets the reason, then it is made anew."""
        self._end("asked", reason)

    def _end(self, reason: str, detail: str = "") -> None:
        if self.connected and self._asked is None:
            self._asked = _EndError(reason, detail)
            self._ask.set()

    # ----------------------------------------------------------------------------- life cycle

    async def run(self) -> None:
        """Connect, again and again, until cancelled.

        On cancellation a last `Lost` is put if the inbox has room, since nobody may be left to
        make some; if not, the next `run` begins with it.
        """
        await self._settle()
        try:
            while True:
                if self._pace is not None:
                    await self._pace.turn()
                self.delay_s = await self._live()
                await asyncio.sleep(self.delay_s)
        finally:
            if self._owed == "stopped":
                self.losses["stopped"] += 1
            if not self._inbox.full:
                await self._settle()

    async def _live(self) -> float:
        """One attempt and the life of the connection; returns how long to wait after it."""
        self.attempts += 1
        try:
            connection = await self._connect()
        except (InvalidHandshake, InvalidURI, OSError) as error:  # TimeoutError is an OSError
            return self._failed(error)
        self.connects += 1
        loop = asyncio.get_running_loop()
        since = loop.time()
        try:
            await self._inbox.put(Opened(self._now(), self.spec.name))
            self._owed = "stopped"
            self._asked = None
            self._ask.clear()
            self.connected = True
            log.info("feed_opened", extra={"fields": {"feed": self.spec.name}})
            end = await self._converse(connection)
            self._hang_up()
            self._lost(end, loop.time() - since)
            await self._settle()
        finally:
            self._hang_up()
            await self._shut(connection)
        if loop.time() - since >= self._timing.stable_after_s:
            self.attempts = 0
        return self._back_off()

    async def _connect(self) -> ClientConnection:
        extra: dict[str, Any] = {}
        if self._secure and self._tls is not None:
            extra["ssl"] = self._tls
        return await connect(
            self.spec.url,
            compression=None,  # costs twice the time to receive
            user_agent_header=USER_AGENT,
            proxy=self._proxy,
            open_timeout=self._timing.open_timeout_s,
            ping_interval=None,  # `_watch` pings: the library's pinger blames the peer for our lag
            close_timeout=self._timing.close_timeout_s,
            max_size=self._frame_bytes_max,
            max_queue=RECEIVE_QUEUE,
            **extra,
        )

    async def _converse(self, connection: ClientConnection) -> _EndError:
        """Read, write, ping and watch until one of them finds an end."""
        name = self.spec.name
        task = asyncio.current_task()
        assert task is not None
        cancellations = task.cancelling()
        ends: list[_EndError] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(connection), name=f"{name}.read")
                group.create_task(self._write(connection), name=f"{name}.write")
                group.create_task(self._watch(connection), name=f"{name}.watch")
                if self.spec.ping is not None:
                    group.create_task(self._keep_alive(self.spec.ping), name=f"{name}.ping")
                # Waits within the block: before Python 3.13 a group that is left and then fails
                # leaves its task marked as cancelled.
                await self._obey()
        except* _EndError as ended:
            ends += [error for error in ended.exceptions if isinstance(error, _EndError)]
        if task.cancelling() > cancellations:
            # A group prefers its tasks' errors to a cancellation that comes in the same turn.
            raise asyncio.CancelledError
        assert ends, "the tasks of a connection end by an _EndError only"
        return self._asked or ends[0]

    def _hang_up(self) -> None:
        self.connected = False
        self.unsent += len(self._outgoing)
        self._outgoing.clear()

    async def _shut(self, connection: ClientConnection) -> None:
        """Say goodbye, but do not wait long for the answer; leave nothing open."""
        try:
            async with asyncio.timeout(self._timing.close_timeout_s):
                await connection.close()
        except TimeoutError:
            pass
        finally:
            connection.transport.abort()
        await connection.wait_closed()  # the loop's next turn, as it is aborted

    async def _settle(self) -> None:
        """Put the `Lost` that is due since an `Opened`, once."""
        if self._owed is not None:
            await self._inbox.put(Lost(self._now(), self.spec.name, self._owed))
            self._owed = None

    # --------------------------------------------------------------- the tasks of a connection

    async def _read(self, connection: ClientConnection) -> None:
        """Hand over what arrives. The hottest loop of the daemon.

        It has no timeout of its own, which would cost more than the rest: `_watch` ends it.
        """
        name, now, put, receive = self.spec.name, self._now, self._inbox.put, connection.recv
        turn = BURST
        try:
            while True:
                data = await receive(decode=False)
                self.messages += 1
                self.bytes += len(data)
                await put(Frame(now(), name, data))
                turn -= 1
                if not turn:
                    turn = BURST
                    await asyncio.sleep(0)
        except ConnectionClosed as closed:
            raise _end_of(closed) from closed

    async def _write(self, connection: ClientConnection) -> None:
        """Send what is queued, in order, with the venue's pause after each message."""
        while True:
            while not self._outgoing:
                self._queued.clear()
                await self._queued.wait()
            data = self._outgoing.popleft()
            try:
                async with asyncio.timeout(self._timing.send_timeout_s):
                    await connection.send(data)
            except TimeoutError as error:
                raise _EndError("send_timeout") from error
            except ConnectionClosed as closed:
                raise _end_of(closed) from closed
            self.sent += 1
            await asyncio.sleep(self.spec.send_interval_s)

    async def _keep_alive(self, text: str) -> None:
        """Queue the venue's own ping before everything else: a long queue must not delay it."""
        while True:
            await asyncio.sleep(self.spec.ping_after_s)
            if not self._outgoing or self._outgoing[0] is not text:
                self._outgoing.appendleft(text)
                self._queued.set()

    async def _watch(self, connection: ClientConnection) -> None:
        """Find what no other task notices: a hung peer, a socket half closed, the lifetime's end.

        Silence is counted in checks, not by the clock: a process that was suspended has not
        listened. Nor is it the peer's silence when a full inbox keeps us from reading.
        """
        timing = self._timing
        loop = asyncio.get_running_loop()
        end_at = loop.time() + self._lifetime_s()
        quiet_s, ping_in_s = 0.0, timing.ping_interval_s
        heard = self.messages
        pong: asyncio.Future[float] | None = None
        while True:
            await asyncio.sleep(timing.check_interval_s)
            if connection.state is not State.OPEN:
                # One side has said goodbye and the peer has had its time to close the socket.
                await asyncio.sleep(timing.close_timeout_s)
                connection.transport.abort()
                return  # the reader ends with the reason
            if loop.time() >= end_at:
                raise _EndError("lifetime")
            quiet_s += timing.check_interval_s
            ping_in_s -= timing.check_interval_s
            ponged = pong is not None and pong.done()
            if self.messages != heard or ponged or self._inbox.full:
                heard, quiet_s = self.messages, 0.0
            if quiet_s > timing.ping_interval_s + timing.ping_timeout_s:
                raise _EndError("hung")
            if ponged:
                pong = None
            if ping_in_s <= 0 and pong is None:
                ping_in_s = timing.ping_interval_s
                pong = await self._ping(connection)

    async def _ping(self, connection: ClientConnection) -> asyncio.Future[float]:
        try:
            async with asyncio.timeout(self._timing.send_timeout_s):
                return asyncio.ensure_future(await connection.ping())
        except TimeoutError as error:
            raise _EndError("send_timeout") from error
        except ConnectionClosed as closed:
            raise _end_of(closed) from closed

    async def _obey(self) -> None:
        """End when `close` or an overflow asks for it."""
        await self._ask.wait()
        assert self._asked is not None
        raise self._asked

    # -------------------------------------------------------------------- waits and accounting

    def _failed(self, error: Exception) -> float:
        """Account for a failed attempt; returns how long to wait."""
        reason = _failure_of(error)
        self.failures[reason] += 1
        self.last_reason = reason
        wait = self._wait_after(reason, error)
        fields = {
            "feed": self.spec.name,
            "reason": reason,
            "detail": str(error)[:200],
            "attempt": self.attempts,
            "delay_s": round(wait, 3),
        }
        log.warning("feed_unreachable", extra={"fields": fields})
        return wait

    def _lost(self, end: _EndError, lived_s: float) -> None:
        """Account for the end of a connection."""
        self.losses[end.reason] += 1
        # `asked` is for the counters; what the codec gave as its reason says more.
        self._owed = self.last_reason = end.detail if end.reason == "asked" else end.reason
        fields = {
            "feed": self.spec.name,
            "reason": self.last_reason,
            "detail": end.detail[:200],
            "lived_s": round(lived_s, 3),
        }
        level = logging.INFO if end.reason == "lifetime" else logging.WARNING
        log.log(level, "feed_lost", extra={"fields": fields})

    def _wait_after(self, reason: str, error: Exception) -> float:
        timing = self._timing
        longer = 1.0 + 0.25 * self._jitter()  # never shorter than what was asked for
        if reason == "blocked":
            return timing.blocked_s * longer
        asked = None
        if isinstance(error, InvalidStatus):
            # `get` raises on a header that stands there twice.
            for text in error.response.headers.get_all("Retry-After"):
                asked = retry_after_s(text, self._now())
        if asked is not None:
            return max(min(asked, timing.throttled_max_s) * longer, self._back_off())
        if reason == "throttled":
            return timing.throttled_s * longer
        return self._back_off()

    def _back_off(self) -> float:
        """Half to all of a nominal wait that doubles with each attempt up to its cap."""
        doublings = min(max(self.attempts - 1, 0), EXPONENT_MAX)
        nominal = min(self._timing.retry_first_s * 2.0**doublings, self._timing.retry_max_s)
        return nominal * (0.5 + 0.5 * self._jitter())

    def _lifetime_s(self) -> float:
        if self.spec.lifetime_s is None:
            return float("inf")
        return self.spec.lifetime_s * (1.0 - self._timing.lifetime_jitter * self._jitter())


def _failure_of(error: Exception) -> str:
    """Which of `FAILURES` an exception out of the handshake is."""
    match error:
        case InvalidStatus():
            status = error.response.status_code
            if status in BLOCKING:
                return "blocked"
            if status in THROTTLING:
                return "throttled"
            return "unavailable" if status >= 500 else "handshake"
        case ProxyError():
            return "proxy"
        case TimeoutError():
            return "timeout"
        case ssl.SSLError():
            return "tls"
        case socket.gaierror():
            return "dns"
        case ConnectionRefusedError():
            return "refused"
        case OSError():
            return "network"
        case _:
            return "handshake"


def _end_of(closed: ConnectionClosed) -> _EndError:
    """Which of `LOSSES` the end of an open connection is."""
    by_us = closed.sent is not None and not closed.rcvd_then_sent
    if by_us and closed.sent is not None:
        if closed.sent.code == CloseCode.MESSAGE_TOO_BIG:
            return _EndError("too_large", str(closed))
        return _EndError("protocol", str(closed))
    return _EndError("closed" if closed.rcvd is not None else "cut", str(closed))
