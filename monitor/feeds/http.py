"""A venue's HTTP interface: `Fetch` in, `Reply` out, within the venue's budget.

The shell paces, asks, limits and reports; it knows no venue. What to ask, and when to ask again, is
the codec's business (`venues.base.Requests`).
"""

import asyncio
import logging
import random
import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError
from msgspec import Struct

from monitor import __version__
from monitor.events import NS, Fetch, Reply
from monitor.feeds.inbox import Inbox
from monitor.venues.base import REPLY_BYTES_MAX, HttpSpec

log = logging.getLogger(__name__)

USER_AGENT: Final = f"cascade-monitor/{__version__}"
"""Says who asks; some venues' firewalls refuse clients that do not."""

FAILURES: Final = (
    "connect",  # no connection: refused, unresolved, TLS
    "timeout",  # no complete answer in time
    "cut",  # the connection broke before or within the answer
    "too_large",  # an answer beyond REPLY_BYTES_MAX
    "protocol",  # bytes that are not HTTP, or not in the encoding they claim
)
"""Closed set of reasons why no answer came; the `data` of a `Reply` with status 0."""

PAUSING: Final = frozenset({403, 418, 429, 451})
"""Statuses by which a venue says: stop. Everything else is the codec's to judge."""

QUEUE_MAX: Final = 1024
"""Requests that wait: three polls for each of 300 instruments fit."""

CHUNK_BYTES: Final = 1 << 16

_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?")
_USED_WEIGHT = re.compile(r"used-weight", re.IGNORECASE)
_COUNT = re.compile(r"\d{1,9}")


class HttpTiming(Struct, frozen=True, kw_only=True):
    """How patient and how modest a venue's HTTP feed is; times in seconds.

    Attributes:
        timeout_s: for one request altogether; under `venues.base.REPLY_PATIENCE_S`, so that the
            answer is known before the codec asks again.
        connect_timeout_s: of that, for a connection.
        share: of the venue's budget that we use at most; the rest is for whatever else asks from
            the same address, and for our own requests before a restart.
        near: share of the budget in use, by the venue's own count, from which we hold back.
        in_flight: requests at the same time.
        throttled_s: first pause after a 429 that does not say how long; then it doubles.
        throttled_max_s: longest pause after a 429, whatever it says.
        banned_s: least pause after a 418; Binance's shortest ban is two minutes.
        banned_max_s: longest pause after a 418; Binance's longest ban is three days.
        forbidden_s: least pause after a 403; Bybit's ban is ten minutes (exchanges.md 2a).
        unavailable_s: pause after a 451, which is about where we are and does not heal soon.
    """

    timeout_s: float = 15.0
    connect_timeout_s: float = 5.0
    share: float = 0.5
    near: float = 0.8
    in_flight: int = 4
    throttled_s: float = 10.0
    throttled_max_s: float = 3600.0
    banned_s: float = 120.0
    banned_max_s: float = 3 * 86400.0
    forbidden_s: float = 600.0
    unavailable_s: float = 1800.0


DEFAULT_TIMING: Final = HttpTiming()


class Bucket:
    """Tokens that come back steadily, up to a capacity. The clock is given, in seconds.

    With half of a budget as capacity and half of it per window as the rate, no window of the
    venue's, wherever it begins, sees more than the budget.
    """

    def __init__(self, budget: float, window_s: float, clock: float) -> None:
        self.capacity = budget / 2
        self.rate = self.capacity / window_s
        self.tokens = self.capacity
        self._at = clock

    def wait_s(self, weight: float, clock: float) -> float:
        """How long until so much may be taken; more than the capacity may when it is full."""
        self._refill(clock)
        return max(0.0, (min(weight, self.capacity) - self.tokens) / self.rate)

    def take(self, weight: float) -> None:
        """Take; what is beyond the capacity remains a debt."""
        self.tokens -= weight

    def limit(self, tokens: float, clock: float) -> None:
        """Believe in no more than so many tokens; fewer than none is a debt."""
        self._refill(clock)
        self.tokens = min(self.tokens, tokens)

    def _refill(self, clock: float) -> None:
        self.tokens = min(self.capacity, self.tokens + (clock - self._at) * self.rate)
        self._at = clock


class HttpFeed:
    """Asks one venue what its codec wants to know.

    While the venue makes us pause, requests stay queued. `venues.base.Requests` repeats a request
    that is not answered every 20 s, which costs nothing here as there is one per key; after the
    pause each is asked once, at the bucket's pace. Answering ``paused`` at once would instead make
    every retry a counted failure and leave the codec's back-off at its two minutes' cap when the
    pause is over.

    Attributes:
        venue: the venue's name.
        requests: requests made.
        answers: HTTP answers by status.
        failures: requests without an answer, by a reason out of `FAILURES`.
        pauses: times that the venue made us pause, by status.
        dropped: requests refused because the queue was full; the codec asks again.
        bytes: payload bytes received.
        used_weight: the venue's own count of our use, as last told; None where it does not tell.
        paused_until: nanoseconds since the epoch; in the past when not paused.
        last_reason: of the latest failure or pause; empty when nothing ever went wrong.
    """

    def __init__(
        self,
        venue: str,
        spec: HttpSpec,
        inbox: Inbox,
        now: Callable[[], int],
        *,
        timing: HttpTiming = DEFAULT_TIMING,
        proxy: str | None = None,
        reply_bytes_max: int = REPLY_BYTES_MAX,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Prepare; nothing happens before `run`.

        Raises:
            ValueError: the base address is no HTTP address.
        """
        if urlsplit(spec.base_url).scheme not in {"http", "https"}:
            raise ValueError(f"{venue}: {spec.base_url!r} is not an http or https address")
        self.venue = venue
        self.spec = spec
        self.requests = 0
        self.answers: dict[int, int] = {}
        self.failures = dict.fromkeys(FAILURES, 0)
        self.pauses = dict.fromkeys(sorted(PAUSING), 0)
        self.dropped = 0
        self.bytes = 0
        self.used_weight: int | None = None
        self.paused_until = 0
        self.last_reason = ""
        self._inbox = inbox
        self._now = now
        self._timing = timing
        self._proxy = proxy
        self._reply_bytes_max = reply_bytes_max
        self._jitter = jitter
        self._queue: dict[str, Fetch] = {}
        self._flying: set[str] = set()
        self._queued = asyncio.Event()
        self._turn = asyncio.Lock()
        self._resume_at = 0.0
        self._throttles = 0
        self._bucket: Bucket | None = None

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    def fetch(self, command: Fetch) -> None:
        """Queue a request, unless its key is being asked for; a queued one is replaced.

        One request too many is dropped and counted: the codec asks again in time.
        """
        if command.key in self._flying:
            return
        if command.key not in self._queue and len(self._queue) >= QUEUE_MAX:
            self.dropped += 1
            return
        self._queue[command.key] = command
        self._queued.set()

    async def run(self) -> None:
        """Ask what is queued, until cancelled."""
        if self._bucket is None:
            budget = self.spec.weight * self._timing.share
            self._bucket = Bucket(budget, self.spec.window_s, self._clock())
        timeout = aiohttp.ClientTimeout(
            total=self._timing.timeout_s, connect=self._timing.connect_timeout_s
        )
        headers = {"User-Agent": USER_AGENT, "Accept": "application/json"}
        async with (
            aiohttp.ClientSession(
                timeout=timeout, headers=headers, cookie_jar=aiohttp.DummyCookieJar()
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            for number in range(self._timing.in_flight):
                work = self._work(session, self._bucket)
                group.create_task(work, name=f"{self.venue}.http.{number}")

    async def _work(self, session: aiohttp.ClientSession, bucket: Bucket) -> None:
        """One of the requests in flight."""
        while True:
            command = await self._next(bucket)
            try:
                await self._inbox.put(await self._ask(session, bucket, command))
            finally:
                self._flying.discard(command.key)

    async def _next(self, bucket: Bucket) -> Fetch:
        """The oldest queued request, when it may be made."""
        async with self._turn:
            while True:
                while not self._queue:
                    self._queued.clear()
                    await self._queued.wait()
                clock = self._clock()
                key, command = next(iter(self._queue.items()))
                wait = max(self._resume_at - clock, bucket.wait_s(command.weight, clock))
                if wait <= 0:
                    break
                await asyncio.sleep(wait)
            command = self._queue.pop(key)  # it may have been replaced meanwhile
            self._flying.add(key)
            bucket.take(command.weight)
            return command

    async def _ask(self, session: aiohttp.ClientSession, bucket: Bucket, command: Fetch) -> Reply:
        """Make one request; whatever happens on the network becomes a `Reply`."""
        self.requests += 1
        try:
            async with session.request(
                "POST" if command.body else "GET",
                # Exactly one slash: Binance answers 403 to two.
                self.spec.base_url.rstrip("/") + "/" + command.path.lstrip("/"),
                data=command.body or None,
                headers={"Content-Type": "application/json"} if command.body else None,
                allow_redirects=False,  # an interface that has moved is for the operator to look at
                proxy=self._proxy,
            ) as response:
                self._heed(response.status, response.headers, bucket)
                data = await self._body(response)
                status = response.status
        except aiohttp.InvalidURL:
            raise  # a codec's mistake, though a ClientError
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            return self._failed(command.key, _failure_of(error), str(error))
        if data is None:
            return self._failed(command.key, "too_large", f"over {self._reply_bytes_max} bytes")
        self.answers[status] = self.answers.get(status, 0) + 1
        return Reply(self._now(), self.venue, command.key, status, data)

    async def _body(self, response: aiohttp.ClientResponse) -> bytes | None:
        """The body, or None as soon as it proves too large."""
        if (response.content_length or 0) > self._reply_bytes_max:
            response.close()
            return None
        chunks = []
        size = 0
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            size += len(chunk)
            self.bytes += len(chunk)
            if size > self._reply_bytes_max:
                response.close()
                return None
            chunks.append(chunk)
        return b"".join(chunks)

    def _failed(self, key: str, reason: str, detail: str) -> Reply:
        self.failures[reason] += 1
        self.last_reason = reason
        fields = {"venue": self.venue, "key": key, "reason": reason, "detail": detail[:200]}
        log.warning("fetch_failed", extra={"fields": fields})
        return Reply(self._now(), self.venue, key, 0, reason.encode())

    # ------------------------------------------------------------------- the venue's own words

    def _heed(self, status: int, headers: Mapping[str, str], bucket: Bucket) -> None:
        """Slow down or stop as the venue asks, before the body is read."""
        counts = [
            int(text)
            for name, text in headers.items()
            if _USED_WEIGHT.search(name) and _COUNT.fullmatch(text)
        ]
        if counts:
            self.used_weight = max(counts)
            # Near the limit the venue's count leaves less than we believe we have.
            # Its window forgets, so that a debt is never worth more than one.
            left = self._timing.near * self.spec.weight - self.used_weight
            bucket.limit(max(left, -bucket.capacity), self._clock())
        if status in PAUSING:
            self._pause(status, retry_after_s(headers.get("Retry-After", ""), self._now()))
            bucket.limit(0.0, self._clock())  # no burst when the pause is over
        elif status == 200:
            self._throttles = 0

    def _pause(self, status: int, asked: float | None) -> None:
        """Ask nothing for a while. Answers of one and the same incident do not add up."""
        clock = self._clock()
        wait = self._pause_s(status, asked)
        wait *= 1.0 + 0.1 * self._jitter()  # not all at once, and never earlier than asked
        if status == 429 and clock >= self._resume_at:
            self._throttles += 1
        if clock + wait <= self._resume_at:
            return
        self.pauses[status] += 1
        self._resume_at = clock + wait
        self.paused_until = self._now() + int(wait * NS)
        self.last_reason = str(status)
        fields = {"venue": self.venue, "status": status, "pause_s": round(wait, 3)}
        log.warning("venue_paused", extra={"fields": fields})

    def _pause_s(self, status: int, asked: float | None) -> float:
        timing = self._timing
        match status:
            case 429:
                growing = timing.throttled_s * 2.0 ** min(self._throttles, 16)
                return min(asked if asked is not None else growing, timing.throttled_max_s)
            case 418:
                return min(max(asked or 0.0, timing.banned_s), timing.banned_max_s)
            case 403:
                return min(max(asked or 0.0, timing.forbidden_s), timing.banned_max_s)
            case _:
                return timing.unavailable_s

    def _clock(self) -> float:
        return asyncio.get_running_loop().time()


def retry_after_s(text: str, at: int) -> float | None:
    """Seconds that a Retry-After header asks for at a time; None if it does not say.

    It is a number of seconds or a date (RFC 9110, section 10.2.3).
    """
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        then = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, then - at / NS)


def _failure_of(error: Exception) -> str:
    """Which of `FAILURES` an exception out of a request is."""
    match error:
        case TimeoutError():
            return "timeout"
        case aiohttp.ClientConnectorError():
            return "connect"
        case aiohttp.ServerDisconnectedError():
            return "cut"
        case aiohttp.ClientPayloadError():
            return "protocol" if isinstance(error.__cause__, ContentEncodingError) else "cut"
        case aiohttp.ClientOSError() | OSError():
            return "cut"
        case _:
            return "protocol"
