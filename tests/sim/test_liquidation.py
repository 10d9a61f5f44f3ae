import numpy as np
import pytest

from monitor.sim.accounts import Kind
from monitor.sim.market import Market
from monitor.sim.rules import MICRO
from monitor.sim.scenarios import scenario

VENUES = ("binance", "bybit", "okx", "hyperliquid")


@pytest.mark.parametrize("venue", VENUES)
def test_nobody_is_liquidated_while_equity_exceeds_maintenance(desk, venue):
    desk.trader(venue, usd=50_000, leverage=10)
    desk.move_mark(venue, -0.08)
    assert desk.run() == []


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("side", ["long", "short"])
def test_a_small_account_below_maintenance_is_closed_whole_and_leaves(desk, venue, side):
    row = desk.trader(venue, usd=50_000, leverage=20, side=side)
    # Hyperliquid's maintenance is higher, and further down its backstop takes over.
    move = 0.038 if venue == "hyperliquid" else 0.047
    desk.move_mark(venue, -move if side == "long" else move)
    (record,) = desk.run()
    assert record.side == side
    assert record.is_final
    assert not record.is_partial
    assert record.filled == record.lots
    assert desk.accounts.kind[row] == Kind.FREE
    assert not desk.accounts.lots[:, row].any()
    assert not any(desk.imbalance())


@pytest.mark.parametrize("venue", VENUES)
def test_the_trigger_lies_exactly_where_equity_meets_maintenance(desk, venue):
    row = desk.trader(venue, usd=50_000, leverage=10)
    c = desk.contract(venue).index
    for mark in range(int(desk.exchange.marks[c]), 0, -1 if venue == "hyperliquid" else -10):
        desk.exchange.marks[c] = mark
        equity, maintenance = desk.accounts.margin(
            desk.accounts.is_trader().nonzero()[0], desk.exchange.marks
        )
        expected = equity[0] <= maintenance[0]
        if expected:
            break
        if mark % 500 == 0:
            assert desk.run() == []
    # The textbook price (exchanges.md 0.4) for 10x, entry 100 000 and the venue's first tier.
    rate = {"binance": 0.004, "bybit": 0.00385, "okx": 0.0045, "hyperliquid": 0.0125}[venue]
    tick_usd = desk.contract(venue).tick_usd
    assert mark * tick_usd == pytest.approx(90_000 / (1 - rate), abs=2.0)
    assert len(desk.run()) == 1
    assert desk.accounts.kind[row] == Kind.FREE


def test_binance_returns_what_is_left_to_the_trader_and_charges_its_fee(desk):
    desk.trader("binance", usd=50_000, leverage=20)
    before = desk.accounts.deposits[0]
    fund = desk.accounts.role(0, Kind.FUND)
    money = int(desk.accounts.cash[fund])
    desk.move_mark("binance", -0.047)
    (record,) = desk.run()
    fee = int(desk.accounts.cash[fund]) - money
    assert record.filled == record.lots
    assert 0 < fee <= 50_000 * 0.0125 * MICRO
    assert desk.accounts.deposits[0] <= before


@pytest.mark.parametrize("venue", ["bybit", "okx"])
def test_bybit_and_okx_keep_what_a_better_fill_than_bankruptcy_leaves(desk, venue):
    v = VENUES.index(venue)
    desk.trader(venue, usd=50_000, leverage=20)
    before = desk.accounts.deposits[v]
    money = int(desk.accounts.cash[desk.accounts.role(v, Kind.FUND)])
    desk.move_mark(venue, -0.047)
    (record,) = desk.run()
    assert record.fill_tick > record.bankruptcy_tick
    assert desk.accounts.deposits[v] == before
    assert int(desk.accounts.cash[desk.accounts.role(v, Kind.FUND)]) > money


def test_binance_hands_to_the_fund_what_the_book_did_not_take_above_bankruptcy(desk):
    desk.trader("binance", usd=20e6, leverage=20)
    # The mark lags: the book is already below the bankruptcy price.
    desk.move_mark("binance", -0.06)
    desk.move_mark("binance", 0.96 / 0.94 - 1, book=False)
    (record,) = desk.run()
    assert record.filled < record.lots
    assert record.taken == record.lots - record.filled
    fund = desk.accounts.role(0, Kind.FUND)
    assert int(desk.accounts.lots[0, fund]) == record.taken
    assert not any(desk.imbalance())


def test_bybit_steps_a_large_position_down_one_tier_before_taking_it_over(desk):
    row = desk.trader("bybit", usd=1_000_000, leverage=25)
    desk.move_mark("bybit", -0.0345)
    (record,) = desk.run()
    assert record.is_partial
    left_usd = desk.exchange.value(record_index(desk, record), int(desk.accounts.lots[0, row]))
    assert left_usd <= 800_000 * MICRO
    assert left_usd > 790_000 * MICRO


def test_okx_cuts_a_tier_three_position_by_two_tiers_and_repeats(desk):
    row = desk.trader("okx", usd=4_000_000, leverage=25)
    desk.move_mark("okx", -0.032)
    (record,) = desk.run()
    assert record.is_partial
    # 40 BTC lie in tier 3 (25 to 60 BTC); two tiers down ends at 10 BTC.
    assert int(desk.accounts.lots[0, row]) * 0.0001 == pytest.approx(10.0)


def test_okx_takes_everything_when_not_even_the_lowest_tier_would_be_covered(desk):
    row = desk.trader("okx", usd=4_000_000, leverage=25)
    desk.move_mark("okx", -0.0385)
    (record,) = desk.run()
    assert record.is_final
    assert desk.accounts.kind[row] == Kind.FREE


def test_hyperliquid_sells_a_fifth_then_the_rest_after_thirty_seconds(desk):
    row = desk.trader("hyperliquid", usd=500_000, leverage=20)
    lots = int(desk.accounts.lots[0, row])
    desk.move_mark("hyperliquid", -0.0385)
    (first,) = desk.run()
    assert first.is_partial
    assert first.filled == -(-lots // 5)
    # Keep it just below maintenance, above the backstop: it must wait for the cooldown.
    desk.accounts.pay_in(row, -keep_below(desk, row))
    assert desk.run(10) == []
    (second,) = desk.run(25)
    assert second.filled == lots - first.filled


def test_hyperliquids_backstop_takes_an_account_below_two_thirds_of_maintenance(desk):
    row = desk.trader("hyperliquid", usd=500_000, leverage=20)
    desk.move_mark("hyperliquid", -0.045)
    (record,) = desk.run()
    assert record.filled == 0
    assert record.taken == record.lots
    assert desk.accounts.kind[row] == Kind.FREE
    assert int(desk.accounts.lots[0, desk.accounts.role(3, Kind.FUND)]) == record.taken


def test_an_empty_fund_makes_the_most_profitable_opposite_account_pay_with_its_position(desk):
    fund = desk.accounts.role(0, Kind.FUND)
    desk.accounts.pay_in(fund, -int(desk.accounts.cash[fund]))
    desk.trader("binance", usd=1_000_000, leverage=20)
    timid = desk.trader("binance", usd=2_000_000, leverage=2, side="short")
    bold = desk.trader("binance", usd=2_000_000, leverage=20, side="short")
    before = int(desk.accounts.lots[0, bold])
    desk.move_mark("binance", -0.06)
    (record,) = desk.run()
    assert record.adl == record.lots
    assert int(desk.accounts.lots[0, bold]) == before + record.adl
    assert int(desk.accounts.lots[0, timid]) == before
    assert [t.kind for t in desk.exchange.transfers] == ["adl"]
    assert not any(desk.imbalance())


def test_an_account_deleveraged_while_in_the_queue_is_examined_again(desk):
    fund = desk.accounts.role(0, Kind.FUND)
    desk.accounts.pay_in(fund, -int(desk.accounts.cash[fund]))
    desk.trader("binance", usd=1_000_000, leverage=20)
    # A cross account: its short on BTC wins, its long on ETH has lost more than everything.
    row = desk.trader("binance", usd=1_000_000, leverage=10, side="short", kind=Kind.CROSS)
    eth = desk.contract("binance", "ETH")
    mark = int(desk.exchange.marks[eth.index])
    lots = round(500_000 * MICRO) // (mark * eth.unit)
    desk.exchange.move(desk.accounts.role(0, Kind.MAKER), row, eth.index, lots, mark)
    desk.move_mark("binance", -0.08)
    desk.move_mark("binance", -0.35, asset="ETH")
    first, *_ = desk.run()
    assert first.adl == first.lots
    assert int(desk.accounts.lots[0, row]) == 0
    assert not any(desk.imbalance())
    desk.run()
    assert not desk.accounts.lots[:, row].any()


def test_a_fund_that_takes_a_loss_records_it(desk):
    desk.trader("binance", usd=1_000_000, leverage=20)
    desk.move_mark("binance", -0.06)
    (record,) = desk.run()
    assert record.taken == record.lots
    assert record.fund_loss == pytest.approx(10_000 * MICRO, rel=0.05)


def test_profit_on_one_asset_protects_a_cross_account_on_another(desk):
    row = desk.trader("binance", usd=100_000, leverage=10, kind=Kind.CROSS)
    contract = desk.contract("binance", "ETH")
    mark = int(desk.exchange.marks[contract.index])
    lots = round(100_000 * MICRO) // (mark * contract.unit)
    desk.exchange.move(desk.accounts.role(0, Kind.MAKER), row, contract.index, -lots, mark)
    desk.move_mark("binance", -0.2)
    desk.move_mark("binance", -0.2, asset="ETH")
    assert desk.run() == []
    desk.move_mark("binance", 0.25, asset="ETH")
    records = desk.run()
    assert records
    assert all(r.account == int(desk.accounts.number[row]) for r in records)


def test_a_depeg_of_the_collateral_liquidates_without_any_price_move(desk):
    row = desk.trader("binance", usd=100_000, leverage=20, kind=Kind.CROSS)
    desk.accounts.collateral_ppm[row] = MICRO
    assert desk.run() == []
    desk.accounts.haircut_ppm[0] = 950_000
    assert len(desk.run()) == 1


def test_throughput_leaves_the_rest_in_the_queue_for_the_next_step(desk):
    for _ in range(5):
        desk.trader("binance", usd=50_000, leverage=20)
    desk.engine._throughput = [60_000 * MICRO] * 12
    desk.move_mark("binance", -0.047)
    assert len(desk.run()) == 2
    assert desk.engine.backlog == 3
    assert len(desk.run()) == 2
    assert len(desk.run()) == 1


def record_index(desk, record):
    return desk.contract(record.venue, record.asset).index


def keep_below(desk, row):
    """Money to take away so that equity stands at 90 % of maintenance."""

    equity, maintenance = desk.accounts.margin(np.array([row]), desk.exchange.marks)
    return int(equity[0]) - int(maintenance[0]) * 9 // 10


def test_one_accounts_margin_equals_that_of_the_whole_table():
    market = Market(scenario("depeg"), seed=5, population=0.05)
    for _ in range(100):
        market.step()
    accounts, marks = market.accounts, market.marks.mark
    rows = np.nonzero(accounts.is_trader())[0]
    equity, maintenance = accounts.margin(rows, marks)
    assert accounts.haircut_ppm.any()
    one = [accounts.margin_of(row, marks) for row in rows.tolist()]
    assert one == list(zip(equity.tolist(), maintenance.tolist(), strict=True))


def test_the_queue_of_deleveraging_serves_several_accounts_of_one_step(desk):
    fund = desk.accounts.role(0, Kind.FUND)
    desk.accounts.pay_in(fund, -int(desk.accounts.cash[fund]))
    for _ in range(3):
        desk.trader("binance", usd=1_000_000, leverage=20)
    bold = desk.trader("binance", usd=1_500_000, leverage=20, side="short")
    timid = desk.trader("binance", usd=2_000_000, leverage=2, side="short")
    before = int(desk.accounts.lots[0, timid])
    desk.move_mark("binance", -0.06)
    records = desk.run(10.0)
    assert len(records) == 3
    assert all(r.adl == r.lots for r in records)
    assert desk.accounts.kind[bold] == Kind.FREE
    missing = sum(r.adl for r in records) * 2 // 3
    assert int(desk.accounts.lots[0, timid]) - before == pytest.approx(missing * 0.75, rel=0.01)
    assert not any(desk.imbalance())
