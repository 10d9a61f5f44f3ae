import os
import subprocess
import sys

import numpy as np
import pytest

from monitor.sim.liquidation import Liquidation
from monitor.sim.market import EPOCH_NS
from monitor.sim.realism import PLAIN, Row, Run, events, measure, record, shocked, table

SECOND = 1_000_000_000


def run_of(log_price, *, liquidations=(), usd=()):
    prices = np.repeat(np.asarray(log_price, dtype=float)[:, None], 3, axis=1)
    return Run(
        log_price=prices,
        depth_usd=np.full_like(prices, 1e6),
        fuel=[0.3],
        liquidations=list(liquidations),
        usd=list(usd),
        epoch_ns=EPOCH_NS,
        days=len(log_price) * 5 / 86_400,
        volume_ratio=0.1,
        interest_usd=1e6,
    )


def liquidation(second):
    return Liquidation(
        at=EPOCH_NS + second * SECOND,
        venue="binance",
        asset="BTC",
        account=1,
        side="long",
        lots=1,
        trigger_tick=1,
        bankruptcy_tick=1,
        filled=1,
        fill_tick=1.0,
        taken=0,
        adl=0,
        fund_loss=0,
        is_partial=False,
        is_final=True,
    )


def figure(rows, name):
    return next(r for r in rows if r.figure == name)


def test_every_figure_is_computed_on_real_runs_and_misses_are_shown():
    plain = record(PLAIN, seed=1, hours=0.1)
    news = record(shocked(2), seed=2, hours=0.05)
    rows = measure([plain], [news])
    assert len(rows) == 23
    assert figure(rows, "volume / OI per day").ok
    assert figure(rows, "kurtosis of 1 min returns").count == 3
    text = table(rows)
    assert all(r.figure in text for r in rows)
    assert f"{sum(r.ok for r in rows)} of 23 figures" in text
    assert text.count("  NO") == sum(not r.ok for r in rows)


def test_a_figure_without_observations_is_a_miss():
    assert not Row("x", float("nan"), 0.0, 1.0, "0-1", 0).ok
    assert not Row("x", 0.5, 0.0, 1.0, "0-1", 0).ok
    assert Row("x", 0.5, 0.0, 1.0, "0-1", 1).ok
    assert not Row("x", 1.5, 0.0, 1.0, "0-1", 1).ok


def test_the_throttle_factor_counts_what_the_latest_per_second_hides():
    # Three in one second print as one; a lone one prints in full: 4 true over 2 printed.
    forced = [liquidation(100), liquidation(100), liquidation(100), liquidation(200)]
    found = run_of(np.arange(1_000) % 24 * 1e-5, liquidations=forced, usd=[1.0] * 4)
    rows = measure([found], [])
    assert figure(rows, "throttle factor, one print per second").measured == pytest.approx(2.0)


def test_an_event_is_found_with_its_distance_time_and_rebound():
    noise = np.random.default_rng(1).normal(0, 1e-4, 1_000).cumsum() * 0.2
    price = noise.copy()
    price[51 * 12 :] = price[51 * 12 - 1]
    # Trigger minute 50 falls by 2 %, the low comes 2 min later 1 % deeper; 60 % of the rebound
    # of 0.5 % happens within the first minute.
    start = 51 * 12
    price[start - 6 : start] -= 0.02
    price[start : start + 24] -= np.linspace(0.02, 0.03, 24)
    price[start + 24 : start + 36] -= np.linspace(0.03, 0.027, 12)
    price[start + 36 :] -= 0.025
    (event,) = [e for e in events(run_of(price)) if e.asset == 0]
    assert event.direction == -1
    assert event.distance == pytest.approx(0.01, abs=0.002)
    assert event.minutes_to_low == pytest.approx(2.0, abs=0.3)
    assert event.rebound_share == pytest.approx(0.6, abs=0.2)


def test_bytes_do_not_depend_on_hash_seed_or_vector_instructions():
    code = (
        "import hashlib, msgspec\n"
        "from monitor.sim.market import Market\n"
        "from monitor.sim.scenarios import scenario\n"
        "m = Market(scenario('crash'), seed=9, population=0.2)\n"
        "h = hashlib.sha256()\n"
        "for _ in range(100): h.update(msgspec.json.encode(m.step()))\n"
        "print(h.hexdigest(), m.accounts.count)\n"
    )
    plain = {"PYTHONHASHSEED": "1"}
    other = {
        "PYTHONHASHSEED": "2",
        # Unknown names only warn, so the list serves every x86 and does nothing elsewhere.
        "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 X86_V3 X86_V4 AVX512F AVX512_SKX AVX512_ICL",
    }
    found = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for environment in (plain, other)
    }
    assert len(found) == 1
