"""Publishes messages to Redis: the newest state under a key and on a channel, events in a stream.

The contract with readers is `docs/messages.md`. A dead, full, read-only or locked Redis is counted
and retried; only a wrong URL ever raises out of here, and nothing here makes the engine wait.

State is written as ``SET`` and ``PUBLISH`` in one ``MULTI``, so whoever sees a message on the
channel finds a key at least as new. The time to live runs from the moment the engine published, not
from that of the write: an outage never makes old state look young.

Events carry an explicit stream id, ``<receive time in ms>-<seq>``, fixed at the first attempt. If
the connection is lost before the answer, nobody knows whether the write took place, and it may even
take place later, out of a socket buffer. So it is repeated with the same id, and Redis refuses an
id that is not above the stream's last one. A refused entry that stands there under its id has been
written before. One that does not never will be, its id being below the top, so it gets a new id
above the top; that happens after a clock has stepped back, in a replay, or with a second writer.

A confirmed event can still be lost: with ``appendfsync everysec`` a server answers up to 2 s before
its file has the write, or not at all with ``appendonly no``. So after a reconnection the last ones
are looked for, and those that are gone are written again.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Final, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from msgspec import Struct
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection, ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    BusyLoadingError,
    ClusterError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from monitor.config import ConfigError, RedisConfig
from monitor.events import Message
from monitor.sinks.envelope import encode
from monitor.sinks.outbox import TAKE_MAX, Entry, Outbox

Reason: TypeAlias = Literal[
    "connection",  # refused, reset, no such host, TLS
    "timeout",  # no answer in time
    "authentication",  # NOAUTH, WRONGPASS
    "permission",  # NOPERM: the ACL does not allow it
    "loading",  # the server reads its data
    "cluster",  # MOVED, ASK, CLUSTERDOWN: the slots are elsewhere now
    "memory",  # OOM: maxmemory with noeviction
    "read_only",  # READONLY: a replica
    "persistence",  # MISCONF: the server cannot write its own disk
    "wrong_type",  # WRONGTYPE: somebody else's key under our name
    "refused",  # any other error the server answered
    "unexpected",  # an exception the client library should not have raised
]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
TRANSPORT: Final[frozenset[Reason]] = frozenset(
    {"connection", "timeout", "authentication", "loading", "cluster", "unexpected"}
)
"""Reasons that concern a whole server, so that there is no use in trying its other keys now."""

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 5.0
"""The wait after a failure doubles from the first to the second; both are jittered."""

REFUSED_BACKOFF_MAX_S: Final = 1.0
"""The longest wait while only some keys are refused, so that the others stay fresh."""

COMMON: Final = {"alerts": "alerts", "forecasts": "forecasts", "undelivered": "alerts"}
"""Events of all assets in one stream, by kind."""

HEARD: Final = frozenset({"alerts"})
"""Events that are published on the channel of their stream's name as well."""

BATCH: Final = 64
"""Messages in one MULTI: bounds how long the server is busy with us (64 x 20 KB, about 1 ms)."""

UNSAFE_S: Final = 5.0
"""How long before a server's death a confirmed event may be lost: while its disk is busy Redis puts
a write off for up to 2 s, and then syncs once a second."""

PATIENCE_FACTOR: Final = 4.0
"""One exchange (connect, authenticate, write, read) may take so many single timeouts in all."""

RELEARN_S: Final = 1.0
"""A cluster's layout is not learnt more often; a node that is away fails every reader of it."""

LOG_INTERVAL_S: Final = 60.0
"""A lasting failure is logged this often, and at once when its reason changes."""

_log = logging.getLogger(__name__)


def key_of(prefix: str, message: Message, shard: str = "") -> str:
    """Key and channel of a message; the asset in braces keeps its keys in one cluster slot.

    What is about a whole process is kept apart from that of other shards.
    """
    if message.kind in COMMON:
        return f"{prefix}:{COMMON[message.kind]}"
    if not message.asset:
        return f"{prefix}:{message.kind}" + (f":{shard}" if shard else "")
    venue = f":{message.venue}" if message.venue else ""
    return f"{prefix}:{{{message.asset}}}:{message.kind}{venue}"


# ----------------------------------------------------------------------------- connections


def masked(url: str) -> str:
    """A URL fit for a log: scheme, host and port or path, without any credential or option."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(unreadable)"
    path = parts.path if parts.scheme == "unix" else ""
    return f"{parts.scheme}://{host}{port}{path}"


class Servers:
    """The one server of a plain URL, or the nodes of a cluster; connects when first used.

    A cluster's client serves only to learn which node owns a slot. Its own pipelines resolve every
    command in a thread of its own, so each node gets a plain client instead.

    Attributes:
        connections: opened so far; a change means that a server may have lost what it knew.
    """

    def __init__(self, url: str, timeout_s: float, name: str, connections: int = 4) -> None:
        """Check the URL; `connections` is the most that one server gets.

        Raises:
            ConfigError: the URL is not one of a Redis server.
        """
        self.cluster = urlsplit(url).scheme in {"redis+cluster", "rediss+cluster"}
        self.connections = 0
        plain = url.replace("+cluster", "", 1) if self.cluster else url
        try:
            options = parse_url(plain)
        except ValueError:
            # The library's own text may quote a part of the password.
            allowed = "embedded, redis://, rediss://, unix://, redis+cluster://, rediss+cluster://"
            raise ConfigError(f"redis.url: not a Redis URL; one of {allowed}") from None
        # Explicit, because the library's defaults change between its major versions. It never
        # retries: the outbox does, and knows what is worth it.
        self._options: dict[str, Any] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 0),
            "health_check_interval": 0,
            "client_name": name,
            "protocol": 2,
            "max_connections": connections,
            "redis_connect_func": self._connected,
            **options,
        }
        self._clients: dict[str, Redis] = {}
        self._topology: RedisCluster | None = None
        self._topology_url = plain
        self._timeout_s = timeout_s
        # Several readers share a subscriber's servers, and the layout is to be learnt once.
        self._learning = asyncio.Lock()
        self._learnt_at = -RELEARN_S

    async def greet(self) -> None:
        """Check that the only server answers; a cluster is checked node by node as it is used."""
        if self.cluster:
            await self._learn()
        else:
            await self._client("", {}).ping()

    async def of(self, key: str) -> Redis:
        """The client of the server that owns a key."""
        if not self.cluster:
            return self._client("", {})
        node = (await self._learn()).get_node_from_key(key)
        if node is None:
            raise ClusterError(f"no node owns the slot of {key}")
        return self._client(node.name, {"host": node.host, "port": node.port})

    async def forget(self) -> None:
        """Learn the cluster's layout anew before the next use, unless that has just been done."""
        if time.monotonic() - self._learnt_at >= RELEARN_S:
            await self._disconnect()

    async def _disconnect(self) -> None:
        topology, self._topology = self._topology, None
        if topology is not None:
            await topology.aclose()

    async def close(self) -> None:
        """Close every connection."""
        await self._disconnect()
        while self._clients:
            _, client = self._clients.popitem()
            await client.aclose()
            await client.connection_pool.aclose()

    def _client(self, name: str, address: dict[str, Any]) -> Redis:
        if name not in self._clients:
            pool: ConnectionPool = ConnectionPool(**(self._options | address))
            self._clients[name] = Redis(connection_pool=pool)
        return self._clients[name]

    async def _learn(self) -> RedisCluster:
        async with self._learning:
            if self._topology is None:
                topology = RedisCluster.from_url(
                    self._topology_url,
                    socket_timeout=self._timeout_s,
                    socket_connect_timeout=self._timeout_s,
                    retry=Retry(NoBackoff(), 0),
                    client_name=self._options["client_name"],
                    protocol=2,
                )
                try:
                    await topology.initialize()
                except BaseException:
                    await topology.aclose()
                    raise
                self._topology = topology
                self._learnt_at = time.monotonic()
            return self._topology

    async def _connected(self, connection: AbstractConnection) -> None:
        await connection.on_connect()
        self.connections += 1


# ------------------------------------------------------------------------------------ sink


class _Confirmed(Struct, frozen=True, gc=False):
    """An event that a server says it has: since when (monotonic), in which stream, by which id."""

    at: float
    key: str
    entry: Entry
    id: tuple[int, int]


class RedisSink:
    """Delivers an outbox to Redis.

    Attributes:
        sent: messages that Redis has confirmed.
        errors: failures by reason, each of `REASONS` from the start.
        repeated: events found to have been written by an attempt whose answer was lost.
        renumbered: events whose stream id had to differ from their time.
        rewritten: confirmed events that a server had lost, and that were put back to be written.
        connected: whether the last exchange went through.
        last_success_at: seconds since the Unix epoch, 0 when never.
    """

    def __init__(self, config: RedisConfig, run: str, outbox: Outbox, shard: str = "") -> None:
        """Check the URL; connect to nothing yet.

        Args:
            config: where to write.
            run: the id of this process.
            outbox: what to deliver.
            shard: ``i/n`` where several processes share the assets.

        Raises:
            ConfigError: the URL is not one of a Redis server.
        """
        self.sent = 0
        self.errors: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        self.repeated = 0
        self.renumbered = 0
        self.rewritten = 0
        self.connected = False
        self.last_success_at = 0.0
        self._config = config
        self._run = run
        self._shard = shard
        self._outbox = outbox
        self._url = masked(config.url)
        self._servers = Servers(config.url, config.timeout_s, f"cascade-monitor-{run}")
        self._patience_s = config.timeout_s * PATIENCE_FACTOR
        # Never more than a stream keeps: an entry in doubt must not have been trimmed already.
        self._batch = min(BATCH, config.stream_length, config.heatmap_rows)
        self._connections = 0
        # Stream ids of the events of the last attempt, by their order in the outbox, and the
        # highest id used per stream. An event that is put back is in the next attempt again, or
        # dropped, so older ones are never needed.
        self._ids: dict[int, tuple[int, int]] = {}
        self._tops: dict[str, tuple[int, int]] = {}
        # The confirmed events of each server, of the last `UNSAFE_S` before the newest of them.
        self._unsafe: dict[Redis, deque[_Confirmed]] = {}
        self._owners: dict[str, Redis] = {}
        self._failures = 0
        self._logged: tuple[Reason, float] | None = None

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            await self._outbox.wait()
            delay_s = await self._deliver()
            if delay_s:
                await asyncio.sleep(delay_s)

    async def close(self, deadline_s: float) -> None:
        """Deliver what is pending, for at most `deadline_s`, then disconnect.

        `run` must have been cancelled. What is left is counted as lost.
        """
        try:
            async with asyncio.timeout(deadline_s):
                while len(self._outbox):
                    delay_s = await self._deliver()
                    await asyncio.sleep(delay_s)
        except TimeoutError:
            pass
        if left := self._outbox.abandon():
            fields = {"url": self._url, "messages": left, "deadline_s": deadline_s}
            _log.warning("redis_flush_incomplete", extra={"fields": fields})
        try:
            async with asyncio.timeout(self._patience_s):
                await self._servers.close()
        except (RedisError, OSError):
            pass  # nothing is lost by a connection that does not close politely

    async def _deliver(self) -> float:
        """Attempt once to deliver what is pending; the seconds to wait before the next attempt.

        Whatever is not confirmed, be it by an error or by cancellation, goes back to the outbox.
        """
        if problem := await self._greet():
            return self._failed([problem], progress=False)
        # Only now, so that a server that has come back gets all current state before any event.
        if problem := await self._catch_up():
            return self._failed([problem], progress=False)
        # All that have an id are in this attempt, or they would lose it.
        entries = self._outbox.take_now(max(TAKE_MAX, len(self._ids)))
        done: set[int] = set()
        problems: list[Reason] = []
        try:
            for key, batch in self._batches(entries):
                if problem := await self._send(key, batch, done):
                    problems.append(problem)
                    if problem in TRANSPORT and not self._servers.cluster:
                        break
        finally:
            left = [entry for entry in entries if entry.order not in done]
            self._outbox.restore(left)
            self._ids = {e.order: self._ids[e.order] for e in left if e.order in self._ids}
            self.sent += len(done)
        if self._connections != self._servers.connections:
            self._outbox.renew()  # the next attempt, which that brings about, catches up
        if done:
            self.last_success_at = time.time()
        if problems:
            return self._failed(problems, progress=bool(done))
        self._recovered()
        return 0.0

    def _batches(self, entries: list[Entry]) -> Iterator[tuple[str, list[Entry]]]:
        """What goes into one MULTI each, with a key that says to which server.

        All states come first. In a cluster a MULTI must not leave its slot; on one server it may
        span assets, which saves round trips. An events' MULTI is all of one stream.
        """
        groups: dict[str, list[Entry]] = {}
        for entry in entries:
            key = key_of(self._config.prefix, entry.message, self._shard)
            if entry.is_state:
                slot = f"{{{entry.message.asset}}}" if entry.message.asset else key
                key = slot if self._servers.cluster else ""
            groups.setdefault(key, []).append(entry)
        for key, group in groups.items():
            remaining = iter(group)
            while batch := list(islice(remaining, self._batch)):
                yield key, batch

    async def _greet(self) -> Reason | None:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._servers.greet()
        except Exception as error:  # noqa: BLE001  (a boundary: `_count` sorts them)
            return await self._count(error)
        raise_if_cancelled()
        return None

    async def _send(self, key: str, batch: list[Entry], done: set[int]) -> Reason | None:
        try:
            async with asyncio.timeout(self._patience_s):
                client = await self._servers.of(key)
                if batch[0].is_state:
                    await self._write_states(client, batch, done)
                else:
                    await self._write_events(client, key, batch, done)
        except Exception as error:  # noqa: BLE001  (a boundary: `_count` sorts them)
            return await self._count(error)
        raise_if_cancelled()
        return None

    async def _write_states(self, client: Redis, batch: list[Entry], done: set[int]) -> None:
        async with client.pipeline(transaction=True) as pipe:
            for entry in batch:
                key = key_of(self._config.prefix, entry.message, self._shard)
                text = encode(entry.message, self._run)
                # Milliseconds, because of the part of the time that has already passed.
                remaining_ms = int(self._outbox.remaining_s(entry) * 1000)
                pipe.set(key, text, px=max(1, remaining_ms))
                pipe.publish(key, text)
            await pipe.execute()
        done.update(entry.order for entry in batch)

    async def _write_events(
        self, client: Redis, key: str, batch: list[Entry], done: set[int]
    ) -> None:
        async with client.pipeline(transaction=True) as pipe:
            for entry in batch:
                pipe.xadd(
                    key,
                    {"m": encode(entry.message, self._run)},
                    id=_text(self._id(key, entry)),
                    maxlen=self._longest(entry.message),
                    approximate=True,
                )
            for entry in batch:
                if entry.message.kind in HEARD:
                    pipe.publish(key, encode(entry.message, self._run))
            replies = (await pipe.execute(raise_on_error=False))[: len(batch)]
        problem: Exception | None = None
        low: list[Entry] = []
        for entry, reply in zip(batch, replies, strict=True):
            if not isinstance(reply, Exception):
                self._confirm(client, key, entry, done)
            elif "equal or smaller" in str(reply):
                low.append(entry)
            else:
                problem = reply
        if low:
            await self._settle(client, key, low, done)
        if problem is not None:
            raise problem

    async def _settle(self, client: Redis, key: str, low: list[Entry], done: set[int]) -> None:
        """Tell which of the entries with a refused id are written; the others get a new id."""
        async with client.pipeline(transaction=True) as pipe:
            for entry in low:
                id_ = _text(self._id(key, entry))
                pipe.xrange(key, min=id_, max=id_)
            pipe.xinfo_stream(key)
            *found, info = await pipe.execute()
        for entry, entries in zip(low, found, strict=True):
            if self._stands(entry, entries):
                self._confirm(client, key, entry, done)
                self.repeated += 1
            else:
                del self._ids[entry.order]
                self.renumbered += 1
        self._tops[key] = max(self._tops[key], numbers(info["last-generated-id"].decode()))

    def _confirm(self, client: Redis, key: str, entry: Entry, done: set[int]) -> None:
        done.add(entry.order)
        now = time.monotonic()
        self._follow(key, client)
        unsafe = self._unsafe.setdefault(client, deque())
        unsafe.append(_Confirmed(now, key, entry, self._id(key, entry)))
        # A node of a cluster that has come back is looked at only after the first write to it.
        is_looked_at = self._connections == self._servers.connections
        while is_looked_at and unsafe[0].at < now - UNSAFE_S:
            unsafe.popleft()

    def _follow(self, key: str, client: Redis) -> None:
        """Keep what was confirmed of a stream by its present server: there it will be trimmed."""
        before = self._owners.get(key, client)
        self._owners[key] = client
        if before is client:
            return
        held = self._unsafe.pop(before, deque())
        here = [*self._unsafe.pop(client, ()), *(c for c in held if c.key == key)]
        self._unsafe[client] = deque(sorted(here, key=lambda c: c.at))
        if rest := [c for c in held if c.key != key]:
            self._unsafe[before] = deque(rest)

    def _longest(self, message: Message) -> int:
        is_row = message.kind == "heatmap:log"
        return self._config.heatmap_rows if is_row else self._config.stream_length

    def _id(self, key: str, entry: Entry) -> tuple[int, int]:
        """The stream id of an event: the same at every attempt, above all before it."""
        id_ = self._ids.get(entry.order)
        if id_ is None:
            top = self._tops.get(key, (0, 0))
            natural = (entry.message.at // 1_000_000, entry.message.seq)
            id_ = natural if natural > top else (top[0], top[1] + 1)
            self._ids[entry.order] = self._tops[key] = id_
        return id_

    async def _catch_up(self) -> Reason | None:
        """Make pending again what a server that was away may have lost."""
        connections = self._servers.connections
        if connections == self._connections:
            return None
        self._outbox.renew()
        groups: dict[str, list[_Confirmed]] = {}
        for confirmed in chain(*self._unsafe.values()):
            groups.setdefault(confirmed.key, []).append(confirmed)
        lost: list[_Confirmed] = []
        for key, group in groups.items():
            # Those before may have been trimmed.
            remaining = iter(group[-self._longest(group[0].entry.message) :])
            while batch := list(islice(remaining, self._batch)):
                if problem := await self._look_for(key, batch, lost):
                    if problem in TRANSPORT and not self._servers.cluster:
                        return problem
                    break  # a node that is away is looked at when it is connected to again
        if lost:
            self.rewritten += len(lost)
            self._ids |= {confirmed.entry.order: confirmed.id for confirmed in lost}
            for client, unsafe in self._unsafe.items():
                self._unsafe[client] = deque(c for c in unsafe if c.entry.order not in self._ids)
            self._outbox.restore(confirmed.entry for confirmed in lost)
            fields = {"url": self._url, "events": len(lost)}
            _log.warning("redis_had_lost_events", extra={"fields": fields})
        self._connections = connections
        return None

    async def _look_for(
        self, key: str, batch: list[_Confirmed], lost: list[_Confirmed]
    ) -> Reason | None:
        """Add to `lost` the confirmed events that their stream does not have."""
        try:
            async with asyncio.timeout(self._patience_s):
                client = await self._servers.of(key)
                async with client.pipeline(transaction=True) as pipe:
                    for confirmed in batch:
                        pipe.xrange(key, min=_text(confirmed.id), max=_text(confirmed.id))
                    found = await pipe.execute()
        except Exception as error:  # noqa: BLE001  (a boundary: `_count` sorts them)
            return await self._count(error)
        raise_if_cancelled()
        pairs = zip(batch, found, strict=True)
        lost += [
            confirmed for confirmed, there in pairs if not self._stands(confirmed.entry, there)
        ]
        return None

    def _stands(self, entry: Entry, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> bool:
        """Whether an event is what was read under its id; another writer may have taken that."""
        return any(fields.get(b"m") == encode(entry.message, self._run) for _, fields in entries)

    async def _count(self, error: Exception) -> Reason:
        """Account for a failed exchange, whatever it was.

        A dead Redis, or a client library with a defect, must never stop the engine; so this is the
        one place that takes every exception. What should not occur is logged with its traceback.
        """
        reason = reason_of(error)
        self.errors[reason] += 1
        if reason in TRANSPORT and self._servers.cluster:
            await self._forget()
        now = time.monotonic()
        logged, at = self._logged or (None, 0.0)
        if reason != logged or now - at >= LOG_INTERVAL_S:
            self._logged = (reason, now)
            fields = {"url": self._url, "reason": reason, "error": str(error)[:200]}
            trace = error if reason == "unexpected" else None
            _log.warning("redis_failed", exc_info=trace, extra={"fields": fields})
        return reason

    async def _forget(self) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._servers.forget()
        except (RedisError, RedisClusterException, OSError):
            pass  # it is being thrown away

    def _failed(self, problems: list[Reason], *, progress: bool) -> float:
        self._failures += 1
        self.connected = not any(reason in TRANSPORT for reason in problems)
        most_s = REFUSED_BACKOFF_MAX_S if progress else BACKOFF_MAX_S
        # The exponent is capped only to keep the power finite.
        backoff_s = min(most_s, BACKOFF_FIRST_S * 2.0 ** min(self._failures - 1, 16))
        jitter: float = random.uniform(0.5, 1.0)  # noqa: S311  (no secret)
        return backoff_s * jitter

    def _recovered(self) -> None:
        self.connected = True
        if self._failures:
            fields = {"url": self._url, "failures": self._failures}
            _log.info("redis_recovered", extra={"fields": fields})
        self._failures = 0
        self._logged = None


def _text(id_: tuple[int, int]) -> str:
    return f"{id_[0]}-{id_[1]}"


def numbers(id_: str) -> tuple[int, int]:
    """A stream id as (milliseconds, number), in the order of the stream."""
    ms, _, number = id_.partition("-")
    return int(ms), int(number or 0)


def reason_of(error: BaseException) -> Reason:
    """The reason under which an error of the client library is counted."""
    for kinds, reason in _REASON_OF_KIND:
        if isinstance(error, kinds):
            return reason
    if isinstance(error, ResponseError):
        text = str(error)
        if "MISCONF" in text:
            return "persistence"
        if "WRONGTYPE" in text:
            return "wrong_type"
        return "refused"
    return "unexpected"


def raise_if_cancelled() -> None:
    """Repeat a cancellation that the client library has swallowed.

    It awaits in `asyncio.wait_for`, which before Python 3.12 returns normally if what it waits for
    ends in the same moment (python/cpython#86296). Without this, a shutdown could wait forever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


# In this order: several of them are subclasses of later ones.
_REASON_OF_KIND: Final[tuple[tuple[tuple[type[BaseException], ...], Reason], ...]] = (
    ((AuthenticationError, AuthenticationWrongNumberOfArgsError), "authentication"),
    ((BusyLoadingError,), "loading"),
    ((AskError, TryAgainError, ClusterError, RedisClusterException), "cluster"),
    ((NoPermissionError,), "permission"),
    ((OutOfMemoryError,), "memory"),
    ((ReadOnlyError,), "read_only"),
    ((RedisTimeoutError, TimeoutError), "timeout"),
    ((RedisConnectionError, OSError), "connection"),
)
