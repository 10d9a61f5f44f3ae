import errno
import io
import os
import threading
import time
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.events import Frame, Lost, Opened, Reply, Tick
from monitor.feeds.replay import JournalFiles, read, read_header
from monitor.journal import SUFFIX, Header, JournalError, encode_header
from monitor.sinks import recorder as module
from monitor.sinks.recorder import Recorder, create
from tests.sinks.builders import PATIENCE_S, START, eventually, header, journal_config

MS = 1_000_000


def recorder(directory, *, run="run1", started_at=START, open_file=create, retry_s=10.0, **changes):
    return Recorder(
        directory,
        header(run, started_at),
        journal_config(**changes),
        open_file=open_file,
        retry_s=retry_s,
    )


def inputs(files):
    return [record for record in files if not isinstance(record, Header)]


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def noise(at, size=1 << 20):
    """An input that does not compress, to fill files quickly."""
    return Frame(at, "f", os.urandom(size).replace(b"\n", b" "))


def ticks(start, stop):
    return [Tick(START + n * MS) for n in range(start, stop)]


class BrokenFile(io.RawIOBase):
    """A file on a disk that takes so many bytes and not one more."""

    def __init__(self, path, room):
        super().__init__()
        self.inner = create(path)
        self.room = room

    def write(self, data):
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.inner.write(bytes(data)[: self.room])
        self.room -= written
        return written

    def truncate(self, size=None):
        return self.inner.truncate(size)

    def fileno(self):
        return self.inner.fileno()

    def close(self):
        self.inner.close()
        super().close()


word = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=8)
at = st.integers(0, 2**63)
record = st.one_of(
    st.builds(Frame, at, word, st.binary(max_size=200)),
    st.builds(Reply, at, word, word, st.integers(0, 599), st.binary(max_size=200)),
    st.builds(Opened, at, word),
    st.builds(Lost, at, word, word),
    st.builds(Tick, at),
)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(record, max_size=30), st.integers(1, 300))
def test_any_inputs_come_back_as_they_were(tmp_path_factory, records, chunk_bytes):
    directory = tmp_path_factory.mktemp("journal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_BYTES", chunk_bytes)
        # Room for all, so that a machine with no time for the writer loses nothing.
        patch.setattr(module, "QUEUE_CHUNKS", 1_000)
        made = recorder(directory)
        for item in records:
            made.write(item)
        assert made.close()
    files = JournalFiles([directory])
    assert inputs(files) == records
    assert (made.records, made.lost_slow, made.lost_disk) == (len(records), 0, 0)
    assert (files.damages, files.holes, files.bytes_read) == ([], 0, files.bytes_total)


def recorded_in_frames(directory, frames=3, per_frame=20):
    """A journal of so many frames besides the header's; returns its file and where each ends."""
    made = recorder(directory)
    path = directory / f"run1-000000{SUFFIX}"
    offsets = []
    for number in range(frames):
        for item in ticks(number * per_frame, (number + 1) * per_frame):
            made.write(item)
        made.last_success_at = 0.0
        made.flush()
        eventually_sync(lambda: made.last_success_at)
        offsets.append(path.stat().st_size)
    assert made.close()
    return path, offsets


def test_a_tail_torn_at_any_byte_loses_only_the_last_chunk(tmp_path):
    path, offsets = recorded_in_frames(tmp_path / "whole")
    whole, before = path.read_bytes(), offsets[-2]
    torn = tmp_path / path.name
    for size in range(before + 1, len(whole)):
        torn.write_bytes(whole[:size])
        files = JournalFiles([torn])
        assert inputs(files) == ticks(0, 40), size
        (damage,) = files.damages
        assert (damage.reason, damage.offset, damage.skipped_bytes) == (
            "torn",
            before,
            size - before,
        )


def test_a_corrupt_byte_anywhere_in_the_last_frame_loses_only_that_frame(tmp_path):
    path, offsets = recorded_in_frames(tmp_path / "whole")
    whole, before = path.read_bytes(), offsets[-2]
    corrupt = tmp_path / path.name
    for position in range(before, len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x55
        corrupt.write_bytes(damaged)
        files = JournalFiles([corrupt])
        assert inputs(files) == ticks(0, 40), position
        assert [damage.offset for damage in files.damages] == [before]


def test_a_tail_of_zeros_is_corrupt_and_costs_nothing_before_it(tmp_path):
    path, offsets = recorded_in_frames(tmp_path)
    with path.open("ab") as file:
        file.write(bytes(4096))
    files = JournalFiles([path])
    assert inputs(files) == ticks(0, 60)
    assert [(d.reason, d.offset, d.skipped_bytes) for d in files.damages] == [
        ("corrupt", offsets[-1], 4096)
    ]


def test_a_file_torn_within_its_header_holds_nothing(tmp_path):
    path, _ = recorded_in_frames(tmp_path, frames=1)
    whole = path.read_bytes()
    for size in (0, 1, 4, 10, 40):
        path.write_bytes(whole[:size])
        files = JournalFiles([path])
        assert list(files) == []
        assert [damage.reason for damage in files.damages] == ["torn"]


def test_a_line_this_version_cannot_read_ends_the_file_with_a_reason(tmp_path):
    path, offsets = recorded_in_frames(tmp_path, frames=1)
    with path.open("ab") as file:
        file.write(zstandard.compress(b"T 5\nX what\nT 6\n"))
    files = JournalFiles([path])
    assert inputs(files) == [*ticks(0, 20), Tick(5)]
    assert [(d.reason, d.offset) for d in files.damages] == [("record", offsets[0])]


@pytest.mark.parametrize("content", [b"{}", b"", b"H {}\n", b'H {"version":99}\n'])
def test_what_is_no_journal_is_refused_before_anything_is_read(tmp_path, content):
    path = tmp_path / f"x-000000{SUFFIX}"
    path.write_bytes(zstandard.compress(content) if content else b"plain text, and long enough")
    with pytest.raises(JournalError, match="x-000000"):
        JournalFiles([path])


def test_a_journal_that_was_packed_anew_as_one_frame_is_read_too(tmp_path):
    path = tmp_path / f"x-000000{SUFFIX}"
    packer = zstandard.ZstdCompressor().compressobj()  # does not know the size beforehand
    content = encode_header(header()) + b"T 1\nT 2\n"
    path.write_bytes(packer.compress(content) + packer.flush())
    assert list(read([path])) == [header(), Tick(1), Tick(2)]


def test_each_file_begins_with_its_header_and_rotation_leaves_no_hole(tmp_path):
    made = recorder(tmp_path, rotate_mb=1)
    written = [noise(START + n) for n in range(4)]
    for item in written:
        made.write(item)
        eventually_sync(lambda: not made.queued)
    assert made.close()
    assert len(names(tmp_path)) == made.files >= 2
    files = JournalFiles([tmp_path])
    assert inputs(files) == written
    assert [h.file for h in files.headers] == list(range(made.files))
    assert all(msgspec.structs.replace(h, file=0) == header() for h in files.headers)
    assert (files.holes, files.damages) == (0, [])


def eventually_sync(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.001)


def test_a_buffer_is_written_when_it_is_old_even_without_close(tmp_path):
    made = recorder(tmp_path, flush_interval_ms=100)
    for item in ticks(0, 101):
        made.write(item)
    eventually_sync(lambda: made.last_success_at)
    assert inputs(read([tmp_path])) == ticks(0, 101)
    made.close()


def test_a_clock_that_steps_back_does_not_postpone_the_flush(tmp_path):
    made = recorder(tmp_path)
    made.write(Tick(START))
    made.write(Tick(START - 5000 * MS))
    eventually_sync(lambda: made.last_success_at)
    made.close()


def test_the_oldest_files_of_any_run_are_deleted_but_never_the_current_one(tmp_path):
    for age, name in enumerate(["b-000001", "a-000000", "c-000007"]):
        path = tmp_path / f"{name}{SUFFIX}"
        path.write_bytes(bytes(600_000))
        os.utime(path, (age + 1, age + 1))
    (tmp_path / "notes.txt").write_text("not ours")
    made = recorder(tmp_path, keep_mb=1)
    made.write(Tick(START))
    made.close()
    assert names(tmp_path) == [f"c-000007{SUFFIX}", "notes.txt", f"run1-000000{SUFFIX}"]

    (tmp_path / f"c-000007{SUFFIX}").write_bytes(bytes(2_000_000))
    made = recorder(tmp_path, run="run2", keep_mb=1)
    made.write(Tick(START))
    made.close()
    assert names(tmp_path) == ["notes.txt", f"run2-000000{SUFFIX}"]


def test_a_full_disk_pauses_the_recording_and_a_new_file_follows_behind_a_skipped_number(tmp_path):
    opened = []

    def open_file(path):
        opened.append(path)
        return BrokenFile(path, room=600) if len(opened) == 1 else create(path)

    made = recorder(tmp_path, open_file=open_file, retry_s=600.0)
    made.write(ticks(0, 1)[0])
    made.flush()
    eventually_sync(lambda: made.last_success_at)
    lost = noise(START + 1, 5000)
    made.write(lost)
    made.flush()
    eventually_sync(lambda: made.paused)
    made.write(ticks(1, 2)[0])
    made.flush()
    eventually_sync(lambda: made.lost_disk == 2)
    made._retry_at = 0.0
    made.write(ticks(2, 3)[0])
    assert made.close()
    assert (made.paused, made.lost_disk, made.lost_slow, made.errors) == (False, 2, 0, 1)

    files = JournalFiles([tmp_path])
    assert inputs(files) == [*ticks(0, 1), *ticks(2, 3)]
    assert [h.file for h in files.headers] == [0, 2]
    # The half frame was cut off again, so there is a hole but no damage.
    assert (files.holes, files.damages) == (1, [])


def test_a_full_disk_is_freed_of_the_oldest_files_before_a_new_one_is_begun(tmp_path):
    old = [tmp_path / f"run0-00000{n}{SUFFIX}" for n in range(3)]
    for age, path in enumerate(old):
        path.write_bytes(bytes(1 << 20))
        os.utime(path, (age + 1, age + 1))

    def open_file(path):
        full = sum(other.stat().st_size for other in tmp_path.iterdir()) >= 3 << 20
        return BrokenFile(path, room=0 if full else 1 << 20)

    made = recorder(tmp_path, open_file=open_file, retry_s=600.0, keep_mb=1)
    made.write(Tick(START))
    assert made.close()
    assert (made.paused, made.lost_disk, made.errors) == (False, 0, 0)
    assert names(tmp_path) == [old[-1].name, f"run1-000000{SUFFIX}"]


def test_a_device_that_takes_nothing_loses_everything_with_a_count_and_no_exception(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    made = recorder(
        tmp_path,
        open_file=lambda _: open("/dev/full", "wb", buffering=0),  # noqa: PTH123, SIM115
        retry_s=0.0,
        keep_mb=10_000,
    )
    for item in ticks(0, 10):
        made.write(item)
        made.flush()
    assert made.close()
    assert (made.lost_disk, made.paused, made.bytes_written) == (10, True, 0)
    assert 1 <= made.errors <= 10


def test_a_directory_that_cannot_be_made_is_tried_again(tmp_path):
    blocker = tmp_path / "journal"
    blocker.write_text("a file where the directory should be")
    made = recorder(blocker, retry_s=0.0)
    made.write(Tick(1))
    made.flush()
    eventually_sync(lambda: made.paused)
    blocker.unlink()
    made.write(Tick(2))
    assert made.close()
    assert inputs(read([blocker])) == [Tick(2)]


def test_a_recording_is_never_overwritten(tmp_path):
    path = tmp_path / f"run1-000000{SUFFIX}"
    path.write_bytes(b"precious")
    made = recorder(tmp_path, retry_s=0.0)
    made.write(Tick(1))
    made.flush()
    eventually_sync(lambda: made.lost_disk)
    made.write(Tick(2))
    assert made.close()
    assert path.read_bytes() == b"precious"
    assert inputs(read([tmp_path / f"run1-000001{SUFFIX}"])) == [Tick(2)]


def test_a_writer_that_is_too_slow_loses_whole_chunks_and_marks_the_hole(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "QUEUE_CHUNKS", 4)
    monkeypatch.setattr(module, "RESUME_CHUNKS", 2)
    began, gate = threading.Event(), threading.Event()

    def open_file(path):
        began.set()
        gate.wait(PATIENCE_S)
        return create(path)

    made = recorder(tmp_path, open_file=open_file)
    first, *others = ticks(0, 10)
    made.write(first)
    made.flush()
    assert began.wait(PATIENCE_S)  # the first chunk is with the thread, which waits
    for item in others:
        made.write(item)
        made.flush()
    kept = 1 + 4
    assert (made.queued, made.lost_slow) == (4, 10 - kept)
    gate.set()
    eventually_sync(lambda: not made.queued)
    made.write(Tick(START + 10 * MS))
    assert made.close()

    files = JournalFiles([tmp_path])
    assert inputs(files) == [*ticks(0, kept), *ticks(10, 11)]
    assert [h.file for h in files.headers] == [0, 2]
    assert (files.holes, files.damages, made.lost_disk) == (1, [], 0)


def test_closing_does_not_wait_longer_than_its_deadline(tmp_path):
    gate = threading.Event()

    def open_file(path):
        gate.wait(PATIENCE_S)
        return create(path)

    made = recorder(tmp_path, open_file=open_file)
    made.write(Tick(1))
    assert not made.close(deadline_s=0.05)
    gate.set()
    made._thread.join(PATIENCE_S)
    assert made.close()
    assert inputs(read([tmp_path])) == [Tick(1)]


def test_several_runs_are_read_in_the_order_they_were_started(tmp_path):
    for run, started_at in (("zulu", START), ("alpha", START + 1)):
        made = recorder(tmp_path, run=run, started_at=started_at)
        made.write(Tick(started_at))
        made.close()
    files = JournalFiles([tmp_path])
    assert [h.run for h in files.headers] == ["zulu", "alpha"]
    assert inputs(files) == [Tick(START), Tick(START + 1)]
    assert files.holes == 1


def test_a_run_whose_first_files_are_gone_begins_with_a_hole(tmp_path):
    made = recorder(tmp_path, rotate_mb=1)
    for n in range(3):
        made.write(noise(START + n))
        eventually_sync(lambda: not made.queued)
    assert made.close()
    (tmp_path / f"run1-000000{SUFFIX}").unlink()
    files = JournalFiles([tmp_path])
    records = iter(files)
    assert next(records).file == 1
    assert (files.seamless, files.holes) == (False, 1)
    assert len([*records]) == made.files  # two inputs, and the headers of the files after it
    assert files.holes == 1


def test_the_header_of_a_file_can_be_read_alone(tmp_path):
    made = recorder(tmp_path)
    made.write(Tick(1))
    made.close()
    (path,) = tmp_path.iterdir()
    assert read_header(path) == header()


async def test_damage_within_a_run_is_a_hole(tmp_path):
    made = recorder(tmp_path, rotate_mb=1)
    for n in range(4):
        made.write(noise(START + n))
        await eventually(lambda: not made.queued)
    made.close()
    first = min(tmp_path.iterdir())
    os.truncate(first, first.stat().st_size - 1)
    files = JournalFiles([tmp_path])
    records = iter(files)
    seamless = [files.seamless for record in records if isinstance(record, Header)]
    assert seamless[:2] == [False, False]
    assert all(seamless[2:])
    assert (files.holes, [d.reason for d in files.damages]) == (1, ["torn"])
