"""Past open interest as the venues serve it, and as our codecs hear it."""

import json
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from monitor.events import NS, Fetch, InterestHistory, Reply
from monitor.sim.market import EPOCH_NS, Market
from monitor.sim.parameters import ASSETS
from monitor.sim.scenarios import scenario
from monitor.sim.wire import WIRES
from monitor.sim.wire.base import Request
from monitor.sim.wire.candles import PERIOD_MS, PERIOD_NS, Interests
from monitor.venues import VENUES
from tests.builders import config, instrument
from tests.sim.wire.client import Client
from tests.sim.wire.desk import SYMBOLS

START = 1_800_000_000_000 * 1_000_000
STARTS = START // 1_000_000
PATHS = {
    "binance": ("/futures/data/openInterestHist", {"symbol": "BTCUSDT", "period": "5m"}),
    "bybit": (
        "/v5/market/open-interest",
        {"category": "linear", "symbol": "BTCUSDT", "intervalTime": "5min"},
    ),
    "okx": ("/api/v5/rubik/stat/contracts/open-interest-history", {"instId": "BTC-USDT-SWAP"}),
}
MOST = {"binance": 500, "bybit": 200, "okx": 100}


def served(client, **query):
    """Time in ms and one-sided base units, oldest first, each venue's answer in its own form."""
    venue = client.wire.venue
    path, base = PATHS[venue]
    body = client.get(path, **(base | query))[1]
    if venue == "binance":
        return [(row["timestamp"], float(row["sumOpenInterest"])) for row in body]
    if venue == "bybit":
        rows = body["result"]["list"][::-1]
        assert all(float(r["openInterest"]) == 2 * float(r["singleOpenInterest"]) for r in rows)
        return [(int(row["timestamp"]), float(row["singleOpenInterest"])) for row in rows]
    for row in body["data"]:
        assert float(row[1]) * 0.01 == pytest.approx(float(row[2]))  # contracts of 0.01
    return [(int(row[0]), float(row[2])) for row in body["data"][::-1]]


def past(quiet, count):
    """A market whose open interest rose by 10 lots a period until now."""
    quiet.at = START
    ends = [START - n * PERIOD_NS for n in reversed(range(count))]
    quiet.before = [(end, 1_000_000.0) for end in ends]
    quiet.held = [(end, 10 * n) for n, end in enumerate(ends)]


@pytest.mark.parametrize("late_s", [0, 150])
def test_readings_are_of_the_venues_clock(late_s):
    at = START + late_s * NS
    rows = Interests([(at - PERIOD_NS, 100), (at, 400)]).rows()
    assert rows == ([(START - PERIOD_NS, 100), (START, 400)] if late_s == 0 else [(START, 250)])


@pytest.mark.parametrize("venue", PATHS)
def test_the_latest_come_and_not_more_than_the_venue_gives(quiet, venue):
    past(quiet, 601)
    lot, client = quiet.contract(venue, "BTC").lot_base, Client(quiet, venue)
    most = MOST[venue]
    for limit, count in ((most + 1, most), (7, 7)):
        found = served(client, limit=limit)
        assert found == [
            (STARTS - n * PERIOD_MS, pytest.approx(10 * (600 - n) * lot))
            for n in reversed(range(count))
        ]


@pytest.mark.parametrize("venue", PATHS)
def test_every_period_that_ends_adds_what_is_held_then(quiet, venue):
    past(quiet, 3)
    client = Client(quiet, venue)
    quiet.fields = {"open_interest": 77_000}
    quiet.at += PERIOD_NS - NS // 10
    client.run(0.2)
    lot = quiet.contract(venue, "BTC").lot_base
    found = served(client)
    assert [at for at, _ in found[-2:]] == [STARTS, STARTS + PERIOD_MS]
    assert found[-1][1] == pytest.approx(77_000 * lot)


@pytest.mark.parametrize(
    ("venue", "query", "numbers"),
    [
        ("binance", {"startTime": 2, "limit": 2}, [2, 3]),
        ("binance", {"endTime": 3, "limit": 2}, [2, 3]),
        ("bybit", {"startTime": 1, "endTime": 3}, [1, 2, 3]),
        ("okx", {"end": 4, "limit": 2}, [2, 3]),
        ("okx", {"begin": 3}, [4, 5]),
    ],
)
def test_a_range_can_be_asked_for(quiet, venue, query, numbers):
    past(quiet, 7)
    first = STARTS - 5 * PERIOD_MS
    times = {k: v if k == "limit" else first + v * PERIOD_MS for k, v in query.items()}
    found = [at for at, _ in served(Client(quiet, venue), **times)]
    assert found == [first + n * PERIOD_MS for n in numbers]


def test_binance_counts_these_requests_apart_and_refuses_too_many(quiet):
    wire, (path, query) = WIRES["binance"](quiet), PATHS["binance"]
    answers = [wire.http(Request("GET", path, query, b"", now)) for now in range(1_001)]
    assert [a.status for a in answers[-2:]] == [200, 429]
    weighed = wire.http(Request("GET", "/fapi/v1/ping")).headers["x-mbx-used-weight-1m"]
    assert weighed == "1"
    assert wire.http(Request("GET", path, query, b"", 301 * NS)).status == 200
    assert wire.http(Request("GET", path, {"symbol": "NO"}, b"", 302 * NS)).status == 400


@pytest.mark.parametrize("venue", list(PATHS))
def test_our_codecs_hear_when_the_crowd_came(venue):
    market = Market(
        scenario("crash"), seed=4, assets=ASSETS[:1], population=0.1, epoch_ns=EPOCH_NS + 77 * NS
    )
    wire = WIRES[venue](market)
    symbol = SYMBOLS[venue].format("BTC")
    settings = msgspec.structs.replace(config().venues[venue], instruments={symbol: "BTC"})
    codec = VENUES[venue](settings, [instrument(symbol, venue=venue)])
    codec.opened(codec.feeds[0].name, market.at)
    at, told = market.at + 5 * NS, []
    for _ in range(7):
        at += NS
        for fetch in codec.tick(at):
            if isinstance(fetch, Fetch) and fetch.key.startswith(("candles:", "interests:")):
                url = urlsplit(fetch.path)
                request = Request("GET", url.path, dict(parse_qsl(url.query)), fetch.body, at)
                answer = wire.http(request)
                assert answer.status == 200, json.loads(answer.body)
                told += codec.reply(Reply(at, venue, fetch.key, answer.status, answer.body))
    [event] = [e for e in told if isinstance(e, InterestHistory)]
    assert len(event.rows) == MOST[venue]
    assert event.rows[-1][0] <= at < event.rows[-1][0] + 2 * PERIOD_NS
    lot = market.contract(venue, "BTC").lot_base
    now = market.ticker(venue, "BTC").open_interest * lot
    crowd = int(market.population.crowd[market.contract(venue, "BTC").index]) * lot
    assert crowd > 0.03 * now
    base = [held for _, held in event.rows]
    assert base[:-20] == pytest.approx([now - crowd] * (len(base) - 20), abs=2 * lot)
    assert base[-1] == pytest.approx(now, rel=0.01)
    halfway = next(held for time, held in event.rows if time >= market.at - 2_700 * NS)
    assert halfway == pytest.approx(now - crowd / 2, rel=0.01)
