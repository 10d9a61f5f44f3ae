"""What is written to a journal comes back, whatever it was."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.events import Frame, Lost, Opened, Reply, Tick
from monitor.journal import (
    VERSION,
    Header,
    JournalError,
    decode,
    decode_header,
    encode,
    encode_header,
)
from tests.builders import pipeline_config

at = st.integers(0, 2**62)
name = st.text("abcdefghijklmnopqrstuvwxyz0123456789.:_-", min_size=1, max_size=20)
body = st.binary(max_size=200)
records = st.one_of(
    st.builds(Frame, at, name, body),
    st.builds(Reply, at, name, name, st.integers(0, 599), body),
    st.builds(Opened, at, name),
    st.builds(Lost, at, name, name),
    st.builds(Tick, at),
)


def header() -> Header:
    return Header(VERSION, "run", 0, 1, "test", pipeline_config())


@given(records)
def test_a_record_comes_back_as_it_was_and_takes_one_line(record):
    line = encode(record)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line[:-1]) == record


def test_a_message_is_stored_as_it_was_received():
    assert encode(Frame(7, "okx.public.0", b'{"a": 1}')) == b'F 7 okx.public.0 {"a": 1}\n'


def test_a_reason_with_line_feeds_stays_on_its_line():
    assert decode(encode(Lost(1, "f", "two\n lines"))[:-1]) == Lost(1, "f", "two lines")


def test_a_header_comes_back_with_the_whole_configuration():
    assert decode_header(encode_header(header())) == header()


@given(st.binary(max_size=80).filter(lambda line: b"\n" not in line))
def test_any_line_is_a_record_or_a_journal_error(line):
    with suppress(JournalError):
        decode(line)


def test_a_journal_of_another_version_is_refused_by_its_number():
    other = encode_header(msgspec.structs.replace(header(), version=99))
    with pytest.raises(JournalError, match="version 99, this software reads 1"):
        decode_header(other)


@pytest.mark.parametrize("line", [b"", b"T 1", b"H ", b"H {", b"H []", b"H {}", b'H {"version":1}'])
def test_what_is_no_header_is_refused(line):
    with pytest.raises(JournalError):
        decode_header(line)
