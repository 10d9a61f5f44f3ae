"""Our events against another project's normalised output of the same real frames.

The oracle is the mapper test of tardis-node (746 recorded frames with what it makes of them). What
both say about a frame is brought into one form, a *fact*, and compared; where ours differs, the
frame stands in `DIFFERENT` with the reason. The frames are not part of the project: without them
the tests are skipped.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from monitor.events import (
    NS,
    BookDelta,
    BookSnapshot,
    Frame,
    Funding,
    Liquidation,
    MarkPrice,
    OpenInterest,
    Rejected,
    Reply,
    Trade,
)
from monitor.venues import VENUES
from monitor.venues.base import MS, REASONS, Codec, Out
from tests.venues.harness import config, instrument, recording, started

AT = NS  # before every frame, so that no liquidation is older than its subscription

Fact = tuple[Any, ...]

FUNDING_HOURS = {"binance": 8.0, "bybit": 8.0, "okx": 8.0, "hyperliquid": 1.0}


class Session(Struct, frozen=True):
    """Frames that go through one codec, in order; `offset` finds their expected output.

    `contracts` are base units per contract (USD per contract for inverse ones), `wrapped` says
    that the frame is in a field of its own, `timed` that the mark price's time can be compared.
    """

    venue: str
    test: str
    array: str
    offset: int
    symbols: tuple[str, ...]
    prefix: str = "mappers > "
    contracts: tuple[tuple[str, float], ...] = ()
    inverse: tuple[str, ...] = ()
    wrapped: bool = False
    timed: bool = True
    skip: tuple[int, ...] = ()


OKX_FUTURES = (
    ("ADA-USDT-211224", 100.0),
    ("FIL-USD-220325", 10.0),
    ("FIL-USDT-220325", 0.1),
    ("LTC-USDT-220624", 1.0),
    ("XRP-USD-230929", 10.0),
    ("BTC-USD-220624", 100.0),
    ("BTC-USDT-211231", 0.01),
)
OKX_SWAPS = (
    ("REN-USDT-SWAP", 10.0),
    ("BTC-USDT-SWAP", 0.01),
    ("WNCG-USDT-SWAP", 1.0),
    ("SOS-USDT-SWAP", 1.0),
)

SESSIONS = (
    Session(
        "binance",
        "map binance futures messages",
        "messages",
        0,
        ("BTCUSDT", "ETHUSDT", "BTCBUSD_210129"),
        skip=(1,),  # its own test below
    ),
    Session(
        "bybit",
        "map bybit messages",
        "messagesV5",
        38,
        ("BTCUSDT", "LTCUSDT", "BTCPERP", "GALAUSDT", "PIPPINUSDT"),
    ),
    Session("bybit", "map bybit messages", "messagesAllLiquidation", 53, ("PIPPINUSDT",)),
    Session(
        "okx",
        "map okex-futures messages",
        "okexFuturesV5Messages",
        17,
        tuple(symbol for symbol, _ in OKX_FUTURES),
        contracts=OKX_FUTURES,
        inverse=("FIL-USD-220325", "XRP-USD-230929", "BTC-USD-220624"),
    ),
    Session(
        "okx",
        "map okex-futures X-Perp messages",
        "messages",
        1,
        ("BTC-USD_UM_XPERP-310404",),
        wrapped=True,
    ),
    Session(
        "okx",
        "map okex-swap messages",
        "okexSwapV5Messages",
        13,
        tuple(symbol for symbol, _ in OKX_SWAPS),
        contracts=OKX_SWAPS,
        timed=False,
    ),
    Session(
        "okx",
        "map okex-swap messages",
        "okexV5WithBookTickerMessages",
        22,
        tuple(symbol for symbol, _ in OKX_SWAPS),
        contracts=OKX_SWAPS,
    ),
    Session(
        "okx",
        "map okex USDC contracts before and after index migration",
        "legacyMessages",
        1,
        ("BTC-USDC-SWAP",),
        wrapped=True,
    ),
    Session(
        "okx",
        "map okex USDC contracts before and after index migration",
        "currentMessages",
        3,
        ("BTC-USDC-SWAP",),
        wrapped=True,
    ),
    Session(
        "hyperliquid",
        "map hyperliquid messages",
        "messages",
        0,
        ("FXS", "BTC", "SHIA", "BANANA", "MOODENG"),
        prefix="",
    ),
)

_INVERSE = "an inverse contract: our Bybit codec follows linear ones only"
_BEST = "a book of one level: theirs makes a quote of it, ours a book"
_RETIRED = "a retired channel, replaced by allLiquidation in 2025"
_NO_SNAPSHOT = "a change without the snapshot before it: our book waits for one"
_GENERATED = "polled over HTTP by the recorder under a channel name of its own"

DIFFERENT: dict[tuple[str, str, int], str] = {
    ("map binance futures messages", "messages", 8): (
        "its `pu` does not continue the book: theirs does not look, ours asks for a snapshot"
    ),
    ("map bybit messages", "messagesV5", 1): _INVERSE,
    ("map bybit messages", "messagesV5", 3): _BEST,
    ("map bybit messages", "messagesV5", 4): _BEST,
    ("map bybit messages", "messagesV5", 12): _RETIRED,
    ("map bybit messages", "messagesV5", 13): _RETIRED,
    ("map bybit messages", "messagesV5", 15): (
        "theirs takes allLiquidation only of recordings after 2025-02-26"
    ),
    ("map okex-futures messages", "okexFuturesV5Messages", 8): _NO_SNAPSHOT,
    ("map okex-futures messages", "okexFuturesV5Messages", 9): _GENERATED,
    ("map okex-futures messages", "okexFuturesV5Messages", 10): _GENERATED,
    ("map okex-futures messages", "okexFuturesV5Messages", 13): (
        "theirs drops the first batch, ours the events older than the subscription"
    ),
    ("map okex-swap messages", "okexSwapV5Messages", 1): _NO_SNAPSHOT,
}
"""Frames of which trades, books or liquidations differ, and why."""

ONLY_THEIRS: dict[tuple[str, str], tuple[set[Fact], str]] = {
    ("map bybit messages", "messagesV5"): (
        {
            ("BTCUSD", "index"),
            ("BTCUSD", "mark"),
            ("BTCUSD", "funding"),
            ("BTCUSDU23", "index"),
            ("BTCUSDU23", "mark"),
        },
        _INVERSE,
    ),
    ("map okex USDC contracts before and after index migration", "legacyMessages"): (
        {("BTC-USDC-SWAP", "index")},
        "until 2023-04-10 USDC contracts had the USD index; ours takes the one of today",
    ),
}
"""Ticker values of a session that only they have: of which symbol, which, and why."""

RETIRED = {
    "map bybit messages": ("messages", "messagesIncludingOrderBook200"),  # before v5
    "map okex-futures messages": ("messages", "messagesTickByTick"),  # before v5
    "map okex-swap messages": ("messages",),  # before v5
    "map binance delivery messages": ("messages",),  # coin-margined
}
"""Arrays of formats that our codecs do not read."""


# ------------------------------------------------------------------------------- the oracle


def read(name: str) -> list[dict[str, Any]]:
    path = recording("tardis_node_messages", name)
    return [json.loads(line) for line in path.read_text().splitlines()]


def messages(test: str, array: str) -> list[tuple[int, Any]]:
    rows = read("raw_messages.jsonl")
    return [(r["n"], r["message"]) for r in rows if (r["test"], r["array"]) == (test, array)]


def expected(session: Session) -> dict[int, list[dict[str, Any]]]:
    """Their output by the number of the frame."""
    rows = {row["key"]: row["out"] for row in read("expected_normalised.jsonl")}
    numbers = [n for n, _ in messages(session.test, session.array)]
    key = f"{session.prefix}{session.test} "
    return {n: rows[f"{key}{session.offset + n}"] for n in numbers}


def epoch_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def theirs(rows: list[dict[str, Any]], session: Session) -> list[Fact]:
    """Trades, books and liquidations as facts in base units."""
    facts: list[Fact] = []
    contracts = dict(session.contracts)

    def units(amount: float, price: float, symbol: str) -> float:
        contract = contracts.get(symbol, 1.0)
        value = amount * contract / price if symbol in session.inverse else amount * contract
        return float(f"{value:.9g}")

    for row in rows:
        symbol, at = row["symbol"], epoch_ms(row["timestamp"])
        match row["type"]:
            case "trade":
                quantity = units(row["amount"], row["price"], symbol)
                facts.append(("trade", symbol, row["price"], quantity, row["side"], at))
            case "liquidation":
                side = "long" if row["side"] == "sell" else "short"  # theirs is the order's
                quantity = units(row["amount"], row["price"], symbol)
                facts.append(("liquidation", symbol, row["price"], quantity, side, at))
            case "book_change":
                sides = [
                    tuple((r["price"], units(r["amount"], r["price"], symbol)) for r in row[name])
                    for name in ("bids", "asks")
                ]
                at = 0 if row["timestamp"] == row["localTimestamp"] else at
                facts.append(("book", symbol, row["isSnapshot"], *sides, at))
    return facts


def ours(out: Out) -> list[Fact]:
    """The same of our events. A snapshot and the buffered changes after it are one book."""
    facts: list[Fact] = []
    for event in out:
        if isinstance(event, Trade):
            what: Fact = ("trade", event.price, event.quantity, event.taker)
        elif isinstance(event, Liquidation):
            what = ("liquidation", event.price, event.quantity, event.side)
        elif isinstance(event, BookSnapshot | BookDelta):
            if isinstance(event, BookDelta) and facts and facts[-1][2] is True:
                facts[-1] = with_changes(facts[-1], event)
                continue
            whole = isinstance(event, BookSnapshot)
            what = ("book", whole, rounded(event.bids), rounded(event.asks))
        else:
            continue
        symbol = event.instrument.partition(":")[2]
        values = [float(f"{v:.9g}") if isinstance(v, float) else v for v in what[1:]]
        facts.append((what[0], symbol, *values, event.sent_at // MS))
    return facts


def rounded(levels: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    return tuple((price, float(f"{quantity:.9g}")) for price, quantity in levels)


def with_changes(book: Fact, delta: BookDelta) -> Fact:
    sides = []
    for levels, changes in ((book[3], delta.bids), (book[4], delta.asks)):
        merged = {**dict(levels), **dict(changes)}
        sides.append(tuple(merged.items()))
    return (*book[:3], *sides, book[5])


def their_tickers(rows: list[dict[str, Any]]) -> set[Fact]:
    """Every value their merged ticker ever had."""
    facts: set[Fact] = set()
    for row in rows:
        if row["type"] != "derivative_ticker":
            continue
        symbol = row["symbol"]
        for key, name in (("markPrice", "mark"), ("indexPrice", "index")):
            if key in row:
                facts.add((symbol, name, float(row[key])))
        if "fundingRate" in row:
            at = row.get("fundingTimestamp")
            rate = float(f"{row['fundingRate']:.12g}")
            facts.add((symbol, "funding", rate, at and epoch_ms(at)))
        if "openInterest" in row:
            facts.add((symbol, "open_interest", float(row["openInterest"])))
    return facts


def our_tickers(out: Out, venue: str) -> set[Fact]:
    """The same of our events, funding as the rate of its own interval."""
    facts: set[Fact] = set()
    for event in out:
        if isinstance(event, MarkPrice):
            symbol = event.instrument.partition(":")[2]
            facts |= {(symbol, "mark", event.mark)} if event.mark is not None else set()
            facts |= {(symbol, "index", event.index)} if event.index is not None else set()
        elif isinstance(event, Funding):
            symbol = event.instrument.partition(":")[2]
            rate = float(f"{event.rate_8h * event.interval_hours / 8:.12g}")
            at = None if venue == "hyperliquid" or not event.next_at else event.next_at // MS
            facts.add((symbol, "funding", rate, at))
        elif isinstance(event, OpenInterest):
            facts.add((event.instrument.partition(":")[2], "open_interest", event.base))
    return facts


# --------------------------------------------------------------------------------- our side


def codec_of(session: Session) -> Codec:
    contracts = dict(session.contracts)
    known = [
        instrument(
            session.venue,
            symbol,
            kind="inverse" if symbol in session.inverse else "linear",
            contract=contracts.get(symbol, 1.0),
            tick=0.00001,
            funding_interval_hours=FUNDING_HOURS[session.venue],
        )
        for symbol in session.symbols
    ]
    return started(VENUES[session.venue](config(*session.symbols), known), AT)


def deliver(made: Codec, message: Any, *, venue: str, at: int) -> Out:
    """A frame as the venue sends it; what the recorder polled is an HTTP answer."""
    data = msgspec.json.encode(message)
    if venue == "binance" and message.get("generated"):
        symbol = message["stream"].partition("@")[0].upper()
        body, key = message["data"], f"depth:{symbol}"
        if message["stream"].endswith("@openInterest"):
            key = f"open_interest:{symbol}"
            body = {"time": at // MS} | body
        return made.reply(Reply(at, venue, key, 200, msgspec.json.encode(body)))
    return made.receive(Frame(at, made.feeds[0].name, data))


def run(session: Session) -> dict[int, Out]:
    """Our events by the number of the frame."""
    made = codec_of(session)
    outs = {}
    for n, message in messages(session.test, session.array):
        if n in session.skip:
            continue
        inner = message["message"] if session.wrapped else message
        outs[n] = deliver(made, inner, venue=session.venue, at=AT + n * NS)
        for event in outs[n]:
            assert not isinstance(event, Rejected) or event.reason in REASONS
    return outs


IDS = [f"{session.venue} {session.array} {session.offset}" for session in SESSIONS]


# ---------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize("session", SESSIONS, ids=IDS)
def test_trades_books_and_liquidations_agree_with_the_oracle(session: Session) -> None:
    wanted = expected(session)
    agreed: Counter[str] = Counter()
    for n, out in run(session).items():
        reason = DIFFERENT.get((session.test, session.array, n))
        mine, other = ours(out), theirs(wanted[n], session)
        if reason is not None:
            assert mine != other, f"frame {n} agrees, though it is said that {reason}"
        else:
            assert mine == other, f"frame {n}"
            agreed.update(fact[0] for fact in mine)
    if session.array in {"messagesV5", "okexFuturesV5Messages"}:
        assert agreed["trade"] > 0
        assert agreed["book"] > 0
    if session.array in {"messagesAllLiquidation", "okexFuturesV5Messages"}:
        assert agreed["liquidation"] == 1
    if session.venue in {"binance", "hyperliquid"}:
        assert min(agreed["trade"], agreed["book"]) >= 1


@pytest.mark.parametrize("session", SESSIONS, ids=IDS)
def test_mark_index_funding_and_open_interest_agree_with_the_oracle(session: Session) -> None:
    rows = [row for n, found in expected(session).items() for row in found if n not in session.skip]
    other = their_tickers(rows)
    if session.venue == "hyperliquid":  # theirs has no time of the next funding
        assert all(fact[-1] is None for fact in other if fact[1] == "funding")
    amounts = {fact for fact in other if fact[1] == "open_interest"}
    other -= amounts
    mine: set[Fact] = set()
    for out in run(session).values():
        mine |= our_tickers(out, session.venue)
    if session.venue == "bybit":  # a test of its own below
        mine = {fact for fact in mine if fact[1] != "open_interest"}
    else:
        contracts = dict(session.contracts)
        other |= {(symbol, name, v * contracts.get(symbol, 1.0)) for symbol, name, v in amounts}
    only_theirs, _ = ONLY_THEIRS.get((session.test, session.array), (set(), ""))
    assert {fact[:2] for fact in other - mine} == only_theirs
    assert mine <= other


def test_bybits_open_interest_is_half_of_the_oracles_which_counts_both_sides() -> None:
    session = SESSIONS[1]
    found = [
        (event.instrument, event.base)
        for out in run(session).values()
        for event in out
        if isinstance(event, OpenInterest)
    ]
    [row] = [r for r in expected(session)[11] if r["type"] == "derivative_ticker"]
    assert found == [("bybit:BTCUSDT", row["openInterest"] / 2)]


@pytest.mark.parametrize(
    "session",
    [s for s in SESSIONS if s.timed and s.venue != "hyperliquid"],
    ids=lambda session: f"{session.venue} {session.array} {session.offset}",
)
def test_mark_prices_have_the_time_of_the_oracle(session: Session) -> None:
    wanted = expected(session)
    for n, out in run(session).items():
        times = {(e.mark, e.sent_at // MS) for e in out if isinstance(e, MarkPrice) and e.mark}
        rows = [row for row in wanted[n] if row["type"] == "derivative_ticker"]
        assert times <= {(row.get("markPrice"), epoch_ms(row["timestamp"])) for row in rows}


def test_an_aggregate_trade_is_taken_by_ours_and_passed_over_by_theirs() -> None:
    session = SESSIONS[0]
    [(_, message)] = [m for m in messages(session.test, session.array) if m[0] == 1]
    assert expected(session)[1] == []
    [event] = deliver(codec_of(session), message, venue="binance", at=AT)
    data = message["data"]
    assert isinstance(event, Trade)
    assert (event.price, event.quantity) == (float(data["p"]), float(data["q"]))
    assert (event.taker, event.sent_at) == ("buy", data["T"] * MS)


@pytest.mark.parametrize("test", sorted(RETIRED))
def test_formats_of_the_past_are_counted_and_give_no_event(test: str) -> None:
    venue = {"bybit": "bybit", "okex-futures": "okx", "okex-swap": "okx"}.get(
        test.split()[1], "binance"
    )
    made = codec_of(next(session for session in SESSIONS if session.venue == venue))
    seen: dict[str, int] = defaultdict(int)
    for array in RETIRED[test]:
        for n, message in messages(test, array):
            for event in deliver(made, message, venue=venue, at=AT + n * NS):
                assert isinstance(event, Rejected), (array, n, event)
                seen[event.reason] += 1
    assert seen
    assert set(seen) <= set(REASONS)


NAUTILUS = {
    ("binance", "futures/market_data_json/agg_trade_stream.json"): ["Trade"],
    ("binance", "futures/market_data_json/book_ticker_stream.json"): [],
    ("binance", "futures/market_data_json/depth_update_stream.json"): ["Fetch"],
    ("binance", "futures/market_data_json/kline_stream_closed.json"): [],
    ("binance", "futures/market_data_json/liquidation_stream.json"): ["Liquidation"],
    ("binance", "futures/market_data_json/mark_price_stream.json"): ["MarkPrice", "Funding"],
    ("binance", "futures/market_data_json/ticker_stream.json"): [],
    ("binance", "futures/market_data_json/trade_stream.json"): ["Trade"],
    ("bybit", "ws_orderbook_snapshot.json"): ["BookSnapshot"],
    ("bybit", "ws_public_trade.json"): ["Rejected"],  # `trade.linear.` was never a topic of v5
    ("bybit", "ws_subscription_ack.json"): [],
    ("bybit", "ws_subscription_failure.json"): ["Rejected"],
    ("bybit", "ws_ticker_linear.json"): ["MarkPrice", "OpenInterest", "Funding"],
    ("okx", "ws_books_snapshot.json"): ["Rejected"],  # spot
    ("okx", "ws_funding_rate.json"): ["Funding"],
    ("okx", "ws_trades.json"): ["Rejected"],  # an index
    ("hyperliquid", "ws_allmids.json"): [],
    ("hyperliquid", "ws_user_fill_liquidation.json"): [],
}
"""What becomes of another project's fixtures, many of which are examples out of documentation."""


@pytest.mark.parametrize(("venue", "name"), sorted(NAUTILUS))
def test_fixtures_of_another_project_are_understood(venue: str, name: str) -> None:
    path = recording("nautilus_fixtures", venue, "test_data", name)
    symbols = {"okx": ("BTC-USDT-SWAP",), "hyperliquid": ("BTC",)}.get(venue, ("BTCUSDT",))
    made = codec_of(Session(venue, "", "", 0, symbols))
    out = deliver(made, json.loads(path.read_text()), venue=venue, at=AT)
    assert [type(event).__name__ for event in out] == NAUTILUS[venue, name]
