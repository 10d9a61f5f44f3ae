import asyncio
import base64
import json
import time
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest
from aiohttp import WSMsgType, WSServerHandshakeError

from monitor.sinks import live as module
from monitor.sinks.live import Live, SubscriptionError, everything_of, topics
from tests.sinks.builders import PATIENCE_S, eventually, liquidation
from tests.sinks.daemon import served, warm

CLIENTS = 50


@pytest.fixture(scope="module")
def kept():
    return warm()


@pytest.fixture
def daemon(kept):
    """A daemon that goes on from test to test, and to which nobody listens yet."""
    kept.live = Live(kept.sources)
    return kept.run_for(1)


@asynccontextmanager
async def listening(session, path="/api/v1/live", subscribe=None, **options):
    async with session.ws_connect(path, **options) as socket:
        if subscribe is not None:
            await socket.send_json({"subscribe": subscribe})
        yield socket


async def heard(socket, count):
    return [await socket.receive_json(timeout=PATIENCE_S) for _ in range(count)]


def keys(messages):
    return {(m["kind"], m["asset"], m.get("venue", "")) for m in messages}


# ----------------------------------------------------------------------------- subscription


def test_topics_are_matched_by_kind_asset_and_venue(daemon):
    wanted = topics(["risk/*", "heatmap/BTC/okx", "status"])
    found = {m.topic for m in daemon.messages if any(t.matches(m) for t in wanted)}
    assert found == {("risk", "BTC", ""), ("heatmap", "BTC", "okx"), ("status", "", "")}


@pytest.mark.parametrize("name", ["weather/BTC", "risk", "risk/", ""])
def test_a_topic_that_is_none_is_refused(name):
    with pytest.raises(SubscriptionError):
        topics([name])


def test_too_many_topics_are_refused():
    with pytest.raises(SubscriptionError, match="at most"):
        topics([f"risk/A{n}" for n in range(module.TOPICS_MAX + 1)])


# --------------------------------------------------------------------------------- sending


async def test_a_client_hears_the_snapshot_first_and_then_every_message_without_a_hole(daemon):
    async with served(daemon) as (session, _), listening(session, subscribe=["risk/*"]) as socket:
        (first,) = await heard(socket, 1)
        assert first["seq"] == daemon.latest.states["risk", "BTC", ""].seq
        for n in (1, 2, 3):
            daemon.run_for(1)
            (message,) = await heard(socket, 1)
            assert message["seq"] == first["seq"] + n


async def test_everything_of_an_asset_is_sent_to_who_names_it_in_the_address(daemon):
    async with served(daemon) as (session, _):
        async with listening(session, "/api/v1/live?asset=BTC") as socket:
            snapshot = await heard(socket, 4)
    assert keys(snapshot) == {
        ("depth", "BTC", ""), ("heatmap", "BTC", ""), ("risk", "BTC", ""), ("status", "", "")
    }  # fmt: skip
    assert len(everything_of("BTC")) == 7


async def test_a_message_is_the_same_bytes_as_the_api_answers(daemon):
    async with served(daemon) as (session, _):
        async with listening(session, subscribe=["heatmap/BTC"]) as socket:
            message = await socket.receive(timeout=PATIENCE_S)
        async with session.get("/api/v1/assets/BTC/heatmap") as response:
            assert message.data.encode() == await response.read()


async def test_what_is_stale_is_not_in_the_snapshot(daemon):
    daemon.at += 60 * 10**9
    async with served(daemon) as (session, _), listening(session, subscribe=["risk/*"]) as socket:
        with pytest.raises(TimeoutError):
            await socket.receive_json(timeout=0.1)


async def test_a_new_subscription_replaces_the_old_one(daemon):
    async with served(daemon) as (session, _), listening(session, subscribe=["risk/*"]) as socket:
        await heard(socket, 1)
        await socket.send_json({"subscribe": ["depth/BTC"]})
        assert keys(await heard(socket, 1)) == {("depth", "BTC", "")}
        daemon.run_for(1)
        assert keys(await heard(socket, 1)) == {("depth", "BTC", "")}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"subscribe": "risk/*"}', '{"subscribe": ["x"]}'])
async def test_a_subscription_without_sense_ends_the_connection_with_a_reason(daemon, text):
    async with served(daemon) as (session, server), listening(session) as socket:
        await socket.send_str(text)
        message = await socket.receive(timeout=PATIENCE_S)
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
        assert message.extra
        assert daemon.live.errors["bad_subscription"] == 1
        assert server.errors == 0


# ------------------------------------------------------------------------- slow and many


async def stalled(server):
    """A client that subscribes and then reads nothing from its socket."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
    writer.write(
        b"GET /api/v1/live?asset=BTC HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: " + base64.b64encode(b"0" * 16) + b"\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()
    return reader, writer


async def test_a_client_that_stops_reading_is_conflated_counted_and_dropped(daemon, monkeypatch):
    monkeypatch.setattr(module, "STALL_S", 0.3)
    big = msgspec.structs.replace(daemon.latest.states["heatmap", "BTC", ""])
    long = [1234567.89] * 60_000
    async with served(daemon) as (session, server):
        _, writer = await stalled(server)
        quickest = float("inf")
        for n in range(40):
            data = msgspec.structs.replace(big.data, long_usd=long)
            began = time.perf_counter()
            daemon.publish(msgspec.structs.replace(big, seq=big.seq + 1 + n, data=data))
            for k in range(20):
                daemon.publish(liquidation(seq=n * 20 + k + 1))
            quickest = min(quickest, time.perf_counter() - began)
            await asyncio.sleep(0)
        # The server drops it in the end; until then nobody waited for it.
        assert quickest < 0.1
        await eventually(lambda: not daemon.live.clients)
        assert daemon.live.errors["stalled"] == 1
        assert daemon.live.discarded_intentional > 3
        assert daemon.live.discarded_unintentional > 0
        async with listening(session, subscribe=["risk/*"]) as socket:
            assert keys(await heard(socket, 1)) == {("risk", "BTC", "")}
        writer.close()


async def test_fifty_clients_hear_everything_and_a_message_is_encoded_once(daemon, monkeypatch):
    encoded = []
    real = module.encode
    monkeypatch.setattr(module, "encode", lambda m, run: encoded.append(m) or real(m, run))
    async with served(daemon) as (session, _):
        sockets = [await session.ws_connect("/api/v1/live?asset=BTC") for _ in range(CLIENTS)]
        for socket in sockets:
            await heard(socket, 4)
        encoded.clear()
        daemon.run_for(1)
        daemon.liquidate()
        news = [await heard(socket, 4) for socket in sockets]
        assert all(keys(messages) == keys(news[0]) for messages in news)
        assert len(encoded) == len({id(m) for m in encoded})
        assert daemon.live.clients == CLIENTS
        assert daemon.live.discarded_unintentional == 0
        for socket in sockets:
            await socket.close()
    assert (daemon.live.clients, daemon.live.last_success_at) == (0, 0.0)


async def test_one_client_too_many_is_refused_and_counted(daemon, monkeypatch):
    monkeypatch.setattr(module, "CLIENTS_MAX", 1)
    async with served(daemon) as (session, _), listening(session, subscribe=[]):
        with pytest.raises(WSServerHandshakeError) as refused:
            await session.ws_connect("/api/v1/live")
        assert refused.value.status == 503
        assert daemon.live.errors["too_many"] == 1


async def test_a_server_that_stops_says_goodbye(daemon):
    async with aiohttp.ClientSession() as session:
        async with served(daemon) as (_, server):
            socket = await session.ws_connect(f"http://127.0.0.1:{server.port}/api/v1/live")
        message = await socket.receive(timeout=PATIENCE_S)
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
        await socket.close()


async def test_clients_that_are_dead_do_not_delay_a_stop(daemon):
    async with served(daemon) as (_, server):
        clients = [await stalled(server) for _ in range(12)]
        await eventually(lambda: daemon.live.clients == len(clients))
        began = time.perf_counter()
        await server.stop()
        assert time.perf_counter() - began < 8  # goodbyes one after the other would take longer
    for _, writer in clients:
        writer.close()


# -------------------------------------------------------------------------------- security


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", ""])
async def test_a_page_of_another_origin_may_not_listen(daemon, origin):
    async with served(daemon) as (session, _):
        with pytest.raises(WSServerHandshakeError) as refused:
            await session.ws_connect("/api/v1/live", headers={"Origin": origin})
        assert refused.value.status == 403


async def test_our_own_page_may_listen(daemon):
    async with served(daemon) as (session, server):
        origin = f"http://127.0.0.1:{server.port}"
        async with listening(session, subscribe=["risk/*"], headers={"Origin": origin}) as socket:
            assert await heard(socket, 1)


async def test_a_browser_gives_the_token_as_a_subprotocol(daemon):
    coded = base64.urlsafe_b64encode(b"s3cret").decode().rstrip("=")
    async with served(daemon, token="s3cret") as (session, _):  # noqa: S106
        for wrong in ((), ("cascade.v1",), ("cascade.v1", "bearer.AAAA")):
            with pytest.raises(WSServerHandshakeError) as refused:
                await session.ws_connect("/api/v1/live", protocols=wrong)
            assert refused.value.status == 401
        right = ("cascade.v1", f"bearer.{coded}")
        async with listening(session, subscribe=["risk/*"], protocols=right) as socket:
            assert socket.protocol == "cascade.v1"
            assert json.dumps(await heard(socket, 1))


async def test_a_plain_question_is_told_that_this_is_a_websocket(daemon):
    async with served(daemon) as (session, _), session.get("/api/v1/live") as response:
        assert response.status == 426
