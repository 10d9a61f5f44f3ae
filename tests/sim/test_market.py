import hashlib

import msgspec
import numpy as np
import pytest

from monitor.sim.accounts import Kind
from monitor.sim.fundamental import Fundamental
from monitor.sim.market import NS, Market
from monitor.sim.parameters import ASSETS, FIRST
from monitor.sim.scenarios import NAMES, News, Scenario, scenario
from monitor.sim.truth import run_with_twin
from tests.sim.conftest import conservation

SMALL = 0.1


def digest(market, steps):
    running = hashlib.sha256()
    for _ in range(steps):
        running.update(msgspec.json.encode(market.step()))
        for contract in market.contracts:
            changes = market.book_changes(contract.venue, contract.asset)
            running.update(msgspec.json.encode(changes))
            running.update(msgspec.json.encode(market.ticker(contract.venue, contract.asset)))
    return running.hexdigest()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    def run(seed):
        return digest(Market(scenario("crash"), seed=seed, population=SMALL), 90)

    first = run(5)
    assert first == run(5)
    assert first != run(6)


@pytest.mark.parametrize("variant", ["first", "second"])
def test_everything_is_conserved_at_every_step_of_a_cascade(variant):
    market = Market(scenario("crash"), seed=2, variant=variant, population=SMALL)
    assert not any(conservation(market.accounts))
    closed = 0
    for _ in range(180):
        step = market.step()
        closed += len(step.liquidations)
        assert not any(conservation(market.accounts))
        n = market.accounts.count
        for c in market.contracts:
            lots = market.accounts.lots[c.asset_index, :n]
            here = market.accounts.venue[:n] == c.venue_index
            longs = int(lots[here & (lots > 0)].sum())
            assert longs == -int(lots[here & (lots < 0)].sum())
            assert longs == market.accounts.longs[c.index]
        assert all(t.lots > 0 for t in step.trades)
    assert closed > 100, "the run must have met liquidations to prove anything"


def test_ordinary_flow_alone_neither_thins_the_books_nor_runs_away():
    # Without news and volatility everything that moves is flow; it used to draw trend followers in,
    # whose trades drew in more of them, until this seed's prices were two percent away.
    dull = Scenario("calm", "flow only", {"volatility_scale": 0.02, "jumps_per_day": 0.0})
    market = Market(dull, seed=1)
    closed = sum(len(market.step().liquidations) for _ in range(840))
    assert np.abs(market.log_price()).max() < 0.005
    depth = sum(market.books.depth_usd(c.index, reach=0.01, bids=True) for c in market.contracts)
    full = sum(a.depth_usd for a in market.assets)
    assert 0.7 * full < depth < 1.3 * full
    assert closed < 30


def test_news_arrives_in_two_stages_and_in_full():
    news = (News(start_s=0.0, over_s=20.0, move=-0.01),)
    slow = msgspec.structs.replace(
        FIRST, volatility_scale=1e-6, jumps_per_day=0.0, slow_news_share=0.4, slow_news_sd=0.0
    )
    path = Fundamental(ASSETS, slow, seed=1, step_s=1.0, news=news)
    levels = [path.step().copy() for _ in range(3_000)]
    beta = np.array([a.beta for a in ASSETS])
    assert np.allclose(levels[-1], -100 * beta, atol=0.5)
    after_a_minute = levels[60] / (-100 * beta)
    assert (after_a_minute > 0.6).all()
    assert (after_a_minute < 0.8).all()


def test_funding_is_paid_between_the_sides_and_nothing_is_lost():
    hour = 3_600 * NS
    # Starts ten seconds before a full hour: Hyperliquid settles, the others do not.
    market = Market(scenario("calm"), seed=1, population=SMALL, epoch_ns=10 * hour - 10 * NS)
    cash, lots = market.accounts.cash.copy(), market.accounts.lots.copy()
    for _ in range(12):
        market.step()
    venue = market.accounts.venue
    holders = (market.accounts.kind == Kind.CARRY) & (cash > 0)
    # Who hedged in these seconds has other reasons for other cash.
    holders &= (market.accounts.lots[:, : len(cash)] == lots).all(axis=0)
    paid = market.accounts.cash[: len(cash)] != cash
    assert paid[holders & (venue == 3)].any()
    assert not paid[holders & (venue == 0)].any()
    assert not any(conservation(market.accounts))


def test_no_account_below_maintenance_is_left_alone():
    market = Market(scenario("crash"), seed=3, population=SMALL)
    for _ in range(150):
        step = market.step()
        marks = market.exchange.marks
        traders = np.nonzero(market.accounts.is_trader())[0]
        held = market.accounts.lots[:, traders].any(axis=0)
        assert held.all(), "an account without a position must have left"
        for record in step.liquidations:
            if record.is_final:
                row = np.nonzero(market.accounts.number == record.account)[0]
                live = row[market.accounts.is_trader()[row]] if len(row) else row
                a = market.contract(record.venue, record.asset).asset_index
                assert not market.accounts.lots[a, live].any()
    # Once the storm is over whoever is still below is waiting by rule, not forgotten.
    for _ in range(400):
        market.step()
    marks = market.exchange.marks
    traders = np.nonzero(market.accounts.is_trader())[0]
    equity, maintenance = market.accounts.margin(traders, marks)
    below = traders[equity < 0.5 * maintenance]
    assert len(below) <= market.engine.backlog + 5


def test_the_watch_list_finds_whom_a_full_scan_finds():
    market = Market(scenario("squeeze"), seed=4, population=SMALL)
    hits = 0
    for _ in range(140):
        market.step()
        marks = market.exchange.marks
        watched = set(market.watch.rows(marks).tolist())
        traders = np.nonzero(market.accounts.is_trader())[0]
        equity, maintenance = market.accounts.margin(traders, marks)
        due = traders[equity <= maintenance].tolist()
        hits += len(due)
        assert set(due) <= watched
    assert hits > 0


def test_twin_equals_the_run_when_nobody_is_liquidated():
    found = run_with_twin(scenario("calm"), seed=2, duration_s=120, population=SMALL)
    assert not found.records
    assert np.array_equal(found.actual, found.without)


def test_twin_differs_as_soon_as_somebody_is():
    found = run_with_twin(scenario("crash"), seed=2, duration_s=120, population=SMALL)
    assert found.records
    assert not np.array_equal(found.actual, found.without)
    first = next(i for i, usd in enumerate(found.liquidated_usd) if usd.any())
    assert np.array_equal(found.actual[:first], found.without[:first])


def test_books_are_never_crossed_and_changes_rebuild_them():
    market = Market(scenario("crash"), seed=1, step_ms=250, population=SMALL)
    mirrors = {}
    for c in market.contracts:
        book = market.book(c.venue, c.asset)
        mirrors[c.index] = (dict(book.bids), dict(book.asks))
    for i in range(250):
        market.step()
        for c in market.contracts:
            changes = market.book_changes(c.venue, c.asset)
            for side, levels in zip(mirrors[c.index], (changes.bids, changes.asks), strict=True):
                side.update(levels)
        if i % 50 == 0:
            for c in market.contracts:
                book = market.peek_book(c.venue, c.asset)
                assert book.bids[0][0] < book.asks[0][0]
                for side, levels in zip(mirrors[c.index], (book.bids, book.asks), strict=True):
                    assert {t: s for t, s in side.items() if s} == dict(levels)


def test_time_advances_by_the_step_from_the_epoch():
    market = Market(scenario("calm"), seed=0, step_ms=100, population=SMALL)
    ats = [market.step().at for _ in range(3)]
    assert ats == [market.epoch_ns + k * 100_000_000 for k in (1, 2, 3)]


def test_the_next_funding_lies_ahead_and_on_the_venues_grid():
    market = Market(scenario("calm"), seed=0, population=SMALL)
    for venue, hours in (("binance", 8), ("hyperliquid", 1)):
        ticker = market.ticker(venue, "BTC")
        assert 0 < ticker.next_funding_at - ticker.at <= hours * 3_600 * NS
        assert ticker.next_funding_at % (hours * 3_600 * NS) == 0


def test_the_outage_silences_one_venue_for_its_time():
    market = Market(scenario("venue-outage"), seed=1, population=SMALL)
    silent = []
    for second in range(1, 200):
        market.step()
        if market.is_silent("bybit"):
            silent.append(second)
        assert not market.is_silent("okx")
    assert silent == list(range(90, 180))


@pytest.mark.parametrize("name", NAMES)
def test_every_scenario_runs(name):
    market = Market(scenario(name, 3), seed=3, population=SMALL)
    for _ in range(30):
        market.step()
    assert not any(conservation(market.accounts))


def test_past_open_interest_is_todays_and_shows_when_the_crowd_came():
    market = Market(scenario("crash"), seed=3, population=SMALL)
    for contract in market.contracts:
        rows = market.past_interest(contract.venue, contract.asset)
        now = market.ticker(contract.venue, contract.asset).open_interest
        crowd = int(market.population.crowd[contract.index])
        assert [at for at, _ in rows] == [
            at for at, _ in market.past(contract.venue, contract.asset)
        ]
        assert rows[-1] == (market.at, now)
        assert 0 < crowd < now
        assert {lots for at, lots in rows if at <= market.at - 5_400 * NS} == {now - crowd}
        assert [lots for _, lots in rows] == sorted(lots for _, lots in rows)
    market.step()
    assert market.past_interest("binance", "BTC") == []


def test_without_a_crowd_past_open_interest_is_flat():
    market = Market(scenario("calm"), seed=3, population=SMALL)
    rows = market.past_interest("okx", "ETH")
    assert {lots for _, lots in rows} == {market.ticker("okx", "ETH").open_interest}
