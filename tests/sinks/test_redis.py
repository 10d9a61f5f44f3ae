import asyncio
import json
import math
import os
import re
import signal
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from monitor.config import ConfigError
from monitor.sinks.embedded import Embedded
from monitor.sinks.envelope import encode
from monitor.sinks.outbox import TAKE_MAX, Outbox
from monitor.sinks.redis import BATCH, REASONS, RedisSink, masked
from tests.sinks.builders import (
    PATIENCE_S,
    START,
    depth,
    eventually,
    liquidation,
    redis_config,
    status,
)
from tests.sinks.goldens import alert

DOCUMENT = Path(__file__).parents[2] / "docs" / "messages.md"
STREAM = "cascade:{BTC}:liquidations"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def entries(client, stream=STREAM):
    return [(id_, json.loads(fields[b"m"])) for id_, fields in await client.xrange(stream)]


async def seqs(client, stream=STREAM):
    return [message["seq"] for _, message in await entries(client, stream)]


@asynccontextmanager
async def subscribed(client, *channels):
    """A list that fills with the messages of some channels."""
    heard = []
    async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(*channels)
        await pubsub.get_message(timeout=PATIENCE_S)

        async def listen():
            async for item in pubsub.listen():
                name, text = item["channel"].decode(), item["data"]
                heard.append((name, json.loads(text)))

        task = asyncio.create_task(listen())
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


# --------------------------------------------------------------------------------- contract


def test_the_envelope_has_microseconds_and_the_asset():
    decoded = json.loads(encode(depth(seq=7, at=START + 1999), "run1"))
    assert list(decoded) == ["v", "kind", "run", "seq", "at_us", "asset", "data"]
    assert (decoded["v"], decoded["kind"], decoded["run"], decoded["seq"]) == (
        1,
        "depth",
        "run1",
        7,
    )
    assert (decoded["at_us"], decoded["asset"]) == (START // 1000 + 1, "BTC")


def test_a_number_that_is_no_number_is_null():
    for number in (math.nan, math.inf, -math.inf):
        text = encode(liquidation(usd=number), "run1")
        assert json.loads(text, parse_constant=pytest.fail)["data"]["usd"] is None


async def test_state_is_a_key_with_a_ttl_and_a_message_on_the_channel_of_its_name(
    server, client, sinks
):
    async with subscribed(client, "cascade:{BTC}:depth", "cascade:status") as heard:
        sink, outbox = sinks(server.url)
        outbox.put(depth())
        outbox.put(status())
        await eventually(lambda: len(heard) >= 2)
    for key, message in (("cascade:{BTC}:depth", depth()), ("cascade:status", status())):
        assert await client.get(key) == encode(message, "run1")
        assert 15_000 < await client.pttl(key) <= 30_000
        assert (key, json.loads(encode(message, "run1"))) in heard
    assert (sink.connected, sum(sink.errors.values())) == (True, 0)


async def test_key_and_message_are_written_in_one_transaction(server, client, sinks):
    async with client.monitor() as monitor:
        _, outbox = sinks(server.url)
        outbox.put(depth())
        commands = []
        while "EXEC" not in commands:
            commands.append((await monitor.next_command())["command"].split()[0])
    assert commands[-4:] == ["MULTI", "SET", "PUBLISH", "EXEC"]


async def test_who_hears_a_message_reads_a_key_at_least_as_new(server, client, sinks):
    key = "cascade:{BTC}:depth"
    older = []
    async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(key)
        await pubsub.get_message(timeout=PATIENCE_S)
        _, outbox = sinks(server.url)
        for seq in range(1, 101):
            outbox.put(depth(seq=seq))
            item = await pubsub.get_message(timeout=PATIENCE_S)
            heard = json.loads(item["data"])["seq"]
            if json.loads(await client.get(key))["seq"] < heard:
                older.append(heard)
            assert heard == seq
    assert older == []


async def test_events_are_a_stream_whose_ids_are_their_times(server, client, sinks):
    sink, outbox = sinks(server.url)
    for seq in range(1, 4):
        outbox.put(liquidation(seq=seq))
    await eventually(lambda: sink.sent == 3)
    ms = START // 1_000_000
    assert [id_.decode() for id_, _ in await entries(client)] == [
        f"{ms + seq}-{seq}" for seq in range(1, 4)
    ]
    assert await seqs(client) == [1, 2, 3]
    assert await client.ttl(STREAM) == -1


async def test_the_stream_is_capped(server, client, sinks):
    sink, outbox = sinks(server.url, stream_length=50)
    for seq in range(1, 1001):
        outbox.put(liquidation(seq=seq))
    await eventually(lambda: sink.sent == 1000)
    # "~" trims whole nodes of at most 100 entries.
    assert 50 <= await client.xlen(STREAM) < 50 + 100
    assert (await seqs(client))[-1] == 1000


async def test_assets_and_kinds_do_not_mix(server, client, sinks):
    sink, outbox = sinks(server.url, prefix="other")
    for asset in ("BTC", "ETH"):
        outbox.put(liquidation(asset))
        outbox.put(depth(asset))
    await eventually(lambda: sink.sent == 4)
    assert sorted(await client.keys("*")) == [
        b"other:{BTC}:depth",
        b"other:{BTC}:liquidations",
        b"other:{ETH}:depth",
        b"other:{ETH}:liquidations",
    ]


async def test_a_state_lives_from_when_it_was_put_not_from_when_it_was_written(server, client):
    now = [100.0]
    outbox = Outbox(10, 30.0, lambda: now[0])
    sink = RedisSink(redis_config(server.url), "run1", outbox)
    outbox.put(depth())
    now[0] += 20.0
    await sink.close(5.0)
    assert 5_000 < await client.pttl("cascade:{BTC}:depth") <= 10_000


# ------------------------------------------------------------------------------------- ids


async def test_a_write_whose_answer_was_lost_is_not_repeated(server, client, sinks):
    """The stopped server holds the command in its socket, and carries it out later."""
    sink, outbox = sinks(server.url, timeout_s=0.5)
    outbox.put(liquidation(seq=1))
    await eventually(lambda: sink.sent == 1)
    write, paused = sink._write_events, []

    async def stop_then_write(*args):
        if not paused:
            paused.append(True)
            os.kill(server.pid, signal.SIGSTOP)
        await write(*args)

    sink._write_events = stop_then_write
    for seq in range(2, 12):
        outbox.put(liquidation(seq=seq))
    await eventually(lambda: sink.errors["timeout"] >= 2)
    os.kill(server.pid, signal.SIGCONT)
    await eventually(lambda: sink.sent == 11)
    assert await seqs(client) == list(range(1, 12))
    assert (sink.repeated, sink.renumbered) == (10, 0)
    assert outbox.discarded_unintentional == 0


async def test_a_clock_that_stepped_back_loses_nothing_and_keeps_the_order(server, client, sinks):
    sink, outbox = sinks(server.url)
    outbox.put(liquidation(seq=1, at=START))
    outbox.put(liquidation(seq=2, at=START - 3_600 * 10**9))
    outbox.put(liquidation(seq=3, at=START))
    await eventually(lambda: sink.sent == 3)
    assert await seqs(client) == [1, 2, 3]
    assert sink.renumbered == 0


async def test_a_run_behind_the_streams_last_id_gets_ids_above_it(server, client, sinks):
    await client.xadd(STREAM, {"m": "{}"}, id="9790000000000-5")
    sink, outbox = sinks(server.url)
    for seq in range(1, 4):
        outbox.put(liquidation(seq=seq))
    await eventually(lambda: sink.sent == 3)
    got = await entries(client)
    assert [id_ for id_, _ in got[1:]] == [b"9790000000000-%d" % n for n in (6, 7, 8)]
    assert [message["seq"] for _, message in got[1:]] == [1, 2, 3]
    assert (sink.repeated, sink.renumbered) == (0, 3)


async def test_the_same_id_of_another_run_is_not_taken_for_ours(server, client, sinks):
    first, one = sinks(server.url, run="run1")
    one.put(liquidation(seq=1))
    await eventually(lambda: first.sent == 1)
    second, two = sinks(server.url, run="run2")
    two.put(liquidation(seq=1))
    await eventually(lambda: second.sent == 1)
    assert [(m["run"], m["seq"]) for _, m in await entries(client)] == [("run1", 1), ("run2", 1)]


async def test_two_writers_of_one_stream_lose_and_double_nothing(server, client, sinks):
    pairs = [sinks(server.url, run=run) for run in ("run1", "run2")]
    for seq in range(1, 201):
        for _, outbox in pairs:
            outbox.put(liquidation(seq=seq))
        if seq % 20 == 0:
            await asyncio.sleep(0)
    await eventually(lambda: all(sink.sent == 200 for sink, _ in pairs))
    written = sorted((m["run"], m["seq"]) for _, m in await entries(client))
    assert written == [(run, seq) for run in ("run1", "run2") for seq in range(1, 201)]


# -------------------------------------------------------------------------------- failures


async def test_nothing_is_lost_or_doubled_when_the_server_is_killed_under_load(
    valkey, tmp_path, sinks
):
    assert valkey
    embedded = Embedded(tmp_path / "redis")
    url = await embedded.start()
    keeper = asyncio.create_task(embedded.run())
    sink, outbox = sinks(url, timeout_s=0.5)
    last = 0
    for kill in range(2):
        for step in range(100):
            for _ in range(5):
                last += 1
                outbox.put(liquidation(seq=last))
            outbox.put(depth(seq=last))
            await asyncio.sleep(0.001)
            if step == 40:
                os.kill(embedded.pid, signal.SIGKILL)
        await eventually(lambda: embedded.restarts > kill)  # noqa: B023
        await eventually(lambda: sink.connected and not len(outbox))
        await eventually(lambda: _is_written(url, last))  # noqa: B023
    async with Redis.from_url(url) as client:
        assert await seqs(client) == list(range(1, last + 1))
        assert json.loads(await client.get("cascade:{BTC}:depth"))["seq"] == last
    assert embedded.restarts == 2
    assert sink.errors["connection"] > 0
    assert outbox.discarded_unintentional == 0
    assert outbox.discarded_intentional > 0
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)
    await embedded.stop()


async def disconnect(client):
    for row in await client.client_list():
        if row["name"].startswith("cascade-monitor"):
            await client.client_kill_filter(_id=row["id"])


async def cut(client, stream, length):
    """Make a stream end earlier, as it does when its server died before its file had the rest."""
    kept = (await client.xrange(stream))[:length]
    await client.delete(stream)
    for id_, fields in kept:
        await client.xadd(stream, fields, id=id_)


async def test_confirmed_events_that_the_server_has_lost_are_written_again(
    server, client, sinks, monkeypatch
):
    monkeypatch.setattr("monitor.sinks.redis.UNSAFE_S", PATIENCE_S)
    sink, outbox = sinks(server.url)
    for seq in range(1, 101):
        outbox.put(liquidation(seq=seq))
        outbox.put(liquidation("ETH", seq=seq))
    await eventually(lambda: sink.sent == 200)
    before = await entries(client)
    for lost, rewritten in ((60, 60), (100, 160)):
        await cut(client, STREAM, 100 - lost)
        await disconnect(client)
        outbox.put(depth(seq=lost))  # whatever makes it speak
        await eventually(lambda: sink.sent == 200 + rewritten + 1 + (lost > 60))  # noqa: B023
        assert sink.rewritten == rewritten
        assert await entries(client) == before
    assert await seqs(client, "cascade:{ETH}:liquidations") == list(range(1, 101))
    assert (sink.repeated, sink.renumbered) == (0, 0)


async def test_many_lost_events_keep_their_ids(server, client, sinks, monkeypatch):
    monkeypatch.setattr("monitor.sinks.redis.UNSAFE_S", PATIENCE_S)
    sink, outbox = sinks(server.url)
    for seq in range(1, 3 * TAKE_MAX):
        outbox.put(liquidation(seq=seq))
    await eventually(lambda: sink.sent == 3 * TAKE_MAX - 1)
    before = await entries(client)
    await cut(client, STREAM, 100)
    await disconnect(client)
    outbox.put(depth())
    await eventually(lambda: sink.sent == 6 * TAKE_MAX - 101)
    assert await entries(client) == before


async def test_an_event_that_was_lost_is_missed_although_another_writer_was_first(
    server, client, sinks
):
    first, one = sinks(server.url, run="run1")
    second, two = sinks(server.url, run="run2")
    one.put(alert(seq=1, at=START))
    await eventually(lambda: first.sent == 1)
    await client.delete("cascade:alerts")
    await disconnect(client)
    two.put(alert(asset="ETH", seq=1, at=START + 1_000_000_000))
    await eventually(lambda: second.sent == 1)
    one.put(depth())
    await eventually(lambda: first.sent == 3)
    written = await entries(client, "cascade:alerts")
    assert [message["run"] for _, message in written] == ["run2", "run1"]
    assert (first.rewritten, first.renumbered) == (1, 1)


async def test_a_stream_that_cannot_be_looked_at_holds_nothing_else_up(server, client, sinks):
    sink, outbox = sinks(server.url)
    outbox.put(liquidation("BTC"))
    outbox.put(depth("ETH"))
    await eventually(lambda: sink.sent == 2)
    await client.set(STREAM, "somebody else's")
    await disconnect(client)
    outbox.put(depth("ETH", seq=2))
    outbox.put(liquidation("ETH", seq=2))
    await eventually(lambda: sink.sent == 4)
    assert json.loads(await client.get("cascade:{ETH}:depth"))["seq"] == 2
    assert await seqs(client, "cascade:{ETH}:liquidations") == [2]
    assert sink.errors["wrong_type"] >= 1


async def test_what_was_trimmed_or_is_older_is_not_written_again(
    server, client, sinks, monkeypatch
):
    sink, outbox = sinks(server.url, stream_length=50)
    for seq in range(1, 1001):
        outbox.put(liquidation(seq=seq))
    await eventually(lambda: sink.sent == 1000)
    kept = await seqs(client)
    assert len(kept) < 1000
    await disconnect(client)
    outbox.put(depth())
    await eventually(lambda: sink.sent == 1001)
    assert (sink.rewritten, await seqs(client)) == (0, kept)
    monkeypatch.setattr("monitor.sinks.redis.UNSAFE_S", 0.0)
    outbox.put(liquidation(seq=1001))
    await eventually(lambda: sink.sent == 1002)
    await client.delete(STREAM)
    await disconnect(client)
    outbox.put(depth(seq=2))
    await eventually(lambda: sink.sent == 1004)
    assert (sink.rewritten, await seqs(client)) == (1, [1001])


async def test_a_server_that_returns_empty_gets_all_current_state_first_then_the_events(
    server, client, sinks
):
    sink, outbox = sinks(server.url, timeout_s=30.0)
    outbox.put(depth("BTC"))
    outbox.put(depth("ETH"))
    outbox.put(status())
    await eventually(lambda: sink.sent == 3)
    await client.flushall()
    async with client.monitor() as monitor:
        # Only the sink's connections: the engine says nothing but one event.
        await disconnect(client)
        outbox.put(liquidation())
        written = []
        while not written or written[-1] != STREAM:
            parts = (await monitor.next_command())["command"].split()
            if parts[0] in {"SET", "XADD"}:
                written.append(parts[1])
    assert written == ["cascade:{BTC}:depth", "cascade:{ETH}:depth", "cascade:status", STREAM]
    await eventually(lambda: not len(outbox))
    assert sink.errors == dict.fromkeys(REASONS, 0)


async def test_state_the_engine_stopped_publishing_is_not_brought_back(server, client, sinks):
    now = [100.0]
    sink, outbox = sinks(server.url, clock=lambda: now[0])
    outbox.put(depth("BTC"))
    await eventually(lambda: sink.sent == 1)
    now[0] += 30.1
    await client.flushall()
    await disconnect(client)
    outbox.put(depth("ETH"))
    await eventually(lambda: sink.sent == 2)
    assert await client.keys("*depth") == [b"cascade:{ETH}:depth"]


async def test_a_redis_that_is_not_there_costs_only_the_oldest_events(sinks):
    sink, outbox = sinks(f"redis://127.0.0.1:{free_port()}", queue_length=10)
    for seq in range(1, 31):
        outbox.put(liquidation(seq=seq))
        outbox.put(depth(seq=seq))
    await eventually(lambda: sink.errors["connection"] >= 3)
    assert not sink.connected
    assert (outbox.discarded_unintentional, len(outbox)) == (20, 11)
    assert (sink.sent, sink.last_success_at) == (0, 0.0)


async def test_a_server_that_accepts_and_never_answers_is_a_timeout(sinks):
    async def mute(reader, writer):
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    sink, outbox = sinks(f"redis://127.0.0.1:{port}", timeout_s=0.1)
    outbox.put(depth())
    await eventually(lambda: sink.errors["timeout"] >= 2)
    listener.close()
    await asyncio.sleep(0.05)


async def test_garbage_instead_of_redis_is_counted(sinks):
    async def garble(_reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    listener = await asyncio.start_server(garble, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    sink, outbox = sinks(f"redis://127.0.0.1:{port}", timeout_s=0.2)
    outbox.put(depth())
    await eventually(lambda: sum(sink.errors.values()) >= 2)
    listener.close()


async def recovered(sink, outbox, client):
    await eventually(lambda: sink.sent >= 2 and sink.connected and not len(outbox))
    assert await seqs(client) == [1]
    assert json.loads(await client.get("cascade:{BTC}:depth"))["seq"] == 1


async def test_a_server_that_wants_a_password_is_counted_until_it_no_longer_does(
    server, client, sinks
):
    await client.config_set("requirepass", "secret")
    sink, outbox = sinks(server.url)
    outbox.put(depth())
    outbox.put(liquidation())
    await eventually(lambda: sink.errors["authentication"] >= 2)
    await client.config_set("requirepass", "")
    await recovered(sink, outbox, client)


async def test_a_password_in_the_url_is_used_and_never_logged(server, client, sinks, caplog):
    await client.config_set("requirepass", "sesame")
    caplog.set_level("DEBUG")
    wrong, one = sinks(server.url.replace("//", "//:wrongsecret@"))
    one.put(depth())
    right, two = sinks(server.url.replace("//", "//:sesame@"))
    two.put(depth())
    await eventually(lambda: right.sent == 1 and wrong.errors["authentication"])
    logged = "".join(f"{r.getMessage()} {vars(r)}" for r in caplog.records if "monitor" in r.name)
    assert "redis_failed" in logged
    assert "sesame" not in logged
    assert "wrongsecret" not in logged
    await client.config_set("requirepass", "")


async def test_a_full_server_is_counted_until_there_is_room(server, client, sinks):
    await client.config_set("maxmemory", "1")
    sink, outbox = sinks(server.url)
    outbox.put(depth())
    outbox.put(liquidation())
    await eventually(lambda: sink.errors["memory"] >= 3)
    await client.config_set("maxmemory", "100mb")
    await recovered(sink, outbox, client)


async def test_a_replica_is_counted_until_it_is_promoted(server, client, sinks):
    await client.replicaof("127.0.0.1", free_port())
    sink, outbox = sinks(server.url)
    outbox.put(depth())
    outbox.put(liquidation())
    await eventually(lambda: sink.errors["read_only"] >= 3)
    await client.replicaof("NO", "ONE")
    await recovered(sink, outbox, client)


async def test_an_error_without_a_reason_of_its_own_is_counted_as_refused(server, client, sinks):
    """NOREPLICAS stands for the errors without a reason of their own; MISCONF is hard to force."""
    await client.config_set("min-replicas-to-write", "1")
    sink, outbox = sinks(server.url)
    outbox.put(depth())
    outbox.put(liquidation())
    await eventually(lambda: sink.errors["refused"] >= 3)
    await client.config_set("min-replicas-to-write", "0")
    await recovered(sink, outbox, client)


def test_misconf_has_its_own_reason():
    from monitor.sinks.redis import reason_of

    text = "Command # 1 (SET x) of pipeline caused error: ('MISCONF Errors writing to the AOF',)"
    assert reason_of(ResponseError(text)) == "persistence"


async def test_somebody_elses_key_holds_up_its_own_stream_only(server, client, sinks):
    await client.set(STREAM, "not a stream")
    sink, outbox = sinks(server.url)
    outbox.put(liquidation("BTC"))
    outbox.put(liquidation("ETH"))
    outbox.put(depth("BTC"))
    await eventually(lambda: sink.errors["wrong_type"] >= 2)
    assert sink.sent == 2
    assert sink.connected
    outbox.put(depth("BTC", seq=2))
    await eventually(lambda: sink.sent == 3)
    await client.delete(STREAM)
    await eventually(lambda: sink.sent == 4)
    assert await seqs(client) == [1]


async def test_a_right_that_is_missing_is_counted_until_it_is_given(server, client, sinks):
    (line,) = re.findall(r"^ACL SETUSER cascade .*", DOCUMENT.read_text(), flags=re.MULTILINE)
    await client.execute_command(*line.replace("<password>", "pw").split())
    await client.execute_command("ACL", "SETUSER", "cascade", "-publish")
    url = server.url.replace("//", "//cascade:pw@")
    sink, outbox = sinks(url)
    outbox.put(depth())
    outbox.put(liquidation())
    await eventually(lambda: sink.errors["permission"] >= 2)
    await client.execute_command("ACL", "SETUSER", "cascade", "+publish")
    await recovered(sink, outbox, client)
    # A second run has to look at the stream, and may.
    second, two = sinks(url, run="run2")
    two.put(liquidation(seq=1))
    await eventually(lambda: second.sent == 1)
    assert second.errors["permission"] == 0


async def test_an_exception_the_library_should_not_raise_is_counted_too(server, client, sinks):
    sink, outbox = sinks(server.url)
    greet, raised = sink._servers.greet, []

    async def defective():
        if not raised:
            raised.append(True)
            raise KeyError("a defect")
        await greet()

    sink._servers.greet = defective
    outbox.put(depth())
    outbox.put(liquidation())
    await recovered(sink, outbox, client)
    assert sink.errors["unexpected"] == 1


async def test_cancelling_in_the_middle_of_a_write_loses_nothing(server, client):
    outbox = Outbox(10_000, 30.0)
    sink = RedisSink(redis_config(server.url), "run1", outbox)
    last = 0
    for step in range(40):
        for _ in range(10):
            last += 1
            outbox.put(liquidation(seq=last))
        task = asyncio.create_task(sink.run())
        for _ in range(step):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await sink.close(5.0)
    assert await seqs(client) == list(range(1, last + 1))
    assert outbox.discarded_unintentional == 0


# ------------------------------------------------------------------------------------- end


async def test_closing_delivers_what_is_pending(server, client):
    outbox = Outbox(1000, 30.0)
    sink = RedisSink(redis_config(server.url), "run1", outbox)
    for seq in range(1, 3 * BATCH):
        outbox.put(liquidation(seq=seq))
    outbox.put(depth())
    await sink.close(5.0)
    assert await seqs(client) == list(range(1, 3 * BATCH))
    assert await client.exists("cascade:{BTC}:depth")
    assert outbox.discarded_unintentional == 0


async def test_closing_on_a_dead_redis_ends_at_the_deadline_and_counts_what_is_left():
    outbox = Outbox(1000, 30.0)
    sink = RedisSink(redis_config(f"redis://127.0.0.1:{free_port()}"), "run1", outbox)
    outbox.put(liquidation())
    outbox.put(depth())
    async with asyncio.timeout(PATIENCE_S):
        await sink.close(0.2)
    assert outbox.discarded_unintentional == 2


# ------------------------------------------------------------------------------------ urls


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:pa55@host:6380/1?x=pa55", "redis://host:6380"),
        ("rediss+cluster://:pa55@[::1]", "rediss+cluster://::1"),
        ("unix://user:pa55@/run/redis.sock?db=1", "unix:///run/redis.sock"),
        ("redis://user:pa55/5@host:port", "(unreadable)"),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert masked(url) == shown


@pytest.mark.parametrize("url", ["embedded", "http://:pa55@host", "redis://u:pa55@host:pa55"])
def test_a_wrong_url_is_a_configuration_error_without_the_password(url):
    with pytest.raises(ConfigError, match=r"redis\.url") as caught:
        RedisSink(redis_config(url), "run1", Outbox(1, 1.0))
    assert "pa55" not in str(caught.value)


async def test_a_unix_socket_works(valkey, tmp_path, sinks):
    path = tmp_path / "s"
    arguments = ("--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path))
    process = await asyncio.create_subprocess_exec(
        str(valkey), *arguments, stdout=asyncio.subprocess.DEVNULL
    )
    sink, outbox = sinks(f"unix://{path}?db=3")
    outbox.put(depth())
    await eventually(lambda: sink.sent == 1)
    async with Redis.from_url(f"unix://{path}?db=3") as client:
        assert await client.keys("*") == [b"cascade:{BTC}:depth"]
    process.kill()
    await process.wait()


async def _is_written(url, seq):
    async with Redis.from_url(url) as client:
        state = await client.get("cascade:{BTC}:depth")
        return (await seqs(client))[-1:] == [seq] and json.loads(state)["seq"] == seq
