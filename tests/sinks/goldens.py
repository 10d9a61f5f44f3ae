"""One message of every kind, as it is written; `docs/messages.md` shows the same ones."""

from monitor.events import (
    HORIZONS_S,
    Alert,
    AtRisk,
    Forecast,
    ForecastVerdict,
    Heatmap,
    HeatmapRow,
    Message,
    Probability,
    Reason,
    Undelivered,
)
from tests.builders import direction_risk, risk
from tests.sinks.builders import START, depth, liquidation, message, status

RUN = "01J9Z3"
SECOND = 1_000_000_000


def heatmap(seq=4711, at=START + 123_456_000, venue=""):
    body = Heatmap(
        name=venue or "BTC",
        first_price=63_360.0,
        log_step=0.005,
        n=4,
        long_usd=[2.5e6, 11e6, 0.0, 0.0],
        short_usd=[0.0, 0.0, 7e6, 1.5e6],
        long_low=[1e6, 6e6, 0.0, 0.0],
        long_high=[4e6, 17e6, 0.0, 0.0],
        short_low=[0.0, 0.0, 4e6, 0.5e6],
        short_high=[0.0, 0.0, 11e6, 3e6],
        scale_low=0.7,
        scale_high=1.4,
        mark=64_000.0,
        coverage=0.97,
        heard=0.4,
        confidence=0.35,
        provenance="warm_start",
        at_risk=[AtRisk(distance=0.01, long_usd=13.5e6, short_usd=8.5e6)],
        venues=[venue] if venue else ["binance", "okx"],
        missing=[] if venue else ["bybit:BTCUSDT"],
    )
    return Message("heatmap", "BTC", seq, at, body, venue)


def heatmap_row(seq=360, at=START):
    body = HeatmapRow(
        mark=64_000.0,
        first_price=63_360.0,
        log_step=0.005,
        long_usd=[2_500_000, 11_000_000, 0, 0],
        short_usd=[0, 0, 7_000_000, 1_500_000],
    )
    return message("heatmap:log", "BTC", seq, at, body)


def outlook(seq=4711, at=START + 123_456_000, **fields):
    up = direction_risk(
        "up",
        phase="unknown",
        phase_age_s=900.0,
        alert="",
        score=None,
        mechanism=None,
        normal_move=None,
        fuel_usd=None,
        depth_usd=None,
        depth_ratio=None,
        refill_usd_s=None,
        probabilities=[Probability(horizon, None, None, None) for horizon in HORIZONS_S],
        components=dict.fromkeys(direction_risk().components),
        printed_usd=None,
        quantities=None,
        reasons=[Reason("unknown", "unknown: fuel, depth, liquidations, the forecast", 0.0)],
    )
    return message(
        "risk",
        "BTC",
        seq,
        at,
        risk(
            **({"quantities": None, "directions": [direction_risk(quantities=None), up]} | fields)
        ),
    )


def forecast(seq=7, at=START):
    body = Forecast(
        id="BTC:down:900:1790000000",
        asset="BTC",
        direction="down",
        horizon_s=900,
        at=at,
        due=at + 900 * SECOND,
        probability=0.05,
        using="map",
        p_map=0.05,
        p_baseline=0.02,
        p_climatology=0.001,
        abstaining="",
    )
    return message("forecasts", "BTC", seq, at, body)


def verdict(seq=31, at=START + 960 * SECOND):
    body = ForecastVerdict(
        id="BTC:down:900:1790000000",
        asset="BTC",
        direction="down",
        horizon_s=900,
        forecast_at=START,
        at=at,
        probability=0.05,
        outcome=True,
        brier=0.9025,
        log_score=2.995732273553991,
    )
    return message("forecasts", "BTC", seq, at, body)


def alert(seq=3, at=START, **fields):
    values = {
        "id": "BTC:down:1790000000",
        "kind": "risk",
        "action": "raised",
        "asset": "BTC",
        "direction": "down",
        "phase": "warning",
        "previous": "watch",
        "since": at,
        "at": at,
        "severity": "warning",
        "score": 0.62,
        "probability_15m": 0.05,
        "reasons": [
            Reason("fuel", "$212 M of longs liquidate within 1.8 %", 0.6),
            Reason(
                "depth", "the bid absorbs $140 M within 1.8 %, 45 % below its 7-day normal", 0.45
            ),
        ],
        "confidence": 0.6,
        "silent": False,
        "held": "",
        "text": "BTC down: warning (was watch): $212 M of longs liquidate within 1.8 %; "
        "the bid absorbs $140 M within 1.8 %, 45 % below its 7-day normal",
    }
    values |= fields
    return message("alerts", values["asset"], seq, at, Alert(**values))


def quality_alert():
    fault = "binance:BTCUSDT: no open interest for ten minutes"
    return alert(
        seq=4,
        at=START + 60 * SECOND,
        id="BTC:open_interest_stale:binance:BTCUSDT:1790000030",
        kind="quality",
        direction=None,
        phase=None,
        previous=None,
        since=START + 30 * SECOND,
        score=None,
        probability_15m=None,
        reasons=[
            Reason("open_interest_stale", "binance:BTCUSDT: no open interest for ten minutes", 0.0)
        ],
        confidence=None,
        text=f"BTC binance:BTCUSDT: open interest stale: {fault}",
        code="open_interest_stale",
        subject="binance:BTCUSDT",
    )


def undelivered(seq=1, at=START + 40 * SECOND):
    body = Undelivered(alert_seq=3, url="https://example.org", reason="client_error")
    return message("undelivered", "BTC", seq, at, body)


MESSAGES = {
    "depth": depth(seq=4711, at=START + 123_456_000),
    "heatmap": heatmap(),
    "heatmap-venue": heatmap(seq=942, at=START + 123_456_000, venue="okx"),
    "heatmap-log": heatmap_row(),
    "risk": outlook(),
    "liquidations": liquidation(seq=88),
    "alerts": alert(),
    "alerts-quality": quality_alert(),
    "undelivered": undelivered(),
    "forecasts": forecast(),
    "forecasts-verdict": verdict(),
    "status": status(seq=12),
}
