"""Records inputs in the format of `monitor.journal`, without ever making the pipeline wait.

`Recorder.write` encodes into a buffer. Full or old enough, the buffer goes as one chunk to a writer
thread, which compresses it as an independent zstd frame with a checksum and appends it to the file.

**What a crash can lose.** If the daemon dies: the buffer (up to `flush_interval_ms` of inputs, or
`CHUNK_BYTES`) and the chunks the thread has not written yet, normally none. If the machine dies:
besides, whatever the kernel had not written to disk, some 30 s on Linux; `fsync` is called only
when a file is finished, so that a slow disk does not stall the recording. In either case only a
tail is missing: every frame before it reads back whole.

**What else can be lost.** Chunks that find the queue full because the disk is too slow, and all
inputs while the disk refuses writes. Either is counted, and marked: the file ends before the hole,
and the next one *skips a number*, whereas a rotation never does. Replaying across a hole is not
replaying what happened; `monitor.feeds.replay` reports it.
"""

import contextlib
import errno
import io
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import zstandard

from monitor.config import JournalConfig
from monitor.events import Input
from monitor.journal import SUFFIX, Header, encode, encode_header

CHUNK_BYTES: Final = 1 << 20
"""Size at which the buffer is handed over; a chunk exceeds it by at most one record."""

FRAME_BYTES: Final = 8 << 20
"""Chunks that have piled up are joined into one frame until it is so long."""

QUEUE_CHUNKS: Final = 16
"""Chunks that may wait for the writer thread."""

RESUME_CHUNKS: Final = QUEUE_CHUNKS // 2
"""After an overflow, chunks are dropped until so few wait: one hole and one new file, not many."""

LOG_INTERVAL_S: Final = 60.0
"""A disk that stays too slow is logged this often."""

RETRY_S: Final = 10.0
"""The wait after a failed write before a new file is tried."""

LEVEL: Final = 1
"""zstd level: on order book messages 1 is faster than 3 and, curiously, packs better (5.2x)."""

_NS_PER_MS = 1_000_000

_log = logging.getLogger(__name__)


class _Chunk(NamedTuple):
    """Records for the writer thread; `after_hole` says that the chunk before it was dropped."""

    data: bytearray
    after_hole: bool


class _File(NamedTuple):
    path: Path
    stream: io.RawIOBase


def create(path: Path) -> io.RawIOBase:
    """A new file, unbuffered.

    Raises:
        FileExistsError: it is there already; a recording is never overwritten.
    """
    return path.open("xb", buffering=0)


class Recorder:
    """Appends inputs to the journal of one run.

    Attributes:
        records: inputs accepted by `write`.
        lost_slow: records dropped because the writer thread could not keep up.
        lost_disk: records dropped because the disk refused them.
        errors: failed attempts to write.
        files: files begun.
        bytes_written: compressed bytes in files.
        paused: whether the disk refuses writes at the moment.
        last_success_at: seconds since the Unix epoch of the last write, 0 when never.
    """

    def __init__(
        self,
        directory: Path,
        header: Header,
        config: JournalConfig,
        *,
        open_file: Callable[[Path], io.RawIOBase] = create,
        retry_s: float = RETRY_S,
    ) -> None:
        """Start the writer thread; `header.file` is the number of the first file.

        The directory is created when the first chunk is written, so that a disk which is not
        there yet pauses the recording instead of stopping the daemon.
        """
        self.records = 0
        self.lost_slow = 0
        self.lost_disk = 0
        self.errors = 0
        self.files = 0
        self.bytes_written = 0
        self.paused = False
        self.last_success_at = 0.0
        self._directory = directory
        self._header = header
        self._config = config
        self._open_file = open_file
        self._retry_s = retry_s
        # Of the pipeline's thread:
        self._buffer = bytearray()
        self._flush_ns = config.flush_interval_ms * _NS_PER_MS
        self._since = 0
        self._hole = False
        self._logged_at = -LOG_INTERVAL_S
        self._closed = False
        # Between the two:
        self._queue: queue.Queue[_Chunk | None] = queue.Queue(QUEUE_CHUNKS)
        # Of the writer thread:
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        self._file: _File | None = None
        self._size = 0
        self._next = header.file
        self._retry_at = 0.0
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Chunks that wait for the writer thread, of at most `QUEUE_CHUNKS`."""
        return self._queue.qsize()

    def write(self, record: Input) -> None:
        """Accept an input; takes about a microsecond and never waits.

        The age of the buffer is measured by the inputs' own times: ticks are inputs, so time
        passes here even when no venue speaks, and no clock has to be read.
        """
        buffer = self._buffer
        if not buffer:
            self._since = record.at
        buffer += encode(record)
        self.records += 1
        # A clock that has stepped back must not postpone the flush.
        if len(buffer) >= CHUNK_BYTES or not 0 <= record.at - self._since < self._flush_ns:
            self.flush()

    def flush(self) -> None:
        """Hand the buffer to the writer thread, or drop it if that cannot keep up."""
        assert not self._closed
        buffer = self._buffer
        if not buffer:
            return
        self._buffer = bytearray()
        if self._hole and self._queue.qsize() > RESUME_CHUNKS:
            self._drop(buffer)
            return
        try:
            self._queue.put_nowait(_Chunk(buffer, self._hole))
        except queue.Full:
            self._drop(buffer)
        else:
            self._hole = False

    def _drop(self, buffer: bytearray) -> None:
        self.lost_slow += _records_in(buffer)
        self._hole = True
        now = time.monotonic()
        if now - self._logged_at >= LOG_INTERVAL_S:
            self._logged_at = now
            fields = {"queued_chunks": self._queue.qsize(), "lost_records": self.lost_slow}
            _log.warning("recorder_too_slow", extra={"fields": fields})

    def close(self, deadline_s: float = 10.0) -> bool:
        """Write everything that is pending to the disk; False if that took too long.

        Blocks for up to `deadline_s`; what the thread has not written by then is lost.
        """
        if self._closed:
            return not self._thread.is_alive()
        self._closed = True
        deadline = time.monotonic() + deadline_s
        try:
            if self._buffer:
                self._queue.put(_Chunk(self._buffer, self._hole), timeout=deadline_s)
                self._buffer = bytearray()
            self._queue.put(None, timeout=max(0.001, deadline - time.monotonic()))
        except queue.Full:
            self.lost_slow += _records_in(self._buffer)
        self._thread.join(max(0.001, deadline - time.monotonic()))
        if self._thread.is_alive():
            fields = {"queued_chunks": self._queue.qsize(), "deadline_s": deadline_s}
            _log.warning("recorder_close_incomplete", extra={"fields": fields})
            return False
        return True

    # ------------------------------------------------------------------- the writer thread

    def _work(self) -> None:
        for chunk in self._chunks():
            if chunk.after_hole:
                self._break_off()
            if self.paused and time.monotonic() < self._retry_at:
                self.lost_disk += _records_in(chunk.data)
                continue
            try:
                self._append(chunk.data)
            except OSError as error:
                self.lost_disk += _records_in(chunk.data)
                self._pause(error)
        self._finish()

    def _chunks(self) -> Iterator[_Chunk]:
        """Chunks as they come; those that have piled up as one.

        Each step outside the interpreter ends with a wait of up to 5 ms for its lock while the
        pipeline is busy; fewer and larger steps doubled what gets through.
        """
        chunk = self._queue.get()
        while chunk is not None:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                yield chunk
                following = self._queue.get()
            else:
                full = len(chunk.data) >= FRAME_BYTES
                if following is not None and not following.after_hole and not full:
                    chunk.data.extend(following.data)
                    continue
                yield chunk
            chunk = following

    def _append(self, data: bytearray) -> None:
        frame = self._compressor.compress(data)
        stream = (self._file or self._begin()).stream
        _write_all(stream, frame)
        self._size += len(frame)
        self.bytes_written += len(frame)
        self.last_success_at = time.time()
        if self.paused:
            self.paused = False
            _log.info("recorder_resumed", extra={"fields": {"lost_records": self.lost_disk}})
        if self._size >= self._config.rotate_mb << 20:
            self._finish()

    def _begin(self) -> _File:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._delete_old()  # first: on a full disk nothing can be written until something is freed
        number = self._next
        path = self._directory / f"{self._header.run}-{number:06d}{SUFFIX}"
        line = encode_header(msgspec.structs.replace(self._header, file=number))
        stream = self._open_file(path)
        self._file = _File(path, stream)
        self._size = 0
        self._next = number + 1
        self.files += 1
        head = self._compressor.compress(line)
        _write_all(stream, head)
        self._size = len(head)
        self.bytes_written += len(head)
        _sync_directory(self._directory)
        return self._file

    def _finish(self) -> None:
        """Finish the current file; its records have been accepted, so an error here loses none."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            os.fsync(file.stream.fileno())
        except OSError as error:
            # Pipes and some devices cannot be synchronised; anything else is a failing disk.
            if error.errno != errno.EINVAL:
                self.errors += 1
                fields = {"path": str(file.path), "error": str(error)}
                _log.warning("recorder_sync_failed", extra={"fields": fields})
        with contextlib.suppress(OSError):
            file.stream.close()

    def _break_off(self) -> None:
        """Finish the current file so that the next one's number shows the hole."""
        self._finish()
        if self.files:
            self._next += 1

    def _pause(self, error: OSError) -> None:
        self.errors += 1
        self._retry_at = time.monotonic() + self._retry_s
        if file := self._file:
            # Half a frame would look like damage; without it the file merely ends here.
            with contextlib.suppress(OSError):
                file.stream.truncate(self._size)
            if self._size == 0:
                with contextlib.suppress(OSError):
                    file.path.unlink()
        if isinstance(error, FileExistsError):
            self._next += 1
        if self._file is not None or not self.paused:
            self._break_off()
        if not self.paused:
            fields = {"directory": str(self._directory), "error": str(error)}
            _log.warning("recorder_paused", extra={"fields": fields})
        self.paused = True

    def _delete_old(self) -> None:
        """Keep the newest files of the directory, whatever run they are of, up to `keep_mb`."""
        aged = []
        for path in self._directory.glob(f"*{SUFFIX}"):
            with contextlib.suppress(OSError):
                status = path.stat()
                aged.append((status.st_mtime_ns, path.name, status.st_size, path))
        kept = 0
        for *_, size, path in sorted(aged, reverse=True):
            kept += size
            if kept > self._config.keep_mb << 20:
                with contextlib.suppress(OSError):
                    path.unlink()
                    _log.info("recorder_deleted", extra={"fields": {"path": str(path)}})


def _records_in(data: bytearray) -> int:
    return data.count(b"\n")


def _write_all(stream: io.RawIOBase, data: bytes) -> None:
    """Write all of it; an almost full disk takes a part first and only then refuses."""
    rest = memoryview(data)
    while rest:
        written = stream.write(rest)
        if not written:
            raise OSError(errno.EIO, "the file takes no more")
        rest = rest[written:]


def _sync_directory(directory: Path) -> None:
    """Make a new file's name last; not every file system can, and then it is none the worse."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
