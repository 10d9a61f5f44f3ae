"""Binance's codec: every message kind, the numbered steps of the book, real recordings."""

import json
from collections import Counter
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
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
from monitor.venues.binance import PENDING_MAX, Binance
from tests.venues import harness
from tests.venues.harness import (
    AT,
    NaiveBook,
    config,
    cryptofeed,
    follow,
    hftbacktest,
    kinds,
    refusals,
    started,
)

MESSAGES, REPLIES = harness.payloads("binance", "messages"), harness.payloads("binance", "replies")
BTC, PUBLIC, MARKET = "binance:BTCUSDT", "binance.public.0", "binance.market.0"
TIERS = (Tier(0.0, 50_000.0, 0.004, 0.0, 125.0),)

frame = partial(harness.frame, feed=PUBLIC)
reply = partial(harness.reply, venue="binance")


def instrument(symbol: str = "BTCUSDT") -> Instrument:
    return harness.instrument("binance", symbol, funding_interval_hours=8.0, tiers=TIERS)


def codec(*symbols: str, known: bool = True, opened: bool = True) -> Binance:
    names = symbols or ("BTCUSDT",)
    made = Binance(config(*names), [instrument(name) for name in names] if known else [])
    return started(made) if opened else made


def delta(
    first: int, last: int, previous: int, *, symbol: str = "BTCUSDT", at: int = AT, **more: object
) -> Frame:
    """A book update with one bid whose quantity is its `u`, to tell updates apart."""
    data = {"e": "depthUpdate", "E": 1, "T": 1, "s": symbol, "U": first, "u": last}
    data |= {"pu": previous, "b": [["100.0", str(last)]], "a": [], "st": 1, **more}
    return frame({"stream": f"{symbol.lower()}@depth@100ms", "data": data}, at=at)


def snapshot(last: int, *, symbol: str = "BTCUSDT", at: int = AT) -> Reply:
    body = {"lastUpdateId": last, "T": 1, "bids": [["99.0", "1"]], "asks": [["101.0", "1"]]}
    return reply(f"depth:{symbol}", body, at=at)


def synced(*symbols: str) -> Binance:
    """A codec whose books stand at update 110."""
    made = codec(*symbols)
    for name in symbols or ("BTCUSDT",):
        made.receive(delta(101, 110, 100, symbol=name))
        made.reply(snapshot(105, symbol=name))
    return made


def interest(symbol: str, amount: str) -> dict[str, object]:
    return {"openInterest": amount, "symbol": symbol, "time": 1}


def applied(out: Out) -> list[float]:
    """The updates applied, by the quantity `delta` gave them."""
    return [event.bids[0][1] for event in out if isinstance(event, BookDelta)]


def fetched(out: Out) -> list[str]:
    return [event.key for event in out if isinstance(event, Fetch)]


# ---------------------------------------------------------------------------------- messages


def test_an_aggregate_trade_with_a_buying_maker_is_a_sale() -> None:
    out = codec().receive(frame(MESSAGES["aggregate_trade"], feed=MARKET))
    assert out == [Trade(BTC, 1790000000200 * MS, 64000.1, 0.3, "sell")]


def test_a_raw_trade_is_a_trade_where_no_aggregate_one_is_heard() -> None:
    out = codec().receive(frame(MESSAGES["trade"]))
    assert out == [Trade(BTC, 1790000000300 * MS, 64000.2, 0.05, "buy")]


def test_a_raw_trade_beside_aggregate_trades_is_not_counted_twice() -> None:
    made = codec()
    made.receive(frame(MESSAGES["aggregate_trade"], feed=MARKET))
    assert made.receive(frame(MESSAGES["trade"])) == []
    assert kinds(made.receive(frame(MESSAGES["adl_trade"]))) == [Transfer]


def test_prints_of_the_insurance_fund_and_of_deleveraging_are_no_trades() -> None:
    made = codec()
    out = [*made.receive(frame(MESSAGES["insurance_fund_trade"]))]
    out += made.receive(frame(MESSAGES["adl_trade"]))
    assert out == [
        Transfer(BTC, 1790000000400 * MS, 61000.0, 0.7, "insurance_fund"),
        Transfer(BTC, 1790000000500 * MS, 60500.0, 0.1, "adl"),
    ]


def test_a_trade_without_counterparty_is_nothing() -> None:
    assert codec().receive(frame(MESSAGES["empty_trade"])) == []


def test_a_print_of_an_unknown_kind_is_some_other_transfer() -> None:
    message = json.loads(json.dumps(MESSAGES["adl_trade"]).replace('"ADL"', '"NEW_KIND"'))
    [event] = codec().receive(frame(message))
    assert isinstance(event, Transfer)
    assert event.kind == "other"


def test_a_mark_price_carries_index_and_funding_per_8_hours() -> None:
    made = codec()
    made.reply(reply("funding_info", REPLIES["funding_info"]))  # every 4 h
    out = made.receive(frame(MESSAGES["mark"], feed=MARKET))
    assert out == [
        MarkPrice(BTC, 1790000001000 * MS, 64010.5, 64005.25),
        Funding(BTC, 1790000001000 * MS, 0.0004, 4.0, 1790006400000 * MS),
    ]


def test_a_dated_future_has_no_funding() -> None:
    out = codec().receive(frame(MESSAGES["dated_mark"], feed=MARKET))
    assert out == [MarkPrice(BTC, 1790000001000 * MS, 64510.0, 64005.25)]


def test_funding_waits_until_its_interval_is_known() -> None:
    spec = msgspec.structs.replace(instrument(), funding_interval_hours=None)
    made = Binance(config("BTCUSDT"), [spec])
    assert kinds(made.receive(frame(MESSAGES["mark"], feed=MARKET))) == [MarkPrice]
    made.reply(reply("funding_info", REPLIES["funding_info"]))
    assert kinds(made.receive(frame(MESSAGES["mark"], feed=MARKET))) == [MarkPrice, Funding]


def test_a_sold_forced_order_liquidates_a_long_and_a_bought_one_a_short() -> None:
    made = codec()
    out = [*made.receive(frame(MESSAGES["long_liquidated"], feed=MARKET))]
    out += made.receive(frame(MESSAGES["short_liquidated"], feed=MARKET))
    assert out == [
        Liquidation(
            instrument=BTC,
            sent_at=1790000002000 * MS,
            side="long",
            quantity=0.4,
            usd=25400.0,
            price=63000.0,
            price_kind="order_limit",
            fill_price=63500.0,
            completeness="sampled_1s",
            raw_side="SELL",
        ),
        Liquidation(
            instrument=BTC,
            sent_at=1790000003000 * MS,
            side="short",
            quantity=0.2,
            usd=12920.0,
            price=65000.0,
            price_kind="order_limit",
            fill_price=64600.0,
            completeness="sampled_1s",
            raw_side="BUY",
        ),
    ]


def test_a_forced_order_with_nothing_filled_is_no_liquidation() -> None:
    assert codec().receive(frame(MESSAGES["unfilled_liquidation"], feed=MARKET)) == []


def test_a_forced_order_of_an_unknown_side_is_refused() -> None:
    message = json.loads(json.dumps(MESSAGES["long_liquidated"]).replace('"SELL"', '"HOLD"'))
    assert refusals(codec().receive(frame(message, feed=MARKET))) == ["schema"]


def test_contract_info_brings_new_margin_tiers_in_ascending_order() -> None:
    made = codec()
    [listed] = made.receive(frame(MESSAGES["contract_info"], feed=MARKET))
    assert isinstance(listed, Listed)
    assert listed.instrument.tiers == (
        Tier(0.0, 40_000.0, 0.005, 0.0, 100.0),
        Tier(40_000.0, 90_000.0, 0.01, 200.0, 50.0),
    )
    assert made.receive(frame(MESSAGES["contract_info"], feed=MARKET)) == []


@pytest.mark.parametrize(
    ("row", "key", "value"),
    [
        (0, "mmr", 1.5),
        (0, "mmr", 0),
        (1, "bnf", 1),
        (0, "bnc", 30_000),
        (1, "cf", -1),
        (0, "ma", 0),
    ],
)
def test_margin_tiers_that_make_no_ladder_are_refused(row: int, key: str, value: float) -> None:
    message = json.loads(json.dumps(MESSAGES["contract_info"]))
    message["data"]["bks"][row][key] = value
    made = codec()
    assert refusals(made.receive(frame(message, feed=MARKET))) == ["bad_number"]
    assert made.instruments["BTCUSDT"].tiers == instrument().tiers


def test_events_we_have_no_use_for_are_no_errors() -> None:
    assert codec().receive(frame(MESSAGES["book_ticker"])) == []


def test_answers_to_our_requests_are_no_events() -> None:
    made = codec()
    assert made.receive(frame(MESSAGES["acknowledgement"])) == []
    assert made.receive(frame(MESSAGES["subscriptions"])) == []


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (MESSAGES["error"], "refused"),
        (MESSAGES["unknown_event"], "unknown_kind"),
        (MESSAGES["unknown_event"]["data"], "unknown_kind"),
        ({"stream": "btcusdt@aggTrade", "data": {"e": "aggTrade", "s": "BTCUSDT"}}, "schema"),
        ({"stream": "!markPrice@arr", "data": [MESSAGES["mark"]["data"]]}, "schema"),
        ({}, "schema"),
        ([], "schema"),
        (7, "schema"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_reason(message: object, reason: str) -> None:
    assert refusals(codec().receive(frame(message))) == [reason]


def test_a_message_of_lists_without_end_is_refused() -> None:
    data = b'{"stream":"x","data":' + b"[" * 100_000
    assert refusals(codec().receive(Frame(AT, PUBLIC, data))) == ["not_json"]


@pytest.mark.parametrize("number", ["nan", "inf", "-1", "0"])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("aggregate_trade", "p"),
        ("aggregate_trade", "q"),
        ("insurance_fund_trade", "p"),
        ("mark", "p"),
        ("mark", "i"),
    ],
)
def test_an_impossible_number_is_refused(name: str, key: str, number: str) -> None:
    message = json.loads(json.dumps(MESSAGES[name]))
    message["data"][key] = number
    assert refusals(codec().receive(frame(message, feed=MARKET))) == ["bad_number"]


def test_a_time_beyond_64_bits_of_nanoseconds_is_refused() -> None:
    message = json.loads(json.dumps(MESSAGES["aggregate_trade"]))
    message["data"]["T"] = 1 << 60
    assert refusals(codec().receive(frame(message, feed=MARKET))) == ["schema"]


# ---------------------------------------------------------------------- other product lines


@pytest.mark.parametrize("name", ["coin_margined_depth", "coin_margined_liquidation"])
def test_coin_margined_contracts_are_filtered(name: str) -> None:
    assert refusals(codec().receive(frame(MESSAGES[name]))) == ["foreign_margin"]


@pytest.mark.parametrize(
    "name", ["depth", "aggregate_trade", "insurance_fund_trade", "mark", "long_liquidated"]
)
def test_a_message_marked_as_coin_margined_is_filtered_whatever_its_symbol(name: str) -> None:
    message = json.loads(json.dumps(MESSAGES[name]))
    message["data"]["st"] = 2
    assert refusals(codec().receive(frame(message))) == ["foreign_margin"]


def test_a_symbol_we_did_not_ask_for_is_refused() -> None:
    out = codec().receive(delta(1, 2, 0, symbol="DOGEUSDT"))
    assert refusals(out) == ["unknown_symbol"]


def test_tiers_of_other_symbols_are_no_news() -> None:
    assert codec("ETHUSDT").receive(frame(MESSAGES["contract_info"], feed=MARKET)) == []


def test_symbols_nobody_asked_for_leave_no_trace() -> None:
    made = codec()
    for n in range(100):
        message = json.loads(json.dumps(MESSAGES["aggregate_trade"]))
        message["data"]["s"] = f"COIN{n}USDT"
        made.receive(frame(message, feed=MARKET))
    assert made._aggregated == set()


# ------------------------------------------------------------------------------ subscribing


def test_books_and_everything_else_go_over_different_sockets() -> None:
    made = codec(opened=False)
    assert [(feed.name, feed.url) for feed in made.feeds] == [
        (PUBLIC, "wss://stream.test/public/stream"),
        (MARKET, "wss://stream.test/market/stream"),
    ]
    assert made.opened(PUBLIC, AT) == [
        Listed(instrument()),
        Syncing(BTC),
        Send(PUBLIC, '{"method":"SUBSCRIBE","params":["btcusdt@depth@100ms"],"id":1}'),
    ]
    [sent] = made.opened(MARKET, AT)
    assert sent == Send(
        MARKET,
        '{"method":"SUBSCRIBE","params":["btcusdt@aggTrade","btcusdt@markPrice@1s",'
        '"btcusdt@forceOrder","!contractInfo"],"id":2}',
    )


@pytest.mark.parametrize("per_socket", [40, 1000])
def test_300_symbols_are_spread_over_sockets_of_at_most_200_streams(per_socket: int) -> None:
    symbols = [f"COIN{n}USDT" for n in range(300)]
    made = Binance(config(*symbols, per_socket=per_socket), [instrument(s) for s in symbols])
    subscribed: list[str] = []
    for feed in made.feeds:
        here: list[str] = []
        for command in made.opened(feed.name, AT):
            if isinstance(command, Send):
                assert command.feed == feed.name
                params = json.loads(command.data)["params"]
                assert len(params) <= 100
                here += params
        assert 0 < len(here) <= 200
        part = feed.name.split(".")[1]
        assert all(("@depth" in topic) == (part == "public") for topic in here)
        subscribed += here
    assert len(subscribed) == len(set(subscribed)) == 300 * 4 + 1


def test_a_symbol_is_subscribed_once_its_specification_is_known() -> None:
    made = codec(known=False)
    assert made.receive(frame(MESSAGES["depth"])) == [Rejected("binance", PUBLIC, "unknown_symbol")]
    out = made.reply(reply("instruments", REPLIES["instruments"]))
    assert kinds(out) == [Listed, Syncing, Send, Send]
    assert fetched(made.receive(frame(MESSAGES["depth"]))) == ["depth:BTCUSDT"]


def test_a_depth_the_venue_does_not_offer_is_rounded_up_to_one_it_does() -> None:
    for wanted, limit, weight in ((7, 10, 2), (60, 100, 5), (1000, 1000, 20), (5000, 1000, 20)):
        made = Binance(config("BTCUSDT", book_depth=wanted), [instrument()])
        made.opened(PUBLIC, AT)
        made.tick(AT)
        [request] = made.receive(delta(101, 110, 100))
        assert isinstance(request, Fetch)
        assert request.path == f"/fapi/v1/depth?symbol=BTCUSDT&limit={limit}"
        assert request.weight == weight


# ----------------------------------------------------------------------- the book's sequence


def test_step_2_the_first_update_asks_for_a_snapshot_once() -> None:
    made = codec()
    assert made.receive(delta(101, 110, 100)) == [
        Fetch("binance", "depth:BTCUSDT", "/fapi/v1/depth?symbol=BTCUSDT&limit=1000", weight=20)
    ]
    assert made.receive(delta(111, 120, 110)) == []


def test_steps_3_and_4_buffered_updates_before_the_snapshot_are_dropped() -> None:
    made = codec()
    for first, last, previous in ((81, 90, 80), (91, 100, 90), (101, 110, 100), (111, 120, 110)):
        made.receive(delta(first, last, previous))
    out = made.reply(snapshot(105))
    assert out[0] == BookSnapshot(
        BTC, MS, [(99.0, 1.0)], [(101.0, 1.0)], depth=1000, maintained=False
    )
    assert applied(out) == [110.0, 120.0]
    assert applied(made.receive(delta(121, 130, 120))) == [130.0]


@pytest.mark.parametrize("last", [101, 110])
def test_step_4_the_snapshot_may_stand_at_either_end_of_the_first_update(last: int) -> None:
    made = codec()
    made.receive(delta(101, 110, 100))
    assert kinds(made.reply(snapshot(last))) == [BookSnapshot, BookDelta]


def test_step_4_an_update_that_directly_continues_the_snapshot_joins_it() -> None:
    made = codec()
    made.receive(delta(150, 160, 100))
    assert applied(made.reply(snapshot(100))) == [160.0]


def test_a_snapshot_before_the_first_update_waits_for_the_covering_one() -> None:
    made = codec()
    assert kinds(made.reply(snapshot(105))) == [BookSnapshot]
    assert made.receive(delta(81, 90, 80)) == []  # step 3
    assert made.receive(delta(91, 100, 90)) == []
    assert applied(made.receive(delta(101, 110, 100))) == [110.0]
    assert applied(made.receive(delta(111, 120, 110))) == [120.0]


def test_a_snapshot_before_the_first_update_may_be_joined_directly() -> None:
    made = codec()
    made.reply(snapshot(100))
    assert applied(made.receive(delta(150, 160, 100))) == [160.0]


def test_a_snapshot_newer_than_all_that_is_buffered_waits_for_the_covering_update() -> None:
    made = codec()
    made.receive(delta(101, 110, 100))
    assert kinds(made.reply(snapshot(115))) == [BookSnapshot]
    assert applied(made.receive(delta(111, 120, 110))) == [120.0]


def test_a_first_update_beyond_the_snapshot_is_a_gap() -> None:
    made = codec()
    made.reply(snapshot(100))
    out = made.receive(delta(150, 160, 149))
    assert kinds(out) == [Gap, Fetch]


def test_step_5_the_ids_within_updates_need_not_touch() -> None:
    made = synced()
    assert applied(made.receive(delta(500, 510, 110))) == [510.0]
    assert applied(made.receive(delta(900, 910, 510))) == [910.0]


def test_step_6_a_snapshot_older_than_the_first_update_is_fetched_again() -> None:
    made = codec()
    made.receive(delta(101, 110, 100))
    assert made.reply(snapshot(95)) == []
    assert made.tick(AT + NS // 4) == []
    assert fetched(made.tick(AT + NS // 2)) == ["depth:BTCUSDT"]
    assert applied(made.reply(snapshot(104, at=AT + NS))) == [110.0]


@pytest.mark.parametrize(
    "sequence",
    [
        [(111, 120, 110), (111, 120, 110)],  # duplicated
        [(121, 130, 120)],  # one is missing
        [(121, 130, 120), (111, 120, 110)],  # reordered
    ],
)
def test_a_broken_sequence_makes_just_that_book_untrue_until_its_next_snapshot(
    sequence: list[tuple[int, int, int]],
) -> None:
    made = synced("BTCUSDT", "ETHUSDT")
    out: Out = []
    for ids in sequence:
        out += made.receive(delta(*ids))
    assert [event for event in out if isinstance(event, Gap)] == [Gap(BTC, "sequence")]
    assert fetched(out) == ["depth:BTCUSDT"]
    assert applied(made.receive(delta(111, 120, 110, symbol="ETHUSDT"))) == [120.0]
    made.receive(delta(131, 140, 130))
    recovery = made.reply(snapshot(135))
    assert kinds(recovery) == [BookSnapshot, BookDelta]
    assert applied(made.receive(delta(141, 150, 140))) == [150.0]


def test_a_gap_among_the_buffered_updates_asks_again() -> None:
    made = codec()
    made.receive(delta(101, 110, 100))
    made.receive(delta(131, 140, 130))
    out = made.reply(snapshot(105))
    assert kinds(out) == [BookSnapshot, BookDelta, Gap, Fetch]
    assert applied(made.reply(snapshot(135))) == [140.0]


def test_a_second_snapshot_of_a_book_in_sequence_is_ignored() -> None:
    made = synced()
    assert made.reply(snapshot(108)) == []
    assert applied(made.receive(delta(111, 120, 110))) == [120.0]


def test_a_snapshot_that_arrives_after_the_feed_is_lost_makes_no_book() -> None:
    made = codec()
    made.receive(delta(101, 110, 100))
    assert made.lost(PUBLIC, AT) == [Gap(BTC, "feed_lost")]
    assert made.reply(snapshot(105)) == []


def test_a_lost_market_socket_misses_marks_and_no_book() -> None:
    made = codec()
    made.opened(MARKET, AT)
    assert made.lost(MARKET, AT) == [Gap(BTC, "marks_lost")]


def test_after_a_loss_the_book_starts_anew() -> None:
    made = synced()
    made.lost(PUBLIC, AT)
    assert kinds(made.opened(PUBLIC, AT)) == [Syncing, Send]
    assert fetched(made.receive(delta(201, 210, 200))) == ["depth:BTCUSDT"]
    assert applied(made.reply(snapshot(205))) == [210.0]


def test_a_snapshot_of_an_unknown_symbol_is_refused() -> None:
    assert refusals(codec().reply(snapshot(1, symbol="DOGEUSDT"))) == ["unknown_symbol"]


def test_a_resync_asked_for_by_the_engine_fetches_a_snapshot() -> None:
    made = synced()
    assert fetched(made.resync("BTCUSDT", AT)) == ["depth:BTCUSDT"]
    made.receive(delta(111, 120, 110))
    assert applied(made.reply(snapshot(115))) == [120.0]


def test_a_changed_tick_starts_the_book_anew() -> None:
    made = synced()
    body = json.loads(json.dumps(REPLIES["instruments"]).replace('"0.10"', '"0.01"'))
    out = made.reply(reply("instruments", body))
    assert kinds(out) == [Listed, Fetch]
    assert fetched(out) == ["depth:BTCUSDT"]


def test_updates_wait_for_a_snapshot_only_so_long() -> None:
    made = codec()
    out: Out = []
    for n in range(PENDING_MAX + 1):
        out += made.receive(delta(10 * n + 1, 10 * n + 10, 10 * n))
    assert refusals(out) == ["overflow"]
    assert fetched(out) == ["depth:BTCUSDT"]
    assert len(made._books["BTCUSDT"][1].pending or []) <= PENDING_MAX
    assert made.reply(snapshot(15)) == []  # it is of no use any more: step 6
    last = 10 * PENDING_MAX + 5
    assert applied(made.reply(snapshot(last))) == [10.0 * PENDING_MAX + 10]


# ------------------------------------------------------------------------------------- http


def test_the_list_of_instruments_gives_tick_lot_fee_and_multiplier() -> None:
    made = codec("BTCUSDT", "1000PEPEUSDT", known=False)
    out = made.reply(reply("instruments", REPLIES["instruments"]))
    btc, pepe = (event.instrument for event in out if isinstance(event, Listed))
    assert (btc.name, btc.tick, btc.lot, btc.liquidation_fee) == (BTC, 0.1, 0.001, 0.0125)
    assert (btc.kind, btc.contract, btc.multiplier, btc.as_of) == ("linear", 1.0, 1.0, "venue")
    assert (pepe.tick, pepe.lot, pepe.multiplier) == (1e-7, 1.0, 1000.0)


def test_the_list_of_instruments_keeps_the_tiers_of_the_static_table() -> None:
    made = codec()
    [listed] = made.reply(reply("instruments", REPLIES["instruments"]))
    assert isinstance(listed, Listed)
    assert listed.instrument.tiers == instrument().tiers


def test_a_symbol_without_an_entry_in_funding_info_pays_every_8_hours() -> None:
    made = codec("BTCUSDT", "1000PEPEUSDT", known=False)
    made.reply(reply("instruments", REPLIES["instruments"]))
    made.reply(reply("funding_info", REPLIES["funding_info"]))
    assert made.instruments["BTCUSDT"].funding_interval_hours == 4.0
    assert made.instruments["1000PEPEUSDT"].funding_interval_hours == 8.0


def test_a_coin_margined_row_in_the_list_is_not_taken() -> None:
    body = json.loads(json.dumps(REPLIES["instruments"]))
    body["symbols"][0]["marginAsset"] = "BTC"
    assert codec(known=False).reply(reply("instruments", body)) == []


@pytest.mark.parametrize("tick", ["0", "nan", "-1", "1e-300", "inf"])
def test_an_impossible_tick_is_refused(tick: str) -> None:
    body = json.loads(json.dumps(REPLIES["instruments"]))
    body["symbols"][0]["filters"][0]["tickSize"] = tick
    assert refusals(codec().reply(reply("instruments", body))) == ["bad_number"]


@pytest.mark.parametrize("fee", ["-0.01", "1", "nan"])
def test_an_impossible_liquidation_fee_is_refused(fee: str) -> None:
    body = json.loads(json.dumps(REPLIES["instruments"]))
    body["symbols"][0]["liquidationFee"] = fee
    assert refusals(codec().reply(reply("instruments", body))) == ["bad_number"]


def test_open_interest_is_polled_and_stamped_with_the_venues_time() -> None:
    made = codec()
    out = made.reply(reply("open_interest:BTCUSDT", REPLIES["open_interest:BTCUSDT"]))
    assert out == [OpenInterest(BTC, 1790000006000 * MS, 81234.5, None)]
    assert fetched(made.tick(AT + 4 * NS)) == []
    assert "open_interest:BTCUSDT" in fetched(made.tick(AT + 5 * NS))


def test_a_failing_poll_is_repeated_more_and_more_patiently() -> None:
    made = codec()
    at, waits = AT, []
    for _ in range(8):
        assert refusals(made.reply(reply("open_interest:BTCUSDT", {}, at=at, status=429))) == [
            "http"
        ]
        asked = next(
            second
            for second in range(1, 200)
            if "open_interest:BTCUSDT" in fetched(made.tick(at + second * NS))
        )
        waits.append(asked)
        at += asked * NS
    assert waits == [2, 4, 8, 16, 32, 64, 120, 120]
    made.reply(reply("open_interest:BTCUSDT", REPLIES["open_interest:BTCUSDT"], at=at))
    assert "open_interest:BTCUSDT" in fetched(made.tick(at + 5 * NS))


def test_polls_of_many_symbols_leave_room_in_the_request_budget() -> None:
    symbols = [f"COIN{n}USDT" for n in range(300)]
    made = Binance(config(*symbols), [])
    made.tick(AT)
    for symbol in symbols:
        made.reply(reply(f"open_interest:{symbol}", {}, status=500))
        made.reply(reply(f"open_interest:{symbol}", interest(symbol, "1")))
    assert fetched(made.tick(AT + 14 * NS)) == []
    assert len(fetched(made.tick(AT + 15 * NS))) == 300


def test_silent_open_interest_is_reported_and_heard_again() -> None:
    made = codec()
    made.tick(AT + 61 * NS)
    out = made.reply(reply("open_interest:BTCUSDT", REPLIES["open_interest:BTCUSDT"]))
    assert Silence(BTC, "open_interest", None) in out


@pytest.mark.parametrize(
    ("key", "body", "reason"),
    [
        ("depth:BTCUSDT", {"lastUpdateId": 1}, "schema"),
        ("open_interest:BTCUSDT", interest("BTCUSDT", "-1"), "bad_number"),
        ("open_interest:BTCUSDT", interest("ETHUSDT", "1"), "unknown_symbol"),
        ("funding_info", [{"symbol": "BTCUSDT", "fundingIntervalHours": 0}], "bad_number"),
        ("instruments", {"code": -1003, "msg": "Too many requests"}, "schema"),
        ("nonsense", {}, "unknown_kind"),
    ],
)
def test_a_useless_answer_is_refused_with_its_reason(key: str, body: object, reason: str) -> None:
    assert refusals(codec().reply(reply(key, body))) == [reason]


# -------------------------------------------------------------------------- real recordings


class Recorded(NaiveBook):
    """A naive book that keeps the updates before its snapshot, and drops those older than it."""

    def __init__(self) -> None:
        super().__init__()
        self.last: int | None = None
        self.early: list[dict[str, Any]] = []

    def update(self, message: dict[str, Any]) -> None:
        if self.last is None:
            self.early.append(message)
        elif message["u"] >= self.last:
            self.change(message["b"], message["a"])

    def start(self, message: dict[str, Any]) -> None:
        self.last = message["lastUpdateId"]
        self.replace(message["bids"], message["asks"])
        for early in self.early:
            self.update(early)


@pytest.mark.parametrize(
    "names",
    [
        ("btcusdt_20230404.dat.gz", "btcusdt_20230405.dat.gz"),
        ("btcusdt_20240718.gz", "btcusdt_20240719.gz"),
    ],
)
def test_a_recorded_book_has_no_gap_and_equals_a_naive_one(names: tuple[str, str]) -> None:
    made, book, naive = codec(), Book(0.1), Recorded()
    books = {BTC: book}
    wrong: list[str] = []
    seen: Counter[type] = Counter()
    for number, (at, data) in enumerate(
        line for name in names for line in hftbacktest("usdm", name)
    ):
        if data.startswith(b'{"lastUpdateId"'):
            out = made.reply(Reply(at, "binance", "depth:BTCUSDT", 200, data))
            naive.start(json.loads(data))
        else:
            out = made.receive(Frame(at, PUBLIC, data))
            if b'"depthUpdate"' in data:
                naive.update(json.loads(data)["data"])
        wrong += follow(books, out)
        seen.update(kinds(out))
        if number % 1000 == 0 and (problem := book.check()):
            wrong.append(problem)
    assert wrong == []
    assert book.state == "synced"
    assert (book.gaps, book.resyncs) == (0, 0)
    assert book.check() is None
    for side in (0, 1):
        assert book.levels(side) == naive.levels(side, book.tick)
    assert seen[BookDelta] > 5_000
    assert seen[Trade] > 1_000
    assert (seen[MarkPrice] > 400) == ("2023" in names[0])


def test_recorded_prints_of_the_insurance_fund_do_not_enter_the_trade_price() -> None:
    made = codec()
    prices: list[float] = []
    transfers: list[Transfer] = []
    off_book = 0
    for name in ("btcusdt_20230404.dat.gz", "btcusdt_20230405.dat.gz"):
        for at, data in hftbacktest("usdm", name):
            if b"@trade" in data:
                off_book += b'"X":"INSURANCE_FUND"' in data
                for event in made.receive(Frame(at, PUBLIC, data)):
                    if isinstance(event, Transfer):
                        transfers.append(event)
                    elif isinstance(event, Trade):
                        prices.append(event.price)
    assert len(transfers) == off_book > 0
    assert all(transfer.kind == "insurance_fund" for transfer in transfers)
    steps = [abs(after / before - 1) for before, after in pairwise(prices)]
    assert max(steps) < 0.002


def test_a_recorded_coin_margined_market_is_foreign_to_us() -> None:
    made, reasons = codec(), set()
    for number, (at, data) in enumerate(hftbacktest("cm", "btcusd_perp_20240808.gz")):
        if data.startswith(b'{"stream"'):  # not the REST snapshot
            reasons.update(refusals(made.receive(Frame(at, PUBLIC, data))))
        if number > 2000:
            break
    assert reasons == {"foreign_margin"}


def test_the_cryptofeed_sample_is_synced_from_its_own_instruments_and_snapshots() -> None:
    symbols = ("SUSHIUSDT", "AKROUSDT", "KEEPUSDT", "CTKUSDT")
    made = codec(*symbols, known=False)
    rows = [row for row in cryptofeed("BINANCE_FUTURES.jsonl.zst") if row["t"] in {"http", "recv"}]
    naive = {symbol: Recorded() for symbol in symbols}
    books: dict[str, Book] = {}
    problems: list[str] = []
    for row in sorted(rows, key=lambda row: float(row["ts"])):
        at, data = int(float(row["ts"]) * 1e9), row["data"].encode()
        if row["t"] == "recv":
            out = made.receive(Frame(at, PUBLIC, data))
            if '"depthUpdate"' in row["data"]:
                message = json.loads(data)["data"]
                naive[message["s"]].update(message)
        elif "exchangeInfo" in row["url"]:
            out = made.reply(Reply(at, "binance", "instruments", 200, data))
        else:
            symbol = row["url"].split("symbol=")[1].split("&")[0]
            out = made.reply(Reply(at, "binance", f"depth:{symbol}", 200, data))
            naive[symbol].start(json.loads(data))
        problems += follow(books, out)
    assert problems == []
    assert sorted(books) == sorted(f"binance:{symbol}" for symbol in symbols)
    for symbol in symbols:
        book = books[f"binance:{symbol}"]
        assert book.state == "synced"
        for side in (0, 1):
            assert book.levels(side) == naive[symbol].levels(side, book.tick), symbol
