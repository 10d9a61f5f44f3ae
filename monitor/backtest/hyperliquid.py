"""The map's shape against Hyperliquid account snapshots (real positions, biased to whales).

    python -m monitor.backtest.hyperliquid ../shared/data

Nobody recorded the trades of those days, so the map can only be warm-started from five-minute
prices before the snapshot, with the shipped prior; what is graded is its shape within 8 % against
the exchange's own liquidation prices. Nothing is fitted to these positions.
"""

import csv
import gzip
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.backtest.heatmap import REACH, WIDTH, spearman, wasserstein
from monitor.core.heatmap.map import Map, Parameters
from monitor.events import NS, Candle, Instrument, Tier

Floats = NDArray[np.float64]

LEVERAGE: Final = {"BTC": 40.0, "ETH": 25.0, "SOL": 20.0}
_SNAPSHOTS: Final = 8
_HISTORY_NS: Final = 14 * 86_400 * NS


def grade(data: Path, coin: str) -> dict[str, Any]:
    """Mean Wasserstein-1 and Spearman by model over snapshots spread over the recording."""
    rows = _positions(data, coin)
    candles = _candles(data, coin)
    times = sorted({r[0] for r in rows})
    step = max(1, len(times) // _SNAPSHOTS)
    found: dict[str, list[tuple[float, float]]] = {}
    count = 0
    for at in times[step - 1 :: step]:
        price = next((c.close for c in reversed(candles) if c.at <= at), None)
        if price is None:
            continue
        now = [r for r in rows if r[0] == at]
        count += len(now)
        models = _models(coin, at, price, candles)
        edges = WIDTH * np.arange(round(REACH / WIDTH) + 1, dtype=np.float64)
        for side in (0, 1):
            own = [(p, v) for _, s, p, v in now if s == side]
            away = np.log(np.array([p for p, _ in own]) / price) * (1 if side else -1)
            usd = [v for _, v in own]
            truth = np.histogram(away, edges, weights=usd)[0]
            if np.count_nonzero(truth) < 5:
                continue
            for name, sides in models.items():
                scores = (wasserstein(truth, sides[side], edges), spearman(truth, sides[side]))
                found.setdefault(name, []).append(scores)
    graded = {
        name: {
            "wasserstein": float(np.mean([w for w, _ in s])),
            "spearman": float(np.mean([r for _, r in s])),
            "comparisons": len(s),
        }
        for name, s in found.items()
    }
    return {"coin": coin, "positions": count, "models": graded}


def _models(coin: str, at: int, price: float, candles: Sequence[Candle]) -> dict[str, Any]:
    top = LEVERAGE[coin]
    spec = Instrument(
        name=f"hyperliquid:{coin}",
        venue="hyperliquid",
        symbol=coin,
        asset=coin,
        kind="linear",
        contract=1.0,
        tick=0.1,
        lot=1e-5,
        tiers=(Tier(0.0, None, 0.5 / top, 0.0, top),),
    )
    count = round(REACH / WIDTH)
    sides = {"map": 1.0, "cohorts alone": 1.0, "climatology": 0.0}
    found: dict[str, Any] = {"uniform": [np.ones(count)] * 2}
    for name, blend in sides.items():
        chosen = Parameters() if name == "map" else Parameters(blend=blend)
        m = Map(spec, parameters=chosen)
        m.history([c for c in candles if at - _HISTORY_NS <= c.at <= at])
        m.mark(at, price)
        m.open_interest(at, 30_000.0)
        e = m.estimate(at)
        assert e is not None, "mark and open interest are given"
        here = int(np.floor(np.log(price) / WIDTH)) - e.first // 5
        found[name] = [e.usd[0][here - np.arange(count)], e.usd[1][here + np.arange(count)]]
    return found


def _positions(data: Path, coin: str) -> list[tuple[int, int, float, float]]:
    """(hour, side, the exchange's liquidation price, USD) of every position that has one."""
    parquet = import_module("pyarrow.parquet")
    table: Mapping[str, list[Any]] = parquet.read_table(
        data / "hl_whale_positions" / "positions.parquet"
    ).to_pydict()
    found = []
    for ts, c, way, price, usd in zip(
        table["ts"],
        table["coin"],
        table["direction"],
        table["liquidation_px"],
        table["position_value"],
        strict=True,
    ):
        if c == coin and price and price > 0:
            hour = int(ts.timestamp()) // 3_600 * 3_600 * NS
            found.append((hour, 0 if way == "Long" else 1, float(price), float(usd)))
    return found


def _candles(data: Path, coin: str) -> list[Candle]:
    """Five-minute closes: Binance's open interest in USD over coins is its mark."""
    path = data / "hl_reaper" / "history" / f"{coin}_oi_5m.csv.gz"
    closes: list[tuple[int, float]] = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            at, price = _row(row)
            closes.append((at, price))
    closes.sort()
    return [
        Candle(at, min(before, price), max(before, price), price)
        for (_, before), (at, price) in pairwise(closes)
    ]


def _row(row: Mapping[str, str]) -> tuple[int, float]:
    return int(row["t"]) * (NS // 1_000), float(row["oi_usd"]) / float(row["oi"])


if __name__ == "__main__":
    report = [grade(Path(sys.argv[1]), c) for c in ("BTC", "ETH", "SOL")]
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n")
