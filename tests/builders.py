"""Values for tests that default everything but the point."""

from pathlib import Path
from typing import Any

import msgspec

from monitor.config import Config, EngineConfig, PipelineConfig, VenueConfig, merge, parse_toml
from monitor.events import (
    DirectionRisk,
    Instrument,
    Mechanism,
    Probability,
    Range,
    Reason,
    Risk,
)

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


def direction_risk(direction: str = "down", **fields: Any) -> DirectionRisk:
    """An outlook in which everything is known."""
    known: dict[str, Any] = {
        "direction": direction,
        "phase": "warning",
        "phase_age_s": 30.0,
        "alert": f"BTC:{direction}:1790000000",
        "held": "",
        "abstaining": "",
        "silent": False,
        "score": 0.62,
        "using": "map",
        "probabilities": [
            Probability(300, 0.02, 0.02, 0.01),
            Probability(900, 0.05, 0.05, 0.02),
            Probability(3600, 0.1, 0.1, 0.06),
        ],
        "mechanism": Mechanism(
            critical_shock=0.012,
            critical_usd=45e6,
            landing=0.041,
            beyond=False,
            reach=0.25,
            loop_gain=1.4,
            gain_from=63_900.0,
            gain_to=63_100.0,
            supercritical_share=0.2,
            amplification=1.7,
            jump=Range(0.028, 0.01, 0.05),
            liquidated_usd=Range(212e6, 90e6, 400e6),
            psi=1.5,
            elasticity_depth=2.1,
            elasticity_fuel=-1.1,
        ),
        "normal_move": 0.018,
        "fuel_usd": 212e6,
        "depth_usd": 140e6,
        "depth_ratio": 0.55,
        "refill_usd_s": 120e3,
        "components": dict.fromkeys(
            (
                "fuel",
                "loop_gain",
                "proximity",
                "thinness",
                "refill_failure",
                "heat",
                "crowding",
                "contagion",
                "plumbing",
            ),
            0.5,
        ),
        "printed_usd": 1.5e6,
        "reasons": [Reason("fuel", "$212 M of longs liquidate within 1.8 %", 0.6)],
    }
    return DirectionRisk(**(known | fields))


def risk(**fields: Any) -> Risk:
    """A risk in which everything is known."""
    known: dict[str, Any] = {
        "mark": 64_000.0,
        "quality": 1.0,
        "confidence": 0.6,
        "coverage": 0.97,
        "volatility": {60: 0.0006, 300: 0.0014, 900: 0.0025, 3600: 0.005},
        "funding_rate": 0.0001,
        "contagion": 0.4,
        "missing": [],
        "faults": [],
        "model": "test",
        "directions": [direction_risk("down"), direction_risk("up", phase="calm", score=0.1)],
    }
    return Risk(**(known | fields))
