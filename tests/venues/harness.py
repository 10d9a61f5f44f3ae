"""What the venues' tests share: payloads, builders, checks, a naive book, readers of recordings."""

import gzip
import json
import os
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import zstandard

from monitor.config import VenueConfig
from monitor.core.depth.book import Book
from monitor.events import (
    NS,
    BookDelta,
    BookSnapshot,
    Frame,
    Gap,
    Instrument,
    Listed,
    Rejected,
    Reply,
    Send,
    Silence,
)
from monitor.venues import VENUES
from monitor.venues.base import REASONS, Codec, Out

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("CASCADE_SHARED_DATA", ROOT.parent / "shared" / "data"))
AT = 1_790_000_000 * NS

AnyCodec = TypeVar("AnyCodec", bound=Codec)


# ---------------------------------------------------------------------------------- builders


@cache
def payloads(venue: str, name: str) -> dict[str, Any]:
    """Our own ``messages`` or ``replies`` of a venue, by name; not to be changed."""
    found: dict[str, Any] = json.loads((ROOT / f"tests/data/{venue}/{name}.json").read_text())
    return found


def instrument(venue: str, symbol: str, **fields: Any) -> Instrument:
    defaults: dict[str, Any] = {
        "name": f"{venue}:{symbol}",
        "asset": symbol[:3],
        "kind": "linear",
        "contract": 1.0,
        "tick": 0.1,
        "lot": 0.001,
        "as_of": "test",
    }
    return Instrument(venue=venue, symbol=symbol, **(defaults | fields))


def config(*symbols: str, per_socket: int = 40, book_depth: int = 1000) -> VenueConfig:
    return VenueConfig(
        enabled=True,
        required=True,
        ws_url="wss://stream.test",
        http_url="https://rest.test",
        book_depth=book_depth,
        symbols_per_socket=per_socket,
        instruments_interval_s=3600.0,
        instruments={symbol: symbol[:3] for symbol in symbols},
        open_interest_interval_s=5.0,
    )


@cache
def specifications(venue: str) -> list[Instrument]:
    """The instruments that the venue's own payloads are about."""
    data = (ROOT / f"tests/data/{venue}/instruments.json").read_bytes()
    return msgspec.json.decode(data, type=list[Instrument])


def started(made: AnyCodec, at: int = AT) -> AnyCodec:
    """A codec with its feeds open, and asked what is due at the start."""
    for feed in made.feeds:
        made.opened(feed.name, at)
    made.tick(at)
    return made


def followed(venue: str, *, known: bool = True) -> Codec:
    """A started codec of the instruments that the venue's own payloads are about."""
    specs = specifications(venue)
    made = VENUES[venue](config(*(spec.symbol for spec in specs)), specs if known else [])
    return started(made)


def encoded(document: Any) -> bytes:
    """JSON, with what is none: NaN, infinity, halves of surrogate pairs."""
    return json.dumps(document).encode("utf-8", "surrogatepass")


def frame(message: Any, *, feed: str, at: int = AT) -> Frame:
    return Frame(at, feed, msgspec.json.encode(message))


def reply(key: str, body: Any, *, venue: str, at: int = AT, status: int = 200) -> Reply:
    return Reply(at, venue, key, status, msgspec.json.encode(body))


# --------------------------------------------------------------------------------- questions


def kinds(out: Out) -> list[type]:
    return [type(event) for event in out]


def refusals(out: Out) -> list[str]:
    return [event.reason for event in out if isinstance(event, Rejected)]


def sent(out: Out) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in out if isinstance(event, Send)]


def follow(books: dict[str, Book], out: Out) -> list[str]:
    """Apply what a codec says to books by instrument; returns what went wrong."""
    wrong: list[str | None] = []
    for event in out:
        match event:
            case Listed(spec):
                books[spec.name] = Book(spec.tick)
            case BookSnapshot(name, _, bids, asks):
                depth, maintained = event.depth, event.maintained
                wrong.append(books[name].snapshot(bids, asks, depth=depth, maintained=maintained))
            case BookDelta(name, _, bids, asks):
                wrong.append(books[name].delta(bids, asks))
            case Gap() | Rejected():
                wrong.append(event.reason)
    return [problem for problem in wrong if problem]


def numbers_in(value: Any) -> list[float]:
    """Every number of an event, except the levels of books, which the book itself checks."""
    if isinstance(value, BookSnapshot | BookDelta):
        return [value.sent_at]
    if isinstance(value, msgspec.Struct):
        fields = [getattr(value, name) for name in value.__struct_fields__]
        return [number for field in fields for number in numbers_in(field)]
    if isinstance(value, tuple | list):
        return [number for item in value for number in numbers_in(item)]
    return [value] if isinstance(value, int | float) else []


def check(made: Codec, out: Out) -> None:
    """What must hold of any output, else the engine would fail of it or believe it.

    It can be serialised, its reasons are of the closed set, its numbers are finite, its
    instruments are known (but those said to be silent), and a book takes it or says why not.
    """
    for event in out:
        msgspec.json.encode(event)
        assert all(isfinite(number) for number in numbers_in(event))
        if isinstance(event, Rejected):
            assert event.reason in REASONS
        elif isinstance(event, Listed):
            assert made.instruments[event.instrument.symbol]
        elif hasattr(event, "instrument") and not isinstance(event, Silence):
            assert event.instrument.partition(":")[2] in made.instruments, event
        if isinstance(event, BookSnapshot):
            levels = Book(0.1)
            levels.snapshot(event.bids, event.asks, depth=event.depth, maintained=event.maintained)
            if levels.state == "synced":
                assert all(t > 0 and 0 < q < 1e15 for s in (0, 1) for t, q in levels.levels(s))


class NaiveBook:
    """A book as two dictionaries of decimals, which knows nothing of the code under test.

    `texts` keeps each level as it was written, for checksums.
    """

    def __init__(self) -> None:
        self.texts: tuple[dict[Decimal, tuple[str, str]], ...] = ({}, {})

    def replace(self, bids: list[Any], asks: list[Any]) -> None:
        for side in self.texts:
            side.clear()
        self.change(bids, asks)

    def change(self, bids: list[Any], asks: list[Any]) -> None:
        for side, rows in zip(self.texts, (bids, asks), strict=True):
            for price, quantity, *_ in rows:
                side.pop(Decimal(price), None)
                if Decimal(quantity):
                    side[Decimal(price)] = (price, quantity)

    def cut(self, depth: int) -> None:
        """Forget what lies beyond so many levels a side."""
        for side in (0, 1):
            for price, _ in self.ranked(side)[depth:]:
                del self.texts[side][Decimal(price)]

    def ranked(self, side: int) -> list[tuple[str, str]]:
        """Price and quantity as written, best first; 0 is the bid's side."""
        levels = self.texts[side]
        return [levels[price] for price in sorted(levels, reverse=side == 0)]

    def levels(self, side: int, tick: float) -> list[tuple[float, float]]:
        """In ticks; old orders may lie between them, where the venue has changed its tick."""
        step = Decimal(repr(tick))
        return [(float(Decimal(p) / step), float(q)) for p, q in self.ranked(side)]


# -------------------------------------------------------------------------------- recordings


def recording(*parts: str) -> Path:
    """A file of the shared data, which are no part of the project."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no recording at {path} (set CASCADE_SHARED_DATA)")
    return path


def hftbacktest(*parts: str) -> Iterator[tuple[int, bytes]]:
    """Time of receipt and message of each line."""
    with gzip.open(recording("hftbacktest_raw", *parts)) as stream:
        for line in stream:
            stamp, _, data = line.rstrip().partition(b" ")
            at = int(stamp)
            yield (at if at > 10**17 else at * 1000), data


def cryptofeed(name: str) -> list[dict[str, Any]]:
    """The typed lines of a recording; ``t`` is http, connect, send or recv."""
    raw = zstandard.ZstdDecompressor().stream_reader(
        recording("cryptofeed_sample", name).read_bytes()
    )
    return [json.loads(line) for line in raw.read().decode().splitlines()]


def cryptofeed_text(name: str) -> list[bytes]:
    """The messages of a recording in the older form."""
    text = recording("cryptofeed_sample", name).read_text()
    return [line.partition(": ")[2].encode() for line in text.splitlines() if line[0].isdigit()]
