"""Values for the tests of the sinks, with a default for everything but the point."""

import asyncio
import time
from collections.abc import Callable

from monitor.config import JournalConfig, PipelineConfig, RedisConfig
from monitor.events import (
    Alert,
    Band,
    Body,
    Depth,
    InstrumentStatus,
    Liquidation,
    Message,
    Status,
    VenueDepth,
)
from monitor.journal import VERSION, Header
from tests.builders import engine_config

START = 1_790_000_000_000_000_000

PATIENCE_S = 60.0
"""How long a busy machine may take over what should happen at once."""


def depth(asset="BTC", seq=1, at=START, usd=1_500_000.0):
    band = Band(
        distance=0.01, bid_usd=usd, ask_usd=900_000.0, bid_complete=True, ask_complete=False
    )
    venue = VenueDepth(instrument=f"okx:{asset}-USDT-SWAP", mid=67_000.5, bands=[band])
    body = Depth(bands=[band], venues=[venue], missing=[f"bybit:{asset}USDT"])
    return message("depth", asset, seq, at, body)


def alert(seq=1, asset="BTC", **fields):
    values = {
        "id": f"{asset}:down:1",
        "kind": "risk",
        "action": "raised",
        "asset": asset,
        "direction": "down",
        "phase": "warning",
        "previous": "calm",
        "since": START,
        "at": START,
        "severity": "warning",
        "score": 0.7,
        "probability_15m": 0.05,
        "reasons": [],
        "confidence": 0.9,
        "silent": False,
        "held": "",
        "text": f"{asset} down: warning (was calm)",
    }
    return message("alerts", asset, seq, START + seq, Alert(**(values | fields)))


def liquidation(asset="BTC", seq=1, at=None, usd=48_500.0):
    body = Liquidation(
        instrument=f"bybit:{asset}USDT",
        sent_at=START - 1_000_000,
        side="long",
        quantity=0.5,
        usd=usd,
        price=97_000.0,
        price_kind="bankruptcy",
        fill_price=None,
        completeness="all",
        raw_side="Buy",
    )
    return message("liquidations", asset, seq, START + seq * 1_000_000 if at is None else at, body)


def status(seq=1, at=START):
    instrument = InstrumentStatus(
        instrument="okx:BTC-USDT-SWAP",
        book="synced",
        book_age_s=0.1,
        mark_age_s=1.0,
        open_interest_age_s=None,
        silent=[],
    )
    return message(
        "status", "", seq, at, Status(feeds={"okx.public.0": True}, instruments=[instrument])
    )


def message(kind, asset, seq, at, body: Body):
    return Message(kind=kind, asset=asset, seq=seq, at=at, data=body)


def redis_config(url, **changes):
    values = {
        "enabled": True,
        "url": url,
        "prefix": "cascade",
        "state_ttl_s": 30.0,
        "stream_length": 10_000,
        "heatmap_rows": 8640,
        "save_interval_s": 60.0,
        "queue_length": 10_000,
        "timeout_s": 30.0,
    }
    return RedisConfig(**(values | changes))


def journal_config(**changes):
    values = {
        "enabled": True,
        "directory": "journal",
        "rotate_mb": 64,
        "keep_mb": 1000,
        "flush_interval_ms": 1000,
    }
    return JournalConfig(**(values | changes))


def header(run="run1", started_at=START):
    pipeline = PipelineConfig(venues={}, engine=engine_config(), instruments=[])
    return Header(
        version=VERSION, run=run, file=0, started_at=started_at, software="test", pipeline=pipeline
    )


async def eventually(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Wait until a condition holds, which may be a coroutine function."""
    deadline = time.monotonic() + patience_s
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.01)
