"""Peers that misbehave on purpose, and ears that listen to an inbox."""

import asyncio
import base64
import hashlib
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress

import pytest

from monitor.events import Input, Lost, Opened
from monitor.feeds.inbox import Inbox

Serve = Callable[["Peer"], Awaitable[None]]

ANSWER = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: {}\r\n\r\n"
)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


async def eventually(claim: Callable[[], object], within_s: float = 60.0) -> None:
    """Wait until the claim holds."""
    async with asyncio.timeout(within_s):
        while not claim():
            await asyncio.sleep(0.001)


async def steady(value: Callable[[], object], for_s: float = 0.06) -> None:
    """Wait until the value has not changed for a while."""
    seen, since = value(), time.monotonic()
    while time.monotonic() - since < for_s:
        await asyncio.sleep(0.002)
        if value() != seen:
            seen, since = value(), time.monotonic()


@asynccontextmanager
async def running(work: Coroutine[object, object, None]) -> AsyncIterator[asyncio.Task[None]]:
    """A task for the length of the block. Whatever else it ends by than cancellation is raised."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Ears:
    """Takes everything out of an inbox."""

    def __init__(self, limit: int = 1000) -> None:
        self.inbox = Inbox(limit)
        self.heard: list[Input] = []

    async def listen(self) -> None:
        while True:
            self.heard += await self.inbox.take(100)

    def only(self, *kinds: type) -> list:
        return [record for record in self.heard if type(record) in kinds]

    @property
    def frames(self) -> list[bytes]:
        return [record.data for record in self.heard if hasattr(record, "data")]

    @property
    def lost(self) -> list[str]:
        return [record.reason for record in self.heard if isinstance(record, Lost)]

    def is_alternating(self) -> bool:
        """Whether each `Opened` has one `Lost`, the last perhaps not yet, with frames between."""
        is_open = False
        for record in self.heard:
            expected = not is_open if type(record) is Opened else is_open
            if not expected:
                return False
            is_open = type(record) is Opened or (is_open and type(record) is not Lost)
        return True


@pytest.fixture
async def ears() -> AsyncIterator[Ears]:
    ears = Ears()
    async with running(ears.listen()):
        yield ears


class Peer:
    """One accepted TCP connection that speaks websocket by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def upgrade(self) -> None:
        head = await self.head()
        key = next(
            line.partition(b":")[2].strip()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key:")
        )
        magic = key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(magic).digest()).decode()  # noqa: S324
        self.writer.write(ANSWER.format(accept).encode())

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def read(self) -> tuple[int, bytes]:
        """The next frame from the client: opcode and payload."""
        first, second = await self.reader.readexactly(2)
        length = second & 127
        if length == 126:
            (length,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
        mask = await self.reader.readexactly(4)
        data = await self.reader.readexactly(length)
        return first & 15, bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))

    async def gone(self) -> None:
        """Wait until the client has closed the socket; whatever it says is not answered."""
        while await self.reader.read(1 << 16):
            pass


def frame(data: bytes, opcode: int = TEXT) -> bytes:
    """A websocket frame from a server."""
    if len(data) < 126:
        return bytes([128 | opcode, len(data)]) + data
    if len(data) < 1 << 16:
        return bytes([128 | opcode, 126]) + struct.pack("!H", len(data)) + data
    return bytes([128 | opcode, 127]) + struct.pack("!Q", len(data)) + data


@asynccontextmanager
async def serving(serve: Serve, port: int = 0) -> AsyncIterator[int]:
    """A TCP server on loopback that does to each connection what `serve` does; gives the port.

    When `serve` returns, the socket is closed without a websocket goodbye.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await serve(Peer(reader, writer))
        finally:
            tasks.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
