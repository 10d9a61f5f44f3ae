"""The whole daemon as its user runs it: a process, real sockets, a real Redis, signals."""

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from monitor.sinks.embedded import Embedded
from tests.fake_binance import PRICES, FakeBinance
from tests.test_recordings import MARK

CLI = [sys.executable, "-m", "monitor"]
PATIENCE_S = 120


def settings(path: Path, venue: FakeBinance, extra: str = "") -> Path:
    """A configuration file that points at the fake venue and switches the others off."""
    others = "".join(f"[venues.{n}]\nenabled = false\n" for n in ("bybit", "okx", "hyperliquid"))
    symbols = ", ".join(f'{symbol} = "{symbol[:3]}"' for symbol in PRICES)
    file = path / "monitor.toml"
    file.write_text(
        f"""state_directory = "{path / "state"}"
{others}
[venues.binance]
ws_url = "ws://{venue.url}"
http_url = "http://{venue.url}"
open_interest_interval_s = 0.5
instruments = {{ {symbols} }}
[engine]
tick_interval_ms = 50
publish_interval_ms = 200
status_interval_ms = 500
[journal]
flush_interval_ms = 100
[http]
port = 0
{extra}"""
    )
    return file


class Running:
    """A child process whose standard error is read line by line."""

    def __init__(self, process):
        self.process = process
        self.lines: list[str] = []
        self.reader = asyncio.create_task(self._read())

    async def _read(self):
        async for line in self.process.stderr:
            self.lines.append(line.decode().rstrip())

    async def said(self, prefix: str) -> str:
        """The rest of the first line with that prefix, once it is there."""

        def find():
            return next((line.removeprefix(prefix) for line in self.lines if prefix in line), None)

        return await eventually(find, self.lines)

    def event(self, name: str) -> dict:
        records = [json.loads(line) for line in self.lines if line.startswith("{")]
        return next(record for record in records if record["event"] == name)

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            code = await self.process.wait()
            await self.reader
        return code


async def eventually(check, context=None):
    """The first true result of a function, plain or async; fails after `PATIENCE_S`."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                result = check()
                if asyncio.iscoroutine(result):
                    result = await result
                if result:
                    return result
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"never happened: {context}")


@asynccontextmanager
async def started(*arguments: str, **environment: str):
    process = await asyncio.create_subprocess_exec(
        *CLI,
        *arguments,
        env=os.environ | environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    running = Running(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await running.reader


async def get(url: str, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url.rstrip("/") + path) as answer:
        return answer.status, await answer.text()


async def replay(*arguments: str, **environment: str) -> dict:
    process = await asyncio.create_subprocess_exec(
        *CLI,
        "replay",
        *arguments,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return json.loads(out)


async def test_a_live_run_publishes_true_state_and_its_journal_replays_to_the_same_digest(tmp_path):
    async with FakeBinance().serving() as venue:
        config = settings(tmp_path, venue)
        async with started("run", "--config", str(config)) as daemon:
            page = await daemon.said("HTTP: ")
            redis = Redis.from_url(await daemon.said("Redis: "))
            await eventually(lambda: ready(page), daemon.lines)
            (venue_depth,) = await eventually(lambda: depth_of_venues(redis), daemon.lines)
            assert await eventually(lambda: redis.xlen("cascade:{BTC}:liquidations"))
            status = json.loads(await eventually(lambda: redis.get("cascade:status")))
            await eventually(lambda: has_lines(page, *NUMBERS), NUMBERS)
            await redis.aclose()
            assert await daemon.stop() == 0
    assert venue_depth["instrument"] == "binance:BTCUSDT"
    assert venue_depth["mid"] == PRICES["BTCUSDT"]
    assert {i["book"] for i in status["data"]["instruments"]} <= {"synced", "syncing"}
    stopped = daemon.event("stopped")
    journal = str(tmp_path / "state" / "journal")
    for seed in ("0", "1"):
        summary = await replay(journal, PYTHONHASHSEED=seed)
        assert summary["digest"] == stopped["digest"]
        assert sum(summary["inputs"].values()) == stopped["inputs"]
    assert summary["instruments"]["binance:ETHUSDT"]["book"]["gaps"] == 0


NUMBERS = (
    'cascade_mark_price_usd{asset="BTC",venue="binance"} 50000.0',
    'cascade_open_interest_usd{asset="BTC",venue="binance"} 5.025e+06',
)


async def depth_of_venues(redis):
    """The venues of the newest depth, once there are any."""
    text = await redis.get("cascade:{BTC}:depth")
    return json.loads(text)["data"]["venues"] if text else None


async def has_lines(page, *lines):
    _, text = await get(page, "/metrics")
    return all(line in text for line in lines)


async def ready(page):
    return (await get(page, "/readyz"))[0] == 200


async def test_a_gap_a_cut_and_a_muted_stream_are_survived_and_told(tmp_path):
    async with FakeBinance().serving() as venue:
        venue.mute.add("ethusdt@markPrice@1s")
        config = settings(tmp_path, venue, "[redis]\nenabled = false\n")
        async with started("run", "--config", str(config)) as daemon:
            page = await daemon.said("HTTP: ")
            await eventually(lambda: ready(page), daemon.lines)
            venue.skip.add("BTCUSDT")
            assert await eventually(lambda: resynced(page, 1))
            await venue.cut("public")
            assert await eventually(lambda: resynced(page, 2))
            assert await eventually(lambda: ready(page))
            _, metrics = await get(page, "/metrics")
            assert await daemon.stop() == 0
    assert 'cascade_book_gaps_total{venue="binance"} 1.0' in metrics
    assert 'cascade_mark_price_usd{asset="ETH"' not in metrics


async def resynced(page, at_least):
    _, text = await get(page, "/metrics")
    lines = text.splitlines()
    line = next(line for line in lines if line.startswith("cascade_book_resyncs_total{"))
    synced = [line for line in lines if line.startswith("cascade_book_synced{")]
    return float(line.split()[-1]) >= at_least and all(line.endswith(" 1.0") for line in synced)


async def test_a_killed_daemon_takes_its_redis_along_and_leaves_a_journal_that_replays(tmp_path):
    async with FakeBinance().serving() as venue:
        config = settings(tmp_path, venue)
        async with started("run", "--config", str(config)) as daemon:
            page = await daemon.said("HTTP: ")
            url = await daemon.said("Redis: ")
            await eventually(lambda: ready(page), daemon.lines)
            await eventually(lambda: journal_bytes(tmp_path / "state" / "journal") > 5000)
            daemon.process.kill()
            await daemon.process.wait()
            await eventually(lambda: gone(url))
    summary = await replay(str(tmp_path / "state" / "journal"))
    assert summary["instruments"]["binance:BTCUSDT"]["book"]["state"] == "synced"


def journal_bytes(path):
    return sum(file.stat().st_size for file in path.glob("*"))


async def gone(url):
    redis = Redis.from_url(url)
    try:
        await redis.ping()
    except (RedisError, OSError):
        return True
    finally:
        await redis.aclose()
    return False


async def test_redis_killed_under_a_replay_is_counted_and_written_anew_when_it_returns(tmp_path):
    async with FakeBinance().serving() as venue:
        config = settings(tmp_path, venue, "[redis]\nenabled = false\n")
        async with started("record", "--config", str(config), "--out", str(tmp_path / "j")) as live:
            await live.said("feed_opened")
            await eventually(lambda: journal_bytes(tmp_path / "j") > 5000)
            await asyncio.sleep(2)
            assert await live.stop() == 0
    server = Embedded(tmp_path / "outside")
    url = await server.start()
    arguments = ["replay", str(tmp_path / "j"), "--sinks", "--stay", "--speed", "0.1"]
    other = {"CASCADE_REDIS__URL": url, "CASCADE_HTTP__PORT": "0"}
    async with started(*arguments, **other) as player, Redis.from_url(url) as redis:
        page = await player.said("HTTP: ")
        await eventually(lambda: redis.get("cascade:{BTC}:depth"), player.lines)
        # It stays away until a write has failed: between two writes it may be back unnoticed.
        os.kill(server.pid, signal.SIGKILL)
        await eventually(lambda: failed(page))
        _, known = await get(page, "/api/v1/assets/BTC/depth")
        supervision = asyncio.create_task(server.run())
        # What is newer than that cannot have been in its file.
        await eventually(lambda: written(url, json.loads(known)["seq"]), player.lines)
        assert await player.stop() == 0
    supervision.cancel()
    await asyncio.wait([supervision])
    await server.stop()
    assert server.restarts == 1


async def written(url, after):
    async with Redis.from_url(url) as redis:
        try:
            text = await redis.get("cascade:{BTC}:depth")
        except RedisError:
            return False
    return text is not None and json.loads(text)["seq"] > after


async def failed(page):
    _, text = await get(page, "/metrics")
    lines = [li for li in text.splitlines() if li.startswith("cascade_sink_errors_total{")]
    return sum(float(line.split()[-1]) for line in lines) > 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--config", "nowhere.toml"], 78, "nowhere.toml"),
        (["check-config", "--shard", "3/2"], 2, "--shard 3/2"),
        (["replay", "nowhere.journal"], 2, "nowhere.journal"),
        (["import", "tardis", "nowhere", "--out", "x"], 2, "nowhere"),
        (["healthcheck"], 1, "127.0.0.1:1/"),
        (["replay", "x", "--stay"], 2, "--stay"),
        (["record", "--out", "README.md"], 2, "README.md"),
    ],
)
async def test_what_cannot_be_done_is_said_in_a_line_with_its_exit_code(arguments, code, message):
    # Nobody serves on port 1, whatever else runs on this machine.
    async with started(*arguments, CASCADE_HTTP__PORT="1") as process:
        assert await process.process.wait() == code
        await process.reader
        assert message in process.lines[-1]
        assert not [line for line in process.lines if "Traceback" in line]


async def test_a_taken_port_or_state_directory_is_one_line_and_no_traceback(tmp_path):
    async with FakeBinance().serving() as venue:
        config = settings(tmp_path, venue)
        async with started("run", "--config", str(config)) as first:
            page = await first.said("HTTP: ")
            async with started("run", "--config", str(config)) as second:
                assert await second.process.wait() == 2
                await second.reader
            port = page.rstrip("/").rpartition(":")[2]
            other = {"CASCADE_STATE_DIRECTORY": str(tmp_path / "b"), "CASCADE_HTTP__PORT": port}
            async with started("run", "--config", str(config), **other) as third:
                assert await third.process.wait() == 2
                await third.reader
            assert await first.stop() == 0
    assert "embedded Redis" in second.lines[-1]
    assert f"cannot listen on 127.0.0.1:{port}" in third.lines[-1]
    assert not [line for line in second.lines + third.lines if "Traceback" in line]


async def test_a_paced_replay_stops_when_it_is_told_to(tmp_path):
    journal = tmp_path / "j.journal"
    lines = [f"1700000{n:03d}000000 {MARK}\n" for n in range(600)]
    (tmp_path / "r").write_text("".join(lines))
    async with started("import", "hftbacktest", str(tmp_path / "r"), "--out", str(journal)) as made:
        assert await made.process.wait() == 0
    summary = tmp_path / "s.json"
    arguments = ["replay", str(journal), "--speed", "1", "--sinks", "--summary", str(summary)]
    other = {"CASCADE_REDIS__ENABLED": "false", "CASCADE_HTTP__PORT": "0"}
    async with started(*arguments, **other) as player:
        page = await player.said("HTTP: ")
        await eventually(lambda: has_mark(page))
        assert await player.stop() == 0
    told = json.loads(summary.read_text())
    assert told["interrupted"] is True
    assert told["inputs"]["frame"] < 600


async def has_mark(page):
    return "cascade_mark_price_usd{" in (await get(page, "/metrics"))[1]


async def test_a_damaged_journal_is_replayed_up_to_the_damage_and_says_so(tmp_path):
    lines = [f"1700000{n:05d}0000 {MARK}\n" for n in range(20_000)]
    (tmp_path / "r").write_text("".join(lines))
    journal = tmp_path / "j.journal"
    async with started("import", "hftbacktest", str(tmp_path / "r"), "--out", str(journal)) as made:
        assert await made.process.wait() == 0
    content = bytearray(journal.read_bytes())
    content[len(content) // 2] ^= 0xFF
    journal.write_bytes(content)
    async with started("replay", str(journal)) as player:
        assert await player.process.wait() == 2
        await player.reader
    assert "the journal is damaged" in player.lines[-1]
