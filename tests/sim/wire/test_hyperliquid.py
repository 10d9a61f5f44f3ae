"""The simulated Hyperliquid, request for request (docs/exchanges.md section 4)."""

import itertools

import pytest

from monitor.sim.exchange import Trade, Transfer
from monitor.sim.wire.base import HandshakeError
from monitor.sim.wire.hyperliquid import VAULT
from tests.sim.wire.client import Client

# The quiet book is in ticks of 0.1 USD on the other venues; here a tick is 1 USD.


def subscription(kind, **fields):
    return {"type": kind, "coin": "BTC", **fields}


def subscribe(kind, **fields):
    return {"method": "subscribe", "subscription": subscription(kind, **fields)}


def test_a_connection_begins_with_plain_text(quiet):
    assert Client(quiet, "hyperliquid").told == ["Websocket connection established."]
    with pytest.raises(HandshakeError):
        Client(quiet, "hyperliquid", path="/other")


def test_requests_are_answered_as_documented(quiet):
    client = Client(quiet, "hyperliquid")
    ack, _ = client.say(subscribe("l2Book"))
    assert ack == {
        "channel": "subscriptionResponse",
        "data": {
            "method": "subscribe",
            "subscription": subscription("l2Book", nSigFigs=None, mantissa=None),
        },
    }
    assert client.say({"method": "ping"}) == [{"channel": "pong"}]
    (again,) = client.say(subscribe("l2Book"))
    assert (again["channel"], again["data"][:18]) == ("error", "Already subscribed")
    end = {"method": "unsubscribe", "subscription": subscription("l2Book")}
    assert client.say(end)[0]["data"]["method"] == "unsubscribe"
    assert client.say(end)[0]["channel"] == "error"
    assert client.run(2) == []


@pytest.mark.parametrize(
    "request_",
    [
        "{",
        {"method": "dance"},
        {"method": "subscribe"},
        subscribe("l2Book", coin="NOPE"),
        subscribe("nothing"),
        subscribe("l2Book", nSigFigs=7),
        subscribe("l2Book", nSigFigs=4, mantissa=5),
    ],
)
def test_bad_requests_are_errors_in_words(quiet, request_):
    (error,) = Client(quiet, "hyperliquid").say(request_)
    assert (error["channel"], type(error["data"])) == ("error", str)


def test_every_book_is_whole_has_20_levels_and_half_a_second_between(quiet):
    client = Client(quiet, "hyperliquid")
    _, first = client.say(subscribe("l2Book"))
    told = client.run(2)
    assert len(told) == 4
    times = [m["data"]["time"] for m in told]
    assert {b - a for a, b in itertools.pairwise(times)} == {500}
    bids, asks = first["data"]["levels"]
    assert (len(bids), len(asks)) == (20, 20)
    assert bids[0] == {"px": "999900.0", "sz": "0.01001", "n": 1}
    quiet.set(bids={999_950: 150_000})
    assert client.run(0.5)[0]["data"]["levels"][0][0] == {"px": "999950.0", "sz": "1.5", "n": 31}


def test_levels_can_be_aggregated(quiet):
    client = Client(quiet, "hyperliquid")
    _, book = client.say(subscribe("l2Book", nSigFigs=3))
    bids, asks = book["data"]["levels"]
    assert [x["px"] for x in bids] == ["999000.0", "998000.0", "997000.0"]
    assert [x["px"] for x in asks] == ["1010000.0"]  # one more digit
    assert bids[0]["sz"] == "0.10055"


def test_a_context_has_hourly_funding_and_no_time(quiet):
    quiet.fields = {"funding_rate_e8": 1_250, "open_interest": 3_629_580_000, "mark": 100_000}
    client = Client(quiet, "hyperliquid")
    _, first = client.say(subscribe("activeAssetCtx"))
    context = first["data"]["ctx"]
    assert (context["funding"], context["openInterest"]) == ("0.0000125", "36295.8")
    assert (context["markPx"], "time" in first["data"]) == ("100000.0", False)
    assert len(client.run(5)) == 5


def test_the_first_trades_are_old_and_all_name_buyer_and_seller(quiet):
    client = Client(quiet, "hyperliquid")
    _, replay = client.say(subscribe("trades"))
    assert len(replay["data"]) == 30
    assert all(row["time"] < quiet.at // 10**6 for row in replay["data"])
    trade = {"at": quiet.at, "venue": "hyperliquid", "asset": "BTC", "forced": False}
    quiet.happened = ([Trade(tick=999_900, lots=38_111, taker="sell", **trade)], [], [])
    (told,) = client.run(0.1)
    (row,) = told["data"]
    assert (row["side"], row["px"], row["sz"], len(row["users"])) == (
        "A",
        "999900.0",
        "0.38111",
        2,
    )
    _, again = Client(quiet, "hyperliquid", wire=client.wire).say(subscribe("trades"))
    assert again["data"][-1] == row


def test_only_the_backstop_shows_that_somebody_was_liquidated(quiet, liquidation):
    client = Client(quiet, "hyperliquid")
    client.say(subscribe("trades"))
    trade = {"at": quiet.at, "venue": "hyperliquid", "asset": "BTC", "forced": True}
    trades = [Trade(tick=999_900, lots=n, taker="sell", **trade) for n in (200, 100, 40)]
    taken = Transfer(quiet.at, "hyperliquid", "BTC", "takeover", 77, 2, "long", 70, 990_000, 0)
    quiet.happened = (trades, [liquidation("hyperliquid", filled=300)], [taken])
    (told,) = client.run(0.1)
    account = f"0x{77:040x}"
    sellers = [row["users"][1] for row in told["data"]]
    buyers = [row["users"][0] for row in told["data"]]
    # The takeover, the liquidated account's own orders, and what the vault sells on.
    assert sellers == [account, account, account, VAULT]
    assert buyers[0] == VAULT


def test_info_requests(quiet):
    client = Client(quiet, "hyperliquid")
    status, meta = client.get("/info", {"type": "meta"})
    assert status == 200
    assert meta["universe"][0]["szDecimals"] == 5
    assert meta["universe"][-1]["isDelisted"]
    tables = dict(meta["marginTables"])
    tiers = tables[meta["universe"][0]["marginTableId"]]["marginTiers"]
    assert tiers == [
        {"lowerBound": "0.0", "maxLeverage": 40},
        {"lowerBound": "150000000.0", "maxLeverage": 20},
    ]
    _, contexts = client.get("/info", {"type": "metaAndAssetCtxs"})[1]
    assert len(contexts) == 1
    book = client.get("/info", {"type": "l2Book", "coin": "BTC"})[1]
    assert len(book["levels"][0]) == 20
    assert client.get("/info", {"type": "nothing"})[0] == 422
    assert client.get("/info")[0] == 405
    assert client.get("/other", {})[0] == 404
