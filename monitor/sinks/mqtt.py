"""Publishes messages to an MQTT 5 broker: states retained, events once each to who is there.

The contract with readers is `docs/mqtt.md`; the payloads are those of Redis. A dead broker, or one
that refuses us, is counted and tried again; nothing here makes the engine wait.

Everything goes out at QoS 1 and counts as sent when the broker has confirmed it. What was under way
when a connection broke is sent again, so an event may come twice, with the same ``seq``. Retained
state expires: what the engine no longer publishes disappears from the broker, even if we die.

The broker publishes our last will, ``offline``, when the connection breaks. A clean disconnect
would suppress it, so a stop says ``offline`` itself. The client's name is stable: after a crash the
broker meets it again, ends the old connection and delivers its will before the new ``online``.
"""

import asyncio
import logging
import random
import socket
import time
from collections.abc import Iterable
from math import ceil
from typing import Any, Final

import msgspec
from aiomqtt import MqttError, ProtocolVersion, Will
from msgspec import Struct
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from monitor.config import MqttConfig
from monitor.events import Alert, Message
from monitor.sinks.envelope import VERSION, encode
from monitor.sinks.mqtt_client import (
    NOT_AUTHORIZED,
    REASONS,
    Client,
    Reason,
    library_log,
    reason_of,
    tls_of,
)
from monitor.sinks.mqtt_topics import (
    OFFLINE,
    ONLINE,
    availability_topic,
    check_names,
    discovery,
    standing_topic,
    topic_of,
)
from monitor.sinks.outbox import Entry, Outbox

KEEPALIVE_S: Final = 15
"""A broker that hears nothing for one and a half of this publishes the last will."""

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.2, 30.0
"""The wait after a failure doubles from the first to the second; both are jittered."""

STABLE_S: Final = 30.0
"""A connection that lived for so long is opened again without a longer wait than the first."""

BATCH: Final = 64
"""Events taken at once: bounds what may be sent twice."""

IN_FLIGHT: Final = 16
"""Messages sent without waiting for the answer to the first; the library allows 20."""

STANDING_RENEWALS: Final = 3
"""How often the retained alert is published again within its life."""

LOG_INTERVAL_S: Final = 60.0
"""A lasting failure is logged this often, and at once when its reason changes."""

_log = logging.getLogger(__name__)


class Standing(Struct):
    """The last alert of each direction of an asset, as one envelope, and until when it is known.

    Attributes:
        since: when the engine last spoke of the asset's risk, seconds of the monotonic clock.
        envelope: the newest alert's, with the bodies by direction as its ``data``.
    """

    since: float
    envelope: dict[str, Any]


class MqttSink:
    """Delivers to one broker; `put` takes every message and keeps those that are wanted.

    Attributes:
        sent: messages that the broker has accepted.
        errors: failures by reason, each of `REASONS` from the start.
        connected: whether the connection stands.
        last_success_at: seconds since the Unix epoch, 0 when never.
    """

    def __init__(
        self,
        config: MqttConfig,
        run: str,
        outbox: Outbox,
        assets: Iterable[str] = (),
        shard: str = "",
    ) -> None:
        """Check names and certificates; connect to nothing yet.

        Args:
            config: where and what.
            run: the name of this process in every envelope.
            outbox: filled by `put` only.
            assets: those that Home Assistant is told of.
            shard: ``i/n`` where several processes share the assets.

        Raises:
            ConfigError: a name that makes no topic, or a certificate that cannot be read.
        """
        assets = list(assets)
        check_names(config, assets)
        self.sent = 0
        self.errors: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        self.connected = False
        self.last_success_at = 0.0
        self._config = config
        self._run = run
        self._outbox = outbox
        self._shard = shard
        self._kinds = frozenset(config.kinds)
        self._broker = f"{config.host}:{config.port}"
        self._tls = tls_of(config)
        self._availability = availability_topic(config.prefix, shard)
        self._discovery = discovery(config, assets, shard) if config.home_assistant else None
        self._standings: dict[str, Standing] = {}
        self._client: Client | None = None
        self._failures = 0
        self._logged: tuple[Reason, float] | None = None

    def put(self, message: Message) -> None:
        """Accept a message if its kind is configured. Never waits."""
        if isinstance(message.data, Alert):
            self._note(message, message.data)
        elif message.kind == "risk" and (standing := self._standings.get(message.asset)):
            standing.since = time.monotonic()
        if message.kind in self._kinds:
            self._outbox.put(message)

    async def run(self) -> None:
        """Keep a connection and deliver, until cancelled."""
        while True:
            began = time.monotonic()
            try:
                await self._session()
            except Exception as error:  # noqa: BLE001  (a boundary: `_count` sorts them)
                if time.monotonic() - began > STABLE_S:
                    self._failures = 0
                self._count(error)
            await asyncio.sleep(self._backoff_s())

    async def close(self, deadline_s: float) -> None:
        """Deliver what is pending and say ``offline``, for at most `deadline_s`; disconnect.

        `run` must have been cancelled. What is left is counted as lost.
        """
        try:
            async with asyncio.timeout(deadline_s):
                while len(self._outbox):
                    try:
                        await self._flush(self._client or await self._connect())
                    except Exception as error:  # noqa: BLE001  (as in `run`)
                        self._drop()
                        self._count(error)
                        await asyncio.sleep(self._backoff_s())
                if self._client is not None:
                    await self._publish(self._client, self._availability, OFFLINE, retain=True)
                    await self._client.__aexit__(None, None, None)
                    self._client = None
        except (TimeoutError, MqttError, OSError):
            pass  # the broker says it for us: see `_drop`
        self._drop()
        if left := self._outbox.abandon():
            fields = {"broker": self._broker, "messages": left, "deadline_s": deadline_s}
            _log.warning("mqtt_flush_incomplete", extra={"fields": fields})

    async def _session(self) -> None:
        """One connection from its beginning to its failure. A cancellation leaves it open."""
        client = await self._connect()
        # No TaskGroup: before Python 3.13 one that fails leaves its task marked as cancelled.
        tasks = [
            asyncio.create_task(self._listen(client), name="mqtt listen"),
            asyncio.create_task(self._deliver(client), name="mqtt deliver"),
            asyncio.create_task(self._renew_standings(client), name="mqtt standings"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        self._drop()
        _raise_first(results)

    async def _connect(self) -> Client:
        """Connect, announce ourselves and make everything current pending again."""
        config = self._config
        shard = self._shard.replace("/", "-")
        client = Client(
            hostname=config.host,
            port=config.port,
            username=config.username or None,
            password=config.password or None,
            identifier=f"{config.client_id}-{shard}" if shard else config.client_id,
            protocol=ProtocolVersion.V5,
            clean_start=True,
            keepalive=KEEPALIVE_S,
            will=Will(self._availability, OFFLINE, qos=1, retain=True),
            timeout=config.timeout_s,
            connect_timeout_s=config.timeout_s,
            logger=library_log,
            max_queued_incoming_messages=IN_FLIGHT,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            tls_context=self._tls,
        )
        opening = asyncio.ensure_future(client.__aenter__())
        try:
            await asyncio.shield(opening)
        except BaseException:
            # The library connects in a thread, which cannot be stopped, and leaves open what
            # has not been greeted.
            await asyncio.wait([opening], timeout=config.timeout_s)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            client.break_off()
            raise
        self._client = client
        try:
            await self._publish(client, self._availability, ONLINE, retain=True)
            if self._discovery is not None:
                await client.subscribe(f"{config.home_assistant_prefix}/status", qos=1)
                _raise_if_cancelled()
                await self._announce(client)
            await self._tell_standings(client, list(self._standings))
        except Exception:
            self._drop()
            raise
        self._outbox.renew()
        self.connected = True
        fields = {"broker": self._broker, "failures": self._failures}
        _log.info("mqtt_connected", extra={"fields": fields})
        self._logged = None
        return client

    def _drop(self) -> None:
        client, self._client = self._client, None
        self.connected = False
        if client is not None:
            client.break_off()

    async def _listen(self, client: Client) -> None:
        """Notice at once when the connection breaks, and when Home Assistant starts."""
        async for message in client.messages:
            if message.payload == ONLINE.encode():
                await self._announce(client)

    async def _deliver(self, client: Client) -> None:
        while True:
            await self._outbox.wait()
            await self._flush(client)

    async def _flush(self, client: Client) -> None:
        """Send what is pending; what is not confirmed goes back to the outbox."""
        entries = self._outbox.take_now(BATCH)
        done: set[int] = set()
        try:
            for states in (True, False):
                part = [entry for entry in entries if entry.is_state is states]
                for first in range(0, len(part), IN_FLIGHT):
                    await self._send(client, part[first : first + IN_FLIGHT], done)
        finally:
            self._outbox.restore(entry for entry in entries if entry.order not in done)
        spoken = dict.fromkeys(e.message.asset for e in entries if e.message.kind == "alerts")
        await self._tell_standings(client, spoken)

    async def _send(self, client: Client, batch: list[Entry], done: set[int]) -> None:
        """Publish a batch in order and account for the answers."""

        async def send(entry: Entry) -> None:
            payload = encode(entry.message, self._run)
            topic = topic_of(self._config.prefix, entry.message, self._shard)
            expiry_s = self._outbox.remaining_s(entry) if entry.is_state else None
            accepted = await self._publish(
                client, topic, payload, retain=entry.is_state, expiry_s=expiry_s
            )
            done.add(entry.order)
            if accepted:
                self.sent += 1
                self.last_success_at = time.time()
            elif not entry.is_state:
                self._outbox.discarded_unintentional += 1

        _raise_first(await asyncio.gather(*map(send, batch), return_exceptions=True))

    async def _publish(
        self,
        client: Client,
        topic: str,
        payload: bytes | str,
        *,
        retain: bool,
        expiry_s: float | None = None,
    ) -> bool:
        """Publish and return whether the broker accepted it; what it refuses is not repeated.

        Raises:
            MqttError: nobody knows.
        """
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's own gap
        properties.PayloadFormatIndicator = 1  # UTF-8
        if isinstance(payload, bytes):
            properties.ContentType = "application/json"
            properties.UserProperty = ("schema_version", str(VERSION))
        if expiry_s is not None:
            properties.MessageExpiryInterval = max(1, ceil(expiry_s))
        code = await client.ask(topic, payload, retain=retain, properties=properties)
        if code.is_failure:
            reason: Reason = "permission" if code.value == NOT_AUTHORIZED else "refused"
            self._fail(reason, f"{topic}: {code}")
        return not code.is_failure

    async def _announce(self, client: Client) -> None:
        if self._discovery is not None:
            topic, payload = self._discovery
            await self._publish(client, topic, payload, retain=True)

    def _note(self, message: Message, alert: Alert) -> None:
        """Make an alert of risk the standing one of its asset and direction."""
        direction = alert.direction
        if alert.kind != "risk" or direction is None:
            return
        envelope = msgspec.json.decode(encode(message, self._run))
        known = self._standings.get(message.asset)
        bodies = (known.envelope["data"] if known else {}) | {direction: envelope["data"]}
        envelope |= {"kind": "alert", "data": dict(sorted(bodies.items()))}
        self._standings[message.asset] = Standing(time.monotonic(), envelope)

    async def _renew_standings(self, client: Client) -> None:
        """Prolong the retained alerts of the assets whose risk the engine still publishes."""
        while True:
            await asyncio.sleep(self._config.state_ttl_s / STANDING_RENEWALS)
            await self._tell_standings(client, list(self._standings))

    async def _tell_standings(self, client: Client, assets: Iterable[str]) -> None:
        if "alerts" not in self._kinds:
            return
        for asset in assets:
            if (standing := self._standings.get(asset)) is None:
                continue
            expiry_s = self._config.state_ttl_s - (time.monotonic() - standing.since)
            if expiry_s > 0:
                topic = standing_topic(self._config.prefix, asset)
                payload = msgspec.json.encode(standing.envelope)
                await self._publish(client, topic, payload, retain=True, expiry_s=expiry_s)

    def _count(self, error: Exception) -> None:
        """Account for a failed connection, whatever it was: it must never stop the engine."""
        reason = reason_of(error)
        self._failures += 1
        self._fail(reason, str(error.__cause__ or error), error if reason == "unexpected" else None)

    def _fail(self, reason: Reason, text: str, trace: Exception | None = None) -> None:
        self.errors[reason] += 1
        now = time.monotonic()
        logged, at = self._logged or (None, 0.0)
        if reason != logged or now - at >= LOG_INTERVAL_S:
            self._logged = (reason, now)
            fields = {"broker": self._broker, "reason": reason, "error": text[:200]}
            _log.warning("mqtt_failed", exc_info=trace, extra={"fields": fields})

    def _backoff_s(self) -> float:
        # The exponent is capped only to keep the power finite.
        backoff_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(self._failures - 1, 16))
        jitter: float = random.uniform(0.5, 1.0)  # noqa: S311  (no secret)
        return backoff_s * jitter


def _raise_first(results: Iterable[BaseException | None]) -> None:
    """Raise the first error that is no cancellation."""
    for result in results:
        if isinstance(result, Exception):
            raise result


def _raise_if_cancelled() -> None:
    """Repeat a cancellation that the client library has swallowed (python/cpython#86296)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
