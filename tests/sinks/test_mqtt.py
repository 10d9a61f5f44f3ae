import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import msgspec
import pytest
from aiomqtt import MqttCodeError, MqttError
from msgspec import Struct
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from monitor.config import ConfigError, MqttConfig
from monitor.events import DirectionRisk, Probability, Risk
from monitor.sinks import mqtt
from monitor.sinks.envelope import encode
from monitor.sinks.mqtt import MqttSink
from monitor.sinks.mqtt_client import REASONS, reason_of
from monitor.sinks.mqtt_topics import discovery, topic_of
from monitor.sinks.outbox import Outbox
from tests.builders import config
from tests.sinks.builders import (
    PATIENCE_S,
    START,
    alert,
    depth,
    eventually,
    liquidation,
    message,
    status,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "mqtt.md"
TTL_S = 30.0


def side(direction, **fields):
    known = [(300, 0.01), (900, None), (3600, 0.2)]
    values = {
        "direction": direction,
        "phase": "watch",
        "phase_age_s": 1.0,
        "score": 0.5,
        "using": "map",
        "probabilities": [Probability(s, ratio, ratio, ratio) for s, ratio in known],
        "silent": False,
        "components": {},
        "reasons": [],
    } | dict.fromkeys(["alert", "held", "abstaining"], "")
    unknown = dict.fromkeys(DirectionRisk.__struct_fields__)
    return DirectionRisk(**(unknown | values | fields))


def risk(seq=1, asset="BTC", *sides):
    values = {
        "quality": 1.0,
        "confidence": 0.9,
        "missing": [],
        "faults": [],
        "model": "1",
        "directions": list(sides) or [side("down"), side("up")],
    }
    unknown = dict.fromkeys(Risk.__struct_fields__)
    return message("risk", asset, seq, START + seq, Risk(**(unknown | values)))


def mqtt_config(port=1, **changes) -> MqttConfig:
    values = {"enabled": True, "port": port, "timeout_s": 30.0, "state_ttl_s": TTL_S}
    return msgspec.structs.replace(config().mqtt, **(values | changes))


# ----------------------------------------------------------------------------------- broker


@pytest.fixture(scope="session")
def mosquitto():
    """The broker program; its absence fails in CI and skips elsewhere."""
    found = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        reason = "no mosquitto program; apt-get install mosquitto"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """A Mosquitto on loopback that can be stopped and started again at the same port."""

    def __init__(self, program, directory, *lines):
        self.port = free_port()
        self._program = program
        self._log = directory / "mosquitto.log"
        self._settings = directory / "mosquitto.conf"
        # As root it would become another user, who may not read this directory.
        head = [f"listener {self.port} 127.0.0.1", "user root"]
        self._settings.write_text("\n".join([*head, *(lines or ["allow_anonymous true"])]) + "\n")
        self.process = None

    async def start(self):
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                self._program, "-c", str(self._settings), stdout=log, stderr=log
            )

        def listens():
            assert self.process.returncode is None, self._log.read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        await eventually(listens)

    async def stop(self, number=signal.SIGTERM):
        if self.process.returncode is None:
            self.process.send_signal(number)
            await self.process.wait()


@pytest.fixture
async def brokers(mosquitto, tmp_path):
    made = []

    async def make(*lines):
        broker = Broker(mosquitto, tmp_path, *lines)
        made.append(broker)
        await broker.start()
        return broker

    yield make
    for broker in made:
        await broker.stop(signal.SIGKILL)


@pytest.fixture
async def broker(brokers):
    return await brokers()


@pytest.fixture
async def sinks(monkeypatch):
    """Makes running sinks, and stops them at the end."""
    monkeypatch.setattr(mqtt, "BACKOFF_FIRST_S", 0.05)
    monkeypatch.setattr(mqtt, "BACKOFF_MAX_S", 0.2)
    made = {}

    def make(port, *, assets=(), shard="", **changes):
        settings = mqtt_config(port, **changes)
        outbox = Outbox(settings.queue_length, settings.state_ttl_s)
        sink = MqttSink(settings, "run1", outbox, assets, shard)
        sink.outbox = outbox
        made[sink] = asyncio.create_task(sink.run())
        return sink

    async def stop(sink, deadline_s=2.0):
        task = made.pop(sink)
        assert not task.done(), task
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await sink.close(deadline_s)

    make.stop = stop
    yield make
    for sink in list(made):
        await stop(sink, 0.05)


class Heard(Struct):
    topic: str
    payload: str
    retained: bool
    qos: int
    properties: object

    @classmethod
    def of(cls, item):
        return cls(str(item.topic), item.payload.decode(), item.retain, item.qos, item.properties)

    @property
    def body(self):
        return json.loads(self.payload)


@asynccontextmanager
async def subscribed(port, *topics, **options):
    """A list that fills with what is published, beginning with what is retained."""
    heard = []
    options = {"protocol": aiomqtt.ProtocolVersion.V5, "timeout": 30} | options
    async with aiomqtt.Client("127.0.0.1", port, **options) as client:
        for topic in topics:
            await client.subscribe(topic, qos=1)

        async def listen():
            async for item in client.messages:
                heard.append(Heard.of(item))  # noqa: PERF401  (they are wanted as they come)

        task = asyncio.create_task(listen())
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def retained(port, topic, **options):
    """What somebody who subscribes now is given for one topic, or None."""
    marker = "test/marker"
    async with subscribed(port, topic, marker, **options) as heard:
        async with aiomqtt.Client("127.0.0.1", port, **options) as client:
            await client.publish(marker, "end", qos=1)
        await eventually(lambda: any(item.topic == marker for item in heard))
    return next((item for item in heard if item.topic == topic), None)


# ------------------------------------------------------------------------------------ topics


@pytest.mark.parametrize(
    ("published", "shard", "topic"),
    [
        (risk(), "", "cascade/BTC/risk"),
        (depth("ETH"), "2/8", "cascade/ETH/depth"),
        (status(), "", "cascade/health"),
        (status(), "2/8", "cascade/health/2/8"),
        (alert(), "2/8", "cascade/alerts/BTC"),
        (liquidation(), "", "cascade/liquidations/BTC"),
    ],
)
def test_a_state_stands_below_its_asset_and_an_event_below_its_kind(published, shard, topic):
    assert topic_of("cascade", published, shard) == topic
    pattern = re.sub(r"BTC|ETH", "<asset>", topic.replace("2/8", "<shard>"))
    assert f"`{pattern}`" in DOCUMENT.read_text()


@pytest.mark.parametrize("prefix", ["", "a//b", "/a", "a/", "a/+", "#", "$SYS/a"])
def test_a_prefix_that_is_no_topic_is_refused(prefix):
    with pytest.raises(ConfigError, match=r"mqtt\.prefix"):
        MqttSink(mqtt_config(prefix=prefix), "run1", Outbox(1, 1.0))


def test_an_asset_that_would_be_a_wildcard_is_refused():
    with pytest.raises(ConfigError, match="asset 'B#'"):
        MqttSink(mqtt_config(), "run1", Outbox(1, 1.0), ["B#"])


def test_every_reason_is_documented():
    words = set(re.findall(r"`(\w+)`", DOCUMENT.read_text()))
    assert set(REASONS) <= words


# ------------------------------------------------------------------------------------- state


async def test_a_late_subscriber_is_given_the_newest_state(broker, sinks):
    sink = sinks(broker.port)
    for seq in (1, 2):
        sink.put(risk(seq))
        await eventually(lambda seq=seq: sink.sent == seq)
    item = await retained(broker.port, "cascade/BTC/risk")
    assert item.retained
    assert item.payload == encode(risk(2), "run1").decode()
    assert (sink.connected, sum(sink.errors.values())) == (True, 0)


async def test_retained_state_carries_its_expiry_type_and_version(broker, sinks):
    sink = sinks(broker.port)
    sink.put(depth())
    await eventually(lambda: sink.sent)
    properties = (await retained(broker.port, "cascade/BTC/depth")).properties
    assert TTL_S / 2 <= properties.MessageExpiryInterval <= TTL_S
    assert properties.ContentType == "application/json"
    assert properties.UserProperty == [("schema_version", "1")]


async def test_state_that_is_not_renewed_disappears(broker, sinks):
    sink = sinks(broker.port, state_ttl_s=1.0)
    await eventually(lambda: sink.connected)
    async with subscribed(broker.port, "cascade/BTC/risk") as heard:
        sink.put(risk())
        await eventually(lambda: heard)

    async def gone():
        return not await retained(broker.port, "cascade/BTC/risk")

    await eventually(gone)


async def test_only_the_configured_kinds_are_published(broker, sinks):
    sink = sinks(broker.port)
    for published in (message("heatmap", "BTC", 1, START, risk().data), liquidation(), status()):
        sink.put(published)
    await eventually(lambda: sink.sent)
    assert not await retained(broker.port, "cascade/BTC/heatmap")
    assert (sink.sent, len(sink.outbox)) == (1, 0)
    chatty = sinks(broker.port, kinds=["heatmap"], client_id="other")
    chatty.put(message("heatmap", "BTC", 1, START, risk().data))
    await eventually(lambda: chatty.sent)
    assert await retained(broker.port, "cascade/BTC/heatmap")


# ------------------------------------------------------------------------------------ alerts


async def test_an_alert_is_heard_in_order_at_qos_1_and_not_retained(broker, sinks):
    async with subscribed(broker.port, "cascade/alerts/+") as heard:
        sink = sinks(broker.port)
        for seq in range(1, 101):
            sink.put(alert(seq))
        await eventually(lambda: len(heard) == 100)
    assert [item.body["seq"] for item in heard] == list(range(1, 101))
    assert {(item.qos, item.retained) for item in heard} == {(1, False)}
    assert heard[0].payload == encode(alert(1), "run1").decode()
    assert not await retained(broker.port, "cascade/alerts/BTC")


async def test_the_current_phase_of_both_directions_is_retained(broker, sinks):
    sink = sinks(broker.port)
    sink.put(alert(1, direction="up", phase="watch"))
    sink.put(alert(2, direction="down", phase="critical"))
    sink.put(alert(3, direction=None, phase=None, kind="quality"))
    await eventually(lambda: sink.sent == 3)
    await eventually(lambda: retained(broker.port, "cascade/BTC/alert"))
    item = await retained(broker.port, "cascade/BTC/alert")
    assert (item.body["kind"], item.body["seq"]) == ("alert", 2)
    assert {d: body["phase"] for d, body in item.body["data"].items()} == {
        "down": "critical",
        "up": "watch",
    }
    assert item.properties.MessageExpiryInterval <= TTL_S


async def test_the_phase_lives_as_long_as_risk_is_published(broker, sinks, monkeypatch):
    monkeypatch.setattr(mqtt, "STANDING_RENEWALS", 20)
    sink = sinks(broker.port, state_ttl_s=2.0)
    await eventually(lambda: sink.connected)

    def lives_s():
        return heard[-1].properties.MessageExpiryInterval

    def is_prolonged():
        sink.put(risk())
        return len(heard) > 3 and lives_s() == 2

    async with subscribed(broker.port, "cascade/BTC/alert") as heard:
        sink.put(alert())
        for _ in range(12):
            sink.put(risk())
            await asyncio.sleep(0.1)
        await eventually(is_prolonged)
        await eventually(lambda: lives_s() < 2)


# ------------------------------------------------------------------------------ availability


async def availability(port):
    item = await retained(port, "cascade/status")
    return item and item.payload


async def test_it_says_online_when_connected_and_offline_when_stopped(broker, sinks):
    sink = sinks(broker.port)
    await eventually(lambda: sink.connected)
    assert await availability(broker.port) == "online"
    async with subscribed(broker.port, "cascade/#") as heard:
        sink.put(alert())
        await sinks.stop(sink)
        await eventually(lambda: heard and heard[-1].payload == "offline")
    assert any(item.topic == "cascade/alerts/BTC" for item in heard), "flushed before"
    assert await availability(broker.port) == "offline"


async def test_shards_have_an_availability_each(broker, sinks):
    first, second = (sinks(broker.port, shard=f"{n}/2") for n in (1, 2))
    await eventually(lambda: first.connected and second.connected)
    await sinks.stop(first)
    assert (await retained(broker.port, "cascade/status/1/2")).payload == "offline"
    assert (await retained(broker.port, "cascade/status/2/2")).payload == "online"


PUBLISHER = """
import asyncio, sys
from tests.sinks.test_mqtt import MqttSink, Outbox, mqtt_config
asyncio.run(MqttSink(mqtt_config(int(sys.argv[1])), "killed", Outbox(10, 30.0)).run())
"""


@asynccontextmanager
async def publisher(port):
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PUBLISHER, str(port))
    try:
        await eventually(lambda: availability(port))
        assert await availability(port) == "online"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_the_broker_says_offline_when_the_process_is_killed(broker):
    async with publisher(broker.port) as process:
        process.send_signal(signal.SIGKILL)

        async def offline():
            return await availability(broker.port) == "offline"

        await eventually(offline)


async def test_a_successor_of_a_process_that_hangs_is_online(broker, sinks):
    async with publisher(broker.port) as process:
        process.send_signal(signal.SIGSTOP)
        async with subscribed(broker.port, "cascade/status") as heard:
            sink = sinks(broker.port)
            await eventually(lambda: sink.connected)
            await eventually(lambda: len(heard) >= 3)
        assert [item.payload for item in heard] == ["online", "offline", "online"]


async def test_who_is_thrown_out_by_its_double_comes_back(broker, sinks):
    sink = sinks(broker.port)
    await eventually(lambda: sink.connected)
    name = {"identifier": sink._config.client_id, "protocol": aiomqtt.ProtocolVersion.V5}
    with contextlib.suppress(aiomqtt.MqttError):
        async with aiomqtt.Client("127.0.0.1", broker.port, **name):
            await eventually(lambda: sum(sink.errors.values()) and sink.connected)
    assert sink.connected


@pytest.mark.parametrize(
    ("code", "reason"),
    [("Session taken over", "taken_over"), ("Server shutting down", "connection"),
     ("Packet too large", "refused")],
)  # fmt: skip
def test_a_code_of_the_broker_has_its_reason(code, reason):
    error = MqttError("disconnected")
    error.__cause__ = MqttCodeError(ReasonCode(PacketTypes.DISCONNECT, code))
    assert reason_of(error) == reason


# ------------------------------------------------------------------------------------ outage


async def test_a_broker_that_is_dead_at_the_start_is_waited_for(brokers, sinks):
    broker = await brokers()
    await broker.stop()
    sink = sinks(broker.port)
    sink.put(alert())
    sink.put(risk())
    await eventually(lambda: sink.errors["connection"] >= 2)
    assert not sink.connected
    await broker.start()
    await eventually(lambda: sink.sent == 2)


async def test_after_a_restart_of_the_broker_all_is_there_again(broker, sinks):
    sink = sinks(broker.port)
    sink.put(depth())
    sink.put(alert(1))
    sink.put(risk(1))
    await eventually(lambda: sink.sent == 3)
    await broker.stop()
    await eventually(lambda: not sink.connected)
    for seq in range(2, 52):
        sink.put(alert(seq))
        sink.put(risk(seq))
    await broker.start()
    async with subscribed(broker.port, "cascade/#") as heard:
        await eventually(lambda: sink.sent == 3 + 50 + 2)
        await eventually(lambda: availability(broker.port))
        await eventually(lambda: any(item.topic == "cascade/BTC/alert" for item in heard))
    # It reconnects by itself, maybe before we could subscribe: then nothing but retained is heard.
    for topic, seq in (("depth", 1), ("risk", 51), ("alert", 51)):
        assert (await retained(broker.port, f"cascade/BTC/{topic}")).body["seq"] == seq
    assert sink.outbox.discarded_unintentional == 0
    assert sink.outbox.discarded_intentional == 49, "states that newer ones replaced"


async def test_no_alert_is_lost_while_the_broker_comes_and_goes(brokers, sinks, tmp_path):
    # The broker keeps on disk what it has confirmed; its reader has a lasting session.
    broker = await brokers(
        "allow_anonymous true",
        "max_queued_messages 0",
        "persistence true",
        f"persistence_location {tmp_path}/",
    )
    reader = {"identifier": "reader", "clean_session": False}
    async with aiomqtt.Client("127.0.0.1", broker.port, **reader) as client:
        await client.subscribe("cascade/alerts/BTC", qos=1)
    sink = sinks(broker.port)
    seq = 0
    for _ in range(3):
        await eventually(lambda: sink.connected)
        for _ in range(200):
            seq += 1
            sink.put(alert(seq))
            if seq % 20 == 10:
                await asyncio.sleep(0.001)
        assert len(sink.outbox), "it is stopped in the middle"
        await broker.stop()
        await broker.start()
    await eventually(lambda: len(sink.outbox) == 0 and sink.connected)
    heard = []
    async with aiomqtt.Client("127.0.0.1", broker.port, **reader) as client:
        async with asyncio.timeout(PATIENCE_S):
            async for item in client.messages:
                heard.append(json.loads(item.payload)["seq"])
                if heard[-1] == seq:
                    break
    assert list(dict.fromkeys(heard)) == sorted(set(heard)), "in order, repetitions apart"
    assert set(heard) == set(range(1, seq + 1))
    assert sink.outbox.discarded_unintentional == 0


async def test_a_full_queue_drops_the_oldest_alerts_and_counts_them(brokers, sinks):
    broker = await brokers()
    await broker.stop()
    sink = sinks(broker.port, queue_length=10)
    for seq in range(1, 31):
        sink.put(alert(seq))
    assert sink.outbox.discarded_unintentional == 20
    await eventually(lambda: sink.errors["connection"])
    await broker.start()
    await eventually(lambda: sink.sent == 10)


async def test_a_broker_that_never_answers_is_a_timeout_and_holds_up_nobody(sinks):
    async def swallow(reader, writer):
        hanging.add(writer)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        hanging.remove(writer)

    hanging = set()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    sink = sinks(server.sockets[0].getsockname()[1], timeout_s=1.0)
    turns = 0
    while not sink.errors["timeout"]:
        sink.put(risk())
        await asyncio.sleep(0.001)
        turns += 1
    # Whoever waited for the broker would have had one turn in that second.
    assert turns > 10
    await sinks.stop(sink, 0.1)
    assert sink.outbox.discarded_unintentional == 1
    await eventually(lambda: not hanging)
    server.close()


# ---------------------------------------------------------------------------- who may connect


@pytest.fixture
def users(tmp_path):
    """A password file with one user."""
    path = tmp_path / "users"
    subprocess.run(["mosquitto_passwd", "-c", "-b", path, "monitor", "right"], check=True)
    return path


async def test_a_wrong_password_is_counted_and_a_right_one_works(brokers, sinks, users):
    broker = await brokers("allow_anonymous false", f"password_file {users}")
    wrong = sinks(broker.port, username="monitor", password="wrong")  # noqa: S106
    await eventually(lambda: wrong.errors["authentication"] >= 2)
    assert sum(wrong.errors.values()) == wrong.errors["authentication"]
    right = sinks(broker.port, username="monitor", password="right")  # noqa: S106
    right.put(risk())
    await eventually(lambda: right.sent == 1)
    assert not wrong.connected


async def test_a_topic_we_may_not_write_is_counted_and_not_taken_for_sent(brokers, sinks, tmp_path):
    (tmp_path / "acl").write_text(
        "topic write cascade/status\ntopic write cascade/BTC/risk\ntopic read #\n"
    )
    broker = await brokers("allow_anonymous true", f"acl_file {tmp_path / 'acl'}")
    sink = sinks(broker.port)
    sink.put(risk())
    sink.put(alert())
    await eventually(lambda: sink.errors["permission"] >= 1)
    await eventually(lambda: sink.outbox.discarded_unintentional == 1)
    assert (sink.connected, sink.sent) == (True, 1)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A certificate authority with a certificate for 127.0.0.1 and one for a client."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl program to make certificates with")
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "stranger"):
        openssl(*new, "-x509", "-subj", f"/CN={name}", "-keyout", f"{name}.key",
                "-out", f"{name}.pem", "-days", "2")  # fmt: skip
    for name in ("server", "client"):
        (folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1\n")
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-extfile", f"{name}.ext", "-out", f"{name}.pem",
                "-days", "2")  # fmt: skip
    return folder


async def test_tls_with_a_client_certificate_works_and_without_one_is_counted(
    brokers, sinks, certificates
):
    broker = await brokers(
        f"cafile {certificates / 'ca.pem'}",
        f"certfile {certificates / 'server.pem'}",
        f"keyfile {certificates / 'server.key'}",
        "require_certificate true",
        "use_identity_as_username true",
    )
    ca = str(certificates / "ca.pem")
    ours = {
        "certificate_path": str(certificates / "client.pem"),
        "key_path": str(certificates / "client.key"),
    }
    sink = sinks(broker.port, tls=True, ca_path=ca, **ours)
    sink.put(risk())
    await eventually(lambda: sink.sent == 1)
    stranger = sinks(broker.port, tls=True, ca_path=str(certificates / "stranger.pem"), **ours)
    await eventually(lambda: stranger.errors["tls"])
    anonymous = sinks(broker.port, tls=True, ca_path=ca, client_id="anonymous")
    await eventually(lambda: sum(anonymous.errors.values()))
    assert not stranger.sent
    assert not anonymous.connected


def test_a_certificate_that_is_not_there_is_a_configuration_error():
    with pytest.raises(ConfigError, match=r"ca_path.*/nowhere\.pem"):
        MqttSink(mqtt_config(tls=True, ca_path="/nowhere.pem"), "run1", Outbox(1, 1.0))


# ---------------------------------------------------------------------------- home assistant


def test_the_discovery_is_a_device_with_five_sensors_per_asset_and_direction():
    topic, payload = discovery(mqtt_config(prefix="home/cascade"), ["BTC", "1000PEPE"], "2/8")
    assert topic == "homeassistant/device/home_cascade_2_8/config"
    device = json.loads(payload)
    assert device["device"]["identifiers"] == ["home_cascade_2_8"]
    assert device["origin"]["name"] == "cascade-monitor"
    assert device["availability_topic"] == "home/cascade/status/2/8"
    assert (device["payload_available"], device["payload_not_available"]) == ("online", "offline")
    components = device["components"]
    assert len(components) == 2 * 2 * 5
    assert len({sensor["unique_id"] for sensor in components.values()}) == 20
    for key, sensor in components.items():
        assert re.fullmatch(r"[a-z0-9_]+", key)
        assert sensor["platform"] == "sensor"
        assert sensor["expire_after"] == TTL_S
        assert re.fullmatch(r"home/cascade/\w+/risk", sensor["state_topic"])
        assert sensor["value_template"].count("{{") == 1
    assert components["btc_down_score"]["state_topic"] == "home/cascade/BTC/risk"
    assert components["1000pepe_up_probability_15m"]["unit_of_measurement"] == "%"


def test_the_templates_show_what_is_published_and_unknown_as_none():
    jinja2 = pytest.importorskip("jinja2")
    components = json.loads(discovery(mqtt_config(), ["BTC"])[1])["components"]
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)

    def shown(key, body):
        template = environment.from_string(components[key]["value_template"])
        return template.render(value_json=body)

    told = json.loads(encode(risk(1, "BTC", side("down", score=0.123)), "run1"))
    assert shown("btc_down_score", told) == "12.3"
    assert shown("btc_down_probability_5m", told) == "1.0"
    assert shown("btc_down_probability_15m", told) == "None"
    assert shown("btc_down_phase", told) == "watch"
    for name in ("score", "probability_5m", "phase"):
        assert shown(f"btc_up_{name}", told) == "None", "there is nothing about that direction"
    bare = json.loads(encode(risk(1, "BTC", side("up", score=None, probabilities=[])), "run1"))
    assert shown("btc_up_score", bare) == shown("btc_up_probability_5m", bare) == "None"


async def test_home_assistant_is_told_only_if_asked_for_and_again_when_it_starts(broker, sinks):
    topic, payload = discovery(mqtt_config(), ["BTC"])
    quiet = sinks(broker.port, assets=["BTC"])
    await eventually(lambda: quiet.connected)
    assert not await retained(broker.port, topic)
    sink = sinks(broker.port, assets=["BTC"], home_assistant=True, client_id="other")
    await eventually(lambda: sink.connected)
    async with subscribed(broker.port, topic) as heard:
        await eventually(lambda: len(heard) == 1)
        async with aiomqtt.Client("127.0.0.1", broker.port) as home:
            await home.publish("homeassistant/status", "online", qos=1)
        await eventually(lambda: len(heard) == 2)
    assert [item.payload for item in heard] == [payload.decode()] * 2
    assert heard[0].retained
