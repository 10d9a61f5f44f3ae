"""The simulated OKX, request for request (docs/exchanges.md section 3)."""

import pytest

from monitor.sim.exchange import Trade
from monitor.sim.wire.base import HandshakeError
from tests.sim.wire.client import Client

SWAP = "BTC-USDT-SWAP"
BOOKS = {"channel": "books", "instId": SWAP}
LIQUIDATIONS = {"channel": "liquidation-orders", "instType": "SWAP"}


def subscribe(*arguments, number="1512"):
    return {"id": number, "op": "subscribe", "args": list(arguments)}


def test_every_argument_is_acknowledged_by_itself(quiet):
    client = Client(quiet, "okx")
    trades = {"channel": "trades", "instId": SWAP}
    answers = client.say(subscribe(BOOKS, trades))
    acks = [a for a in answers if "event" in a]
    assert [a["arg"] for a in acks] == [BOOKS, trades]
    assert {(a["event"], a["id"]) for a in acks} == {("subscribe", "1512")}
    assert acks[0]["connId"]
    (gone,) = client.say({"op": "unsubscribe", "args": [BOOKS]})
    assert (gone["event"], "id" in gone) == ("unsubscribe", False)


def test_ping_is_text_and_so_is_pong(quiet):
    assert Client(quiet, "okx").say("ping") == ["pong"]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ("{", "60012"),
        ({"op": "subscribe"}, "60012"),
        ({"op": "dance", "args": [BOOKS]}, "60012"),
        (subscribe("books"), "60012"),
        (subscribe({"channel": "candle1m", "instId": "BTC-USDT"}), "60018"),
        (subscribe({"channel": "books", "instId": "NOPE"}), "60018"),
        (subscribe({"channel": "books-l2-tbt", "instId": SWAP}), "64003"),
    ],
)
def test_bad_requests_are_refused_with_the_venues_code(quiet, request_, code):
    (error,) = Client(quiet, "okx").say(request_)
    assert (error["event"], error["code"]) == ("error", code)


def test_the_business_socket_has_none_of_these_channels(quiet):
    client = Client(quiet, "okx", path="/ws/v5/business")
    (error,) = client.say(subscribe(BOOKS))
    assert error["code"] == "60018"
    with pytest.raises(HandshakeError):
        Client(quiet, "okx", path="/ws/v5/private")


def test_requests_an_hour_are_limited(quiet):
    client = Client(quiet, "okx")
    for _ in range(480):
        assert client.session.receive("{}", 1)
    (error,) = client.say(subscribe(BOOKS))
    assert error["code"] == "60014"


def test_a_book_chain_with_its_keep_alive(quiet):
    client = Client(quiet, "okx")
    _, snapshot = client.say(subscribe(BOOKS))
    (whole,) = snapshot["data"]
    assert snapshot["action"] == "snapshot"
    assert not {"prevSeqId", "checksum"} & set(whole)
    assert whole["bids"][0][:3] == ["99990", "10.01", "0"]
    quiet.set(bids={999_900: 700, 999_800: 0})
    (update,) = client.run(0.1)
    (row,) = update["data"]
    assert row["prevSeqId"] == whole["seqId"] < row["seqId"]
    assert row["bids"] == [["99990", "7", "0", "2"], ["99980", "0", "0", "0"]]
    (alive,) = client.run(61)
    assert (alive["data"][0]["bids"], alive["data"][0]["asks"]) == ([], [])
    assert alive["data"][0]["prevSeqId"] == alive["data"][0]["seqId"] == row["seqId"]


def test_a_book_built_by_the_documented_steps_is_the_true_one(small):
    client = Client(small, "okx")
    client.say(subscribe(BOOKS))
    client.run(30)
    book, last = ({}, {}), None
    for message in client.told[1:]:
        (row,) = message["data"]
        assert (message["action"] == "snapshot") == (last is None)
        assert last is None or row["prevSeqId"] == last
        last = row["seqId"]
        for side, changes in zip(book, (row["bids"], row["asks"]), strict=True):
            for price, size, _, _ in changes:
                tick, lots = round(float(price) * 10), round(float(size) * 100)
                if lots:
                    side[tick] = lots
                else:
                    side.pop(tick)
    whole = small.peek_book("okx", "BTC")
    assert sorted(book[0].items(), reverse=True) == whole.bids[:400]
    assert sorted(book[1].items()) == whole.asks[:400]


def test_prices_come_when_they_change_and_now_and_then_without(quiet):
    client = Client(quiet, "okx")
    mark = {"channel": "mark-price", "instId": SWAP}
    index = {"channel": "index-tickers", "instId": "BTC-USDT"}
    quiet.fields = {"mark": 1_000_001, "index": 1_000_010}
    answers = client.say(subscribe(mark, index))
    assert answers[1]["data"][0]["markPx"] == "100000.1"
    assert answers[3]["data"][0]["instId"] == "BTC-USDT"
    assert answers[3]["data"][0]["idxPx"] == "100001"
    client.run(1)
    quiet.fields |= {"mark": 1_000_002}
    (changed,) = client.run(0.5)
    assert changed["data"][0]["markPx"] == "100000.2"
    repeated = client.run(20)
    assert [m["arg"]["channel"] for m in repeated] == ["mark-price", "mark-price"]


def test_funding_and_open_interest_in_the_venues_units(quiet):
    quiet.fields = {"open_interest": 221_611_301, "mark": 875_000, "funding_rate_e8": 2_634}
    client = Client(quiet, "okx")
    wanted = [{"channel": c, "instId": SWAP} for c in ("funding-rate", "open-interest")]
    _, funding, _, interest = client.say(subscribe(*wanted))
    row = funding["data"][0]
    assert row["fundingRate"] == "0.00002634"
    assert int(row["nextFundingTime"]) - int(row["fundingTime"]) == 8 * 3_600_000
    assert (row["method"], row["nextFundingRate"]) == ("current_period", "")
    row = interest["data"][0]
    assert (row["oi"], row["oiCcy"]) == ("2216113.01", "22161.1301")
    assert float(row["oiUsd"]) == pytest.approx(22161.1301 * 87_500)
    assert [m["arg"]["channel"] for m in client.run(59)].count("funding-rate") <= 1


def test_liquidations_begin_with_an_old_one_and_are_one_a_second(quiet, liquidation):
    client = Client(quiet, "okx")
    _, old = client.say(subscribe(LIQUIDATIONS))
    assert quiet.at / 1e6 - int(old["data"][0]["details"][0]["ts"]) >= 3_600_000
    told = []
    for n in range(20):
        quiet.happened = ([], [liquidation("okx", filled=100 + n, taken=0)], [])
        told += client.run(0.1)
    assert len(told) == 2
    row = told[0]["data"][0]
    assert (row["instId"], told[0]["arg"]) == (SWAP, LIQUIDATIONS)
    detail = row["details"][0]
    assert (detail["side"], detail["posSide"], detail["sz"]) == ("sell", "long", "1.09")
    assert (detail["bkPx"], detail["bkLoss"]) == ("99000", "1.5")
    _, cached = Client(quiet, "okx", wire=client.wire).say(subscribe(LIQUIDATIONS))
    assert cached == told[1]


def test_dated_products_are_accepted_and_have_none(quiet):
    (ack,) = Client(quiet, "okx").say(subscribe(LIQUIDATIONS | {"instType": "FUTURES"}))
    assert ack["event"] == "subscribe"


def test_trades_of_one_taker_at_one_price_are_one_row_in_contracts(quiet):
    client = Client(quiet, "okx")
    client.say(subscribe({"channel": "trades", "instId": SWAP}))
    trade = {"at": quiet.at, "venue": "okx", "asset": "BTC", "forced": False, "taker": "sell"}
    trades = [Trade(tick=999_900, lots=n, **trade) for n in (20_000, 10_000)]
    quiet.happened = (trades, [], [])
    (told,) = client.run(0.1)
    row = told["data"][0]
    assert (row["px"], row["sz"], row["side"], row["count"]) == ("99990", "300", "sell", "2")


def test_small_books_and_tickers(quiet):
    client = Client(quiet, "okx")
    channels = ("books5", "bbo-tbt", "tickers")
    answers = client.say(subscribe(*({"channel": c, "instId": SWAP} for c in channels)))
    rows = [a["data"][0] for a in answers if "data" in a]
    assert [len(rows[0]["bids"]), len(rows[1]["bids"]), rows[2]["bidPx"]] == [5, 1, "99990"]


def test_instruments_and_tiers(quiet):
    client = Client(quiet, "okx")
    (row,) = client.get("/api/v5/public/instruments", instType="SWAP")[1]["data"]
    shown = {k: row[k] for k in ("ctVal", "ctMult", "ctType", "tickSz", "lotSz", "uly")}
    assert shown == {
        "ctVal": "0.01",
        "ctMult": "1",
        "ctType": "linear",
        "tickSz": "0.1",
        "lotSz": "0.01",
        "uly": "BTC-USDT",
    }
    assert client.get("/api/v5/public/instruments", instType="SPOT")[1]["data"] == []
    query = {"instType": "SWAP", "tdMode": "isolated", "instFamily": "BTC-USDT"}
    rows = client.get("/api/v5/public/position-tiers", **query)[1]["data"]
    bounds = [(r["tier"], r["minSz"], r["maxSz"], r["mmr"]) for r in rows[:2]]
    assert bounds == [("1", "0", "1000", "0.004"), ("2", "1000.01", "2500", "0.005")]


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        ("public/instruments", {}, "51000"),
        ("public/instruments", {"instType": "SWAP", "instId": "NOPE"}, "51001"),
        ("public/position-tiers", {"instType": "SWAP", "tdMode": "cross", "uly": "X"}, "51000"),
        ("market/books", {"instId": "NOPE"}, "51001"),
        ("market/index-tickers", {"instId": "NOPE"}, "51001"),
    ],
)
def test_errors_come_with_status_200(quiet, path, query, code):
    status, body = Client(quiet, "okx").get(f"/api/v5/{path}", **query)
    assert (status, body["code"], body["data"]) == (200, code, [])
