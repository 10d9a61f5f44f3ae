"""Values for tests that default everything but the point."""

from pathlib import Path
from typing import Any

import msgspec

from monitor.config import Config, EngineConfig, PipelineConfig, VenueConfig, merge, parse_toml
from monitor.events import (
    DirectionQuantities,
    DirectionRisk,
    Instrument,
    Mechanism,
    Probability,
    Quantities,
    Range,
    Reason,
    Risk,
    StressPoint,
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
        "prior": "published",
        "status_interval_ms": 5000,
    }
    return EngineConfig(**(defaults | fields))


def pipeline_config(**venues: VenueConfig) -> PipelineConfig:
    return PipelineConfig(
        venues or {"binance": venue_config(instruments={"BTCUSDT": "BTC", "ETHUSDT": "ETH"})},
        engine_config(),
        [instrument(), instrument("ETHUSDT", asset="ETH", tick=0.01)],
    )


def direction_quantities(**fields: Any) -> DirectionQuantities:
    """Quantities of a direction in which everything is known."""
    known: dict[str, Any] = {
        "forced_flow_share_ratio": 0.08,
        "liquidation_distance_ratio": {"0.1": 0.02, "0.5": 0.09},
        "effective_leverage_ratio": 11.0,
        "margin_call_velocity_usd_per_second": 40e3,
        "liquidity_exhaustion_seconds": 95.0,
        "book_gap_ratio": 0.05,
        "slippage_ratio": {"1000000": 0.0004, "10000000": 0.003},
        "impact_square_root_ratio": {"1000000": 0.0005, "10000000": 0.0015},
        "impact_disagreement": False,
        "uncovered_liquidation_usd": 2e5,
        "stress": [
            StressPoint(shock, survival, shock / survival, 1e9 * shock)
            for shock in (0.01, 0.03, 0.05, 0.1)
            for survival in (0.5, 0.25, 0.08)
        ],
        "tail_ratio": 12.0,
        "insurance_shortfall_usd": 3e6,
        "venue_shortfall_usd": {"binance": 2e6},
        "insurance_runway_ratio": {"binance": 400.0},
        "post_sweep_reversion_ratio": 0.2,
        "liquidity_withdrawal_ratio": 0.1,
        "cluster_approach_ratio": 0.03,
        "engine_backlog_usd": 1e6,
        "engine_throughput_usd_per_second": 2e6,
        "depeg_liquidated_usd": {"0.02": 1e5, "0.1": 3e7},
        "contagion_export_ratio": 0.3,
        "contagion_import_ratio": 0.2,
    }
    return DirectionQuantities(**(known | fields))


def quantities(**fields: Any) -> Quantities:
    """Quantities of an asset of which everything is known."""
    known: dict[str, Any] = {
        "taker_imbalance_usd": -3e6,
        "entry_concentration_ratio": 0.02,
        "depth_dispersion_ratio": 0.8,
        "depth_commonality_ratio": 0.6,
        "venue_price_gap_ratio": 0.0003,
        "mark_index_gap_ratio": 0.0004,
        "mark_lag_seconds": 1.0,
        "spot_share_ratio": 0.9,
        "jump_intensity_per_hour": 0.1,
        "downside_share_ratio": 0.55,
        "funding_zscore": 1.2,
        "open_interest_zscore": 0.7,
        "liquidation_efficiency_ratio": 0.9,
        "liquidation_slicing_ratio": 1.6,
        "first_slice_ratio": 0.8,
        "cross_margin_coupling_ratio": 1.9,
        "liquidation_correlation_ratio": {"ETH": 2.1},
        "stress_beta_ratio": {"ETH": 0.8},
        "return_commonality_ratio": 0.7,
        "feed_stuck": 0,
        "stablecoin_deviation_ratio": 0.0002,
        "regime_turbulent_ratio": 0.15,
        "maintenance_margin_ratio": {"binance": 0.004},
        "liquidation_fee_ratio": {"binance": 0.0125},
        "insurance_fund_usd": {"binance": 8e8},
        "risk_limit_changes": 0,
        "adl_events": {"binance": 0},
    }
    return Quantities(**(known | fields))


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
            critical_requote=0.025,
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
        "quantities": direction_quantities(),
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
        "contagion_learnt": 0.9,
        "missing": [],
        "faults": [],
        "model": "test",
        "directions": [direction_risk("down"), direction_risk("up", phase="calm", score=0.1)],
        "quantities": quantities(),
    }
    return Risk(**(known | fields))
