"""The simulated venues over real sockets, with our own feeds and pump, and with rough clients."""

import asyncio
import json
import socket
import time
from contextlib import asynccontextmanager
from functools import partial

import aiohttp
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from monitor.app import Pump, clock
from monitor.config import PipelineConfig
from monitor.feeds.http import HttpFeed
from monitor.feeds.inbox import Inbox
from monitor.feeds.ticker import ticker
from monitor.feeds.websocket import WebSocketFeed
from monitor.pipeline import Pipeline
from monitor.sim import serve
from monitor.sim.market import Market
from monitor.sim.parameters import ASSETS
from monitor.sim.scenarios import CALM, Outage
from monitor.sim.serve import SimulatedVenues, load_venues
from monitor.sim.wire.faults import Faults
from monitor.sinks.metrics import Meter
from tests.builders import config, engine_config
from tests.sim.wire.desk import SYMBOLS, Desk

PATIENCE_S = 30


def small(scenario=CALM, **options):
    options = {"seed": 4, "step_ms": 100, "population": 0.02, "assets": ASSETS[:1]} | options
    return Market(scenario, epoch_ns=time.time_ns(), **options)


async def eventually(check, context=None):
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not check():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"never happened: {context() if context else check}")


class Daemon:
    """Our feeds, pump and pipeline, as `monitor.app` builds them."""

    def __init__(self, venues):
        chosen = {
            name: msgspec.structs.replace(
                config().venues[name],
                ws_url=ws_url,
                http_url=http_url,
                open_interest_interval_s=0.5,
                instruments={SYMBOLS[name].format(a.name): a.name for a in venues.market.assets},
            )
            for name, (ws_url, http_url) in venues.urls.items()
        }
        self.market = venues.market
        self.pipeline = Pipeline(PipelineConfig(chosen, engine_config(tick_interval_ms=50), []))
        self.inbox, now = Inbox(4096), clock()
        codecs = self.pipeline.codecs
        self.feeds = {
            spec.name: WebSocketFeed(spec, self.inbox, now)
            for codec in codecs.values()
            for spec in codec.feeds
        }
        self.https = {v: HttpFeed(v, codec.http, self.inbox, now) for v, codec in codecs.items()}
        self.pump = Pump(self.pipeline, Meter(0.05, now), None, self.feeds, self.https)
        self.now = now

    state, book, differences = Desk.state, Desk.book, Desk.differences

    @asynccontextmanager
    async def running(self):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(f.run()) for f in self.feeds.values()]
            tasks += [group.create_task(h.run()) for h in self.https.values()]
            tasks.append(group.create_task(ticker(self.inbox, 50, self.now)))
            tasks.append(group.create_task(self.pump.run(self.inbox)))
            yield self
            for task in tasks:
                task.cancel()

    def books(self):
        return {n: s.book.state for n, s in self.pipeline.engine.instruments.items()}

    def all_synced(self):
        states = self.books()
        return len(states) == len(self.https) and set(states.values()) == {"synced"}


async def test_our_daemon_knows_the_truth_over_real_sockets_through_cuts():
    faults = Faults(seed=2, gap=0.02, malformed=0.01, cuts_at_s=(2.0,), until_s=4.0)
    # At 200 ms a step, every step shows in every book but Hyperliquid's.
    async with SimulatedVenues(small(step_ms=200), faults=faults) as venues:
        async with Daemon(venues).running() as daemon:
            await eventually(lambda: venues.market.at > venues.market.epoch_ns + 4 * 10**9)
            await eventually(daemon.all_synced, daemon.books)
            await asyncio.sleep(1.2)
            await eventually(daemon.all_synced, daemon.books)
            venues.pause()
            for venue, depth in (("binance", 900), ("bybit", 1000), ("okx", 400)):
                differences = partial(daemon.differences, venue, "BTC", depth)
                await eventually(lambda told=differences: told() == [], differences)
            # A book of Hyperliquid is up to half a second old, whatever stands still now.
            assert daemon.state("hyperliquid", "BTC").book.state == "synced"
            true = venues.market.ticker("binance", "BTC").open_interest * 0.001
            await eventually(
                lambda: daemon.state("binance", "BTC").open_interest_base == pytest.approx(true)
            )
        cut = sum(i.counts["cut"] + i.counts["cut_mid_frame"] for i in venues.injectors.values())
        assert cut >= 4
        assert sum(sum(f.losses.values()) for f in daemon.feeds.values()) >= 4
    assert venues.counts.slow_clients == venues.counts.expelled == 0


async def test_a_silent_venue_keeps_its_sockets_and_says_nothing():
    scenario = msgspec.structs.replace(CALM, outages=(Outage("bybit", 1.0, 4.0),))
    async with SimulatedVenues(small(scenario)) as venues:
        ws_url, http_url = venues.urls["bybit"]
        start = venues.market.epoch_ns
        async with connect(f"{ws_url}/v5/public/linear") as client:
            await client.send('{"op":"subscribe","args":["orderbook.50.BTCUSDT"]}')
            await eventually(lambda: venues.market.is_silent("bybit"))
            while True:
                try:
                    async with asyncio.timeout(0.4):
                        await client.recv()
                except TimeoutError:
                    break
            await client.send('{"op":"ping"}')
            async with aiohttp.ClientSession() as session:
                asked = time.monotonic()
                async with session.get(f"{http_url}/v5/market/time") as answer:
                    assert answer.status == 200
                assert time.monotonic() - asked > 0.3
            assert venues.market.at - start > 4.9e9
            async with asyncio.timeout(PATIENCE_S):
                while json.loads(await client.recv()).get("op") != "ping":
                    pass


async def test_a_venue_silent_for_long_answers_503(monkeypatch):
    monkeypatch.setattr(serve, "OUTAGE_HANG_S", 0.05)
    scenario = msgspec.structs.replace(CALM, outages=(Outage("okx", 0.0, 1e6),))
    async with SimulatedVenues(small(scenario)) as venues, aiohttp.ClientSession() as session:
        await eventually(lambda: venues.counts.steps > 0)
        async with session.get(f"{venues.urls['okx'][1]}/api/v5/public/time") as answer:
            assert answer.status == 503


async def test_http_is_slow_and_throttled_when_asked_to_be():
    faults = {
        "okx": Faults(throttle=1.0, retry_after_s=3),
        "bybit": Faults(slow_http=1.0, slow_http_s=0.3),
    }
    async with (
        SimulatedVenues(small(), faults=faults) as venues,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(f"{venues.urls['okx'][1]}/api/v5/public/time") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "3")
        asked = time.monotonic()
        async with session.get(f"{venues.urls['bybit'][1]}/v5/market/time") as answer:
            assert answer.status == 200
        assert time.monotonic() - asked >= 0.3
        assert venues.counts.answers == {429: 1, 200: 1}


async def test_other_paths_refuse_the_handshake():
    async with SimulatedVenues(small()) as venues:
        with pytest.raises(InvalidStatus):
            await connect(f"{venues.urls['bybit'][0]}/v5/public/spot")
        assert venues.counts.refused == 1


async def test_a_client_that_does_not_read_is_cut(monkeypatch):
    monkeypatch.setattr(serve, "QUEUE_MAX", 20)
    async with load_venues(40, speed=3.0, changes=400) as venues:
        host, _, port = venues.urls["binance"][0].removeprefix("ws://").partition(":")
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.setblocking(False)
        await asyncio.get_running_loop().sock_connect(reader, (host, int(port)))
        names = "/".join(f"s{n:03d}usdt@depth@100ms" for n in range(40))
        url = f"ws://{host}:{port}/public/stream?streams={names}"
        async with connect(url, sock=reader, max_queue=1, close_timeout=0.1, ping_interval=None):
            await eventually(lambda: venues.counts.slow_clients == 1, lambda: venues.counts)


async def pester(client):
    while True:
        await client.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        await client.recv()


async def test_too_many_requests_end_the_connection():
    async with SimulatedVenues(small()) as venues:
        async with connect(f"{venues.urls['binance'][0]}/public/stream") as client:
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(pester(client), PATIENCE_S)
        await eventually(lambda: venues.counts.expelled == 1)


async def test_a_connection_that_is_not_kept_alive_is_cut(monkeypatch):
    monkeypatch.setattr("monitor.sim.wire.okx.Okx.silence_s", 0.5)
    async with SimulatedVenues(small()) as venues:
        async with connect(f"{venues.urls['okx'][0]}/ws/v5/public") as client:
            with pytest.raises(ConnectionClosed):
                async with asyncio.timeout(PATIENCE_S):
                    await client.recv()
        assert venues.counts.idle == 1


async def test_time_that_the_machine_cannot_keep_is_given_up_and_counted():
    async with SimulatedVenues(small(), speed=1e6) as venues:
        await eventually(lambda: venues.counts.late >= 3)
    assert venues.counts.late_s > 0
    assert venues.counts.steps <= 1_000


async def test_the_load_mode_serves_every_venue():
    load = load_venues(3, venues=("binance", "okx", "hyperliquid", "bybit"))
    async with load as venues, Daemon(venues).running() as daemon:
        await eventually(
            lambda: len(daemon.books()) == 12 and set(daemon.books().values()) == {"synced"},
            daemon.books,
        )
