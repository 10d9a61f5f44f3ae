"""OKX's codec: every message kind, contracts, the chain of the book, real recordings."""

import json
import zlib
from copy import deepcopy
from functools import partial
from typing import Any

import msgspec
import pytest

from monitor.core.depth.book import Book
from monitor.events import (
    NS,
    BookDelta,
    BookSnapshot,
    Close,
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
)
from monitor.venues.base import MS, Out
from monitor.venues.okx import ARGUMENTS_MAX, BOOKS_MAX, Okx
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

MESSAGES, REPLIES = harness.payloads("okx", "messages"), harness.payloads("okx", "replies")
FEED = "okx.public.0"
SWAP, ETH, INVERSE = "BTC-USDT-SWAP", "ETH-USDT-SWAP", "BTC-USD-SWAP"
DATED, PERPETUAL = "BTC-USD-270326", "BTC-USD_UM_XPERP-310404"
SWAPS = (SWAP, ETH, INVERSE)
TICKS = {ETH: 0.01, "UNI-USD-SWAP": 0.001}
CONTRACTS = {SWAP: 0.01, ETH: 0.1, PERPETUAL: 0.001, "UNI-USD-SWAP": 10.0}


def instrument(symbol: str) -> Instrument:
    inverse = "-USD-" in symbol
    return harness.instrument(
        "okx",
        symbol,
        kind="inverse" if inverse else "linear",
        contract=CONTRACTS.get(symbol, 100.0 if inverse else 1.0),
        tick=TICKS.get(symbol, 0.1),
        lot=0.01,
        tier_unit="contracts",
    )


frame = partial(harness.frame, feed=FEED)
reply = partial(harness.reply, venue="okx")


def codec(*symbols: str, known: bool = True, opened: bool = True, per_socket: int = 25) -> Okx:
    names = symbols or SWAPS
    specs = [instrument(name) for name in names] if known else []
    made = Okx(config(*names, per_socket=per_socket), specs)
    return started(made) if opened else made


def book(
    previous: int | None, last: int | None, *, symbol: str = SWAP, action: str = "update",
    at: int = AT, empty: bool = False, channel: str = "books",
) -> Frame:  # fmt: skip
    row: dict[str, Any] = {"asks": [["100.1", "1", "0", "1"]], "bids": [], "ts": "1"}
    if empty:
        row["asks"] = []
    if last is not None:
        row["seqId"] = last
    if previous is not None:
        row["prevSeqId"] = previous
    arg = {"channel": channel, "instId": symbol}
    return frame({"arg": arg, "action": action, "data": [row]}, at=at)


def said(channel: str, **row: str) -> bytes:
    return msgspec.json.encode({"arg": {"channel": channel}, "data": [row]})


def near(levels: list[tuple[float, float]]) -> list[Any]:
    return [(price, pytest.approx(quantity, rel=1e-12)) for price, quantity in levels]


# ------------------------------------------------------------------------------------ the book


def test_a_snapshot_in_contracts_becomes_a_maintained_book_in_base_units():
    (snapshot,) = codec().receive(frame(MESSAGES["book_snapshot"]))
    assert isinstance(snapshot, BookSnapshot)
    assert (snapshot.instrument, snapshot.sent_at) == (f"okx:{SWAP}", 1790000000100 * MS)
    assert (snapshot.depth, snapshot.maintained) == (400, True)
    assert snapshot.bids == near([(60000.0, 1.5), (59999.9, 0.25), (59990.0, 4.0001)])
    assert snapshot.asks == near([(60000.1, 0.75), (60000.2, 2.0), (60010.0, 3.125)])


def test_an_inverse_contract_is_worth_its_dollars_over_the_price():
    (snapshot,) = codec().receive(frame(MESSAGES["book_inverse"]))
    assert isinstance(snapshot, BookSnapshot)
    assert snapshot.bids == near([(40000.0, 0.05)])  # 20 contracts of 100 USD at 40,000
    assert snapshot.asks == near([(50000.0, 2.0)])


def test_the_contract_multiplier_counts():
    ours = codec(ETH, known=False)
    ours.reply(reply("instruments:SWAP", REPLIES["instruments_swap"]))
    (snapshot,) = ours.receive(frame(MESSAGES["book_snapshot_live_form"]))
    assert isinstance(snapshot, BookSnapshot)
    assert snapshot.bids == near([(2000.01, 1.0)])  # 10 contracts of 0.05 times 2


def test_keep_alive_and_sequence_reset_are_in_sequence():
    ours = codec()
    chain = [
        ours.receive(frame(MESSAGES[f"book_{name}"]))  # -1/10, 10/15, 15/15, 15/3, 3/5
        for name in ("snapshot", "update", "keep_alive", "reset", "after_reset")
    ]
    assert [kinds(out) for out in chain] == [
        [BookSnapshot],
        [BookDelta],
        [],  # nothing changed
        [BookDelta],
        [BookDelta],
    ]
    assert ours.streams[f"books:{SWAP}"].messages == 5
    assert kinds(ours.receive(book(5, 6))) == [BookDelta]


def test_a_snapshot_without_the_previous_id_starts_a_chain():
    ours = codec()
    assert kinds(ours.receive(frame(MESSAGES["book_snapshot_live_form"]))) == [BookSnapshot]
    assert kinds(ours.receive(book(900, 901, symbol=ETH))) == [BookDelta]


@pytest.mark.parametrize(
    ("previous", "last"),
    [(10, 15), (16, 17), (9, 20), (-1, 30), (None, 16), (15, None), (None, None), (16, 16)],
)
def test_a_break_of_the_sequence_costs_this_book_only_until_its_next_snapshot(
    previous: int | None, last: int | None
):
    ours = codec()
    for symbol in (SWAP, ETH):
        ours.receive(book(-1, 10, symbol=symbol, action="snapshot"))
        ours.receive(book(10, 15, symbol=symbol))
    out = ours.receive(book(previous, last))
    assert out[0] == Gap(f"okx:{SWAP}", "sequence")
    argument = {"channel": "books", "instId": SWAP}
    assert [(m["op"], m["args"]) for m in sent(out)] == [
        ("unsubscribe", [argument]),
        ("subscribe", [argument]),
    ]
    assert ours.receive(book(15, 16)) == []  # still of the old subscription
    assert kinds(ours.receive(book(15, 16, symbol=ETH))) == [BookDelta]
    assert kinds(ours.receive(book(-1, 40, action="snapshot"))) == [BookSnapshot]
    assert kinds(ours.receive(book(40, 41))) == [BookDelta]


def test_a_chain_without_numbers_as_before_2023_is_believed_until_numbers_come():
    ours = codec()
    ours.receive(book(None, None, action="snapshot"))
    assert kinds(ours.receive(book(None, None))) == [BookDelta]
    assert Gap(f"okx:{SWAP}", "sequence") in ours.receive(book(1, 2))


def test_a_book_that_keeps_breaking_stays_within_the_venues_requests_an_hour():
    ours = codec()
    requests = 0
    for step in range(4 * 3600):
        at = AT + step * NS // 4
        out = ours.receive(book(-1, 10, action="snapshot", at=at)) + ours.receive(book(8, 9, at=at))
        out += ours.tick(at)
        requests += sum(SWAP in str(m["args"]) and "books" in str(m["args"]) for m in sent(out))
    assert 2 <= requests < 40  # of 480


def test_a_second_book_channel_of_a_recording_does_not_disturb_the_first():
    ours = codec()
    ours.receive(book(-1, 10, action="snapshot", channel="books-l2-tbt"))
    assert ours.receive(book(-1, 70, action="snapshot")) == []
    assert ours.receive(book(70, 71)) == []
    assert kinds(ours.receive(book(10, 11, channel="books-l2-tbt"))) == [BookDelta]


def test_a_lost_feed_loses_its_books():
    ours = codec()
    ours.receive(book(-1, 10, action="snapshot"))
    assert {Gap(f"okx:{SWAP}", r) for r in ("feed_lost", "marks_lost")} <= {*ours.lost(FEED, AT)}
    assert ours.receive(book(10, 11)) == []
    assert Syncing(f"okx:{SWAP}") in ours.opened(FEED, AT)


def test_a_quiet_book_is_not_silent_while_its_keep_alives_come():
    ours = codec(SWAP)
    ours.receive(book(-1, 10, action="snapshot"))
    out: Out = []
    for second in range(1, 200):
        at = AT + second * NS
        if second % 62 == 0:
            ours.receive(book(10, 10, empty=True, at=at))
        if second % 10 == 0:
            ours.receive(frame(MESSAGES["mark"], at=at))
        out += ours.tick(at)
    assert not [e for e in out if isinstance(e, Silence) and e.channel == "book"]


# -------------------------------------------------------------------- trades, prices, interest


def test_trades_are_in_base_units_with_the_takers_side():
    ours = codec()
    assert ours.receive(frame(MESSAGES["trades"])) == [
        Trade(f"okx:{SWAP}", 1790000000700 * MS, 60000.1, pytest.approx(0.03), "buy"),
        Trade(f"okx:{SWAP}", 1790000000701 * MS, 60000.0, pytest.approx(0.005), "sell"),
    ]
    assert ours.receive(frame(MESSAGES["trade_inverse"])) == [
        Trade(f"okx:{INVERSE}", 1790000000702 * MS, 50000.0, pytest.approx(0.02), "sell")
    ]


def test_a_mark_price_comes_alone():
    assert codec().receive(frame(MESSAGES["mark"])) == [
        MarkPrice(f"okx:{SWAP}", 1790000000800 * MS, 60001.2, None)
    ]


def test_an_index_price_goes_to_every_instrument_on_that_index():
    ours = codec(SWAP, INVERSE, DATED, PERPETUAL)
    out = ours.receive(frame(MESSAGES["index"]))
    at = 1790000000801 * MS
    assert out == [
        MarkPrice(f"okx:{symbol}", at, None, 60010.5) for symbol in (INVERSE, DATED, PERPETUAL)
    ]


def test_the_index_is_the_one_the_venue_names():
    ours = codec(SWAP, known=False)
    body = deepcopy(REPLIES["instruments_swap"])
    body["data"][0]["uly"] = "BTC-USDC"
    out = ours.reply(reply("instruments:SWAP", body))
    asked = [(m["op"], arg) for m in sent(out) for arg in m["args"]]
    assert ("unsubscribe", {"channel": "index-tickers", "instId": "BTC-USDT"}) in asked
    assert ("subscribe", {"channel": "index-tickers", "instId": "BTC-USDC"}) in asked
    message = deepcopy(MESSAGES["index"])
    message["data"][0]["instId"] = "BTC-USDC"
    assert kinds(ours.receive(frame(message))) == [MarkPrice]


def test_the_funding_interval_is_that_between_two_fundings():
    ours = codec()
    out = ours.receive(frame(MESSAGES["funding"]))
    (listed, funding) = out
    assert isinstance(listed, Listed)
    assert listed.instrument.funding_interval_hours == 4.0
    assert funding == Funding(
        f"okx:{SWAP}", 1790000000900 * MS, pytest.approx(0.00008), 4.0, 1790006400000 * MS
    )
    assert kinds(ours.receive(frame(MESSAGES["funding"]))) == [Funding]
    ours.reply(reply("instruments:SWAP", REPLIES["instruments_swap"]))
    assert ours.instruments[SWAP].funding_interval_hours == 4.0  # REST does not know it


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"nextFundingTime": ""}, []),  # per how long is not known
        ({"fundingRate": ""}, []),
        ({"fundingRate": "nan"}, ["bad_number"]),
        ({"fundingRate": "2"}, ["bad_number"]),
        ({"nextFundingTime": "1790006400000"}, ["bad_number"]),
        ({"nextFundingTime": "1790000000000"}, ["bad_number"]),
        ({"fundingTime": "soon"}, ["bad_number"]),
        ({"fundingTime": "1e400"}, ["bad_number"]),
    ],
)
def test_funding_that_is_incomplete_or_impossible_is_not_told(
    change: dict[str, str], expected: list[str]
):
    message = deepcopy(MESSAGES["funding"])
    message["data"][0] |= change
    out = codec().receive(frame(message))
    assert refusals(out) == expected
    assert Funding not in kinds(out)


def test_open_interest_is_one_sided_in_base_units_and_dollars():
    ours = codec()
    at = 1790000001000 * MS
    assert ours.receive(frame(MESSAGES["open_interest"])) == [
        OpenInterest(f"okx:{SWAP}", at, 25000.0, 1500030000.0)
    ]
    assert ours.receive(frame(MESSAGES["open_interest_old"])) == [
        OpenInterest(f"okx:{SWAP}", at + MS, 25000.0, None)
    ]
    inverse = deepcopy(MESSAGES["open_interest"])
    inverse["data"][0] = {"instId": INVERSE, "oi": "600", "oiCcy": "1.2", "ts": "1"}
    assert ours.receive(frame(inverse)) == [OpenInterest(f"okx:{INVERSE}", MS, 1.2, 60000.0)]


# -------------------------------------------------------------------------------- liquidations


def test_a_liquidation_has_the_position_side_base_units_and_dollars():
    long, short, inverse = codec().receive(frame(MESSAGES["liquidations"]))
    assert long == Liquidation(
        instrument=f"okx:{SWAP}",
        sent_at=1790000002000 * MS,
        side="long",
        quantity=pytest.approx(0.13),
        usd=pytest.approx(7670.0),
        price=59000.0,
        price_kind="unknown",
        fill_price=None,
        completeness="partial",
        raw_side="sell",
    )
    assert isinstance(short, Liquidation)
    assert (short.side, short.raw_side) == ("short", "buy")  # a net position that a buy closes
    assert isinstance(inverse, Liquidation)
    assert (inverse.instrument, inverse.side) == (f"okx:{INVERSE}", "long")
    assert (inverse.quantity, inverse.usd) == (pytest.approx(0.08), 4000.0)


@pytest.mark.parametrize(
    ("position", "side", "expected"),
    [
        ("long", "sell", "long"), ("short", "buy", "short"), ("net", "sell", "long"),
        ("net", "buy", "short"), ("", "sell", "long"), ("", "buy", "short"),
    ],
)  # fmt: skip
def test_the_liquidated_side_is_that_of_the_position_or_else_follows_from_the_order(
    position: str, side: str, expected: str
):
    message = deepcopy(MESSAGES["liquidations"])
    message["data"] = message["data"][:1]
    message["data"][0]["details"][0] |= {"posSide": position, "side": side}
    event = codec().receive(frame(message))[0]
    assert isinstance(event, Liquidation)
    assert event.side == expected


def test_liquidations_of_symbols_not_followed_are_no_error_however_odd():
    ours = codec(ETH)
    assert ours.receive(frame(MESSAGES["liquidations"])) == []
    assert ours.streams["liquidation-orders:SWAP"].messages == 1


def test_the_stale_batch_after_subscribing_is_refused():
    ours = codec(opened=False)
    subscribed = 1790000002000 * MS + 60 * NS
    ours.opened(FEED, subscribed)
    out = ours.receive(frame(MESSAGES["liquidations"], at=subscribed))
    assert kinds(out) == [Liquidation, Liquidation, Liquidation]  # just young enough
    ours.lost(FEED, subscribed)
    ours.opened(FEED, subscribed + 10 * NS)
    out = ours.receive(frame(MESSAGES["liquidations"], at=subscribed + 10 * NS))
    assert out == [Rejected("okx", FEED, "stale")]


def test_a_cached_batch_that_repeats_young_liquidations_is_not_counted_again():
    ours = codec(opened=False)
    subscribed = 1790000002000 * MS
    ours.opened(FEED, subscribed)
    first = ours.receive(frame(MESSAGES["liquidations"], at=subscribed + NS))
    again = ours.receive(frame(MESSAGES["liquidations"], at=subscribed + 2 * NS))
    assert kinds(first) == kinds(again) == [Liquidation] * 3  # alike, yet two events
    ours.lost(FEED, subscribed + 3 * NS)
    ours.opened(FEED, subscribed + 4 * NS)
    out = ours.receive(frame(MESSAGES["liquidations"], at=subscribed + 5 * NS))
    assert out == [Rejected("okx", FEED, "stale")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"posSide": "both"}, "unknown_kind"),
        ({"side": "close", "posSide": "net"}, "unknown_kind"),
        ({"sz": "0"}, "bad_number"),
        ({"bkPx": "nan"}, "bad_number"),
        ({"bkPx": "1e300", "sz": "1e300"}, "bad_number"),
    ],
)
def test_one_bad_liquidation_does_not_cost_the_others(change: dict[str, str], reason: str):
    message = deepcopy(MESSAGES["liquidations"])
    message["data"][0]["details"][0] |= change
    out = codec().receive(frame(message))
    assert kinds(out) == [Liquidation, Liquidation, Rejected]
    assert refusals(out) == [reason]


# ------------------------------------------------------------------------- answers and refusals


def test_acknowledgements_text_pings_and_unused_channels_are_passed_over():
    ours = codec()
    for name in ("acknowledged", "acknowledged_old", "unused"):
        assert ours.receive(frame(MESSAGES[name])) == []
    assert ours.receive(Frame(AT, FEED, b"pong")) == []
    assert ours.receive(Frame(AT, FEED, b"ping")) == []


def test_a_refused_subscription_is_counted():
    assert codec().receive(frame(MESSAGES["refused"])) == [Rejected("okx", FEED, "refused")]


def test_the_notice_of_an_upgrade_has_the_feed_connect_again():
    assert codec().receive(frame(MESSAGES["notice"])) == [Close(FEED, "notice")]
    assert codec().receive(frame(MESSAGES["notice"] | {"code": "64000"})) == []


def test_the_order_of_keys_does_not_matter():
    assert kinds(codec().receive(frame(MESSAGES["book_other_order"]))) == [BookSnapshot]
    for name in ("trades", "mark", "index", "funding", "open_interest", "liquidations"):
        turned = dict(reversed(MESSAGES[name].items()))
        assert codec().receive(frame(turned)) == codec().receive(frame(MESSAGES[name]))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "not_json"), (b"pongs", "not_json"), (b"\xff", "not_json"), (b"[]", "schema"),
        (b"{}", "schema"), (b'{"event":"party"}', "unknown_kind"), (b'{"event":7}', "schema"),
        (b'{"arg":{"channel":"novel"},"data":[]}', "unknown_kind"),
        (b'{"arg":{"channel":"books","instId":"BTC-USDT-SWAP"},"action":"update"}', "schema"),
        (b'{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[]}',
         "unknown_symbol"),
        (b'{"arg":{"channel":"books","instId":"BTC-USDT-SWAP"},"action":"patch","data":[]}',
         "unknown_kind"),
        (said("mark-price", instId="X", markPx="1", ts="1"), "unknown_symbol"),
        (said("mark-price", instId=SWAP, markPx="0", ts="1"), "bad_number"),
        (said("mark-price", instId=SWAP, markPx="1", ts="99999999999999"), "schema"),
        (said("index-tickers", instId="X", idxPx="1", ts="1"), "unknown_symbol"),
        (said("index-tickers", instId="BTC-USD", idxPx="-1", ts="1"), "bad_number"),
        (said("open-interest", instId=SWAP, oi="-1", ts="1"), "bad_number"),
        (said("open-interest", instId="X", oi="1", ts="1"), "unknown_symbol"),
        (said("open-interest", instId=INVERSE, oi="1", ts="1"), "bad_number"),
        (said("funding-rate", instId="X"), "unknown_symbol"),
        (b'{"arg":{"channel":"liquidation-orders","instType":"OPTION"},"data":[]}',
         "unknown_symbol"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_its_reason(message: bytes, reason: str):
    assert codec().receive(Frame(AT, FEED, message)) == [Rejected("okx", FEED, reason)]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("px", "0", "bad_number"),
        ("sz", "NaN", "bad_number"),
        ("side", "both", "unknown_kind"),
        ("instId", "BTC-USDT", "unknown_symbol"),
    ],
)
def test_one_bad_trade_does_not_cost_the_others(field: str, value: str, reason: str):
    message = deepcopy(MESSAGES["trades"])
    message["data"][0] |= {field: value}
    out = codec().receive(frame(message))
    assert kinds(out) == [Trade, Rejected]
    assert refusals(out) == [reason]


def test_an_update_that_cannot_be_converted_breaks_the_chain_of_its_book():
    ours = codec()
    ours.receive(frame(MESSAGES["book_inverse"]))
    broken = frame({
        "arg": {"channel": "books", "instId": INVERSE}, "action": "update",
        "data": [{"asks": [["0", "1", "0", "1"]], "bids": [], "ts": "1", "seqId": 71,
                  "prevSeqId": 70}],
    })  # fmt: skip
    assert refusals(ours.receive(broken)) == ["bad_number"]
    assert Gap(f"okx:{INVERSE}", "sequence") in ours.receive(book(71, 72, symbol=INVERSE))


# ------------------------------------------------------------------------------ subscriptions


def test_a_symbol_has_six_channels_and_its_product_line_one_for_liquidations():
    ours = codec(SWAP, opened=False)
    (message,) = sent(ours.opened(FEED, AT))
    assert message["op"] == "subscribe"
    assert message["args"] == [
        {"channel": "books", "instId": SWAP},
        {"channel": "trades", "instId": SWAP},
        {"channel": "mark-price", "instId": SWAP},
        {"channel": "funding-rate", "instId": SWAP},
        {"channel": "open-interest", "instId": SWAP},
        {"channel": "index-tickers", "instId": "BTC-USDT"},
        {"channel": "liquidation-orders", "instType": "SWAP"},
    ]
    (feed,) = ours.feeds
    assert feed.url == "wss://stream.test/ws/v5/public"
    assert (feed.ping, feed.ping_after_s) == ("ping", 25.0)


def test_liquidations_are_subscribed_once_for_each_product_line_in_use():
    ours = codec(SWAP, ETH, DATED, PERPETUAL, opened=False)
    asked = [arg for m in sent(ours.opened(FEED, AT)) for arg in m["args"]]
    lines = [arg["instType"] for arg in asked if arg["channel"] == "liquidation-orders"]
    assert lines == ["SWAP", "FUTURES"]


@pytest.mark.parametrize(("per_socket", "width"), [(25, 13), (1000, 13), (1000, 800)])
def test_a_hundred_symbols_respect_the_limits_of_a_connection(per_socket: int, width: int):
    symbols = [f"{'X' * (width - 12)}{i:02}-USDT-SWAP" for i in range(100)]
    ours = codec(*symbols, opened=False, per_socket=per_socket)
    books: list[str] = []
    for feed in ours.feeds:
        messages = sent(ours.opened(feed.name, AT))
        assert len(messages) < 10  # of 480 an hour
        arguments = [arg for message in messages for arg in message["args"]]
        assert len(json.dumps(arguments, separators=(",", ":"))) <= ARGUMENTS_MAX + 100 < 64_000
        mine = [arg["instId"] for arg in arguments if arg["channel"] == "books"]
        assert len(mine) <= min(per_socket, BOOKS_MAX) < 30
        books += mine
    assert books == symbols


def test_a_symbol_is_subscribed_once_its_specification_has_come():
    ours = codec(SWAP, known=False, opened=False)
    first = [arg["channel"] for m in sent(ours.opened(FEED, AT)) for arg in m["args"]]
    assert first == ["index-tickers", "liquidation-orders"]
    out = ours.reply(reply("instruments:SWAP", REPLIES["instruments_swap"]))
    assert kinds(out) == [Listed, Syncing, Send]


# ------------------------------------------------------------------------------------- replies


def test_the_type_of_contract_tells_linear_from_inverse():
    ours = codec(*SWAPS, DATED, PERPETUAL, "ETH-BTC-SWAP", known=False)
    out = ours.reply(reply("instruments:SWAP", REPLIES["instruments_swap"]))
    out += ours.reply(reply("instruments:FUTURES", REPLIES["instruments_futures"]))
    listed = {e.instrument.symbol: e.instrument for e in out if isinstance(e, Listed)}
    assert {s: (i.kind, i.contract) for s, i in listed.items()} == {
        SWAP: ("linear", 0.01),
        ETH: ("linear", 0.1),
        INVERSE: ("inverse", 100.0),
        DATED: ("inverse", 100.0),
        PERPETUAL: ("linear", 0.001),
    }  # and ETH-BTC is not quoted in dollars
    assert refusals(out) == []
    swap = listed[SWAP]
    assert (swap.name, swap.tick, swap.lot, swap.tier_unit) == (
        f"okx:{SWAP}",
        0.1,
        0.01,
        "contracts",
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ctType": "quanto"}, "unknown_kind"),
        ({"ctType": "inverse"}, "unknown_kind"),  # its value would be in BTC, not USD
        ({"ctVal": "0"}, "bad_number"),
        ({"tickSz": "nan"}, "bad_number"),
        ({"ctVal": ""}, "schema"),
        ({"settleCcy": "BTC"}, None),
        ({"uly": "BTC-EUR"}, None),
    ],
)
def test_an_instrument_that_cannot_be_used_is_not_listed(
    change: dict[str, str], reason: str | None
):
    body = deepcopy(REPLIES["instruments_swap"])
    body["data"][0] |= change
    out = codec(SWAP, known=False).reply(reply("instruments:SWAP", body))
    assert not [event for event in out if isinstance(event, Listed)]
    assert refusals(out) == ([reason] if reason else [])


def test_tiers_count_contracts_without_holes_and_without_deduction():
    ours = codec(*SWAPS, known=False)
    ours.reply(reply("instruments:SWAP", REPLIES["instruments_swap"]))
    asked = [f for f in ours.tick(AT) if isinstance(f, Fetch) and f.key.startswith("tiers")]
    assert [f.path.partition("?")[2] for f in asked] == [
        f"instType=SWAP&tdMode=isolated&instFamily={family}"
        for family in ("BTC-USDT", "ETH-USDT", "BTC-USD")
    ]
    (listed,) = ours.reply(reply(asked[0].key, REPLIES["tiers"]))
    assert isinstance(listed, Listed)
    assert listed.instrument.symbol == SWAP
    assert listed.instrument.tier_unit == "contracts"
    assert listed.instrument.tiers == (
        Tier(0.0, 1000.0, 0.004, 0.0, 100.0),  # 1000 contracts are 10 BTC
        Tier(1000.0, 3000.0, 0.005, 0.0, 80.0),
    )
    assert ours.instruments[ETH].tiers == ()
    ours.reply(reply("instruments:SWAP", REPLIES["instruments_swap"]))
    assert len(ours.instruments[SWAP].tiers) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("mmr", "0"), ("mmr", "1.5"), ("maxSz", "nan"), ("minSz", "-1"), ("maxSz", "3000")],
)
def test_a_bad_table_of_tiers_is_refused_whole(field: str, value: str):
    ours = codec(known=False)
    ours.reply(reply("instruments:SWAP", REPLIES["instruments_swap"]))
    body = deepcopy(REPLIES["tiers"])
    body["data"][1] |= {field: value}
    assert refusals(ours.reply(reply("tiers:SWAP:BTC-USDT", body))) == ["bad_number"]
    assert ours.instruments[SWAP].tiers == ()


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (503, {}, "http"), (200, REPLIES["refused"], "http"),
        (200, [], "schema"), (200, {"code": "0", "data": [{}]}, "schema"),
    ],
)  # fmt: skip
def test_a_failed_request_is_counted_and_repeated_more_and_more_patiently(
    status: int, body: Any, reason: str
):
    ours = codec(known=False)
    at, waits = AT, []
    for _ in range(3):
        answer = reply("instruments:SWAP", body, at=at, status=status)
        assert refusals(ours.reply(answer)) == [reason]
        asked = at
        while not any(isinstance(event, Fetch) for event in ours.tick(at)):
            at += NS // 4
        waits.append((at - asked) / NS)
    assert waits == [2.0, 4.0, 8.0]
    answer = reply("instruments:SWAP", REPLIES["instruments_swap"], at=at)
    assert kinds(ours.reply(answer))[0] is Listed


def test_an_answer_to_a_question_never_asked_is_refused():
    ours = codec()
    assert refusals(ours.reply(reply("weather", {"code": "0"}))) == ["unknown_kind"]
    assert refusals(ours.reply(reply("tiers:SWAP:NOPE", REPLIES["tiers"]))) == ["unknown_symbol"]


# ---------------------------------------------------------------------------- real recordings


class Recorded(NaiveBook):
    """A naive book that proves to be the venue's by its checksum of 2022 (exchanges.md 3b)."""

    def apply(self, message: dict[str, Any]) -> None:
        apply = self.replace if message["action"] == "snapshot" else self.change
        for row in message["data"]:
            apply(row["bids"], row["asks"])
            if "checksum" in row:
                assert self.checksum() == row["checksum"]

    def checksum(self) -> int:
        sides = [self.ranked(side)[:25] for side in (0, 1)]
        parts = [":".join(x[n]) for n in range(25) for x in sides if n < len(x)]
        unsigned = zlib.crc32(":".join(parts).encode())
        return unsigned - (1 << 32) if unsigned >= 1 << 31 else unsigned

    def in_base(self, side: int, tick: float, dollars: int) -> list[tuple[float, Any]]:
        """Levels of an inverse contract worth so many dollars, in ticks and base units."""
        return [
            (level, pytest.approx(contracts * dollars / float(price), rel=1e-12))
            for (level, contracts), (price, _) in zip(
                self.levels(side, tick), self.ranked(side), strict=True
            )
        ]


RECORDED = {"UNI-USD-SWAP": (0.001, 10), "BTC-USD-220527": (0.1, 100)}
"""Tick and USD a contract of the recorded contracts, both inverse."""


def drive(ours: Okx, frames: list[bytes]) -> tuple[Out, dict[str, Book], dict[str, Recorded]]:
    """Run messages through codec and book, and through naive books beside them."""
    events: Out = []
    books = {spec.name: Book(spec.tick) for spec in ours.instruments.values()}
    naive: dict[str, Recorded] = {}
    for data in frames:
        message = json.loads(data)
        if message["arg"]["channel"] == "books" and "data" in message:
            naive.setdefault(message["arg"]["instId"], Recorded()).apply(message)
        out = ours.receive(Frame(AT, FEED, data))
        events += out
        assert [wrong for wrong in follow(books, out) if wrong != "unknown_symbol"] == []
        for event in out:
            if isinstance(event, BookDelta):
                assert books[event.instrument].check() is None
    return events, books, naive


def judge(events: Out, books: dict[str, Book], naive: dict[str, Recorded]) -> None:
    assert not [event for event in events if isinstance(event, Gap)]
    assert set(refusals(events)) == {"unknown_symbol"}  # BTC-USDT, a spot pair
    assert set(books) == {f"okx:{symbol}" for symbol in RECORDED}
    for symbol, (tick, dollars) in RECORDED.items():
        levels = books[f"okx:{symbol}"]
        assert levels.state == "synced"
        assert sum(levels.size()) > 100
        for side in (0, 1):
            assert levels.levels(side) == naive[symbol].in_base(side, tick, dollars)


def test_a_recording_of_2022_with_inverse_and_dated_contracts_gives_true_books():
    lines = cryptofeed("OKX.jsonl.zst")
    ours = codec(*RECORDED, known=False)
    for product in ("SWAP", "FUTURES"):
        listing = next(
            x["data"] for x in lines if x["t"] == "http" and f"instType={product}" in x["url"]
        )
        listed = ours.reply(Reply(AT, "okx", f"instruments:{product}", 200, listing.encode()))
        assert refusals(listed) == []
    assert {i.contract for i in ours.instruments.values()} == {10.0, 100.0}
    frames = [x["data"].encode() for x in lines if x["t"] == "recv"]
    events, books, naive = drive(ours, frames)
    judge(events, books, naive)
    trades = [e for e in events if isinstance(e, Trade)]
    recorded = [json.loads(data) for data in frames if b'"trades"' in data and b'"data"' in data]
    rows = [r for m in recorded for r in m["data"] if r["instId"] in RECORDED]
    assert [(t.price, t.taker) for t in trades] == [(float(r["px"]), r["side"]) for r in rows]
    for trade, row in zip(trades, rows, strict=True):
        dollars = RECORDED[row["instId"]][1] * float(row["sz"])
        assert trade.quantity * trade.price == pytest.approx(dollars)


def test_the_older_form_of_that_recording_gives_the_same_books():
    judge(*drive(codec(*RECORDED), cryptofeed_text("OKX.ws.1.0@c62f742")))


def test_a_recorded_chain_with_numbers_breaks_where_an_update_is_cut_and_nowhere_else():
    """The recording has no sequence numbers, so they are put in, as the venue counts today."""
    rows = cryptofeed_text("OKX.ws.1.0@c62f742")
    messages = [json.loads(row) for row in rows if b'"action"' in row]
    last: dict[str, int] = {}
    for n, message in enumerate(messages, 1):
        symbol = message["arg"]["instId"]
        message["data"][0] |= {"prevSeqId": last.get(symbol, -1), "seqId": n}
        last[symbol] = n
    whole = codec(*RECORDED)
    assert not [e for m in messages for e in whole.receive(frame(m)) if isinstance(e, Gap)]
    mine = [n for n, m in enumerate(messages) if m["arg"]["instId"] == "UNI-USD-SWAP"]
    del messages[mine[40]]
    cut = codec(*RECORDED)
    events = [event for message in messages for event in cut.receive(frame(message))]
    assert [e for e in events if isinstance(e, Gap)] == [Gap("okx:UNI-USD-SWAP", "sequence")]
    assert kinds(cut.receive(frame(messages[mine[0]]))) == [BookSnapshot]
