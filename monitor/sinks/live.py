"""The live websocket: a snapshot of what was subscribed, then every message as it is published.

Each client has an outbox of its own, which never makes the engine wait: states conflate, events
beyond its limit are dropped, both counted. A message is encoded once, when the first client needs
it, and all clients are sent the same bytes. A client that takes nothing for `STALL_S` is dropped.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web
from msgspec import Struct

from monitor.events import Message
from monitor.sinks.envelope import encode
from monitor.sinks.guard import PROTOCOL
from monitor.sinks.metrics import Sources, View
from monitor.sinks.outbox import STATE_KINDS, Entry, Outbox

CLIENTS_MAX: Final = 200
"""More are refused: each costs a socket and an outbox."""

TOPICS_MAX: Final = 64
"""A subscription of more topics is refused."""

EVENTS_MAX: Final = 256
"""Events that may wait for one client; it reads the history again when it misses some."""

STATE_TTL_S: Final = 30.0
"""A state that waited longer for its client is not sent any more."""

STALL_S: Final = 20.0
"""How long a client may take nothing of what is sent."""

PING_S: Final = 15.0

GOODBYE_S: Final = 1.0
"""How long a client may take to say goodbye, so that a dead one does not delay a stop."""

MESSAGE_MAX: Final = 16_384
"""Longest message of a client, in bytes."""

KINDS: Final = frozenset({*STATE_KINDS, "alerts", "forecasts", "heatmap:log", "liquidations"})
"""What can be subscribed."""

_log = logging.getLogger(__name__)


class SubscriptionError(ValueError):
    """What a client asked for makes no sense; the message says why."""


class Topic(Struct, frozen=True, order=True):
    """What is subscribed: ``kind``, ``kind/asset`` or ``kind/asset/venue``.

    `asset` ``*`` is every asset; `venue` is empty for what is about all venues together.
    """

    kind: str
    asset: str
    venue: str

    def matches(self, message: Message) -> bool:
        """Whether a message is of this topic."""
        return (
            message.kind == self.kind
            and message.venue == self.venue
            and self.asset in {"*", message.asset}
        )


class _Request(Struct, forbid_unknown_fields=True):
    subscribe: list[str]


def topics(names: Iterable[str]) -> frozenset[Topic]:
    """The topics of these names.

    Raises:
        SubscriptionError: one of them is none, or there are too many.
    """
    found = set()
    for name in names:
        kind, _, rest = name.partition("/")
        asset, _, venue = rest.partition("/")
        if kind not in KINDS:
            known = ", ".join(sorted(KINDS))
            raise SubscriptionError(f"no kind {kind[:40]!r}; known are {known}")
        if kind != "status" and not asset:
            raise SubscriptionError(f"{name[:40]!r} names no asset; {kind}/* is all of them")
        found.add(Topic(kind, "*" if kind == "status" else asset, venue))
    if len(found) > TOPICS_MAX:
        raise SubscriptionError(f"{len(found)} topics; at most {TOPICS_MAX} are served")
    return frozenset(found)


def everything_of(asset: str) -> frozenset[Topic]:
    """What is published of one asset, all venues together, and the health of the daemon."""
    kinds = ("depth", "heatmap", "heatmap:log", "risk", "liquidations", "alerts")
    return topics([f"{kind}/{asset}" for kind in kinds] + ["status"])


class Client:
    """One websocket and what waits for it."""

    def __init__(self, wanted: frozenset[Topic]) -> None:
        self.wanted = wanted
        self.outbox = Outbox(EVENTS_MAX, STATE_TTL_S)

    def wants(self, message: Message) -> bool:
        """Whether a message is subscribed."""
        return any(topic.matches(message) for topic in self.wanted)


class Live:
    """Sends what is published to everyone who listens; a sink in the metrics.

    Attributes:
        limit: events that may wait, all clients together.
        connected: always; that nobody listens is no fault.
        sent: messages that clients were sent.
        errors: clients lost or refused, by reason; from a closed set.
        last_success_at: seconds since the epoch; 0 while nobody listens.
    """

    def __init__(self, sources: Sources) -> None:
        self.limit = EVENTS_MAX * CLIENTS_MAX
        self.connected = True
        self.sent = 0
        self.errors: dict[str, int] = dict.fromkeys(
            ("bad_subscription", "lost", "stalled", "too_many"), 0
        )
        self.last_success_at = 0.0
        self._sources = sources
        self._clients: set[Client] = set()
        self._sockets: set[web.WebSocketResponse] = set()
        self._gone: Counter[str] = Counter()
        # Bounded by the topics: the newest message of each with its JSON.
        self._encoded: dict[tuple[str, str, str], tuple[Message, bytes]] = {}

    # -------------------------------------------------------------------- what metrics read

    def __len__(self) -> int:
        """Messages that wait, for all clients."""
        return sum(len(client.outbox) for client in self._clients)

    @property
    def clients(self) -> int:
        """How many listen."""
        return len(self._clients)

    @property
    def discarded_intentional(self) -> int:
        """States that a newer one replaced before a slow client took them."""
        now = sum(client.outbox.discarded_intentional for client in self._clients)
        return self._gone["replaced"] + now

    @property
    def discarded_unintentional(self) -> int:
        """Events that slow or lost clients did not get."""
        now = sum(client.outbox.discarded_unintentional for client in self._clients)
        return self._gone["lost"] + now

    # ------------------------------------------------------------------------------ sending

    def put(self, message: Message) -> None:
        """Give a message to everyone who wants it. Never waits, encodes nothing."""
        for client in self._clients:
            if client.wants(message):
                client.outbox.put(message)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one websocket until it ends."""
        asset = request.query.get("asset")
        wanted = frozenset[Topic]() if asset is None else everything_of(asset)
        socket = web.WebSocketResponse(
            heartbeat=PING_S,
            timeout=GOODBYE_S,
            max_msg_size=MESSAGE_MAX,
            compress=False,
            protocols=(PROTOCOL,),
        )
        try:
            await socket.prepare(request)
        except ConnectionResetError:
            return socket  # the browser has left already
        client = Client(wanted)
        self._clients.add(client)
        self._sockets.add(socket)
        self._snapshot(client)
        sending = asyncio.create_task(
            self._send(client, socket, request.transport), name="page client"
        )
        try:
            await self._receive(client, socket)
        finally:
            sending.cancel()
            await asyncio.wait([sending])
            self._sockets.discard(socket)
            self._clients.discard(client)
            if not self._clients:
                self.last_success_at = 0.0
            self._gone["replaced"] += client.outbox.discarded_intentional
            self._gone["lost"] += client.outbox.discarded_unintentional
        return socket

    def is_full(self) -> bool:
        """Whether one more client is one too many; counted if so."""
        full = len(self._clients) >= CLIENTS_MAX
        self.errors["too_many"] += full
        return full

    async def close(self) -> None:
        """Say goodbye to everyone at once."""
        await asyncio.gather(
            *(
                socket.close(code=WSCloseCode.GOING_AWAY, message=b"the daemon stops")
                for socket in self._sockets
            ),
            return_exceptions=True,
        )

    async def _receive(self, client: Client, socket: web.WebSocketResponse) -> None:
        async for message in socket:
            if message.type not in {WSMsgType.TEXT, WSMsgType.BINARY}:
                break
            try:
                request = msgspec.json.decode(message.data, type=_Request)
                client.wanted = topics(request.subscribe)
            except (msgspec.DecodeError, SubscriptionError, UnicodeDecodeError) as error:
                self.errors["bad_subscription"] += 1
                reason = str(error).encode()[:120]
                await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=reason)
                return
            self._snapshot(client)

    def _snapshot(self, client: Client) -> None:
        """Put every current state that is subscribed and fresh."""
        view = View(self._sources)
        for key in list(self._sources.latest.states):
            message = view.message(*key)
            if message is not None and client.wants(message):
                client.outbox.put(message)

    async def _send(
        self, client: Client, socket: web.WebSocketResponse, transport: asyncio.Transport | None
    ) -> None:
        while True:
            for entry in await client.outbox.take():
                try:
                    async with asyncio.timeout(STALL_S):
                        await socket.send_frame(self._json(entry), WSMsgType.TEXT)
                except (TimeoutError, ConnectionError, RuntimeError) as error:
                    client.outbox.abandon()
                    reason = "stalled" if isinstance(error, TimeoutError) else "lost"
                    self._drop(transport, reason)
                    return
                self.sent += 1
                self.last_success_at = time.time()

    def _drop(self, transport: asyncio.Transport | None, reason: str) -> None:
        """End a connection that takes nothing, without waiting for its goodbye."""
        self.errors[reason] += 1
        _log.info("page_client_dropped", extra={"fields": {"reason": reason}})
        if transport is not None:
            transport.abort()

    def _json(self, entry: Entry) -> bytes:
        """The JSON of a message, made once for all clients."""
        message = entry.message
        known = self._encoded.get(message.topic)
        if known is not None and known[0] is message:
            return known[1]
        text = encode(message, self._sources.identity.run)
        self._encoded[message.topic] = message, text
        return text
