import numpy as np
import pytest

from monitor.sim.market import Market
from monitor.sim.scenarios import scenario
from monitor.sim.truth import NONE, liquidation_ticks, liquidations, positions, write_parquet


@pytest.fixture
def market():
    market = Market(scenario("calm"), seed=1, population=0.1)
    for _ in range(20):
        market.step()
    return market


def test_the_root_is_the_first_tick_at_which_the_engine_would_act(market):
    accounts, marks = market.accounts, market.exchange.marks
    traders = np.nonzero(accounts.is_trader())[0]
    checked = 0
    for a in range(3):
        rows = traders[accounts.lots[a, traders] != 0]
        ticks = liquidation_ticks(market, rows, a)
        rows, ticks = rows[ticks != NONE][:400], ticks[ticks != NONE][:400]
        for row, tick in zip(rows.tolist(), ticks.tolist(), strict=True):
            c = int(accounts.venue[row]) * 3 + a
            inward = 1 if accounts.lots[a, row] > 0 else -1
            for price, expected in ((tick, True), (tick + inward, False)):
                trial = marks.copy()
                trial[c] = price
                if not expected and price == marks[c] + inward:
                    continue
                equity, maintenance = accounts.margin(np.array([row]), trial)
                assert bool(equity[0] <= maintenance[0]) is expected
            checked += 1
    assert checked > 500


def test_the_engine_liquidates_at_the_true_price_and_not_before(market):
    accounts, engine, exchange = market.accounts, market.engine, market.exchange
    traders = np.nonzero(accounts.is_trader())[0]
    rows = traders[accounts.lots[0, traders] > 0]
    ticks = liquidation_ticks(market, rows, 0)
    best = int(
        np.argmax(np.where(ticks == NONE, 0, ticks / exchange.marks[accounts.venue[rows] * 3]))
    )
    row, tick = rows[best : best + 1], int(ticks[best])
    c = int(accounts.venue[row[0]]) * 3
    number = int(accounts.number[row[0]])
    exchange.marks[c] = tick + 1
    engine.records = []
    engine.run(row, 1.0)
    assert engine.records == []
    exchange.marks[c] = tick
    engine.run(row, 1.0)
    assert [r.account for r in engine.records] == [number]


def test_the_table_of_positions_matches_open_interest(market):
    table = positions(market)
    assert len({len(column) for column in table.values()}) == 1
    here = (table["venue"] == "binance") & (table["asset"] == "BTC")
    longs = table["size_base"][here & (table["size_base"] > 0)].sum()
    interest = market.ticker("binance", "BTC").open_interest
    assert 0.5 < longs / (interest * market.contract("binance", "BTC").lot_base) <= 1.0
    long = (table["size_base"] > 0) & ~np.isnan(table["liquidation_usd"])
    assert (table["liquidation_usd"][long] <= table["mark_usd"][long]).all()
    assert (table["equity_usd"] > table["maintenance_usd"]).mean() > 0.99


def test_truth_is_written_as_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    market = Market(scenario("crash"), seed=1, population=0.1)
    records = []
    for _ in range(120):
        records.extend(market.step().liquidations)
    write_parquet(positions(market), tmp_path / "positions.parquet")
    write_parquet(liquidations(market, records), tmp_path / "liquidations.parquet")
    back = parquet.read_table(tmp_path / "liquidations.parquet")
    assert back.num_rows == len(records) > 0
    assert set(back.column("side").to_pylist()) <= {"long", "short"}
