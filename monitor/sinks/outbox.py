"""The bounded buffer between the engine, which never waits, and a sink, which may be slow or dead.

State (a snapshot that the next one replaces) conflates: only the latest message per topic
waits. Events wait in a queue; when it is full the oldest are dropped. Both losses are counted. The
outbox also keeps the last value of every state, so that a sink whose other end has come back can
write everything current again, but never a state that the engine has stopped publishing: a state is
current for `state_ttl_s` after it was put.

One event loop, any number of producers, one consumer.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from heapq import merge
from typing import Final

from msgspec import Struct

from monitor.events import Message

STATE_KINDS: Final[frozenset[str]] = frozenset({"depth", "status", "heatmap", "risk"})
"""Kinds that conflate. Any other kind is an event, so that a new kind is never lost unnoticed."""

TAKE_MAX: Final = 512
"""Events handed out at once: bounds what is in flight beyond the queue's own limit."""


class Entry(Struct, frozen=True, gc=False):
    """A message in an outbox.

    Attributes:
        order: when it was put, relative to every other entry of the same outbox.
        since: when it was put, in seconds of the outbox's clock.
        message: what to deliver.
    """

    order: int
    since: float
    message: Message

    @property
    def is_state(self) -> bool:
        """Whether a later message of the same topic makes this one worthless."""
        return self.message.kind in STATE_KINDS


class Outbox:
    """Messages waiting for one sink.

    Attributes:
        limit: events that may wait.
        discarded_intentional: states replaced by a newer one, or expired, before they were taken.
        discarded_unintentional: messages lost: events dropped from a full queue, or abandoned.
    """

    def __init__(
        self, limit: int, state_ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        assert limit > 0
        self.limit = limit
        self.discarded_intentional = 0
        self.discarded_unintentional = 0
        self._state_ttl_s = state_ttl_s
        self._clock = clock
        self._order = 0
        # Both maps are bounded by the kinds times the configured assets and venues.
        self._current: dict[tuple[str, str, str], Entry] = {}
        self._states: dict[tuple[str, str, str], Entry] = {}
        self._events: deque[Entry] = deque()
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._states) + len(self._events)

    def put(self, message: Message) -> None:
        """Accept a message. Never waits."""
        self._order += 1
        entry = Entry(self._order, self._clock(), message)
        if entry.is_state:
            key = message.topic
            if key in self._states:
                self.discarded_intentional += 1
            self._states[key] = self._current[key] = entry
        else:
            self._events.append(entry)
            self._trim()
        self._filled.set()

    async def wait(self) -> None:
        """Return when something is pending."""
        while not len(self):
            self._filled.clear()
            await self._filled.wait()

    async def take(self, most: int = TAKE_MAX) -> list[Entry]:
        """Wait for something and return it as `take_now` does."""
        while True:
            await self.wait()
            if entries := self.take_now(most):
                return entries

    def take_now(self, most: int = TAKE_MAX) -> list[Entry]:
        """Every pending state, then at most `most` events; each part in the order it was put."""
        states = sorted(self._states.values(), key=_order)
        self._states.clear()
        fresh = [entry for entry in states if self.remaining_s(entry) > 0]
        self.discarded_intentional += len(states) - len(fresh)
        events = [self._events.popleft() for _ in range(min(most, len(self._events)))]
        return fresh + events

    def restore(self, entries: Iterable[Entry]) -> None:
        """Put back what was taken and not delivered, or delivered and lost over there.

        A state that has been replaced in the meantime stays out; events go back to their place.
        """
        events = []
        for entry in entries:
            if not entry.is_state:
                events.append(entry)
                continue
            key = entry.message.topic
            if self._current.get(key) is entry:
                self._states[key] = entry
            else:
                self.discarded_intentional += 1
        if events:
            self._events = deque(merge(sorted(events, key=_order), self._events, key=_order))
            self._trim()
        if len(self):
            self._filled.set()

    def renew(self) -> None:
        """Make every current state pending again."""
        for entry in self.current():
            self._states[entry.message.topic] = entry
        if len(self):
            self._filled.set()

    def current(self) -> list[Entry]:
        """The last value of each state that the engine still publishes, in the order put."""
        expired = [key for key, entry in self._current.items() if self.remaining_s(entry) <= 0]
        for key in expired:
            del self._current[key]
        return sorted(self._current.values(), key=_order)

    def remaining_s(self, entry: Entry) -> float:
        """Seconds for which a state may still be shown; not above zero when it has expired."""
        return self._state_ttl_s - (self._clock() - entry.since)

    def abandon(self) -> int:
        """Drop everything pending, count it as lost and return how much it was."""
        left = len(self)
        self.discarded_unintentional += left
        self._states.clear()
        self._events.clear()
        return left

    def _trim(self) -> None:
        while len(self._events) > self.limit:
            self._events.popleft()
            self.discarded_unintentional += 1


def _order(entry: Entry) -> int:
    return entry.order
