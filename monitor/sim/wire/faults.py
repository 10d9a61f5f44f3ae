"""What can go wrong between a venue and its clients, on demand, seeded and counted.

Faults sit between the wire and the socket: the venue itself stays right, so that what a client
believes can still be compared with the truth. Nothing here does I/O: a `Link` says what is to be
delivered, the shell delivers it.
"""

import math
import re
from collections import Counter
from typing import Final
from zlib import crc32

import numpy as np
from msgspec import Struct

from monitor.sim.wire.base import NS, Kind, Message

COUNTED: Final = (
    "gap",  # a message that was never delivered
    "duplicate",  # one delivered twice
    "reorder",  # one delivered after its successor on the topic
    "truncated",  # one replaced by its first part, which is no JSON
    "nan",  # one with a number replaced by "NaN"
    "wrong_type",  # one with a number replaced by an object
    "unknown_kind",  # an extra message of a kind that nobody knows
    "silence",  # a topic that went silent on one connection
    "silenced",  # messages withheld by that
    "cut",  # a connection cut between two frames
    "cut_mid_frame",  # a connection cut within a frame
    "slow_http",  # an HTTP answer that was delayed
    "throttled",  # an HTTP request answered by 429 with Retry-After
    "skew",  # connections that were told the time by a wrong clock
)
"""Closed set of what is counted."""

HELD_MAX: Final = 64
"""Topics of one connection with a message held back for reordering."""

_NUMBER = re.compile(rb'"\d+(?:\.\d+)?"')

_UNKNOWN: Final = {
    "binance": b'{"stream":"btcusdt@nothing","data":{"e":"nothingKnown","s":"BTCUSDT"}}',
    "bybit": b'{"topic":"nothingKnown.BTCUSDT","type":"delta","ts":1,"data":{}}',
    "okx": b'{"arg":{"channel":"nothing-known","instId":"BTC-USDT-SWAP"},"data":[{}]}',
    "hyperliquid": b'{"channel":"nothingKnown","data":{}}',
}


class SilentStream(Struct, frozen=True):
    """Topics that contain `text` say nothing for a while, times since the market's start."""

    text: str
    start_s: float
    over_s: float


class Faults(Struct, frozen=True, kw_only=True):
    """Rates and schedules of one venue's faults; the default is none.

    Rates are probabilities per message (or per HTTP request). `kinds` are the messages that
    `gap`, `duplicate`, `reorder` and `malformed` may hit: order books by default, since a client
    can notice there. All of it happens between `start_s` and `until_s` after the market's start.

    Attributes:
        silence: chance that a topic goes silent on one connection, for `silence_s`.
        cut: chance that the connection is cut at a message, half of the time within its frame.
        cuts_at_s: moments at which every connection is cut.
        silences: topics that go silent at given times.
        slow_http: chance that an answer is delayed by `slow_http_s`.
        throttle: chance of a 429 that asks for `retry_after_s`.
        skew_ms: error of the venue's clock; constant, whatever the times above.
    """

    seed: int = 0
    kinds: tuple[Kind, ...] = ("book",)
    gap: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    malformed: float = 0.0
    silence: float = 0.0
    silence_s: float = 90.0
    cut: float = 0.0
    cuts_at_s: tuple[float, ...] = ()
    silences: tuple[SilentStream, ...] = ()
    slow_http: float = 0.0
    slow_http_s: float = 3.0
    throttle: float = 0.0
    retry_after_s: int = 2
    skew_ms: int = 0
    start_s: float = 0.0
    until_s: float = math.inf


NONE: Final = Faults()


class Cut(Struct, frozen=True):
    """The end of a connection; `begun` is sent as the beginning of a frame that never ends."""

    begun: bytes = b""


class HttpFault(Struct, frozen=True):
    """What happens to one HTTP request: wait, then answer 429 if `retry_after_s` is given."""

    delay_s: float = 0.0
    retry_after_s: int | None = None


class Injector:
    """One venue's faults.

    Attributes:
        counts: how often each of `COUNTED` happened.
    """

    def __init__(self, faults: Faults, venue: str, started_at: int) -> None:
        self.faults = faults
        self.venue = venue
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
        self._started_at = started_at
        self._http = _generator(faults.seed, f"http {venue}")
        self._links = 0

    def link(self, at: int) -> "Link":
        """A new connection."""
        self._links += 1
        self.counts["skew"] += self.faults.skew_ms != 0
        return Link(self, self._links, self.elapsed_s(at))

    def http(self, at: int) -> HttpFault:
        """What happens to a request made now."""
        f = self.faults
        if not self.is_active(at):
            return HttpFault()
        delay_s, asked_s = 0.0, None
        if f.slow_http and self._http.random() < f.slow_http:
            self.counts["slow_http"] += 1
            delay_s = f.slow_http_s
        if f.throttle and self._http.random() < f.throttle:
            self.counts["throttled"] += 1
            asked_s = f.retry_after_s
        return HttpFault(delay_s, asked_s)

    def elapsed_s(self, at: int) -> float:
        """Seconds since the market's start."""
        return (at - self._started_at) / NS

    def is_active(self, at: int) -> bool:
        """Whether anything may go wrong now."""
        return self.faults.start_s <= self.elapsed_s(at) < self.faults.until_s


class Link:
    """The faults of one connection."""

    def __init__(self, injector: Injector, number: int, opened_s: float) -> None:
        self._injector = injector
        self._faults = injector.faults
        self._random = _generator(injector.faults.seed, f"link {injector.venue} {number}").random
        self._cuts = [t for t in sorted(injector.faults.cuts_at_s) if t > opened_s]
        self._silent: dict[str, float] = {}
        self._held: dict[str, bytes] = {}

    def deliver(self, at: int, message: Message, data: bytes) -> list[bytes | Cut]:
        """What of a push reaches the client, and after what else."""
        if self._faults is NONE:
            return [data]
        elapsed_s = self._injector.elapsed_s(at)
        if self._cuts and elapsed_s >= self._cuts[0]:
            return [self._cut(data)]
        if self._is_silent(message.topic, elapsed_s):
            self._injector.counts["silenced"] += 1
            return []
        held = self._held.pop(message.topic, None)
        after: list[bytes | Cut] = [] if held is None else [held]
        if not self._injector.is_active(at):
            return [data, *after]
        f = self._faults
        if self._happens(f.cut):
            return [self._cut(data)]
        if self._happens(f.silence):
            self._count("silence")
            self._count("silenced")
            self._silent[message.topic] = elapsed_s + f.silence_s
            return after
        if message.kind not in f.kinds:
            return [data, *after]
        return [*self._disturbed(message, data), *after]

    def _disturbed(self, message: Message, data: bytes) -> list[bytes | Cut]:
        f = self._faults
        if self._happens(f.gap):
            self._count("gap")
            return []
        if self._happens(f.duplicate):
            self._count("duplicate")
            return [data, data]
        if self._happens(f.reorder) and len(self._held) < HELD_MAX:
            self._count("reorder")
            self._held[message.topic] = data
            return []
        if self._happens(f.malformed):
            return self._malformed(data)
        return [data]

    def _malformed(self, data: bytes) -> list[bytes | Cut]:
        numbers = list(_NUMBER.finditer(data))
        kind = int(self._random() * 4)
        if kind == 0 or (kind < 3 and not numbers):
            self._count("truncated")
            return [data[: len(data) * 2 // 3]]
        if kind == 3:
            self._count("unknown_kind")
            return [_UNKNOWN[self._injector.venue], data]
        at = numbers[int(self._random() * len(numbers))]
        self._count("nan" if kind == 1 else "wrong_type")
        return [data[: at.start()] + (b'"NaN"' if kind == 1 else b"{}") + data[at.end() :]]

    def _is_silent(self, topic: str, elapsed_s: float) -> bool:
        until_s = self._silent.get(topic)
        if until_s is not None:
            if elapsed_s < until_s:
                return True
            del self._silent[topic]
        return any(
            s.text in topic and s.start_s <= elapsed_s < s.start_s + s.over_s
            for s in self._faults.silences
        )

    def _cut(self, data: bytes) -> Cut:
        within = self._random() < 0.5
        self._count("cut_mid_frame" if within else "cut")
        return Cut(data[: max(1, len(data) // 2)] if within else b"")

    def _happens(self, rate: float) -> bool:
        return rate > 0.0 and self._random() < rate

    def _count(self, what: str) -> None:
        self._injector.counts[what] += 1


def _generator(seed: int, name: str) -> np.random.Generator:
    """Chance of its own for every venue and connection, apart from the market's streams."""
    return np.random.Generator(
        np.random.PCG64(np.random.SeedSequence([seed, crc32(name.encode())]))
    )
