"""Values for tests that default everything but the point."""

from pathlib import Path
from typing import Any

import msgspec

from monitor.config import Config, EngineConfig, PipelineConfig, VenueConfig, merge, parse_toml
from monitor.events import Instrument

SHIPPED = "config/monitor.toml"
AT = 1_700_000_000 * 1_000_000_000


def instrument(symbol: str = "BTCUSDT", **fields: Any) -> Instrument:
    venue = fields.setdefault("venue", "binance")
    defaults: dict[str, Any] = {
        "name": f"{venue}:{symbol}",
        "asset": "BTC",
        "kind": "linear",
        "contract": 1.0,
        "tick": 0.1,
        "lot": 0.001,
        "funding_interval_hours": 8.0,
    }
    return Instrument(symbol=symbol, **(defaults | fields))


def config(extra: str = "") -> Config:
    """The shipped configuration with a TOML text laid over it."""
    text = Path(SHIPPED).read_text(encoding="utf-8")
    return merge([parse_toml(text, SHIPPED), parse_toml(extra, "test")])[0]


def venue_config(name: str = "binance", **fields: Any) -> VenueConfig:
    return msgspec.structs.replace(config().venues[name], **fields)


def engine_config(**fields: int) -> EngineConfig:
    defaults = {
        "tick_interval_ms": 250,
        "publish_interval_ms": 1000,
        "venue_interval_ms": 5000,
        "heatmap_row_interval_ms": 10_000,
        "status_interval_ms": 5000,
    }
    return EngineConfig(**(defaults | fields))


def pipeline_config(**venues: VenueConfig) -> PipelineConfig:
    return PipelineConfig(
        venues or {"binance": venue_config(instruments={"BTCUSDT": "BTC", "ETHUSDT": "ETH"})},
        engine_config(),
        [instrument(), instrument("ETHUSDT", asset="ETH", tick=0.01)],
    )
