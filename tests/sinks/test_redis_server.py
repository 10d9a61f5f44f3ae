"""The contract on real servers: Redis 7 and Valkey, with users, TLS, and as a cluster of three."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from monitor import client as subscription
from monitor.client import SubscriptionError, subscribe
from monitor.sinks.envelope import encode
from monitor.sinks.keep import Keeper
from monitor.sinks.redis import REASONS, Servers, key_of
from tests.sinks.builders import (
    PATIENCE_S,
    START,
    depth,
    eventually,
    liquidation,
    redis_config,
    status,
)
from tests.sinks.goldens import MESSAGES, alert
from tests.sinks.redis_servers import (
    NODES,
    Node,
    await_cluster,
    certificates,
    form_cluster,
    program,
)
from tests.sinks.test_redis import free_port

DOCUMENT = Path(__file__).parents[2] / "docs" / "messages.md"
ASSETS = ["BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "LTC", "BNB"]
KINDS = ["risk", "depth", "heatmap", "heatmap:okx", "heatmap:log", "liquidations", "alerts",
         "undelivered", "forecasts", "status"]  # fmt: skip


def users(*, cluster=False):
    """The documented users, as the lines of the document make them."""
    lines = re.findall(r"^ACL SETUSER (.*)", DOCUMENT.read_text("utf-8"), flags=re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["cascade", "reader", "worker"]
    more = " +cluster|slots +command" if cluster else ""
    return [line.replace("<password>", "pw") + more for line in lines]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(subscription, "BLOCK_S", 0.2)
    monkeypatch.setattr(subscription, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(subscription, "BACKOFF_MAX_S", 0.3)


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=["valkey", "redis", "redis with tls"])
def node(request, tmp_path_factory):
    name, _, with_tls = request.param.partition(" with ")
    folder = request.getfixturevalue("tls") if with_tls else None
    made = Node(
        program(name), tmp_path_factory.mktemp("server") / "data", tls=folder, users=users()
    )
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module", params=["valkey", "redis with tls"])
def nodes(request, tmp_path_factory):
    name, _, with_tls = request.param.partition(" with ")
    folder = request.getfixturevalue("tls") if with_tls else None
    directory = tmp_path_factory.mktemp("cluster")
    made, buses = [], []
    for number in range(NODES):
        buses.append(free_port())
        settings = {
            "cluster_enabled": "yes",
            "cluster_port": buses[-1],
            "cluster_node_timeout": 1000,
            # The slots of the others are served while one node is away.
            "cluster_require_full_coverage": "no",
        }
        made.append(
            Node(
                program(name),
                directory / str(number),
                tls=folder,
                users=users(cluster=True),
                **settings,
            )
        )
    try:
        for one in made:
            one.start()
        form_cluster(made, buses)
        yield made
    finally:
        for one in made:
            one.stop()


@pytest.fixture
async def keepers():
    """Makes keepers, and closes them at the end."""
    made = []

    def make(url):
        made.append(Keeper(redis_config(url), "run1"))
        return made[-1]

    yield make
    for keeper in made:
        await keeper.close()


async def next_ones(messages, count):
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(messages) for _ in range(count)]


# ----------------------------------------------------------------------------- one server


async def test_every_message_is_written_and_heard_by_users_with_the_documented_rights(node, sinks):
    node.client.flushall()
    wanted = {"kinds": KINDS, "assets": ["BTC"], "since": "0"}
    sink, outbox = sinks(node.url("cascade"))
    async with subscribe(node.url("reader"), **wanted) as messages:
        for message in MESSAGES.values():
            outbox.put(message)
        found = await next_ones(messages, len(MESSAGES))
    assert sorted((m.kind, m.venue, m.seq) for m in found) == sorted(
        (m.kind, m.venue, m.seq) for m in MESSAGES.values()
    )
    assert sink.errors == dict.fromkeys(REASONS, 0)
    for message in MESSAGES.values():
        key = key_of("cascade", message)
        text = encode(message, "run1")
        if node.client.type(key) == b"stream":
            assert text in [fields[b"m"] for _, fields in node.client.xrange(key)]
        else:
            assert node.client.get(key) == text


async def test_the_state_for_a_warm_restart_is_kept_with_the_documented_rights(node, keepers):
    keeper = keepers(node.url("cascade"))
    await keeper.save("BTC", b"\x00\xff state")
    assert await keeper.load(["ETH", "BTC"]) == {"BTC": b"\x00\xff state"}
    assert (keeper.saved, keeper.failed) == (1, 0)
    assert 259_100 < node.client.ttl("cascade:{BTC}:state") <= 259_200


async def test_a_reader_may_write_nothing_and_a_worker_reads_nothing_but_alerts(node):
    await asyncio.sleep(0)
    reader = Redis.from_url(node.url("reader"))
    worker = Redis.from_url(node.url("worker"))
    for command in (
        ("SET", "cascade:x", "1"),
        ("PUBLISH", "cascade:alerts", "1"),
        ("XADD", "cascade:alerts", "*", "m", "1"),
        ("GET", "somebody:elses"),
        ("CONFIG", "GET", "*"),
    ):
        with pytest.raises(NoPermissionError):
            reader.execute_command(*command)
    with pytest.raises(NoPermissionError):
        worker.execute_command("XREADGROUP", "GROUP", "g", "w", "STREAMS", "cascade:forecasts", ">")
    with pytest.raises(NoPermissionError):
        worker.execute_command("XADD", "cascade:alerts", "*", "m", "1")
    reader.close()
    worker.close()


async def test_a_right_too_few_is_raised_to_the_reader(node):
    node.client.execute_command("ACL", "SETUSER", "reader", "-xread")
    async with subscribe(node.url("reader"), kinds=["alerts"]) as messages:
        with pytest.raises(SubscriptionError, match="permission"):
            await asyncio.wait_for(anext(messages), PATIENCE_S)
    node.client.execute_command("ACL", "SETUSER", "reader", "+xread")


async def test_a_group_of_workers_manages_with_the_documented_rights(node, sinks):
    node.client.flushall()
    sink, outbox = sinks(node.url("cascade"))
    for seq in range(1, 4):
        outbox.put(alert(seq=seq, at=START + seq * 1_000_000))
    await eventually(lambda: sink.sent == 3)
    with Redis.from_url(node.url("worker"), protocol=2) as worker:
        worker.xgroup_create("cascade:alerts", "paging", id="0", mkstream=True)
        ((_, taken),) = worker.xreadgroup("paging", "one", {"cascade:alerts": ">"}, count=3)
        worker.xack("cascade:alerts", "paging", taken[0][0])
        _, claimed, _ = worker.xautoclaim("cascade:alerts", "paging", "two", 0)
    assert [json.loads(fields[b"m"])["seq"] for _, fields in claimed] == [2, 3]


async def test_no_alert_is_lost_through_a_restart_of_the_server(node, sinks):
    node.client.flushall()
    sink, outbox = sinks(node.url("cascade"), timeout_s=0.5)
    async with subscribe(node.url("reader"), kinds=["alerts"], since="0") as messages:
        for seq in range(1, 101):
            outbox.put(alert(seq=seq, at=START + seq * 1_000_000))
            await asyncio.sleep(0.002)
            if seq in {30, 70}:
                node.kill()
            if seq in {50, 90}:
                # It stays away until a write has failed: it may be back unnoticed between two.
                failed = sum(sink.errors.values())
                await eventually(lambda: sum(sink.errors.values()) > failed)  # noqa: B023
                node.start()
        found = await next_ones(messages, 100)
    assert [(m.seq, m.lost) for m in found] == [(seq, 0) for seq in range(1, 101)]
    kept = [json.loads(fields[b"m"])["seq"] for _, fields in node.client.xrange("cascade:alerts")]
    assert kept == list(range(1, 101))
    assert outbox.discarded_unintentional == 0
    assert sum(sink.errors.values()) > 0


async def test_shards_do_not_write_over_each_others_status(node):
    from monitor.sinks.outbox import Outbox
    from monitor.sinks.redis import RedisSink

    for shard in ("1/2", "2/2"):
        outbox = Outbox(10, 30.0)
        sink = RedisSink(redis_config(node.url("cascade")), f"run-{shard}", outbox, shard)
        outbox.put(status())
        await sink.close(5.0)
    runs = [json.loads(node.client.get(f"cascade:status:{n}/2"))["run"] for n in (1, 2)]
    assert runs == ["run-1/2", "run-2/2"]


# ------------------------------------------------------------------------------------ tls


async def test_a_certificate_of_an_unknown_authority_is_not_believed(tls, tmp_path, sinks):
    server = Node(program("redis"), tmp_path / "data", tls=tls, users=users())
    server.start()
    for ca in ("other-ca.pem", ""):
        sink, outbox = sinks(server.url("cascade", ca=ca))
        outbox.put(depth())
        await eventually(lambda: sink.errors["connection"] >= 1)  # noqa: B023
        assert sink.sent == 0
        async with subscribe(server.url("reader", ca=ca), kinds=["alerts"]) as messages:
            await eventually(lambda: messages.problem == "connection")
    server.stop()


# -------------------------------------------------------------------------------- cluster


async def test_a_cluster_gets_each_asset_where_its_slot_is(nodes, sinks, keepers):
    url = nodes[0].url("cascade", cluster=True)
    sink, outbox = sinks(url)
    keeper = keepers(url)
    reading = nodes[1].url("reader", cluster=True)
    wanted = {"kinds": ["depth", "liquidations", "alerts", "status"], "assets": ASSETS}
    async with subscribe(reading, **wanted, since="0") as messages:
        for asset in ASSETS:
            outbox.put(depth(asset))
            outbox.put(liquidation(asset))
            outbox.put(alert(asset=asset))
            await keeper.save(asset, asset.encode())
        outbox.put(status())
        found = await next_ones(messages, 3 * len(ASSETS) + 1)
    assert {(m.kind, m.asset) for m in found} == {("status", "")} | {
        (kind, asset) for kind in ("depth", "liquidations", "alerts") for asset in ASSETS
    }
    keys = [sorted(node.client.keys("*")) for node in nodes]
    assert all(keys)
    expected = {b"cascade:status", b"cascade:alerts"} | {
        b"cascade:{%s}:%s" % (asset.encode(), kind)
        for asset in ASSETS
        for kind in (b"depth", b"liquidations", b"state")
    }
    assert sorted(key for some in keys for key in some) == sorted(expected)
    assert await keeper.load(ASSETS) == {asset: asset.encode() for asset in ASSETS}
    assert (keeper.saved, keeper.failed, sum(sink.errors.values())) == (len(ASSETS), 0, 0)


async def test_a_node_that_dies_and_returns_costs_its_own_assets_a_delay_and_no_event(
    nodes, sinks, keepers
):
    for node in nodes:
        node.client.flushall()
    servers = Servers(nodes[0].url("cascade", cluster=True), 1.0, "test")
    lost = nodes[2]
    on_it = []
    for asset in ASSETS:
        client = await servers.of(f"cascade:{{{asset}}}:liquidations")
        if client.connection_pool.connection_kwargs["port"] == lost.port:
            on_it.append(asset)
    await servers.close()
    others = [asset for asset in ASSETS if asset not in on_it]
    assert on_it
    assert others
    url = nodes[0].url("cascade", cluster=True)
    _, outbox = sinks(url, timeout_s=0.5)
    keeper = keepers(url)
    wanted = {"kinds": ["depth", "liquidations"], "assets": ASSETS, "since": "0"}
    last = {}
    async with subscribe(nodes[0].url("reader", cluster=True), **wanted) as messages:

        async def read():
            async for message in messages:
                if message.kind == "liquidations":
                    assert message.lost == 0
                    assert message.seq == last.get((message.kind, message.asset), 0) + 1
                last[message.kind, message.asset] = message.seq

        reader = asyncio.create_task(read())

        def tell(seq):
            for asset in ASSETS:
                outbox.put(depth(asset, seq=seq))
                outbox.put(liquidation(asset, seq=seq))

        def heard(assets, seq):
            assert not reader.done(), reader.result()
            kinds = ("depth", "liquidations")
            return all(last.get((kind, asset)) == seq for asset in assets for kind in kinds)

        tell(1)
        await eventually(lambda: heard(ASSETS, 1))
        for asset in ASSETS:
            await keeper.save(asset, b"saved")
        lost.kill()
        # A node that closes its connections is looked at again, and the lost one cannot be.
        for row in nodes[1].client.client_list():
            if row["name"].startswith("cascade-monitor"):
                nodes[1].client.client_kill_filter(_id=row["id"])
        tell(2)
        tell(3)
        await eventually(lambda: heard(others, 3))
        assert set(await keeper.load([*on_it, *others])) == set(others)
        lost.start()
        await_cluster(nodes)
        await eventually(lambda: heard(ASSETS, 3))
        tell(4)
        await eventually(lambda: heard(ASSETS, 4))
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)

    async def all_are_kept():
        return set(await keeper.load(ASSETS)) == set(ASSETS)

    await eventually(all_are_kept)
    assert outbox.discarded_unintentional == 0


async def test_a_slot_that_moves_is_followed(nodes, sinks, keepers):
    """The asset's keys are deleted first, so that its slot may be given away without migration."""
    for node in nodes:
        node.client.flushall()
    asset = "BTC"
    slot = nodes[0].client.execute_command("CLUSTER", "KEYSLOT", "{BTC}")
    url = nodes[0].url("cascade", cluster=True)
    sink, outbox = sinks(url, timeout_s=0.5)
    keeper = keepers(url)
    wanted = {"kinds": ["depth", "liquidations"], "assets": [asset], "since": "0"}
    async with subscribe(nodes[0].url("reader", cluster=True), **wanted) as messages:
        outbox.put(depth(seq=1))
        outbox.put(liquidation(seq=1))
        await keeper.save(asset, b"one")
        assert sorted((m.kind, m.seq) for m in await next_ones(messages, 2)) == [
            ("depth", 1),
            ("liquidations", 1),
        ]
        owner = next(
            n for n in nodes if n.client.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot)
        )
        target = next(n for n in nodes if n is not owner)
        for key in owner.client.keys("*"):
            owner.client.delete(key)
        id_ = target.client.execute_command("CLUSTER", "MYID").decode()
        for node in (target, owner, *(n for n in nodes if n not in (owner, target))):
            node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", id_)
        await keeper.save(asset, b"two")
        for seq in (2, 3):
            outbox.put(depth(seq=seq))
            outbox.put(liquidation(seq=seq))
            await eventually(lambda: not len(outbox) and sink.connected)
        found = []
        while {("depth", 3), ("liquidations", 3)} - {(m.kind, m.seq) for m in found}:
            found.append(await asyncio.wait_for(anext(messages), PATIENCE_S))
        assert [(m.seq, m.lost) for m in found if m.kind == "liquidations"] == [(2, 0), (3, 0)]
    # What was confirmed is looked for where it will be trimmed.
    (unsafe,) = sink._unsafe.values()
    assert {confirmed.entry.message.seq for confirmed in unsafe} >= {2, 3}
    assert target.client.exists("cascade:{BTC}:liquidations")

    async def is_saved():
        before = keeper.saved
        await keeper.save(asset, b"three")
        return keeper.saved > before

    # Each save that is sent elsewhere has the layout learnt anew, though not within a second.
    await eventually(is_saved)
    assert await keeper.load([asset]) == {asset: b"three"}
