"""Public recordings of exchange feeds as our own inputs (`cascade-monitor import`).

Three formats are read, each as it is found in the wild:

- ``tardis``: lines ``<ISO time> <message>``; an empty line is a lost connection.
- ``hftbacktest``: lines ``<epoch µs or ns> <message>``; a REST depth snapshot is a line as well.
- ``cryptofeed``: ``.jsonl.zst`` with typed lines (header, http, connect, send, recv), or the
  older ``.ws.N.0`` text with one file a connection.

What a recording does not have is not invented: where it carries no list of instruments, the static
table of specifications is used, and ticks are put in at the configured interval of its own time.
"""

import gzip
import heapq
import io
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec
import zstandard
from msgspec import Struct

from monitor.config import PipelineConfig
from monitor.events import NS, Frame, Input, Lost, Opened, Reply, Tick
from monitor.journal import Header, encode, encode_header
from monitor.venues import VENUES

Format: TypeAlias = Literal["tardis", "hftbacktest", "cryptofeed"]
FORMATS: Final[tuple[Format, ...]] = ("tardis", "hftbacktest", "cryptofeed")

CHUNK_BYTES: Final = 1 << 20
"""Journal lines compressed as one zstd frame."""

PAUSE_NS: Final = 3600 * NS
"""A recording that says nothing for longer was not listening."""

_DEPTH_URL = "https://fapi.binance.com/fapi/v1/depth?symbol="
_INTEREST_URL = "https://fapi.binance.com/fapi/v1/openInterest?symbol="
_INTEREST = re.compile(rb'\{"stream":"[^"@]+@openInterest"')

_ASSET = re.compile(r"^([0-9A-Za-z]+?)[-_]?(?:USDT|USDC|USD|PERP|BUSD)?(?:[-_].*)?$")
_OLD_SENT = re.compile(r"^(?P<url>wss?://\S+) <-> (?P<at>[0-9.]+)$")


class RecordingError(Exception):
    """A file is not in the format it was said to be; the message says where."""


class Heard(Struct, frozen=True):
    """One thing a recording holds, before it is known which feed of ours it is.

    `url` is set for an HTTP answer and a connection, `connected` where one began or was lost.
    """

    at: int
    data: bytes
    url: str | None = None
    connected: bool | None = None


class Named(Struct):
    """Tardis' form of an HTTP answer; a bare depth snapshot has neither field."""

    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()


class CryptofeedLine(Struct):
    """A typed line of a cryptofeed recording."""

    t: str
    ts: float | str = 0
    conn: str = ""
    url: str = ""
    addr: str = ""
    data: str = ""


def inputs(
    kind: Format, files: Iterable[Path], config: PipelineConfig
) -> tuple[PipelineConfig, Iterator[Input]]:
    """What a recording holds, as inputs with ticks, and the configuration to process them with.

    The configuration follows just the venues and symbols found in the recording.

    Args:
        kind: the recording's format.
        files: in the order in which they were recorded.
        config: where venues, intervals and static specifications are taken from.

    Raises:
        RecordingError: a file is not in that format, or holds none of our venues.
        OSError: a file cannot be read.
    """
    paths = list(files)
    found: dict[str, dict[str, str]] = {}
    names = {(spec.venue, spec.symbol): spec.asset for spec in config.instruments}
    for heard in _read_all(kind, paths):
        venue, symbol = identify(heard)
        if venue and symbol and symbol not in found.setdefault(venue, {}):
            found[venue][symbol] = names.get((venue, symbol)) or _guess_asset(symbol)
    if not found:
        raise RecordingError(f"no message of {', '.join(VENUES)} in {paths[0]}")
    effective = PipelineConfig(
        venues={
            name: msgspec.structs.replace(config.venues[name], instruments=symbols)
            for name, symbols in found.items()
        },
        engine=config.engine,
        instruments=[
            spec for spec in config.instruments if spec.symbol in found.get(spec.venue, {})
        ],
    )
    feeds = _feeds(effective)
    sockets = [name for part in feeds.values() for name in part]
    records = _inputs(kind, paths, feeds)
    return effective, _with_ticks(records, config.engine.tick_interval_ms, sockets)


def identify(heard: Heard) -> tuple[str | None, str | None]:
    """(venue, symbol) a recorded message is about, as far as it says."""
    for name, codec in VENUES.items():
        marks = codec.recorded
        if heard.url is not None:
            if re.search(marks.socket, heard.url) or marks.key_of(heard.url):
                return name, None
        elif match := re.match(marks.message, heard.data):
            return name, match[1].decode()
    return None, None


def write_journal(out: Path, header: Header, records: Iterable[Input]) -> dict[str, int]:
    """Write one journal file, which must not exist; returns how many inputs of each kind.

    Raises:
        OSError: it exists, or cannot be written.
    """
    if out.exists():
        raise FileExistsError(f"{out}: exists; a journal is never overwritten")
    counts: Counter[str] = Counter()
    compressor = zstandard.ZstdCompressor(write_checksum=True)
    partial = out.with_name(out.name + ".part")
    with partial.open("wb") as file:
        file.write(compressor.compress(encode_header(header)))
        buffer = bytearray()
        for record in records:
            buffer += encode(record)
            counts[type(record).__name__.lower()] += 1
            if len(buffer) >= CHUNK_BYTES:
                file.write(compressor.compress(buffer))
                buffer.clear()
        file.write(compressor.compress(buffer))
    partial.rename(out)
    return dict(counts)


def unspecified(config: PipelineConfig, listed: Collection[str]) -> list[str]:
    """Instruments of a recording whose specification neither it nor the static table has.

    `listed` are the venues whose list of instruments the recording holds.
    """
    known = {spec.name for spec in config.instruments}
    names = [f"{name}:{symbol}" for name, v in config.venues.items() for symbol in v.instruments]
    return [name for name in names if name not in known and name.partition(":")[0] not in listed]


# ------------------------------------------------------------------------------------ reading


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a plain, gzip or zstd file."""
    with path.open("rb") as raw:
        magic = raw.read(4)
        raw.seek(0)
        if magic[:2] == b"\x1f\x8b":
            stream: Iterable[bytes] = gzip.GzipFile(fileobj=raw)
        elif magic == b"\x28\xb5\x2f\xfd":
            stream = io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw))
        else:
            stream = raw
        try:
            for line in stream:
                yield line.rstrip(b"\r\n")
        except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
            raise RecordingError(f"{path.name}: damaged: {error}") from error


def _read_all(kind: Format, paths: list[Path]) -> Iterator[Heard]:
    if kind == "cryptofeed":  # its files hold one connection after the other
        yield from heapq.merge(*(_cryptofeed(path) for path in paths), key=lambda heard: heard.at)
        return
    stamp = _iso_ns if kind == "tardis" else _epoch_ns
    for path in paths:
        yield from _stamped(path, stamp)


def _stamped(path: Path, stamp: Callable[[str], int]) -> Iterator[Heard]:
    """Lines ``<time> <message>``; an empty one is a lost connection.

    Binance's REST depth snapshots stand among the messages, bare or under a made-up stream name,
    its open interest under one. A bare one does not name its symbol: it is that of the messages
    around it.
    """
    symbol: str | None = None
    early: list[Heard] = []
    last = 0
    for number, line in enumerate(_lines(path), 1):
        if not line:
            yield Heard(last, b"", connected=False)
            continue
        time, _, data = line.partition(b" ")
        last = _time(stamp, time.decode(errors="replace"), path, number)
        heard = Heard(last, data)
        if _INTEREST.match(data):
            named, body = _answer(data, path, number)
            heard = Heard(last, body, _INTEREST_URL + (named or ""))
        elif b'"lastUpdateId"' in data[:200]:
            named, body = _answer(data, path, number)
            if (named or symbol) is None:
                early.append(Heard(last, body))
                continue
            heard = Heard(last, body, _DEPTH_URL + (named or symbol or ""))
        elif symbol is None and (symbol := identify(heard)[1]) is not None:
            yield from (Heard(w.at, w.data, _DEPTH_URL + symbol) for w in early)
        yield heard


def _answer(data: bytes, path: Path, number: int) -> tuple[str | None, bytes]:
    """(symbol if named, body) of an HTTP answer."""
    try:
        named = msgspec.json.decode(data, type=Named)
    except msgspec.DecodeError as error:
        raise RecordingError(f"{path.name}:{number}: {error}") from error
    if not bytes(named.data):
        return None, data
    return named.stream.partition("@")[0].upper(), bytes(named.data)


def _time(read: Callable[[str], int], text: str, path: Path, number: int) -> int:
    """A time of a recording in ns.

    Raises:
        RecordingError: it is none.
    """
    try:
        at = read(text)
    except (ValueError, OverflowError):
        at = -1
    if not 0 <= at < 1 << 63:
        raise RecordingError(f"{path.name}:{number}: no time in {text[:40]!r}")
    return at


def _seconds_ns(text: str) -> int:
    """Seconds since the epoch with a fraction, to the microsecond."""
    return round(float(text) * 1e6) * 1000


def _epoch_ns(text: str) -> int:
    """Microseconds or nanoseconds since the epoch, told apart by their magnitude."""
    at = int(text)
    return at * 1000 if at < 10**17 else at


def _iso_ns(text: str) -> int:
    """ISO time with up to nanoseconds, UTC, as nanoseconds since the epoch."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * NS + int(fraction[:9].ljust(9, "0") or 0)


def _cryptofeed(path: Path) -> list[Heard]:
    typed = path.name.endswith((".zst", ".jsonl"))
    found = _cryptofeed_typed(path) if typed else _cryptofeed_text(path)
    return sorted(found, key=lambda heard: heard.at)


def _cryptofeed_typed(path: Path) -> Iterator[Heard]:
    decoder = msgspec.json.Decoder(CryptofeedLine)
    ours: dict[str, bool] = {}
    for number, line in enumerate(_lines(path), 1):
        try:
            row = decoder.decode(line)
        except msgspec.DecodeError as error:
            raise RecordingError(f"{path.name}:{number}: {error}") from error
        at = _time(_seconds_ns, str(row.ts), path, number)
        match row.t:
            case "http":
                yield Heard(at, row.data.encode(), row.url)
            case "connect":
                heard = Heard(at, b"", row.addr, connected=True)
                ours[row.conn] = identify(heard)[0] is not None
                yield heard
            case "recv" if ours.get(row.conn, True):
                yield Heard(at, row.data.encode())


def _cryptofeed_text(path: Path) -> Iterator[Heard]:
    for number, line in enumerate(_lines(path), 1):
        text = line.decode(errors="replace")
        if opened := _OLD_SENT.match(text):
            at = _time(_seconds_ns, opened["at"], path, number)
            yield Heard(at, b"", opened["url"], connected=True)
        elif not text.startswith("ws") and not text.startswith("http"):
            stamp, _, data = text.partition(": ")
            yield Heard(_time(_seconds_ns, stamp, path, number), data.encode())


# ------------------------------------------------------------------------------------- inputs


def _feeds(config: PipelineConfig) -> dict[str, list[str]]:
    return {
        name: [feed.name for feed in VENUES[name](venue, config.instruments).feeds]
        for name, venue in config.venues.items()
    }


def _inputs(kind: Format, paths: list[Path], feeds: dict[str, list[str]]) -> Iterator[Input]:
    opened = False
    for heard in _read_all(kind, paths):
        if heard.connected is False:
            opened = False
            for names in feeds.values():
                yield from (Lost(heard.at, name, "recorded") for name in names)
            continue
        if not opened:
            opened = True
            for names in feeds.values():
                yield from (Opened(heard.at, name) for name in names)
        venue, _ = identify(heard)
        if heard.connected or (heard.url is not None and venue is None):
            continue
        if heard.url is not None:
            assert venue is not None
            key = VENUES[venue].recorded.key_of(heard.url)
            if venue in feeds and key is not None:
                yield Reply(heard.at, venue, key, 200, heard.data)
        elif venue in feeds:
            yield Frame(heard.at, feeds[venue][0], heard.data)
        elif venue is None and len(feeds) == 1:
            yield Frame(heard.at, next(iter(feeds.values()))[0], heard.data)


def _with_ticks(records: Iterator[Input], interval_ms: int, feeds: list[str]) -> Iterator[Input]:
    """The inputs with ticks at every whole interval between them, and one behind the last.

    Where a recording pauses for longer than `PAUSE_NS` nobody listened: no ticks are put there,
    and its connections are lost and opened again.
    """
    interval = interval_ms * 1_000_000
    due: int | None = None
    for record in records:
        if due is None:
            due = record.at - record.at % interval + interval
        elif record.at - due > PAUSE_NS:
            yield from (Lost(due, feed, "recording paused") for feed in feeds)
            due = record.at - record.at % interval + interval
            if not isinstance(record, Opened | Lost):
                yield from (Opened(record.at, feed) for feed in feeds)
        while due <= record.at:
            yield Tick(due)
            due += interval
        yield record
    if due is not None:
        yield Tick(due)


def _guess_asset(symbol: str) -> str:
    match = _ASSET.match(symbol)
    return match[1].upper() if match else symbol
