"""The simulated Bybit, request for request (docs/exchanges.md section 2)."""

import pytest

from monitor.sim.exchange import Trade
from monitor.sim.market import Market
from monitor.sim.wire.base import HandshakeError
from monitor.sim.wire.bybit import Bybit
from tests.sim.wire.client import Client


def subscribe(*topics, number="a1"):
    return {"req_id": number, "op": "subscribe", "args": list(topics)}


def test_requests_are_answered_as_documented(quiet):
    client = Client(quiet, "bybit")
    ack = client.say(subscribe("publicTrade.BTCUSDT"))
    connection = ack[0].pop("conn_id")
    assert connection
    assert ack == [{"success": True, "ret_msg": "", "req_id": "a1", "op": "subscribe"}]
    (pong,) = client.say({"op": "ping"})
    assert (pong["success"], pong["ret_msg"], pong["op"]) == (True, "pong", "ping")
    (gone,) = client.say({"op": "unsubscribe", "args": ["publicTrade.BTCUSDT"]})
    assert gone["success"]


@pytest.mark.parametrize(
    "bad",
    ["invalid.topic.BTCUSDT", "orderbook.500.BTCUSDT", "orderbook.x.BTCUSDT", "tickers.NOPE", 7],
)
def test_one_bad_topic_fails_the_whole_request(quiet, bad):
    client = Client(quiet, "bybit")
    (reply,) = client.say(subscribe("orderbook.50.BTCUSDT", bad))
    assert (reply["success"], reply["ret_msg"]) == (False, f"Invalid topic: {bad}")
    quiet.set(bids={999_900: 7})
    assert client.run(1) == []


@pytest.mark.parametrize("text", ["{", "[]", {"op": "dance"}, {"op": "subscribe"}])
def test_what_is_no_request_is_refused(quiet, text):
    (reply,) = Client(quiet, "bybit").say(text)
    assert reply["success"] is False


def test_only_linear_contracts_have_a_socket(quiet):
    with pytest.raises(HandshakeError):
        Client(quiet, "bybit", path="/v5/public/spot")


def test_the_arguments_of_a_connection_have_a_budget(quiet):
    wire = Bybit(quiet)
    client = Client(quiet, "bybit", wire=wire)
    client.session.topics = {f"publicTrade.{'X' * 100}{n}": None for n in range(200)}
    (reply,) = client.say(subscribe("tickers.BTCUSDT"))
    assert (reply["success"], reply["ret_msg"]) == (False, "args size >21000")


def test_a_book_is_a_snapshot_and_then_deltas_that_count_by_one(quiet):
    client = Client(quiet, "bybit")
    _, snapshot = client.say(subscribe("orderbook.50.BTCUSDT"))
    assert (snapshot["type"], len(snapshot["data"]["b"])) == ("snapshot", 30)
    assert snapshot["data"]["b"][0] == ["99990.00", "1.001"]
    quiet.set(bids={999_900: 7, 999_800: 0}, asks={1_000_050: 3})
    (delta,) = client.run(0.1)
    assert delta["type"] == "delta"
    assert delta["data"]["b"] == [["99990.00", "0.007"], ["99980.00", "0"]]
    assert delta["data"]["a"] == [["100005.00", "0.003"]]
    assert delta["data"]["u"] == snapshot["data"]["u"] + 1
    assert delta["data"]["seq"] > snapshot["data"]["seq"]
    assert client.run(1) == []  # nothing changed


@pytest.mark.parametrize("deletes_leavers", [True, False])
def test_levels_leave_and_enter_the_window(quiet, deletes_leavers):
    quiet.set(bids={999_000 - n: 5 for n in range(40)})
    client = Client(quiet, "bybit", wire=Bybit(quiet, deletes_leavers=deletes_leavers))
    _, snapshot = client.say(subscribe("orderbook.50.BTCUSDT"))
    worst = snapshot["data"]["b"][-1]
    quiet.set(bids={999_950: 1})
    (better,) = client.run(0.1)
    left = [[worst[0], "0"]] if deletes_leavers else []
    assert better["data"]["b"] == [["99995.00", "0.001"], *left]
    quiet.set(bids={999_950: 0})
    (back,) = client.run(0.1)
    assert back["data"]["b"] == [["99995.00", "0"], worst]


def test_depth_one_is_whole_and_comes_again_after_three_seconds(quiet):
    client = Client(quiet, "bybit")
    _, first = client.say(subscribe("orderbook.1.BTCUSDT"))
    quiet.set(bids={999_950: 1})
    (changed,) = client.run(0.1)
    assert (changed["type"], changed["data"]["b"]) == ("snapshot", [["99995.00", "0.001"]])
    assert changed["data"]["u"] == first["data"]["u"] + 1
    (again,) = client.run(3)
    assert again["data"]["u"] == changed["data"]["u"]


@pytest.mark.parametrize("depth", [50, 200, 1000])
def test_a_book_built_by_the_documented_steps_is_the_true_one(small, depth):
    client = Client(small, "bybit")
    client.say(subscribe(f"orderbook.{depth}.BTCUSDT"))
    client.run(20)
    late = Client(small, "bybit", wire=client.wire)
    late.say(subscribe(f"orderbook.{depth}.BTCUSDT"))
    client.run(10, others=[late])
    whole = small.peek_book("bybit", "BTC")
    for listener in (client, late):
        book, last = ({}, {}), None
        for message in listener.told[1:]:
            data = message["data"]
            if message["type"] == "snapshot":
                book = ({}, {})
            else:
                assert data["u"] == last + 1
            last = data["u"]
            for side, changes in zip(book, (data["b"], data["a"]), strict=True):
                for price, size in changes:
                    tick, lots = round(float(price) * 10), round(float(size) * 1000)
                    if lots:
                        side[tick] = lots
                    else:
                        del side[tick]  # never one that was not there
        assert sorted(book[0].items(), reverse=True) == whole.bids[:depth]
        assert sorted(book[1].items()) == whole.asks[:depth]


def test_a_ticker_is_a_snapshot_and_then_only_what_changed(quiet):
    quiet.fields = {"mark": 1_000_001, "open_interest": 1_500, "funding_rate_e8": -500_000}
    client = Client(quiet, "bybit")
    _, first = client.say(subscribe("tickers.BTCUSDT"))
    fields = first["data"]
    assert first["type"] == "snapshot"
    assert (fields["openInterest"], fields["singleOpenInterest"]) == ("3.000", "1.500")
    assert fields["openInterestValue"] == "300000.30"
    assert (fields["fundingRate"], fields["fundingIntervalHour"]) == ("-0.00500000", "8")
    quiet.fields |= {"index": 1_000_777}
    (delta,) = client.run(0.1)
    assert delta["data"] == {"symbol": "BTCUSDT", "indexPrice": "100077.70"}
    assert client.run(1) == []


def test_all_liquidations_come_in_batches_with_the_positions_side(quiet, liquidation):
    client = Client(quiet, "bybit")
    client.say(subscribe("allLiquidation.BTCUSDT"))
    told = []
    for n in range(10):
        records = [
            liquidation("bybit", side="long", filled=100 + n, taken=11, adl=1),
            liquidation("bybit", side="short", filled=0, taken=0, adl=0),
        ]
        quiet.happened = ([], records, [])
        told += client.run(0.1)
    assert [len(m["data"]) for m in told] == [5, 5]
    row = told[0]["data"][0]
    assert (row["S"], row["v"], row["p"], row["s"]) == ("Buy", "0.112", "99000.00", "BTCUSDT")


def test_trades_have_the_takers_side(quiet):
    client = Client(quiet, "bybit")
    client.say(subscribe("publicTrade.BTCUSDT"))
    trade = {"at": quiet.at, "venue": "bybit", "asset": "BTC", "forced": False}
    quiet.happened = ([Trade(tick=999_900, lots=1, taker="sell", **trade)] * 1_030, [], [])
    told = client.run(0.1)
    assert [len(m["data"]) for m in told] == [1_024, 6]
    row = told[0]["data"][0]
    assert (row["S"], row["v"], row["p"], row["BT"]) == ("Sell", "0.001", "99990.00", False)
    recent = client.get("/v5/market/recent-trade", category="linear", symbol="BTCUSDT")[1]
    assert recent["result"]["list"][0]["side"] == "Sell"


def test_the_list_of_instruments_has_pages():
    client = Client(Market(seed=1, population=0.01), "bybit")
    path = "/v5/market/instruments-info"
    first = client.get(path, category="linear", limit=2)[1]["result"]
    cursor = first["nextPageCursor"]
    assert "%" in cursor
    second = client.get(path, category="linear", limit=2, cursor=cursor)[1]["result"]
    rows = first["list"] + second["list"]
    assert [row["symbol"] for row in rows] == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    assert second["nextPageCursor"] == ""
    assert (rows[0]["priceFilter"]["tickSize"], rows[0]["fundingInterval"]) == ("0.10", 480)


def test_risk_limits_are_fractions_with_deductions_by_continuity(quiet):
    client = Client(quiet, "bybit")
    body = client.get("/v5/market/risk-limit", category="linear", symbol="BTCUSDT")[1]
    rows = body["result"]["list"]
    shown = [(r["riskLimitValue"], r["maintenanceMargin"], r["mmDeduction"]) for r in rows[:3]]
    assert shown == [
        ("300000", "0.0033", ""),
        ("800000", "0.005", "510"),
        ("2000000", "0.01", "4510"),
    ]


def test_errors_come_with_status_200(quiet):
    client = Client(quiet, "bybit")
    for query in ({}, {"category": "x"}, {"category": "linear", "symbol": "NOPE"}):
        status, body = client.get("/v5/market/tickers", **query)
        assert (status, body["retCode"]) == (200, 10001)
    assert client.get("/v5/market/tickers", category="spot")[1]["result"]["list"] == []
    assert client.get("/v5/nothing")[0] == 404
    assert client.get("/v5/market/time")[1]["result"]["timeSecond"].isdecimal()


def test_the_rest_book_has_the_numbering_of_the_deep_stream(quiet):
    client = Client(quiet, "bybit")
    _, snapshot = client.say(subscribe("orderbook.1000.BTCUSDT"))
    query = {"category": "linear", "symbol": "BTCUSDT", "limit": 5}
    book = client.get("/v5/market/orderbook", **query)[1]["result"]
    assert (book["u"], len(book["b"])) == (snapshot["data"]["u"], 5)
    interest = client.get("/v5/market/open-interest", **query)[1]["result"]["list"][0]
    assert float(interest["openInterest"]) == 2 * float(interest["singleOpenInterest"])
