"""The yardstick: the least a Python program can do with these frames and still have a book.

Typed decoding by msgspec, which turns the venue's strings into floats, and two arrays of 8-byte
floats indexed by price in ticks. It checks the update chain and nothing else: no refusals, no
resynchronisation, no journal, no time stamp, no publishing, one symbol.
"""

from array import array

import msgspec
from msgspec import Struct

SPAN = 0.1
INVERSE_TICK = 10.0

Level = tuple[float, float]


class Depth(Struct, tag_field="e", tag="depthUpdate", gc=False):
    U: int
    u: int
    pu: int
    b: list[Level]
    a: list[Level]


class Trade(Struct, tag_field="e", tag="aggTrade", gc=False):
    p: float
    q: float
    m: bool


class Mark(Struct, tag_field="e", tag="markPriceUpdate", gc=False):
    p: float


class Message(Struct, gc=False):
    data: Depth | Trade | Mark


class Snapshot(Struct):
    lastUpdateId: int  # noqa: N815  (the venue's name)
    bids: list[Level]
    asks: list[Level]


class Minimal:
    """A book, the last trade and the mark price, kept up to date frame by frame."""

    def __init__(self, snapshot: bytes) -> None:
        first = msgspec.json.decode(snapshot, type=Snapshot, strict=False)
        middle = int(first.bids[0][0] * INVERSE_TICK)
        self.base = int(middle * (1 - SPAN))
        zeros = bytes(8 * int(2 * SPAN * middle))
        self.bids, self.asks = array("d", zeros), array("d", zeros)
        self.last = first.lastUpdateId
        self.joined = False
        self.price = self.mark = 0.0
        self._decode = msgspec.json.Decoder(Message, strict=False).decode
        self._write(self.bids, first.bids)
        self._write(self.asks, first.asks)

    def handle(self, frame: bytes) -> None:
        """Take one frame."""
        event = self._decode(frame).data
        kind = type(event)
        if kind is Depth:
            if event.pu != self.last and not self._joins(event):
                return
            self.last, self.joined = event.u, True
            self._write(self.bids, event.b)
            self._write(self.asks, event.a)
        elif kind is Trade:
            self.price = event.p
        else:
            self.mark = event.p

    def _joins(self, event: Depth) -> bool:
        if self.joined:
            raise RuntimeError(f"gap: {event.pu} after {self.last}")
        return event.U <= self.last <= event.u

    def _write(self, ladder: "array[float]", levels: list[Level]) -> None:
        base, size = self.base, len(ladder)
        for price, quantity in levels:
            index = int(price * INVERSE_TICK + 0.5) - base
            if 0 <= index < size:
                ladder[index] = quantity

    def best(self) -> tuple[float, float]:
        """Best bid and ask."""
        bids = [i for i, quantity in enumerate(self.bids) if quantity]
        asks = [i for i, quantity in enumerate(self.asks) if quantity]
        return (bids[-1] + self.base) / INVERSE_TICK, (asks[0] + self.base) / INVERSE_TICK
