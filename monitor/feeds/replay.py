"""Reads journals back: the inputs of one or more recordings, in the order they were recorded."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, TypeAlias

import zstandard
from msgspec import Struct

from monitor.events import Input
from monitor.journal import SUFFIX, Header, JournalError, decode, decode_header

READ_BYTES: Final = 256 << 10
"""Read from the file at once."""

FRAME_BYTES_MAX: Final = 256 << 20
"""Largest frame that is unpacked. The recorder's have 1 MB, or one record if that is longer."""

MAGIC: Final = b"\x28\xb5\x2f\xfd"
"""The first bytes of a zstd frame."""

FRAME_HEADER_BYTES_MAX: Final = 18
"""A zstd frame header has at most as many (RFC 8878, 3.1.1)."""

DamageReason: TypeAlias = Literal[
    "torn",  # the last frame is incomplete: normal where the recording process died
    "corrupt",  # a frame that is not what was written
    "record",  # a sound frame with a line this version cannot read
]


class Damage(Struct, frozen=True):
    """Where the reading of one file had to stop; everything before `offset` has been yielded.

    `skipped_bytes` are the compressed bytes from there to the end of the file.
    """

    path: Path
    offset: int
    reason: DamageReason
    skipped_bytes: int


class JournalFiles:
    """The inputs of some journal files, oldest run first, each run by file number.

    To be iterated once. That yields each file's `Header` and then its inputs. A torn or corrupt
    file is read up to the damage, which is noted in `damages`; then comes the next file.

    Attributes:
        headers: of the readable files, in reading order.
        damages: met so far.
        seamless: whether the file being read continues what was yielded before it; it does not if
            it is the first, of another run, behind a skipped number (the recorder lost inputs) or
            behind a damage.
        holes: files met so far that were not seamless, but for the first of all if it begins a run.
        bytes_read: compressed bytes behind us, for a progress bar.
        bytes_total: compressed bytes in all files.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        """Open every file and read its header.

        A directory stands for the journals in it. A file that breaks off within its header holds
        nothing and becomes a damage.

        Raises:
            JournalError: a file is no journal, or of a version this software cannot read.
            OSError: a file cannot be read.
        """
        self.damages: list[Damage] = []
        self.holes = 0
        self.seamless = False
        self.bytes_read = 0
        self.bytes_total = 0
        self._asked = list(paths)
        found: list[tuple[Header, Path]] = []
        for path in _expand(self._asked):
            size = path.stat().st_size
            self.bytes_total += size
            try:
                found.append((read_header(path), path))
            except _TornError:
                self.damages.append(Damage(path, 0, "torn", size))
        found.sort(key=lambda item: (item[0].started_at, item[0].run, item[0].file))
        self.headers = [header for header, _ in found]
        self._files = found

    def run(self) -> Header:
        """The header of the one run that is there.

        Raises:
            JournalError: nothing readable is there, or more than one run.
        """
        runs = dict.fromkeys(header.run for header in self.headers)
        where = ", ".join(map(str, self._asked))
        if not runs:
            raise JournalError(f"{where}: no journal there, or nothing readable in it")
        if len(runs) > 1:
            raise JournalError(
                f"{where}: journals of {len(runs)} runs ({', '.join(runs)}); name the files of "
                f"one, for example DIR/{next(reversed(runs))}-*"
            )
        return self.headers[0]

    def __iter__(self) -> Iterator[Header | Input]:
        previous: Header | None = None
        for number, (header, path) in enumerate(self._files):
            self.seamless = (
                previous is not None
                and previous.run == header.run
                and previous.file + 1 == header.file
            )
            self.holes += not self.seamless and (number > 0 or header.file > 0)
            yield header
            damages = len(self.damages)
            yield from self._records(path)
            previous = header if len(self.damages) == damages else None

    def _records(self, path: Path) -> Iterator[Input]:
        size = path.stat().st_size
        before = self.bytes_read
        offset = 0
        reason: DamageReason | None = None
        with path.open("rb") as file:
            try:
                for offset, content in _frames(file, path):
                    self.bytes_read = before + offset
                    lines = _lines(content)
                    # Normally the header has a frame to itself, but a file that somebody has
                    # packed anew is a single frame.
                    yield from map(decode, lines if offset else lines[1:])
            except _TornError as error:
                offset, reason = error.offset, "torn"
            except _CorruptError as error:
                offset, reason = error.offset, "corrupt"
            except JournalError:
                reason = "record"
        if reason is not None:
            self.damages.append(Damage(path, offset, reason, size - offset))
        self.bytes_read = before + size


def read(paths: Iterable[Path]) -> Iterator[Header | Input]:
    """The headers and inputs of some journal files; see `JournalFiles`, which also tells losses."""
    return iter(JournalFiles(paths))


def read_header(path: Path) -> Header:
    """The header of one file.

    Raises:
        JournalError: it is no journal, breaks off in its header, or is of an unknown version.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            _, content = next(_frames(file, path), (0, b""))
        except _CorruptError as error:
            raise JournalError(f"{path}: not a journal") from error
    if not content:
        raise _TornError(path, 0)
    try:
        return decode_header(content.partition(b"\n")[0])
    except JournalError as error:
        raise JournalError(f"{path}: {error}") from error


class _TornError(JournalError):
    """The file ends within the frame at `offset`."""

    def __init__(self, path: Path, offset: int) -> None:
        super().__init__(f"{path}: ends within the frame at byte {offset}")
        self.offset = offset


class _CorruptError(JournalError):
    """There is no sound frame at `offset`."""

    def __init__(self, path: Path, offset: int) -> None:
        super().__init__(f"{path}: no sound frame at byte {offset}")
        self.offset = offset


def _expand(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(path.glob(f"*{SUFFIX}"))
        else:
            yield path


def _lines(content: bytes) -> list[bytes]:
    *lines, rest = content.split(b"\n")
    if rest:
        raise JournalError("a record without its line feed")
    return lines


def _frames(file: io.BufferedIOBase, path: Path) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each frame; content is given out only when it is whole and sound.

    Raises:
        _TornError: the file ends within a frame.
        _CorruptError: a frame cannot be unpacked or its checksum is wrong.
    """
    decompressor = zstandard.ZstdDecompressor()
    offset = 0
    piece = file.read(READ_BYTES)
    while piece:
        if len(piece) < FRAME_HEADER_BYTES_MAX:
            piece += file.read(READ_BYTES)
        if not piece.startswith(MAGIC[: len(piece)]):
            raise _CorruptError(path, offset)
        frame = decompressor.decompressobj()
        parts: list[bytes] = []
        packed = unpacked = 0
        while True:
            packed += len(piece)
            try:
                parts.append(frame.decompress(piece))
            except zstandard.ZstdError as error:
                raise _CorruptError(path, offset) from error
            unpacked += len(parts[-1])
            if frame.eof:
                break
            if unpacked > FRAME_BYTES_MAX:
                raise _CorruptError(path, offset)
            piece = file.read(READ_BYTES)
            if not piece:
                raise _TornError(path, offset)
        piece = frame.unused_data
        yield offset, b"".join(parts)
        offset += packed - len(piece)
        piece = piece or file.read(READ_BYTES)
