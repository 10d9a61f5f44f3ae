"""Insurance funds: what the venues serve is the market's own, and what our codecs hear is that."""

from urllib.parse import parse_qsl, urlsplit

import pytest

from monitor.events import NS, Fetch, InsuranceFund, Reply
from monitor.sim.wire import WIRES
from monitor.sim.wire.base import Request
from monitor.venues import VENUES
from monitor.venues.base import FUNDS_WAIT_S
from tests.builders import config, instrument
from tests.sim.wire.desk import SYMBOLS


@pytest.mark.parametrize("venue", WIRES)
def test_the_fund_our_codec_hears_is_the_simulated_one(small, venue):
    for _ in range(20):
        small.step()
    wire, symbol = WIRES[venue](small), SYMBOLS[venue].format("BTC")
    codec = VENUES[venue](config().venues[venue], [instrument(symbol, venue=venue)])
    at = small.at
    for feed in codec.feeds:
        codec.opened(feed.name, at)
    later = at + int(FUNDS_WAIT_S * NS)
    asked = [f for f in codec.tick(later) if isinstance(f, Fetch) and f.key.startswith("funds")]
    told = []
    for fetch in asked:
        parts = urlsplit(fetch.path)
        method = "POST" if fetch.body else "GET"
        query = dict(parse_qsl(parts.query))
        answer = wire.http(Request(method, parts.path, query, fetch.body, later))
        told += codec.reply(Reply(later, venue, fetch.key, answer.status, answer.body))
    heard = [e for e in told if isinstance(e, InsuranceFund) and f"{venue}:{symbol}" in e.covers]
    [fund] = heard
    [amount] = fund.balances.values()
    true = small.ticker(venue, "BTC").fund_usd
    assert amount == pytest.approx(true, rel=1e-9)
    assert amount > 0.0
