"""Candles as the venues serve them: of the prints, of the past before them, of nothing else."""

import json
import math
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from monitor.events import NS, Candles, Fetch, Reply
from monitor.sim.exchange import Trade
from monitor.sim.market import EPOCH_NS, Market
from monitor.sim.parameters import ASSETS
from monitor.sim.scenarios import scenario
from monitor.sim.wire import WIRES
from monitor.sim.wire.base import Request
from monitor.sim.wire.candles import PERIOD_MS, PERIOD_NS
from monitor.sim.wire.candles import Candles as History
from monitor.venues import VENUES
from tests.builders import config, instrument
from tests.sim.wire.client import Client
from tests.sim.wire.desk import SYMBOLS

START = 1_800_000_000_000 * 1_000_000
STARTS = START // 1_000_000
COLUMNS = {
    "binance": ("/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "5m"}),
    "bybit": ("/v5/market/kline", {"category": "linear", "symbol": "BTCUSDT", "interval": "5"}),
    "okx": ("/api/v5/market/candles", {"instId": "BTC-USDT-SWAP", "bar": "5m"}),
}


def trade(at, tick, lots=10, taker="buy", venue="binance"):
    return Trade(at, venue, "BTC", tick, lots, taker, forced=False)


def prices(candle):
    return (candle.open, candle.high, candle.low, candle.close)


def served(client, **query):
    """Rows of the venue, oldest first: (start, open, high, low, close, volume)."""
    venue = client.wire.venue
    if venue == "hyperliquid":
        wanted = {"coin": "BTC", "interval": "5m", "startTime": 0} | query
        rows = client.get("/info", {"type": "candleSnapshot", "req": wanted})[1]
        return [[row["t"], *(float(row[k]) for k in "ohlcv")] for row in rows]
    path, base = COLUMNS[venue]
    body = client.get(path, **(base | query))[1]
    rows = {"binance": lambda: body, "bybit": lambda: body["result"]["list"][::-1]}.get(
        venue, lambda: [[*row[:5], row[6]] for row in body["data"][::-1]]
    )()
    return [[int(row[0]), *map(float, row[1:6])] for row in rows]


# -------------------------------------------------------------------------------- the candles


def test_a_candle_is_the_prints_of_its_period():
    history = History(START, 100, [])
    for second, tick, lots, taker in ((1, 103, 5, "buy"), (2, 98, 7, "sell"), (299, 101, 1, "buy")):
        history.add(trade(START + second * NS, tick, lots, taker))
    history.add(trade(START + PERIOD_NS, 105))  # the first moment of the next
    first, second = history.until(START + PERIOD_NS)
    assert prices(first) == (100, 103, 98, 101)
    assert (first.lots, first.tick_lots, first.trades) == (13, 5 * 103 + 7 * 98 + 101, 3)
    assert (first.bought, first.tick_bought) == (6, 5 * 103 + 101)
    assert prices(second) == (101, 105, 101, 105)


def test_a_period_without_prints_repeats_the_last_price():
    history = History(START, 100, [])
    history.add(trade(START, 104))
    found = history.until(START + 3 * PERIOD_NS + 1)
    assert [c.start for c in found] == [START + n * PERIOD_NS for n in range(4)]
    assert [prices(c) for c in found[1:]] == [(104, 104, 104, 104)] * 3
    assert [c.lots for c in found] == [10, 0, 0, 0]


@pytest.mark.parametrize("late_s", [0, 1, 150, 299])
def test_the_past_is_cut_into_periods_of_the_venues_clock_and_joins_the_prints(late_s):
    """Points straight in between; where the clock strikes is a point of the line."""
    at = START + late_s * NS
    points = [1_000.0, 1_300.0, 700.0, 1_000.0]
    past = [(at - (3 - n) * PERIOD_NS, price) for n, price in enumerate(points)]
    share = (300 - late_s) / 300 if late_s else 1.0  # of a step, from a point to the strike
    *closed, growing = History(at, 1_000, past).until(at)
    if late_s == 0:
        assert [prices(c) for c in closed] == [
            (1_000, 1_300, 1_000, 1_300),
            (1_300, 1_300, 700, 700),
            (700, 1_000, 700, 1_000),
        ]
    else:
        edges = [points[n] + share * (points[n + 1] - points[n]) for n in range(3)]
        assert [(c.open, c.close) for c in closed] == [
            (round(edges[0]), round(edges[1])),
            (round(edges[1]), round(edges[2])),
        ]
        assert [(c.high, c.low) for c in closed] == [
            (1_300, round(min(edges[:2]))),
            (round(max(edges[1:])), 700),
        ]
    assert all(c.start % PERIOD_NS == 0 and c.lots == 0 for c in closed)
    assert (growing.start, growing.close) == (START, 1_000)
    assert growing.open == closed[-1].close


def test_the_past_of_a_market_is_the_one_its_people_came_from_and_ends_with_its_first_step():
    market = Market(scenario("calm"), seed=1, assets=ASSETS[:1], population=0.01)
    past = market.past("bybit", "BTC")
    assert (past[-1][0], past[-1][1]) == (market.at, market.ticker("bybit", "BTC").last)
    path = market.population.path[:, 0]
    moves = [math.log(price / past[-1][1]) for _, price in past]
    assert moves == pytest.approx([(level - path[-1]) * 1e-4 for level in path])
    market.step()
    assert market.past("bybit", "BTC") == []


# --------------------------------------------------------------------------------- the venues


@pytest.mark.parametrize("venue", list(WIRES))
def test_every_venue_serves_its_past_and_its_prints(quiet, venue):
    tick = quiet.contract(venue, "BTC").tick_usd
    quiet.at = START
    last = quiet.ticker(venue, "BTC").last
    quiet.before = [(START - PERIOD_NS, last + 100.0), (START, float(last))]
    client = Client(quiet, venue)
    quiet.happened = ([trade(START + NS // 10, last - 50, venue=venue)], [], [])
    client.run(0.2)
    past, now = served(client)
    assert past[:5] == pytest.approx(
        [STARTS - PERIOD_MS, *((last + n) * tick for n in (100, 100, 0, 0))]
    )
    assert now[:5] == pytest.approx([STARTS, *((last + n) * tick for n in (0, 0, -50, -50))])
    assert (past[5], now[5]) == (0, 10 * quiet.contract(venue, "BTC").lot_base)


@pytest.mark.parametrize(
    ("venue", "most", "default"),
    [("binance", 1_500, 500), ("bybit", 1_000, 200), ("okx", 300, 100)],
)
def test_the_latest_come_and_not_more_than_the_venue_gives(quiet, venue, most, default):
    client = Client(quiet, venue)
    quiet.at += 2_000 * PERIOD_NS
    newest = quiet.at // PERIOD_NS * PERIOD_MS
    for limit, count in ((most + 1, most), (most, most), (7, 7), ("", default)):
        query = {"limit": limit} if limit else {}
        starts = [row[0] for row in served(client, **query)]
        assert starts == [newest - n * PERIOD_MS for n in reversed(range(count))]


@pytest.mark.parametrize(
    ("venue", "query", "numbers"),
    [
        ("binance", {"startTime": 2}, [2, 3, 4, 5]),
        ("binance", {"startTime": 2, "limit": 2}, [2, 3]),
        ("binance", {"endTime": 3, "limit": 2}, [2, 3]),
        ("bybit", {"start": 1, "end": 3}, [1, 2, 3]),
        ("okx", {"after": 4, "limit": 2}, [2, 3]),
        ("okx", {"before": 3}, [4, 5]),
        ("hyperliquid", {"startTime": 2, "endTime": 4}, [2, 3, 4]),
    ],
)
def test_a_range_can_be_asked_for(quiet, venue, query, numbers):
    quiet.at = START
    client = Client(quiet, venue)
    quiet.at += 5 * PERIOD_NS
    times = {k: v if k == "limit" else STARTS + v * PERIOD_MS for k, v in query.items()}
    found = [row[0] for row in served(client, **times)]
    assert found == [STARTS + n * PERIOD_MS for n in numbers]


def test_okx_gives_no_more_than_its_last_1440_candles_however_they_are_asked_for(quiet):
    client = Client(quiet, "okx")
    quiet.at += 2_000 * PERIOD_NS
    starts = [row[0] for row in served(client, limit=300)]
    while page := [row[0] for row in served(client, limit=300, after=starts[0])]:
        starts = page + starts
    newest = quiet.at // PERIOD_NS * PERIOD_MS
    assert starts == [newest - n * PERIOD_MS for n in reversed(range(1_440))]


def test_the_growing_candle_of_okx_is_unconfirmed(quiet):
    quiet.at = START
    client = Client(quiet, "okx")
    quiet.at += PERIOD_NS
    path, query = COLUMNS["okx"]
    assert [row[8] for row in client.get(path, **query)[1]["data"]] == ["0", "1"]


@pytest.mark.parametrize(
    ("limit", "weight"), [(99, 1), (100, 2), (499, 2), (1_000, 5), (1_500, 10)]
)
def test_binance_weighs_candles_by_how_many(quiet, limit, weight):
    wire = WIRES["binance"](quiet)
    query = {"symbol": "BTCUSDT", "interval": "5m", "limit": str(limit)}
    answer = wire.http(Request("GET", "/fapi/v1/klines", query))
    assert answer.headers["x-mbx-used-weight-1m"] == str(weight)


def test_another_period_is_refused_as_each_venue_refuses(quiet):
    binance, bybit, okx, hyper = (Client(quiet, venue) for venue in WIRES)
    path, query = COLUMNS["binance"]
    assert binance.get(path, **(query | {"interval": "7m"}))[1]["code"] == -1120
    path, query = COLUMNS["bybit"]
    assert bybit.get(path, **(query | {"interval": "7"}))[1]["retCode"] == 10001
    path, query = COLUMNS["okx"]
    assert okx.get(path, **(query | {"bar": "7m"}))[1]["code"] == "51000"
    for wanted in (None, {"coin": "NOPE"}, {"coin": "BTC", "interval": "7m", "startTime": 0}):
        assert hyper.get("/info", {"type": "candleSnapshot", "req": wanted})[0] == 422


# ---------------------------------------------------------------------------------- our codecs


@pytest.mark.parametrize("venue", list(WIRES))
def test_our_codecs_hear_the_markets_own_past(venue):
    market = Market(
        scenario("calm"), seed=4, assets=ASSETS[:1], population=0.01, epoch_ns=EPOCH_NS + 77 * NS
    )
    wire, past = WIRES[venue](market), market.past(venue, "BTC")
    symbol = SYMBOLS[venue].format("BTC")
    settings = msgspec.structs.replace(config().venues[venue], instruments={symbol: "BTC"})
    codec = VENUES[venue](settings, [instrument(symbol, venue=venue)])
    codec.opened(codec.feeds[0].name, market.at)
    at = market.at + 5 * NS
    out, pages = [], 0
    while not out:
        fetches = [c for c in codec.tick(at) if isinstance(c, Fetch)]
        [fetch] = [c for c in fetches if c.key.startswith(f"candles:{symbol}")]
        url = urlsplit(fetch.path)
        method = "POST" if fetch.body else "GET"
        answer = wire.http(Request(method, url.path, dict(parse_qsl(url.query)), fetch.body, at))
        assert answer.status == 200, json.loads(answer.body)
        out = codec.reply(Reply(at, venue, fetch.key, answer.status, answer.body))
        pages += 1
    assert pages == (5 if venue == "okx" else 1)
    [event] = out
    assert isinstance(event, Candles)
    tick = market.contract(venue, "BTC").tick_usd
    expected = {"binance": 1_499, "bybit": 999, "okx": 1_439}.get(venue, 1_440)
    assert len(event.rows) in {expected, expected - 1}
    assert event.rows[-1].at <= at < event.rows[-1].at + 2 * PERIOD_NS
    for candle in event.rows[::50]:
        (inside,) = [p for t, p in past if candle.at - PERIOD_NS < t <= candle.at]
        assert candle.low - tick <= inside * tick <= candle.high + tick
