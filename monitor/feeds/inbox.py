"""The bounded queue in which every input waits for the pipeline, in one order.

A full inbox makes its producers wait, so that sockets are read more slowly and the kernel's flow
control reaches the venue; nothing is ever dropped here and nothing grows. It is full by number or
by size: a few huge messages must not take the memory that many small ones may not.
"""

import asyncio
from collections import deque
from typing import Final

from monitor.events import Frame, Input, Reply

BYTES_MAX: Final = 64 << 20
"""Payload bytes that may wait; 4,000 order book messages have some 8 MB."""

_WITH_PAYLOAD: Final = (Frame, Reply)


class Inbox:
    """Many producers, one consumer, on one event loop.

    Attributes:
        limit: inputs that may wait.
        bytes_max: payload bytes that may wait; a single larger input is let in alone.
        waits: how often a producer had to wait.
    """

    def __init__(self, limit: int, bytes_max: int = BYTES_MAX) -> None:
        self.limit = limit
        self.bytes_max = bytes_max
        self.waits = 0
        self._inputs: deque[Input] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()

    def __len__(self) -> int:
        return len(self._inputs)

    @property
    def full(self) -> bool:
        """Whether a producer has to wait."""
        return len(self._inputs) >= self.limit or self._bytes >= self.bytes_max

    async def put(self, record: Input) -> None:
        """Append, after waiting for room."""
        inputs = self._inputs
        while self.full:
            self.waits += 1
            self._drained.clear()
            await self._drained.wait()
        if isinstance(record, _WITH_PAYLOAD):
            self._bytes += len(record.data)
        inputs.append(record)
        if len(inputs) == 1:
            self._filled.set()

    async def take(self, most: int) -> list[Input]:
        """Wait for at least one input and return up to `most`, oldest first."""
        while not self._inputs:
            self._filled.clear()
            await self._filled.wait()
        return self._pop(most)

    def drain(self) -> list[Input]:
        """Return everything that waits, oldest first."""
        return self._pop(len(self._inputs))

    def _pop(self, most: int) -> list[Input]:
        inputs = self._inputs
        if len(inputs) <= most:  # nearly always
            taken = list(inputs)
            inputs.clear()
            self._bytes = 0
        else:
            taken = [inputs.popleft() for _ in range(most)]
            self._bytes -= sum(len(r.data) for r in taken if isinstance(r, _WITH_PAYLOAD))
        self._drained.set()
        return taken
