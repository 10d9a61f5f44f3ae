"""Insurance funds: asked for late and slowly; what of an answer is believed."""

from copy import deepcopy
from itertools import pairwise
from math import isclose
from typing import Any

import pytest

from monitor.events import Fetch, InsuranceFund
from monitor.venues import VENUES
from monitor.venues.base import FUNDS_EVERY_S, FUNDS_WAIT_S, MS, Codec, Out
from tests.venues.harness import AT, config, instrument, payloads, refusals, reply, started
from tests.venues.test_candles import SPECS, SYMBOLS, later

each_venue = pytest.mark.parametrize("venue", VENUES)
HLP = "0xdfc24b077bc1425ad1dea75bcb6f8158e10df303"


def codec(venue: str, *symbols: str) -> Codec:
    names = symbols or SYMBOLS[venue]
    specs = [instrument(venue, name, **SPECS.get(name, {})) for name in names]
    return started(VENUES[venue](config(*names), specs))


def asked(out: Out) -> list[Fetch]:
    return [e for e in out if isinstance(e, Fetch) and e.key.startswith("funds")]


def key_of(venue: str) -> str:
    return "funds:SWAP:BTC-USDT" if venue == "okx" else "funds"


def funds(made: Codec, body: Any, status: int = 200) -> Out:
    key = key_of(made.venue)
    return made.reply(reply(key, body, venue=made.venue, at=AT, status=status))


def told(venue: str, *symbols: str) -> list[InsuranceFund]:
    out = funds(codec(venue, *symbols), payloads(venue, "replies")["funds"])
    assert refusals(out) == []
    return [e for e in out if isinstance(e, InsuranceFund)]


# -------------------------------------------------------------------------------- the request


@each_venue
def test_funds_are_asked_for_after_the_start_and_then_every_ten_minutes(venue: str) -> None:
    made, seconds = codec(venue, SYMBOLS[venue][0]), []
    for second in range(1, int(FUNDS_WAIT_S + 2 * FUNDS_EVERY_S)):
        for fetch in asked(made.tick(later(second))):
            seconds.append(second)
            body = payloads(venue, "replies")["funds"]
            made.reply(reply(fetch.key, body, venue=venue, at=later(second)))
    assert seconds == [FUNDS_WAIT_S, FUNDS_WAIT_S + FUNDS_EVERY_S]


@each_venue
def test_a_venue_that_refuses_is_asked_ever_more_seldom_and_everything_is_counted(
    venue: str,
) -> None:
    made, times, refused = codec(venue, SYMBOLS[venue][0]), [], []
    for second in range(1, 7200, 2):
        for fetch in asked(made.tick(later(second))):
            times.append(second)
            answer = reply(fetch.key, {}, venue=venue, at=later(second), status=451)
            refused += refusals(made.reply(answer))
    assert refused == ["http"] * len(times)
    waits = [later - sooner for sooner, later in pairwise(times)]
    assert waits[:3] == pytest.approx([60, 120, 240], abs=2)
    assert waits[-1] == pytest.approx(1920, abs=2)


def test_the_requests_are_those_of_the_documents() -> None:
    paths = {}
    for venue in VENUES:
        made = codec(venue)
        paths[venue] = [(f.path, f.body) for f in asked(made.tick(later(FUNDS_WAIT_S)))]
    assert paths["binance"] == [("/fapi/v1/insuranceBalance", b"")]
    assert paths["bybit"] == [("/v5/market/insurance", b"")]
    okx = "/api/v5/public/insurance-fund?instType=SWAP&instFamily=BTC-USDT"
    assert (okx, b"") in paths["okx"]
    body = b'{"type":"vaultDetails","vaultAddress":"%s"}' % HLP.encode()
    assert paths["hyperliquid"] == [("/info", body)]


# --------------------------------------------------------------------------------- the answer


def test_binance_tells_a_pool_for_each_group_in_several_currencies() -> None:
    [pool] = told("binance", "BTCUSDT", "ETHUSDT")
    assert pool.covers == ("binance:BTCUSDT", "binance:ETHUSDT")
    assert pool.sent_at == 1_790_000_000_000 * MS
    assert pool.balances == {
        "USDC": 300_000_000.5, "USDT": 700_000_000.25, "BTC": 60.5, "BNFCR": 633_223.5,
    }  # fmt: skip


def test_bybit_tells_pools_of_some_and_of_many_contracts() -> None:
    [pool] = told("bybit", "BTCUSDT")
    assert (pool.covers, pool.balances) == (("bybit:BTCUSDT",), {"USDT": 150_000_000.75})


def test_okx_tells_the_newest_balance_of_a_family_and_not_the_whole_venues() -> None:
    [pool] = told("okx", "BTC-USDT-SWAP")
    assert (pool.covers, pool.balances) == (("okx:BTC-USDT-SWAP",), {"USDT": 250_000_000.5})
    assert pool.sent_at == 1_790_000_000_000 * MS


def test_hyperliquids_fund_is_the_vaults_last_value_and_covers_no_builders_exchange() -> None:
    [pool] = told("hyperliquid", "BTC", "xyz:TSLA")
    assert (pool.covers, pool.balances) == (("hyperliquid:BTC",), {"USDC": 400_000_000.25})


def test_another_vault_or_family_is_refused() -> None:
    vault = deepcopy(payloads("hyperliquid", "replies")["funds"]) | {
        "vaultAddress": "0x" + "1" * 40
    }
    assert refusals(funds(codec("hyperliquid"), vault)) == ["unknown_symbol"]
    family = deepcopy(payloads("okx", "replies")["funds"])
    family["data"][0]["instFamily"] = "ETH-USDT"
    assert refusals(funds(codec("okx"), family)) == ["unknown_symbol"]


@each_venue
@pytest.mark.parametrize("number", ["NaN", "1e16", "much"])
def test_a_balance_that_is_none_is_refused(venue: str, number: str) -> None:
    body = deepcopy(payloads(venue, "replies")["funds"])
    if venue == "binance":
        body[0]["assets"][1]["marginBalance"] = number
    elif venue == "bybit":
        body["result"]["list"][1]["balance"] = number
    elif venue == "okx":
        body["data"][0]["details"][0]["balance"] = number
    else:
        body["portfolio"][0][1]["accountValueHistory"][-1][1] = number
    out = funds(codec(venue), body)
    assert refusals(out)[0] in {"bad_number", "schema"}
    assert not [e for e in out if isinstance(e, InsuranceFund)]


@each_venue
def test_an_answer_without_a_fund_tells_none(venue: str) -> None:
    empty = {
        "binance": [],
        "bybit": {"retCode": 0, "result": {"list": []}},
        "okx": {"code": "0", "data": []},
        "hyperliquid": {"vaultAddress": HLP, "portfolio": []},
    }
    out = funds(codec(venue), empty[venue])
    assert not [e for e in out if isinstance(e, InsuranceFund)]


def test_an_overdrawn_pool_is_told_as_such() -> None:
    body = deepcopy(payloads("bybit", "replies")["funds"])
    body["result"]["list"][1]["balance"] = "-12.5"
    [pool] = [e for e in funds(codec("bybit", "BTCUSDT"), body) if isinstance(e, InsuranceFund)]
    assert isclose(pool.balances["USDT"], -12.5)
