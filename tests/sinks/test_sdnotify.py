"""What systemd is told: the decisions with literals, the datagrams over real sockets."""

import asyncio
import os
import socket
from contextlib import contextmanager

import pytest

from monitor.sinks.sdnotify import STATUS_CHARACTERS_MAX, Beats, Supervisor
from monitor.sinks.status import Health
from tests.fake_binance import FakeBinance
from tests.test_daemon import PATIENCE_S, settings, started

READY = Health(ok=True, reasons=[])
WAITING = Health(ok=False, reasons=["okx: no book is synced"])


def told(beats, *, uptime_s=1.0, idle_s=0.1, health=READY):
    return beats.due(uptime_s, idle_s, health)


# -------------------------------------------------------------------------------- decisions


def test_it_is_started_when_what_it_publishes_can_first_be_used():
    beats = Beats(None, grace_s=60)
    assert told(beats, health=WAITING) == ["STATUS=not ready: okx: no book is synced"]
    assert told(beats) == ["READY=1", "STATUS=ready"]
    assert told(beats) == []


def test_a_venue_that_is_away_does_not_keep_the_start_waiting_beyond_the_grace():
    beats = Beats(None, grace_s=60)
    assert "READY=1" not in told(beats, uptime_s=59.9, health=WAITING)
    assert told(beats, uptime_s=60, health=WAITING) == ["READY=1"]


def test_it_is_told_once_that_it_started_whatever_comes_after():
    beats = Beats(None, grace_s=60)
    told(beats)
    assert told(beats, health=WAITING) == ["STATUS=not ready: okx: no book is synced"]
    assert told(beats) == ["STATUS=ready"]


def test_the_watchdog_hears_of_progress_at_half_of_its_patience():
    beats = Beats(30, grace_s=60)
    heard = [s for s in range(61) if "WATCHDOG=1" in told(beats, uptime_s=s)]
    assert heard == [0, 15, 30, 45, 60]


def test_the_watchdog_hears_nothing_of_a_pump_that_stands_still():
    beats = Beats(30, grace_s=60)
    assert "WATCHDOG=1" not in told(beats, uptime_s=100, idle_s=15)
    assert "WATCHDOG=1" in told(beats, uptime_s=101, idle_s=0.2)


def test_a_status_is_one_line_of_bounded_length():
    (line,) = told(Beats(None, 60), health=Health(ok=False, reasons=["a\nREADY=1", "b" * 9999]))
    assert line.startswith("STATUS=not ready: a READY=1; bbb")
    assert "\n" not in line
    assert len(line) == len("STATUS=") + STATUS_CHARACTERS_MAX


@pytest.mark.parametrize(
    ("environment", "patience_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_a_watchdog_is_heeded_only_if_it_is_ours(environment, patience_s):
    assert Supervisor(environment).watchdog_s == patience_s


# ---------------------------------------------------------------------------------- sockets


@contextmanager
def listening(address):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.setblocking(False)
        yield listener


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_lines_arrive_as_one_datagram(tmp_path, kind):
    name = str(tmp_path / "notify") if kind == "path" else f"@cascade-{os.getpid()}"
    with listening(name.replace("@", "\0")) as listener:
        Supervisor({"NOTIFY_SOCKET": name}).tell("STOPPING=1", "STATUS=stopping")
        assert listener.recv(1000) == b"STOPPING=1\nSTATUS=stopping"


def test_a_supervisor_that_is_gone_or_deaf_is_no_reason_to_fail(tmp_path):
    Supervisor({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).tell("READY=1")
    with listening(str(tmp_path / "full")):
        supervisor = Supervisor({"NOTIFY_SOCKET": str(tmp_path / "full")})
        for _ in range(1000):
            supervisor.tell("STATUS=" + "x" * 1000)


async def test_without_a_supervisor_there_is_nothing_to_do():
    async with asyncio.timeout(PATIENCE_S):
        await Supervisor({}).run(lambda: 0.0, lambda: READY, grace_s=60)


async def test_systemd_hears_of_the_start_of_the_progress_and_of_the_end(tmp_path):
    said = []
    with listening(str(tmp_path / "notify")) as listener:

        async def hear(line):
            async with asyncio.timeout(PATIENCE_S):
                while line not in said:
                    datagram = await asyncio.get_running_loop().sock_recv(listener, 1000)
                    said.extend(datagram.decode().split("\n"))

        async with FakeBinance().serving() as venue:
            file = settings(tmp_path, venue, "[redis]\nenabled = false")
            socket_name = str(tmp_path / "notify")
            arguments = ("run", "--config", str(file))
            # A beat a second: the listener holds ten, and a busy machine may not let it read.
            async with started(
                *arguments, NOTIFY_SOCKET=socket_name, WATCHDOG_USEC="2000000"
            ) as daemon:
                await hear("STATUS=ready")
                said.clear()
                await hear("WATCHDOG=1")
                assert await daemon.stop() == 0
                await hear("STOPPING=1")
