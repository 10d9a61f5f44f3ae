"""Hyperliquid's codec: every message kind, the liquidator vaults, limits, real recordings."""

import json
from functools import partial

import pytest

from monitor.config import ConfigError, parse_instruments
from monitor.core.depth.book import Book
from monitor.events import (
    NS,
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
    Send,
    Silence,
    Syncing,
    Tier,
    Trade,
)
from monitor.venues.base import MS, Out
from monitor.venues.hyperliquid import TRADES_REMEMBERED, Hyperliquid
from tests.venues import harness
from tests.venues.harness import AT, config, hftbacktest, kinds, recording, refusals, started

MESSAGES = harness.payloads("hyperliquid", "messages")
REPLIES = harness.payloads("hyperliquid", "replies")
BTC, FEED = "hyperliquid:BTC", "hyperliquid.ws.0"
VAULT = "0x2e3d94f0562703b25c83308a05046ddaf9a8dd14"
VAULT_2 = "0xb0a55f13d22f66e6d495ac98113841b2326e9540"


frame = partial(harness.frame, feed=FEED)
reply = partial(harness.reply, venue="hyperliquid")


def instrument(symbol: str = "BTC") -> Instrument:
    return harness.instrument("hyperliquid", symbol, lot=0.00001, funding_interval_hours=1.0)


def codec(*symbols: str, known: bool = True, live: bool = True) -> Hyperliquid:
    """An open codec; `live` says that the replayed trades are behind it."""
    names = symbols or ("BTC",)
    specs = [instrument(name) for name in names] if known else []
    made = started(Hyperliquid(config(*names), specs))
    if live:
        made.receive(trades(*(trade(0, coin=name) for name in names)))
    return made


def trade(
    identity: int,
    *,
    coin: str = "BTC",
    users: tuple[str, ...] = ("0xaa", "0xbb"),
    time: int = 1000,
    size: float = 1.0,
) -> dict[str, object]:
    row = {"coin": coin, "side": "B", "px": "100.0", "sz": str(size), "time": time}
    return row | {"hash": "0x00", "tid": identity, "users": list(users)}


def trades(*rows: dict[str, object]) -> Frame:
    return frame({"channel": "trades", "data": list(rows)})


def book(time: int) -> Frame:
    message = json.loads(json.dumps(MESSAGES["book"]))
    message["data"]["time"] = time
    return frame(message)


def liquidations(out: Out) -> list[tuple[str, float]]:
    return [(event.side, event.quantity) for event in out if isinstance(event, Liquidation)]


# -------------------------------------------------------------------------------- the socket


def test_every_coin_has_three_subscriptions_on_one_socket() -> None:
    made = Hyperliquid(config("BTC"), [instrument()])
    [feed] = made.feeds
    assert (feed.name, feed.url) == (FEED, "wss://stream.test/ws")
    assert (feed.ping, feed.ping_after_s) == ('{"method":"ping"}', 30.0)
    assert made.opened(FEED, AT) == [
        Listed(instrument()),
        Syncing(BTC),
        Send(FEED, '{"method":"subscribe","subscription":{"type":"l2Book","coin":"BTC"}}'),
        Send(FEED, '{"method":"subscribe","subscription":{"type":"trades","coin":"BTC"}}'),
        Send(FEED, '{"method":"subscribe","subscription":{"type":"activeAssetCtx","coin":"BTC"}}'),
    ]


def test_many_coins_are_spread_over_sockets_within_the_limits_of_the_venue() -> None:
    symbols = [f"C{n}" for n in range(333)]
    made = Hyperliquid(config(*symbols, per_socket=100), [instrument(symbol) for symbol in symbols])
    sent = [
        command
        for feed in made.feeds
        for command in made.opened(feed.name, AT)
        if isinstance(command, Send)
    ]
    assert [feed.name for feed in made.feeds] == [f"hyperliquid.ws.{n}" for n in range(4)]
    assert len({command.data for command in sent}) == len(sent) == 999
    assert sum(60 / feed.send_interval_s for feed in made.feeds) < 2000


def test_more_subscriptions_than_the_venue_allows_are_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"334 symbols need 1002 subscriptions"):
        Hyperliquid(config(*(f"C{n}" for n in range(334)), per_socket=100), [])


def test_more_sockets_than_the_venue_allows_are_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"symbols_per_socket: 11 symbols would take 11 sockets"):
        Hyperliquid(config(*(f"C{n}" for n in range(11)), per_socket=1), [])


@pytest.mark.parametrize("name", ["acknowledgement", "pong", "repetition", "best", "fast_book"])
def test_what_means_nothing_to_us_is_no_error(name: str) -> None:
    assert codec().receive(frame(MESSAGES[name])) == []


def test_the_greeting_in_plain_text_is_no_error() -> None:
    made = codec()
    assert made.receive(Frame(AT, FEED, b"Websocket connection established.")) == []
    assert refusals(made.receive(Frame(AT, FEED, b"Something else."))) == ["not_json"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (MESSAGES["refusal"], "refused"),
        (MESSAGES["unknown_channel"], "unknown_kind"),
        ({"channel": "l2Book", "data": {"coin": "BTC"}}, "schema"),
        ({"channel": "l2Book", "data": {"coin": "BTC", "time": 1, "levels": [[]]}}, "schema"),
        ({}, "schema"),
        ([], "schema"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_reason(message: object, reason: str) -> None:
    assert refusals(codec().receive(frame(message))) == [reason]


def test_a_lost_socket_makes_its_books_untrue_and_misses_marks() -> None:
    assert codec().lost(FEED, AT) == [Gap(BTC, "feed_lost"), Gap(BTC, "marks_lost")]


# ---------------------------------------------------------------------------------- the book


def test_every_message_is_the_whole_book() -> None:
    assert codec().receive(frame(MESSAGES["book"])) == [
        BookSnapshot(
            BTC,
            1790000000100 * MS,
            [(64000.0, 1.5), (63999.0, 0.25)],
            [(64001.0, 0.75), (64003.0, 2.0)],
            depth=20,
            maintained=True,
        )
    ]


def test_an_empty_book_is_a_book() -> None:
    [event] = codec().receive(frame(MESSAGES["empty_book"]))
    assert isinstance(event, BookSnapshot)
    assert (event.bids, event.asks) == ([], [])


def test_a_book_older_than_the_last_one_is_stale() -> None:
    made = codec()
    assert kinds(made.receive(book(2000))) == [BookSnapshot]
    assert refusals(made.receive(book(1999))) == ["stale"]
    assert kinds(made.receive(book(2000))) == [BookSnapshot]  # the first one is sent twice


def test_after_a_reconnect_any_time_is_taken() -> None:
    made = codec()
    made.receive(book(2000))
    made.lost(FEED, AT)
    made.opened(FEED, AT)
    assert kinds(made.receive(book(1000))) == [BookSnapshot]


def test_a_time_that_ran_ahead_is_forgotten_when_the_silent_book_is_subscribed_anew() -> None:
    made = codec()
    made.receive(book(1 << 42))
    for second in range(0, 70, 10):
        made.receive(frame(MESSAGES["context"], at=AT + second * NS))
        assert refusals(made.receive(Frame(AT + second * NS, FEED, book(1000).data))) == ["stale"]
    assert Silence(BTC, "book", AT) in made.tick(AT + 61 * NS)
    [heard, whole] = made.receive(Frame(AT + 62 * NS, FEED, book(2000).data))
    assert heard == Silence(BTC, "book", None)
    assert isinstance(whole, BookSnapshot)


def test_a_resync_waits_for_the_next_message() -> None:
    made = codec()
    assert made.resync("BTC", AT) == []
    assert kinds(made.receive(frame(MESSAGES["book"]))) == [BookSnapshot]


def test_a_book_of_a_coin_without_specification_is_refused() -> None:
    assert refusals(codec(known=False, live=False).receive(frame(MESSAGES["book"]))) == [
        "unknown_symbol"
    ]


@pytest.mark.parametrize("number", ["nan", "inf", "-1", "0"])
@pytest.mark.parametrize("key", ["px", "sz"])
def test_an_impossible_level_is_refused(key: str, number: str) -> None:
    message = json.loads(json.dumps(MESSAGES["book"]))
    message["data"]["levels"][1][0][key] = number
    assert refusals(codec().receive(frame(message))) == ["bad_number"]


@pytest.mark.parametrize(
    ("size_decimals", "tick", "prices"),
    [
        (5, 0.1, ("105055.0", "9876.5", "1234567.0")),
        (2, 0.0001, ("187.43", "9.8765", "12345.0")),
        (0, 0.000001, ("0.012345", "0.000123", "1.2345")),
    ],
)
def test_prices_of_five_significant_digits_lie_on_the_grid_of_the_finest_tick(
    size_decimals: int, tick: float, prices: tuple[str, ...]
) -> None:
    made = codec(known=False, live=False)
    body = {"universe": [{"name": "BTC", "szDecimals": size_decimals}]}
    listed = next(e for e in made.reply(reply("meta", body)) if isinstance(e, Listed))
    assert listed.instrument.tick == tick
    for price in prices:
        levels = Book(listed.instrument.tick)
        assert levels.snapshot([(float(price), 1.0)], [], depth=20, maintained=True) is None
        assert levels.best()[0] == pytest.approx(float(price), rel=1e-12)


# -------------------------------------------------------------------------------- the trades


def test_a_trade_has_the_side_of_the_aggressor() -> None:
    assert codec().receive(frame(MESSAGES["trades"])) == [
        Trade(BTC, 1790000000400 * MS, 64001.0, 0.02, "buy"),
        Trade(BTC, 1790000000400 * MS, 64000.0, 0.5, "sell"),
    ]


def test_the_first_trades_of_each_coin_are_history_and_dropped() -> None:
    made = codec("BTC", "ETH", live=False)
    assert made.receive(trades(trade(1), trade(2))) == []
    assert kinds(made.receive(trades(trade(3)))) == [Trade]
    assert made.receive(trades(trade(4, coin="ETH"))) == []
    assert kinds(made.receive(trades(trade(5, coin="ETH")))) == [Trade]


def test_history_is_dropped_again_after_a_reconnect() -> None:
    made = codec()
    made.lost(FEED, AT)
    made.opened(FEED, AT)
    assert made.receive(trades(trade(1))) == []
    assert kinds(made.receive(trades(trade(2)))) == [Trade]


def test_a_trade_sent_twice_counts_once() -> None:
    made = codec("BTC", "ETH")
    assert kinds(made.receive(trades(trade(1), trade(1)))) == [Trade]
    assert made.receive(trades(trade(1))) == []
    assert kinds(made.receive(trades(trade(1, coin="ETH")))) == [Trade]
    assert kinds(made.receive(trades(trade(1, time=1001)))) == [Trade]


def test_only_so_many_trades_are_remembered() -> None:
    made = codec()
    for start in range(1, 2 * TRADES_REMEMBERED, 1000):
        made.receive(trades(*(trade(start + n) for n in range(1000))))
    assert len(made._keys) == len(made._key_order) == TRADES_REMEMBERED


def test_one_bad_row_does_not_take_the_others_with_it() -> None:
    bad = trade(2) | {"px": "nan"}
    out = codec().receive(trades(trade(1), bad, trade(3, coin="NONE"), trade(4)))
    assert kinds(out) == [Trade, Trade, Rejected, Rejected]
    assert refusals(out) == ["bad_number", "unknown_symbol"]


# ---------------------------------------------------------------------- the liquidator vaults


def test_a_vault_that_buys_takes_over_a_long() -> None:
    out = codec().receive(frame(MESSAGES["vault_buys"]))
    assert out == [
        Trade(BTC, 1790000000500 * MS, 60000.0, 2.0, "sell"),
        Liquidation(
            instrument=BTC,
            sent_at=1790000000500 * MS,
            side="long",
            quantity=2.0,
            usd=120_000.0,
            price=60000.0,
            price_kind="fill",
            fill_price=60000.0,
            completeness="tail_only",
            raw_side="vault bought",
        ),
    ]


def test_a_vault_that_sells_takes_over_a_short() -> None:
    out = codec().receive(frame(MESSAGES["vault_sells"]))  # its address in capitals
    assert kinds(out) == [Trade, Liquidation]
    assert liquidations(out) == [("short", 3.0)]


def test_a_vault_that_closes_what_it_took_over_liquidates_nobody() -> None:
    made = codec()
    out = made.receive(trades(trade(1, users=(VAULT, "0xaa"), size=3.0)))
    assert liquidations(out) == [("long", 3.0)]
    out = made.receive(trades(trade(2, users=("0xbb", VAULT), size=2.0)))
    assert kinds(out) == [Trade]
    out = made.receive(trades(trade(3, users=(VAULT, "0xaa"), size=1.0)))
    assert liquidations(out) == [("long", 1.0)]


def test_what_a_vault_sells_beyond_its_holding_is_a_short_taken_over() -> None:
    made = codec()
    made.receive(trades(trade(1, users=(VAULT, "0xaa"), size=1.0)))
    out = made.receive(trades(trade(2, users=("0xbb", VAULT), size=1.5)))
    assert liquidations(out) == [("short", 0.5)]


def test_each_vault_and_each_coin_has_its_own_holding() -> None:
    made = codec("BTC", "ETH")
    made.receive(trades(trade(1, users=(VAULT, "0xaa"))))
    assert liquidations(made.receive(trades(trade(2, users=("0xbb", VAULT_2))))) == [("short", 1.0)]
    out = made.receive(trades(trade(3, coin="ETH", users=("0xbb", VAULT))))
    assert liquidations(out) == [("short", 1.0)]


def test_what_a_vault_held_long_ago_is_forgotten() -> None:
    made = codec()
    made.receive(trades(trade(1, users=(VAULT, "0xaa"))))
    later = 1000 + 3600 * 1000 + 1
    out = made.receive(trades(trade(2, users=("0xbb", VAULT), time=later)))
    assert liquidations(out) == [("short", 1.0)]


@pytest.mark.parametrize("users", [(), ("0xaa",), (VAULT, VAULT_2), ("0xaa", "0xbb")])
def test_trades_without_one_vault_on_one_side_are_only_trades(users: tuple[str, ...]) -> None:
    assert kinds(codec().receive(trades(trade(1, users=users)))) == [Trade]


def test_replayed_trades_with_a_vault_are_no_liquidations() -> None:
    assert codec(live=False).receive(frame(MESSAGES["vault_buys"])) == []


# ------------------------------------------------------------------- mark, funding, interest


def test_a_mark_has_no_time_and_hourly_funding_is_scaled() -> None:
    """A delay told from the time of receipt would always be none."""
    at = 1_790_001_800 * NS
    assert codec().receive(frame(MESSAGES["context"], at=at)) == [
        MarkPrice(BTC, 0, 64002.0, 64000.0),
        Funding(BTC, at, 0.0001, 1.0, 1_790_002_800 * NS),
        OpenInterest(BTC, at, 20000.5, 20000.5 * 64002.0),
    ]


@pytest.mark.parametrize(("second", "next_second"), [(0, 3600), (1, 3600), (3599, 3600)])
def test_the_next_funding_is_at_the_next_full_hour(second: int, next_second: int) -> None:
    hour = 1_789_999_200
    out = codec().receive(frame(MESSAGES["context"], at=(hour + second) * NS))
    [funding] = [event for event in out if isinstance(event, Funding)]
    assert funding.next_at == (hour + next_second) * NS


def test_null_fields_are_unknown_and_not_zero() -> None:
    out = codec().receive(frame(MESSAGES["empty_context"]))
    assert kinds(out) == [MarkPrice, Funding, OpenInterest]
    assert out[0] == MarkPrice(BTC, 0, None, 1.0)
    assert out[2] == OpenInterest(BTC, AT, 0.0, None)
    nothing = {"channel": "activeAssetCtx", "data": {"coin": "BTC", "ctx": {"markPx": None}}}
    assert codec().receive(frame(nothing)) == []


@pytest.mark.parametrize(
    ("key", "number"),
    [
        ("markPx", "nan"),
        ("markPx", "0"),
        ("oraclePx", "-1"),
        ("funding", "inf"),
        ("funding", "1.5"),
        ("openInterest", "-1"),
        ("openInterest", "nan"),
        ("openInterest", "1e16"),
    ],
)
def test_an_impossible_context_is_refused(key: str, number: str) -> None:
    message = json.loads(json.dumps(MESSAGES["context"]))
    message["data"]["ctx"][key] = number
    assert refusals(codec().receive(frame(message))) == ["bad_number"]


def test_a_silent_context_is_reported_and_subscribed_anew() -> None:
    made = codec()
    made.receive(book(1))
    for second in range(1, 62):
        made.receive(Frame(AT + second * NS, FEED, book(1000 * second).data))
    out = made.tick(AT + 61 * NS)
    assert Silence(BTC, "mark", AT) in out
    subscription = '"subscription":{"type":"activeAssetCtx","coin":"BTC"}}'
    assert [command.data for command in out if isinstance(command, Send)] == [
        '{"method":"unsubscribe",' + subscription,
        '{"method":"subscribe",' + subscription,
    ]
    heard = made.receive(frame(MESSAGES["context"], at=AT + 62 * NS))
    assert heard[0] == Silence(BTC, "mark", None)


def test_quiet_trades_are_never_reported() -> None:
    made = codec()
    for second in range(0, 600, 10):
        made.receive(Frame(AT + second * NS, FEED, book(1000 * second).data))
        made.receive(frame(MESSAGES["context"], at=AT + second * NS))
        assert not any(isinstance(e, Silence | Close) for e in made.tick(AT + second * NS))


# ------------------------------------------------------------------------------ instruments


def test_the_list_of_instruments_is_asked_for_at_the_start() -> None:
    made = Hyperliquid(config("BTC"), [])
    assert made.tick(AT) == [
        Fetch("hyperliquid", "meta", "/info", body=b'{"type":"meta"}', weight=20)
    ]


def test_builders_exchanges_have_lists_of_their_own() -> None:
    made = Hyperliquid(config("BTC", "xyz:TSLA"), [])
    assert [event.body for event in made.tick(AT) if isinstance(event, Fetch)] == [
        b'{"type":"meta"}',
        b'{"type":"meta","dex":"xyz"}',
    ]
    body = {"universe": [{"name": "xyz:TSLA", "szDecimals": 3, "marginTableId": 10}]}
    [listed, *_] = made.reply(reply("meta:xyz", body))
    assert isinstance(listed, Listed)
    assert listed.instrument.name == "hyperliquid:xyz:TSLA"


def test_meta_gives_specifications_and_continuous_tiers() -> None:
    made = codec("BTC", "ATOM", "kPEPE", "MATIC", known=False, live=False)
    out = made.reply(reply("meta", REPLIES["meta"]))
    listed = {e.instrument.symbol: e.instrument for e in out if isinstance(e, Listed)}
    assert list(listed) == ["BTC", "ATOM", "kPEPE"]  # MATIC is delisted
    btc = listed["BTC"]
    assert (btc.tick, btc.lot, btc.contract, btc.multiplier) == (0.1, 0.00001, 1.0, 1.0)
    assert (btc.funding_interval_hours, btc.tier_unit, btc.as_of) == (1.0, "quote", "venue")
    assert btc.tiers == (
        Tier(0.0, 1_000_000.0, 0.0125, 0.0, 40.0),
        Tier(1_000_000.0, 3_000_000.0, 0.025, 12_500.0, 20.0),
        Tier(3_000_000.0, None, 0.05, 87_500.0, 10.0),
    )
    assert listed["ATOM"].tiers == (Tier(0.0, None, 0.1, 0.0, 5.0),)  # an implicit table
    assert (listed["kPEPE"].multiplier, listed["kPEPE"].tick) == (1000.0, 0.000001)


def test_coins_are_subscribed_once_they_are_listed() -> None:
    made = codec("BTC", "MATIC", known=False, live=False)
    out = made.reply(reply("meta", REPLIES["meta"]))
    assert kinds(out) == [Listed, Syncing, Send, Send, Send]
    assert made.reply(reply("meta", REPLIES["meta"])) == []


@pytest.mark.parametrize(
    ("identity", "tables"),
    [(None, []), (56, []), (0, [])],
)
def test_tiers_the_venue_does_not_give_are_not_invented(
    identity: int | None, tables: list[object]
) -> None:
    asset = {"name": "BTC", "szDecimals": 5, "maxLeverage": 40, "marginTableId": identity}
    made = codec(known=False, live=False)
    [listed, *_] = made.reply(reply("meta", {"universe": [asset], "marginTables": tables}))
    assert isinstance(listed, Listed)
    assert listed.instrument.tiers == ()


@pytest.mark.parametrize(
    "tiers",
    [
        [],
        [("5.0", 40)],
        [("0.0", 0)],
        [("0.0", "nan")],
        [("0.0", 40), ("0.0", 20)],
        [("0.0", 40), ("2.0", 20), ("1.0", 10)],
        [("0.0", 40), ("nan", 20)],
    ],
)
def test_tiers_that_make_no_ladder_are_refused(tiers: list[tuple[str, object]]) -> None:
    rows = [{"lowerBound": bound, "maxLeverage": leverage} for bound, leverage in tiers]
    asset = {"name": "BTC", "szDecimals": 5, "marginTableId": 56}
    body = {"universe": [asset], "marginTables": [[56, {"marginTiers": rows}]]}
    assert refusals(codec(known=False, live=False).reply(reply("meta", body))) == ["bad_number"]


@pytest.mark.parametrize(
    ("key", "body", "reason"),
    [
        ("meta", {}, "schema"),
        ("meta", None, "schema"),
        ("meta", {"universe": [{"name": "BTC", "szDecimals": -1}]}, "bad_number"),
        ("meta", {"universe": [{"name": "BTC", "szDecimals": 10**9}]}, "bad_number"),
        ("nonsense", {}, "unknown_kind"),
    ],
)
def test_a_useless_answer_is_refused_with_its_reason(key: str, body: object, reason: str) -> None:
    assert refusals(codec().reply(reply(key, body))) == [reason]


# ----------------------------------------------------------------- the shipped static table


def shipped() -> list[Instrument]:
    path = harness.ROOT / "config" / "instruments.toml"
    return parse_instruments(path.read_text(), path.name)


def test_the_static_table_has_every_instrument_of_the_shipped_configuration() -> None:
    found = [(spec.venue, spec.asset) for spec in shipped()]
    assert found == [
        (venue, asset)
        for venue in ("binance", "bybit", "okx", "hyperliquid")
        for asset in ("BTC", "ETH", "SOL")
    ]
    for spec in shipped():
        assert spec.name == f"{spec.venue}:{spec.symbol}"
        assert spec.as_of != "venue"
        assert min(spec.tick, spec.lot, spec.contract) > 0


@pytest.mark.parametrize("spec", [s for s in shipped() if s.tiers], ids=lambda spec: spec.name)
def test_tiers_of_the_static_table_ascend_and_are_continuous(spec: Instrument) -> None:
    assert spec.tiers[0].floor == 0
    assert spec.tiers[0].deduction == 0
    for below, above in zip(spec.tiers, spec.tiers[1:], strict=False):
        assert below.cap == above.floor > below.floor
        assert above.rate > below.rate
        assert above.max_leverage < below.max_leverage
        at_edge = above.floor * above.rate - above.deduction
        assert at_edge == pytest.approx(above.floor * below.rate - below.deduction, rel=1e-9)


def test_hyperliquids_rates_in_the_static_table_are_half_of_one_over_the_leverage() -> None:
    for spec in shipped():
        if spec.venue == "hyperliquid":
            assert [t.rate for t in spec.tiers] == [0.5 / t.max_leverage for t in spec.tiers]


def test_binances_tiers_in_the_static_table_are_those_of_the_shared_one() -> None:
    path = recording("margin_tiers", "binance_leverage_tiers_freqtrade-2026.9.json")
    table = json.loads(path.read_text())
    for spec in shipped():
        if spec.venue == "binance":
            rows = table[f"{spec.asset}/USDT:USDT"]
            assert spec.tiers == tuple(
                Tier(
                    row["minNotional"],
                    row["maxNotional"],
                    row["maintenanceMarginRate"],
                    float(row["info"]["cum"]),
                    row["maxLeverage"],
                )
                for row in rows
            )


# -------------------------------------------------------------------------- real recordings


def test_the_recorded_books_and_trades_come_out_as_they_were_sent() -> None:
    made, levels = codec(live=False), Book(0.1)
    books, prints, sent, first = 0, [], [], True
    for at, data in hftbacktest("hyperliquid", "btcusd_20250126.gz"):
        message = json.loads(data)
        out = made.receive(Frame(at, FEED, data))
        assert refusals(out) == []
        prints += [(e.price, e.quantity, e.taker) for e in out if isinstance(e, Trade)]
        if message["channel"] == "trades":
            rows = message["data"]
            side = {"A": "sell", "B": "buy"}
            rows = [(float(r["px"]), float(r["sz"]), side[r["side"]]) for r in rows]
            sent += [] if first else rows
            first = False
        else:
            books += 1
            [event] = out
            assert isinstance(event, BookSnapshot)
            assert levels.snapshot(event.bids, event.asks, depth=20, maintained=True) is None
            for number, rows in enumerate(message["data"]["levels"]):
                ours = [(price / 10, quantity) for price, quantity in levels.levels(number)]
                assert ours == [(float(row["px"]), float(row["sz"])) for row in rows]
    assert levels.state == "synced"
    assert (books, len(prints)) == (46, 34)
    assert prints == sent


def test_recorded_contexts_of_every_perpetual_are_taken() -> None:
    name = "ws_all_dexs_asset_ctxs.json"
    path = recording("nautilus_fixtures", "hyperliquid", "test_data", name)
    message = json.loads(path.read_text())
    made = codec()
    assert made.receive(frame(message)) == []  # a channel we do not subscribe
    contexts = [context for _, dex in message["data"]["ctxs"] for context in dex]
    assert len(contexts) > 200
    for context in contexts:
        out = made.receive(
            frame({"channel": "activeAssetCtx", "data": {"coin": "BTC", "ctx": context}})
        )
        marks = [event.mark for event in out if isinstance(event, MarkPrice)]
        assert marks == [float(context["markPx"])]
        assert kinds(out) == [MarkPrice, Funding, OpenInterest]
