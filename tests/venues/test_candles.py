"""Recent candles: asked for once, last and one at a time; what of an answer is believed."""

import json
from copy import deepcopy
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.events import NS, Candle, Candles, Fetch
from monitor.venues import VENUES
from monitor.venues.base import MS, REPLY_PATIENCE_S, Codec, Out
from monitor.venues.candles import (
    CANDLE_S,
    CANDLES_ATTEMPTS,
    CANDLES_MAX,
    CANDLES_WAIT_S,
    closed_candles,
)
from tests.venues.harness import (
    AT,
    config,
    instrument,
    kinds,
    payloads,
    refusals,
    reply,
    started,
)

SYMBOLS = {
    "binance": ("BTCUSDT", "1000PEPEUSDT"),
    "bybit": ("BTCUSDT", "SHIB1000USDT"),
    "okx": ("BTC-USDT-SWAP", "BTC-USD-SWAP"),
    "hyperliquid": ("BTC", "kPEPE"),
}
SPECS: dict[str, dict[str, Any]] = {
    "1000PEPEUSDT": {"multiplier": 1000.0},
    "SHIB1000USDT": {"multiplier": 1000.0},
    "BTC-USDT-SWAP": {"contract": 0.01},
    "BTC-USD-SWAP": {"kind": "inverse", "contract": 100.0},
    "kPEPE": {"multiplier": 1000.0},
}
FIRST = 1_789_998_900 * NS
CLOSED = [
    Candle(FIRST + 300 * NS, 63_850.5, 64_050.0, 64_010.1),
    Candle(FIRST + 600 * NS, 63_990.0, 64_080.0, 64_075.4),
    Candle(FIRST + 900 * NS, 63_700.0, 64_120.3, 63_810.0),
]
"""The candles of every venue's payload; a fourth began 200 s before `AT`."""

each_venue = pytest.mark.parametrize("venue", list(VENUES))
both = pytest.mark.parametrize(
    ("venue", "symbol"), [(v, symbol) for v, symbols in SYMBOLS.items() for symbol in symbols]
)


def codec(venue: str, *symbols: str) -> Codec:
    names = symbols or SYMBOLS[venue]
    specs = [instrument(venue, name, **SPECS.get(name, {})) for name in names]
    return started(VENUES[venue](config(*names), specs))


def body_of(venue: str, symbol: str | None = None) -> Any:
    """The venue's payload, on another symbol if one is given."""
    replies = payloads(venue, "replies")
    body = deepcopy(next(replies[key] for key in replies if key.startswith("candles")))
    if symbol and venue == "bybit":
        body["result"]["symbol"] = symbol
    if symbol and venue == "hyperliquid":
        for row in body:
            row["s"] = symbol
    return body


def rows_of(venue: str, body: Any) -> list[Any]:
    rows: list[Any] = {"bybit": lambda: body["result"]["list"], "okx": lambda: body["data"]}.get(
        venue, lambda: body
    )()
    return rows


def set_price(venue: str, body: Any, name: str, value: object) -> None:
    """Change a price of the second closed candle; two stand before and two behind it."""
    newest_first = venue in {"bybit", "okx"}
    row = rows_of(venue, body)[2 if newest_first else 1]
    row[name if venue == "hyperliquid" else "tohlc".index(name)] = value


def asked(out: Out) -> list[Fetch]:
    return [e for e in out if isinstance(e, Fetch) and e.key.startswith("candles:")]


def later(seconds: float) -> int:
    return AT + int(seconds * NS)


# -------------------------------------------------------------------------------- the request


@each_venue
def test_candles_are_asked_for_once_one_at_a_time_and_behind_everything_else(venue: str) -> None:
    made, (first, second) = codec(venue), SYMBOLS[venue]
    assert asked(made.tick(later(CANDLES_WAIT_S - 0.1))) == []
    out = made.tick(later(CANDLES_WAIT_S))
    assert [fetch.key for fetch in asked(out)] == [f"candles:{first}"]
    assert out[-1] == asked(out)[0]
    assert asked(made.tick(later(6))) == []
    made.reply(reply(f"candles:{first}", body_of(venue, first), venue=venue, at=later(6)))
    assert [fetch.key for fetch in asked(made.tick(later(7)))] == [f"candles:{second}"]
    made.reply(reply(f"candles:{second}", body_of(venue, second), venue=venue, at=later(8)))
    for feed in made.feeds:  # connecting again is no restart
        made.lost(feed.name, later(9))
        made.opened(feed.name, later(10))
    assert [asked(made.tick(later(s))) for s in range(11, 200)] == [[]] * 189


@each_venue
def test_a_symbol_listed_later_gets_its_candles_too(venue: str) -> None:
    first, second = SYMBOLS[venue]
    made = started(VENUES[venue](config(first, second), [instrument(venue, first)]))
    made.tick(later(5))
    made.reply(reply(f"candles:{first}", body_of(venue, first), venue=venue, at=later(6)))
    assert asked(made.tick(later(7))) == []
    made.reply(reply(f"interests:{first}", {}, venue=venue, at=later(7), status=400))
    made._list([instrument(venue, second)], later(8))
    assert [fetch.key for fetch in asked(made.tick(later(9)))] == [f"candles:{second}"]


@pytest.mark.parametrize(
    ("venue", "path", "query", "weight"),
    [
        (
            "binance",
            "/fapi/v1/klines",
            {"symbol": "BTCUSDT", "interval": "5m", "limit": "1500"},
            10,
        ),
        (
            "bybit",
            "/v5/market/kline",
            {"category": "linear", "symbol": "BTCUSDT", "interval": "5", "limit": "1000"},
            1,
        ),
        (
            "okx",
            "/api/v5/market/candles",
            {"instId": "BTC-USDT-SWAP", "bar": "5m", "limit": "300"},
            1,
        ),
    ],
)
def test_one_request_asks_for_all_that_the_venue_gives_at_once(
    venue: str, path: str, query: dict[str, str], weight: int
) -> None:
    [fetch] = asked(codec(venue).tick(later(5)))
    url = urlsplit(fetch.path)
    assert (url.path, fetch.body, fetch.weight) == (path, b"", weight)
    assert parse_qs(url.query) == {key: [value] for key, value in query.items()}


def test_hyperliquid_is_asked_for_the_last_five_days() -> None:
    [fetch] = asked(codec("hyperliquid").tick(later(5)))
    end = later(5) // MS
    assert json.loads(fetch.body) == {
        "type": "candleSnapshot",
        "req": {"coin": "BTC", "interval": "5m", "startTime": end - 432_000_000, "endTime": end},
    }
    assert (fetch.path, fetch.weight) == ("/info", 44)


# --------------------------------------------------------------------------------- the answer


@both
def test_closed_candles_come_oldest_first_at_the_venues_prices(venue: str, symbol: str) -> None:
    """In USD per unit the venue quotes, whatever the contract or the multiplier."""
    out = codec(venue).reply(reply(f"candles:{symbol}", body_of(venue, symbol), venue=venue))
    assert out == [Candles(f"{venue}:{symbol}", CANDLE_S, CLOSED)]


@each_venue
def test_a_candle_is_closed_from_its_end_on(venue: str) -> None:
    symbol, end = SYMBOLS[venue][0], CLOSED[-1].at
    for at, expected in ((end - 1, CLOSED[:2]), (end, CLOSED)):
        answer = reply(f"candles:{symbol}", body_of(venue, symbol), venue=venue, at=at)
        assert codec(venue).reply(answer) == [Candles(f"{venue}:{symbol}", CANDLE_S, expected)]


def test_okx_says_itself_that_a_candle_is_not_complete() -> None:
    body = body_of("okx")
    body["data"][1][8] = "0"
    [event] = codec("okx").reply(reply("candles:BTC-USDT-SWAP", body, venue="okx"))
    assert isinstance(event, Candles)
    assert event.rows == CLOSED[:2]


@each_venue
def test_a_venue_without_a_past_says_so(venue: str) -> None:
    symbol, body = SYMBOLS[venue][0], body_of(venue)
    rows_of(venue, body).clear()
    out = codec(venue).reply(reply(f"candles:{symbol}", body, venue=venue))
    assert out == [Candles(f"{venue}:{symbol}", CANDLE_S, [])]


@each_venue
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("l", "0", "bad_number"),
        ("l", "-1", "bad_number"),
        ("l", "NaN", "bad_number"),
        ("h", "inf", "bad_number"),
        ("h", "1e300", "bad_number"),
        ("l", "1e-300", "bad_number"),
        ("h", "1e400", "schema"),
        ("h", "63000", "bad_number"),
        ("c", "70000", "bad_number"),
        ("c", "cheap", "schema"),
        ("l", None, "schema"),
        ("t", 1_789_998_900_000, "schema"),
        ("t", 1_789_999_260_000, "schema"),
        ("t", -1, "schema"),
        ("t", 1 << 62, "schema"),
    ],
)
def test_an_answer_with_one_bad_candle_is_refused_whole(
    venue: str, name: str, value: object, reason: str
) -> None:
    symbol, body = SYMBOLS[venue][0], body_of(venue)
    set_price(venue, body, name, value)
    out = codec(venue).reply(reply(f"candles:{symbol}", body, venue=venue))
    assert refusals(out) == [reason]
    assert len(out) == 1


@each_venue
def test_candles_in_the_wrong_order_are_refused(venue: str) -> None:
    symbol, body = SYMBOLS[venue][0], body_of(venue)
    rows_of(venue, body).reverse()
    answer = reply(f"candles:{symbol}", body, venue=venue)
    assert refusals(codec(venue).reply(answer)) == ["schema"]


@pytest.mark.parametrize(
    ("venue", "key", "reason"),
    [
        ("binance", "candles:DOGEUSDT", "unknown_symbol"),
        ("bybit", "candles:SHIB1000USDT", "unknown_symbol"),
        ("okx", "candles:DOGE-USDT-SWAP", "unknown_symbol"),
        ("hyperliquid", "candles:kPEPE", "unknown_symbol"),
    ],
)
def test_candles_of_another_instrument_are_refused(venue: str, key: str, reason: str) -> None:
    assert refusals(codec(venue).reply(reply(key, body_of(venue), venue=venue))) == [reason]


def test_candles_of_another_length_are_refused() -> None:
    body = body_of("hyperliquid")
    for row in body:
        row["i"] = "1m"
    out = codec("hyperliquid").reply(reply("candles:BTC", body, venue="hyperliquid"))
    assert refusals(out) == ["schema"]


# -------------------------------------------------------------------------- the pages of OKX

BTC = "BTC-USDT-SWAP"
NEWEST = (AT // NS // CANDLE_S - 1) * CANDLE_S * 1_000
"""When the newest closed candle began, in ms."""


def page_of(fetch: Fetch, *, kept: int = 1_440) -> Any:
    """The answer of a venue that keeps so many candles, the growing one included."""
    query = parse_qs(urlsplit(fetch.path).query)
    step, growing = CANDLE_S * 1_000, NEWEST + CANDLE_S * 1_000
    first = int(query["after"][0]) - step if "after" in query else growing
    starts = range(first, growing - kept * step, -step)[: int(query["limit"][0])]
    rows = [
        [str(t), "2", "3", "1", "2", "1", "1", "1", "0" if t == growing else "1"] for t in starts
    ]
    return {"code": "0", "msg": "", "data": rows}


def test_okx_is_asked_page_by_page_and_told_at_once() -> None:
    made, second, keys, out = codec("okx", BTC), 5, [], []
    while not out:
        [fetch] = asked(made.tick(later(second)))
        keys.append(fetch.key)
        out = made.reply(reply(fetch.key, page_of(fetch), venue="okx", at=later(second)))
        second += 1
    assert keys[0] == f"candles:{BTC}"
    assert len(set(keys)) == 5
    [event] = out
    assert isinstance(event, Candles)
    ends = [candle.at for candle in event.rows]
    assert ends[-1] == (NEWEST + CANDLE_S * 1_000) * MS
    assert ends == [ends[-1] - n * CANDLE_S * NS for n in reversed(range(1_439))]
    assert [asked(made.tick(later(s))) for s in range(second, 100)] == [[]] * (100 - second)


@pytest.mark.parametrize(
    ("status", "body"),
    [(None, None), (503, {}), (200, 7), (200, {"code": "50011", "data": []}), (200, "again")],
    ids=["no answer", "failure", "another shape", "refusal", "the first page again"],
)
def test_an_older_page_that_never_comes_does_not_take_the_newer_ones_along(
    status: int | None, body: Any
) -> None:
    made, told = codec("okx", BTC), []
    [first] = asked(made.tick(later(5)))
    assert made.reply(reply(first.key, page_of(first), venue="okx", at=later(5))) == []
    for second in range(6, 100):
        out = made.tick(later(second))
        told += [(second, len(e.rows)) for e in out if isinstance(e, Candles)]
        for fetch in asked(out):
            assert fetch.key != first.key
            if status is not None:
                text = page_of(first) if body == "again" else body
                answer = reply(fetch.key, text, venue="okx", at=later(second), status=status)
                assert len(refusals(made.reply(answer))) == 1
    assert told == [(15, 299)]
    # It comes after all: these have been told.
    older = made._candles_request(BTC, later(100), after=NEWEST - 298 * CANDLE_S * 1_000)
    assert made.reply(reply(older.key, page_of(older), venue="okx", at=later(100))) == []


def test_a_contract_younger_than_its_pages_is_told_with_what_there_is() -> None:
    made, kept = codec("okx", BTC), 301
    [first] = asked(made.tick(later(5)))
    assert made.reply(reply(first.key, page_of(first, kept=kept), venue="okx", at=later(5))) == []
    [rest] = asked(made.tick(later(6)))
    [event] = made.reply(reply(rest.key, page_of(rest, kept=kept), venue="okx", at=later(6)))
    assert isinstance(event, Candles)
    assert len(event.rows) == kept - 1


# ----------------------------------------------------------------------------------- failures


@each_venue
@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [(0, "timeout", "http"), (400, {}, "http"), (429, {}, "http"), (200, 7, "schema")],
)
def test_a_failed_request_is_counted_repeated_and_in_the_end_given_up(
    venue: str, status: int, body: object, reason: str
) -> None:
    symbol = SYMBOLS[venue][0]
    key, made = f"candles:{symbol}", codec(venue, symbol)
    waits, before, refused = [], 5, 0
    for second in range(5, 1_000):
        if asked(made.tick(later(second))):
            waits.append(second - before)
            before = second
            out = made.reply(reply(key, body, venue=venue, at=later(second), status=status))
            assert refusals(out) == [reason]
            assert len(out) == 1
            refused += 1
    assert waits == [0, 2, 4, 8, 16, 32, 64, 120]
    assert refused == CANDLES_ATTEMPTS
    # A late answer is still read.
    answer = reply(key, body_of(venue, symbol), venue=venue, at=later(2_000))
    assert kinds(made.reply(answer)) == [Candles]


@each_venue
def test_what_fails_for_one_symbol_does_not_keep_the_others_waiting(venue: str) -> None:
    made, (first, second) = codec(venue), SYMBOLS[venue]
    made.tick(later(5))
    made.reply(reply(f"candles:{first}", {}, venue=venue, at=later(5), status=400))
    assert [fetch.key for fetch in asked(made.tick(later(6)))] == [f"candles:{second}"]


def test_a_request_that_nobody_answers_is_given_up_too() -> None:
    made = codec("okx", "BTC-USDT-SWAP")
    times = [second for second in range(1_000) if asked(made.tick(later(second)))]
    assert times == [5 + n * REPLY_PATIENCE_S for n in range(CANDLES_ATTEMPTS)]


def test_without_a_connection_nothing_is_asked() -> None:
    made = VENUES["okx"](config("BTC-USDT-SWAP"), [instrument("okx", "BTC-USDT-SWAP")])
    assert [asked(made.tick(later(s))) for s in range(60)] == [[]] * 60


# ------------------------------------------------------------------------------ any such rows


prices = st.floats(0.01, 1e6)
candle = st.tuples(prices, prices, prices).map(sorted)


@settings(max_examples=60, deadline=None)
@given(st.lists(candle, max_size=40), st.integers(0, 40 * CANDLE_S))
def test_only_what_ended_is_kept_and_nothing_of_it_changes(
    made: list[list[float]], age: int
) -> None:
    rows = [(n * CANDLE_S * 1_000, h, low, c) for n, (low, c, h) in enumerate(made)]
    found = closed_candles(rows, age * NS)
    assert isinstance(found, list)
    assert found == [
        Candle((n + 1) * CANDLE_S * NS, low, h, c)
        for n, (low, c, h) in enumerate(made)
        if (n + 1) * CANDLE_S <= age
    ]
    assert msgspec.json.decode(msgspec.json.encode(found), type=list[Candle]) == found


def test_of_too_many_candles_the_newest_are_kept() -> None:
    rows = [(n * CANDLE_S * 1_000, 2.0, 1.0, 1.5) for n in range(CANDLES_MAX + 100)]
    found = closed_candles(rows, AT)
    assert isinstance(found, list)
    assert (len(found), found[-1].at) == (CANDLES_MAX, (CANDLES_MAX + 100) * CANDLE_S * NS)
