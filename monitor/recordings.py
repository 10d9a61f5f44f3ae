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
from collections import Counter
from collections.abc import Iterable, Iterator
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

_ASSET = re.compile(r"^([0-9A-Za-z]+?)[-_]?(?:USDT|USDC|USD|PERP|BUSD)?(?:[-_].*)?$")
_OLD_SENT = re.compile(r"^(?P<url>wss?://\S+) <-> (?P<at>[0-9.]+)$")


class RecordingError(Exception):
    """A file is not in the format it was said to be; the message says where."""


class Heard(Struct, frozen=True):
    """One thing a recording holds, before it is known which feed of ours it is.

    `symbol` is set where the recording tells it apart from the message itself.
    """

    at: int
    data: bytes
    url: str | None = None
    connected: bool | None = None


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
    return effective, _with_ticks(_inputs(kind, paths, effective), config.engine.tick_interval_ms)


def identify(heard: Heard) -> tuple[str | None, str | None]:
    """(venue, symbol) a recorded message is about, as far as it says."""
    for name, codec in VENUES.items():
        marks = codec.recorded
        if heard.url is not None:
            if re.search(marks.socket, heard.url) or marks.key_of(heard.url):
                return name, None
        elif match := re.match(marks.message, heard.data):
            return name, match[1].decode().upper() if marks.upper else match[1].decode()
    return None, None


def write_journal(out: Path, header: Header, records: Iterable[Input]) -> dict[str, int]:
    """Write one journal file, which must not exist; returns how many inputs of each kind.

    Raises:
        OSError: it exists, or cannot be written.
    """
    counts: Counter[str] = Counter()
    compressor = zstandard.ZstdCompressor(write_checksum=True)
    with out.open("xb") as file:
        file.write(compressor.compress(encode_header(header)))
        buffer = bytearray()
        for record in records:
            buffer += encode(record)
            counts[type(record).__name__.lower()] += 1
            if len(buffer) >= CHUNK_BYTES:
                file.write(compressor.compress(buffer))
                buffer.clear()
        file.write(compressor.compress(buffer))
    return dict(counts)


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
        for line in stream:
            yield line.rstrip(b"\r\n")


def _read_all(kind: Format, paths: list[Path]) -> Iterator[Heard]:
    if kind == "cryptofeed":  # its files hold one connection after the other
        yield from heapq.merge(*(_cryptofeed(path) for path in paths), key=lambda heard: heard.at)
        return
    read = _tardis if kind == "tardis" else _hftbacktest
    for path in paths:
        yield from read(path)


def _hftbacktest(path: Path) -> Iterator[Heard]:
    symbol: str | None = None
    early: list[Heard] = []
    for number, line in enumerate(_lines(path), 1):
        stamp, _, data = line.partition(b" ")
        try:
            at = int(stamp)
        except ValueError as error:
            raise RecordingError(f"{path.name}:{number}: no time in {line[:40]!r}") from error
        heard = Heard(at * 1000 if at < 10**17 else at, data)
        if data.startswith(b'{"lastUpdateId"'):
            if symbol is None:
                early.append(heard)
                continue
            heard = _depth_reply(heard, symbol)
        elif symbol is None:
            symbol = identify(heard)[1]
            if symbol is not None:
                yield from (_depth_reply(waiting, symbol) for waiting in early)
        yield heard


def _depth_reply(heard: Heard, symbol: str) -> Heard:
    return Heard(heard.at, heard.data, f"https://fapi.binance.com/fapi/v1/depth?symbol={symbol}")


def _tardis(path: Path) -> Iterator[Heard]:
    last = 0
    for number, line in enumerate(_lines(path), 1):
        if not line:
            yield Heard(last, b"", connected=False)
            continue
        stamp, _, data = line.partition(b" ")
        try:
            last = _iso_ns(stamp.decode())
        except ValueError as error:
            raise RecordingError(f"{path.name}:{number}: no time in {line[:40]!r}") from error
        yield Heard(last, data)


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
        at = round(float(row.ts) * 1e6) * 1000
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
        text = line.decode()
        if opened := _OLD_SENT.match(text):
            at = round(float(opened["at"]) * 1e6) * 1000
            yield Heard(at, b"", opened["url"], connected=True)
        elif not text.startswith("ws") and not text.startswith("http"):
            stamp, _, data = text.partition(": ")
            try:
                at = round(float(stamp) * 1e6) * 1000
            except ValueError as error:
                raise RecordingError(f"{path.name}:{number}: no time in {text[:40]!r}") from error
            yield Heard(at, data.encode())


# ------------------------------------------------------------------------------------- inputs


def _inputs(kind: Format, paths: list[Path], config: PipelineConfig) -> Iterator[Input]:
    feeds = {
        name: [feed.name for feed in VENUES[name](venue, config.instruments).feeds]
        for name, venue in config.venues.items()
    }
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


def _with_ticks(records: Iterator[Input], interval_ms: int) -> Iterator[Input]:
    """The inputs with ticks at every whole interval between them, and one behind the last."""
    interval = interval_ms * 1_000_000
    due: int | None = None
    for record in records:
        if due is None:
            due = record.at - record.at % interval + interval
        while due <= record.at:
            yield Tick(due)
            due += interval
        yield record
    if due is not None:
        yield Tick(due)


def _guess_asset(symbol: str) -> str:
    match = _ASSET.match(symbol)
    return match[1].upper() if match else symbol
