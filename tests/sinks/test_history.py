import asyncio
import contextlib
import logging
from itertools import pairwise

from monitor.events import NS
from monitor.sinks import history as module
from monitor.sinks.envelope import encode
from monitor.sinks.history import Entry as Row
from monitor.sinks.history import History, Rows
from monitor.sinks.redis import Servers
from tests.sinks.builders import PATIENCE_S, START, eventually, liquidation
from tests.sinks.goldens import alert, undelivered

SECOND = 1_000_000


def filled(seconds, every=10):
    rows = Rows()
    for s in range(0, seconds, every):
        rows.add(Row(s * SECOND, b"%d" % s))
    return rows


def test_the_last_hour_is_kept_in_full_and_the_day_in_minutes():
    rows = filled(30 * 3600)
    end = 30 * 3600 * SECOND
    hour = rows.since(end - 3600 * SECOND, end)
    assert len(hour) == 360
    day = rows.since(end - 24 * 3600 * SECOND, end)
    assert 1438 <= len(day) <= 1440
    assert {b.at_us - a.at_us for a, b in pairwise(day)} == {60 * SECOND}


def test_memory_of_a_picture_is_bounded():
    rows = filled(3 * 86_400)
    assert len(rows._fine) <= 361
    assert len(rows._coarse) <= 1441


def test_what_was_before_comes_before_and_nothing_twice():
    rows = Rows()
    rows.add(Row(1000 * SECOND, b"own"))
    rows.precede([Row(980 * SECOND, b"a"), Row(990 * SECOND, b"b"), Row(1000 * SECOND, b"own")])
    assert [row.text for row in rows.since(0, 2000 * SECOND)] == [b"a", b"b", b"own"]


async def test_the_day_is_read_back_from_redis_once(client, server):
    before = [liquidation(seq=n, at=START + n * NS) for n in (1, 2, 3)]
    for message in before:
        await client.xadd("cascade:{BTC}:liquidations", {"m": encode(message, "old")},
                          id=f"{message.at // 1_000_000}-0")  # fmt: skip
    now = START + 10 * NS
    history = History("new", lambda: now)
    history.put(liquidation(seq=1, at=now))
    assert "no Redis" in history.lacks(60)
    servers = Servers(server.url, 2.0, "test")
    await history.recall(servers, "cascade", ["BTC"])
    found = history.liquidations("BTC", 5)
    assert [b'"run":"old"' in text for text in found] == [True, True, True, False]
    assert history.lacks(60) == ""
    assert history.picture_lacks("BTC", "", 60) == "no older rows have been made"


async def test_a_redis_that_is_away_is_told_and_tried_again():
    history = History("new", lambda: START)
    servers = Servers("redis://127.0.0.1:1", 0.2, "test")
    task = asyncio.create_task(history.recall(servers, "cascade", ["BTC"]))
    await eventually(lambda: "could not be read from Redis" in history.lacks(60))
    assert not task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_an_alert_that_could_not_be_delivered_is_not_one_itself(client, server):
    for message in (alert(), undelivered()):
        await client.xadd("cascade:alerts", {"m": encode(message, "old")})
    history = History("new", lambda: START + 60 * NS)
    await history.recall(Servers(server.url, 2.0, "test"), "cascade", ["BTC"])
    assert history.alerts(10) == [encode(alert(), "old")]


class Broken(Servers):
    """A client library with defects."""

    def __init__(self, url, *, defects=0):
        super().__init__(url, 2.0, "test")
        self.defects = defects
        self.asked = asyncio.Event()

    async def of(self, key):
        self.asked.set()
        if self.defects:
            self.defects -= 1
            raise AttributeError("a defect")
        return await super().of(key)


class Deaf(Broken):
    """It takes a cancellation for an error of its own."""

    async def of(self, _key):
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionError from None


async def test_a_defect_of_the_client_library_is_logged_once_and_gone_past(
    server, monkeypatch, caplog
):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    history = History("new", lambda: START)
    servers = Broken(server.url, defects=3)
    await asyncio.wait_for(history.recall(servers, "cascade", ["BTC"]), PATIENCE_S)
    assert history.lacks(60) == ""
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert (record.message, record.exc_info[0]) == ("history_not_read", AttributeError)


async def test_it_ends_when_it_is_cancelled_though_the_client_library_swallows_that():
    history = History("new", lambda: START)
    servers = Deaf("redis://127.0.0.1:1")
    task = asyncio.create_task(history.recall(servers, "cascade", ["BTC"]))
    await servers.asked.wait()
    task.cancel()
    await asyncio.wait([task], timeout=2)
    assert task.cancelled()
