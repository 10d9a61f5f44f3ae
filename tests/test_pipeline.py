"""Whole histories: raw inputs in, books, messages and digest out."""

import json
import os
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.events import Close, Fetch, Frame, Lost, Opened, Reply, Send, Tick
from monitor.pipeline import Pipeline
from tests.builders import AT, pipeline_config

PUBLIC, MARKET = "binance.public.0", "binance.market.0"
SECOND = 1_000_000_000
PRICES = {"BTCUSDT": 50_000.0, "ETHUSDT": 3_000.0}


def frame(at: int, data: object, feed: str = PUBLIC) -> Frame:
    return Frame(at, feed, json.dumps(data).encode())


def delta(at, symbol, n, *, bids=(), asks=()):
    """Update number n of a chain in which update n follows n - 1; ids are 10 n."""
    return frame(
        at,
        {
            "stream": f"{symbol.lower()}@depth@100ms",
            "data": {
                "e": "depthUpdate",
                "E": at // 1_000_000,
                "T": at // 1_000_000 - 5,
                "s": symbol,
                "U": 10 * n - 9,
                "u": 10 * n,
                "pu": 10 * n - 10,
                "b": [[str(p), str(q)] for p, q in bids],
                "a": [[str(p), str(q)] for p, q in asks],
            },
        },
    )


def snapshot(at, symbol, n):
    price = PRICES[symbol]
    body = {
        "lastUpdateId": 10 * n,
        "E": 1,
        "T": 1,
        "bids": [[str(price - i), "2"] for i in range(1, 4)],
        "asks": [[str(price + i), "3"] for i in range(1, 4)],
    }
    return Reply(at, "binance", f"depth:{symbol}", 200, json.dumps(body).encode())


def history(updates=20):
    """Two symbols whose books sync and then change with every update."""
    yield Opened(AT, PUBLIC)
    yield Opened(AT, MARKET)
    for symbol in PRICES:
        yield delta(AT + 1, symbol, 1)
        yield snapshot(AT + 2, symbol, 1)
    for n in range(2, updates):
        at = AT + n * SECOND // 4
        yield Tick(at)
        for symbol, price in PRICES.items():
            yield delta(at + 1, symbol, n, bids=[(price - n, n)], asks=[(price + n, n / 2)])


def run(inputs):
    pipeline = Pipeline(pipeline_config())
    messages, commands = [], []
    for record in inputs:
        out = pipeline.step(record)
        messages += out[0]
        commands += out[1]
    return pipeline, messages, commands


def book(pipeline, symbol):
    return pipeline.engine.instruments[f"binance:{symbol}"].book


def test_books_sync_and_depth_is_published_once_a_second():
    pipeline, messages, commands = run(history())
    assert book(pipeline, "BTCUSDT").state == "synced"
    assert book(pipeline, "BTCUSDT").best() == (49_999.0, 50_001.0)
    depths = [m for m in messages if m.kind == "depth" and m.asset == "BTC"]
    assert [m.seq for m in depths] == list(range(1, len(depths) + 1))
    assert len(depths) in (4, 5)
    assert [c for c in commands if isinstance(c, Fetch) and c.key == "depth:BTCUSDT"]
    subscribed = [json.loads(c.data)["params"] for c in commands if isinstance(c, Send)]
    assert "btcusdt@depth@100ms" in subscribed[0]


def nth_delta(records, n):
    """Position of the n-th update of BTCUSDT."""
    found = [
        i for i, r in enumerate(records) if isinstance(r, Frame) and b"btcusdt@depth" in r.data
    ]
    return found[n]


def cut(records):
    i = nth_delta(records, 8)
    return records[:i] + records[i + 1 :]


def duplicated(records):
    i = nth_delta(records, 8)
    return records[: i + 1] + records[i:]


def reordered(records):
    i, j = nth_delta(records, 8), nth_delta(records, 9)
    swapped = list(records)
    swapped[i], swapped[j] = swapped[j], swapped[i]
    return swapped


@pytest.mark.parametrize("damage", [cut, duplicated, reordered])
def test_a_damaged_sequence_makes_only_that_book_stale_until_the_next_snapshot(damage):
    records = damage(list(history()))
    pipeline, _, commands = run(records)
    damaged, other = book(pipeline, "BTCUSDT"), book(pipeline, "ETHUSDT")
    assert (damaged.state, damaged.gaps, damaged.resyncs) == ("stale", 1, 0)
    assert (other.state, other.gaps) == ("synced", 0)
    assert sum(isinstance(c, Fetch) and c.key == "depth:BTCUSDT" for c in commands) >= 2
    pipeline.step(snapshot(AT + 60 * SECOND, "BTCUSDT", 19))
    assert (damaged.state, damaged.resyncs) == ("synced", 1)
    assert (other.state, other.gaps) == ("synced", 0)


def test_a_lost_feed_makes_its_books_stale_and_they_sync_again():
    pipeline, _, _ = run([*history(), Lost(AT + 9 * SECOND, PUBLIC, "closed")])
    assert book(pipeline, "BTCUSDT").state == "stale"
    _, commands = pipeline.step(Opened(AT + 10 * SECOND, PUBLIC))
    assert [c for c in commands if isinstance(c, Send)]
    pipeline.step(delta(AT + 11 * SECOND, "BTCUSDT", 100))
    pipeline.step(snapshot(AT + 11 * SECOND, "BTCUSDT", 100))
    assert book(pipeline, "BTCUSDT").state == "synced"
    assert book(pipeline, "ETHUSDT").state == "stale"


HARMLESS = [
    (b"not json", "not_json"),
    (b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1', "not_json"),
    (b"\xff\xfe", "not_json"),
    (b"[" * 100_000, "schema"),
    (b'{"stream":"x@depth","data":{"e":"depthUpdate","s":"BTCUSDT"}}', "schema"),
    (b'{"stream":"x@y","data":{"e":"brandNew","s":"BTCUSDT"}}', "unknown_kind"),
    (
        b'{"e":"aggTrade","s":"BTCUSDT","p":"nan","q":"1","T":1,"m":true}',
        "bad_number",
    ),
    (b'{"e":"aggTrade","s":"BTCUSDT","p":"1","q":"-1","T":1,"m":true}', "bad_number"),
    (b'{"e":"aggTrade","s":"NOPEUSDT","p":"1","q":"1","T":1,"m":true}', "unknown_symbol"),
    (b'{"e":"aggTrade","s":"BTCUSD_PERP","p":"1","q":"1","T":1,"m":true}', "foreign_margin"),
    (b'{"a":"' + b"x" * 30_000_000 + b'"}', "too_large"),
]


@pytest.mark.parametrize(
    ("data", "reason"), HARMLESS, ids=[f"{n}-{reason}" for n, (_, reason) in enumerate(HARMLESS)]
)
def test_a_message_that_cannot_be_used_is_counted_and_harms_nothing(data, reason):
    clean, before, _ = run(history())
    records = list(history())
    middle = len(records) // 2
    spoilt = Frame(records[middle].at, PUBLIC, data)
    pipeline, after, _ = run([*records[:middle], spoilt, *records[middle:]])
    assert pipeline.engine.rejected == {("binance", reason): 1}
    assert after == before
    assert pipeline.digest == clean.digest


@pytest.mark.parametrize("level", [["nan", "1"], ["49990", "-1"], ["49990", "nan"], ["-1", "1"]])
def test_a_bad_number_in_a_book_is_counted_and_that_book_is_fetched_anew(level):
    records = list(history())
    i = nth_delta(records, 8)
    message = json.loads(records[i].data)
    message["data"]["b"].append(level)
    records[i] = frame(records[i].at, message)
    pipeline, _, commands = run(records)
    assert pipeline.engine.rejected == {("binance", "bad_number"): 1}
    assert (book(pipeline, "BTCUSDT").state, book(pipeline, "ETHUSDT").state) == (
        "stale",
        "synced",
    )
    assert sum(isinstance(c, Fetch) and c.key == "depth:BTCUSDT" for c in commands) >= 2
    pipeline.step(snapshot(AT + 60 * SECOND, "BTCUSDT", 19))
    assert book(pipeline, "BTCUSDT").state == "synced"


def test_a_crossed_book_is_not_published_and_is_fetched_anew():
    records = list(history())
    i = nth_delta(records, 8)
    message = json.loads(records[i].data)
    message["data"]["b"].append(["50002", "1"])
    records[i] = frame(records[i].at, message)
    pipeline, messages, commands = run(records)
    assert book(pipeline, "BTCUSDT").state == "stale"
    assert pipeline.engine.rejected == {("binance", "crossed"): 1}
    assert sum(isinstance(c, Fetch) and c.key == "depth:BTCUSDT" for c in commands) >= 2
    last = [m for m in messages if m.kind == "depth" and m.asset == "BTC"][-1]
    assert last.at <= records[i].at + SECOND


def test_a_silent_stream_is_reported_while_the_others_go_on():
    records = [*history()]
    minutes = []
    for n in range(20, 4 * 90):
        at = AT + n * SECOND // 4
        minutes += [Tick(at), delta(at + 1, "BTCUSDT", n)]
    pipeline, _, commands = run(records + minutes)
    btc = pipeline.engine.instruments["binance:BTCUSDT"]
    eth = pipeline.engine.instruments["binance:ETHUSDT"]
    assert "book" not in btc.silent
    assert "book" in eth.silent
    assert (btc.book.state, eth.book.state) == ("synced", "stale")
    assert {"mark", "open_interest"} <= set(btc.silent)
    assert Close(MARKET, "silent") in commands


def test_events_of_an_instrument_without_specification_are_counted_and_harm_nothing():
    config = pipeline_config()
    unlisted = msgspec.structs.replace(config, instruments=config.instruments[:1])
    pipeline = Pipeline(unlisted)
    now = AT // 1_000_000
    mark = {"e": "markPriceUpdate", "E": now, "s": "ETHUSDT", "p": "3000", "r": "", "T": 0}
    trade = {"e": "aggTrade", "s": "ETHUSDT", "p": "3000", "q": "1", "T": now, "m": True}
    order = {"s": "ETHUSDT", "S": "SELL", "p": "1", "ap": "1", "z": "1", "T": now}
    interest = b'{"openInterest":"5","symbol":"ETHUSDT","time":1}'
    for record in (
        *history(),
        frame(AT, mark, MARKET),
        frame(AT, trade, MARKET),
        frame(AT, {"e": "forceOrder", "o": order}, MARKET),
        Reply(AT, "binance", "open_interest:ETHUSDT", 200, interest),
        Reply(AT, "binance", "instruments", 200, b"damaged"),
    ):
        pipeline.step(record)
    assert book(pipeline, "BTCUSDT").state == "synced"
    assert list(pipeline.engine.instruments) == ["binance:BTCUSDT"]
    assert pipeline.engine.rejected["binance", "unknown_symbol"] > 3


def test_frames_of_unknown_feeds_are_counted():
    pipeline, _, _ = run([Frame(AT, "nowhere.0", b"{}"), Lost(AT, "nowhere.0", "x")])
    assert pipeline.summary()["decode_errors"] == {"unrouted": 2}


def test_the_digest_is_the_same_in_every_process_and_under_every_hash_seed():
    program = "from tests.test_pipeline import *; print(run(history())[0].digest)"
    digests = set()
    for seed in ("0", "12345"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": "."}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout)
    assert digests == {run(history())[0].digest + "\n"}


def test_the_digest_changes_with_any_output():
    records = list(history())
    assert run(records)[0].digest != run(records[:-14])[0].digest


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=80).map(lambda data: Frame(AT, PUBLIC, data)),
            st.builds(
                Reply,
                st.just(AT),
                st.just("binance"),
                st.sampled_from(["depth:BTCUSDT", "instruments", "funding_info", "x", ""]),
                st.sampled_from([0, 200, 429]),
                st.binary(max_size=80),
            ),
            st.sampled_from(list(history())),
        ),
        max_size=60,
    )
)
def test_no_sequence_of_inputs_stops_the_pipeline(records):
    pipeline, _, _ = run(records)
    pipeline.summary()
