"""What the page draws when it is opened: rows of the picture, liquidations and alerts of a day.

Kept in memory as the JSON that will be sent, so that a question costs a join. Rows older than an
hour are thinned to one a minute. After a start the day is read back from Redis once; until then,
and without Redis, an answer says that it is incomplete.

Memory of one asset with four venues: at most some 12 MB after a day.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Any, Final, cast

import msgspec
from msgspec import Struct
from redis.exceptions import RedisError

from monitor.core.engine import ROW_REACH
from monitor.core.heatmap.pooling import row_of
from monitor.events import NS, Heatmap, Message
from monitor.sinks.envelope import encode
from monitor.sinks.redis import Servers, raise_if_cancelled, reason_of

FINE_S: Final = 3600
"""Rows younger than this are all kept."""

COARSE_S: Final = 60
"""Of the older ones, one in so many seconds is."""

KEPT_S: Final = 86_400
"""Nothing is kept for longer than a day."""

VENUE_EVERY_S: Final = 10
"""Rows of single venues are no messages: one is made so often from the venue's map."""

LIQUIDATIONS_KEPT: Final = 5000
ALERTS_KEPT: Final = 500

CHUNK: Final = 500
"""Entries read from a stream at once."""

RETRY_S: Final = 5.0

_SECOND_US: Final = 1_000_000
_AT: Final = re.compile(rb'"at_us":(\d+)')
_ALERT: Final = b'"kind":"alerts"'

_log = logging.getLogger(__name__)


class Entry(Struct, frozen=True, gc=False):
    """The JSON of one message, and when it was."""

    at_us: int
    text: bytes


class Rows:
    """Rows of one picture: the last hour in full, the day before it in minutes."""

    def __init__(self) -> None:
        self._fine: deque[Entry] = deque()
        self._coarse: deque[Entry] = deque()

    def add(self, entry: Entry) -> None:
        """Take the next row."""
        self._fine.append(entry)
        while self._fine[0].at_us < entry.at_us - FINE_S * _SECOND_US:
            self._fine.popleft()
        last = self._coarse[-1].at_us if self._coarse else None
        if last is None or not 0 <= entry.at_us - last < COARSE_S * _SECOND_US:
            self._coarse.append(entry)
        while self._coarse[0].at_us < entry.at_us - KEPT_S * _SECOND_US:
            self._coarse.popleft()

    @property
    def oldest(self) -> int | None:
        """When the oldest row was, in microseconds."""
        return self._coarse[0].at_us if self._coarse else None

    def since(self, start_us: int, end_us: int) -> list[Entry]:
        """Rows of that time, oldest first: all of an hour or less, else one a minute."""
        rows = self._fine if end_us - start_us <= FINE_S * _SECOND_US else self._coarse
        return [row for row in rows if start_us <= row.at_us <= end_us]

    def precede(self, older: Iterable[Entry]) -> None:
        """Put rows from before this process in front of those it has made."""
        own = list(self._fine)
        first = own[0].at_us if own else None
        self._fine.clear()
        self._coarse.clear()
        for entry in older:
            if first is None or entry.at_us < first:
                self.add(entry)
        for entry in own:
            self.add(entry)


class History:
    """Keeps what was published; see the module.

    Attributes:
        missing: why the day is not complete; empty when it was read back from Redis.
    """

    def __init__(self, run: str, now: Callable[[], int]) -> None:
        """`now` is in ns since the epoch."""
        self.missing = "only what came since the start is kept: no Redis to read the day from"
        self._run = run
        self._now = now
        self._started_us = now() // 1000
        self._rows: dict[tuple[str, str], Rows] = {}
        self._prints: dict[str, deque[Entry]] = {}
        self._alerts: deque[Entry] = deque(maxlen=ALERTS_KEPT)
        self._venue_at: dict[tuple[str, str], int] = {}

    # ------------------------------------------------------------------------------- writing

    def put(self, message: Message) -> None:
        """Take note of a message. Never waits."""
        match message.kind:
            case "heatmap:log":
                self._of(message.asset).add(self._entry(message))
            case "heatmap" if message.venue:
                self._venue(message)
            case "liquidations":
                self._printed(message.asset).append(self._entry(message))
            case "alerts":
                self._alerts.append(self._entry(message))

    def _venue(self, message: Message) -> None:
        key = message.asset, message.venue
        passed = message.at - self._venue_at.get(key, 0)
        if 0 <= passed < VENUE_EVERY_S * NS:
            return
        self._venue_at[key] = message.at
        row = row_of(cast("Heatmap", message.data), ROW_REACH)
        made = Message("heatmap:log", message.asset, message.seq, message.at, row, message.venue)
        self._of(*key).add(self._entry(made))

    def _entry(self, message: Message) -> Entry:
        return Entry(message.at // 1000, encode(message, self._run))

    def _of(self, asset: str, venue: str = "") -> Rows:
        return self._rows.setdefault((asset, venue), Rows())

    def _printed(self, asset: str) -> deque[Entry]:
        return self._prints.setdefault(asset, deque(maxlen=LIQUIDATIONS_KEPT))

    # ------------------------------------------------------------------------------- reading

    def rows(self, asset: str, venue: str, minutes: float) -> list[bytes]:
        """Rows of the last `minutes`, oldest first."""
        start, end = self._span(minutes)
        known = self._rows.get((asset, venue))
        return [entry.text for entry in known.since(start, end)] if known else []

    def liquidations(self, asset: str, minutes: float) -> list[bytes]:
        """Liquidations of the last `minutes`, oldest first."""
        start, end = self._span(minutes)
        return [e.text for e in self._prints.get(asset, ()) if start <= e.at_us <= end]

    def alerts(self, limit: int) -> list[bytes]:
        """The last `limit` alerts, newest first."""
        newest = sorted(self._alerts, key=lambda entry: entry.at_us, reverse=True)
        return [entry.text for entry in newest[:limit]]

    def lacks(self, minutes: float, venue: str = "") -> str:
        """Why an answer over the last `minutes` is not complete; empty if it is."""
        start, _ = self._span(minutes)
        if start >= self._started_us:
            return ""
        if venue:
            return "rows of single venues are kept since the daemon's start only"
        return self.missing

    def picture_lacks(self, asset: str, venue: str, minutes: float) -> str:
        """The same of a picture, which may have begun later than was asked."""
        reason = self.lacks(minutes, venue)
        if reason:
            return reason
        start, _ = self._span(minutes)
        known = self._rows.get((asset, venue))
        oldest = known.oldest if known is not None else None
        if oldest is None or oldest > start + 2 * COARSE_S * _SECOND_US:
            return "no older rows have been made"
        return ""

    def _span(self, minutes: float) -> tuple[int, int]:
        end = self._now() // 1000
        return end - int(minutes * 60 * _SECOND_US), end

    # ------------------------------------------------------------------------ reading it back

    async def recall(self, servers: Servers, prefix: str, assets: Iterable[str]) -> None:
        """Read the day back from Redis; try until it succeeds or is cancelled, then disconnect."""
        wanted = list(assets)
        try:
            while True:
                if await self._recalled(servers, prefix, wanted):
                    return
                await asyncio.sleep(RETRY_S)
        finally:
            with suppress(RedisError, OSError, TimeoutError):
                await servers.close()

    async def _recalled(self, servers: Servers, prefix: str, assets: list[str]) -> bool:
        rows, prints = {}, {}
        try:
            for asset in assets:
                key = f"{prefix}:{{{asset}}}"
                rows[asset] = await self._read(servers, f"{key}:heatmap:log")
                prints[asset] = await self._read(servers, f"{key}:liquidations")
            alerts = await self._read(servers, f"{prefix}:alerts", of=assets)
        except Exception as error:  # noqa: BLE001  (a boundary: the day before is all it costs)
            self._failed(error)
            return False
        finally:
            raise_if_cancelled()
        for asset in assets:
            self._of(asset).precede(rows[asset])
            _precede(self._printed(asset), prints[asset])
        _precede(self._alerts, alerts)
        self.missing = ""
        return True

    def _failed(self, error: Exception) -> None:
        reason = reason_of(error)
        missing = f"the day could not be read from Redis yet: {reason}"
        if missing != self.missing:
            trace = error if reason == "unexpected" else None
            fields = {"reason": reason, "error": str(error)[:200]}
            _log.warning("history_not_read", exc_info=trace, extra={"fields": fields})
        self.missing = missing

    async def _read(
        self, servers: Servers, key: str, of: Iterable[str] | None = None
    ) -> list[Entry]:
        """Entries of a stream that earlier runs wrote in the last day, oldest first.

        In the stream `of` several assets only their alerts count: it has undelivered ones as well.
        """
        start_us = (self._now() // 1000) - KEPT_S * _SECOND_US
        needles = None if of is None else [f'"asset":"{asset}"'.encode() for asset in of]
        found = []
        async for text in _entries(servers, key, start_us // 1000):
            at = _AT.search(text)
            stamp = int(at[1]) if at else 0
            ours = needles is None or (_ALERT in text and any(needle in text for needle in needles))
            if ours and start_us <= stamp <= self._started_us:
                found.append(Entry(stamp, text))
        return found


async def _entries(servers: Servers, key: str, start_ms: int) -> AsyncIterator[bytes]:
    start = str(max(0, start_ms))
    while True:
        client = await servers.of(key)
        page = cast("list[tuple[bytes, dict[bytes, bytes]]]",
                    await client.xrange(key, min=start, count=CHUNK))  # fmt: skip
        for _, fields in page:
            yield fields.get(b"m", b"")
        if len(page) < CHUNK:
            return
        start = f"({page[-1][0].decode()}"


def _precede(kept: deque[Entry], older: list[Entry]) -> None:
    """Put entries from before this process in front of those it has made."""
    own = list(kept)
    kept.clear()
    kept.extend(older)
    kept.extend(own)


def joined(entries: list[bytes], **fields: Any) -> bytes:  # noqa: ANN401  (whatever JSON holds)
    """A JSON object of some fields and the entries as a list."""
    head = msgspec.json.encode(fields)
    comma = b"," if fields else b""
    return head[:-1] + comma + b'"entries":[' + b",".join(entries) + b"]}\n"
