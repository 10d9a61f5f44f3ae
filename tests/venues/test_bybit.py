"""Bybit's codec: every message kind, the chain of the book, limits, real recordings."""

import json
from copy import deepcopy
from functools import partial
from typing import Any

import pytest

from monitor.core.depth.book import Book
from monitor.events import (
    NS,
    BookDelta,
    BookSnapshot,
    Fetch,
    Frame,
    Funding,
    Gap,
    Instrument,
    Liquidation,
    Listed,
    MarkPrice,
    OpenInterest,
    Rejected,
    Reply,
    Send,
    Silence,
    Syncing,
    Tier,
    Trade,
    Transfer,
)
from monitor.venues.base import MS, Out
from monitor.venues.bybit import ARGUMENTS_MAX, ASKED_MAX, PAGES_MAX, Bybit
from tests.venues import harness
from tests.venues.harness import (
    AT,
    NaiveBook,
    config,
    cryptofeed,
    cryptofeed_text,
    follow,
    kinds,
    refusals,
    sent,
    started,
)

MESSAGES, REPLIES = harness.payloads("bybit", "messages"), harness.payloads("bybit", "replies")
FEED = "bybit.linear.0"
BTC, ETH = "bybit:BTCUSDT", "bybit:ETHUSDT"
DATED = "BTCUSDT-26MAR27"


def instrument(symbol: str, *, tick: float = 0.1) -> Instrument:
    hours = None if "-" in symbol else 8.0
    return harness.instrument("bybit", symbol, tick=tick, funding_interval_hours=hours)


frame = partial(harness.frame, feed=FEED)
reply = partial(harness.reply, venue="bybit")


def codec(*symbols: str, known: bool = True, opened: bool = True, **fields: int) -> Bybit:
    names = symbols or ("BTCUSDT", "ETHUSDT", DATED)
    specs = [instrument(name) for name in names] if known else []
    made = Bybit(config(*names, **({"book_depth": 200} | fields)), specs)
    return started(made) if opened else made


def book(
    u: int, *, symbol: str = "BTCUSDT", kind: str = "delta", depth: int = 200, at: int = AT,
    bids: Any = (("100.0", "1"),), asks: Any = (("100.1", "1"),),
) -> Frame:  # fmt: skip
    data = {"s": symbol, "b": bids, "a": asks, "u": u, "seq": 1}
    message = {"topic": f"orderbook.{depth}.{symbol}", "type": kind, "ts": 1, "data": data}
    return frame(message, at=at)


# ------------------------------------------------------------------------------------ the book


def test_a_snapshot_becomes_a_maintained_book_of_the_topics_depth():
    out = codec(book_depth=1000).receive(frame(MESSAGES["book_snapshot"]))
    assert out == [
        BookSnapshot(
            BTC,
            1790000000098 * MS,
            [(60000.0, 1.5), (59999.9, 0.25), (59990.0, 4.0)],
            [(60000.1, 0.75), (60000.2, 2.0), (60010.0, 3.125)],
            depth=200,
            maintained=True,
        )
    ]


def test_a_delta_in_sequence_is_passed_on():
    ours = codec()
    ours.receive(frame(MESSAGES["book_snapshot"]))
    assert ours.receive(frame(MESSAGES["book_delta"])) == [
        BookDelta(BTC, 1790000000197 * MS, [(59999.9, 0.0), (59999.5, 0.1)], [(60000.1, 0.5)])
    ]


def test_the_order_of_keys_does_not_matter():
    out = codec().receive(frame(MESSAGES["book_other_order"]))
    assert kinds(out) == [BookSnapshot]
    for name in ("ticker_snapshot", "trades", "liquidations"):
        turned = dict(reversed(MESSAGES[name].items()))
        assert codec().receive(frame(turned)) == codec().receive(frame(MESSAGES[name]))


@pytest.mark.parametrize("u", [10, 9, 12, 2], ids=["duplicate", "reordered", "gap", "far back"])
def test_a_break_of_the_sequence_costs_this_book_only_until_its_next_snapshot(u: int):
    ours = codec()
    for symbol in ("BTCUSDT", "ETHUSDT"):
        ours.receive(book(9, symbol=symbol, kind="snapshot"))
        ours.receive(book(10, symbol=symbol))
    out = ours.receive(book(u))
    assert out[0] == Gap(BTC, "sequence")
    assert [(m["op"], m["args"]) for m in sent(out)] == [
        ("unsubscribe", ["orderbook.200.BTCUSDT"]),
        ("subscribe", ["orderbook.200.BTCUSDT"]),
    ]
    assert ours.receive(book(13)) == []  # still of the old subscription
    assert kinds(ours.receive(book(11, symbol="ETHUSDT"))) == [BookDelta]
    assert kinds(ours.receive(book(50, kind="snapshot"))) == [BookSnapshot]
    assert kinds(ours.receive(book(51))) == [BookDelta]


def test_a_book_that_keeps_breaking_is_subscribed_less_and_less_often():
    ours = codec()
    subscribed = []
    for step in range(4 * 3600):  # an hour of a break every quarter of a second
        at = AT + step * NS // 4
        out = ours.receive(book(10, kind="snapshot", at=at)) + ours.receive(book(99, at=at))
        out += ours.tick(at)
        asked = [m for m in sent(out) if m["args"] == ["orderbook.200.BTCUSDT"]]
        if any(m["op"] == "subscribe" for m in asked):
            subscribed.append(step / 4)
    assert subscribed[0] == 0.0
    assert len(subscribed) < 20
    assert ours.receive(book(10, kind="snapshot", at=at))  # and it is still listened to


def test_update_number_one_is_a_snapshot_whatever_its_type():
    ours = codec()
    ours.receive(frame(MESSAGES["book_snapshot"]))
    out = ours.receive(frame(MESSAGES["book_restart"]))
    assert kinds(out) == [BookSnapshot]
    assert kinds(ours.receive(book(2))) == [BookDelta]


def test_a_second_snapshot_replaces_the_book_without_a_gap():
    ours = codec()
    ours.receive(book(9, kind="snapshot"))
    assert kinds(ours.receive(book(700, kind="snapshot"))) == [BookSnapshot]
    assert kinds(ours.receive(book(701))) == [BookDelta]


def test_a_delta_before_the_snapshot_is_not_used():
    assert codec().receive(book(5)) == []


def test_the_best_price_topic_does_not_disturb_a_deeper_book():
    ours = codec()
    ours.receive(book(9, kind="snapshot"))
    assert ours.receive(frame(MESSAGES["book_best"])) == []
    assert ours.receive(book(78, depth=1)) == []
    assert kinds(ours.receive(book(10))) == [BookDelta]
    ours.receive(book(99))  # a gap: the deep book is awaited, and no other put in its place
    assert ours.receive(frame(MESSAGES["book_best"])) == []


def test_the_best_price_topic_alone_is_a_book_of_one_level():
    ours = codec()
    (snapshot,) = ours.receive(frame(MESSAGES["book_best"]))
    assert isinstance(snapshot, BookSnapshot)
    assert snapshot.depth == 1
    assert kinds(ours.receive(frame(MESSAGES["book_best"]))) == [BookSnapshot]  # sent again
    assert kinds(ours.receive(book(9, kind="snapshot"))) == [BookSnapshot]  # a deeper one wins


def test_a_lost_feed_loses_its_books_and_only_those():
    ours = codec("BTCUSDT", "ETHUSDT", per_socket=1)
    ours.receive(book(9, kind="snapshot"))
    ours.receive(book(9, symbol="ETHUSDT", kind="snapshot"))
    assert ours.lost(FEED, AT) == [Gap(BTC, "feed_lost"), Gap(BTC, "marks_lost")]
    assert ours.receive(book(10)) == []
    assert kinds(ours.receive(book(10, symbol="ETHUSDT"))) == [BookDelta]
    assert Syncing(BTC) in ours.opened(FEED, AT)
    assert kinds(ours.receive(book(1000, kind="snapshot"))) == [BookSnapshot]


def test_the_engine_can_ask_for_a_new_book():
    ours = codec()
    ours.receive(book(9, kind="snapshot"))
    assert [m["op"] for m in sent(ours.resync("BTCUSDT", AT))] == ["unsubscribe", "subscribe"]
    assert ours.receive(book(10)) == []


def test_a_book_that_never_comes_is_reported_silent_and_asked_for_again():
    ours = codec()
    ours.receive(book(9, kind="snapshot"))
    ours.receive(book(99))
    for second in range(1, 70):
        at = AT + second * NS
        ours.receive(book(100 + second, at=at))  # of no use without a snapshot
        ours.receive(frame(MESSAGES["ticker_delta_best_only"], at=at))
        out = ours.tick(at)
        if any(isinstance(event, Silence) and event.channel == "book" for event in out):
            break
    else:
        pytest.fail("the silence went unnoticed")
    assert Silence(BTC, "book", AT) in out
    out = ours.receive(book(500, kind="snapshot", at=at))
    assert out[0] == Silence(BTC, "book", None)


# ---------------------------------------------------------------------------------- the ticker


def test_a_ticker_snapshot_has_prices_one_sided_interest_and_funding_per_eight_hours():
    out = codec().receive(frame(MESSAGES["ticker_snapshot"]))
    at = 1790000000150 * MS
    assert out == [
        MarkPrice(BTC, at, 60001.25, 60010.50),
        OpenInterest(BTC, at, 25000.25, 1500046250.31),
        Funding(BTC, at, 0.0001, 4.0, 1790006400000 * MS),
    ]


def test_interest_of_both_sides_is_halved_where_one_side_is_not_told():
    out = codec().receive(frame(MESSAGES["ticker_snapshot_two_sided"]))
    assert OpenInterest(ETH, 1790000000151 * MS, 40000.0, 80020000.0) in out


def test_in_a_delta_what_is_absent_is_unchanged_and_not_told_again():
    ours = codec()
    assert ours.receive(frame(MESSAGES["ticker_delta"])) == [
        MarkPrice(BTC, 1790000000250 * MS, 60002.5, None)
    ]
    ours.receive(frame(MESSAGES["ticker_snapshot"]))
    assert ours.receive(frame(MESSAGES["ticker_delta"])) == [
        MarkPrice(BTC, 1790000000250 * MS, 60002.5, 60010.5)
    ]
    assert ours.receive(frame(MESSAGES["ticker_delta_best_only"])) == []
    assert ours.receive(frame(MESSAGES["ticker_delta_interest"])) == [
        OpenInterest(BTC, 1790000000450 * MS, 25001.25, 1500062500.62)
    ]
    assert ours.receive(frame(MESSAGES["ticker_delta_funding"])) == [
        Funding(BTC, 1790000000550 * MS, pytest.approx(0.00012), 4.0, 1790006400000 * MS)
    ]


def test_open_interest_that_does_not_change_is_told_again_while_tickers_come():
    ours = codec()
    ours.receive(frame(MESSAGES["ticker_snapshot"]))
    told = []
    for second in range(1, 100):
        out = ours.receive(frame(MESSAGES["ticker_delta"], at=harness.AT + second * 1000 * MS))
        told += [second for event in out if isinstance(event, OpenInterest)]
    assert told == [30, 60, 90]


def test_the_sum_of_both_sides_is_not_mixed_with_one_side_once_that_is_known():
    ours = codec()
    ours.receive(frame(MESSAGES["ticker_snapshot"]))
    delta = deepcopy(MESSAGES["ticker_delta"])
    delta["data"] = {"symbol": "BTCUSDT", "openInterest": "70000"}
    assert ours.receive(frame(delta)) == []


def test_the_merged_ticker_is_forgotten_with_the_feed():
    ours = codec()
    ours.receive(frame(MESSAGES["ticker_snapshot"]))
    ours.lost(FEED, AT)
    assert ours.receive(frame(MESSAGES["ticker_delta"])) == [
        MarkPrice(BTC, 1790000000250 * MS, 60002.5, None)
    ]


def test_a_dated_contract_has_no_funding():
    out = codec().receive(frame(MESSAGES["ticker_dated"]))
    assert kinds(out) == [MarkPrice, OpenInterest]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("markPrice", "NaN"), ("markPrice", "0"), ("markPrice", "-1"), ("indexPrice", "inf"),
        ("singleOpenInterest", "-1"), ("singleOpenInterestValue", "1e999"), ("markPrice", "x"),
        ("fundingRate", "nan"), ("fundingRate", "7"), ("fundingIntervalHour", "0"),
        ("fundingIntervalHour", "1e-320"), ("nextFundingTime", "99999999999999999"),
    ],
)  # fmt: skip
def test_a_bad_number_in_a_ticker_is_refused_and_leaves_the_merged_state_alone(
    field: str, value: str
):
    ours = codec()
    ours.receive(frame(MESSAGES["ticker_snapshot"]))
    broken = deepcopy(MESSAGES["ticker_delta"])
    broken["data"] |= {field: value}
    assert ours.receive(frame(broken))[-1] == Rejected("bybit", FEED, "bad_number")
    if (field, value) != ("fundingIntervalHour", "1e-320"):
        after = ours.receive(frame(MESSAGES["ticker_delta_funding"]))
        assert after == [
            Funding(BTC, 1790000000550 * MS, pytest.approx(0.00012), 4.0, 1790006400000 * MS)
        ]


# ---------------------------------------------------------------------- trades and liquidations


def test_trades_have_the_takers_side_and_block_trades_are_transfers():
    assert codec().receive(frame(MESSAGES["trades"])) == [
        Trade(BTC, 1790000000690 * MS, 60000.1, 0.01, "buy"),
        Trade(BTC, 1790000000695 * MS, 60000.0, 0.02, "sell"),
        Transfer(BTC, 1790000000699 * MS, 59950.0, 25.0, "block"),
    ]


def test_the_letter_of_a_liquidation_is_the_side_of_the_position():
    long, short = codec().receive(frame(MESSAGES["liquidations"]))
    assert long == Liquidation(
        instrument=BTC,
        sent_at=1790000000900 * MS,
        side="long",
        quantity=0.5,
        usd=29500.0,
        price=59000.0,
        price_kind="bankruptcy",
        fill_price=None,
        completeness="all",
        raw_side="Buy",
    )
    assert isinstance(short, Liquidation)
    assert (short.side, short.raw_side, short.usd) == ("short", "Sell", pytest.approx(12200.0))


@pytest.mark.parametrize("name", ["trades", "liquidations"])
@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("p", "0", "bad_number"),
        ("v", "-1", "bad_number"),
        ("v", "NaN", "bad_number"),
        ("S", "Short", "unknown_kind"),
        ("s", "NOPEUSDT", "unknown_symbol"),
    ],
)
def test_one_bad_row_does_not_cost_the_others(name: str, field: str, value: str, reason: str):
    broken = deepcopy(MESSAGES[name])
    broken["data"][0] |= {field: value}
    broken["data"] += [broken["data"][0]]
    out = codec().receive(frame(broken))
    assert refusals(out) == [reason]  # once, however many rows have it
    assert len(out) == len(MESSAGES[name]["data"])


# ------------------------------------------------------------------------- answers and refusals


def test_acknowledgements_pongs_and_unused_topics_are_passed_over():
    for name in ("acknowledged", "pong", "kline"):
        assert codec().receive(frame(MESSAGES[name])) == []


def test_a_refused_subscription_is_counted():
    assert codec().receive(frame(MESSAGES["refused"])) == [Rejected("bybit", FEED, "refused")]


def test_the_good_topics_of_a_refused_request_are_asked_for_one_by_one():
    ours = codec(opened=False)
    requests = sent(ours.opened(FEED, AT))
    bad = requests[0]
    refusal = MESSAGES["refused"] | {"req_id": bad["req_id"]}
    out = ours.receive(frame(refusal))
    assert [m["args"] for m in sent(out)] == [[topic] for topic in bad["args"]]
    again = MESSAGES["refused"] | {"req_id": sent(out)[0]["req_id"]}
    assert ours.receive(frame(again)) == [Rejected("bybit", FEED, "refused")]  # and that is that


def test_the_memory_of_unanswered_requests_is_bounded():
    ours = codec()
    for _ in range(2 * ASKED_MAX):
        ours.lost(FEED, AT)
        ours.opened(FEED, AT)
    assert len(ours._asked) <= ASKED_MAX


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "not_json"), (b"pong", "not_json"), (b"\xff\xfe", "not_json"), (b"[]", "schema"),
        (b"{}", "unknown_kind"), (b'{"op":1}', "schema"), (b'{"topic":7}', "schema"),
        (b'{"topic":"novel.BTCUSDT","data":{}}', "unknown_kind"),
        (b'{"topic":"orderbook.200.BTCUSDT","type":"delta"}', "schema"),
        (b'{"topic":"orderbook.BTCUSDT","type":"delta","data":{"b":[],"a":[],"u":1}}', "schema"),
        (b'{"topic":"orderbook.x.BTCUSDT","type":"delta","data":{"b":[],"a":[],"u":1}}', "schema"),
        (
            b'{"topic":"orderbook.50.NOPE","type":"delta","data":{"b":[],"a":[],"u":1}}',
            "unknown_symbol",
        ),
        (
            b'{"topic":"orderbook.50.BTCUSDT","type":"patch","data":{"b":[],"a":[],"u":3}}',
            "unknown_kind",
        ),
        (
            b'{"topic":"tickers.BTCUSDT","type":"patch","data":{"symbol":"BTCUSDT"},"ts":1}',
            "unknown_kind",
        ),
        (
            b'{"topic":"tickers.NOPE","type":"delta","data":{"symbol":"NOPE"},"ts":1}',
            "unknown_symbol",
        ),
        (
            b'{"topic":"tickers.BTCUSDT","type":"delta","data":{"symbol":"BTCUSDT"},"ts":1e15}',
            "schema",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_its_reason(message: bytes, reason: str):
    assert codec().receive(Frame(AT, FEED, message)) == [Rejected("bybit", FEED, reason)]


def test_nothing_is_told_of_a_symbol_whose_specification_is_unknown():
    ours = codec(known=False)
    for name in ("book_snapshot", "ticker_snapshot", "trades", "liquidations"):
        assert set(refusals(ours.receive(frame(MESSAGES[name])))) == {"unknown_symbol"}


# ------------------------------------------------------------------------------ subscriptions


def test_a_symbol_has_four_topics_with_the_configured_depth():
    ours = codec("BTCUSDT", opened=False, book_depth=1000)
    (message,) = sent(ours.opened(FEED, AT))
    assert message["op"] == "subscribe"
    assert message["args"] == [
        "orderbook.1000.BTCUSDT",
        "publicTrade.BTCUSDT",
        "tickers.BTCUSDT",
        "allLiquidation.BTCUSDT",
    ]
    (feed,) = ours.feeds
    assert feed.url == "wss://stream.test/v5/public/linear"
    assert (feed.ping, feed.ping_after_s) == ('{"op":"ping"}', 20.0)


@pytest.mark.parametrize(("wanted", "offered"), [(1, 1), (20, 50), (400, 1000), (5000, 1000)])
def test_a_depth_the_venue_does_not_offer_is_rounded_up_to_one_it_does(wanted: int, offered: int):
    ours = codec("BTCUSDT", opened=False, book_depth=wanted)
    (message,) = sent(ours.opened(FEED, AT))
    assert message["args"][0] == f"orderbook.{offered}.BTCUSDT"


@pytest.mark.parametrize(("per_socket", "width"), [(40, 8), (1000, 8), (1000, 60)])
def test_a_hundred_symbols_respect_the_limits_of_requests_and_connections(
    per_socket: int, width: int
):
    symbols = [f"{'X' * (width - 7)}{i:03}USDT" for i in range(100)]
    ours = codec(*symbols, opened=False, per_socket=per_socket)
    topics: list[str] = []
    for feed in ours.feeds:
        requests = sent(ours.opened(feed.name, AT))
        assert all(len(request["args"]) <= 10 for request in requests)
        mine = [topic for request in requests for topic in request["args"]]
        assert len(json.dumps(mine, separators=(",", ":"))) <= ARGUMENTS_MAX < 21_000
        assert len(mine) <= 4 * per_socket
        topics += mine
    assert len(topics) == len(set(topics)) == 400
    assert [feed.name for feed in ours.feeds] == [
        f"bybit.linear.{i}" for i in range(len(ours.feeds))
    ]


def test_a_symbol_is_subscribed_once_its_specification_has_come():
    ours = codec("BTCUSDT", known=False, opened=False)
    assert ours.opened(FEED, AT) == []
    out = ours.reply(reply("instruments", REPLIES["instruments"]))
    assert kinds(out) == [Listed, Syncing, Send]


# ------------------------------------------------------------------------------------- replies


def test_instruments_come_in_pages_with_interval_in_minutes_and_multiplied_names():
    ours = codec("BTCUSDT", "1000PEPEUSDT", "SHIB1000USDT", "ETHUSDT", DATED, known=False)
    assert ours.tick(AT) == []  # asked already
    out = ours.reply(reply("instruments", REPLIES["instruments"]))
    listed = {e.instrument.symbol: e.instrument for e in out if isinstance(e, Listed)}
    assert list(listed) == ["BTCUSDT", "1000PEPEUSDT", "SHIB1000USDT"]
    btc = listed["BTCUSDT"]
    assert (btc.name, btc.kind, btc.contract, btc.multiplier) == (BTC, "linear", 1.0, 1.0)
    assert (btc.tick, btc.lot, btc.funding_interval_hours) == (0.1, 0.001, 8.0)
    assert listed["1000PEPEUSDT"].multiplier == listed["SHIB1000USDT"].multiplier == 1000.0
    assert listed["1000PEPEUSDT"].funding_interval_hours == 4.0
    (page,) = [f for f in ours.tick(AT) if isinstance(f, Fetch) and "cursor" in f.path]
    assert page.path.endswith("&cursor=first%3DBTCUSDT%26last%3DNOTOURSUSDT")
    out = ours.reply(reply(page.key, REPLIES["instruments_last"]))
    listed = {e.instrument.symbol: e.instrument for e in out if isinstance(e, Listed)}
    assert listed["ETHUSDT"].funding_interval_hours == 1.0
    assert listed[DATED].funding_interval_hours is None
    assert not [f for f in ours.tick(AT + 60 * NS) if isinstance(f, Fetch) and "cursor" in f.path]


def test_an_endless_list_of_pages_is_not_followed_for_ever():
    ours = codec("BTCUSDT", known=False)
    key, pages = "instruments", 0
    while key and pages < 2 * PAGES_MAX:
        ours.reply(reply(key, REPLIES["instruments"]))
        pages += 1
        asked = [f for f in ours.tick(AT) if isinstance(f, Fetch)]
        key = next((f.key for f in asked if f.key.startswith("instruments")), "")
    assert pages == PAGES_MAX


@pytest.mark.parametrize("name", ["tiers", "tiers_percent"])
def test_tiers_are_sorted_contiguous_and_fractions_in_either_notation(name: str):
    ours = codec()
    (listed,) = ours.reply(reply("tiers:BTCUSDT", REPLIES[name]))
    assert isinstance(listed, Listed)
    assert listed.instrument.tier_unit == "quote"
    assert listed.instrument.tiers == (
        Tier(0.0, 300_000.0, pytest.approx(0.0033), 0.0, 150.0),
        Tier(300_000.0, 800_000.0, pytest.approx(0.005), 510.0, 100.0),
    )
    assert ours.reply(reply("tiers:BTCUSDT", REPLIES[name])) == []  # nothing new


def test_tiers_of_a_low_leverage_are_not_taken_for_percent():
    body = deepcopy(REPLIES["tiers"])
    for row, margin, leverage in zip(
        body["result"]["list"], ("0.2", "0.1"), ("2.5", "5"), strict=True
    ):
        row |= {"maintenanceMargin": margin, "maxLeverage": leverage}
    (listed,) = codec().reply(reply("tiers:BTCUSDT", body))
    assert isinstance(listed, Listed)
    assert [(t.rate, t.max_leverage) for t in listed.instrument.tiers] == [(0.1, 5.0), (0.2, 2.5)]


def test_tiers_survive_a_new_list_of_instruments():
    ours = codec()
    ours.reply(reply("tiers:BTCUSDT", REPLIES["tiers"]))
    ours.reply(reply("instruments", REPLIES["instruments"]))
    assert len(ours.instruments["BTCUSDT"].tiers) == 2


def test_tiers_are_asked_for_every_listed_symbol_and_for_no_other():
    ours = codec("BTCUSDT", "NOPEUSDT", known=False)
    ours.reply(reply("instruments", REPLIES["instruments"]))
    asked = [f.path for f in ours.tick(AT) if isinstance(f, Fetch) and f.key.startswith("tiers")]
    assert asked == ["/v5/market/risk-limit?category=linear&symbol=BTCUSDT"]


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, {}, "http"), (200, REPLIES["refused"], "http"),
        (200, [], "schema"), (200, {"retCode": 0}, "schema"),
        (200, {"retCode": 0, "result": {"list": [{"symbol": "BTCUSDT"}]}}, "schema"),
    ],
)  # fmt: skip
def test_a_failed_request_is_counted_and_repeated_more_and_more_patiently(
    status: int, body: Any, reason: str
):
    ours = codec(known=False)
    at, waits = AT, []
    for _ in range(3):
        assert refusals(ours.reply(reply("instruments", body, at=at, status=status))) == [reason]
        asked = at
        while not any(isinstance(event, Fetch) for event in ours.tick(at)):
            at += NS // 4
        waits.append((at - asked) / NS)
    assert waits == [2.0, 4.0, 8.0]
    assert kinds(ours.reply(reply("instruments", REPLIES["instruments"], at=at)))[0] is Listed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"contractType": "LinearNovelty"}, "unknown_kind"),
        ({"priceFilter": {"tickSize": "0"}}, "bad_number"),
        ({"priceFilter": {"tickSize": "nan"}}, "bad_number"),
        ({"settleCoin": "BTC"}, None),
    ],
)
def test_an_instrument_that_cannot_be_used_is_not_listed(
    change: dict[str, Any], reason: str | None
):
    body = deepcopy(REPLIES["instruments"])
    body["result"]["list"][0] |= change
    out = codec("BTCUSDT", known=False).reply(reply("instruments", body))
    assert not [event for event in out if isinstance(event, Listed)]
    assert refusals(out) == ([reason] if reason else [])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("maintenanceMargin", "nan"), ("riskLimitValue", "0"), ("riskLimitValue", "800000"),
        ("mmDeduction", "-1"), ("mmDeduction", "x"), ("maxLeverage", "0"),
    ],
)  # fmt: skip
def test_a_bad_table_of_tiers_is_refused_whole(field: str, value: str):
    body = deepcopy(REPLIES["tiers"])
    body["result"]["list"][1] |= {field: value}
    ours = codec()
    assert refusals(ours.reply(reply("tiers:BTCUSDT", body))) == ["bad_number"]
    assert ours.instruments["BTCUSDT"].tiers == ()


def test_an_answer_to_a_question_never_asked_is_refused():
    ours = codec()
    assert refusals(ours.reply(reply("weather", {"retCode": 0}))) == ["unknown_kind"]
    assert refusals(ours.reply(reply("tiers:NOPE", REPLIES["tiers"]))) == ["unknown_symbol"]


# ---------------------------------------------------------------------------- real recordings


def drive(
    ours: Bybit, frames: list[bytes], books: dict[str, Book]
) -> tuple[Out, dict[str, NaiveBook]]:
    """Run messages through codec and book, and through naive books beside them."""
    events: Out = []
    naive: dict[str, NaiveBook] = {}
    for n, data in enumerate(frames):
        message = json.loads(data)
        if message.get("topic", "").startswith("orderbook"):
            true = naive.setdefault(message["data"]["s"], NaiveBook())
            apply = true.replace if message["type"] == "snapshot" else true.change
            apply(message["data"]["b"], message["data"]["a"])
            true.cut(int(message["topic"].split(".")[1]))
        out = ours.receive(Frame(AT + n * MS, FEED, data))
        events += out
        assert follow(books, out) == []
        for event in out:
            if isinstance(event, BookDelta):
                assert books[event.instrument].check() is None
    return events, naive


def test_a_recording_of_2026_gives_true_books_interest_and_funding():
    lines = cryptofeed("BYBIT.jsonl.zst")
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "DOGEUSDT")
    ours = codec(*symbols, known=False)
    (listing,) = [x["data"] for x in lines if x["t"] == "http" and "linear" in x["url"]]
    listed = ours.reply(Reply(AT, "bybit", "instruments", 200, listing.encode()))
    specs = {e.instrument.name: e.instrument for e in listed if isinstance(e, Listed)}
    assert len(specs) == 4
    conn = next(x["conn"] for x in lines if x["t"] == "connect" and x["addr"].endswith("linear"))
    frames = [x["data"].encode() for x in lines if x["t"] == "recv" and x["conn"] == conn]
    books = {name: Book(spec.tick) for name, spec in specs.items()}
    events, naive = drive(ours, frames, books)
    assert not [event for event in events if isinstance(event, Gap | Rejected)]
    for name, levels in books.items():
        assert levels.state == "synced"
        for side in (0, 1):
            expected = naive[name.removeprefix("bybit:")].levels(side, specs[name].tick)
            assert levels.levels(side) == expected
            assert len(expected) == 200
    for kind in (OpenInterest, Funding, MarkPrice, Trade):
        assert {e.instrument for e in events if isinstance(e, kind)} == set(specs)
    interest = next(e for e in events if isinstance(e, OpenInterest) and e.instrument == BTC)
    assert (interest.base, interest.usd) == (29945.866, 1949998132.50)
    funding = next(e for e in events if isinstance(e, Funding) and e.instrument == BTC)
    assert (funding.rate_8h, funding.interval_hours) == (0.0001, 8.0)
    trades = [row for f in frames if b'"publicTrade' in f for row in json.loads(f)["data"]]
    assert len([e for e in events if isinstance(e, Trade)]) == len(trades)


def test_a_recording_of_the_best_price_topic_gives_true_books_of_one_level():
    ticks = {"BANDUSDT": 0.0001, "RADUSDT": 0.0001, "SNTUSDT": 0.00001, "AIOZUSDT": 0.0001}
    specs = [instrument(symbol, tick=tick) for symbol, tick in ticks.items()]
    ours = Bybit(config(*ticks), specs)
    ours.opened(FEED, AT)
    books = {spec.name: Book(spec.tick) for spec in specs}
    events, naive = drive(ours, cryptofeed_text("BYBIT.ws.1.0"), books)
    assert not [event for event in events if isinstance(event, Gap | Rejected)]
    for symbol, tick in ticks.items():
        levels = books[f"bybit:{symbol}"]
        assert levels.state == "synced"
        assert [levels.levels(side) for side in (0, 1)] == [
            naive[symbol].levels(side, tick) for side in (0, 1)
        ]


@pytest.mark.parametrize("change", ["cut", "double", "swap"])
def test_a_changed_recording_makes_one_book_stale_and_a_snapshot_makes_it_true_again(change: str):
    lines = cryptofeed("BYBIT.jsonl.zst")
    prefix = b'{"topic":"orderbook.200.'
    frames = [x["data"].encode() for x in lines if x["t"] == "recv" and x["conn"] == "BYBIT.ws.2"]
    frames = [data for data in frames if data.startswith(prefix)]
    mine = [n for n, data in enumerate(frames) if data.startswith(prefix + b"ETHUSDT")]
    first, second = mine[100], mine[101]
    if change == "cut":
        del frames[first]
    elif change == "double":
        frames.insert(first, frames[first])
    else:
        frames[first], frames[second] = frames[second], frames[first]
    ticks = {"BTCUSDT": 0.1, "ETHUSDT": 0.01, "SOLUSDT": 0.01, "DOGEUSDT": 0.00001}
    specs = [instrument(symbol, tick=tick) for symbol, tick in ticks.items()]
    ours = Bybit(config(*ticks), specs)
    ours.opened(FEED, AT)
    events: Out = []
    for data in frames:
        events += ours.receive(Frame(AT, FEED, data))
    assert [e for e in events if isinstance(e, Gap)] == [Gap(ETH, "sequence")]
    assert kinds(ours.receive(book(9, symbol="ETHUSDT", kind="snapshot"))) == [BookSnapshot]
    deltas = [e for e in events if isinstance(e, BookDelta)]
    for symbol in ("BTCUSDT", "SOLUSDT", "DOGEUSDT"):
        recorded = sum(data.startswith(prefix + symbol.encode()) for data in frames)
        assert sum(e.instrument == f"bybit:{symbol}" for e in deltas) == recorded - 1
