"""`demo` as its user runs it: simulated venues in a process of their own, the unchanged daemon."""

import json

import pytest
from msgspec import structs
from redis.asyncio import Redis

from monitor import demo as module
from monitor.events import NS, Tick
from monitor.feeds.replay import JournalFiles
from monitor.sinks import embedded
from monitor.sinks.embedded import Embedded, EmbeddedError
from tests.builders import config
from tests.test_daemon import eventually, get, gone, ready, replay, started

VENUES = ("binance", "bybit", "okx", "hyperliquid")


async def test_the_demo_syncs_every_book_fills_redis_and_metrics_and_replays(tmp_path):
    settings = {"CASCADE_STATE_DIRECTORY": str(tmp_path), "CASCADE_HTTP__PORT": "0"}
    async with started("demo", "--scenario", "calm", "--seed", "3", **settings) as demo:
        page = await demo.said("HTTP: ")
        url = await demo.said("Redis: ")
        await eventually(lambda: ready(page), demo.lines)
        await eventually(lambda: all_synced(page), demo.lines)
        async with Redis.from_url(url) as redis:
            depth = json.loads(await eventually(lambda: redis.get("cascade:{BTC}:depth")))
        metrics = await eventually(lambda: with_marks(page), demo.lines)
        assert await demo.stop() == 0
        await eventually(lambda: gone(url))
    assert {v["instrument"].split(":")[0] for v in depth["data"]["venues"]} == set(VENUES)
    for venue in VENUES:
        assert f'cascade_book_gaps_total{{venue="{venue}"}} 0.0' in metrics
    summary = await replay(str(tmp_path / "demo" / "journal"))
    assert summary["digest"] == demo.event("stopped")["digest"]


async def test_a_second_demo_is_refused_and_leaves_the_first_one_its_data(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "LOCK_PATIENCE_S", 0.1)
    first = Embedded(tmp_path / "redis")
    settings = structs.replace(config(), state_directory=str(tmp_path))
    async with Redis.from_url(await first.start()) as redis:
        await redis.set("kept", "yes")
        with pytest.raises(EmbeddedError, match="in use"):
            await module.run(settings, [], name="calm", seed=1, speed=1.0, duration_s=1.0,
                             on_stop=lambda _: None)  # fmt: skip
    await first.stop()
    again = Embedded(tmp_path / "redis")
    async with Redis.from_url(await again.start()) as redis:
        assert await redis.get("kept") == b"yes"
    await again.stop()


async def with_marks(page):
    _, text = await get(page, "/metrics")
    marks = [f'cascade_mark_price_usd{{asset="ETH",venue="{venue}"}}' for venue in VENUES]
    return text if all(mark in text for mark in marks) else None


async def all_synced(page):
    _, text = await get(page, "/metrics")
    synced = [line for line in text.splitlines() if line.startswith("cascade_book_synced{")]
    return len(synced) == 12 and all(line.endswith(" 1.0") for line in synced)


async def test_a_demo_at_another_speed_runs_on_the_markets_clock(tmp_path):
    settings = {"CASCADE_STATE_DIRECTORY": str(tmp_path), "CASCADE_HTTP__PORT": "0"}
    arguments = ("--scenario", "calm", "--speed", "2", "--duration", "8")
    async with started("demo", *arguments, **settings) as demo:
        await demo.said("HTTP: ")
        assert await demo.process.wait() == 0
    files = JournalFiles([tmp_path / "demo" / "journal"])
    ticks = [record.at / NS for record in files if isinstance(record, Tick)]
    # In 8 s the market lives 16 s, at 4 ticks a second; a busy machine misses some of them, and
    # may be late to end.
    lived_s = ticks[-1] - ticks[0]
    assert 8.5 < lived_s < 32
    assert len(ticks) <= 4 * lived_s + 2
    assert not files.holes
