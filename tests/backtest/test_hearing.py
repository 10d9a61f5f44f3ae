"""A simulated market told to the engine: everything public, nothing else."""

import msgspec
import pytest

from monitor.backtest.hearing import LEVELS, Hearing, configured
from monitor.backtest.tape import PRINTS
from monitor.core.engine import Engine
from monitor.events import NS, Risk
from monitor.sim.market import Market
from monitor.sim.parameters import ASSETS
from monitor.sim.scenarios import scenario

SOL = ASSETS[2]


def heard(name="crash", seconds=75, seed=4, publish_s=5):
    market = Market(scenario(name, seed), seed=seed, assets=(SOL,))
    hearing = Hearing(market, Engine(configured(publish_s)))
    messages, forced = [], {"long": 0.0, "short": 0.0}
    for _ in range(seconds):
        messages += hearing.second()
        for (_, side), usd in hearing.forced.items():
            forced[side] += usd
    return hearing, messages, forced


@pytest.fixture(scope="module")
def crash():
    return heard(seconds=100)


def test_the_engine_hears_every_venue_and_forms_an_outlook(crash):
    hearing, messages, _ = crash
    risks = [m.data for m in messages if isinstance(m.data, Risk)]
    assert len(risks) == 100 // 5 + 1
    assert risks[-1].quality == 1.0
    assert risks[-1].missing == []
    assert all(d.score is not None for d in risks[-1].directions)
    assert hearing.engine.rejected == {}


def test_open_interest_is_told_late_and_marks_at_once(crash):
    hearing, _, _ = crash
    market = hearing.market
    for state in hearing.engine.instruments.values():
        ticker = market.ticker(state.spec.venue, "SOL")
        assert state.mark == pytest.approx(ticker.mark * state.spec.tick)
        assert state.mark_at == market.at
        assert state.open_interest_at == market.at - market.at % (5 * NS)
    now = sum(market.accounts.longs[c.index] * c.lot_base for c in market.contracts)
    told = sum(s.open_interest_base for s in hearing.engine.instruments.values())
    assert told != pytest.approx(now, rel=1e-9)


def test_books_are_those_of_the_market_as_deep_as_the_venue_shows():
    hearing, _, _ = heard("calm", seconds=2)
    for state in hearing.engine.instruments.values():
        if state.book_at < hearing.market.at:
            continue
        true = hearing.market.peek_book(state.spec.venue, "SOL")
        lot = hearing.market.contract(state.spec.venue, "SOL").lot_base
        for side, levels in enumerate((true.bids, true.asks)):
            shown = [(round(t), q) for t, q in state.book.levels(side)]
            kept = levels[: LEVELS[state.spec.venue]]
            assert [t for t, _ in shown] == [t for t, _ in kept]
            assert [q for _, q in shown] == pytest.approx([n * lot for _, n in kept])


def test_prints_come_as_each_venue_gives_them(crash):
    hearing, messages, forced = crash
    told = [m.data for m in messages if m.kind == "liquidations"]
    assert forced["long"] > 1e6
    assert sum(p.usd for p in told) < forced["long"] + forced["short"]
    kinds = {(p.instrument.partition(":")[0], p.completeness) for p in told}
    assert kinds <= {*PRINTS.items()}
    assert ("hyperliquid", "tail_only") in kinds
    once = ("sampled_1s", "partial")
    seconds = [(p.instrument, p.sent_at) for p in told if p.completeness in once]
    assert len(seconds) == len(set(seconds))
    assert hearing.engine.assets["SOL"].conditions.liquidated_usd(hearing.market.at, "down")


def test_a_silent_venue_is_not_heard_until_it_is_back():
    hearing, _, _ = heard("venue-outage", seconds=120)
    state = hearing.engine.instruments["bybit:SOL"]
    assert hearing.market.is_silent("bybit")
    assert state.book.state == "stale"
    assert hearing.market.at - state.mark_at >= 30 * NS
    for _ in range(70):
        hearing.second()
    assert state.book.state == "synced"
    assert state.mark_at == hearing.market.at


def test_the_same_market_is_heard_the_same_way():
    encode = msgspec.json.encode
    assert encode(heard(seconds=20)[1]) == encode(heard(seconds=20)[1])


def test_a_market_that_has_moved_is_refused():
    market = Market(scenario("calm"), assets=(SOL,))
    market.step()
    with pytest.raises(ValueError, match="at its start"):
        Hearing(market, Engine(configured(5)))
