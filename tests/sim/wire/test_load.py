"""The load market: many instruments, valid sequences on every venue's wire."""

import pytest

from monitor.sim.wire import WIRES
from monitor.sim.wire.load import LoadMarket
from tests.sim.wire.client import Client
from tests.sim.wire.desk import Desk

VENUES = tuple(WIRES)


def test_every_instrument_of_300_speaks_in_sequence():
    market = LoadMarket(300, levels=50)
    client = Client(market, "binance")
    for start in range(0, 300, 100):
        names = [f"s{n:03d}usdt@depth@100ms" for n in range(start, start + 100)]
        client.say({"method": "SUBSCRIBE", "params": names, "id": 1})
    told = client.run(0.5)
    assert len(told) == 1_500
    last = {}
    for message in told:
        data = message["data"]
        assert last.setdefault(data["s"], data["pu"]) == data["pu"]
        last[data["s"]] = data["u"]
    assert len(last) == 300


@pytest.mark.parametrize("venue", VENUES)
def test_our_codecs_keep_its_books(venue):
    desk = Desk(LoadMarket(4, venues=VENUES, levels=500), venues=(venue,))
    desk.run(5)
    visible = {"binance": 500, "bybit": 500, "okx": 400, "hyperliquid": 20}[venue]
    for n in range(4):
        state = desk.state(venue, f"S{n:03d}")
        assert state.book.state == "synced"
        assert desk.differences(venue, f"S{n:03d}", visible) == []
        assert state.trades > 0
    assert not dict(desk.pipeline.engine.rejected)
