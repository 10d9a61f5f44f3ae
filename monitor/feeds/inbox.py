"""The bounded queue in which every input waits for the pipeline, in one order.

A full inbox makes its producers wait, so that sockets are read more slowly and the kernel's flow
control reaches the venue; nothing is ever dropped here and nothing grows.
"""

import asyncio
from collections import deque

from monitor.events import Input


class Inbox:
    """Many producers, one consumer, on one event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waits = 0
        self._inputs: deque[Input] = deque()
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()

    def __len__(self) -> int:
        return len(self._inputs)

    async def put(self, record: Input) -> None:
        """Append, after waiting for room."""
        while len(self._inputs) >= self.limit:
            self.waits += 1
            self._drained.clear()
            await self._drained.wait()
        self._inputs.append(record)
        if len(self._inputs) == 1:
            self._filled.set()

    async def take(self, most: int) -> list[Input]:
        """Wait for at least one input and return up to `most`, oldest first."""
        while not self._inputs:
            self._filled.clear()
            await self._filled.wait()
        inputs = self._inputs
        taken = [inputs.popleft() for _ in range(min(most, len(inputs)))]
        self._drained.set()
        return taken

    def drain(self) -> list[Input]:
        """Return everything that waits, oldest first."""
        inputs = list(self._inputs)
        self._inputs.clear()
        self._drained.set()
        return inputs
