"""Hears what a daemon publishes to Redis: every message once, in order, with what was missed.

The contract is `docs/messages.md`, with `Sequence` for its reader's rule. State comes from channels
and keys: only the newest per topic waits for a slow reader, and what it replaced is counted as
lost. Events come from their streams, which Redis keeps, so that a disconnection loses none of them
and a slow reader leaves them where they are. A reader therefore costs neither itself nor the server
more memory the slower it is.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Self, cast

import msgspec
from msgspec import Struct, structs
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from monitor.config import ConfigError
from monitor.sinks.envelope import VERSION
from monitor.sinks.outbox import STATE_KINDS
from monitor.sinks.redis import COMMON, Reason, Servers, masked, numbers, reason_of
from monitor.sinks.sequence import Sequence

EVENT_KINDS: Final = frozenset({"liquidations", "heatmap:log"} | set(COMMON))
"""Kinds that are read from streams."""

COUNT: Final = 100
"""Events read at once of each stream, when fewer than so many wait for the reader."""

BLOCK_S: Final = 2.0
"""How long the server holds an empty answer to ``XREAD``."""

QUIET_S: Final = 5.0
"""A channel connection that is quiet for so long is pinged, and given up after as long again."""

TIMEOUT_S: Final = 5.0
"""No answer within this is a lost connection; longer than `BLOCK_S`."""

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 5.0
"""The wait after a failure doubles from the first to the second; both are jittered."""

CONNECTIONS: Final = 1024
"""To one server: two for each asset of a cluster, else two, and one to read keys with."""

HOPELESS: Final[frozenset[Reason]] = frozenset({"authentication", "permission", "wrong_type"})
"""Reasons that waiting does not mend."""

_log = logging.getLogger(__name__)

Topic = tuple[str, str, str]
"""Kind, asset and venue: what a `seq` counts."""


class SubscriptionError(Exception):
    """Redis refuses for good: a password, a right, or a key that is not ours."""


class Received(Struct, frozen=True):
    """A message with what is known to have been missed before it.

    Attributes:
        lost: messages of the same kind, asset and venue that were missed since the one before;
            after a restart those of the new run, since nobody knows how the old one ended.
        restarted: the first of another run: the daemon has been started anew.
        data: the body as `docs/messages.md` describes it.
        id: the entry of the stream; empty for state.
    """

    kind: str
    run: str
    seq: int
    at_us: int
    asset: str
    venue: str
    data: dict[str, Any]
    lost: int
    restarted: bool
    id: str = ""

    @property
    def topic(self) -> Topic:
        """What its `seq` counts."""
        return self.kind, self.asset, self.venue


class _Envelope(Struct, frozen=True):
    v: int
    kind: str
    run: str
    seq: int
    at_us: int
    asset: str
    data: dict[str, Any]
    venue: str = ""


class _Slot(Struct):
    """What lies on one server for certain: in a cluster that of one hash slot."""

    key: str
    channels: list[str]
    streams: list[str]


def subscribe(
    url: str,
    *,
    kinds: Iterable[str] = ("risk", "alerts"),
    assets: Iterable[str] = (),
    since: str = "$",
    prefix: str = "cascade",
) -> "Messages":
    """Messages of a daemon, to be entered with ``async with`` and read with ``async for``.

    Args:
        url: as `redis.url`, but for ``embedded``: the daemon prints that server's address.
        kinds: as in the names of the keys: ``risk``, ``depth``, ``heatmap``, ``heatmap:okx``,
            ``heatmap:log``, ``liquidations``, ``status``, ``alerts``, ``forecasts``,
            ``undelivered``.
        assets: such as ``BTC``. None of them means all, for alerts, forecasts and the undelivered;
            the other kinds but ``status`` need to be told.
        since: where to begin in streams: ``$`` with what comes from now on, ``0`` with the oldest
            kept, else behind this id or time in milliseconds.
        prefix: the daemon's `redis.prefix`.

    Raises:
        ValueError: not a Redis URL, no kinds, an unknown one, or one that needs an asset.
    """
    return Messages(url, tuple(kinds), tuple(assets), since, prefix)


class Messages:
    """An iterator over `Received`, without an end; one reader.

    Waiting for the next message may be cancelled, as by `asyncio.timeout`, and loses nothing.

    Attributes:
        unreadable: messages passed over because they are of another version or no message at all.
    """

    def __init__(
        self, url: str, kinds: tuple[str, ...], assets: tuple[str, ...], since: str, prefix: str
    ) -> None:
        self.unreadable = 0
        self._url = masked(url)
        self._wanted = {kind if kind in EVENT_KINDS else kind.partition(":")[0] for kind in kinds}
        self._assets = frozenset(assets)
        self._since = since
        try:
            self._servers = Servers(url, TIMEOUT_S, "cascade-reader", CONNECTIONS)
        except ConfigError:
            # Not the library's own text, which may quote a part of the password.
            raise ValueError("not a Redis URL") from None
        self._slots = _slots(prefix, kinds, assets, together=not self._servers.cluster)
        self._sequences: dict[Topic, Sequence] = {}
        self._states: dict[Topic, Received] = {}
        self._events: deque[Received] = deque()
        self._was_event = False
        self._changed = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._failure: Exception | None = None
        self._problems: dict[str, Reason] = {}

    @property
    def problem(self) -> Reason | None:
        """Why a part is not heard now, of `monitor.sinks.redis.REASONS`; None: all is well."""
        return next(iter(self._problems.values()), None)

    async def __aenter__(self) -> Self:
        for slot in self._slots:
            if slot.channels:
                self._start(f"state of {slot.key}", partial(self._hear, slot))
            if slot.streams:
                self._start(f"events of {slot.key}", partial(self._read, slot, {}))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                await self._servers.close()

    def __aiter__(self) -> AsyncIterator[Received]:
        return self

    async def __anext__(self) -> Received:
        """The next message, as soon as there is one.

        Raises:
            SubscriptionError: Redis refuses for good.
        """
        assert self._tasks, "enter it first: async with subscribe(...) as messages"
        async with self._changed:
            await self._changed.wait_for(lambda: self._states or self._events or self._failure)
            if self._failure is not None:
                raise self._failure
            # By turns, so that neither a flood of state nor a long backlog keeps the other out.
            self._was_event = bool(self._events) and not (self._was_event and self._states)
            if self._was_event:
                received = self._events.popleft()
            else:
                received = self._states.pop(next(iter(self._states)))
            self._changed.notify_all()
            return received

    # ------------------------------------------------------------------------- connections

    def _start(self, part: str, work: Callable[[str], Awaitable[None]]) -> None:
        self._tasks.append(asyncio.create_task(self._persist(part, work), name=part))

    async def _persist(self, part: str, work: Callable[[str], Awaitable[None]]) -> None:
        """Begin `work` again whenever its connection is lost."""
        failures = 0
        while not self._closed:
            began = asyncio.get_running_loop().time()
            try:
                await work(part)
            except Exception as error:  # noqa: BLE001  (a boundary: the reader is told)
                if not await self._is_passing(part, error):
                    return
            lasted_s = asyncio.get_running_loop().time() - began
            failures = 0 if lasted_s > BACKOFF_MAX_S else failures + 1
            backoff_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 16))
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))  # noqa: S311  (no secret)

    async def _is_passing(self, part: str, error: Exception) -> bool:
        """Whether to try again; what is here to stay is raised to the reader."""
        reason = reason_of(error)
        if reason in HOPELESS or reason == "unexpected":
            failure = SubscriptionError(f"{self._url}, {part}: {reason}: {error}")
            failure.__cause__ = error
            async with self._changed:
                self._failure = failure
                self._changed.notify_all()
            return False
        if self._servers.cluster:
            with suppress(RedisError, RedisClusterException, OSError, TimeoutError):
                await self._servers.forget()
        if reason != self._problems.get(part):
            fields = {"url": self._url, "part": part, "reason": reason, "error": str(error)[:200]}
            _log.warning("subscription_interrupted", extra={"fields": fields})
        self._problems[part] = reason
        return True

    def _recovered(self, part: str) -> None:
        if self._problems.pop(part, None):
            fields = {"url": self._url, "part": part}
            _log.info("subscription_resumed", extra={"fields": fields})

    # ------------------------------------------------------------------------------- state

    async def _hear(self, slot: _Slot, part: str) -> None:
        client = await self._servers.of(slot.key)
        async with client.pubsub() as pubsub:
            await pubsub.subscribe(*slot.channels)
            # Only then, or what is published between the two would be missed.
            await self._heard(pubsub, "subscribe", len(slot.channels))
            for key in slot.channels:
                await self._look(client, key)
            self._recovered(part)
            is_pinged = False
            while not self._closed:
                item = await pubsub.get_message(timeout=QUIET_S)
                if item is None:
                    if is_pinged:
                        raise TimeoutError("the server is silent")
                    await pubsub.ping()
                    is_pinged = True
                    continue
                is_pinged = False
                if item["type"] == "message" and await self._offer(item["data"]):
                    await self._look(client, item["channel"].decode())

    async def _heard(self, pubsub: PubSub, what: str, times: int) -> None:
        """Wait for confirmations; what is published meanwhile counts as well."""
        while times:
            item = await pubsub.get_message(timeout=TIMEOUT_S)
            if item is None:
                raise TimeoutError(f"no answer to {what}")
            if item["type"] == what:
                times -= 1
            elif item["type"] == "message":
                await self._offer(item["data"])

    async def _look(self, client: Redis, key: str) -> None:
        text = cast("bytes | None", await client.get(key))
        if text is not None:
            await self._offer(text)

    async def _offer(self, text: bytes) -> bool:
        """Put a state where the reader finds it; whether there was a hole before it."""
        received = self._received(text)
        if received is None:
            return False
        async with self._changed:
            waiting = self._states.get(received.topic)
            self._states[received.topic] = received if waiting is None else _over(waiting, received)
            self._changed.notify_all()
        return received.lost > 0

    # ------------------------------------------------------------------------------ events

    async def _read(self, slot: _Slot, last: dict[str, str], part: str) -> None:
        """Follow streams; `last` outlives a connection, so that the next goes on from there."""
        client = await self._servers.of(slot.key)
        for stream in slot.streams:
            await self._find(client, stream, last)
        self._recovered(part)
        while not self._closed:
            found = await client.xread(last, COUNT, block=round(BLOCK_S * 1000))  # type: ignore[arg-type]  # its type wants wider values
            for name, entries in cast("list[tuple[bytes, list[_Entry]]]", found or []):
                stream = name.decode()
                for id_, fields in entries:
                    last[stream] = id_.decode()
                    if received := self._received(fields.get(b"m", b""), last[stream]):
                        self._events.append(received)
            async with self._changed:
                self._changed.notify_all()
                # The rest stays in Redis until it is asked for.
                await self._changed.wait_for(lambda: len(self._events) < COUNT)

    async def _find(self, client: Redis, stream: str, last: dict[str, str]) -> None:
        """Where to go on: at our last id, or anew where the server has lost more than that."""
        top = await _top(client, stream)
        if stream not in last:
            last[stream] = top if self._since == "$" else self._since
        elif numbers(top) < numbers(last[stream]):
            last[stream] = "0-0"

    # ---------------------------------------------------------------------------- messages

    def _received(self, text: bytes, id_: str = "") -> Received | None:
        """A message that is to be taken."""
        try:
            envelope = msgspec.json.decode(text, type=_Envelope)
        except ValueError:
            self.unreadable += 1
            return None
        if envelope.v != VERSION:
            self.unreadable += 1
            return None
        if envelope.kind not in self._wanted:
            return None
        if envelope.asset and self._assets and envelope.asset not in self._assets:
            return None
        topic = envelope.kind, envelope.asset, envelope.venue
        sequence = self._sequences.get(topic)
        if sequence is None:
            sequence = self._sequences[topic] = Sequence(is_state=envelope.kind in STATE_KINDS)
        verdict = sequence.judge(envelope.run, envelope.seq)
        if verdict is None:
            return None
        return Received(
            kind=envelope.kind,
            run=envelope.run,
            seq=envelope.seq,
            at_us=envelope.at_us,
            asset=envelope.asset,
            venue=envelope.venue,
            data=envelope.data,
            lost=verdict.lost,
            restarted=verdict.restarted,
            id=id_,
        )


_Entry = tuple[bytes, dict[bytes, bytes]]


def _over(waiting: Received, newer: Received) -> Received:
    """A state in place of one that the reader has not come to, which is lost by that."""
    return structs.replace(
        newer,
        lost=waiting.lost + 1 + newer.lost,
        restarted=waiting.restarted or newer.restarted,
    )


def _slots(
    prefix: str, kinds: Iterable[str], assets: Iterable[str], *, together: bool
) -> list[_Slot]:
    """The keys to read, by slot, or all in one where one server has them `together`.

    Raises:
        ValueError: no kinds, an unknown one, or one that needs an asset.
    """
    slots: dict[str, _Slot] = {}

    def add(tag: str, key: str, *, is_stream: bool) -> None:
        slot = slots.setdefault("" if together else tag, _Slot(key, [], []))
        names = slot.streams if is_stream else slot.channels
        if key not in names:
            names.append(key)

    for kind in kinds:
        if kind in COMMON:
            key = f"{prefix}:{COMMON[kind]}"
            add(key, key, is_stream=True)
        elif kind.partition(":")[0] == "status":
            add(kind, f"{prefix}:{kind}", is_stream=False)
        elif kind in EVENT_KINDS or kind in STATE_KINDS or kind.startswith("heatmap:"):
            if not assets:
                raise ValueError(f"{kind} needs to be told of which assets")
            for asset in assets:
                add(asset, f"{prefix}:{{{asset}}}:{kind}", is_stream=kind in EVENT_KINDS)
        else:
            known = ", ".join(sorted(EVENT_KINDS | STATE_KINDS))
            raise ValueError(f"{kind!r} is no kind of message; one of {known}")
    if not slots:
        raise ValueError("no kinds of messages to subscribe to")
    return list(slots.values())


async def _top(client: Redis, stream: str) -> str:
    """The last id a stream has given out; ``0-0`` where there is no stream."""
    try:
        info = await client.xinfo_stream(stream)
    except ResponseError as error:
        if "no such key" in str(error):
            return "0-0"
        raise
    return cast("bytes", info["last-generated-id"]).decode()
