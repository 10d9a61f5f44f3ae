import asyncio
import json
import socket
import time
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest

from monitor.config import PipelineConfig
from monitor.events import NS, BookSnapshot, Gap, Listed, MarkPrice, Rejected, Silence
from monitor.pipeline import Pipeline
from monitor.sinks.guard import HEADERS
from monitor.sinks.metrics import Identity, Latest, Meter, Queue, Sources, build_registry
from monitor.sinks.outbox import Outbox
from monitor.sinks.redis import RedisSink
from monitor.sinks.server import PAGES, Server, ServerError
from monitor.sinks.status import ALIVE_IDLE_S, Readiness, alive, readiness, ready, status_of
from tests.builders import AT, config, engine_config, instrument, venue_config
from tests.sinks.builders import redis_config

BTC = "binance:BTCUSDT"


class Clock:
    """Both clocks of a daemon, standing still unless moved."""

    def __init__(self):
        self.at = AT

    def ns(self):
        return self.at

    def __call__(self):
        return self.at / NS


class Daemon:
    """A pipeline with one Binance instrument, and a clock."""

    def __init__(self, *, required=True):
        venue = venue_config(required=required, instruments={"BTCUSDT": "BTC"})
        self.clock = Clock()
        self.meter = Meter(0.25, self.clock.ns, self.clock)
        self.pipeline = Pipeline(PipelineConfig({"binance": venue}, engine_config(), []))
        self.tell(Listed(instrument()))

    def tell(self, *events):
        for event in events:
            self.pipeline.engine.process(self.clock.at, event)

    def sync(self):
        bids, asks = [(100.0, 1.0)], [(101.0, 1.0)]
        self.tell(BookSnapshot(BTC, 0, bids, asks, depth=10, maintained=False))

    def pass_time(self, seconds):
        self.clock.at += int(seconds * NS)

    def sources(self, **fields):
        values = {
            "identity": Identity("run1", "0.1.0", "abc", "feed", "2/8"),
            "pipeline": self.pipeline,
            "latest": Latest(),
            "publish_interval_s": 1.0,
            "now": self.clock.ns,
            "meter": self.meter,
        }
        return Sources(**(values | fields))


def http_config(**changes):
    return msgspec.structs.replace(config().http, port=0, **changes)


@asynccontextmanager
async def serving(sources, **changes):
    server = Server(http_config(**changes), sources, build_registry(sources))
    url = await server.start()
    try:
        async with aiohttp.ClientSession(url) as session:
            yield session, server
    finally:
        await server.stop()


def redis_sink(url="redis://127.0.0.1:1"):
    outbox = Outbox(10, 30.0)
    return RedisSink(redis_config(url), "run1", outbox), outbox


# ------------------------------------------------------------------------------ verdicts


def facts(**changes):
    values = {
        "uptime_s": 100.0,
        "grace_s": 60.0,
        "required": {"binance": 1, "okx": 3},
        "lag_s": 0.1,
        "lag_limit_s": 5.0,
        "sinks": {"redis": True},
    }
    return Readiness(**(values | changes))


def test_alive_is_a_pump_that_took_something_lately():
    assert alive(0.2).ok
    assert alive(ALIVE_IDLE_S).ok
    assert not alive(ALIVE_IDLE_S + 0.1).ok
    assert "30" in alive(31.0).reasons[0]


def test_a_process_without_a_pump_is_alive_by_answering():
    assert alive(None).ok


def test_ready_is_every_required_venue_with_a_book_and_little_lag_and_a_sink():
    assert ready(facts()) == ready(facts(sinks={}))
    assert ready(facts()).ok
    assert ready(facts()).reasons == []


def test_a_required_venue_without_a_book_is_not_ready_and_is_named():
    verdict = ready(facts(required={"binance": 1, "okx": 0}))
    assert not verdict.ok
    assert verdict.reasons == ["okx: no book is synced"]


def test_a_start_under_way_is_not_ready_and_says_that_it_is_a_start():
    verdict = ready(facts(required={"okx": 0}, uptime_s=10.0))
    assert not verdict.ok
    assert verdict.reasons == ["okx: no book is synced; 10 s of 60 s for the start have passed"]


def test_a_start_that_has_synced_is_ready_before_the_grace_is_over():
    assert ready(facts(uptime_s=2.0)).ok


@pytest.mark.parametrize(("lag", "ok"), [(None, True), (5.0, True), (5.1, False)])
def test_a_lag_beyond_its_limit_is_not_ready(lag, ok):
    assert ready(facts(lag_s=lag)).ok is ok


@pytest.mark.parametrize(
    ("sinks", "ok"),
    [
        ({}, True),
        ({"redis": False}, False),
        ({"redis": False, "mqtt": True}, True),
        ({"redis": False, "mqtt": False}, False),
    ],
)
def test_one_working_sink_suffices_if_any_is_configured(sinks, ok):
    assert ready(facts(sinks=sinks)).ok is ok


def test_every_reason_is_told_at_once():
    verdict = ready(facts(required={"okx": 0}, lag_s=9.0, sinks={"redis": False}))
    assert len(verdict.reasons) == 3


def test_a_venue_that_is_not_required_is_not_waited_for():
    assert readiness(Daemon(required=False).sources(), http_config()).required == {}


def test_a_required_venue_counts_its_synced_books():
    daemon = Daemon()
    assert readiness(daemon.sources(), http_config()).required == {"binance": 0}
    daemon.sync()
    assert readiness(daemon.sources(), http_config()).required == {"binance": 1}
    daemon.tell(Gap(BTC, "sequence"))
    assert readiness(daemon.sources(), http_config()).required == {"binance": 0}


# -------------------------------------------------------------------------------- status


def test_the_status_shows_only_prices_that_are_true_now():
    daemon = Daemon()
    daemon.sync()
    daemon.tell(MarkPrice(BTC, 0, 100.5, 100.0))
    shown = status_of(daemon.sources(), http_config()).instruments[0]
    assert (shown.book, shown.best_bid, shown.best_ask) == ("synced", 100.0, 101.0)
    assert (shown.mark, shown.index, shown.mark_age_s) == (100.5, 100.0, 0.0)
    daemon.tell(Gap(BTC, "sequence"))
    daemon.pass_time(121)
    shown = status_of(daemon.sources(), http_config()).instruments[0]
    assert (shown.book, shown.best_bid, shown.best_ask) == ("stale", None, None)
    assert (shown.mark, shown.index, shown.mark_age_s) == (None, None, 121.0)


def test_the_status_names_silent_and_unsubscribed_streams():
    daemon = Daemon()
    streams = daemon.pipeline.codecs["binance"].streams.values()
    for stream in streams:
        stream.active = stream.channel != "book"
        stream.silent = stream.channel == "mark"
    daemon.tell(Silence(BTC, "mark", AT))
    shown = status_of(daemon.sources(), http_config()).instruments[0]
    assert shown.silent == ["mark"]
    assert shown.unsubscribed == ["book"]


def test_the_status_tells_recent_refusals_from_old_ones():
    daemon = Daemon()
    daemon.tell(*[Rejected("binance", "f", "schema")] * 3)
    before = dict(daemon.pipeline.engine.rejected)
    daemon.tell(Rejected("binance", "f", "schema"), Rejected("binance", "f", "refused"))
    rejected = status_of(daemon.sources(), http_config(), before).rejected["binance"]
    assert (rejected["schema"].total, rejected["schema"].recent) == (4, 1)
    assert (rejected["refused"].total, rejected["refused"].recent) == (1, 1)


def test_no_password_is_in_the_status_of_a_sink_that_has_one():
    sink, outbox = redis_sink("redis://user:hunter2@127.0.0.1:1")
    sources = Daemon().sources(sinks={"redis": sink}, outboxes={"redis": outbox})
    text = msgspec.json.encode(status_of(sources, http_config()))
    assert b"hunter2" not in text
    assert b"user" not in text


def test_a_sinks_last_success_is_measured_by_the_wall_clock_even_in_a_replay():
    sink, outbox = redis_sink()
    sink.last_success_at = time.time() - 5.0
    sources = Daemon().sources(sinks={"redis": sink}, outboxes={"redis": outbox})
    shown = status_of(sources, http_config()).sinks["redis"]
    assert 4.9 < shown.last_success_age_s < 30.0


def test_numbers_that_are_none_do_not_break_the_status():
    daemon = Daemon()
    daemon.pipeline.engine.instruments[BTC].liquidated_usd["long"] = float("nan")
    text = msgspec.json.encode(status_of(daemon.sources(), http_config()))
    assert json.loads(text)["instruments"][0]["liquidated_usd"]["long"] is None


# -------------------------------------------------------------------------------- server


async def test_every_page_of_the_landing_page_answers():
    daemon = Daemon()
    daemon.sync()
    async with serving(daemon.sources()) as (session, _):
        async with session.get("/") as response:
            page = await response.text()
            assert response.status == 200
            assert response.content_type == "text/html"
        for path in PAGES:
            assert f'href="{path}"' in page
            async with session.get(path) as response:
                assert response.status == 200, path


async def test_metrics_are_served_in_the_format_asked_for():
    async with serving(Daemon().sources()) as (session, _):
        async with session.get("/metrics") as response:
            assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert b"cascade_book_synced" in await response.read()
        accept = {"Accept": "application/openmetrics-text; version=1.0.0; charset=utf-8"}
        async with session.get("/metrics", headers=accept) as response:
            assert response.headers["Content-Type"].startswith("application/openmetrics-text")
            assert (await response.read()).endswith(b"# EOF\n")


async def test_a_pump_that_stands_still_is_not_healthy_and_a_dead_venue_is():
    daemon = Daemon()
    async with serving(daemon.sources()) as (session, _):
        async with session.get("/healthz") as response:
            assert response.status == 200, "no book is synced, and that is no reason"
        daemon.pass_time(ALIVE_IDLE_S + 1)
        async with session.get("/healthz") as response:
            assert response.status == 503
            assert (await response.json())["ok"] is False
        daemon.meter.advanced(daemon.clock.at)
        async with session.get("/healthz") as response:
            assert response.status == 200


async def test_readiness_comes_with_the_book_and_goes_with_it():
    daemon = Daemon()
    async with serving(daemon.sources()) as (session, _):
        async with session.get("/readyz") as response:
            assert response.status == 503
            assert "binance" in (await response.json())["reasons"][0]
        daemon.sync()
        async with session.get("/readyz") as response:
            assert response.status == 200
            assert await response.json() == {"ok": True, "reasons": []}
        daemon.tell(Gap(BTC, "sequence"))
        async with session.get("/readyz") as response:
            assert response.status == 503


async def test_a_lagging_engine_is_not_ready():
    daemon = Daemon()
    daemon.sync()
    async with serving(daemon.sources(), ready_lag_s=2.0) as (session, _):
        daemon.meter.advanced(daemon.clock.at - 3 * NS)
        async with session.get("/readyz") as response:
            assert response.status == 503
            assert "3.0 s" in (await response.json())["reasons"][0]


async def test_the_status_is_complete_json():
    daemon = Daemon()
    sink, outbox = redis_sink()
    queue = Queue(lambda: 3, 4096, lambda: 1)
    sources = daemon.sources(
        sinks={"redis": sink}, outboxes={"redis": outbox}, queues={"inbox": queue}
    )
    async with serving(sources) as (session, _), session.get("/status") as response:
        status = await response.json()
    assert status["run"] == "run1"
    assert status["shard"] == "2/8"
    assert status["config_sha256"] == "feed"
    assert status["alive"]["ok"]
    assert not status["ready"]["ok"]
    assert {feed["feed"] for feed in status["feeds"]} == {
        spec.name for spec in daemon.pipeline.codecs["binance"].feeds
    }
    assert status["instruments"][0]["instrument"] == BTC
    assert status["queues"]["inbox"] == {"length": 3, "limit": 4096, "waits": 1}
    assert status["sinks"]["redis"]["connected"] is False
    assert status["journal"] is None


async def test_every_answer_has_the_security_headers_and_no_cors():
    async with serving(Daemon().sources()) as (session, _):
        for method, path in (("GET", "/"), ("GET", "/metrics"), ("GET", "/no"), ("POST", "/")):
            origin = {"Origin": "https://example.org"}
            async with session.request(method, path, headers=origin) as response:
                assert response.headers.items() >= HEADERS.items(), path
                assert not [name for name in response.headers if name.startswith("Access-")]


@pytest.mark.parametrize("path", ["/no", "/metrics/", "/metrics//", "/api/v1/x"])
async def test_an_unknown_path_is_not_found_in_json(path):
    async with serving(Daemon().sources()) as (session, _), session.get(path) as response:
        assert response.status == 404
        assert (await response.json())["error"] == "not found"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/metrics", "/no"])
async def test_nothing_but_reading_is_allowed(method, path):
    async with (
        serving(Daemon().sources()) as (session, _),
        session.request(method, path) as response,
    ):
        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD"


async def test_head_has_the_headers_of_get_and_no_body():
    daemon = Daemon()
    async with serving(daemon.sources()) as (session, _):
        for path in ("/", "/healthz", "/readyz", "/status"):
            plain = {"Accept-Encoding": "identity"}
            async with (
                session.get(path, headers=plain) as whole,
                session.head(path, headers=plain) as head,
            ):
                assert head.status == whole.status
                assert head.content_type == whole.content_type
                assert await head.read() == b""
                assert int(head.headers["Content-Length"]) == len(await whole.read())


async def test_a_mistake_of_ours_is_a_plain_500_and_the_server_lives_on():
    daemon = Daemon()
    sources = daemon.sources(queues={"broken": Queue(lambda: 1 // 0, 1)})
    async with serving(sources) as (session, server):
        for count in (1, 2):
            async with session.get("/metrics") as response:
                assert response.status == 500
                assert await response.json() == {"error": "internal error"}
            assert server.errors == count
        async with session.get("/healthz") as response:
            assert response.status == 200


async def test_port_zero_becomes_a_free_port_and_two_servers_can_run():
    sources = Daemon().sources()
    async with serving(sources) as (_, one), serving(sources) as (_, two):
        assert one.port != two.port
        assert one.url == f"http://127.0.0.1:{one.port}/"


@pytest.mark.parametrize("host", ["0.0.0.0", "::1"])
async def test_the_url_of_another_host_can_be_opened(host):
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        async with (
            serving(Daemon().sources(), host=host) as (session, _),
            session.get("/") as response,
        ):
            assert response.status == 200
    except ServerError:
        if host == "::1":
            pytest.skip("no IPv6 here")
        raise


async def test_a_taken_port_is_an_error_that_says_what_to_change():
    sources = Daemon().sources()
    async with serving(sources) as (_, one):
        taken = msgspec.structs.replace(http_config(), port=one.port)
        other = Server(taken, sources, build_registry(sources))
        with pytest.raises(ServerError, match=rf"http\.port.*:{one.port}.*in use.*http\.enabled"):
            await other.start()


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host"])
async def test_an_address_that_is_not_ours_is_a_clear_error(host):
    sources = Daemon().sources()
    server = Server(http_config(host=host), sources, build_registry(sources))
    with pytest.raises(ServerError, match="cannot listen"):
        await server.start()


async def test_a_stopped_server_frees_its_port_and_leaves_no_task():
    sources = Daemon().sources()
    before = asyncio.all_tasks()
    async with serving(sources) as (_, server):
        port = server.port
    assert asyncio.all_tasks() == before
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    await server.stop()


async def test_rubbish_on_the_socket_harms_nobody():
    async with serving(Daemon().sources()) as (session, server):
        for rubbish in (b"\x00\xff\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(rubbish)
            writer.write_eof()
            await asyncio.wait_for(reader.read(), 60)
            writer.close()
        async with session.get("/healthz") as response:
            assert response.status == 200
