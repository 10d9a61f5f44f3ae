"""The record format of the journal: inputs to lines and back.

A journal is a sequence of files ``<run>-<number>.journal.zst``. Each is a concatenation of
independent zstd frames, so that a torn tail costs the last frame and no more; the content is one
record a line, in the order in which the pipeline took the inputs:

    H <header as JSON>                               first line of each file
    F <at> <feed> <message as received>
    B <at> <feed> <message in base64>                a message that contains a line feed
    R <at> <venue> <key> <status> <body in base64 if it contains a line feed, behind "=">
    O <at> <feed>
    L <at> <feed> <reason>
    T <at>
    S <at> <asset> <state of an earlier run in base64>

`at` is in integer nanoseconds. Names contain no space. Nothing is interpreted when it is written.
"""

import re
from base64 import b64decode, b64encode
from typing import Final

import msgspec
from msgspec import Struct

from monitor.config import PipelineConfig
from monitor.events import Frame, Input, Lost, Opened, Reply, Restored, Tick

VERSION: Final = 1
SUFFIX: Final = ".journal.zst"

_SPACE = re.compile(r"\s+")


class JournalError(Exception):
    """A line is no record, or a file no journal that this version can read."""


class Header(Struct, frozen=True):
    """The first line of each file.

    Attributes:
        version: of this format.
        run: identifies the process that recorded; the same in all its files.
        file: number of this file within the run, from 0.
        started_at: nanoseconds since the Unix epoch.
        software: what wrote it.
        pipeline: the configuration under which these inputs were processed.
    """

    version: int
    run: str
    file: int
    started_at: int
    software: str
    pipeline: PipelineConfig


def encode_header(header: Header) -> bytes:
    """The line of a header, with its line feed."""
    return b"H " + msgspec.json.encode(header) + b"\n"


def decode_header(line: bytes) -> Header:
    """The header of a file from its first line.

    Raises:
        JournalError: it is no header, or of a version this software does not know.
    """
    if not line.startswith(b"H "):
        raise JournalError("not a journal: the first line is no header")
    try:
        version = msgspec.json.decode(line[2:], type=dict[str, msgspec.Raw]).get("version")
        if version is None or bytes(version) != str(VERSION).encode():
            found = "none" if version is None else bytes(version).decode()
            raise JournalError(f"journal version {found}, this software reads {VERSION}")
        return msgspec.json.decode(line[2:], type=Header)
    except msgspec.DecodeError as error:
        raise JournalError(f"unreadable journal header: {error}") from error


def encode(record: Input) -> bytes:
    """The line of an input, with its line feed."""
    if type(record) is Frame and b"\n" not in record.data:  # the hot path: half the time of a match
        return b"F %d %s %s\n" % (record.at, record.feed.encode(), record.data)
    match record:
        case Frame(at, feed, data):
            return b"B %d %s %s\n" % (at, feed.encode(), b64encode(data))
        case Tick(at):
            return b"T %d\n" % at
        case Reply(at, venue, key, status, data):
            body = b"=" + b64encode(data) if b"\n" in data or data[:1] == b"=" else data
            return b"R %d %s %s %d %s\n" % (at, venue.encode(), key.encode(), status, body)
        case Opened(at, feed):
            return b"O %d %s\n" % (at, feed.encode())
        case Lost(at, feed, reason):
            text = _SPACE.sub(" ", reason).encode()
            return b"L %d %s %s\n" % (at, feed.encode(), text)
        case Restored(at, asset, data):
            return b"S %d %s %s\n" % (at, asset.encode(), b64encode(data))


def decode(line: bytes) -> Input:
    """The input of a line without its line feed.

    Raises:
        JournalError: the line is no record.
    """
    try:
        match line[:1]:
            case b"F":
                _, at, feed, data = line.split(b" ", 3)
                return Frame(int(at), feed.decode(), data)
            case b"T":
                return Tick(int(line[2:]))
            case b"B":
                _, at, feed, data = line.split(b" ", 3)
                return Frame(int(at), feed.decode(), b64decode(data, validate=True))
            case b"R":
                _, at, venue, key, status, data = line.split(b" ", 5)
                body = b64decode(data[1:], validate=True) if data[:1] == b"=" else data
                return Reply(int(at), venue.decode(), key.decode(), int(status), body)
            case b"O":
                _, at, feed = line.split(b" ", 2)
                return Opened(int(at), feed.decode())
            case b"L":
                _, at, feed, reason = line.split(b" ", 3)
                return Lost(int(at), feed.decode(), reason.decode())
            case b"S":
                _, at, asset, data = line.split(b" ", 3)
                return Restored(int(at), asset.decode(), b64decode(data, validate=True))
    except ValueError as error:  # too few parts, not a number, not base64, not UTF-8
        raise JournalError(f"unreadable record {line[:60]!r}") from error
    raise JournalError(f"unknown record {line[:60]!r}")
