import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from msgspec import structs

from monitor import client as subscription
from monitor.client import SubscriptionError, subscribe
from monitor.sinks.embedded import Embedded
from monitor.sinks.envelope import encode
from tests.sinks.builders import PATIENCE_S, START, depth, eventually, liquidation, status
from tests.sinks.goldens import alert, heatmap, outlook, undelivered
from tests.sinks.test_redis import free_port

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
ALERTS = "cascade:alerts"
WAITING = ("cascade-reader", "xread")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(subscription, "QUIET_S", 0.3)
    monkeypatch.setattr(subscription, "BLOCK_S", 0.1)
    monkeypatch.setattr(subscription, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(subscription, "BACKOFF_MAX_S", 0.2)


async def heard(messages, count):
    """The next messages, as (kind, seq, lost)."""
    found = []
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(count):
            message = await anext(messages)
            found.append((message.kind, message.seq, message.lost))
    return found


async def following(messages):
    return await asyncio.wait_for(anext(messages), PATIENCE_S)


async def nothing(messages, patience_s=0.3):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(messages), patience_s)


async def told(client, *messages, run="run1"):
    """Write as the sink does, but without one, so that a test decides on each write."""
    for message in messages:
        text = encode(message, run)
        if message.kind in {"alerts", "undelivered"}:
            await client.xadd(ALERTS, {"m": text})
        elif message.kind == "liquidations":
            await client.xadd("cascade:{BTC}:liquidations", {"m": text})
        else:
            key = f"cascade:{{{message.asset}}}:{message.kind}"
            async with client.pipeline(transaction=True) as pipe:
                await pipe.set(key, text).publish(key, text).execute()


async def listening(client, channels=1):
    """Wait until somebody listens, so that what is told next is heard."""

    async def subscribed():
        return len(await client.pubsub_channels()) == channels

    await eventually(subscribed)


async def following_streams(client, readers=1):
    """Wait until so many follow a stream from now on, so that the next event is heard."""

    async def follow():
        rows = await client.client_list()
        return [(row["name"], row["cmd"]) for row in rows].count(WAITING) == readers

    await eventually(follow)


class Wire:
    """A connection to a server that can be cut, and refused until it is mended."""

    def __init__(self, url):
        self._target = int(url.rpartition(":")[2].partition("/")[0])
        self._writers = set()
        self.is_cut = False

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.cut()
        self._server.close()
        await asyncio.sleep(0.05)

    def cut(self):
        self.is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self):
        self.is_cut = False

    async def _carry(self, reader, writer):
        if self.is_cut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, back}
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))

    async def _copy(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
        self._writers.discard(writer)


# ------------------------------------------------------------------------------------ state


async def test_a_state_that_stood_before_is_heard_first_and_then_what_follows(server, client):
    await told(client, depth(seq=4))
    async with subscribe(server.url, kinds=["depth"], assets=["BTC"]) as messages:
        first = await following(messages)
        assert first.data == json.loads(encode(depth(), "r"))["data"]
        assert (first.kind, first.asset, first.run, first.seq, first.id) == (
            "depth", "BTC", "run1", 4, "",
        )  # fmt: skip
        assert (first.lost, first.restarted, first.at_us) == (0, False, START // 1000)
        await told(client, depth(seq=5))
        assert await heard(messages, 1) == [("depth", 5, 0)]


async def test_only_what_was_asked_for_is_heard(server, client):
    await told(client, depth("ETH"), outlook(), heatmap(), status())
    await client.set("cascade:{BTC}:heatmap:okx", encode(heatmap(seq=9, venue="okx"), "run1"))
    await client.set("cascade:status:2/8", encode(status(seq=3), "run1"))
    wanted = {"kinds": ["risk", "heatmap:okx", "status:2/8"], "assets": ["BTC"]}
    async with subscribe(server.url, **wanted) as messages:
        found = [await following(messages) for _ in range(3)]
        assert {(m.kind, m.asset, m.venue, m.seq) for m in found} == {
            ("risk", "BTC", "", 4711),
            ("heatmap", "BTC", "okx", 9),
            ("status", "", "", 3),
        }
        await nothing(messages)


async def test_a_hole_on_the_channel_is_counted_and_the_key_read(server, client):
    async with subscribe(server.url, kinds=["depth"], assets=["BTC"]) as messages:
        await listening(client)
        await told(client, depth(seq=1))
        assert await heard(messages, 1) == [("depth", 1, 0)]
        # The channel lags behind the key: after the hole the key is what is newest.
        await client.set("cascade:{BTC}:depth", encode(depth(seq=7), "run1"))
        await client.publish("cascade:{BTC}:depth", encode(depth(seq=4), "run1"))
        found = await heard(messages, 1)
        if found == [("depth", 4, 2)]:
            assert await heard(messages, 1) == [("depth", 7, 2)]
        else:
            assert found == [("depth", 7, 5)]


async def test_a_restarted_daemon_is_told_and_its_predecessor_does_not_come_back(server, client):
    async with subscribe(server.url, kinds=["depth"], assets=["BTC"]) as messages:
        await listening(client)
        await told(client, depth(seq=100), run="old")
        assert await heard(messages, 1) == [("depth", 100, 0)]
        await told(client, depth(seq=3), run="new")
        message = await following(messages)
        assert (message.run, message.lost, message.restarted) == ("new", 2, True)
        await told(client, depth(seq=101), run="old")
        await nothing(messages)


async def test_what_cannot_be_read_is_counted_and_passed_over(server, client):
    async with subscribe(server.url, kinds=["depth"], assets=["BTC"]) as messages:
        await listening(client)
        later = encode(depth(seq=1), "run1").replace(b'"v":1', b'"v":2')
        for text in (b"", b"nonsense", b"\xff", b"[]", b"{}", later):
            await client.publish("cascade:{BTC}:depth", text)
        await told(client, depth(seq=3))
        assert await heard(messages, 1) == [("depth", 3, 0)]
        assert messages.unreadable == 6


# ----------------------------------------------------------------------------------- events


async def test_events_are_heard_from_now_on_or_from_the_beginning(server, client):
    await told(client, alert(seq=1), alert(seq=2))
    async with subscribe(server.url, kinds=["alerts"], since="0") as everything:
        assert await heard(everything, 2) == [("alerts", 1, 0), ("alerts", 2, 0)]
        async with subscribe(server.url, kinds=["alerts"]) as fresh:
            await following_streams(client, readers=2)
            await nothing(fresh)
            await told(client, alert(seq=3), undelivered())
            message = await following(fresh)
            assert (message.seq, message.lost) == (3, 0)
            await nothing(fresh)
        await told(client, alert(seq=4))
        async with subscribe(server.url, kinds=["alerts"], since=message.id) as resumed:
            assert await heard(resumed, 1) == [("alerts", 4, 0)]
        assert await heard(everything, 2) == [("alerts", 3, 0), ("alerts", 4, 0)]


async def test_of_a_common_stream_only_ones_own_assets_are_heard(server, client):
    await told(client, alert(seq=1, asset="ETH"), alert(seq=1), undelivered(), alert(seq=2))
    wanted = {"kinds": ["alerts", "undelivered"], "assets": ["BTC"], "since": "0"}
    async with subscribe(server.url, **wanted) as messages:
        assert await heard(messages, 3) == [
            ("alerts", 1, 0),
            ("undelivered", 1, 0),
            ("alerts", 2, 0),
        ]


async def test_what_a_stream_no_longer_keeps_is_counted_exactly(server, client):
    async with Wire(server.url) as wire:
        async with subscribe(wire.url, kinds=["alerts"], since="0") as messages:
            await told(client, alert(seq=1))
            assert await heard(messages, 1) == [("alerts", 1, 0)]
            wire.cut()
            await told(client, *(alert(seq=seq) for seq in range(2, 21)))
            await client.xtrim(ALERTS, maxlen=4, approximate=False)
            wire.mend()
            assert await heard(messages, 2) == [("alerts", 17, 15), ("alerts", 18, 0)]


async def test_a_stream_that_begins_anew_below_our_place_is_read_from_its_beginning(server, client):
    await client.xadd(ALERTS, {"m": encode(alert(seq=1), "run1")}, id="9790000000000-0")
    async with Wire(server.url) as wire:
        async with subscribe(wire.url, kinds=["alerts"], since="0") as messages:
            assert await heard(messages, 1) == [("alerts", 1, 0)]
            wire.cut()
            await client.flushall()
            await told(client, alert(seq=2))
            wire.mend()
            assert await heard(messages, 1) == [("alerts", 2, 0)]


# ------------------------------------------------------------------------------ disruptions


async def test_a_reader_that_is_cut_off_and_returns_knows_exactly_what_it_missed(
    server, client, sinks
):
    sink, outbox = sinks(server.url)
    wanted = {"kinds": ["depth", "liquidations"], "assets": ["BTC"]}
    states, events, expected, last = [], [], [], 0
    async with Wire(server.url) as wire, subscribe(wire.url, **wanted) as messages:

        async def read():
            async for message in messages:
                (states if message.kind == "depth" else events).append(message)

        async def tell(times):
            nonlocal last
            for _ in range(times):
                last += 1
                outbox.put(depth(seq=last))
                outbox.put(liquidation(seq=last))
                await eventually(lambda: sink.sent == 2 * last)  # noqa: B023
                if not wire.is_cut:
                    await eventually(lambda: len(events) == last and states[-1:])  # noqa: B023
                    await eventually(lambda: states[-1].seq == last)  # noqa: B023
                    expected.append((last, 0))

        reader = asyncio.create_task(read())
        await listening(client)
        await following_streams(client)
        for missed in (9, 1, 30):
            await tell(5)
            wire.cut()
            await tell(missed)
            wire.mend()
            await eventually(lambda: len(events) == last and states[-1].seq == last)
            expected.append((last, missed - 1))
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
    # The newest state is had from its key, those before it are counted; no event is missed at all.
    assert [(m.seq, m.lost) for m in states] == expected
    assert [(m.seq, m.lost) for m in events] == [(seq, 0) for seq in range(1, last + 1)]
    assert (sum(sink.errors.values()), outbox.discarded_unintentional) == (0, 0)


async def test_a_reader_that_is_thrown_out_by_the_server_comes_back(server, client):
    async with subscribe(server.url, kinds=["depth", "alerts"], assets=["BTC"]) as messages:
        await listening(client)
        await following_streams(client)
        for seq in range(1, 4):
            for row in await client.client_list():
                if row["name"] == "cascade-reader":
                    await client.client_kill_filter(_id=row["id"])
            await told(client, depth(seq=seq), alert(seq=seq))
            assert sorted(await heard(messages, 2)) == [("alerts", seq, 0), ("depth", seq, 0)]


async def test_nothing_is_missed_of_the_alerts_when_the_server_is_killed_under_load(
    valkey, tmp_path, sinks
):
    assert valkey
    embedded = Embedded(tmp_path / "redis")
    url = await embedded.start()
    keeper = asyncio.create_task(embedded.run())
    sink, outbox = sinks(url, timeout_s=0.5)
    async with subscribe(url, kinds=["alerts"], since="0") as messages:
        for seq in range(1, 201):
            outbox.put(alert(seq=seq, at=START + seq * 1_000_000))
            await asyncio.sleep(0.002)
            if seq == 100:
                os.kill(embedded.pid, signal.SIGKILL)
        assert await heard(messages, 200) == [("alerts", seq, 0) for seq in range(1, 201)]
    assert (embedded.restarts, outbox.discarded_unintentional) == (1, 0)
    assert sink.errors["connection"] > 0
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)
    await embedded.stop()


async def test_a_server_that_stops_answering_is_noticed_and_left(server, client):
    async with subscribe(server.url, kinds=["depth", "alerts"], assets=["BTC"]) as messages:
        await listening(client)
        await following_streams(client)
        os.kill(server.pid, signal.SIGSTOP)
        await eventually(lambda: len(messages._problems) == 2)
        assert messages.problem in {"timeout", "connection"}
        os.kill(server.pid, signal.SIGCONT)
        await told(client, depth(seq=1), alert(seq=1))
        assert len(await heard(messages, 2)) == 2
        await eventually(lambda: messages.problem is None)


async def test_a_redis_that_is_not_there_yet_is_waited_for():
    port = free_port()
    url = f"redis://127.0.0.1:{port}"
    async with subscribe(url, kinds=["depth", "alerts"], assets=["BTC"]) as messages:
        await eventually(lambda: messages.problem == "connection")
        await nothing(messages)


async def test_a_slow_reader_harms_nobody_and_is_told_what_it_missed(server, client, sinks):
    sink, outbox = sinks(server.url)
    wanted = {"kinds": ["heatmap", "liquidations"], "assets": ["BTC"]}
    async with subscribe(server.url, **wanted) as messages:
        await listening(client)
        await following_streams(client)
        outbox.put(heatmap(seq=1))
        await eventually(lambda: messages._states)
        for seq in range(1, 1001):
            outbox.put(heatmap(seq=seq))
            outbox.put(liquidation(seq=seq))
            if seq % 10 == 0:
                await asyncio.sleep(0.001)
        await eventually(lambda: not len(outbox) and sink.connected)
        await eventually(
            lambda: messages._states and next(iter(messages._states.values())).seq == 1000
        )
        # Neither here nor in the server does anything pile up.
        assert len(messages._states) == 1
        assert len(messages._events) < 2 * subscription.COUNT
        rows = [row for row in await client.client_list() if row["name"] == "cascade-reader"]
        assert rows
        assert all(int(row["omem"]) == 0 for row in rows)
        found = [await following(messages) for _ in range(1001)]
        (state,) = [m for m in found if m.kind == "heatmap"]
        assert (state.seq, state.lost, found.index(state) < 2) == (1000, 999, True)
        events = [(m.seq, m.lost) for m in found if m.kind == "liquidations"]
        assert events == [(seq, 0) for seq in range(1, 1001)]
    assert outbox.discarded_unintentional == 0


async def test_a_reader_that_never_reads_is_cut_off_by_the_server_and_nobody_else_suffers(
    server, client, sinks
):
    await client.config_set("client-output-buffer-limit", "pubsub 262144 0 0")
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", urlsplit(server.url).port))
    raw.sendall(b"SUBSCRIBE cascade:{BTC}:depth\r\n")
    sink, outbox = sinks(server.url)
    async with subscribe(server.url, kinds=["depth"], assets=["BTC"]) as messages:

        async def listeners():
            ((_, count),) = await client.pubsub_numsub("cascade:{BTC}:depth")
            return count

        async def two():
            return await listeners() == 2

        await eventually(two)
        # The kernel holds a few megabytes before the server has to.
        large = structs.replace(depth().data, missing=["x" * 100_000])
        seq = 0
        while await listeners() == 2:
            seq += 1
            assert seq < 500, "it was not cut off"
            outbox.put(structs.replace(depth(seq=seq), data=large))
            await eventually(lambda: sink.sent >= seq)  # noqa: B023
            while not messages._states or messages._states["depth", "BTC", ""].seq < seq:
                await asyncio.sleep(0)
            assert (await following(messages)).lost == 0
    assert sum(sink.errors.values()) == 0
    raw.close()


async def test_a_wait_that_is_cut_short_loses_nothing(server, client):
    async with subscribe(server.url, kinds=["alerts"], since="0") as messages:
        found = []
        for seq in range(1, 31):
            await told(client, alert(seq=seq))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.002):
                    found.append((await anext(messages)).seq)
        while len(found) < 30:
            found.append((await following(messages)).seq)
        assert found == list(range(1, 31))


# --------------------------------------------------------------------------------- refusals


async def test_a_wrong_password_is_raised_and_not_repeated_in_the_text(server, client):
    await client.config_set("requirepass", "sesame")
    url = server.url.replace("//", "//:pa55word@")
    async with subscribe(url, kinds=["depth"], assets=["BTC"]) as messages:
        with pytest.raises(SubscriptionError, match="authentication") as caught:
            await following(messages)
    assert "pa55word" not in str(caught.value)
    await client.config_set("requirepass", "")


async def test_somebody_elses_key_is_raised(server, client):
    await client.set(ALERTS, "not a stream")
    async with subscribe(server.url, kinds=["alerts"]) as messages:
        with pytest.raises(SubscriptionError, match="wrong_type"):
            await following(messages)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"kinds": ["risk"]}, "risk needs to be told of which assets"),
        ({"kinds": ["rsik"], "assets": ["BTC"]}, "'rsik' is no kind of message"),
        ({"kinds": []}, "no kinds"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_at_once(wanted, said):
    with pytest.raises(ValueError, match=said):
        subscribe("redis://127.0.0.1", **wanted)


@pytest.mark.parametrize("url", ["embedded", "http://:pa55@host", "redis://u:pa55@host:pa55"])
def test_a_wrong_url_is_refused_without_its_password(url):
    with pytest.raises(ValueError, match="not a Redis URL") as caught:
        subscribe(url, kinds=["alerts"])
    assert "pa55" not in str(caught.value)


# --------------------------------------------------------------------------------- examples


@contextlib.asynccontextmanager
async def running(name, *arguments):
    """An example as a process, and its standard output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", str(EXAMPLES / name), *arguments,
        stdout=asyncio.subprocess.PIPE, cwd=EXAMPLES.parents[1],
        env=os.environ | {"PYTHONPATH": str(EXAMPLES.parents[1])},
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def line(process):
    return (await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)).decode().strip()


async def test_the_subscriber_in_ten_lines_works(server, client):
    await told(client, outlook(seq=1))
    async with running("subscriber.py", server.url) as process:
        assert await line(process) == "BTC {'down': 'warning', 'up': 'unknown'} missed: 0"
        await told(client, outlook(seq=4))
        assert (await line(process)).endswith("missed: 2")


async def test_an_alert_goes_to_one_worker_and_to_another_when_that_dies(server, client):
    sys.path.insert(0, str(EXAMPLES))
    try:
        import alerts_consumer_group as example
    finally:
        sys.path.pop(0)
    await told(client, alert(seq=1), undelivered(), alert(seq=2, silent=True))
    async with running("alerts_consumer_group.py", server.url, "one") as first:
        assert (await line(first)).startswith("run1 BTC 1 BTC down: warning")
        await told(client, alert(seq=2))
        assert (await line(first)).startswith("run1 BTC 2 ")
        await eventually(lambda: _is_acknowledged(client, example.GROUP))
    # A worker takes one and dies before it has handled it.
    await told(client, alert(seq=3))
    await client.xreadgroup(example.GROUP, "gone", {ALERTS: ">"})
    ((id_, _),) = await client.xrevrange(ALERTS, count=1)
    await client.execute_command(
        "XCLAIM", ALERTS, example.GROUP, "gone", 0, id_, "IDLE", example.IDLE_MS + 1
    )
    async with running("alerts_consumer_group.py", server.url, "two") as second:
        assert (await line(second)).startswith("run1 BTC 3 ")
        await told(client, alert(seq=4))
        assert (await line(second)).startswith("run1 BTC 4 ")
        await eventually(lambda: _is_acknowledged(client, example.GROUP))
        # A server that comes back with nothing: the group is made anew.
        await client.flushall()
        await told(client, alert(seq=5))
        assert (await line(second)).startswith("run1 BTC 5 ")


async def _is_acknowledged(client, group):
    (row,) = [row for row in await client.xinfo_groups(ALERTS) if row["name"] == group.encode()]
    return row["pending"] == 0 and row["lag"] == 0
