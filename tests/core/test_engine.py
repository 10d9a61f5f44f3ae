"""What the engine takes for a fact: no number that cannot be, and any move that can."""

from math import isfinite

import msgspec
import pytest
from msgspec.structs import replace

from monitor.backtest.tape import instrument_of
from monitor.core.engine import Engine
from monitor.events import (
    NS,
    BookSnapshot,
    Candles,
    Liquidation,
    Listed,
    MarkPrice,
    OpenInterest,
    Tick,
    Trade,
)
from monitor.sim.parameters import ASSETS
from monitor.sim.rules import VENUES
from tests.builders import engine_config

START = 1_790_000_000 * NS
SPEC = instrument_of(VENUES[0], ASSETS[0].name)
OTHER = instrument_of(VENUES[1], ASSETS[0].name)


def book_of(price, quantity=5.0):
    tick = SPEC.tick
    middle = round(price / tick)
    bids = [((middle - n) * tick, quantity) for n in range(1, 400, 4)]
    asks = [((middle + n) * tick, quantity) for n in range(1, 400, 4)]
    return BookSnapshot(SPEC.name, 0, bids, asks, depth=0, maintained=True)


class Live:
    """An engine that hears a mark, a book and open interest every second."""

    def __init__(self, wanted=()):
        self.engine = Engine(engine_config(), wanted)
        self.at = START
        self.tell(Listed(SPEC), Candles(SPEC.name, 300, []))

    def tell(self, *events):
        return [message for e in events for message in self.engine.process(self.at, e)]

    def second(self, price, quantity=5.0, base=20_000.0):
        self.at += NS
        return self.tell(
            MarkPrice(SPEC.name, self.at, price, price),
            OpenInterest(SPEC.name, self.at, base, None),
            book_of(price, quantity),
            Tick(self.at),
        )

    def calm(self, seconds=120):
        for _ in range(seconds):
            self.second(100_000.0)
        return self

    @property
    def asset(self):
        return self.engine.assets[SPEC.asset]

    @property
    def refused(self):
        return self.engine.rejected[SPEC.venue, "bad_number"]


@pytest.mark.parametrize(
    ("prices", "direction", "words"),
    [
        ([60_000.0], "down", "a fall of 40 % within 60 s"),
        ([140_000.0], "up", "a rise of 40 % within 60 s"),
        (
            [100_000.0 * (1.0 - 0.9 * n / 60) for n in range(1, 61)],
            "down",
            "a fall of 90 % within 60 s",
        ),
    ],
    ids=["40 % down at once", "40 % up at once", "90 % down in a minute"],
)
def test_no_move_is_too_large_to_be_judged(prices, direction, words):
    live = Live().calm()
    for price in prices:
        for message in live.second(price):
            msgspec.json.encode(message)
    risk = live.asset.risk
    assert risk.mark == pytest.approx(prices[-1], rel=0.01)
    assert risk.volatility[300] > 0.5
    (said,) = [d for d in risk.directions if d.direction == direction]
    assert said.phase != "calm"
    texts = [reason.text for reason in said.reasons]
    assert any(text.startswith(words) for text in texts), texts
    # A fifteen-minute move of several hundred percent is normal now: the curves end before it.
    end = "26 %" if direction == "down" else "35 %"
    assert sum(f"within {end}" in text for text in texts) == 2, texts


@pytest.mark.parametrize(
    "absurd",
    [
        Trade(SPEC.name, 0, 1e8, 1e8, "buy"),
        Liquidation(SPEC.name, 0, "long", 1e10, 1e15, 1e5, "fill", None, "all", ""),
        OpenInterest(SPEC.name, 0, 1e10, None),
        OpenInterest(SPEC.name, 0, 1e-200, None),
        MarkPrice(SPEC.name, 0, 1e14, 1e14),
    ],
    ids=["trade", "liquidation", "much open interest", "no open interest", "mark"],
)
def test_more_money_than_there_is_is_refused_and_changes_nothing(absurd):
    live = Live().calm(5)
    (state,) = live.engine.instruments.values()
    before = (state.mark, state.index, state.open_interest_base, dict(state.liquidated_usd))
    assert live.tell(absurd) == []
    assert live.refused == 1
    assert (state.mark, state.index, state.open_interest_base, state.liquidated_usd) == before
    assert (state.trades, state.liquidations) == (0, 0)


def test_a_book_that_offers_more_than_there_is_is_not_believed():
    live = Live().calm(30)
    liquidity = live.engine.instruments[SPEC.name].liquidity
    usual = liquidity.curve(live.at, "long")
    live.second(100_000.0, quantity=1e12)
    held = liquidity.curve(live.at, "long")
    assert held.stale
    assert held.usd[-1] == pytest.approx(usual.usd[-1] / 2)
    live.second(100_000.0)
    assert liquidity.curve(live.at, "long").usd[-1] == pytest.approx(usual.usd[-1])
    assert isfinite(live.asset.risk.mark)


# ------------------------------------------------------------------ what is not listed


def test_a_wanted_instrument_that_its_venue_does_not_list_is_missing():
    wanted = [(SPEC.name, SPEC.asset), (OTHER.name, OTHER.asset), ("okx:ELSE", "ELSE")]
    live, alone = Live(wanted).calm(30), Live().calm(30)
    risk = live.asset.risk
    assert risk.missing == [f"{OTHER.venue}: specification"]
    assert risk.quality == pytest.approx(alone.asset.risk.quality / 2)
    assert live.asset.situations["down"].missing == (OTHER.venue,)
    heatmap = [m.data for m in live.second(100_000.0) if m.kind == "heatmap" and not m.venue]
    assert [data.missing for data in heatmap] == [[OTHER.name]]
    rows = {row.instrument: row for row in live.engine.status(live.at).instruments}
    assert list(rows) == [SPEC.name, OTHER.name, "okx:ELSE"]
    assert (rows[OTHER.name].book, rows[OTHER.name].mark_age_s) == ("empty", None)
    assert alone.asset.risk.missing == []


def test_what_is_listed_late_is_missing_no_more_for_that():
    live = Live([(SPEC.name, SPEC.asset), (OTHER.name, OTHER.asset)]).calm(3)
    live.tell(Listed(replace(OTHER, tiers=())))
    live.second(100_000.0)
    assert f"{OTHER.venue}: specification" not in live.asset.risk.missing
    assert f"{OTHER.venue}: mark price" in live.asset.risk.missing
    rows = [row.instrument for row in live.engine.status(live.at).instruments]
    assert rows == [SPEC.name, OTHER.name]


def test_one_that_is_not_listed_beside_one_that_is_has_an_alert_of_its_own():
    typo = f"{SPEC.venue}:BTCUSDTT"
    live = Live([(SPEC.name, SPEC.asset), (typo, SPEC.asset)]).calm(60)
    assert f"{typo}: its venue has not listed it" in live.asset.risk.faults
    assert not any("neither mark nor book" in fault for fault in live.asset.risk.faults)


def test_a_mark_is_in_the_units_of_the_contract_before_there_is_a_map_and_after():
    live = Live()
    live.tell(Listed(replace(OTHER, multiplier=1000.0, tiers=())))
    live.at += NS
    live.tell(MarkPrice(OTHER.name, live.at, 12.0, 12.0), Tick(live.at))
    assert live.asset.risk.mark == 12.0
    assert live.asset.conditions.price() == pytest.approx(0.012)
