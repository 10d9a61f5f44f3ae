"""Simulated venues on loopback sockets: one HTTP server a venue, its websocket on the same port.

>>> async with SimulatedVenues(Market(scenario("crash"), epoch_ns=time.time_ns())) as venues:
...     ws_url, http_url = venues.urls["binance"]

The shell paces the market, moves bytes and honours outages and faults; what is said is the wires'
business (`monitor.sim.wire`). It drives the market on the caller's event loop.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from aiohttp import WSCloseCode, WSMsgType, web
from msgspec import Struct, field

from monitor.sim.wire import WIRES
from monitor.sim.wire.base import HandshakeError, Message, Request, Session, Source, Wire
from monitor.sim.wire.faults import NONE, Cut, Faults, Injector, Link
from monitor.sim.wire.load import LoadMarket

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Source)

QUEUE_MAX: Final = 4_096
"""Messages that may wait for one connection; a client that is slower than that is cut."""

HELD_MAX: Final = 1_024
"""Client messages kept unanswered while a venue is silent; more cut the connection."""

CONNECTIONS_MAX: Final = 1_024
"""Connections of one venue."""

OUTAGE_HANG_S: Final = 10.0
"""A silent venue lets a request hang for so long, then answers 503."""

COMPLAIN_EVERY_S: Final = 10.0
"""Least time between two warnings that the machine is too slow."""

_BODY_BYTES_MAX: Final = 1 << 16


class Counts(Struct):
    """What happened on the shell's side; faults are counted by the injectors.

    Attributes:
        steps: market steps driven.
        late: steps that the machine could not drive in time; the time was given up, not made good.
        late_s: how much, in real seconds.
        messages: pushes and replies put into queues.
        slow_clients: connections cut because their queue was full.
        idle: connections cut because the venue's keep-alive rule was not kept.
        refused: websocket handshakes at paths the venue does not have, or beyond the limit.
        expelled: connections the venue closed for breaking another of its limits.
    """

    steps: int = 0
    late: int = 0
    late_s: float = 0.0
    messages: int = 0
    connections: int = 0
    slow_clients: int = 0
    idle: int = 0
    refused: int = 0
    expelled: int = 0
    answers: Counter[int] = field(default_factory=Counter)


class _Connection:
    """One client: its session, its faults and what waits to be sent."""

    def __init__(
        self, session: Session, link: Link, socket: web.WebSocketResponse, request: web.Request
    ) -> None:
        self.session, self.link = session, link
        self.held: list[str] = []
        self._socket, self._request = socket, request
        self._queue: deque[bytes | Cut] = deque()
        self._filled = asyncio.Event()
        self.sent_at = self.received_at = asyncio.get_running_loop().time()

    def put(self, data: bytes | Cut) -> bool:
        """Queue; False when the client is too slow for that."""
        if len(self._queue) >= QUEUE_MAX:
            return False
        self._queue.append(data)
        self._filled.set()
        return True

    def is_idle(self, wire: Wire, clock: float) -> bool:
        """Whether the venue's rule about silence (exchanges.md 2a, 3a, 4a) is broken."""
        if wire.silence_s is None:
            return False
        heard = {
            "sent": self.sent_at,
            "received": self.received_at,
            "both": max(self.sent_at, self.received_at),
        }
        return clock - heard[wire.silence_of] > wire.silence_s

    def cut(self, begun: bytes = b"") -> None:
        """End the connection without a goodbye, within a frame if `begun` is given."""
        transport = self._request.transport
        if transport is not None:
            if begun:
                size = min(2 * len(begun), 0xFFFF)
                transport.write(b"\x81\x7e" + size.to_bytes(2, "big") + begun[: size - 1])
                transport.close()
            else:
                transport.abort()

    async def write(self) -> None:
        """Send what is queued until the connection ends."""
        loop = asyncio.get_running_loop()
        try:
            while not self._socket.closed:
                while not self._queue:
                    self._filled.clear()
                    await self._filled.wait()
                data = self._queue.popleft()
                if isinstance(data, Cut):
                    self.cut(data.begun)
                    return
                await self._socket.send_frame(data, WSMsgType.TEXT)
                self.sent_at = loop.time()
        except ConnectionError:
            return  # the reader ends too

    async def close(self, code: int) -> None:
        """Say goodbye."""
        await self._socket.close(code=code)


class _Server:
    """One venue's sockets."""

    def __init__(self, wire: Wire, injector: Injector, counts: Counts) -> None:
        self.wire, self.injector, self._counts = wire, injector, counts
        self.connections: dict[Session, _Connection] = {}
        self.speaking = asyncio.Event()
        self.speaking.set()

    # ---------------------------------------------------------------------------- pushes

    def deliver(self, messages: list[Message]) -> None:
        """Queue the pushes of one step for their subscribers."""
        at = self.wire.market.at
        for message in messages:
            for session in list(self.wire.subscribers.get(message.topic, ())):
                connection = self.connections.get(session)
                if connection is not None:
                    data = session.render(message)
                    self._put(connection, connection.link.deliver(at, message, data))

    def hush(self) -> None:
        """Follow the market's outages; what clients asked meanwhile is answered at their end."""
        if self.wire.market.is_silent(self.wire.venue):
            self.speaking.clear()
        elif not self.speaking.is_set():
            self.speaking.set()
            for connection in list(self.connections.values()):
                held, connection.held = connection.held, []
                for text in held:
                    self._reply(connection, text)

    def cut_idle(self, clock: float) -> None:
        """Cut whoever did not keep its connection alive."""
        for connection in list(self.connections.values()):
            if self.speaking.is_set() and connection.is_idle(self.wire, clock):
                self._counts.idle += 1
                connection.cut()

    def _put(self, connection: _Connection, items: list[bytes | Cut]) -> None:
        for item in items:
            self._counts.messages += 1
            if not connection.put(item):
                self._counts.slow_clients += 1
                connection.session.closed()
                connection.cut()
                return
            if isinstance(item, Cut):
                connection.session.closed()  # nothing more reaches this client
                return

    def _reply(self, connection: _Connection, text: str) -> None:
        session = connection.session
        self._put(connection, [*session.receive(text, time.monotonic_ns())])

    # --------------------------------------------------------------------------- sockets

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Anything that arrives on the port."""
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._socket(request)
        return await self._http(request)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        try:
            session = self.wire.connect(request.path, dict(request.query))
        except HandshakeError:
            self._counts.refused += 1
            return web.Response(status=404)
        if len(self.connections) >= CONNECTIONS_MAX:
            self._counts.refused += 1
            return web.Response(status=429, headers={"Retry-After": "1"})
        socket = web.WebSocketResponse(heartbeat=self.wire.ping_frames_s, compress=False)
        await socket.prepare(request)
        link = self.injector.link(self.wire.market.at)
        connection = _Connection(session, link, socket, request)
        self.connections[session] = connection
        self._counts.connections += 1
        self._put(connection, [*session.opened()])
        writer = asyncio.create_task(connection.write(), name=f"{self.wire.venue} writer")
        try:
            await self._read(connection, socket)
        finally:
            self.connections.pop(session, None)
            session.closed()
            writer.cancel()
            await asyncio.wait([writer])
        return socket

    async def _read(self, connection: _Connection, socket: web.WebSocketResponse) -> None:
        loop = asyncio.get_running_loop()
        async for message in socket:
            connection.received_at = loop.time()
            if message.type is not WSMsgType.TEXT:
                continue
            if not self.speaking.is_set():
                connection.held.append(message.data)
                if len(connection.held) <= HELD_MAX:
                    continue
                connection.session.closing = "too_many_requests"
            else:
                self._reply(connection, message.data)
            if connection.session.closing is not None:
                self._counts.expelled += 1
                connection.session.closed()
                await socket.close(code=WSCloseCode.POLICY_VIOLATION)
                return

    async def _http(self, request: web.Request) -> web.Response:
        body = await request.content.read(_BODY_BYTES_MAX)
        if not self.speaking.is_set():
            try:
                async with asyncio.timeout(OUTAGE_HANG_S):
                    await self.speaking.wait()
            except TimeoutError:
                return self._answer(503, b"", {})
        fault = self.injector.http(self.wire.market.at)
        if fault.retry_after_s is not None:
            return self._answer(429, b"{}", {"Retry-After": str(fault.retry_after_s)})
        query = dict(request.query)
        asked = Request(request.method, request.path, query, body, time.time_ns())
        answer = self.wire.http(asked)
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)  # after the answer was found: it arrives stale
        return self._answer(answer.status, answer.body, answer.headers)

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> web.Response:
        self._counts.answers[status] += 1
        return web.Response(
            status=status, body=body, headers=headers, content_type="application/json"
        )


class SimulatedVenues(Generic[M]):
    """The venues of a market, served while the context is entered.

    The market should start at the present (`epoch_ns=time.time_ns()`), because clients compare
    the venues' times with their own clock. At `speed` other than 1 the venues' clock runs away
    from it.

    Attributes:
        market: the market, truth and all; read it with `peek_book`, not with `book`.
        urls: websocket and HTTP base address of each venue, once entered.
        wires: the venues' protocols.
        injectors: the venues' faults and their counts.
        counts: of the shell itself.
    """

    def __init__(
        self,
        market: M,
        *,
        speed: float = 1.0,
        faults: Faults | Mapping[str, Faults] = NONE,
        host: str = "127.0.0.1",
        ports: Mapping[str, int] | None = None,
    ) -> None:
        assert speed > 0, speed
        self.market = market
        self.speed = speed
        self.urls: dict[str, tuple[str, str]] = {}
        self.counts = Counts()
        self._host, self._ports = host, dict(ports or {})
        names = [v.name for v in market.venues]
        chosen = {v: faults if isinstance(faults, Faults) else faults.get(v, NONE) for v in names}
        self.wires = {v: WIRES[v](market, skew_ms=chosen[v].skew_ms) for v in names}
        self.injectors = {v: Injector(chosen[v], v, market.at) for v in names}
        self._servers: dict[str, _Server] = {}
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._complained_at = -COMPLAIN_EVERY_S
        self._running = asyncio.Event()
        self._running.set()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        try:
            for venue, wire in self.wires.items():
                server = _Server(wire, self.injectors[venue], self.counts)
                self._servers[venue] = server
                await self._listen(venue, server)
            group = await self._stack.enter_async_context(asyncio.TaskGroup())
            self._tasks = [
                group.create_task(self._drive(), name="simulated market"),
                group.create_task(self._watch(), name="simulated keep-alive"),
            ]
        except BaseException:
            await self._stack.aclose()
            raise
        told = {venue: url for venue, (url, _) in self.urls.items()}
        log.info("sim_started", extra={"fields": {"speed": self.speed, **told}})
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        for task in self._tasks:
            task.cancel()
        return await self._stack.__aexit__(kind, error, trace)

    def pause(self) -> None:
        """Stop the market where it is; sockets and HTTP go on. What clients know can be checked.

        A channel slower than the step may have the last changes still to tell.
        """
        self._running.clear()

    def resume(self) -> None:
        """Go on after `pause`, without making up for it."""
        self._running.set()

    def cut(self, venue: str) -> None:
        """Drop every connection of a venue now."""
        for connection in list(self._servers[venue].connections.values()):
            connection.cut()

    async def _listen(self, venue: str, server: _Server) -> None:
        app = web.Application(client_max_size=_BODY_BYTES_MAX)
        app.router.add_route("*", "/{path:.*}", server.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        self._stack.push_async_callback(self._hang_up, server)
        await web.TCPSite(runner, self._host, self._ports.get(venue, 0)).start()
        address = f"{self._host}:{runner.addresses[0][1]}"
        self.urls[venue] = (f"ws://{address}", f"http://{address}")

    async def _hang_up(self, server: _Server) -> None:
        server.speaking.set()
        closing = [c.close(WSCloseCode.GOING_AWAY) for c in server.connections.values()]
        try:
            async with asyncio.timeout(1.0):
                await asyncio.gather(*closing)
        except TimeoutError:
            for connection in list(server.connections.values()):
                connection.cut()

    # ------------------------------------------------------------------------------- time

    async def _drive(self) -> None:
        """Step the market at its pace; time the machine cannot keep up with is given up."""
        loop = asyncio.get_running_loop()
        period_s = self.market.step_ms / 1_000 / self.speed
        due = loop.time()
        while True:
            if not self._running.is_set():
                await self._running.wait()
                due = loop.time()
            due += period_s
            wait_s = due - loop.time()
            if -wait_s > period_s:
                self._fell_behind(-wait_s)
                due = loop.time()
            await asyncio.sleep(max(0.0, wait_s))
            self._step()

    def _step(self) -> None:
        step = self.market.step()
        self.counts.steps += 1
        for server in self._servers.values():
            server.hush()
            server.deliver(server.wire.publish(step))

    def _fell_behind(self, late_s: float) -> None:
        self.counts.late += 1
        self.counts.late_s += late_s
        clock = asyncio.get_running_loop().time()
        if clock - self._complained_at >= COMPLAIN_EVERY_S:
            self._complained_at = clock
            fields = {"late": self.counts.late, "late_s": round(self.counts.late_s, 3)}
            log.warning("sim_behind", extra={"fields": fields | {"speed": self.speed}})

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            for server in self._servers.values():
                server.cut_idle(loop.time())


def load_venues(
    instruments: int,
    *,
    speed: float = 1.0,
    venues: tuple[str, ...] = ("binance",),
    changes: int = 8,
) -> SimulatedVenues[LoadMarket]:
    """The wire under load: `instruments` synthetic books a venue, at `speed` times 10 Hz.

    The symbols are ``S000USDT``, ``S000-USDT-SWAP``, ``S000`` and so on.
    """
    market = LoadMarket(instruments, venues=venues, changes=changes, epoch_ns=time.time_ns())
    return SimulatedVenues(market, speed=speed)
