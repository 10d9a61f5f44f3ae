"""The simulated Binance, request for request (docs/exchanges.md section 1)."""

import itertools

import pytest

from monitor.sim.exchange import Trade, Transfer
from monitor.sim.wire.base import HandshakeError, Request
from monitor.sim.wire.binance import Binance
from tests.sim.wire.client import Client

DEPTH = "btcusdt@depth@100ms"


def subscribe(*params, number=1):
    return {"method": "SUBSCRIBE", "params": list(params), "id": number}


def test_requests_are_answered_as_documented(quiet):
    client = Client(quiet, "binance")
    assert client.say(subscribe(DEPTH)) == [{"result": None, "id": 1}]
    assert client.say({"method": "LIST_SUBSCRIPTIONS", "id": 3}) == [{"result": [DEPTH], "id": 3}]
    unsubscribe = {"method": "UNSUBSCRIBE", "params": [DEPTH], "id": 2}
    assert client.say(unsubscribe) == [{"result": None, "id": 2}]
    assert client.say({"method": "LIST_SUBSCRIPTIONS", "id": 4}) == [{"result": [], "id": 4}]


@pytest.mark.parametrize(
    "request_",
    [
        "{",
        "[]",
        {"method": "SUBSCRIBE", "params": ["x"]},
        {"method": "DANCE", "id": 1},
        {"method": "SUBSCRIBE", "params": "x", "id": 1},
        {"method": "SUBSCRIBE", "params": [7], "id": 1},
    ],
)
def test_what_is_no_request_gets_an_error(quiet, request_):
    (reply,) = Client(quiet, "binance").say(request_)
    assert set(reply["error"]) == {"code", "msg"}


def test_a_subscription_on_the_wrong_socket_is_acknowledged_and_then_silent(quiet):
    for path, wrong in (
        ("/public/stream", "btcusdt@markPrice@1s"),
        ("/market/stream", DEPTH),
        ("/ws", "btcusdt@aggTrade"),
        ("/stream", "!forceOrder@arr"),
    ):
        client = Client(quiet, "binance", path=path)
        assert client.say(subscribe(wrong)) == [{"result": None, "id": 1}]
        quiet.set(bids={999_900: 7})
        assert client.run(3) == []


@pytest.mark.parametrize(
    ("path", "query", "wrapped"),
    [
        (f"/public/ws/{DEPTH}", {}, False),
        (f"/ws/{DEPTH}", {}, False),
        ("/public/stream", {"streams": f"{DEPTH}/ethusdt@depth"}, True),
        ("/stream", {"streams": DEPTH}, True),
    ],
)
def test_every_form_of_address_carries_books(quiet, path, query, wrapped):
    client = Client(quiet, "binance", path=path, query=query)
    quiet.set(bids={999_900: 7})
    (message,) = client.run(0.1)
    body = message["data"] if wrapped else message
    assert not wrapped or message["stream"] == DEPTH
    assert body["b"] == [["99990.00", "0.007"]]


def test_other_paths_are_no_websockets(quiet):
    for path in ("/", "/private/ws/x", "/market", "/public/other"):
        with pytest.raises(HandshakeError):
            Client(quiet, "binance", path=path)


def test_ids_have_holes_between_messages_and_a_snapshot_lies_where_it_must(quiet):
    client = Client(quiet, "binance")
    client.say(subscribe(DEPTH))
    quiet.step_ms = 50  # two steps between two messages
    updates = []
    snapshots = []
    for n in range(8):
        quiet.set(bids={999_900: 100 + n}, asks={1_000_100: 50 + n})
        updates += [m["data"] for m in client.run(0.05)]
        snapshots.append(client.get("/fapi/v1/depth", symbol="BTCUSDT", limit=5)[1])
    assert len(updates) == 4
    for before, after in itertools.pairwise(updates):
        assert after["pu"] == before["u"]
        assert after["U"] > before["u"] + 1
    for snapshot in snapshots[:-1]:
        last = snapshot["lastUpdateId"]
        assert any(u["U"] <= last <= u["u"] or u["pu"] == last for u in updates)
    inside = [
        s["lastUpdateId"] for s in snapshots if s["lastUpdateId"] not in {u["u"] for u in updates}
    ]
    assert inside, "no snapshot was taken between two messages"


def test_a_book_built_by_the_documented_steps_is_the_true_one(small):
    client = Client(small, "binance")
    client.say(subscribe(DEPTH))
    client.run(0.5)
    snapshot = client.get("/fapi/v1/depth", symbol="BTCUSDT", limit=1000)[1]
    client.run(20)
    book = {side: dict(snapshot[side]) for side in ("bids", "asks")}
    last, joined = snapshot["lastUpdateId"], False
    for update in [m["data"] for m in client.told if "data" in m]:
        if update["u"] < last:
            continue
        if joined:
            assert update["pu"] == last
        else:
            assert update["U"] <= last <= update["u"] or update["pu"] == last
        last, joined = update["u"], True
        for side, changes in (("bids", update["b"]), ("asks", update["a"])):
            for price, quantity in changes:
                if float(quantity):
                    book[side][price] = quantity
                else:
                    book[side].pop(price, None)
    whole = small.peek_book("binance", "BTC")
    for side, true, sign in (("bids", whole.bids, -1), ("asks", whole.asks, 1)):
        ours = [(round(float(p) * 10), round(float(q) * 1000)) for p, q in book[side].items()]
        ours.sort(key=lambda level: sign * level[0])
        assert ours[:900] == true[:900]


def test_coarser_streams_tell_the_same_story(small):
    client = Client(small, "binance")
    client.say(subscribe(DEPTH, "btcusdt@depth", "btcusdt@depth@500ms"))
    told = client.run(5)
    final = {}
    for speed in ("@100ms", "", "@500ms"):
        updates = [m["data"] for m in told if m["stream"] == f"btcusdt@depth{speed}"]
        assert all(b["pu"] == a["u"] for a, b in itertools.pairwise(updates))
        levels = {}
        for update in updates:
            levels |= dict(update["b"])
        final[speed] = (updates[-1]["u"], levels)
    assert final["@100ms"] == final["@500ms"]
    assert [
        len([m for m in told if m["stream"] == f"btcusdt@depth{s}"])
        for s in ("@100ms", "", "@500ms")
    ] == [50, 20, 10]


def test_partial_books_and_best_prices(quiet):
    client = Client(quiet, "binance")
    client.say(subscribe("btcusdt@depth5@100ms", "btcusdt@bookTicker"))
    told = client.run(0.1)
    partial = next(m["data"] for m in told if m["stream"] == "btcusdt@depth5@100ms")
    best = next(m["data"] for m in told if m["stream"] == "btcusdt@bookTicker")
    assert [len(partial["b"]), partial["b"][0]] == [5, ["99990.00", "1.001"]]
    assert (best["b"], best["B"], best["a"], best["A"]) == (
        "99990.00",
        "1.001",
        "100010.00",
        "2.001",
    )
    assert "btcusdt@bookTicker" not in [m["stream"] for m in client.run(0.1)]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"limit": 5}, 400, -1102),
        ({"symbol": "NOPE"}, 400, -1121),
        ({"symbol": "BTCUSDT", "limit": 7}, 400, -1130),
        ({"symbol": "BTCUSDT", "limit": 5000}, 400, -1130),
        ({"symbol": "BTCUSDT", "limit": "x"}, 400, -1130),
    ],
)
def test_bad_depth_requests_are_refused(quiet, query, status, code):
    found, body = Client(quiet, "binance").get("/fapi/v1/depth", **query)
    assert (found, body["code"]) == (status, code)


def test_the_brackets_need_a_key_and_other_paths_do_not_exist(quiet):
    client = Client(quiet, "binance")
    assert client.get("/fapi/v1/leverageBracket")[0] == 401
    assert client.get("/fapi/v1/nothing")[0] == 404
    assert client.get("/dapi/v1/time")[0] == 404


def test_the_request_weight_is_told_and_its_excess_refused(quiet):
    wire = Binance(quiet)
    asked = Request("GET", "/fapi/v1/depth", {"symbol": "BTCUSDT", "limit": "1000"}, b"", 10**9)
    answers = [wire.http(asked) for _ in range(121)]
    assert answers[0].headers["x-mbx-used-weight-1m"] == "20"
    assert [a.status for a in answers[-2:]] == [200, 429]
    assert answers[-1].headers["Retry-After"] == "59"
    later = Request("GET", "/fapi/v1/time", {}, b"", 61 * 10**9)
    assert wire.http(later).headers["x-mbx-used-weight-1m"] == "1"


def test_marks_come_every_second_with_the_rate_of_the_interval(quiet):
    quiet.fields = {"mark": 1_000_500, "index": 1_000_400, "funding_rate_e8": 15_640}
    client = Client(quiet, "binance", path="/market/stream")
    client.say(subscribe("btcusdt@markPrice@1s", "!markPrice@arr"))
    told = client.run(6)
    marks = [m["data"] for m in told if m["stream"] == "btcusdt@markPrice@1s"]
    assert len(marks) == 6
    assert (marks[0]["p"], marks[0]["i"]) == ("100050.00000000", "100040.00000000")
    assert marks[0]["r"] == "0.00015640"
    assert marks[0]["T"] % 28_800_000 == 0
    assert [type(m["data"]) for m in told if m["stream"] == "!markPrice@arr"] == [list, list]
    premium = client.get("/fapi/v1/premiumIndex", symbol="BTCUSDT")[1]
    assert premium["lastFundingRate"] == "0.00015640"


def test_open_interest_is_one_sided_base_coin(quiet):
    quiet.fields = {"open_interest": 10_659_509}
    body = Client(quiet, "binance").get("/fapi/v1/openInterest", symbol="BTCUSDT")[1]
    assert (body["openInterest"], body["symbol"]) == ("10659.509", "BTCUSDT")


def test_one_forced_order_a_second_and_symbol_the_largest_with_the_orders_side(quiet, liquidation):
    client = Client(quiet, "binance", path="/market/stream")
    client.say(subscribe("btcusdt@forceOrder", "!forceOrder@arr"))
    for n in range(20):
        side = "long" if n < 10 else "short"
        quiet.happened = ([], [liquidation("binance", lots=300 + n, filled=100 + n, side=side)], [])
        client.run(0.1)
    orders = [m for m in client.told if "data" in m]
    assert [m["stream"] for m in orders] == ["btcusdt@forceOrder", "!forceOrder@arr"] * 2
    first, second = orders[0]["data"]["o"], orders[2]["data"]["o"]
    # The second boundary falls on the tenth step; its order is the largest of its second.
    assert (first["S"], first["z"], second["S"], second["z"]) == ("SELL", "0.309", "BUY", "0.319")
    assert (first["p"], first["ap"], first["q"]) == ("99000.00", "99176.39", "0.309")
    assert orders[0]["data"]["st"] == 1


def test_trades_are_aggregated_and_transfers_are_not_trades(quiet):
    client = Client(quiet, "binance", path="/market/ws")
    client.say(subscribe("btcusdt@aggTrade", "btcusdt@trade"))
    trade = {"at": quiet.at, "venue": "binance", "asset": "BTC", "forced": False}
    trades = [
        Trade(tick=1_000_100, lots=236, taker="buy", **trade),
        Trade(tick=1_000_100, lots=64, taker="buy", **trade),
        Trade(tick=999_900, lots=5, taker="sell", **trade),
    ]
    taken = Transfer(quiet.at, "binance", "BTC", "takeover", 1, 2, "long", 70, 990_000, 0)
    quiet.happened = (trades, [], [taken])
    told = client.run(0.1)
    aggregated = [m for m in told if m["e"] == "aggTrade"]
    assert [(m["p"], m["q"], m["m"]) for m in aggregated] == [
        ("100010.00", "0.300", False),
        ("99990.00", "0.005", True),
    ]
    assert aggregated[1]["f"] == aggregated[0]["l"] + 1
    single = [m for m in told if m["e"] == "trade"]
    assert [m["X"] for m in single] == ["MARKET"] * 3 + ["INSURANCE_FUND"]
    assert len(client.get("/fapi/v1/aggTrades", symbol="BTCUSDT")[1]) == 2


def test_the_list_of_instruments_and_the_brackets_of_an_event(quiet):
    client = Client(quiet, "binance", path="/market/stream")
    (row,) = client.get("/fapi/v1/exchangeInfo")[1]["symbols"]
    filters = {f["filterType"]: f for f in row["filters"]}
    assert filters["PRICE_FILTER"]["tickSize"] == "0.10"
    assert filters["LOT_SIZE"]["stepSize"] == "0.001"
    assert (row["liquidationFee"], row["contractType"]) == ("0.012500", "PERPETUAL")
    assert client.get("/fapi/v1/fundingInfo")[1] == []
    _, info = client.say(subscribe("!contractInfo"))
    brackets = info["data"]["bks"]
    assert (brackets[1]["bnf"], brackets[1]["mmr"], brackets[1]["cf"]) == (300_000, 0.005, 300.0)
    assert brackets[0]["bnc"] == brackets[1]["bnf"]


def test_too_many_messages_a_second_and_too_many_streams_end_the_connection(quiet):
    client = Client(quiet, "binance")
    for _ in range(11):
        client.session.receive('{"method":"LIST_SUBSCRIPTIONS","id":1}', 5 * 10**8)
    assert client.session.closing == "too_many_requests"
    client = Client(quiet, "binance")
    client.say(subscribe(*(f"x{n}@depth" for n in range(1_025))))
    assert client.session.closing == "too_many_topics"


def test_a_silent_venue_says_nothing_and_its_books_go_on_in_sequence(quiet, liquidation):
    client = Client(quiet, "binance")
    other = Client(quiet, "binance", path="/market/stream", wire=client.wire)
    client.say(subscribe(DEPTH))
    other.say(subscribe("btcusdt@forceOrder"))
    quiet.set(bids={999_900: 1})
    (before,) = client.run(0.1, others=[other])
    quiet.silent = True
    quiet.set(bids={999_900: 2})
    quiet.happened = ([], [liquidation("binance")], [])
    assert client.run(2, others=[other]) == []
    quiet.silent = False
    (after,) = client.run(2, others=[other])
    assert after["data"]["pu"] == before["data"]["u"]
    assert after["data"]["b"] == [["99990.00", "0.002"]]
    assert [m for m in other.told if "data" in m] == []
