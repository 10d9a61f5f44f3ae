"""Past open interest: asked for once and after all candles; what of an answer is believed."""

from copy import deepcopy
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from monitor.events import NS, Fetch, InterestHistory
from monitor.venues import VENUES
from monitor.venues.base import MS, Codec, Out
from monitor.venues.candles import CANDLES_ATTEMPTS
from tests.venues.harness import config, instrument, payloads, refusals, reply, started
from tests.venues.test_candles import SPECS, SYMBOLS, body_of, later

LISTED = ("binance", "bybit", "okx")
FIRST = 1_789_999_200_000 * MS
ROWS = [(FIRST, 80_100.5), (FIRST + 300 * NS, 80_100.5), (FIRST + 600 * NS, 81_000.25)]
"""One-sided base units in every venue's payload; a fourth reading is of the future."""

each_venue = pytest.mark.parametrize("venue", LISTED)


def codec(venue: str, *symbols: str) -> Codec:
    names = symbols or SYMBOLS[venue]
    specs = [instrument(venue, name, **SPECS.get(name, {})) for name in names]
    return started(VENUES[venue](config(*names), specs))


def payload(venue: str, symbol: str) -> Any:
    replies = payloads(venue, "replies")
    body = deepcopy(next(replies[key] for key in replies if key.startswith("interests")))
    for row in body if venue == "binance" else []:
        row["symbol"] = symbol
    if venue == "bybit":
        body["result"]["symbol"] = symbol
    return body


def rows_of(venue: str, body: Any) -> list[Any]:
    """Oldest first."""
    if venue == "binance":
        return list(body)
    return list(reversed(body["result"]["list"] if venue == "bybit" else body["data"]))


def asked(out: Out) -> list[Fetch]:
    return [e for e in out if isinstance(e, Fetch) and e.key.startswith("interests:")]


def told(venue: str, symbol: str, body: Any) -> Out:
    return codec(venue).reply(reply(f"interests:{symbol}", body, venue=venue))


# -------------------------------------------------------------------------------- the request


@each_venue
def test_open_interest_is_asked_for_once_and_behind_everybodys_candles(venue: str) -> None:
    made, names = codec(venue), SYMBOLS[venue]
    keys = []
    for second in range(5, 200):
        for fetch in made.tick(later(second)):
            if isinstance(fetch, Fetch) and fetch.key.startswith(("candles:", "interests:")):
                kind, _, name = fetch.key.partition(":")
                keys.append(fetch.key)
                body = (body_of if kind == "candles" else payload)(venue, name)
                made.reply(reply(fetch.key, body, venue=venue, at=later(second)))
    assert keys == [f"{kind}:{name}" for kind in ("candles", "interests") for name in names]


def test_hyperliquid_has_no_history_to_ask_for() -> None:
    made = codec("hyperliquid", "BTC")
    made.tick(later(5))
    made.reply(reply("candles:BTC", body_of("hyperliquid"), venue="hyperliquid", at=later(6)))
    assert [asked(made.tick(later(s))) for s in range(7, 60)] == [[]] * 53


@pytest.mark.parametrize(
    ("venue", "path", "query", "weight"),
    [
        (
            "binance",
            "/futures/data/openInterestHist",
            {"symbol": "BTCUSDT", "period": "5m", "limit": "500"},
            0,
        ),
        (
            "bybit",
            "/v5/market/open-interest",
            {"category": "linear", "symbol": "BTCUSDT", "intervalTime": "5min", "limit": "200"},
            1,
        ),
        (
            "okx",
            "/api/v5/rubik/stat/contracts/open-interest-history",
            {"instId": "BTC-USDT-SWAP", "period": "5m", "limit": "100"},
            1,
        ),
    ],
)
def test_one_request_asks_for_all_that_the_venue_gives_at_once(
    venue: str, path: str, query: dict[str, str], weight: int
) -> None:
    made, symbol = codec(venue, SYMBOLS[venue][0]), SYMBOLS[venue][0]
    made.tick(later(5))
    made.reply(reply(f"candles:{symbol}", body_of(venue, symbol), venue=venue, at=later(5)))
    [fetch] = asked(made.tick(later(6)))
    url = urlsplit(fetch.path)
    assert (url.path, fetch.body, fetch.weight) == (path, b"", weight)
    assert parse_qs(url.query) == {key: [value] for key, value in query.items()}


@each_venue
def test_a_failed_request_is_counted_repeated_and_in_the_end_given_up(venue: str) -> None:
    symbol = SYMBOLS[venue][0]
    made, refused = codec(venue, symbol), 0
    made.tick(later(5))
    made.reply(reply(f"candles:{symbol}", body_of(venue, symbol), venue=venue, at=later(5)))
    for second in range(6, 1_000):
        for fetch in asked(made.tick(later(second))):
            answer = reply(fetch.key, {}, venue=venue, at=later(second), status=400)
            assert refusals(made.reply(answer)) == ["http"]
            refused += 1
    assert refused == CANDLES_ATTEMPTS


# --------------------------------------------------------------------------------- the answer


@pytest.mark.parametrize(("venue", "symbol"), [(v, s) for v in LISTED for s in SYMBOLS[v]])
def test_readings_come_oldest_first_one_sided_and_in_base_units(venue: str, symbol: str) -> None:
    """In units the venue quotes, whatever the contract or the multiplier, like the live ones."""
    out = told(venue, symbol, payload(venue, symbol))
    assert out == [InterestHistory(f"{venue}:{symbol}", ROWS)]


def test_a_reading_counts_from_its_own_time_on() -> None:
    symbol, end = "BTCUSDT", ROWS[-1][0]
    for at, expected in ((end - 1, ROWS[:2]), (end, ROWS)):
        answer = reply(f"interests:{symbol}", payload("binance", symbol), venue="binance", at=at)
        assert codec("binance").reply(answer) == [InterestHistory("binance:BTCUSDT", expected)]


def test_okx_without_coins_is_told_by_its_contracts_unless_these_are_dollars() -> None:
    linear, inverse = SYMBOLS["okx"]
    body = payload("okx", linear)
    for row in body["data"]:
        row[2] = ""
    [event] = told("okx", linear, body)
    assert isinstance(event, InterestHistory)
    assert [base for _, base in event.rows] == pytest.approx([base for _, base in ROWS])
    assert refusals(told("okx", inverse, body)) == ["bad_number"]


@each_venue
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("-1", "bad_number"),
        ("NaN", "bad_number"),
        ("inf", "bad_number"),
        ("1e30", "bad_number"),
        ("many", "schema"),
    ],
)
def test_an_answer_with_one_bad_reading_is_refused_whole(
    venue: str, value: str, reason: str
) -> None:
    symbol = SYMBOLS[venue][0]
    body = payload(venue, symbol)
    row = rows_of(venue, body)[1]
    if venue == "okx":
        row[1] = row[2] = value
    else:
        row["sumOpenInterest" if venue == "binance" else "openInterest"] = value
        row.pop("singleOpenInterest", None)
    assert refusals(told(venue, symbol, body)) == [reason]


@each_venue
def test_readings_in_the_wrong_order_or_of_another_instrument_are_refused(venue: str) -> None:
    symbol = SYMBOLS[venue][0]
    body = payload(venue, symbol)
    {"binance": lambda: body, "bybit": lambda: body["result"]["list"]}.get(
        venue, lambda: body["data"]
    )().reverse()
    assert refusals(told(venue, symbol, body)) == ["schema"]
    other = "DOGE-USDT-SWAP" if venue == "okx" else "DOGEUSDT"
    assert refusals(told(venue, other, payload(venue, symbol))) == ["unknown_symbol"]
